"""Real NGINX with `auth_request`, mutual TLS, forward-auth and a real OPA with signed bundles: examples/nginx at work."""

import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bad_tokens import ACCESS, SPEAKING
from tests.support.bundle_files import CLIENT
from tests.support.certificates import pem
from tests.support.forward_auth import API_KEY, OTHER, Gate, a_token, gate
from tests.support.nginx import Nginx, nginx, program

OPTIONAL = {"ssl_verify_client      on;": "ssl_verify_client      optional;"}
ALLOWED, NO_GRANT = (200, ""), (403, "no_grant")


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Gate]:
    program()
    async with gate(tmp_path / "gate") as one:
        yield one


@pytest.fixture
async def front(behind: Gate, tmp_path: Path) -> AsyncIterator[Nginx]:
    async with nginx(tmp_path / "nginx", behind) as one:
        yield one


async def test_who_may_calls_and_nobody_else(front: Nginx) -> None:
    authority = front.gate.authority
    client, other = authority.svid(CLIENT), authority.svid(OTHER)
    assert await front.call(client) == ALLOWED
    assert await front.call(client, "/api/a?b=%2F..") == ALLOWED
    assert [(method, path) for method, path, _ in front.seen] == [("GET", "/api/1"), ("GET", "/api/a?b=%2F..")]
    assert await front.call(client, "/other") == NO_GRANT
    assert await front.call(client, method="POST", body=b"a=b") == NO_GRANT
    assert await front.call(other) == NO_GRANT
    assert (await front.call(None))[0] == 400
    for path in ("/api/../other", "/api//1", "/api/%2e%2e/other", "/api/a%2fb", "/_zerotrust", "/api/..;/x"):
        assert (await front.call(client, path))[0] >= 400, path
    assert len(front.seen) == 2


async def test_a_body_reaches_the_application_and_not_forward_auth(behind: Gate, tmp_path: Path) -> None:
    async with nginx(tmp_path / "nginx", behind) as front:
        client = behind.authority.svid(CLIENT)
        assert await front.call(client, body=b"x" * 100_000) == ALLOWED
        chunked = (("Transfer-Encoding", "chunked"),)
        assert await front.call(client, headers=chunked, body=b"3\r\nabc\r\n0\r\n\r\n") == ALLOWED
        assert front.bodies == [100_000, 3]


async def test_a_users_token_is_judged_too(front: Nginx) -> None:
    client = front.gate.authority.svid(CLIENT)
    token = ("Authorization", a_token())
    assert await front.call(client, "/user/1", headers=(token,)) == ALLOWED
    assert await front.call(client, "/user/1") == (401, "bad_token")
    assert await front.call(client, "/user/1", headers=(("Authorization", "Bearer x"),)) == (401, "bad_token")
    assert (await front.call(client, "/user/1", headers=(token, token)))[0] == 400  # NGINX's own refusal
    assert len(front.seen) == 1


async def test_an_id_token_must_speak_for_the_access_token_beside_it(front: Nginx) -> None:
    client = front.gate.authority.svid(CLIENT)
    speaking, silent = ("Authorization", a_token(**SPEAKING)), ("Authorization", a_token())
    access, other = ("X-Forwarded-Access-Token", ACCESS), ("X-Forwarded-Access-Token", "another")
    assert await front.call(client, "/user/1", headers=(speaking, access)) == ALLOWED
    for headers in ((silent, access), (speaking, other), (speaking, access, access), (speaking, access, other)):
        assert await front.call(client, "/user/1", headers=headers) == (401, "bad_token")
    assert len(front.seen) == 1


async def test_an_api_key_is_judged_and_reaches_no_application(front: Nginx) -> None:
    client = front.gate.authority.svid(CLIENT)
    for shown in (("X-API-Key", API_KEY), ("x-api-key", API_KEY), ("Authorization", f"ApiKey {API_KEY}")):
        assert await front.call(client, "/key/1", headers=(shown, ("X-Other", "kept"))) == ALLOWED
    assert len(front.seen) == 3
    for _, _, headers in front.seen:
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["x-other"] == "kept"
        assert API_KEY not in "".join(sent.values())
        assert not {"x-api-key", "authorization"} & set(sent)
    await front.call(client, "/user/1", headers=(("Authorization", a_token()),))
    assert front.seen[-1][2]["Authorization"].startswith("Bearer ")
    key = ("X-API-Key", API_KEY)
    for headers in ((), (key, key), (("X-API-Key", API_KEY[:-1]),), (("X_API_Key", API_KEY),), (("Cookie", API_KEY),)):
        assert await front.call(client, "/key/1", headers=headers) == (401, "bad_key")
    assert await front.call(client, f"/key/1?x-api-key={API_KEY}") == (401, "bad_key")
    assert len(front.seen) == 4


async def test_forged_headers_change_nothing(front: Nginx) -> None:
    authority = front.gate.authority
    client, other = authority.svid(CLIENT), authority.svid(OTHER)
    shown = urllib.parse.quote(pem(client.certificate).decode(), safe="")
    forged = (
        ("X-Client-Cert", shown),
        ("x-client-cert", shown),
        ("X_Client_Cert", shown),
        ("X-Original-URI", "/api/1"),
        ("X-Original-Method", "GET"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-Tls-Client-Cert", shown),
        ("X-Forwarded-Client-Cert", f'Cert="{shown}";URI={CLIENT}'),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/api/1"),
        ("X-Zerotrust-Reason", "allowed"),
        ("X-Accel-Redirect", "/api/1"),
        ("X-HTTP-Method-Override", "GET"),
        ("X-Original-URL", "/api/1"),
        ("Connection", "X-Client-Cert, X-Original-URI, X-Original-Method"),
    )
    assert await front.call(other, headers=forged) == NO_GRANT
    assert await front.call(client, "/other", headers=forged) == NO_GRANT
    assert await front.call(client, method="DELETE", headers=forged) == NO_GRANT
    assert (await front.call(None, headers=forged))[0] == 400
    assert not front.seen
    assert await front.call(client, headers=tuple((name, "nonsense") for name, _ in forged)) == ALLOWED
    ((_, _, headers),) = front.seen
    assert not {"x-client-cert", "x-original-uri", "x-original-method"} & {name.lower() for name in headers}


async def test_without_a_certificate_opa_decides_where_nginx_leaves_it_to_it(behind: Gate, tmp_path: Path) -> None:
    async with nginx(tmp_path / "nginx", behind, OPTIONAL) as front:
        client = behind.authority.svid(CLIENT)
        shown = urllib.parse.quote(pem(client.certificate).decode(), safe="")
        assert await front.call(client) == ALLOWED
        assert await front.call(None) == (401, "no_identity")
        assert await front.call(None, headers=(("X-Client-Cert", shown),)) == (401, "no_identity")
        assert len(front.seen) == 1


async def test_what_is_not_known_is_503(front: Nginx) -> None:
    client = front.gate.authority.svid(CLIENT)
    assert await front.call(client) == ALLOWED
    front.gate.opa.stop(grace=0)
    assert await front.call(client) == (503, "unavailable")
    front.gate.opa.start()
    await front.gate.opa.ready()
    assert await front.call(client) == ALLOWED
    front.gate.process.stop(10)
    assert await front.call(client) == (503, "")
    assert len(front.seen) == 2


async def test_where_the_proxy_overwrites_nothing_two_of_a_kind_are_refused(behind: Gate, tmp_path: Path) -> None:
    """A proxy that adds its header to the caller's, instead of overwriting it, is noticed."""
    good = urllib.parse.quote(pem(behind.authority.svid(CLIENT).certificate).decode(), safe="")
    added = "proxy_set_header X-Client-Cert      $ssl_client_escaped_cert;"
    twice = f"{added}\n        proxy_set_header X-CLIENT-CERT {good};"
    async with nginx(tmp_path / "nginx", behind, {added: twice}) as front:
        assert (await front.call(behind.authority.svid(OTHER)))[0] == 503
        assert not front.seen
