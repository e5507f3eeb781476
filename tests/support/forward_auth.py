"""forward-auth as a process, beside a real OPA that runs signed bundles from a host of the test's."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from hack.children import Child
from tests.support.api_keys import a_key, a_principal, a_record
from tests.support.bundle_files import CLIENT, INSTANCE, NAMESPACE, POLICY, REVOCATIONS, SERVER, policy, revocations
from tests.support.bundle_host import BundleHost
from tests.support.certificates import Issued, a_leaf, a_root, key_pem, pem
from tests.support.opa import LOOPBACK, Opa, free_port
from tests.support.tokens import provider, token
from zerotrust.opabundle import configuration, signing
from zerotrust.opabundle.archive import build
from zerotrust.opabundle.configuration import Service, Verification
from zerotrust.opabundle.document import content_hash
from zerotrust.opabundle.modules import modules

PROGRAM = Path(sys.executable).with_name("zerotrust")
PATIENCE = 20.0
PORT = 8443
API_KEY = a_key("Partner00001")
OTHER = "spiffe://example.org/ns/web/sa/other"


class Authority:
    """Signs SVIDs that are valid now, and writes them as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).replace(microsecond=0)
        self.root = a_root(not_before=now - timedelta(days=1), not_after=now + timedelta(days=1))
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(pem(self.root.certificate))

    def svid(self, identity: str, since: datetime | None = None) -> Issued:
        """An SVID from this moment on, or from a minute ago."""
        now = datetime.now(UTC).replace(microsecond=0)
        begin = since or now - timedelta(minutes=1)
        return a_leaf(self.root, uris=(identity.encode(),), not_before=begin, not_after=now + timedelta(hours=1))

    def files(self, svid: Issued, name: str) -> tuple[Path, Path]:
        """Write certificate and key."""
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(pem(svid.certificate))
        key.write_bytes(key_pem(svid.key))
        return certificate, key


@dataclass
class Gate:
    """Everything that stands behind the proxy."""

    authority: Authority
    host: BundleHost
    opa: Opa
    process: Child
    port: int
    metrics: int
    key: signing.SigningKey

    def publish(self, *, serial: int = 1, valid: int = 600, cutoffs: Mapping[str, int] | None = None) -> None:
        """Serve bundles in which CLIENT may GET below /api, below /user with a user's token, and below /key with API_KEY."""
        document = policy(CLIENT, modules=modules(), serial=serial, valid=valid)
        content = document["zerotrust_data"]["policy"]
        content["authorities"] = {"example.org": [self.authority.bundle.read_text()]}
        content["providers"] = {"example.org": {"corp": provider(not_after=int(time.time()) + 3600).document()}}
        rows = content["servers"][SERVER]["grants"][CLIENT]
        user = {"kind": "user", "provider": "corp", "audiences": ["orders"], "claims": {}}
        rows.append({**rows[0], "rule": "users", "methods": ["GET"], "paths": [["user", "**"]], "principal": user})
        key = a_principal("partner")
        rows.append({**rows[0], "rule": "keys", "methods": ["GET"], "paths": [["key", "**"]], "principal": key})
        content["api_keys"] = {"Partner00001": a_record(API_KEY, not_before=0, not_after=int(time.time()) + 3600)}
        rows[0].update(methods=["GET"], paths=[["api", "**"]])
        content["meta"]["revision"] = content_hash(
            {name: part for name, part in content.items() if name != "meta"}, modules()
        )
        self.host.publish(f"/bundles/{self.key.id}/{NAMESPACE}/policy", build(document, modules(), POLICY, self.key))
        archive = build(revocations(cutoffs, serial=serial, valid=valid), {}, REVOCATIONS, self.key)
        self.host.publish(f"/bundles/{self.key.id}/{NAMESPACE}/revocations", archive)

    async def until_ready(self) -> None:
        """Wait until its own probe says that OPA has its bundles."""
        deadline = time.monotonic() + PATIENCE
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://{LOOPBACK}:{self.metrics}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                assert self.process.exit_code is None, self.process.tail()
                assert time.monotonic() < deadline, self.process.tail() + self.opa.log.read_text()
                await asyncio.sleep(0.05)


def a_token(**changes: Any) -> str:
    """A token of a user that the gate's provider has signed now, as the value of `Authorization`."""
    now = int(time.time())
    return f"Bearer {token({'iat': now - 60, 'exp': now + 300, **changes})}"


@asynccontextmanager
async def gate(folder: Path, proxy: str = "nginx") -> AsyncIterator[Gate]:
    """A forward-auth that reads the headers of this proxy, for SERVER on PORT."""
    key, authority = signing.create(), Authority(folder / "certificates")
    async with BundleHost() as host:
        opa = Opa(folder / "opa", _configuration(host, folder, key))
        port, metrics = free_port(), free_port()
        command = [PROGRAM, "forward-auth", "--server", f"{SERVER}:{PORT}", "--from", proxy, "--opa", opa.url]
        command += ["--port", str(port), "--metrics-host", LOOPBACK, "--metrics-port", str(metrics)]
        process = Child("forward-auth", [*command, "--log-level", "DEBUG"], folder / "forward-auth.log")
        try:
            one = Gate(authority, host, opa, process, port, metrics, key)
            one.publish()
            opa.start()
            await one.until_ready()
            yield one
        finally:
            process.stop(10)
            await opa.close()


def _configuration(host: BundleHost, folder: Path, key: signing.SigningKey) -> dict[str, Any]:
    """The operator's, but for where the server is and how soon a failed download is repeated."""
    verification = Verification(key.id, signing.public_pem(key.public), INSTANCE)
    document = configuration.document(NAMESPACE, Service("https://bundles"), verification, str(folder / "persisted"))
    (folder / "token").write_text("a-token")
    service = document["services"]["zerotrust"]
    service.update(url=host.url, credentials={"bearer": {"token_path": str(folder / "token")}})
    del service["tls"]
    for bundle in document["bundles"].values():
        bundle["polling"]["max_delay_seconds"] = 1
    return document
