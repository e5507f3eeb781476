"""The bundle server over real sockets and TLS: what it serves, to whom, when it waits, and how it leaves."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from tests.support.bundleserver import (
    PATH,
    POLICY,
    REVOCATIONS,
    Rig,
    a_bundle,
    a_token,
    an_authority,
    an_id,
    an_svid,
    serving,
    wait,
)
from tests.support.fakeapi import Respond
from tests.support.fakeapi.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS
from zerotrust.bundleserver.documents import Document, DocumentKind
from zerotrust.bundleserver.shelf import Kind, Place


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path) as rig:
        yield rig


def tag(serial: int, epoch: int = 0, key_id: str = "k1") -> str:
    return str(a_bundle(serial, epoch).tag(key_id))


async def get(
    session: aiohttp.ClientSession, known: str = "", path: str = PATH, **headers: str
) -> tuple[int, bytes, str | None]:
    conditional = {"If-None-Match": known} if known else {}
    async with session.get(path, headers={**conditional, **headers}) as response:
        return response.status, await response.read(), response.headers.get("ETag")


async def test_a_bundle_as_opa_wants_it(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(7, epoch=3))
    session = await rig.session(rig.token())
    async with session.get(PATH, headers=wait()) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/vnd.openpolicyagent.bundles"
        assert response.headers["ETag"] == tag(7, 3)
        assert await response.read() == a_bundle(7, epoch=3).body
    async with session.head(PATH, headers={"If-None-Match": '"unknown"', **wait()}) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert response.headers["ETag"] == tag(7, 3)
        assert response.content_length == len(a_bundle(7, epoch=3).body)


async def test_not_modified_at_once_without_a_wait(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(7))
    session = await rig.session(rig.token())
    assert await get(session, tag(7)) == (304, b"", tag(7))
    assert await get(session, f'"junk", W/{tag(7)}') == (304, b"", tag(7))
    assert (await get(session, "*"))[0] == 304
    assert (await get(session, '"not ours"'))[0] == 200
    assert (await get(session, tag(6)))[0] == 200


async def test_a_client_that_is_ahead_is_held_and_keeps_its_tag(rig: Rig) -> None:
    """An ETag in that 304 would make OPA believe that it runs the older content."""
    rig.shelf.publish(POLICY, a_bundle(7))
    session = await rig.session(rig.token())
    assert await get(session, tag(9)) == (304, b"", None)
    held = asyncio.create_task(get(session, tag(9), **wait()))
    await rig.waiting(1)
    rig.shelf.publish(POLICY, a_bundle(8))
    rig.shelf.publish(POLICY, a_bundle(10))
    assert await held == (200, a_bundle(10).body, tag(10))


async def test_a_long_poll_is_held_until_there_is_something_new(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    rig.shelf.publish(REVOCATIONS, a_bundle(1))
    session = await rig.session(rig.token())
    policy = asyncio.create_task(get(session, tag(1), **wait()))
    revocations = asyncio.create_task(get(session, tag(1), "/bundles/k1/shop/revocations", **wait()))
    await rig.waiting(2)
    rig.shelf.publish(REVOCATIONS, a_bundle(2))
    assert await revocations == (200, a_bundle(2).body, tag(2))
    assert not policy.done()
    rig.shelf.publish(POLICY, a_bundle(1, epoch=1))
    assert await policy == (200, a_bundle(1, epoch=1).body, tag(1, 1))
    star = asyncio.create_task(get(session, "*", **wait()))
    await rig.waiting(1)
    rig.shelf.publish(POLICY, a_bundle(2))
    assert (await star)[0] == 200


async def test_a_long_poll_ends_after_the_time_asked_for(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token())
    started = asyncio.get_running_loop().time()
    assert await get(session, tag(1), **wait(1)) == (304, b"", tag(1))
    assert 0.9 < asyncio.get_running_loop().time() - started < 5


async def test_who_hangs_up_waits_no_longer(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token())
    held = asyncio.create_task(get(session, tag(1), **wait()))
    await rig.waiting(1)
    held.cancel()
    await rig.waiting(0)


async def test_what_is_not_there_any_more(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token())
    held = asyncio.create_task(get(session, tag(1), **wait()))
    await rig.waiting(1)
    rig.shelf.retire("k1")
    assert (await held)[0] == 404
    for path in (
        PATH,
        "/bundles/k1/shop/other",
        "/bundles/k1/SHOP/policy",
        "/bundles/k1/shop",
        "/",
        "/bundles/k1/../policy",
    ):
        assert (await get(session, path=path))[0] == 404, path
    async with session.post(PATH) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


async def test_nobody_gets_anything_without_a_good_credential(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    rig.token()
    good = rig.token(salt="good")
    refused = {
        "nothing": "",
        "unknown": a_token("nobody"),
        "another audience": rig.token(salt="a", audience=["https://kubernetes.default.svc"]),
        "expired": rig.token(salt="b", seconds=-1),
        "no expiry": rig.token(salt="c", exp=None),
        "no token": "x" * 40,
        "too long": good + "x" * 9000,
        "signature changed": good[:-1],
    }
    for why, token in refused.items():
        assert (await get(await rig.session(token)))[0] == 401, why
    session = await rig.session()
    assert (await get(session, Authorization=f"Basic {good}"))[0] == 401
    assert (await get(session, Authorization=f"bearer {good}"))[0] == 200
    assert (await get(await rig.session(rig.token("web", may=False))))[0] == 403
    assert (await get(await rig.session(good), path="/bundles/k1/web/policy"))[0] == 403


async def test_a_review_asks_exactly_for_the_right(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    assert (await get(await rig.session(rig.token())))[0] == 200
    (asked,) = rig.api.reviews.asked_rights
    assert asked["user"] == "system:serviceaccount:shop:orders"
    assert asked["extra"]["authentication.kubernetes.io/pod-uid"] == ["uid-orders-0"]
    assert asked["resourceAttributes"] == {
        "group": "zerotrust.dev", "resource": "policybundles", "verb": "get", "namespace": "shop",
    }  # fmt: skip


async def test_a_yes_without_our_audience_is_a_no(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    rig.api.reviews.knows_audiences = False
    assert (await get(await rig.session(rig.token())))[0] == 401


async def test_answers_of_the_api_server_hold_for_a_minute_or_five_seconds(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    good, bad = rig.token(), a_token("nobody")
    session = await rig.session()
    reviews = rig.api.reviews

    async def ask(token: str) -> int:
        return (await get(session, Authorization=f"Bearer {token}"))[0]

    assert await asyncio.gather(*(ask(good) for _ in range(20))) == [200] * 20
    assert (len(reviews.asked_tokens), len(reviews.asked_rights)) == (1, 1)  # one flight for all of them
    reviews.rights.clear()
    rig.clock.advance(59)
    assert await ask(good) == 200
    rig.clock.advance(2)
    assert await ask(good) == 403
    rig.token()  # gives the right back
    rig.clock.advance(4)
    assert await ask(good) == 403
    rig.clock.advance(2)
    assert await ask(good) == 200
    assert [await ask(bad), await ask(bad)] == [401, 401]
    assert reviews.asked_tokens.count(bad) == 1
    rig.clock.advance(6)
    assert await ask(bad) == 401
    assert reviews.asked_tokens.count(bad) == 2


async def test_no_answer_outlives_its_token(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token(seconds=20))
    assert (await get(session))[0] == 200
    held = asyncio.create_task(get(session, tag(1), **wait()))
    await rig.waiting(1)
    rig.clock.advance(21)
    rig.shelf.publish(POLICY, a_bundle(2))
    assert (await held)[0] == 401
    assert (await get(session))[0] == 401


@pytest.mark.parametrize("path", [TOKEN_REVIEWS, ACCESS_REVIEWS])
@pytest.mark.parametrize("code", [403, 429, 500])
async def test_what_cannot_be_known_is_not_allowed(rig: Rig, path: str, code: int) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token())
    rig.api.faults.on(path=path, action=Respond(code), times=None)
    async with session.get(PATH) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
    rig.api.faults.clear()
    assert (await get(session))[0] == 200  # a failure is not remembered


async def test_what_is_remembered_outlasts_an_api_server_that_is_away(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session(rig.token())
    assert (await get(session))[0] == 200
    for path in (TOKEN_REVIEWS, ACCESS_REVIEWS):
        rig.api.faults.on(path=path, action=Respond(500), times=None)
    assert (await get(session))[0] == 200
    rig.clock.advance(61)
    assert (await get(session))[0] == 503


async def test_an_svid_is_enough_for_a_bundle(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session = await rig.session("", an_svid(rig.authority))
    assert (await get(session))[0] == 403
    rig.token()  # the same ServiceAccount's right
    rig.clock.advance(6)
    assert (await get(session))[0] == 200
    assert rig.sinks.deliveries[-1].caller.spiffe_id is not None
    rig.directory.revoked[an_id("orders")] = datetime.now(UTC) + timedelta(hours=1)
    assert (await get(session))[0] == 401
    rig.directory.revoked.clear()
    rig.clock.advance(13 * 3600)
    assert (await get(session))[0] == 401  # the certificate has expired on an open connection


async def test_certificates_that_are_nobodys(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    for changes in (
        {"uris": (b"spiffe://other.example/ns/shop/sa/orders",)},
        {"uris": (an_id("orders").encode(), an_id("web").encode())},
        {"uris": ()},
        {"uris": (b"spiffe://example.org",)},
        {"uris": (b"https://example.org/ns/shop/sa/orders",)},
        {"uris": (b"spiffe://example.org/elsewhere",)},
        {"ca": True},
    ):
        session = await rig.session("", an_svid(rig.authority, **changes))
        assert (await get(session))[0] == 401, changes
        assert (await get(session, Authorization=f"Bearer {rig.token()}"))[0] == 401, "a token does not make up for it"


async def test_foreign_and_expired_certificates_end_at_the_handshake(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    past = datetime.now(UTC) - timedelta(hours=2)
    for svid in (
        an_svid(an_authority()),
        an_svid(rig.authority, not_before=past, not_after=past + timedelta(hours=1)),
    ):
        with pytest.raises(aiohttp.ClientError):
            await get(await rig.session(rig.token(), svid))


async def test_a_token_and_a_certificate_must_be_of_one_account(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    assert (await get(await rig.session(rig.token(), an_svid(rig.authority, "orders"))))[0] == 200
    assert rig.sinks.deliveries[-1].caller.pod_uid == "uid-orders-0"
    assert (await get(await rig.session(rig.token(), an_svid(rig.authority, "web"))))[0] == 401


async def test_deliveries_are_told(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(4, epoch=2))
    session = await rig.session(rig.token())
    await get(session)
    await get(session, tag(4, 2))
    async with session.head(PATH):
        pass
    (delivery,) = rig.sinks.deliveries
    assert (delivery.place, delivery.serial, delivery.epoch) == (POLICY, 4, 2)
    assert (delivery.caller.pod, delivery.caller.pod_uid) == ("orders-0", "uid-orders-0")


async def test_public_documents_need_no_credential(rig: Rig) -> None:
    document = Document(b'{"keys": []}', max_age=300)
    rig.documents.found[DocumentKind.SPIFFE_BUNDLE, "example.org"] = document
    rig.documents.found[DocumentKind.JWKS, "example.org"] = document
    session = await rig.session()
    for path in ("/.well-known/spiffe-bundle/example.org", "/example.org/jwks"):
        async with session.get(path) as response:
            assert (response.status, await response.read()) == (200, document.body)
            assert response.headers["Cache-Control"] == "public, max-age=300"
            assert response.content_type == "application/json"
            etag = response.headers["ETag"]
        assert (await get(session, f'"x", W/{etag}', path))[0] == 304
    assert (await get(session, path="/other.example/jwks"))[0] == 404


async def test_a_stop_drains(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        await rig.server.stop()
        stop = asyncio.Event()
        again = rig.again()
        serving_ = asyncio.create_task(again.serve(stop))
        await rig.api.until(lambda: again.not_ready() == "")
        rig.server = again
        held = asyncio.create_task(get(await rig.session(rig.token()), tag(1), **wait()))
        await rig.waiting(1)
        stop.set()
        assert (await held)[0] == 304
        await asyncio.wait_for(serving_, 5)
        assert again.not_ready() == "draining"


async def test_draining_answers_who_waits_and_then_closes(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    assert rig.server.not_ready() == ""
    sessions = [await rig.session(rig.token(f"client-{number}")) for number in range(20)]
    held = [asyncio.create_task(get(session, tag(1), **wait())) for session in sessions]
    await rig.waiting(20)
    stop = asyncio.create_task(rig.server.drain())
    await asyncio.sleep(0)
    assert rig.server.not_ready() == "draining"
    async with sessions[0].get(PATH) as late:
        assert (late.status, late.headers["Connection"]) == (200, "close")
    assert {status for status, _, _ in await asyncio.gather(*held)} == {304}
    await asyncio.wait_for(stop, 5)
    with pytest.raises(aiohttp.ClientError):
        await get(sessions[0])


@pytest.mark.parametrize("seed", range(3))
async def test_no_client_ever_sees_a_serial_go_back(tmp_path: Path, seed: int) -> None:
    """Two replicas, one of which lags or is stuck, random publishes, clients that change between them at random."""
    dice = random.Random(seed)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with serving(tmp_path / "a") as ahead, serving(tmp_path / "b") as behind:
        rigs = (ahead, behind)
        for one in rigs:
            one.shelf.publish(POLICY, a_bundle(1))
        done = asyncio.Event()
        seen: list[list[tuple[int, int]]] = []

        async def client(number: int) -> None:
            sessions = [await one.session(one.token(f"client-{number}")) for one in rigs]
            mine: list[tuple[int, int]] = []
            seen.append(mine)
            known = ""
            while not done.is_set():
                status, body, etag = await get(dice.choice(sessions), known, **wait(dice.choice((0, 1))))
                if status == 200:
                    serial, epoch = body.split(b" ")[0].split(b".")
                    mine.append((int(serial), int(epoch)))
                known = etag or known
                if dice.random() < 0.3:
                    known = f'"{"0" * 8}", {known}, W/{tag(1)}'  # OPA sends superseded ones as well
                    known = known if len(known) < 2000 else etag or tag(1)

        clients = [asyncio.create_task(client(number)) for number in range(12)]
        newest = 1
        for _ in range(60):
            newest += dice.choice((0, 1))
            ahead.shelf.publish(POLICY, a_bundle(newest, epoch=newest))
            there = behind.shelf.get(POLICY)
            assert there is not None
            if dice.random() < 0.3:
                behind.shelf.publish(POLICY, a_bundle(dice.randint(there.serial, newest), epoch=newest))
            await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*clients)
        assert all(mine == sorted(mine) for mine in seen)
        assert sum(map(len, seen)) > 100


async def test_a_key_is_rotated_with_overlap(rig: Rig) -> None:
    new = Place("k2", "shop", Kind.POLICY)
    rig.shelf.publish(POLICY, a_bundle(5))
    rig.shelf.publish(new, a_bundle(5))
    session = await rig.session(rig.token())
    assert (await get(session))[2] == tag(5)
    assert (await get(session, tag(5), "/bundles/k2/shop/policy"))[2] == tag(5, key_id="k2")
    rig.shelf.retire("k1")
    assert (await get(session, tag(5)))[0] == 404
