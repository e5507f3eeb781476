"""What each namespace's bundles should say now, from the cache: the same in the controller and in every bundle server."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.engine.apikeybook import API_KEYS, ApiKeyBook
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.policybook import POLICIES, AcceptedVersion, PolicyBook
from zerotrust.engine.trustdomains import Domain, TrustDomains
from zerotrust.engine.trustdomains import Identity as ObservedIdentity
from zerotrust.identity.snapshot import service_account
from zerotrust.identity.wanted import asked_cutoff
from zerotrust.opabundle import record, revocations
from zerotrust.opabundle.archive import Kind
from zerotrust.opabundle.document import Server, content_hash, policy_document, revocations_document
from zerotrust.opabundle.modules import modules
from zerotrust.opabundle.record import Entry
from zerotrust.opabundle.revocations import Cutoff
from zerotrust.pki import x509 as profiles
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.policy.reading import Policy
from zerotrust.providers import memory, publish
from zerotrust.trustdomain.bundle import PEM_KEY
from zerotrust.trustdomain.resource import IdentityProvider, PolicyBundles, TrustDomainSpec

RECORDS = "bundle-records"
_WITHOUT_KEYS = ""  # namespaces without revoked keys share one content
REVOKING = "identities-that-revoke"


Part = AcceptedVersion | str
"""A version of a policy, or a key's id."""


@dataclass(frozen=True)
class Content:
    """A bundle's document without `meta`, and the hash that stands for it and the modules."""

    document: Mapping[str, Any]
    revision: str


class BundleContents:
    """Contents are computed when asked for and kept until a change is about them."""

    def __init__(self, cache: Cache, book: PolicyBook, domains: TrustDomains, clock: Clock) -> None:
        self._cache, self._book, self._domains, self._clock = cache, book, domains, clock
        self.keys = ApiKeyBook(cache, domains.operator_namespace, self.spiffe_id)
        self._policies: dict[str, Content] = {}
        self._revocations: dict[str, Content] = {}
        self._cutoffs: dict[SpiffeID, Cutoff] | None = None
        self._asked: tuple[Change, frozenset[str]] | None = None
        cache.index(RECORDS, "ConfigMap", self._recorded)
        cache.index(REVOKING, "ServiceIdentity", lambda one: [""] if asked_cutoff(one) is not None else [])
        cache.listen(self._changed)

    def _recorded(self, one: ConfigMap) -> list[str]:
        ours = one.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_BUNDLE_RECORD
        return [""] if ours and one.meta.namespace == self._domains.operator_namespace else []

    def namespaces(self) -> list[str]:
        """The namespaces that have bundles."""
        found: list[ConfigMap] = self._cache.find(RECORDS, "")
        return [one.meta.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX) for one in found]

    def record_ref(self, namespace: str) -> Ref:
        """Where the record of a namespace's bundles is."""
        return Ref("ConfigMap", self._domains.operator_namespace, naming.bundle_record_name(namespace))

    def record(self, namespace: str) -> dict[Kind, Entry]:
        """What is to be served for a namespace."""
        return record.read(self._cache.get(self.record_ref(namespace)))

    def is_needed(self, namespace: str) -> bool:
        """Whether a namespace has bundles, or wants them: a bundle server is there, and a policy asks for a decision point, or
        there are ApiKeys.
        """
        if self._cache.get(self.record_ref(namespace)) is not None:
            return True
        if self._cache.get(self._bundle_server) is None:
            return False
        if self.keys.has_keys(namespace):
            return True
        if not self._cache.size(POLICIES, namespace):
            return False
        return any("OPA" in self._book.table(one).layers for one in self._book.identities(namespace))

    @property
    def _bundle_server(self) -> Ref:
        """The identity by which a cluster says that it runs a bundle server (manifests/base)."""
        return Ref("ServiceIdentity", self._domains.operator_namespace, naming.BUNDLE_SERVER)

    def content(self, namespace: str, kind: Kind) -> Content:
        """What a bundle should say now."""
        if kind == "revocations":
            place = self._revocations_place(namespace)
            if place not in self._revocations:
                revoked = self.keys.revoked(namespace)
                document = revocations_document({name: one.before for name, one in self.cutoffs().items()}, revoked)
                self._revocations[place] = Content(document, content_hash(document, {}))
            return self._revocations[place]
        known = self._policies.get(namespace)
        if known is None:
            document = self._document(namespace)
            known = self._policies[namespace] = Content(document, content_hash(document, modules()))
        return known

    def known(self, namespace: str, kind: Kind) -> Content | None:
        """What a bundle should say now, if that was asked before and nothing has changed since: it costs nothing."""
        if kind == "policy":
            return self._policies.get(namespace)
        return self._revocations.get(self._revocations_place(namespace))

    def parts(self, namespace: str, kind: Kind) -> set[Part]:
        """What a bundle is made of now, so that one can ask since when it is in it: versions of policies and keys' ids, or
        the ids of revoked keys.
        """
        document = self.content(namespace, kind).document
        if kind == "revocations":
            return set(document["keys"])
        policies: list[Policy] = self._cache.find(POLICIES, namespace)
        return {*(self._book.version(one) for one in policies), *document["api_keys"]}

    def _revocations_place(self, namespace: str) -> str:
        return namespace if self.keys.revoked(namespace) else _WITHOUT_KEYS

    def _document(self, namespace: str) -> dict[str, Any]:
        servers, domains = [], {}
        for identity in self._book.identities(namespace):
            domain = self._domain(identity.workload)
            # Of two identities with one ServiceAccount only the elder speaks for it.
            if domain is not None and isinstance(domain.spec, TrustDomainSpec) and identity.resolved:
                stale = domain.spec.policy_bundles.on_stale_revocations
                servers.append(Server(self._book.table(identity), domain.meta.name, stale))
                domains[domain.meta.name] = domain.spec
        providers = {
            name: {
                one.name: entry for one in spec.identity_providers if (entry := self._provider(name, one)) is not None
            }
            for name, spec in domains.items()
        }
        authorities = {name: found for name in domains if (found := self._authorities(name))}
        return policy_document(servers, self.spiffe_id, providers, authorities, self.keys.good(namespace))

    def _provider(self, trust_domain: str, provider: IdentityProvider) -> dict[str, object] | None:
        """With the keys that stand in the resource, or those that the controller has fetched and published; None without any."""
        if provider.jwks is not None:
            try:
                return publish.inline(provider, "").document()
            except SpecError:
                return None
        place = memory.place(self._domains.operator_namespace, trust_domain, provider.name)
        entry = memory.published(self._cache.get(place), provider)
        return entry.document() if entry is not None else None

    def _authorities(self, trust_domain: str) -> list[str]:
        """From the trust bundle in the operator's own namespace, which no tenant can edit."""
        place = Ref("ConfigMap", self._domains.operator_namespace, naming.trust_bundle_name(trust_domain))
        bundle: ConfigMap | None = self._cache.get(place)
        try:
            roots = profiles.read_pem((bundle.data.get(PEM_KEY, "") if bundle is not None else "").encode())
        except ValueError:
            return []
        return [profiles.write_pem(root).decode() for root in roots]

    def spiffe_id(self, workload: Workload) -> SpiffeID | None:
        """The ID of a ServiceIdentity, None while its TrustDomain is unknown."""
        observed, domain = self._observed(workload), self._domain(workload)
        if observed is None or domain is None or not isinstance(domain.spec, TrustDomainSpec):
            return None
        account = service_account(observed)
        return SpiffeID.of_service_account(domain.meta.name, workload.namespace, account, domain.spec.cluster_name)

    def _observed(self, workload: Workload) -> ObservedIdentity | None:
        observed: ObservedIdentity | None = self._cache.get(Ref("ServiceIdentity", *workload))
        return observed

    def _domain(self, workload: Workload) -> Domain | None:
        observed = self._observed(workload)
        return self._domains.of(observed) if observed is not None else None

    def cutoffs(self) -> dict[SpiffeID, Cutoff]:
        """Every cut-off that counts, remembered or just asked for.

        When one begins or ends by the clock, the controller writes it into the memory, and that is a change like any other.
        """
        if self._cutoffs is None:
            remembered = revocations.read(self._cache.get(self.revocations_ref))
            self._cutoffs = revocations.in_force(remembered, self.asked_cutoffs(), self._clock.now())
        return self._cutoffs

    @property
    def revocations_ref(self) -> Ref:
        """Where cut-offs are remembered."""
        return Ref("ConfigMap", self._domains.operator_namespace, naming.REVOCATIONS)

    def asked_cutoffs(self) -> dict[SpiffeID, datetime]:
        """The cut-offs that ServiceIdentities ask for now."""
        asked: dict[SpiffeID, datetime] = {}
        for one in self._cache.find(REVOKING, ""):
            name, before = self.spiffe_id(Workload(one.meta.namespace, one.meta.name)), asked_cutoff(one)
            if name is not None and before is not None:
                asked[name] = max(before, asked.get(name, before))
        return asked

    def validity(self, namespace: str, kind: Kind) -> timedelta:
        """For how long a bundle may be used without news: the shortest that a TrustDomain of the namespace says."""
        found = [
            domain.spec.policy_bundles
            for domain in self._domains.all()
            if isinstance(domain.spec, TrustDomainSpec) and self._domains.has_identities(domain, namespace)
        ]
        return min(one.validity if kind == "policy" else one.revocation_validity for one in found or [PolicyBundles()])

    # What a change is about

    def _changed(self, change: Change) -> None:
        if not change.ref.name.endswith(naming.BUNDLE_RECORD_SUFFIX):
            for namespace in self.concerned(change):
                self._policies.pop(namespace, None)
                self._revocations.pop(namespace, None)
        if change.ref == self.revocations_ref or change.ref.kind == "TrustDomain" or _revokes(change):
            self._cutoffs = None
            self._revocations.clear()

    def concerned(self, change: Change) -> frozenset[str]:
        """The namespaces whose bundles a change may change; found once for all who listen to the change."""
        if self._asked is None or self._asked[0] is not change:
            self._asked = (change, frozenset(self._find(change)))
        return self._asked[1]

    def _find(self, change: Change) -> Iterator[str]:
        yield from (server.namespace for server in self._book.servers_of(change))
        yield from self.keys.concerned(change)
        match change.ref.kind:
            case "ServiceIdentity" if change.ref == self._bundle_server:
                for index in (POLICIES, API_KEYS):
                    yield from (str(namespace) for namespace, _ in self._cache.sizes(index))
                yield from self.namespaces()
            case "ServiceIdentity" if _revokes(change):
                yield from self.namespaces()
            case "ConfigMap" if change.ref.namespace == self._domains.operator_namespace:
                name = change.ref.name
                if name.endswith(naming.BUNDLE_RECORD_SUFFIX):
                    yield name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)
                elif name == naming.REVOCATIONS or name.endswith(
                    (naming.TRUST_BUNDLE_SUFFIX, naming.IDENTITY_PROVIDER_SUFFIX)
                ):
                    yield from self.namespaces()


def _revokes(change: Change) -> bool:
    both = (change.old, change.new) if change.ref.kind == "ServiceIdentity" else ()
    return any(one is not None and asked_cutoff(one) is not None for one in both)
