"""API keys: real OPA with the shipped rules, and the evaluator, say the same; whatever is no good key is refused."""

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hack.gotools import find_or_build
from tests.support.api_keys import SECONDS, a_key, a_principal, a_record, an_id, checked, hash_of
from tests.support.bundleserver import Directory
from tests.support.certificates import NOW
from tests.support.opa import Opa, running_opa
from tests.support.rego import (
    CLIENT,
    ROW,
    SERVER,
    a_policy,
    a_request,
    a_server,
    an_envoy_request,
    ask,
    written_modules,
)
from zerotrust.apikey import key
from zerotrust.bundleserver.caller import Caller, Subject
from zerotrust.bundleserver.decisions import LogReader
from zerotrust.opabundle.document import row_document
from zerotrust.opabundle.modules import modules
from zerotrust.policy.directory import Workload
from zerotrust.policy.evaluate import Key, Request, evaluate
from zerotrust.policy.table import Client, KeyPrincipal, Row, Table

ID = "Partner00001"
KEY = a_key(ID)
OTHER_SERVER = "spiffe://example.org/ns/shop/sa/billing"
OTHER_CLIENT = "spiffe://example.org/ns/web/sa/other"
ASKING = {**ROW, "principal": a_principal("partner")}
ORDERS, BILLING, FRONTEND = Workload("shop", "orders"), Workload("shop", "billing"), Workload("web", "frontend")
DAY = timedelta(hours=12)
PARTNER = KeyPrincipal("partner", ())
WHOLE = Key("partner", frozenset({"read", "write"}), NOW - DAY, NOW + DAY, audience=frozenset({ORDERS}))


def data(*rows: dict[str, Any], revoked: dict[str, Any] | None = None, **record: Any) -> dict[str, Any]:
    """Both bundles with that record of KEY and these rows."""
    servers = {SERVER: a_server(*(rows or (ASKING,)))}
    return a_policy(servers=servers, api_keys={ID: a_record(KEY, **record)}, revocations={"keys": revoked or {}})


def presenting(text: Any, **changes: Any) -> dict[str, Any]:
    return a_request(headers={"x-api-key": text}, **changes)


# --- the same vectors for both ---


@dataclass(frozen=True)
class Vector:
    """A record as a bundle has it and as the evaluator is shown it, what a row asks for, and the right reason."""

    record: dict[str, Any]
    shown: Key
    reason: str
    principal: KeyPrincipal = PARTNER
    scopes: tuple[str, ...] = ()
    revoked: dict[str, int] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        return Row(
            Client.of(FRONTEND), 8443, "TCP", "Allow", False, None, None, self.principal, self.scopes, False, None, None,
            "p", "r",
        )  # fmt: skip


def bounds(seconds: int) -> datetime:
    return datetime.fromtimestamp(SECONDS + seconds, UTC)


OLD = {"not_after": SECONDS}
VECTORS = {
    "good": Vector({}, WHOLE, "allowed"),
    "begins now": Vector({"not_before": SECONDS}, replace(WHOLE, not_before=NOW), "allowed"),
    "begins in a second": Vector({"not_before": SECONDS + 1}, replace(WHOLE, not_before=bounds(1)), "bad_key"),
    "ends in a second": Vector({"not_after": SECONDS + 1}, replace(WHOLE, not_after=bounds(1)), "allowed"),
    "ends now": Vector(OLD, replace(WHOLE, not_after=NOW), "expired_key"),
    "ended": Vector({"not_after": SECONDS - 9}, replace(WHOLE, not_after=bounds(-9)), "expired_key"),
    "suspended": Vector({"suspended": True}, replace(WHOLE, withdrawn=True), "revoked_key"),
    "revoked": Vector({}, replace(WHOLE, withdrawn=True), "revoked_key", revoked={ID: SECONDS}),
    "revoked from tomorrow on": Vector({}, replace(WHOLE, withdrawn=True), "revoked_key", revoked={ID: SECONDS * 2}),
    "another is revoked": Vector({}, WHOLE, "allowed", revoked={"Partner00002": SECONDS}),
    "expired and revoked": Vector(OLD, replace(WHOLE, not_after=NOW, withdrawn=True), "expired_key", revoked={ID: 1}),
    "revoked, for another server": Vector(
        {"audience": [OTHER_SERVER], "suspended": True},
        replace(WHOLE, audience=frozenset({BILLING}), withdrawn=True), "revoked_key",
    ),
    "for another server": Vector({"audience": [OTHER_SERVER]}, replace(WHOLE, audience=frozenset({BILLING})), "bad_key"),
    "for nobody": Vector({"audience": []}, replace(WHOLE, audience=frozenset()), "bad_key"),
    "for several servers": Vector(
        {"audience": [OTHER_SERVER, SERVER]}, replace(WHOLE, audience=frozenset({BILLING, ORDERS})), "allowed"
    ),
    "bound to the caller": Vector({"workload": CLIENT}, replace(WHOLE, workload=FRONTEND), "allowed"),
    "bound to another": Vector({"workload": OTHER_CLIENT}, replace(WHOLE, workload=BILLING), "bad_key"),
    "another name": Vector({"name": "guest"}, replace(WHOLE, name="guest"), "bad_key"),
    "any with these scopes": Vector({}, WHOLE, "allowed", KeyPrincipal("", ("read",))),
    "any with more scopes": Vector({}, WHOLE, "bad_key", KeyPrincipal("", ("delete", "read"))),
    "a scope that it has": Vector({}, WHOLE, "allowed", scopes=("write",)),
    "a scope that it lacks": Vector({}, WHOLE, "missing_scope", scopes=("delete",)),
    "expired, and lacks a scope": Vector(OLD, replace(WHOLE, not_after=NOW), "expired_key", scopes=("delete",)),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_opa_and_the_evaluator_give_the_verdict_that_is_right(name: str, tmp_path: Path) -> None:
    vector = VECTORS[name]
    table = Table(ORDERS, "Enforce", frozenset({"OPA"}), (vector.row,))
    mine = evaluate(table, Request(FRONTEND, 8443, "TCP", "GET", "/a", key=vector.shown), NOW)
    assert (mine.reason, mine.allowed) == (vector.reason, vector.reason == "allowed")
    given = data(dict(row_document(vector.row)), revoked=vector.revoked, **vector.record)
    (answer,) = ask(tmp_path, given, presenting(KEY))
    assert (answer["reason"], answer["allowed"]) == (mine.reason, mine.allowed)
    assert answer["status"] == {"allowed": 200, "missing_scope": 403}.get(mine.reason, 401)
    # The key was the right one, so that logs may name it, also where it was refused.
    assert answer["key_id"] == ID
    assert "unknown_key_id" not in answer


# --- what is presented ---

HEX = KEY[-8:]
SCHEME = f"ApiKey {KEY}"
NOT_KEYS: dict[str, Any] = {
    "nothing": "",
    "the stored hash": hash_of(KEY),
    "the stored hash's digits": hash_of(KEY).removeprefix("sha256:"),
    "a key made of the stored hash": checked(f"sk_{ID}.{hash_of(KEY)[7:50]}"),
    "the id alone": ID,
    "id and prefix": f"sk_{ID}",
    "id and prefix and a dot": f"sk_{ID}.",
    "without its check": KEY[:-8],
    "wrong check": KEY[:-1] + ("0" if KEY[-1] != "0" else "1"),
    "no check": KEY[:-8] + "0" * 8,
    "check in capitals": KEY[:-8] + "ABCDEF01",
    "lower case": KEY.lower(),
    "upper case": KEY.upper(),
    "one more": KEY + "0",
    "one less": KEY[:-1],
    "another prefix": "pk" + KEY[2:],
    "space before": " " + KEY,
    "space behind": KEY + " ",
    "new line behind": KEY + "\n",
    "NUL behind": KEY + "\0",
    "NUL inside": KEY[:20] + "\0" + KEY[21:],
    "NUL and more": KEY + "\0" + KEY,
    "full width digits": KEY.replace("1", "\uff11"),
    "Cyrillic letter": KEY.replace("a", "\u0430"),
    "combining letter behind": KEY + "\u0301",
    "emoji": "\U0001f511" * 67,
    "lone surrogate": "\ud800" * 67,
    "padded": KEY[:59] + "=" + KEY[59:],
    "escaped": KEY.replace("_", "%5F", 1),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "scheme in the wrong header": SCHEME,
    "twice": f"{KEY},{KEY}",
    "twice with space": f"{KEY}, {KEY}",
    "a megabyte": "sk_" + "x" * 1_000_000,
    "a megabyte behind the key": KEY + "0" * 1_000_000,
    "a list": [KEY],
    "a list of two": [KEY, KEY],
    "a number": 7,
    "an object": {"key": KEY},
    "null": None,
    "true": True,
}


@pytest.fixture
async def opa(tmp_path: Path) -> AsyncIterator[Opa]:
    """With rows that ask for the key, for any key with a scope, and, on port 1, for none."""
    rows = [ASKING, {**ASKING, "principal": a_principal("", "read"), "port": 8444}, {**ROW, "port": 1}]
    both = data(*rows, not_before=0, not_after=10**11)
    both["zerotrust_data"]["policy"]["api_keys"] |= {
        an_id(2): a_record(a_key(an_id(2)), audience=[OTHER_SERVER], not_before=0, not_after=10**11),
        an_id(3): a_record(a_key(an_id(3)), not_before=0, not_after=1),
    }
    both["zerotrust_data"]["policy"]["servers"] |= {
        OTHER_SERVER: a_server({**ROW, "principal": a_principal("guest")}),
    }
    (tmp_path / "data.json").write_text(json.dumps(both))
    files = [written_modules(tmp_path / "modules"), tmp_path / "data.json"]
    async with running_opa(tmp_path / "opa", {"decision_logs": {"console": True}}, files) as running:
        yield running


async def test_a_key_is_taken_from_either_header_in_any_letters(opa: Opa) -> None:
    for headers in (
        {"x-api-key": KEY},
        {"X-API-Key": KEY},
        {"authorization": SCHEME},
        {"Authorization": f"APIKEY  {KEY}"},
        {"x-api-key": KEY, "authorization": SCHEME},
        {"x-api-key": KEY, "authorization": "Bearer x"},
    ):
        for asked in (a_request(headers=headers), an_envoy_request(headers=headers)):
            answer = await opa.ask(asked)
            assert (answer["reason"], answer.get("key_id")) == ("allowed", ID), headers


async def test_what_the_operator_issues_is_what_opa_reads(tmp_path: Path) -> None:
    issued = [key.generate(Random(seed).randbytes) for seed in range(20)]
    both = data()
    both["zerotrust_data"]["policy"]["api_keys"] = {
        one.id: a_record(one.reveal(), hash=key.digest(one)) for one in issued
    }
    for one, answer in zip(issued, ask(tmp_path, both, *(presenting(one.reveal()) for one in issued)), strict=True):
        assert (answer["reason"], answer["key_id"]) == ("allowed", one.id)
    for name, text in NOT_KEYS.items():
        if isinstance(text, str) and "made of" not in name:
            with pytest.raises(key.BadKey):
                key.parse(text)


def shown_as_keys(text: Any) -> list[dict[str, Any]]:
    """Headers in which that is presented, alone and beside a good key."""
    shown = [{"x-api-key": text}, {"X-Api-Key": text}, {"x-api-key": text, "authorization": SCHEME}]
    if isinstance(text, str) and not text.startswith((" ", "ApiKey")):
        shown += [{"authorization": f"ApiKey {text}"}, {"x-api-key": KEY, "authorization": f"ApiKey {text}"}]
        shown += [{"authorization": text}]
    return shown


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What OPA says of each of them, by name."""
    asked = [(name, a_request(headers=one)) for name, text in NOT_KEYS.items() for one in shown_as_keys(text)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NOT_KEYS}
    said = ask(tmp_path_factory.mktemp("keys"), data(), *(given for _, given in asked))
    for (name, _), answer in zip(asked, said, strict=True):
        found[name].append(answer)
    return found


@pytest.mark.parametrize("name", NOT_KEYS)
def test_what_is_no_key_is_refused_in_every_header(name: str, refusals: dict[str, list[dict[str, Any]]]) -> None:
    assert len(refusals[name]) in (3, 6)
    for answer in refusals[name]:
        assert (answer["allowed"], answer["reason"], answer["status"]) == (False, "bad_key", 401)
        assert "key_id" not in answer
        assert ("unknown_key_id" in answer) <= ("made of" in name)


async def test_a_running_opa_answers_hostile_keys_too(opa: Opa) -> None:
    for text in ("sk_" + "x" * 1_000_000, KEY + "\0", "\ud800" * 67, [KEY, KEY], {"key": KEY}):
        assert (await opa.ask(presenting(text)))["reason"] == "bad_key"
    assert (await opa.ask(presenting(KEY)))["reason"] == "allowed"
    assert not opa.said('"level":"error"')


async def test_two_credentials_that_differ_are_none(opa: Opa) -> None:
    for headers in (
        {"x-api-key": KEY, "X-API-KEY": KEY},
        {"x-api-key": KEY, "authorization": f"ApiKey {a_key(an_id(2))}"},
        {"x-api-key": a_key(an_id(2)), "authorization": SCHEME},
        {"x-api-key": KEY, "authorization": [SCHEME, SCHEME]},
        {"x-api-key": KEY, "authorization": f"Bearer x, ApiKey {a_key(an_id(2))}"},
        {"authorization": f"Bearer x,{SCHEME}"},
        {"authorization": f"{SCHEME},{SCHEME}"},
        {"authorization": SCHEME, "Authorization": SCHEME},
        {"x-api-key": KEY, "authorization": "Bearer x", "Authorization": "Bearer x"},
    ):
        answer = await opa.ask(a_request(headers=headers))
        assert (answer["allowed"], answer["reason"]) == (False, "bad_key"), headers


async def test_keys_elsewhere_than_in_a_header_are_not_read(opa: Opa) -> None:
    for query in (f"api_key={KEY}", f"x-api-key={KEY}", f"apikey={KEY}", f"access_token={KEY}"):
        assert (await opa.ask(a_request(path=f"/a?{query}")))["reason"] == "bad_key"
    for name in ("cookie", "api-key", "x_api_key", "x-api-key2", "proxy-authorization", "x-api-key "):
        assert (await opa.ask(a_request(headers={name: KEY})))["reason"] == "bad_key"
    asked = presenting("", query={"x-api-key": KEY}, parsed_query={"x-api-key": [KEY]}, body={"x-api-key": KEY})
    assert (await opa.ask({**asked, "x-api-key": KEY}))["reason"] == "bad_key"


async def test_keys_of_others_are_refused_and_told_apart(opa: Opa) -> None:
    elsewhere = a_key("Elsewhere001")
    forged = a_key(ID, "another secret")
    for text, name, identifier in (
        (a_key(an_id(2)), "key_id", an_id(2)),  # its audience is another server
        (elsewhere, "unknown_key_id", "Elsewhere001"),  # of another namespace: no bundle here has it
        (forged, "unknown_key_id", ID),
    ):
        answer = await opa.ask(presenting(text))
        assert (answer["allowed"], answer["reason"], answer[name]) == (False, "bad_key", identifier)
        assert not {"key_id", "unknown_key_id"} - {name} & set(answer)
    # Nor does the other server accept this one's.
    assert (await opa.ask({**presenting(KEY), "server": OTHER_SERVER}))["reason"] == "bad_key"
    # Whoever is not let in anyway learns nothing about a key.
    stranger = a_request({"principal": OTHER_CLIENT, "mtls": True}, headers={"x-api-key": KEY})
    assert not {"key_id", "unknown_key_id"} & set(await opa.ask(stranger))


# --- what is logged ---


async def test_logs_name_the_key_and_hold_neither_it_nor_its_hash(opa: Opa) -> None:
    expired, forged = a_key(an_id(3)), a_key(ID, "another secret")
    shown = {KEY: "allowed", expired: "expired_key", forged: "bad_key", a_key("Elsewhere001"): "bad_key"}
    for text, reason in shown.items():
        for headers in ({"x-api-key": text}, {"Authorization": f"ApiKey {text}"}, {"X-API-KEY": text, "x-seen": text}):
            for asked in (a_request(headers=headers), an_envoy_request(headers=headers)):
                assert (await opa.ask({**asked, "key": text}))["reason"] == reason
                await opa.ask(asked, "zerotrust/authz/envoy")
    log = opa.log.read_text()
    for text in shown:
        assert text not in log
        assert text.partition(".")[2][:20] not in log
        assert hash_of(text).removeprefix("sha256:") not in log
        assert text[-8:] not in log
    assert f'"key_id":"{ID}"' in log
    assert f'"key_id":"{an_id(3)}"' in log
    assert '"unknown_key_id":"Elsewhere001"' in log


async def test_the_bundle_server_reads_when_a_key_was_used(opa: Opa) -> None:
    await opa.ask(presenting(KEY))
    await opa.ask(presenting(a_key(an_id(3))))
    await opa.ask(presenting(a_key("Elsewhere001")))
    lines = [json.loads(line) for line in opa.log.read_text().splitlines() if line.startswith("{")]
    events = [
        {**line, "timestamp": line["time"]} for line in lines if line.get("type") == "openpolicyagent.org/decision_logs"
    ]
    assert len(events) == 3
    caller = Caller(Subject("system:serviceaccount:shop:orders"), NOW + DAY, "orders-0", "uid")
    now = datetime.now(UTC)
    summary = LogReader(Directory(), 100, 100, 10).summary(events, caller, now)
    assert (summary.malformed, summary.foreign) == (0, 0)
    assert {key_id for key_id, reason in summary.key_uses if not reason} == {ID}
    assert "expired_key" in {reason for _, reason in summary.key_uses}
    assert sorted(labels.reason for labels in summary.decided) == ["allowed", "bad_key", "expired_key"]


# --- what it costs ---


def read_lines(folder: Path, both: dict[str, Any], asked: dict[str, Any]) -> set[int]:
    """The lines of keys.rego that one decision evaluates."""
    (folder / "data.json").write_text(json.dumps(both))
    (folder / "input.json").write_text(json.dumps(asked))
    command = [find_or_build("opa"), "eval", "--coverage", "--format", "json", "--input", folder / "input.json"]
    command += ["--data", written_modules(folder / "modules"), "--data", folder / "data.json"]
    ran = subprocess.run([*command, "data.zerotrust.authz.decision"], capture_output=True, text=True, check=True)
    files = json.loads(ran.stdout)["coverage"]["files"]
    found = files.get(str(folder / "modules" / "zerotrust" / "authz" / "keys.rego"), {})
    ranges = [range(part["start"]["row"], part["end"]["row"] + 1) for part in found.get("covered", [])]
    return {row for part in ranges for row in part}


def test_nothing_is_hashed_for_a_pair_that_no_row_asks_a_key_of(tmp_path: Path) -> None:
    assert not read_lines(tmp_path, data(ROW), presenting(KEY))
    assert not read_lines(
        tmp_path, data(ROW, ASKING), a_request({"principal": OTHER_CLIENT}, headers={"x-api-key": KEY})
    )


def test_only_what_has_the_shape_of_a_key_is_hashed(tmp_path: Path) -> None:
    lines = modules()["zerotrust/authz/keys.rego"].splitlines()
    hashing = {row for row, line in enumerate(lines, 1) if "crypto.sha256" in line}
    assert len(hashing) == 2
    for shown in ("sk_" + "x" * 1_000_000, KEY + "0", KEY[:-1], hash_of(KEY)):
        assert not hashing & read_lines(tmp_path, data(), presenting(shown))
    assert hashing <= read_lines(tmp_path, data(not_before=0, not_after=10**11), presenting(KEY))


def test_stale_data_knows_no_key(tmp_path: Path) -> None:
    both = data()
    both["zerotrust_data"]["revocations"] = {}
    (answer,) = ask(tmp_path, both, presenting(KEY))
    assert answer["reason"] == "stale_bundle"
    assert "key_id" not in answer
