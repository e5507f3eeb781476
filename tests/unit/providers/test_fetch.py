"""Fetching keys from a real HTTPS server on loopback: what it sends, where it is, and what it must not get away with."""

import asyncio
import contextlib
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from tests.support.certificates import a_leaf, a_root, key_pem, pem
from tests.support.tokens import jwk, jwks
from zerotrust.providers.fetch import KeyFetcher, Source, freshness
from zerotrust.providers.jwks import MAX_BYTES
from zerotrust.providers.lifecycle import Failed, Fetched, Outcome, Unchanged, Validators

HOST = "login.example.org"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
KEYS = jwks(jwk("ES256", "one"))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """An identity provider: what it answers by path, and what it was asked."""

    port: int
    ca_bundle: str
    answers: dict[str, Handler] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def source(self) -> Source:
        return Source(self.issuer, f"{self.issuer}/keys", self.ca_bundle)

    def says(self, path: str, body: str = "", status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=body.encode(), status=status, headers=named)

        self.answers[path] = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        return await self.answers[request.path](request)


@contextlib.asynccontextmanager
async def serving(folder: Path, name: str = HOST) -> AsyncIterator[Server]:
    now = datetime.now(UTC)
    validity = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
    root = a_root(**validity)
    leaf = a_leaf(root, other_names=(x509.DNSName(name),), names_critical=False, **validity)
    (folder / "tls.pem").write_bytes(key_pem(leaf.key) + pem(leaf.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    server = Server(0, pem(root.certificate).decode())
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        server.port = runner.addresses[0][1]
        server.says("/keys", KEYS)
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running


async def at_loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def fetcher(**changes: object) -> KeyFetcher:
    return KeyFetcher(**{"allowed": LOOPBACK, "look_up": at_loopback, "max_seconds": 5.0, **changes})  # type: ignore[arg-type]


def refused(outcome: Outcome, *words: str) -> None:
    assert isinstance(outcome, Failed), outcome
    assert all(word in outcome.message for word in words), outcome.message


async def test_keys_are_fetched_with_what_makes_the_next_request_conditional(server: Server) -> None:
    server.says("/keys", KEYS, ETag='"a"', Last_Modified="Sun, 22 Nov 2026 12:00:00 GMT", Cache_Control="max-age=600")
    outcome = await fetcher().fetch(server.source)
    assert isinstance(outcome, Fetched)
    assert list(outcome.keys.keys) == ["one"]
    assert outcome.fresh_for == timedelta(seconds=600)
    assert outcome.validators == Validators('"a"', "Sun, 22 Nov 2026 12:00:00 GMT", f"{server.issuer}/keys")


async def test_an_unchanged_set_is_not_sent_again(server: Server) -> None:
    server.says("/keys", status=304, Cache_Control="max-age=120")
    known = Validators('"a"', "Sun, 22 Nov 2026 12:00:00 GMT", f"{server.issuer}/keys")
    outcome = await fetcher().fetch(server.source, known)
    assert outcome == Unchanged(timedelta(seconds=120))
    headers = server.asked[0][1]
    assert headers["if-none-match"] == '"a"'
    assert headers["if-modified-since"] == "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize("uri", ["", "/keys", "/moved"])
async def test_304_to_an_unconditional_request_is_no_answer(server: Server, uri: str) -> None:
    server.says("/keys", status=304)
    refused(await fetcher().fetch(server.source, Validators(uri=server.issuer + uri)), "redirect")


async def test_an_etag_counts_at_its_own_address_only(server: Server) -> None:
    """Where the discovery document moves the keys, another file's ETag may be the same text."""
    server.says("/keys", KEYS)
    outcome = await fetcher().fetch(server.source, Validators('"a"', "", f"{server.issuer}/moved"))
    assert isinstance(outcome, Fetched)
    assert "if-none-match" not in server.asked[0][1]


async def test_the_issuer_says_where_its_keys_are(server: Server) -> None:
    document = {"issuer": server.issuer, "jwks_uri": f"{server.issuer}/keys"}
    server.says("/.well-known/openid-configuration", json.dumps(document))
    outcome = await fetcher().fetch(Source(server.issuer, None, server.ca_bundle))
    assert isinstance(outcome, Fetched)
    assert [path for path, _ in server.asked] == ["/.well-known/openid-configuration", "/keys"]


async def test_an_issuer_with_a_path_has_its_document_behind_it(server: Server) -> None:
    issuer = f"{server.issuer}/realms/corp/"
    server.says(
        "/realms/corp/.well-known/openid-configuration",
        json.dumps({"issuer": issuer, "jwks_uri": f"{server.issuer}/keys"}),
    )
    assert isinstance(await fetcher().fetch(Source(issuer, None, server.ca_bundle)), Fetched)


@pytest.mark.parametrize("ending", ["/", "x"])
async def test_a_document_of_another_issuer_is_refused(server: Server, ending: str) -> None:
    document = {"issuer": server.issuer + ending, "jwks_uri": f"{server.issuer}/keys"}
    server.says("/.well-known/openid-configuration", json.dumps(document))
    refused(await fetcher().fetch(Source(server.issuer, None, server.ca_bundle)), "another issuer")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "http://login.example.org/keys",
        "file:///etc/passwd",
        "https://user:password@login.example.org/keys",
        "https://login.example.org/keys?a=b",
        "https://login.example.org\\@10.0.0.1/",
        "https://127。0。0。1/keys",
        "https://",
        "https://login.example.org/\r\nX: y",
        7,
        None,
    ],
    ids=repr,
)
async def test_a_document_may_not_name_just_anything(server: Server, uri: object) -> None:
    server.says("/.well-known/openid-configuration", json.dumps({"issuer": server.issuer, "jwks_uri": uri}))
    refused(await fetcher().fetch(Source(server.issuer, None, server.ca_bundle)))
    assert len(server.asked) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_host_that_is_an_address_is_judged_too(server: Server, address: str) -> None:
    """The name may be asked about; a host that is an address is judged as well, however it is written."""

    async def elsewhere(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2"]

    here = fetcher(allowed=[ipaddress.ip_network("127.0.0.2/32")], look_up=elsewhere)
    refused(await here.fetch(Source(server.issuer, f"https://{address}:{server.port}/keys", server.ca_bundle)))
    assert not server.asked


@pytest.mark.parametrize("body", ["[]", "null", "{", "\ufeff{}", "[" * 5000])
async def test_a_document_that_is_none_is_refused(server: Server, body: str) -> None:
    server.says("/.well-known/openid-configuration", body)
    refused(await fetcher().fetch(Source(server.issuer, None, server.ca_bundle)), "not a JSON object")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: Server, status: int) -> None:
    server.says("/keys", status=status, Location=f"{server.issuer}/elsewhere")
    refused(await fetcher().fetch(server.source), HOST, "redirect")
    assert [path for path, _ in server.asked] == ["/keys"]


@pytest.mark.parametrize("status", [201, 206, 400, 401, 404, 500, 503])
async def test_only_200_is_an_answer(server: Server, status: int) -> None:
    server.says("/keys", KEYS, status=status)
    refused(await fetcher().fetch(server.source), HOST, str(status))


async def test_a_huge_body_is_cut_off(server: Server) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 16384)
                sent += 16384
        return response

    server.answers["/keys"] = endless
    refused(await fetcher().fetch(server.source), HOST, f"more than {MAX_BYTES} bytes")
    assert sent < 100 * MAX_BYTES


async def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    async def compressed(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=b" " * 10_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    server.answers["/keys"] = compressed
    refused(await fetcher().fetch(server.source), "encoding")


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_a_slow_server_is_left(server: Server, part: str) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if part == "body":
            await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await asyncio.sleep(0.05)
                if part == "body":
                    await response.write(b" ")
        return response

    server.answers["/keys"] = slow
    refused(await fetcher(max_seconds=0.3).fetch(server.source), HOST, "longer than 0.3 s")


async def test_huge_headers_are_refused(server: Server) -> None:
    server.says("/keys", KEYS, X_Long="x" * 20_000)
    refused(await fetcher().fetch(server.source), HOST)


async def test_a_secret_answer_is_not_repeated(server: Server) -> None:
    server.says("/keys", '{"keys": "hunter2"}', X="hunter2")
    outcome = await fetcher().fetch(server.source)
    assert isinstance(outcome, Failed)
    assert "hunter2" not in outcome.message


async def test_a_certificate_of_another_authority_is_not_trusted(server: Server) -> None:
    refused(await fetcher().fetch(Source(server.issuer, f"{server.issuer}/keys")), HOST, "caBundle")
    foreign = pem(a_root().certificate).decode()
    refused(await fetcher().fetch(Source(server.issuer, f"{server.issuer}/keys", foreign)), HOST, "caBundle")
    assert not server.asked


async def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    async with serving(tmp_path, "other.example.org") as server:
        refused(await fetcher().fetch(server.source), HOST, "certificate")
        assert not server.asked


async def test_a_ca_bundle_without_certificates_is_named(server: Server) -> None:
    refused(await fetcher().fetch(Source(server.issuer, f"{server.issuer}/keys", "nothing")), "caBundle")


async def test_nobody_listens(server: Server) -> None:
    closed = Source(server.issuer, f"https://{HOST}:1/keys", server.ca_bundle)
    refused(await fetcher().fetch(closed), HOST, "cannot be reached")


async def test_a_private_address_is_refused_unless_it_is_allowed(server: Server) -> None:
    refused(await fetcher(allowed=()).fetch(server.source), HOST, "not public")
    assert not server.asked
    assert isinstance(await fetcher().fetch(server.source), Fetched)


async def test_one_private_address_among_public_ones_is_refused(server: Server) -> None:
    async def both(_host: str, _port: int) -> list[str]:
        return ["93.184.215.14", "127.0.0.1"]

    refused(await fetcher(allowed=(), look_up=both).fetch(server.source), HOST, "not public")


async def test_a_name_that_moves_to_a_private_address_is_refused(server: Server) -> None:
    """DNS rebinding: the first look-up is harmless, the second is not; each connection goes where its own look-up said."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def rebinding(_host: str, _port: int) -> list[str]:
        return next(answers)

    document = {"issuer": server.issuer, "jwks_uri": f"{server.issuer}/keys"}
    server.says("/.well-known/openid-configuration", json.dumps(document))
    outcome = await fetcher(look_up=rebinding).fetch(Source(server.issuer, None, server.ca_bundle))
    refused(outcome, HOST, "not public")
    assert [path for path, _ in server.asked] == ["/.well-known/openid-configuration"]


async def test_a_fetch_looks_a_name_up_once(server: Server) -> None:
    looked_up = []

    async def counting(host: str, _port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    await fetcher(look_up=counting).fetch(server.source)
    assert looked_up == [HOST]


async def test_proxies_of_the_environment_are_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert isinstance(await fetcher().fetch(server.source), Fetched)


@pytest.mark.parametrize("failure", [OSError, None])
async def test_a_name_without_an_address(server: Server, failure: type[Exception] | None) -> None:
    async def nothing(_host: str, _port: int) -> list[str]:
        if failure:
            raise failure("no such name")
        return []

    refused(await fetcher(look_up=nothing).fetch(server.source), HOST, "no address")


@pytest.mark.parametrize(
    ("control", "age", "seconds"),
    [
        ("max-age=600", "", 600),
        ("public, max-age=21600, must-revalidate", "", 21600),
        ("Max-Age = 60", "", 60),
        ('max-age="90"', "", 90),
        ("max-age=600", "100", 500),
        ("max-age=600", "700", 0),
        ("max-age=600", "soon", 600),
        ("no-store", "", 0),
        ("no-cache, max-age=600", "", 0),
        ("s-maxage=600", "", None),
        ("max-age=-1", "", None),
        ("max-age=1e9", "", None),
        ("max-age=600x", "", None),
        ("private", "", None),
        ("", "", None),
    ],
)
def test_freshness_is_what_the_answer_says(control: str, age: str, seconds: int | None) -> None:
    headers = {name: value for name, value in (("Cache-Control", control), ("Age", age)) if value}
    assert freshness(headers) == (None if seconds is None else timedelta(seconds=seconds))
