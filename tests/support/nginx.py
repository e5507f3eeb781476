"""A real NGINX with the configuration of examples/nginx, but for ports and files."""

import asyncio
import os
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from hack.children import Child
from tests.support.bundle_files import SERVER
from tests.support.certificates import Issued
from tests.support.deployment import ROOT
from tests.support.forward_auth import Gate
from tests.support.opa import LOOPBACK, free_port
from tests.support.raw_https import Fields, call

EXAMPLE = ROOT / "examples" / "nginx" / "zerotrust.conf"
PATIENCE = 10.0
AROUND = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {paths}
    include {folder}/zerotrust.conf;
}}
"""
PATHS = ("client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path", "scgi_temp_path")


def program() -> str:
    """The binary; where there is none, the test is skipped."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("NGINX IS NOT INSTALLED, so forward-auth is not proved with it: apt-get install nginx-light")
    return found


@dataclass
class Nginx:
    """A running one. `seen` is what has reached the application: method, path and headers; `bodies` are their lengths."""

    folder: Path
    port: int
    gate: Gate
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)

    async def call(
        self,
        caller: Issued | None,
        path: str = "/api/1",
        method: str = "GET",
        headers: Fields = (),
        body: bytes = b"",
    ) -> tuple[int, str]:
        """Status and reason as a client sees them."""
        context = ssl.create_default_context(cafile=str(self.gate.authority.bundle))
        context.check_hostname = False
        if caller is not None:
            context.load_cert_chain(*self.gate.authority.files(caller, "caller"))
        answer = await call(self.port, context, "orders", f"{method} {path}", headers, body)
        challenged = [value for name, value in answer.fields if name == "www-authenticate"]
        assert len(challenged) == (answer.status == 401), answer.fields
        return answer.status, answer.reason


@asynccontextmanager
async def nginx(folder: Path, gate: Gate, changes: Mapping[str, str] | None = None) -> AsyncIterator[Nginx]:
    """NGINX before this gate; `changes` are made to the example's text, and each must be found in it."""
    one = Nginx(folder, free_port(), gate)
    runner = web.AppRunner(_application(one))
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    _configure(one, runner.addresses[0][1], changes or {})
    child = Child("nginx", [program(), "-p", folder, "-c", folder / "nginx.conf"], folder / "nginx.log")
    try:
        await _listening(one, child)
        yield one
    finally:
        child.stop(5)
        await runner.cleanup()


def _configure(one: Nginx, application: int, changes: Mapping[str, str]) -> None:
    one.folder.mkdir(parents=True, exist_ok=True)
    certificate, key = one.gate.authority.files(one.gate.authority.svid(SERVER), "server")
    text = EXAMPLE.read_text()
    places = {
        "listen 8443 ssl": f"listen {LOOPBACK}:{one.port} ssl",
        "/var/run/secrets/zerotrust/svid/tls.crt": str(certificate),
        "/var/run/secrets/zerotrust/svid/tls.key": str(key),
        "/etc/zerotrust/trust-bundle/bundle.pem": str(one.gate.authority.bundle),
        "127.0.0.1:8080": f"{LOOPBACK}:{application}",
        "127.0.0.1:9292": f"{LOOPBACK}:{one.gate.port}",
    }
    for before, after in {**places, **changes}.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (one.folder / "zerotrust.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers could not write below the folder
    paths = "\n    ".join(f"{name} {one.folder}/{name};" for name in PATHS)
    (one.folder / "nginx.conf").write_text(AROUND.format(folder=one.folder, paths=paths, user=user))


def _application(one: Nginx) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        one.bodies.append(len(await request.read()))
        one.seen.append((request.method, request.raw_path, dict(request.headers)))
        return web.Response(text="from the application")

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    return app


async def _listening(one: Nginx, child: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and child.exit_code is None:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, one.port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError(f"NGINX does not listen:\n{child.tail()}")
