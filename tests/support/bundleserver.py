"""A whole bundle server on a loopback port: real TLS, real clients, the fake API server for reviews."""

import asyncio
import contextlib
import hashlib
import json
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.certificates import Issued, a_leaf, a_root, key_pem, pem
from tests.support.fakeapi import FakeApi
from zerotrust.bundleserver.app import Parts
from zerotrust.bundleserver.auth import Authenticator
from zerotrust.bundleserver.auth_api import KubeReviews
from zerotrust.bundleserver.caller import AUDIENCE, POD_NAME, POD_UID, Workload
from zerotrust.bundleserver.counts import Counts
from zerotrust.bundleserver.decisions import LogReader, LogSummary
from zerotrust.bundleserver.documents import Document, DocumentKind
from zerotrust.bundleserver.intake import Delivery, Report
from zerotrust.bundleserver.limits import Limits
from zerotrust.bundleserver.server import BundleServer
from zerotrust.bundleserver.shelf import Bundle, Kind, Place, Shelf
from zerotrust.bundleserver.tls import TlsFiles, TlsIdentity
from zerotrust.kube.client import Client, load_configuration
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.telemetry.metrics import Metrics

TRUST_DOMAIN = "example.org"
POLICY = Place("k1", "shop", Kind.POLICY)
REVOCATIONS = Place("k1", "shop", Kind.REVOCATIONS)
PATH = "/bundles/k1/shop/policy"
POD = {POD_NAME: ["orders-0"], POD_UID: ["uid-orders-0"]}
LIMITS = Limits(drain_spread_seconds=0.2, drain_grace_seconds=1.0)


def a_bundle(serial: int = 1, epoch: int = 0, content: str = "", size: int = 0) -> Bundle:
    """A bundle whose content hash is that of its serial, unless `content` is given; the body is no real archive."""
    text = content or f"content {serial}"
    body = f"{serial}.{epoch} {text}".encode().ljust(size, b".")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Bundle(serial, digest, epoch, body, datetime.now(UTC) + timedelta(hours=24))


def lasting(hours: float = 24) -> dict[str, datetime]:
    """Validity around the real present, which TLS asks for."""
    now = datetime.now(UTC)
    return {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=hours)}


def an_id(account: str, namespace: str = "shop", trust_domain: str = TRUST_DOMAIN) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


def an_authority(**changes: Any) -> Issued:
    return a_root(**{**lasting(), **changes})


def an_svid(authority: Issued, account: str = "orders", namespace: str = "shop", **changes: Any) -> Issued:
    uris = (an_id(account, namespace).encode(),)
    return a_leaf(authority, **{**lasting(12), "uris": uris, **changes})


@dataclass
class ShiftedClock:
    """The real clock and an offset, which a test moves."""

    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += timedelta(seconds=seconds)

    async def wait(self, wake: asyncio.Event, until: datetime | None) -> None:
        await wake.wait()


@dataclass
class Directory:
    """Derives the ServiceAccount from the ID as the operator does; `revoked` maps IDs to their cut-off."""

    revoked: dict[str, datetime] = field(default_factory=dict)

    def resolve(self, spiffe_id: SpiffeID, issued_at: datetime) -> Workload | None:
        match spiffe_id.path.split("/"):
            case ["", "ns", namespace, "sa", account] if issued_at >= self.revoked.get(str(spiffe_id), issued_at):
                return Workload(namespace, account)
        return None


@dataclass
class Sinks:
    """What came out of the server."""

    reports: list[Report] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    summaries: list[LogSummary] = field(default_factory=list)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def delivered(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def decisions(self, summary: LogSummary) -> None:
        self.summaries.append(summary)


@dataclass
class Documents:
    found: dict[tuple[DocumentKind, str], Document] = field(default_factory=dict)

    def document(self, kind: DocumentKind, trust_domain: str) -> Document | None:
        return self.found.get((kind, trust_domain))


def a_token(
    user: str = "orders", *, seconds: float = 600, audience: Any = (AUDIENCE,), salt: str = "", **claims: Any
) -> str:
    """A token as a ServiceAccount has it but for the signature, which only the API server looks at."""
    body = {"aud": list(audience), "exp": int(datetime.now(UTC).timestamp() + seconds), "sub": user, "jti": salt}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, {**body, **claims})]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b"signature"))


class Rig:
    """The server, what it is made of, and clients of it."""

    def __init__(self, api: FakeApi, folder: Path, limits: Limits) -> None:
        self.api, self.folder, self.limits = api, folder, limits
        self.clock, self.shelf, self.sinks = ShiftedClock(), Shelf(), Sinks()
        self.directory, self.documents = Directory(), Documents()
        self.metrics = Metrics()
        self.authority = an_authority()
        self.install(an_svid(self.authority, "bundle-server", "zerotrust-system"), self.authority)
        self.server: BundleServer
        self.tls: TlsIdentity
        self.sessions = contextlib.AsyncExitStack()

    def install(self, svid: Issued, *authorities: Issued) -> None:
        """Write the server's files, as an update of the mounted Secret does."""
        (self.folder / "tls.crt").write_bytes(pem(svid.certificate))
        (self.folder / "tls.key").write_bytes(key_pem(svid.key))
        (self.folder / "ca.crt").write_bytes(pem(*(one.certificate for one in authorities)))

    async def start(self, client: Client) -> None:
        self.tls = TlsIdentity(TlsFiles(*(self.folder / name for name in ("tls.crt", "tls.key", "ca.crt"))))
        reviews = KubeReviews(client, self.limits.review_seconds)
        limits = self.limits
        self.parts = Parts(
            shelf=self.shelf,
            authenticator=Authenticator(reviews, self.directory, self.clock, TRUST_DOMAIN, limits),
            documents=self.documents,
            reports=self.sinks,
            logs=self.sinks,
            log_reader=LogReader(self.directory, limits.log_entries, limits.label_sets, limits.denials),
            clock=self.clock,
            counts=Counts(self.metrics),
            limits=limits,
        )
        self.server = BundleServer(self.parts, self.tls, "127.0.0.1", 0, reload_seconds=3600)
        await self.server.start()

    def again(self) -> BundleServer:
        """Another server over the same parts, with metrics of its own, not started."""
        parts = replace(self.parts, counts=Counts(Metrics()))
        return BundleServer(parts, self.tls, "127.0.0.1", 0, reload_seconds=3600)

    def token(self, account: str = "orders", namespace: str = "shop", *, may: bool = True, **changes: Any) -> str:
        """A token that the API server accepts, and with `may` the right to the namespace's bundles."""
        pod = changes.pop("pod", {POD_NAME: [f"{account}-0"], POD_UID: [f"uid-{account}-0"]})
        token = a_token(account, **changes)
        user = f"system:serviceaccount:{namespace}:{account}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        self.api.reviews.tokens[token] = (
            {"username": user, "uid": f"uid-{account}", "groups": groups, "extra": pod},
            [AUDIENCE],
        )
        if may:
            self.api.reviews.rights.add((user, namespace))
        return token

    def context(self, svid: Issued | None = None, *trusted: Issued) -> ssl.SSLContext:
        """A client's TLS: it trusts our authority, and shows its SVID if it has one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        authorities = trusted or (self.authority,)
        context.load_verify_locations(cadata=pem(*(one.certificate for one in authorities)).decode())
        if svid is not None:
            file = self.folder / "client.pem"
            file.write_bytes(pem(svid.certificate) + key_pem(svid.key))
            context.load_cert_chain(file)
        return context

    async def session(self, token: str = "", svid: Issued | None = None, *trusted: Issued) -> aiohttp.ClientSession:
        """A client with a connection pool of its own."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        session = aiohttp.ClientSession(
            f"https://127.0.0.1:{self.server.port}",
            connector=aiohttp.TCPConnector(ssl=self.context(svid, *trusted), limit=0),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=20),
        )
        return await self.sessions.enter_async_context(session)

    async def raw(self, svid: Issued | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TLS connection."""
        return await asyncio.open_connection("127.0.0.1", self.server.port, ssl=self.context(svid))

    async def waiting(self, number: int) -> None:
        """Return when so many requests are held."""
        await self.api.until(lambda: self.shelf.waiting() == number)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"zerotrust_bundle_{name}", labels) or 0.0


def wait(seconds: int = 30) -> dict[str, str]:
    """The header with which OPA asks to be held."""
    return {"Prefer": f"modes=snapshot,delta;wait={seconds}"}


@contextlib.asynccontextmanager
async def serving(folder: Path, **limits: Any) -> AsyncIterator[Rig]:
    """A running server over a running fake API server; everything is stopped at the end."""
    async with FakeApi(namespaces=["shop"]) as api:
        configuration = await load_configuration(str(api.kubeconfig(folder / "kubeconfig")))
        rig = Rig(api, folder, replace(LIMITS, **limits))
        async with Client(configuration, rig.metrics, timeout=2) as client:
            await rig.start(client)
            try:
                yield rig
            finally:
                await rig.sessions.aclose()
                await rig.server.stop()
