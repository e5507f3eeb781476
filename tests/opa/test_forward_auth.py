"""forward-auth and a real OPA with signed bundles: what a proxy says is judged, and silence is a denial."""

import asyncio
import time
import urllib.parse
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from tests.support.bundle_files import CLIENT
from tests.support.certificates import pem
from tests.support.forward_auth import OTHER, Authority, Gate, a_token, gate
from tests.support.opa import LOOPBACK

PATHS_NOBODY_READS_ALIKE = ["/api/../x", "/api//x", "/api/%2e%2e/x", "/api/a%2Fb", "/api/a;b", "/api/\\x", "/api/a%00"]


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Gate]:
    async with gate(tmp_path) as one:
        yield one


async def ask(
    one: Gate, certificate: str = "", uri: str = "/api/1", method: str = "GET", *tokens: str
) -> tuple[int, str]:
    headers = [("X-Original-Method", method), ("X-Original-URI", uri), ("X-Client-Cert", certificate)]
    headers += [("Authorization", one) for one in tokens]
    url = f"http://{LOOPBACK}:{one.port}/auth"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        if response.status == 401:
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="zerotrust"')
        return response.status, response.headers.get("x-zerotrust-reason", "")


def escaped(authority: Authority, identity: str = CLIENT) -> str:
    return urllib.parse.quote(pem(authority.svid(identity).certificate).decode(), safe="")


async def test_verdicts_are_opas(behind: Gate, tmp_path: Path) -> None:
    good = escaped(behind.authority)
    assert await ask(behind, good) == (204, "")
    assert await ask(behind, good, "/api/a/b?c=../d") == (204, "")
    assert await ask(behind, good, "/other") == (403, "no_grant")
    assert await ask(behind, good, method="PUT") == (403, "no_grant")
    for path in PATHS_NOBODY_READS_ALIKE:
        assert await ask(behind, good, path) == (400, "malformed_request"), path
    assert await ask(behind, escaped(behind.authority, OTHER)) == (403, "no_grant")
    foreign = Authority(tmp_path / "foreign")
    for nobody in ("", "x", escaped(foreign), CLIENT, f"URI={CLIENT}", urllib.parse.quote(foreign.bundle.read_text())):
        assert await ask(behind, nobody) == (401, "no_identity"), nobody


async def test_a_users_token_goes_to_opa_as_it_came(behind: Gate) -> None:
    good = escaped(behind.authority)
    assert await ask(behind, good, "/user/1", "GET", a_token()) == (204, "")
    for tokens in ([], [a_token(exp=1)], [a_token(aud="others")], [a_token() + "x"], [a_token(), a_token()], ["x"]):
        assert await ask(behind, good, "/user/1", "GET", *tokens) == (401, "bad_token")
    assert await ask(behind, escaped(behind.authority, OTHER), "/user/1", "GET", a_token()) == (403, "no_grant")
    assert await ask(behind, "", "/user/1", "GET", a_token()) == (401, "no_identity")


async def test_a_revoked_certificate_is_denied_and_a_newer_one_is_not(behind: Gate) -> None:
    old = escaped(behind.authority)
    assert await ask(behind, old) == (204, "")
    behind.publish(serial=2, cutoffs={CLIENT: int(time.time()) - 30})
    await comes_to(behind, old, (403, "revoked_identity"))
    newer = behind.authority.svid(CLIENT, datetime.now(UTC).replace(microsecond=0))
    assert await ask(behind, urllib.parse.quote(pem(newer.certificate).decode())) == (204, "")


async def test_stale_bundles_and_a_dead_opa_are_503(behind: Gate) -> None:
    good = escaped(behind.authority)
    assert await ask(behind, good) == (204, "")
    behind.opa.stop(grace=0)
    behind.opa.start()
    await behind.opa.ready()
    assert await ask(behind, good) == (204, ""), "a restart must not cost a request"
    behind.publish(serial=2, valid=1)
    await comes_to(behind, good, (503, "stale_bundle"))
    behind.publish(serial=3)
    await comes_to(behind, good, (204, ""))
    behind.opa.stop(grace=0)
    assert await ask(behind, good) == (503, "unavailable")
    behind.opa.start()
    await comes_to(behind, good, (204, ""))


async def test_nothing_of_a_request_is_logged(behind: Gate) -> None:
    good = escaped(behind.authority)
    await ask(behind, good, "/api/path-of-somebody")
    await ask(behind, "cert-of-somebody", "/path-of-somebody")
    behind.opa.stop(grace=0)
    await ask(behind, good, "/api/path-of-somebody")
    behind.process.stop(10)
    log = behind.process.tail(10_000)
    assert "OPA is ready" in log
    assert "stopped" in log
    assert "somebody" not in log
    assert good[60:100] not in log


async def comes_to(one: Gate, certificate: str, wanted: tuple[int, str], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while (said := await ask(one, certificate)) != wanted:
        assert time.monotonic() < deadline, f"{said}, not {wanted}"
        await asyncio.sleep(0.05)


async def test_traefiks_headers(tmp_path: Path) -> None:
    async with gate(tmp_path, "traefik") as one:
        lines = pem(one.authority.svid(CLIENT).certificate).decode().splitlines()
        said = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/api/1"}
        url = f"http://{LOOPBACK}:{one.port}/auth"
        bare = "".join(lines[1:-1])
        for certificate, wanted in ((bare, 204), (f"{bare},{bare}", 204), ("AAAA", 401), ("\t".join(lines), 400)):
            headers = {**said, "X-Forwarded-Tls-Client-Cert": certificate}
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
                assert response.status == wanted
