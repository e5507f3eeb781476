"""Attacks on a running OPA through what it downloads: nothing spoilt is activated, nothing old outlives its validity.

The OPA is real and configured as the operator configures it; the bundle server is the test's, so that it can lie, crawl and
go away. Throughout every attack the stranger, whom only the attacker's bundles let in, must never get in.
"""

import asyncio
import gzip
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.bundle_files import (
    CLIENT,
    INSTANCE,
    NAMESPACE,
    POLICY,
    REVOCATIONS,
    SERVER,
    STRANGER,
    packed,
    policy,
    resigned,
    revocations,
    signatures,
    signed,
    unpacked,
)
from tests.support.bundle_host import BundleHost
from tests.support.opa import Opa
from zerotrust.opabundle import canonical, configuration, signing
from zerotrust.opabundle.archive import build, scope_of
from zerotrust.opabundle.configuration import Service, Verification
from zerotrust.opabundle.modules import modules

KEY = signing.create()
OTHER = signing.create()
SHORT = 2  # seconds of validity: times are whole seconds, so this is more than one second and at most two
POLICY_PATH = f"/bundles/{KEY.id}/{NAMESPACE}/policy"
REVOCATIONS_PATH = f"/bundles/{KEY.id}/{NAMESPACE}/revocations"


def a_policy(*clients: str, serial: int = 1, valid: int = 60) -> bytes:
    document = policy(*clients, modules=modules(), serial=serial, valid=valid)
    return build(document, modules(), POLICY, KEY)


def some_revocations(valid: int = 60) -> bytes:
    return build(revocations(valid=valid), {}, REVOCATIONS, KEY)


def not_after(archive: bytes) -> float:
    document = canonical.decode(unpacked(archive)["data.json"])["zerotrust_data"]
    (content,) = document.values()
    moment: float = content["meta"]["not_after"]
    return moment


def local(host: BundleHost, folder: Path, key: signing.SigningKey = KEY) -> dict[str, Any]:
    """The operator's configuration, but for where the server is and how fast a failed download is repeated."""
    verification = Verification(key.id, signing.public_pem(key.public), INSTANCE)
    document = configuration.document(NAMESPACE, Service("https://bundles"), verification, str(folder / "persisted"))
    token = folder / "token"
    token.write_text("a-token")
    service = document["services"]["zerotrust"]
    service.update(url=host.url, credentials={"bearer": {"token_path": str(token)}})
    del service["tls"]
    for bundle in document["bundles"].values():
        bundle["polling"]["max_delay_seconds"] = 1
    document["decision_logs"]["reporting"].update(min_delay_seconds=1, max_delay_seconds=1)
    return document


@dataclass
class Scene:
    """A host, an OPA that trusts `KEY`, and a witness who asks for the stranger all the time."""

    host: BundleHost
    opa: Opa
    admitted: list[Any] = field(default_factory=list)
    asked: int = 0

    async def decide(self, client: str = CLIENT) -> tuple[bool, str]:
        """Whether OPA lets a client call, and why; undefined counts as what an enforcement point makes of it."""
        given = {
            "server": SERVER,
            "source": {"principal": client, "mtls": True},
            "request": {"method": "GET", "path": "/api/orders", "port": 8443, "protocol": "TCP"},
        }
        answer = await self.opa.ask(given)
        if answer is None:
            return False, "undefined"
        return answer["allowed"] is True, answer["reason"]

    async def run(self, archive: bytes, kind: str = "policy") -> None:
        """Publish a good bundle and wait until it is active: its short validity must not pass while OPA starts."""
        self.host.publish(f"/bundles/{KEY.id}/{NAMESPACE}/{kind}", archive)
        deadline = time.time() + 10
        while await self.opa.data(f"zerotrust_data/{kind}/meta/not_after") != not_after(archive):
            assert time.time() < deadline, "it never became active"
            await asyncio.sleep(0.01)

    async def until(self, wanted: tuple[bool, str], seconds: float = 10.0) -> float:
        """Wait for a decision; the time at which it was first seen."""
        deadline = time.time() + seconds
        while (decided := await self.decide()) != wanted:
            assert time.time() < deadline, f"decided {decided}, not {wanted}"
            await asyncio.sleep(0.02)
        return time.time()

    async def stays_until(self, moment: float, wanted: tuple[bool, str]) -> None:
        """The decision holds until shortly before the moment."""
        while time.time() < moment - 0.1:
            decided = await self.decide()
            assert decided == wanted or time.time() >= moment
            await asyncio.sleep(0.02)

    async def watch(self) -> None:
        while True:
            self.asked += 1
            try:
                decided = await self.decide(STRANGER)
            except (aiohttp.ClientError, TimeoutError):  # it is being restarted
                decided = (False, "unreachable")
            if decided[0]:
                self.admitted.append(decided)
            await asyncio.sleep(0.02)


ALLOWED = (True, "allowed")
NO_GRANT = (False, "no_grant")
STALE = (False, "stale_bundle")


@asynccontextmanager
async def scene(folder: Path, first: bytes = b"") -> AsyncIterator[Scene]:
    """OPA runs `first` as its policy, or one in which only the client may call, and no revocations."""
    async with BundleHost() as host:
        host.publish(POLICY_PATH, first or a_policy(CLIENT))
        host.publish(REVOCATIONS_PATH, some_revocations())
        opa = Opa(folder, local(host, folder))
        witness = None
        try:
            opa.start()
            await opa.ready()
            one = Scene(host, opa)
            witness = asyncio.create_task(one.watch())
            yield one
        finally:
            if witness is not None:
                witness.cancel()
                (ended,) = await asyncio.gather(witness, return_exceptions=True)
                assert isinstance(ended, asyncio.CancelledError), ended
            await opa.close()
        assert one.asked
        assert one.admitted == []


def evil_files() -> dict[str, bytes]:
    """What the attacker would like OPA to run: the stranger gets in, for ever."""
    return unpacked(a_policy(CLIENT, STRANGER, serial=99, valid=10**9))


def with_unsigned_file() -> bytes:
    evil = b'package zerotrust.authz\n\ndecision := {"allowed": true, "reason": "allowed"}\n'
    return packed(sorted({**unpacked(a_policy(CLIENT)), "zerotrust/authz/evil.rego": evil}.items()))


def delta() -> bytes:
    path = f"/zerotrust_data/policy/servers/{SERVER.replace('/', '~1')}/grants/{STRANGER.replace('/', '~1')}"
    row = {"policy": "evil", "rule": "all", "effect": "Allow", "port": 8443, "protocol": "TCP"}
    return packed([("patch.json", canonical.encode({"data": [{"op": "upsert", "path": path, "value": [row]}]}))])


def changed_data() -> bytes:
    genuine, evil = unpacked(a_policy(CLIENT)), evil_files()
    return packed(sorted({**genuine, "data.json": evil["data.json"], ".manifest": evil[".manifest"]}.items()))


def of_another_namespace() -> bytes:
    """Signed by us, with our key, for a neighbour who lets the stranger in."""
    document = policy(STRANGER, modules=modules(), namespace="other", valid=10**9)
    return build(document, modules(), scope_of(INSTANCE, "other", "policy"), KEY)


def two_signatures() -> bytes:
    files = evil_files()
    genuine = canonical.decode(files[".signatures.json"])["signatures"][0]
    return packed(sorted({**files, ".signatures.json": signatures(genuine, genuine)}.items()))


SPOILT: dict[str, tuple[Callable[[], bytes], str]] = {
    "stripped": (
        lambda: packed(sorted(f for f in evil_files().items() if f[0] != ".signatures.json")),
        "signatures.json",
    ),
    "signed by another key": (lambda: resigned(evil_files(), OTHER, POLICY), "verify JWT signature"),
    "another key in our key's name": (lambda: resigned(evil_files(), OTHER, POLICY, key_id=KEY.id), "verify JWT"),
    "no signatures": (
        lambda: packed(sorted({**evil_files(), ".signatures.json": signatures()}.items())),
        "missing JWT",
    ),
    "two signatures": (two_signatures, "multiple JWTs"),
    "changed data": (changed_data, "digest mismatch"),
    "unsigned file": (with_unsigned_file, "not included in bundle signature"),
    "signed file missing": (
        lambda: packed(sorted(f for f in evil_files().items() if not f[0].endswith("decision.rego"))),
        "specified in bundle signatures but not found",
    ),
    "truncated": (lambda: a_policy(CLIENT, STRANGER)[:-400], "EOF"),
    "garbage": (lambda: b"<html>404</html>", "gzip"),
    "delta": (delta, "delta"),
    "swapped namespace": (of_another_namespace, "scope mismatch"),
    "swapped kind": (some_revocations, "scope mismatch"),
    "signed for nobody": (
        lambda: packed(sorted({**evil_files(), ".signatures.json": signed(evil_files(), KEY, REVOCATIONS)}.items())),
        "scope mismatch",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_a_spoilt_bundle_is_refused_and_the_last_good_one_stays_until_its_end(name: str, tmp_path: Path) -> None:
    spoil, message = SPOILT[name]
    async with scene(tmp_path) as one:
        await one.run(good := a_policy(CLIENT, valid=SHORT))
        assert await one.decide() == ALLOWED
        one.host.publish(POLICY_PATH, spoil())
        refused = await one.host.reported("policy", code="bundle_error")
        assert message in refused["message"] + str(refused.get("errors", ""))
        assert refused["active_revision"] == canonical.decode(unpacked(good)[".manifest"])["revision"]
        await one.stays_until(not_after(good), ALLOWED)
        assert await one.until(STALE) >= not_after(good)
        one.host.publish(POLICY_PATH, a_policy(CLIENT, serial=2))
        await one.until(ALLOWED)


async def test_an_older_bundle_that_is_replayed_speaks_only_until_its_own_end(tmp_path: Path) -> None:
    """Its signature is good, so OPA takes it: only the end of its validity stops it."""
    async with scene(tmp_path) as one:
        await one.run(older := a_policy(CLIENT, serial=1, valid=SHORT + 1))
        one.host.publish(POLICY_PATH, a_policy(serial=2))
        await one.until(NO_GRANT)
        one.host.publish(POLICY_PATH, older, etag='"replayed"')
        await one.until(ALLOWED, seconds=SHORT)
        assert await one.until(STALE) >= not_after(older)
        one.host.publish(POLICY_PATH, a_policy(CLIENT, serial=1, valid=60), etag='"renewed"')
        await one.until(ALLOWED)


async def test_an_older_bundle_replayed_after_its_end_allows_nothing(tmp_path: Path) -> None:
    older = a_policy(CLIENT, serial=1, valid=1)
    async with scene(tmp_path, a_policy(serial=2)) as one:
        await asyncio.sleep(max(0.0, not_after(older) - time.time()))
        assert await one.decide() == NO_GRANT
        one.host.forget_reports()
        one.host.publish(POLICY_PATH, older)
        await one.host.reported("policy", active_revision=canonical.decode(unpacked(older)[".manifest"])["revision"])
        assert await one.decide() == STALE


async def test_a_server_that_is_down_for_less_than_the_validity_goes_unnoticed(tmp_path: Path) -> None:
    good = a_policy(CLIENT, valid=30)
    async with scene(tmp_path, good) as one:
        await one.host.close()
        await one.stays_until(time.time() + 1.0, ALLOWED)
        one.host.publish(POLICY_PATH, a_policy(serial=2))
        await one.host.open()
        await one.until(NO_GRANT)


async def test_a_server_that_is_down_for_longer_than_the_validity_ends_every_grant(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.run(good := a_policy(CLIENT, valid=SHORT))
        await one.host.close()
        await one.stays_until(not_after(good), ALLOWED)
        assert await one.until(STALE) >= not_after(good)
        one.host.publish(POLICY_PATH, a_policy(CLIENT, serial=2))
        await one.host.open()
        await one.until(ALLOWED)


async def test_a_server_that_crawls_changes_nothing_until_it_has_finished(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.run(good := a_policy(CLIENT, valid=SHORT))
        one.host.pause = 1.0
        one.host.publish(POLICY_PATH, a_policy(CLIENT, serial=2))
        await one.stays_until(not_after(good), ALLOWED)
        assert await one.until(STALE) >= not_after(good)


async def test_stale_revocations_deny_although_the_policy_is_fresh(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.run(short := some_revocations(valid=SHORT), "revocations")
        await one.stays_until(not_after(short), ALLOWED)
        assert await one.until(STALE) >= not_after(short)


async def test_a_revocation_denies_whoever_does_not_show_a_newer_certificate(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        document = revocations({CLIENT: int(time.time())}, serial=2)
        one.host.publish(REVOCATIONS_PATH, build(document, {}, REVOCATIONS, KEY))
        await one.until((False, "revoked_identity"))


async def test_a_restart_without_a_server_goes_on_from_the_disk_until_the_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.run(good := a_policy(CLIENT, valid=SHORT + 1))
        await one.host.close()
        one.opa.stop(grace=0)
        one.opa.start()
        await one.opa.ready()
        await one.stays_until(not_after(good), ALLOWED)
        assert await one.until(STALE) >= not_after(good)


async def spoil_the_disk(folder: Path, content: bytes) -> None:
    (folder / "persisted" / "bundles" / "policy" / "bundle.tar.gz").write_bytes(content)


@pytest.mark.parametrize("name", ["stripped", "signed by another key", "changed data", "delta", "swapped namespace"])
async def test_a_spoilt_bundle_on_the_disk_is_not_run(name: str, tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        await one.host.close()
        one.opa.stop(grace=0)
        await spoil_the_disk(tmp_path, SPOILT[name][0]())
        one.opa.start()
        await one.opa.serving()
        assert await one.decide() == (False, "undefined")
        one.host.publish(POLICY_PATH, a_policy(CLIENT, serial=2))
        await one.host.open()
        await one.until(ALLOWED)


async def test_the_bundles_of_a_key_that_was_rotated_away_are_refused(tmp_path: Path) -> None:
    """The new configuration pins the new key: whoever has the old one can sign nothing any more."""
    async with scene(tmp_path) as one:
        document = local(one.host, tmp_path, OTHER)
        for kind, bundle in document["bundles"].items():
            bundle["resource"] = f"/bundles/{KEY.id}/{NAMESPACE}/{kind}"
        one.opa.stop(grace=0)
        one.host.forget_reports()
        one.opa.configure(document)
        one.opa.start()
        await one.opa.serving()
        await one.host.reported("policy", code="bundle_error")
        assert await one.decide() == (False, "undefined")


async def test_a_bomb_is_cut_off_by_the_size_limit(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        document = local(one.host, tmp_path)
        document["bundles"]["policy"]["size_limit_bytes"] = 200_000
        one.opa.stop(grace=0)
        one.opa.configure(document)
        one.opa.start()
        await one.opa.ready()
        one.host.forget_reports()
        one.host.publish(POLICY_PATH, gzip.compress(gzip.decompress(packed([("data.json", bytes(10_000_000))]))))
        refused = await one.host.reported("policy", code="bundle_error")
        assert "size" in refused["message"]
        assert await one.decide() == ALLOWED


async def test_a_restart_from_the_disk_after_the_end_allows_nothing(tmp_path: Path) -> None:
    good = a_policy(CLIENT, valid=1)
    async with scene(tmp_path, good) as one:
        await one.host.close()
        one.opa.stop(grace=0)
        await asyncio.sleep(max(0.0, not_after(good) - time.time()))
        one.opa.start()
        await one.opa.ready()
        assert await one.decide() == STALE


async def test_opa_digests_what_we_spell(tmp_path: Path) -> None:
    """Whatever text a user writes: OPA writes it anew before it hashes, and must come to the digest of our bytes."""
    odd = {
        chr(code) + name: chr(code)
        for code in (*range(0x20), 0x7F, 0x85, 0x2028, 0x2029, 0xFEFF, 0xFFFF, 0x1F600)
        for name in ("", "<&>'\"\\/")
    }
    numbers = [0, -1, 2**53 + 1, 10**30]
    keys = {"odd": odd, "numbers": numbers, "empty": [{}, [], "", None, True]}
    document = policy(CLIENT, modules=modules(), api_keys=keys)
    async with scene(tmp_path, build(document, modules(), POLICY, KEY)) as one:
        assert await one.opa.data("zerotrust_data/policy/api_keys") == keys


async def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    """A key id, a namespace and a pod may be called 12e4…: to a reader of YAML in Go that is a number, unless quoted."""
    verification = Verification("12e4567890123456", signing.public_pem(KEY.public), INSTANCE)
    document = configuration.document("12e3", Service("https://127.0.0.1:1"), verification, str(tmp_path / "persisted"))
    del document["services"]["zerotrust"]["tls"]
    opa = Opa(tmp_path, document)
    try:
        opa.start({**os.environ, "POD_NAME": "1e3", "POD_UID": "0899"})
        await opa.serving()
        known = await opa.configuration()
    finally:
        await opa.close()
    labels = {name: known["labels"][name] for name in ("namespace", "pod", "pod_uid")}
    assert labels == {"namespace": "12e3", "pod": "1e3", "pod_uid": "0899"}
    assert set(known["keys"]) == {"12e4567890123456"}
    assert known["bundles"]["policy"]["signing"]["keyid"] == "12e4567890123456"


async def test_a_rotation_of_the_key_needs_no_restart(tmp_path: Path) -> None:
    """With --watch-config OPA changes over when its configuration changes; the path of the old key is still served."""
    async with scene(tmp_path) as one:
        for kind, content in (("policy", policy(CLIENT, modules=modules(), serial=2)), ("revocations", revocations())):
            rules = modules() if kind == "policy" else {}
            scope = POLICY if kind == "policy" else REVOCATIONS
            one.host.publish(f"/bundles/{OTHER.id}/{NAMESPACE}/{kind}", build(content, rules, scope, OTHER))
        seen: list[tuple[bool, str]] = []
        one.opa.configure(local(one.host, tmp_path, OTHER))
        deadline = time.time() + 10
        while not any(OTHER.id in path for path, _ in one.host.requests) or seen[-5:] != [ALLOWED] * 5:
            assert time.time() < deadline, seen[-10:]
            try:
                seen.append(await one.decide())
            except (aiohttp.ClientError, TimeoutError):
                seen.append((False, "unreachable"))
            await asyncio.sleep(0.02)
        await one.host.labelled("signing_key", OTHER.id)
        assert {allowed for allowed, reason in seen if reason != "allowed"} <= {False}


async def test_opa_knows_every_option_and_says_who_it_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as one:
        assert not one.opa.said("unknown configuration option")
        assert not one.opa.said('"level":"error"')
        await one.decide()
        status = one.host.statuses[-1]
        assert status["labels"]["namespace"] == NAMESPACE
        assert status["labels"]["signing_key"] == KEY.id
        path, headers = one.host.requests[0]
        assert path in (POLICY_PATH, REVOCATIONS_PATH)
        assert headers["Authorization"] == "Bearer a-token"
        assert "wait=30" in headers["Prefer"]
        deadline = time.time() + 5
        while not one.host.decisions:
            assert time.time() < deadline
            await asyncio.sleep(0.05)
        assert one.host.decisions[0]["bundles"]["policy"]["revision"]
