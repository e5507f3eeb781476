"""An identity provider on loopback: real HTTPS, what it answers is the test's choice, what it was asked is counted."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509

from tests.support.certificates import a_leaf, a_root, key_pem, pem
from tests.support.tokens import jwk, jwks

ADDRESS = "127.0.0.1"
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Issuer:
    """A running issuer; `asked` has the headers of every request for its keys."""

    port: int
    ca_bundle: str
    asked: list[Mapping[str, str]] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Handler | None = None

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self.port}"

    def provider(self, name: str = "corp", **changes: Any) -> dict[str, Any]:
        """The entry of a TrustDomain."""
        whole = {
            "name": name,
            "issuer": self.url,
            "algorithms": ["ES256"],
            "jwksURI": f"{self.url}/keys",
            "caBundle": self.ca_bundle,
            **changes,
        }
        return {key: value for key, value in whole.items() if value is not None}

    def publishes(self, *kids: str, max_age: int = 600, etag: str = "") -> None:
        """Answer with these keys from now on; 304 to whoever shows the ETag."""
        body = jwks(*(jwk(f"ES256 {kid}", kid) for kid in kids))
        headers = {"Cache-Control": f"max-age={max_age}", **({"ETag": etag} if etag else {})}

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path.endswith("/.well-known/openid-configuration"):
                return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
            if etag and request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers=headers)
            return web.Response(text=body, headers=headers)

        self.answer = answer

    def fails(self, status: int = 500, body: bytes = b"", **headers: str) -> None:
        """Answer like this from now on."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=headers)

        self.answer = answer

    def hangs(self) -> None:
        """Take requests and answer none, until `hanging` is set."""

        async def answer(_: web.Request) -> web.StreamResponse:
            await self.hanging.wait()
            return web.Response(status=500)

        self.answer = answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/keys":
            self.asked.append(dict(request.headers))
        assert self.answer is not None
        return await self.answer(request)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running_issuer(folder: Path) -> AsyncIterator[Issuer]:
    """An issuer that publishes the key `one`."""
    now = datetime.now(UTC)
    validity = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(days=30)}
    root = a_root(**validity)
    names = (x509.IPAddress(ipaddress.ip_address(ADDRESS)),)
    leaf = a_leaf(root, other_names=names, names_critical=False, **validity)
    place = folder / "issuer.pem"
    place.write_bytes(key_pem(leaf.key) + pem(leaf.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place)
    issuer = Issuer(0, pem(root.certificate).decode())
    issuer.publishes("one")
    runner = web.ServerRunner(web.Server(issuer.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, ADDRESS, 0, ssl_context=context)
        await site.start()
        issuer.port = runner.addresses[0][1]
        yield issuer
    finally:
        issuer.hanging.set()
        await runner.cleanup()
