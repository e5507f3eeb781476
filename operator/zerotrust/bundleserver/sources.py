"""Where the bundle server's answers come from: signing keys, who has which SPIFFE ID, public documents, metrics of decisions."""

import asyncio
import logging
from collections import Counter as Counted
from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client import Counter

from zerotrust.bundleserver.caller import Workload
from zerotrust.bundleserver.decisions import OTHER, Labels, LogSummary
from zerotrust.bundleserver.documents import Document, DocumentKind
from zerotrust.common import naming
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.engine.cache import Cache
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.policybook import BY_ACCOUNT
from zerotrust.kube.client import Client
from zerotrust.opabundle import keys, signing
from zerotrust.opabundle.signing import SigningKey
from zerotrust.pki import keys as private_keys
from zerotrust.pki.secret import observe, value_of
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload as Place
from zerotrust.telemetry.metrics import Metrics
from zerotrust.trustdomain.bundle import SPIFFE_KEY

logger = logging.getLogger(__name__)

KEY_PERIOD = 2.0
MAX_LABELS = 2_000
DOCUMENT_SECONDS = 60


class SigningKeys:
    """The keys of the operator's Secret, read again and again; the last good ones stay."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._ref = Ref("Secret", namespace, naming.BUNDLE_KEYS)
        self.current: dict[str, SigningKey] = {}

    async def run(self) -> None:
        """Read until cancelled."""
        said = ""
        while True:
            try:
                self.current = await self._read()
                said = ""
            except ZerotrustError as error:
                if str(error) != said:
                    logger.warning("signing keys not read, trying again: %s", error)
                said = str(error)
            await asyncio.sleep(KEY_PERIOD)

    async def _read(self) -> dict[str, SigningKey]:
        body = await self._client.get(self._ref)
        found: dict[str, SigningKey] = {}
        for one in keys.stored(observe(body)):
            name = one.record.id
            try:
                private = private_keys.from_pem(value_of(body, name + keys.SUFFIX))
            except private_keys.UnreadableKey:
                raise signing.UnusableSigningKey(f"{name}{keys.SUFFIX} is not an unencrypted PEM private key") from None
            data = {
                signing.PRIVATE_KEY: private_keys.to_pkcs8(private),
                signing.PUBLIC_KEY: one.public_pem.encode(),
                signing.KEY_ID: name.encode(),
            }
            found[name] = signing.from_secret(data)
        return found


class Resolver:
    """Knows whose SPIFFE ID one is; what is revoked is nobody's."""

    def __init__(self, cache: Cache, contents: BundleContents) -> None:
        self._cache, self._contents = cache, contents

    def resolve(self, spiffe_id: SpiffeID, issued_at: datetime) -> Workload | None:
        """Whose ID this is; None when it is not ours, or when certificates from before then are revoked."""
        parts = spiffe_id.path.split("/")
        if len(parts) < 5 or parts[-4] != "ns" or parts[-2] != "sa":
            return None
        namespace, account = parts[-3], parts[-1]
        for one in self._cache.find(BY_ACCOUNT, (namespace, account)):
            if self._contents.spiffe_id(Place(one.meta.namespace, one.meta.name)) == spiffe_id:
                cutoff = self._contents.cutoffs().get(spiffe_id)
                revoked = cutoff is not None and issued_at < cutoff.before
                return None if revoked else Workload(namespace, account)
        return None


class PublicDocuments:
    """SPIFFE trust bundles, from the operator's own namespace."""

    def __init__(self, cache: Cache, namespace: str) -> None:
        self._cache, self._namespace = cache, namespace

    def document(self, kind: DocumentKind, trust_domain: str) -> Document | None:
        """The document of a trust domain, or None when there is none."""
        bundle = self._cache.get(Ref("ConfigMap", self._namespace, naming.trust_bundle_name(trust_domain)))
        text = bundle.data.get(SPIFFE_KEY) if bundle is not None and kind is DocumentKind.SPIFFE_BUNDLE else None
        return Document(text.encode(), DOCUMENT_SECONDS) if text else None


class DecisionMetrics:
    """Counts what decision points decided, by server, client and reason; beyond MAX_LABELS all are `other`.

    Each summary is then handed to `pass_on`.
    """

    def __init__(self, metrics: Metrics, pass_on: Callable[[LogSummary], None] = lambda _: None) -> None:
        self._pass_on = pass_on
        self._counters = {
            "decided": _counter(metrics, "decisions", "Verdicts of decision points."),
            "observed": _counter(metrics, "observed_decisions", "Verdicts that servers in Observe would have got."),
            "candidates": _counter(metrics, "candidate_decisions", "Verdicts with the rows of policies in Observe."),
        }
        self._seen: set[Labels] = set()

    def decisions(self, summary: LogSummary) -> None:
        """Take the summary of one upload."""
        self._pass_on(summary)
        views: Mapping[str, Counted[Labels]] = {
            "decided": summary.decided,
            "observed": summary.observed,
            "candidates": summary.candidates,
        }
        for view, counted in views.items():
            for labels, number in counted.items():
                self._counters[view].labels(*self._bounded(labels)).inc(number)

    def _bounded(self, labels: Labels) -> Labels:
        if labels not in self._seen and len(self._seen) >= MAX_LABELS:
            return Labels(OTHER, OTHER, labels.reason)
        self._seen.add(labels)
        return labels


def _counter(metrics: Metrics, name: str, description: str) -> Counter:
    return metrics.counter(name, description, ["server", "client", "reason"])
