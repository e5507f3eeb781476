"""ApiKey on a real API server: every rule and bound, defaults, columns, the largest object, and whether the model agrees."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Le, MaxLen, MinLen

from hack.controlplane import ControlPlane
from tests.integration.test_crd_rules import (
    ABSENT,
    DURATION,
    EXAMPLES,
    MERGE_PATCH,
    TIME,
    WORDS,
    WRONG_TYPES,
    ApiServer,
    Body,
    Case,
    Existing,
    Kubectl,
    Node,
    an_object,
    as_reported,
    causes,
    collection,
    duration_case,
    get,
    has,
    named,
    nodes_of,
    put,
    rules_of,
    submit,
    time_case,
)
from zerotrust.apikey.key import ID_PATTERN
from zerotrust.apikey.resource import KIND, MAX_REVOKED, ApiKeySpec
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import TIMESTAMP, parse

pytestmark = pytest.mark.cluster

_WRITTEN = """
- spec:
    holder: {name: Partner X}
    audience: [orders]
    scopes: ["orders:read"]
    maxKeyAge: 8760h
    notAfter: "2026-12-31T00:00:00Z"
    rotation: {interval: 2160h, overlap: 168h, requestedAt: "2026-12-31T00:00:00Z", retireUnusedAfter: 24h}
    unusedAfter: 2160h
    state: Active
    revokedKeyIDs: [0123456789aB]
    delivery: {secretName: partner-x-api-key, format: Opaque}
  status:
    observedGeneration: 1
    phase: Active
    keyID: 0123456789aB
    previousKeyID: 0123456789aC
    issuedAt: "2026-12-31T00:00:00Z"
    expiresAt: "2026-12-31T00:00:00Z"
    nextRotationTime: "2026-12-31T00:00:00Z"
    overlapEndsAt: "2026-12-31T00:00:00Z"
    lastUsedTime: "2026-12-31T00:00:00Z"
    revocation: {requestedAt: "2026-12-31T00:00:00Z", effectiveAt: "2026-12-31T00:00:00Z", acknowledged: true}
    secretName: partner-x-api-key
    conditions:
      - type: Ready
        status: "True"
        reason: Delivered
        message: x
        observedGeneration: 1
        lastTransitionTime: "2026-12-31T00:00:00Z"
- spec:
    holder: {workload: {name: batch, namespace: web}}
    audience: [orders]
"""
SAMPLES: list[Body] = yaml.safe_load(_WRITTEN)
NODES = list(nodes_of(KIND))
WHOLE, BOUND = ({"spec": sample["spec"]} for sample in SAMPLES)
A_SPEC: Body = {"holder": {"name": "x"}, "audience": ["orders"]}
WORKLOAD: Body = {"workload": {"name": "batch", "namespace": "web"}}


def a_spec(**changes: Any) -> Body:
    return {**A_SPEC, **changes}


def case(path: str, says: str, accepted: tuple[Any, ...], refused: tuple[Any, ...], *beside: str) -> Case:
    return Case(KIND, path, says, accepted, refused, WHOLE, beside)


CASES = (
    case("", "at most 63 characters", (named(63),), (named(64), named(253))),
    case(
        "spec.holder",
        "exactly one of name and workload",
        ({"name": "Partner X <partner@example.org>"}, WORKLOAD),
        ({}, {"name": "x", **WORKLOAD}),
    ),
    case(
        "spec",
        "rotation.interval must be shorter than maxKeyAge",
        (
            a_spec(),
            a_spec(maxKeyAge="2161h"),
            a_spec(rotation={"interval": "8759h59m59.999s"}),
            a_spec(maxKeyAge="3m", rotation={"interval": "2m59.999s", "overlap": "1m"}),
        ),
        (
            a_spec(maxKeyAge="2160h"),
            a_spec(rotation={"interval": "8760h"}),
            a_spec(maxKeyAge="3m", rotation={"interval": "3m", "overlap": "1m"}),
        ),
    ),
    case(
        "spec.rotation",
        "overlap must be shorter than interval",
        ({}, {"interval": "169h"}, {"overlap": "2159h"}, {"interval": "2m", "overlap": "1m59.999s"}),
        ({"interval": "168h"}, {"overlap": "2160h"}, {"interval": "2m", "overlap": "2m"}, {"overlap": "8760h"}),
    ),
    case("spec", "audience names each", (a_spec(audience=["a", "b"]),), (a_spec(audience=["a", "b", "a"]),), "Duplicate"),
    case("spec", "scopes names each", (a_spec(scopes=["a", "A"]),), (a_spec(scopes=["a", "b", "a"]),), "Duplicate"),
    duration_case(KIND, "spec.maxKeyAge", ("3m", "175200h"), ("2m59.999s", "175200h0.001s"),
                  {"spec": a_spec(maxKeyAge="1h", rotation={"interval": "2m", "overlap": "1m"})}),
    duration_case(KIND, "spec.rotation.interval", ("2m", "87600h"), ("1m59.999s", "87600h0.001s"),
                  {"spec": a_spec(maxKeyAge="175200h", rotation={"interval": "2h", "overlap": "1m"})}, "shorter than"),
    duration_case(KIND, "spec.rotation.overlap", ("1m", "8760h"), ("59.999s", "8760h0.001s"),
                  {"spec": a_spec(maxKeyAge="175200h", rotation={"interval": "87600h", "overlap": "1h"})}, "shorter than"),
    duration_case(KIND, "spec.rotation.retireUnusedAfter", ("1m", "8760h"), ("59.999s", "8760h0.001s"), WHOLE),
    duration_case(KIND, "spec.unusedAfter", ("1h", "87600h"), ("59m59.999s", "87600h0.001s"), WHOLE),
    *(time_case(KIND, node.path) for node in NODES if node.shape is datetime),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with the CRDs, which stay for the other tests of the session."""
    with closing(ApiServer(control_plane)) as server:
        server.install()
        yield server


@pytest.fixture(scope="module")
def target(server: ApiServer) -> Iterator[Existing]:
    """A real object, whose status dry runs may try to change."""
    existing = Existing(KIND, "apikey-rules", "default")
    server.send("DELETE", existing.path)
    status, answer = server.send("POST", collection(KIND), an_object(KIND, existing.name, spec=A_SPEC))
    assert status == 201, answer["message"]
    yield existing
    server.send("DELETE", existing.path)


def sample_of(one: Case) -> Body:
    part = one.path.partition(".")[0]
    return {"status": SAMPLES[0]["status"]} if part == "status" else one.sample or WHOLE


def by_model(spec: Any) -> str:
    """What the model says against a spec; empty when it accepts it."""
    try:
        parse(ApiKeySpec, {} if spec is None else spec, "spec")
    except SpecError as error:
        return str(error)
    return ""


def test_every_rule_has_a_case() -> None:
    rules = set(rules_of(KIND))
    proven = [(one.path, one.says) for one in CASES]
    missing = {rule for rule in rules if not any(rule[0] == path and says in rule[1] for path, says in proven)}
    unknown = [one for one in proven if sum(one[0] == path and one[1] in message for path, message in rules) != 1]
    assert not missing, "add a case for each of these rules"
    assert not unknown, "these cases name no rule, or several"


@pytest.mark.parametrize("one", CASES, ids=str)
def test_rule_refuses_what_breaks_it_and_nothing_else(server: ApiServer, target: Existing, one: Case) -> None:
    sample = sample_of(one)
    (message,) = (message for path, message in rules_of(KIND) if path == one.path and one.says in message)
    for value in one.accepted:
        body = put(sample, one.path, value)
        accepted, answer = submit(server, target, body)
        assert accepted, f"{value} is refused: {answer['message']}"
        assert "status" in body or not by_model(body["spec"])
    for value in one.refused:
        body = put(sample, one.path, value)
        accepted, answer = submit(server, target, body)
        assert not accepted, f"{value} is accepted"
        found = causes(answer)
        place = as_reported(sample, one.path)
        assert any(field in (place, "<nil>") and message in text for field, text in found), found
        others = [cause for cause in found if not any(says in cause[1] for says in (message, *one.beside))]
        assert not others, f"{value} breaks more than this rule: {others}"
        assert not one.path.startswith("spec") or by_model(body["spec"]), f"the model accepts {value}"


PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **EXAMPLES,
    ID_PATTERN: (("0123456789aB", "zzzzzzzzzzzz"), ("0123456789a", "0123456789a-", "0123456789é", "0123456789a\n")),
    r"^[^\x00-\x1f\x7f]+$": (("x", "Müller & Söhne <x>", "a" * 128), ("a\n", "\x00", "a\tb", "\x7f")),
    r"^[\x21\x23-\x5B\x5D-\x7E]+$": (("orders:read", "!", "a/b.c"), ("", "a b", 'a"', "a\\b", "é", "a\n", "\x7f")),
}


def resized(node: Node, present: Any, length: int) -> Any:
    """A value of exactly this length; the entries of a list differ."""
    match present:
        case [str(first), *_]:
            return [f"{number:0{len(first)}d}"[-max(len(first), 4) :] for number in range(length)]
        case [first, *_]:
            return [{**first, "type": f"Type{number}"} for number in range(length)]
    if node.pattern == DURATION:
        return str(present).zfill(length)
    return WORDS[node.pattern](length) if node.pattern in WORDS else "a" * length


def edges(node: Node, present: Any) -> Iterator[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    """Every constraint of a place: what the API server says, values that keep it, values that break it."""
    yield "must be of type", (), WRONG_TYPES.get(node.shape, ({},) if get_origin(node.shape) is Literal else ([],))
    if node.required:
        yield "Required value", (), (ABSENT,)
    if get_origin(node.shape) is Literal:
        choices = get_args(node.shape)
        yield "Unsupported value", choices, ("", choices[0].lower(), "Other")
        return
    if node.pattern:
        accepted, refused = PATTERNS[node.pattern]
        yield "should match", accepted, tuple(text for text in refused if text)
    for says, kind, attribute, step in (
        ("Too", MaxLen, "max_length", 1),
        ("should ", MinLen, "min_length", -1),
        ("greater than or equal to", Ge, "ge", -1),
        ("less than or equal to", Le, "le", 1),
    ):
        bound = node.bound(kind, attribute)
        if bound is None or (node.pattern == TIMESTAMP and says == "Too"):
            continue
        yield says, (resized(node, present, bound),), (resized(node, present, bound + step),)


@pytest.mark.parametrize("node", NODES, ids=str)
def test_field_is_typed_and_bounded(server: ApiServer, target: Existing, node: Node) -> None:
    part = node.path.partition(".")[0]
    samples = [{part: sample[part]} for sample in SAMPLES if has(sample, node.path)]
    assert samples, f"no sample has {node.path}: add one"
    for sample in samples:
        for says, accepted, refused in edges(node, get(sample, node.path)):
            for value in accepted:
                body = put(sample, node.path, value)
                fits, answer = submit(server, target, body)
                assert fits, f"{value!r}: {answer.get('message')}"
                assert part == "status" or not by_model(body["spec"])
            for value in refused:
                body = put(sample, node.path, value)
                fits, answer = submit(server, target, body)
                assert not fits, f"{value!r} is accepted"
                place = as_reported(sample, node.path)
                assert any(field == place and says in text for field, text in causes(answer)), (
                    value,
                    answer["message"],
                )
                assert part == "status" or by_model(body["spec"]), f"the model accepts {value!r}"


def test_every_string_and_list_is_bounded() -> None:
    sized = [node for node in NODES if node.shape in (str, list, dict, timedelta, datetime)]
    assert [str(node) for node in sized if node.bound(MaxLen, "max_length") is None] == []


def test_a_key_is_revoked_once_only(server: ApiServer) -> None:
    spec = a_spec(revokedKeyIDs=["0123456789aB", "0123456789aB"])
    status, answer = server.try_to_create(KIND, {"spec": spec})
    assert status == 422
    assert causes(answer)[0] == ("spec.revokedKeyIDs[1]", 'Duplicate value: "0123456789aB"')
    assert by_model(spec) == "spec.revokedKeyIDs: names each key once"


DEFAULTS: Body = yaml.safe_load("""
scopes: []
maxKeyAge: 8760h
rotation: {interval: 2160h, overlap: 168h}
unusedAfter: 2160h
state: Active
revokedKeyIDs: []
delivery: {format: Opaque}
""")


def test_defaults_are_filled_in_alike(server: ApiServer) -> None:
    empty = ({"rotation": {}}, {"delivery": {}}, {"scopes": None, "rotation": None, "state": None, "notAfter": None})
    for written in (A_SPEC, *(a_spec(**one) for one in empty), BOUND["spec"], WHOLE["spec"]):
        status, answer = server.try_to_create(KIND, {"spec": written})
        assert status == 201, answer["message"]
        assert answer["spec"] == parse(ApiKeySpec, written, "spec").model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
    assert server.try_to_create(KIND, {"spec": A_SPEC})[1]["spec"] == {**DEFAULTS, **A_SPEC}
    for nothing in ({"spec": {}}, {}, {"spec": None}):
        assert server.try_to_create(KIND, nothing)[0] == 422


def test_the_largest_key_is_accepted(server: ApiServer) -> None:
    spec = a_spec(
        audience=[f"{number:02d}{'a' * 61}" for number in range(32)],
        scopes=[f"{number:02d}{'!' * 126}" for number in range(64)],
        revokedKeyIDs=[f"{number:012d}" for number in range(MAX_REVOKED)],
    )
    status, answer = server.try_to_create(KIND, {"spec": spec})
    assert status == 201, answer["message"]
    assert not by_model(spec)


def test_kubectl_shows_the_columns(
    server: ApiServer, target: Existing, control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubectl = Kubectl(control_plane, tmp_path)
    status = {"status": SAMPLES[0]["status"]}
    code, answer = server.send("PATCH", f"{target.path}/status", status, MERGE_PATCH)
    assert code == 200, answer["message"]
    for name in ("zkey", "apikeys", "apikey"):
        (row,) = kubectl.table(name, "-n", target.namespace, target.name)
        assert row.pop("AGE")
        assert row == {
            "NAME": target.name,
            "READY": "True",
            "KEY-ID": "0123456789aB",
            "PHASE": "Active",
            "NEXT-ROTATION": TIME,
            "EXPIRES": TIME,
            "LAST-USED": TIME,
        }
    (row,) = kubectl.table("zkey", "-n", target.namespace, target.name, "-o", "wide")
    assert row["REASON"] == "Delivered"


OTHERS: tuple[Any, ...] = (
    *(None, True, 0, 1.5, [], {}, [None], [{}], ["a"], ["a", "a"], {"": ""}, {"name": "a"}, {"name": None}, WORKLOAD),
    *("", "a", "A", "a/b", "é", "a\n", "a" * 200, "0123456789aB", "Active", "Env", "1h", "24h", "9000h", "1d", TIME),
)


def ways(value: Any) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every place in a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (key,)
        yield from ((key, *rest) for rest in ways(value[key]))


def edited(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is ABSENT and len(way) == 1:
        del copy[way[0]]
    else:
        copy[way[0]] = edited(value[way[0]], way[1:], new)
    return copy


def test_the_model_agrees_about_damaged_specs(server: ApiServer) -> None:
    verdicts: Counter[str] = Counter()
    random = Random(6)
    for _ in range(600):
        spec = random.choice((WHOLE, BOUND))["spec"]
        for _ in range(random.choice((0, 1, 1, 2))):
            spec = edited(spec, random.choice(list(ways(spec))), random.choice((*OTHERS, ABSENT)))
        status, answer = server.try_to_create(KIND, {"spec": spec})
        assert status in (201, 400, 422), answer
        server_says, model_says = answer.get("message", "") if status != 201 else "", by_model(spec)
        assert bool(server_says) == bool(model_says), f"{spec!r}\nAPI server: {server_says}\nmodel: {model_says}"
        verdicts["refused" if model_says else "accepted"] += 1
    assert min(verdicts.values()) > 60, verdicts
