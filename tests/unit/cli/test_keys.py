"""`zerotrust keys` without a cluster: what is judged of a key, what is wrong with an ApiKey, and what is refused at once."""

import os
import pty
import re
import select
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.apikeys import fixed_bytes
from zerotrust.apikey.key import ApiKeyText, Digest, KeyID, digest, generate
from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.cli.key_cluster import ApiKey, Found, Records, Remembered
from zerotrust.cli.key_inspect import Judged, in_words, judge
from zerotrust.cli.key_list import by_end, document, problem_of, show
from zerotrust.cli.key_revoke import good_keys
from zerotrust.cli.main import zerotrust
from zerotrust.common import times
from zerotrust.common.naming import Ref
from zerotrust.common.observed import custom_resource

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = generate(fixed_bytes("keys"))
OTHER = generate(fixed_bytes("other"))
PLACE = Ref("ConfigMap", "zerotrust-system", "shop.api-keys")


def an_api_key(name: str = "partner", status: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> ApiKey:
    written = {"holder": {"name": "Partner X"}, "audience": ["orders"], "scopes": ["orders:read"], **spec}
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": generation}
    return custom_resource("ApiKey", ApiKeySpec, {"metadata": metadata, "spec": written, "status": status or {}})


def a_status(**more: Any) -> dict[str, Any]:
    wanted = {"Ready": "True", "Published": "True", "Delivered": "True", "Expired": "False", "Unused": "False"}
    conditions = [{"type": kind, "status": one, "reason": "Word", "message": "why"} for kind, one in wanted.items()]
    ends = times.render(NOW + 10 * HOUR)
    return {"observedGeneration": 1, "keyID": KEY.id, "expiresAt": ends, "conditions": conditions, **more}


def with_condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    told = a_status()
    told["conditions"] = [one for one in told["conditions"] if one["type"] != kind]
    told["conditions"].append({"type": kind, "status": status, "reason": reason, "message": "why"})
    return told


def a_record(key: ApiKeyText = KEY, **times_: datetime) -> Key:
    moments = {"issued": NOW - 5 * HOUR, "expires": NOW + 10 * HOUR, "delivered": NOW - 4 * HOUR, **times_}
    return Key(key.id, digest(key), **moments)


def recorded(*keys: Key, uid: str = "uid-partner", gone: datetime | None = None) -> Records:
    return Records((Remembered("shop", uid, Memory("partner", keys, gone), PLACE),))


def judged(record: Key, key: ApiKeyText = KEY, status: dict[str, Any] | None = None, **spec: Any) -> Judged:
    return judge(key, [an_api_key(status=status or a_status(), **spec)], recorded(record), NOW)


@pytest.mark.parametrize(
    ("moments", "spec", "verdict", "phase", "message"),
    [
        ({}, {}, "good", "Delivered", "it is good until 2026-06-01T22:00:00Z"),
        ({"retires": NOW + HOUR}, {}, "good", "Overlap", "it is good until 2026-06-01T13:00:00Z"),
        ({"retires": NOW}, {}, "refused", "Retired", "its overlap with the newer key ended at 2026-06-01T12:00:00Z"),
        ({"expires": NOW}, {}, "refused", "Expired", "it expired at 2026-06-01T12:00:00Z"),
        ({"revoked": NOW - HOUR}, {}, "refused", "Revoked", "it is revoked for good since 2026-06-01T11:00:00Z"),
        ({}, {"revokedKeyIDs": [KEY.id]}, "refused", "Revoked", "it is on spec.revokedKeyIDs"),
        ({}, {"state": "Suspended"}, "refused", "Suspended", "spec.state is Suspended"),
        ({}, {"notAfter": times.render(NOW)}, "refused", "Expired", "spec.notAfter was 2026-06-01T12:00:00Z"),
        ({"issued": NOW + 25 * HOUR, "expires": NOW + 26 * HOUR}, {}, "refused", "Delivered", "issued in the future"),
        ({"delivered": None}, {}, "good", "Pending", "it is good until"),
    ],
)
def test_a_key_that_is_remembered(
    moments: dict[str, Any], spec: dict[str, Any], verdict: str, phase: str, message: str
) -> None:
    found = judged(a_record(**moments), **spec)
    assert (found.verdict, found.phase) == (verdict, phase)
    assert message in found.message
    assert found.compared == "zerotrust-system/shop.api-keys"
    assert f"  key id:     {KEY.id}\n  ApiKey:     shop/partner\n" in in_words(found)


def test_a_used_key_is_active_and_one_with_an_older_beside_it_in_overlap() -> None:
    assert judged(a_record(), status=a_status(lastUsedTime=times.render(NOW))).phase == "Active"
    older = a_record(OTHER, retires=NOW + HOUR)
    assert judge(KEY, [an_api_key()], recorded(older, a_record()), NOW).phase == "Overlap"


def test_the_digest_decides_and_not_the_id() -> None:
    stored = Key(KEY.id, digest(OTHER), NOW - HOUR, NOW + HOUR, NOW - HOUR)
    found = judged(stored)
    assert (found.verdict, found.compared) == ("refused", None)
    assert "made up" in found.message
    hash_alone = Key(KEY.id, Digest("sha256:" + "0" * 64), NOW - HOUR, NOW + HOUR, NOW - HOUR)
    assert judged(hash_alone).verdict == "refused"


def test_a_key_is_refused_where_any_part_of_the_record_has_it_revoked() -> None:
    before = Remembered("shop", "uid-before", Memory("partner", (a_record(revoked=NOW - HOUR),), NOW), PLACE)
    entries = (*recorded(a_record()).entries, before)
    found = judge(KEY, [an_api_key(status=a_status())], Records(entries), NOW)
    assert (found.verdict, found.phase) == ("refused", "Revoked")
    elsewhere = Records((*recorded(a_record()).entries, before._replace(namespace="web")))
    assert judge(KEY, [an_api_key(status=a_status())], elsewhere, NOW).verdict == "good"


def test_a_key_of_an_api_key_that_is_gone_or_cannot_be_read() -> None:
    assert "is deleted" in judge(KEY, [], recorded(a_record()), NOW).message
    assert "is deleted" in judge(KEY, [an_api_key()], recorded(a_record(), gone=NOW), NOW).message
    unusable = judged(a_record(), audience=[])
    assert (unusable.verdict, "spec.audience" in unusable.message) == ("refused", True)


def test_a_bound_key_is_good_in_its_holders_connections_only() -> None:
    bound = judged(a_record(), holder={"workload": {"name": "batch", "namespace": "web"}})
    assert bound.verdict == "good"
    assert "holder:     workload web/batch" in in_words(bound)
    assert "only in connections that its holder makes" in in_words(bound)


@pytest.mark.parametrize(
    ("status", "spec", "verdict", "message"),
    [
        ({}, {}, "unverified", "its id is that of a key, which is good until"),
        ({"expiresAt": times.render(NOW)}, {}, "refused", "it ended at 2026-06-01T12:00:00Z"),
        ({"phase": "Revoked"}, {}, "refused", "the status says that it is Revoked"),
        ({}, {"state": "Suspended"}, "refused", "Suspended"),
        ({"keyID": None}, {"revokedKeyIDs": [KEY.id]}, "refused", "on spec.revokedKeyIDs"),
        ({"keyID": OTHER.id, "previousKeyID": KEY.id}, {}, "unverified", "its id is that of a key"),
        ({"keyID": OTHER.id}, {}, "unknown", "which only the records tell"),
    ],
)
def test_without_records_an_id_proves_nothing(
    status: dict[str, Any], spec: dict[str, Any], verdict: str, message: str
) -> None:
    one = an_api_key(status={key: value for key, value in a_status(**status).items() if value is not None}, **spec)
    found = judge(KEY, [one], Records(unreadable="the records may not be read"), NOW)
    assert found.verdict == verdict
    assert message in found.message
    assert "note:       the records may not be read" in in_words(found)


def test_what_is_good_now() -> None:
    keys = (a_record(OTHER, retires=NOW + HOUR), a_record())
    api_key = an_api_key(status=a_status(previousKeyID=OTHER.id, overlapEndsAt=times.render(NOW + HOUR)))
    with_records = good_keys(Found(api_key, {}), recorded(*keys), NOW)
    assert [str(one) for one in with_records] == [
        f"{KEY.id}  in use, good until 2026-06-01T22:00:00Z",
        f"{OTHER.id}  older, in overlap, good until 2026-06-01T13:00:00Z",
    ]
    assert good_keys(Found(api_key, {}), Records(unreadable="no"), NOW) == with_records
    ended = (a_record(OTHER, retires=NOW), a_record(revoked=NOW))
    assert good_keys(Found(api_key, {}), recorded(*ended), NOW) == []
    listed = an_api_key(status=a_status(), revokedKeyIDs=[KEY.id])
    assert good_keys(Found(listed, {}), recorded(a_record()), NOW) == []
    revoked = an_api_key(status=with_condition("Ready", "False", "KeyRevoked"))
    assert good_keys(Found(revoked, {}), Records(unreadable="no"), NOW) == []


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (a_status(), "None"),
        ({}, "Ready=Unknown/NotObserved: no controller has looked at it; is one running?"),
        (with_condition("Ready", "False", "SecretConflict"), "Ready=False/SecretConflict: why"),
        (with_condition("Published", "False", "Lagging"), "Published=False/Lagging: why"),
        (with_condition("ExpiringSoon", "True", "RotationStuck"), "ExpiringSoon=True/RotationStuck: why"),
        (with_condition("Unused", "Unknown", "NoDecisionLogs"), "Unused=Unknown/NoDecisionLogs: why"),
        (with_condition("OverlapActive", "True", "OldKeysAccepted"), "None"),
        (with_condition("Revoked", "False", "NoRevokedKey"), "None"),
        (with_condition("Revoked", "True", "Acknowledged"), "None"),
        (with_condition("Revoked", "False", "UnknownKeyIDs"), "Revoked=False/UnknownKeyIDs: why"),
        (a_status(observedGeneration=0), "Ready=Unknown/NotObserved: the controller has not looked at the last change yet"),
        (
            a_status(expiresAt=times.render(NOW)),
            "Ready=Unknown/NotObserved: expiresAt is over and the status does not say so; is a controller running?",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong(status: dict[str, Any], problem: str) -> None:
    assert str(problem_of(an_api_key(status=status), NOW)) == problem


def test_what_ends_first_comes_first() -> None:
    late = an_api_key("a", a_status())
    overlapping = an_api_key("c", a_status(overlapEndsAt=times.render(NOW + HOUR)))
    soon = an_api_key("b", a_status(expiresAt=times.render(NOW + 2 * HOUR)))
    keyless = [an_api_key("e"), an_api_key("d")]
    found = by_end([*keyless, late, overlapping, soon])
    assert [one.meta.name for one in found] == ["c", "b", "a", "d", "e"]


def test_on_a_terminal_long_texts_are_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    one = an_api_key(status=with_condition("Ready", "False", "SecretConflict"), holder={"name": "\u202eX" * 20})
    show([one], NOW, everywhere=True, wide=True)
    printed = capsys.readouterr().out
    assert "\x1b[1m" in printed
    assert "\u202e" not in printed, "what turns a line round is escaped"
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in printed.splitlines()) <= 150


def test_without_a_record_of_the_api_key_nothing_is_taken_for_certain() -> None:
    one = an_api_key(status=a_status())
    nothing = Records(place="elsewhere")
    assert "the namespace elsewhere has no record of this ApiKey" in nothing.gap(one)
    found = judge(KEY, [one], nothing, NOW)
    assert found.verdict == "unverified"
    assert "give --operator-namespace" in in_words(found)
    assert recorded(a_record()).gap(one) == ""
    assert judge(KEY, [one], recorded(a_record(OTHER)), NOW).notes == ("the record does not have this key",)


def test_a_spec_that_cannot_be_read_is_listed_as_well() -> None:
    told = document(an_api_key(audience=[], status=with_condition("Ready", "False", "InvalidSpec")), NOW)
    assert (told["holder"], told["scopes"]) == (None, None)
    assert told["problem"]["reason"] == "InvalidSpec"


@pytest.mark.parametrize(
    ("stdin", "word"),
    [
        (b"", "standard input is empty"),
        (b"x" * 1025, "more than 1024 bytes"),
        (b"\xff" * 67, "looks like sk_"),
        ("\u017fk_".encode(), "67 characters"),
        (KEY.reveal().encode() + b"\n\n", "67 characters"),
        (b"Bearer " + KEY.reveal().encode(), "67 characters"),
        (KEY.reveal().encode()[:-1] + b"!", "looks like sk_"),
    ],
    ids=["empty", "large", "bytes", "unicode", "lines", "scheme", "shape"],
)
def test_what_is_no_key_is_malformed_and_never_repeated(stdin: bytes, word: str) -> None:
    result = CliRunner().invoke(zerotrust, ["keys", "inspect"], input=stdin)
    assert result.exit_code == 2
    assert result.stdout.startswith("MALFORMED: ")
    assert word in result.stdout
    assert KEY.reveal()[16:40] not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [KEY.reveal()],
        ["inspect", KEY.reveal()],
        ["inspect", f"--key={KEY.reveal()}"],
        ["inspect", "-o", KEY.reveal()],
        ["rotate", KEY.reveal()],
        ["revoke", "partner", "--key-id", KEY.reveal()],
        ["list", "-n", KEY.reveal()],
        ["list", "--context", f"x={KEY.reveal()}"],
        ["rotate", "partner", "--wait", "--timeout", KEY.reveal()],
    ],
    ids=["group", "inspect", "option", "output", "rotate", "key-id", "namespace", "context", "timeout"],
)
def test_a_key_is_never_an_argument(arguments: list[str]) -> None:
    result = CliRunner().invoke(zerotrust, ["keys", *arguments])
    assert result.exit_code == 2
    assert "A key is never an argument" in result.stderr
    assert KEY.id not in result.output
    assert KEY.reveal()[16:40] not in result.output


@pytest.mark.parametrize(
    "shown",
    [KEY.reveal(), f"x={KEY.reveal()}", f"n{KEY.reveal()}", KEY.reveal()[:40], KEY.reveal().replace(".", "")],
    ids=["key", "assigned", "attached", "cut-off", "mistyped"],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["{}"],
        ["--{}"],
        ["--{}=x"],
        ["controller", "{}"],
        ["controller", "--workers", "{}"],
        ["controller", "--log-format={}"],
        ["controller", "--kubeconfig", "{}"],
        ["bundle-server", "--port", "{}", "--host", "x"],
        ["explain", "-o", "{}"],
        ["keys", "list", "{}"],
        ["keys", "{}"],
    ],
    ids=" ".join,
)
def test_no_usage_error_repeats_a_key(arguments: list[str], shown: str) -> None:
    result = CliRunner().invoke(zerotrust, [text.format(shown) for text in arguments])
    assert result.exit_code == 2
    assert KEY.reveal()[16:30] not in result.output
    if KEY.id in shown and not shown.startswith("n"):
        assert "A key is never an argument" in result.stderr


def test_a_name_that_is_no_key_is_repeated() -> None:
    result = CliRunner().invoke(zerotrust, ["sk_contrail"])
    assert "No such command 'sk_contrail'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rotate", "Partner_X"], "Invalid value for 'NAME': is no name of an ApiKey"),
        (["revoke", "partner", "--key-id", KEY.id + "."], "is no key's id; write the 12 letters and digits"),
        (["revoke", "partner", "--current", "--all"], "Give one of --key-id, --current and --all."),
        (["list", "-n", "Shop"], "is no name of a namespace"),
        (["rotate", "partner", "--timeout", "soon"], "is no duration; write for example 90s"),
        (["rotate", "partner", "--timeout", "25h"], "must be between 1s and 24h"),
    ],
)
def test_usage_errors_say_what_to_write(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(zerotrust, ["keys", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_key_is_typed_without_echo() -> None:
    """On a terminal of its own, where getpass asks."""
    wrong = KEY.reveal()[:-1] + ("0" if KEY.reveal()[-1] != "0" else "1")
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "zerotrust", "keys", "inspect"])
    shown, sent, deadline = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                read = os.read(terminal, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            shown += read
            if not sent and b"is not shown" in shown:
                sent = bool(os.write(terminal, wrong.encode() + b"\n"))
    finally:
        os.close(terminal)
        _, code = os.waitpid(process, 0)
    assert b"MISTYPED: the API key's check digits are wrong" in shown
    assert os.waitstatus_to_exitcode(code) == 2
    assert wrong[16:40].encode() not in shown
    assert KeyID(wrong[3:15]).encode() not in shown
