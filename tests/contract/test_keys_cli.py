"""`zerotrust keys` against the fake API server with the real controller: what it writes, waits for, and never shows."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.contract.test_apikeys import bundles, condition, issued, partner, point, report, secret, serving, status
from tests.support.fakeapi import FakeApi, Respond
from tests.support.rig import OPERATOR_NAMESPACE, resource, running
from zerotrust.apikey.key import generate
from zerotrust.cli.main import zerotrust
from zerotrust.common import naming, times
from zerotrust.opabundle.reports import Point

PLACE = ("-n", "shop")


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


class Console:
    """Runs commands in a thread, beside the controller, and keeps everything that they print."""

    def __init__(self, server: FakeApi, folder: Path) -> None:
        self._kubeconfig = server.kubeconfig(folder / "user")
        self.printed = ""

    async def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        command = ["keys", *arguments, "--kubeconfig", str(self._kubeconfig)]
        runner = CliRunner(env={"NO_COLOR": "1"})
        result = await asyncio.to_thread(runner.invoke, zerotrust, command, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        self.printed += result.output
        return result


@pytest.fixture
def console(server: FakeApi, tmp_path: Path) -> Console:
    return Console(server, tmp_path)


@contextlib.asynccontextmanager
async def serving_to(server: FakeApi, stale: Point) -> AsyncIterator[None]:
    """A replica that serves whatever is recorded, to a decision point that runs what it ran and hears of nothing."""

    async def follow() -> None:
        seen: dict[str, Any] = {}
        while True:
            if bundles(server) != seen:
                seen = bundles(server)
                report(server, stale)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()


async def test_the_life_of_a_key_from_the_command_line(server: FakeApi, tmp_path: Path, console: Console) -> None:
    """Every command with a real key; no output has more of it than its id."""
    async with running(server, tmp_path) as rig, serving(server):
        old = await issued(rig)
        first = secret(server)["api-key"]

        listed = await console("list", *PLACE)
        assert listed.exit_code == 0
        head, row = listed.stdout.splitlines()
        assert head.split() == ["NAME", "HOLDER", "KEY-ID", "PHASE", "NEXT-ROTATION", "EXPIRES", "LAST-USED", "PROBLEM"]
        told = status(server)
        expected = ["partner", "partner", old, "Delivered", told["nextRotationTime"], told["expiresAt"], "-", "-"]
        assert row.split() == expected

        good = await console("inspect", stdin=first + "\n")
        assert good.exit_code == 0, good.output
        assert good.stdout.startswith(f"GOOD: it is good until {told['expiresAt']}")
        assert "shop/partner" in good.stdout
        assert f"ConfigMap {OPERATOR_NAMESPACE}/shop.api-keys has of this id" in good.stdout

        rotated = await console("rotate", "partner", *PLACE, "--wait", "--timeout", "20s")
        assert rotated.exit_code == 0, rotated.output
        new = str(status(server)["keyID"])
        assert new != old
        assert f"key {new} is in Secret shop/partner-api-key after" in rotated.stdout
        assert f"key {old} is good until {status(server)['overlapEndsAt']}" in rotated.stdout

        offer = await console("revoke", "partner", *PLACE)
        assert offer.exit_code == 2
        assert f"{new}  in use, good until" in offer.stderr
        assert f"{old}  older, in overlap, good until" in offer.stderr
        assert f"zerotrust keys revoke partner -n shop --key-id {old}" in offer.stderr

        revoked = await console("revoke", "partner", *PLACE, "--key-id", old, "--wait", "--timeout", "20s")
        assert revoked.exit_code == 0, revoked.output
        assert f"key {old} is revoked for good" in revoked.stdout
        assert "every decision point refuses what is revoked, after" in revoked.stdout
        assert server.get("ApiKey", "partner", "shop")["spec"]["revokedKeyIDs"] == [old]
        assert condition(server, "Revoked") == ("True", "Acknowledged")

        refused = await console("inspect", "-o", "json", stdin=first)
        assert refused.exit_code == 1
        answer = json.loads(refused.stdout)
        assert (answer["verdict"], answer["phase"], answer["keyID"]) == ("refused", "Revoked", old)
        assert answer["revokedSince"]
        second = secret(server)["api-key"]
        assert (await console("inspect", *PLACE, stdin=second)).exit_code == 0
        for output in ("wide", "json", "yaml"):
            assert (await console("list", "-A", "-o", output)).exit_code == 0

    for text in (first, second):
        wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
        for command in ("inspect", "rotate", "revoke", "list"):
            misused = await console(command, text)
            assert misused.exit_code == 2
            assert "A key is never an argument" in misused.stderr
        for arguments in (("revoke", "partner", "--key-id", text[3:]), ("rotate", text[3:]), ("list", "-n", text[16:])):
            assert (await console(*arguments)).exit_code == 2
        assert (await console("inspect", text[3:])).exit_code == 2
        assert (await console("inspect", stdin=wrong)).stdout.startswith("MISTYPED")
        assert (await console("inspect", stdin=f" {text}")).stdout.startswith("MALFORMED")
        assert (await console("inspect", stdin=text * 2)).exit_code == 2
        assert text[16:-8] not in console.printed
        assert text[20:40] not in console.printed


async def test_revoke_waits_for_who_lags_and_names_it(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        async with serving(server, "orders-1"):
            old = await issued(rig)
            await rig.until(lambda: condition(server, "Published") == ("True", "Acknowledged"))
        lagging = point(server, "orders-1")
        late = await console("revoke", "partner", *PLACE, "--current", "--wait", "--timeout", "1s")
        assert late.exit_code == 1
        assert "it is the key in use: a new one follows" in late.stdout
        assert "not acknowledged after" in late.stdout
        await rig.until(lambda: condition(server, "Revoked")[1] == "NotServed")

        async with serving_to(server, lagging):
            await rig.until(lambda: condition(server, "Revoked")[1] == "Lagging")
            again = await console(
                "revoke", "partner", *PLACE, "--key-id", old, "--wait", "--timeout", "1s", "-o", "json"
            )
            assert again.exit_code == 1
            answer = json.loads(again.stdout)
            assert (answer["revoked"], answer["revokedBefore"], answer["ending"]) == ([], [old], "late")
            assert "orders-1" in answer["waitedFor"]
            assert "Revoked=False/Lagging" in again.stderr

        async with serving(server, "orders-1"):
            done = await console("revoke", "partner", *PLACE, "--key-id", old, "--wait", "--timeout", "20s")
            assert done.exit_code == 0, done.output


async def test_nothing_is_taken_off_the_list_whoever_writes_at_the_same_time(
    server: FakeApi, tmp_path: Path, console: Console
) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        key_id = await issued(rig, revokedKeyIDs=["AAAAAAAAAAAA"])
        server.faults.on(verb="patch", resource="apikeys", action=Respond(409), times=2)
        done = await console("revoke", "partner", *PLACE, "--all")
        assert done.exit_code == 0, done.output
        assert server.get("ApiKey", "partner", "shop")["spec"]["revokedKeyIDs"] == ["AAAAAAAAAAAA", key_id]


async def test_a_dry_run_writes_nothing(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        key_id = await issued(rig)
        before = server.get("ApiKey", "partner", "shop")
        for arguments in (("rotate", "partner"), ("revoke", "partner", "--all")):
            result = await console(*arguments, *PLACE, "--dry-run", "--wait")
            assert result.exit_code == 0, result.output
            assert "would be" in result.stdout
        assert key_id in result.stdout
        assert server.get("ApiKey", "partner", "shop") == before


async def test_a_rotation_under_way_is_not_asked_for_twice(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        async with serving(server):
            old = await issued(rig)
        first = await console("rotate", "partner", *PLACE, "-o", "json")
        assert json.loads(first.stdout)["changed"] is True
        asked = requested(server)
        await asyncio.sleep(1.1)  # a request made now would be a later one, in whole seconds
        second = await console("rotate", "partner", *PLACE)
        assert "is under way; nothing was changed" in second.stdout
        assert requested(server) == asked
        late = await console("rotate", "partner", *PLACE, "--wait", "--timeout", "1s")
        assert late.exit_code == 1
        assert "no new key after 1." in late.stdout
        async with serving(server):
            done = await console("rotate", "partner", *PLACE, "--wait", "--timeout", "20s")
            assert done.exit_code == 0, done.output
            await rig.idle()
            assert status(server)["keyID"] != old
            assert status(server)["previousKeyID"] == old


async def test_rotate_writes_an_annotation_and_nothing_else(server: FakeApi, console: Console) -> None:
    """A deployment from git that knows no such annotation has nothing to put back."""
    told = {"keyID": "AAAAAAAAAAAA", "issuedAt": "2026-01-01T00:00:00Z"}
    before = server.create(with_status("partner", told, metadata={"annotations": {"team": "a"}}))
    result = await console("rotate", "partner", *PLACE)
    assert result.exit_code == 0, result.output
    after = server.get("ApiKey", "partner", "shop")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["metadata"]["annotations"] == {"team": "a", naming.ROTATE_REQUESTED: requested(server)}
    assert abs(times.parse(requested(server)) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("spec", "told", "message"),
    [
        ({"state": "Suspended"}, {}, "spec.state is Suspended"),
        ({"notAfter": "2026-01-02T00:00:00Z"}, {}, "spec.notAfter was 2026-01-02T00:00:00Z"),
        ({}, {"keyID": None}, "has no key yet"),
    ],
)
async def test_rotate_refuses_what_would_do_nothing(
    server: FakeApi, console: Console, spec: dict[str, Any], told: dict[str, Any], message: str
) -> None:
    server.create(with_status("partner", {"keyID": "AAAAAAAAAAAA", "issuedAt": "2026-01-01T00:00:00Z", **told}, **spec))
    before = server.get("ApiKey", "partner", "shop")
    result = await console("rotate", "partner", *PLACE)
    assert result.exit_code == 2
    assert message in result.stderr
    assert server.get("ApiKey", "partner", "shop") == before


async def test_a_planned_rotation_that_is_replaced_is_told(server: FakeApi, console: Console) -> None:
    told = {"keyID": "AAAAAAAAAAAA", "issuedAt": "2026-01-01T00:00:00Z"}
    planned = {"annotations": {naming.ROTATE_REQUESTED: "2999-01-01T00:00:00Z"}}
    server.create(with_status("partner", told, metadata=planned))
    result = await console("rotate", "partner", *PLACE)
    assert "planned for 2999-01-01T00:00:00Z" in result.stdout


async def test_what_is_not_there(server: FakeApi, console: Console) -> None:
    for command in ("rotate", "revoke"):
        result = await console(command, "nobody", *PLACE)
        assert result.exit_code == 2
        assert "there is no ApiKey shop/nobody; there is none of this kind in namespace shop" in result.stderr
    empty = await console("list")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "No ApiKeys found" in empty.stderr
    assert json.loads((await console("list", "-o", "json")).stdout) == {"apiKeys": []}


async def test_an_unknown_id_is_refused_while_the_records_tell(
    server: FakeApi, tmp_path: Path, console: Console
) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        key_id = await issued(rig)
        before = server.get("ApiKey", "partner", "shop")
        result = await console("revoke", "partner", *PLACE, "--key-id", "AAAAAAAAAAAA")
        assert result.exit_code == 2
        assert "AAAAAAAAAAAA is no key of this ApiKey" in result.stderr
        assert f"{key_id}  in use" in result.stderr
        assert server.get("ApiKey", "partner", "shop") == before


async def test_without_rights_to_the_records(server: FakeApi, tmp_path: Path, console: Console) -> None:
    """What is known from the ApiKey is told, an id alone proves nothing, and what could not be read is said."""
    async with running(server, tmp_path) as rig, serving(server):
        key_id = await issued(rig)
        text = secret(server)["api-key"]
    server.faults.on(verb="list", resource="configmaps", action=Respond(403), times=5)
    seen = await console("inspect", stdin=text)
    assert seen.exit_code == 1
    assert seen.stdout.startswith("UNVERIFIED: its id is that of a key, which is good until")
    assert f"the records in the namespace {OPERATOR_NAMESPACE} may not be read" in seen.stdout
    stranger = await console("inspect", stdin=a_key())
    assert stranger.exit_code == 1
    assert stranger.stdout.startswith("UNKNOWN")
    assert "or is an older key in overlap, which only the records tell" in stranger.stdout
    some = await console("revoke", "partner", *PLACE, "--all", "--dry-run")
    assert some.exit_code == 0
    assert key_id in some.stdout
    assert "there may be more old keys in overlap" in some.stderr
    odd = await console("revoke", "partner", *PLACE, "--key-id", "AAAAAAAAAAAA")
    assert odd.exit_code == 0
    assert "AAAAAAAAAAAA could not be checked" in odd.stderr
    partner(server, state="Suspended")
    assert (await console("inspect", stdin=text)).stdout.startswith("REFUSED: spec.state is Suspended")


async def test_a_waiter_hears_that_an_id_is_ignored(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        await issued(rig)
        server.faults.on(verb="list", resource="configmaps", action=Respond(403), times=1)
        wrong = ("revoke", "partner", *PLACE, "--key-id", "AAAAAAAAAAAA", "--wait", "--timeout", "20s")
        result = await console(*wrong)
        assert result.exit_code == 1
        assert "AAAAAAAAAAAA is no key of this ApiKey, and is ignored" in result.stdout


async def test_inspect_knows_what_no_key_is_good_for(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        await issued(rig)
        text = secret(server)["api-key"]
        same_id = a_key(text[3:15])
        made_up = await console("inspect", stdin=same_id)
        assert made_up.exit_code == 1
        assert "its id is that of a key of ApiKey shop/partner, and the rest of it is not" in made_up.stdout
        stranger = await console("inspect", stdin=a_key())
        assert stranger.exit_code == 1
        assert stranger.stdout.startswith("UNKNOWN")
        elsewhere = await console("inspect", "-n", "web", stdin=text)
        assert elsewhere.stdout.startswith("UNKNOWN")
        server.delete("ApiKey", "partner", "shop")
        await rig.idle()
        gone = await console("inspect", stdin=text)
        assert gone.exit_code == 1
        assert gone.stdout.startswith("REFUSED: its ApiKey shop/partner is deleted")


async def test_who_may_not_list_every_namespace_is_told_what_to_write(server: FakeApi, console: Console) -> None:
    server.faults.on(verb="list", resource="apikeys", action=Respond(403), times=1)
    result = await console("inspect", stdin=a_key())
    assert result.exit_code == 2
    assert "give -n NAMESPACE" in result.stderr


def requested(server: FakeApi) -> str:
    """The rotation that an annotation asks for."""
    return str(server.get("ApiKey", "partner", "shop")["metadata"]["annotations"][naming.ROTATE_REQUESTED])


def a_key(key_id: str = "") -> str:
    """A well-formed key that nobody was given; of this id, if there is one."""
    import hashlib
    import secrets

    text = generate(secrets.token_bytes).reveal()
    head = f"sk_{key_id}{text[15:-8]}" if key_id else text[:-8]
    return head + hashlib.sha256(head.encode()).hexdigest()[:8]


def with_status(name: str, told: dict[str, Any], *, metadata: dict[str, Any] | None = None, **spec: Any) -> Any:
    """An ApiKey with a status that no controller looks after."""
    body = resource("ApiKey", name, "shop", {"holder": {"name": name}, "audience": ["orders"], **spec})
    known = {key: value for key, value in told.items() if value is not None}
    return {**body, "metadata": {**body["metadata"], **(metadata or {})}, "status": known}
