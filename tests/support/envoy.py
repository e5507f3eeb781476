"""A real Envoy with the configuration of examples/opa, and opa-envoy-plugin with the operator's, but for ports and files."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hack.children import Child
from hack.envoy import find_or_install
from hack.gotools import find_or_build
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import ROOT, Running
from tests.support.opa import LOOPBACK, Opa, free_port
from tests.support.raw_https import Answer, Fields, call
from zerotrust.opabundle.configuration import ENVOY_ADDRESS, ENVOY_FILE

EXAMPLES = ROOT / "examples" / "opa"
SVID = "/var/run/secrets/zerotrust/svid"
PATIENCE = 20.0


class EnvoyOpa(Opa):
    """opa-envoy-plugin: OPA with Envoy's ext_authz at the loopback port `grpc`."""

    grpc = 0

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Write the configuration, with a port that is free."""
        self.grpc = self.grpc or free_port()
        changed = deepcopy(dict(configuration))
        plugin = changed["plugins"]["envoy_ext_authz_grpc"]
        assert plugin["addr"] == ENVOY_ADDRESS
        plugin["addr"] = f"{LOOPBACK}:{self.grpc}"
        super().configure(changed)

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; this older OPA does not watch its configuration."""
        assert self._child is None, "it runs already"
        command: list[str | Path] = [find_or_build("opa-envoy-plugin"), "run", "--server", "--skip-version-check"]
        command += ["--addr", self.url.removeprefix("http://"), "--config-file", self._configuration]
        self._child = Child("opa-envoy", command, self.log, directory=self.folder, environment=environment)


class EnvoyDecisionPoints(DecisionPoints):
    """Decision points that read `opa-envoy.yaml`."""

    program = EnvoyOpa
    file = ENVOY_FILE


class Svid:
    """What an identity's Secret holds, as files."""

    def __init__(self, running: Running, folder: Path, secret: str, namespace: str) -> None:
        self._running, self._secret, self._namespace, self.folder = running, secret, namespace, folder
        folder.mkdir(parents=True)
        self.read()

    def read(self) -> str:
        """Read it as it is now; returns the certificates, leaf first."""
        text = self._running.plane.kubectl("get", "secret", self._secret, "-n", self._namespace, "-o", "json")
        found = {name: base64.b64decode(value) for name, value in json.loads(text)["data"].items()}
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (self.folder / name).write_bytes(found[name])
        return found["tls.crt"].decode()


def context(authorities: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client that verifies the server, with this certificate or without one."""
    made = ssl.create_default_context(cafile=str(authorities))
    if certificate is not None:
        made.load_cert_chain(certificate, key)
    return made


@dataclass
class Envoy:
    """A running one before an application, which keeps the headers of what reaches it in `seen`."""

    port: int
    name: str
    authorities: Path
    child: Child
    seen: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def call(self, caller: Svid | None, start: str = "GET /a", fields: Fields = ()) -> Answer:
        """What a caller gets; raw_https.Refused when the handshake fails."""
        files = (caller.folder / "tls.crt", caller.folder / "tls.key") if caller else (None, None)
        return await call(self.port, context(self.authorities, *files), self.name, start, fields)


@asynccontextmanager
async def envoy(folder: Path, port: int, server: Svid, name: str, opa: EnvoyOpa) -> AsyncIterator[Envoy]:
    """Envoy on this port with the server's SVID, which has this DNS name; it asks `opa`."""
    seen: list[tuple[str, Mapping[str, str]]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.raw_path, dict(request.headers)))
        return web.Response(text="from the application")

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    admin = free_port()
    configuration = _configured(folder, port, admin, runner.addresses[0][1], server, opa)
    command = [find_or_install(), "-c", configuration, "--log-level", "warn", "--concurrency", "1"]
    child = Child("envoy", [*command, "--disable-hot-restart"], folder / "envoy.log")
    try:
        await _live(admin, child)
        yield Envoy(port, name, server.folder / "ca.crt", child, seen)
    finally:
        child.stop(5)
        await runner.cleanup()


def _configured(folder: Path, port: int, admin: int, application: int, server: Svid, opa: EnvoyOpa) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "address: 0.0.0.0, port_value: 8443": f"address: {LOOPBACK}, port_value: {port}",
        "port_value: 8080": f"port_value: {application}",
        "port_value: 9191": f"port_value: {opa.grpc}",
        "path: /etc/envoy/svid.yaml": f"path: {folder}/svid.yaml",
        "/etc/zerotrust/trust-bundle/bundle.pem": f"{server.folder}/ca.crt",
        "timeout: 0.5s": "timeout: 3s",
    }
    text = (EXAMPLES / "envoy.yaml").read_text()
    for before, after in places.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    text += f"admin: {{address: {{socket_address: {{address: {LOOPBACK}, port_value: {admin}}}}}}}\n"
    (folder / "svid.yaml").write_text((EXAMPLES / "svid.yaml").read_text().replace(SVID, str(server.folder)))
    (folder / "envoy.yaml").write_text(text)
    return folder / "envoy.yaml"


async def _live(admin: int, child: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and child.exit_code is None:
            try:
                async with session.get(f"http://{LOOPBACK}:{admin}/ready") as response:
                    if "LIVE" in await response.text():
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(f"Envoy is not ready:\n{child.tail()}")
