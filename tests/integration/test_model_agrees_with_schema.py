"""What the API server accepts the model accepts, and nothing else: otherwise a stored object could not be used, or an offline
check would promise what the cluster refuses.

Specs are made from the generated schema, then damaged at random places, and given to both.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pydantic.alias_generators import to_snake

from hack.controlplane import ControlPlane
from tests.integration import test_crd_rules
from tests.integration.test_crd_rules import CASES, KINDS, SAMPLES, ApiServer, Case, manifest_of, samples_with
from zerotrust.common.errors import SpecError
from zerotrust.common.kind import Kind
from zerotrust.common.resource import DURATION, LABEL_KEY, TIMESTAMP, parse
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

pytestmark = pytest.mark.cluster

Spec = dict[str, Any]

EXAMPLES = 300

# fmt: off
GOOD_DURATIONS = ("24h", "1h30m", "90m", "1.5h")
GOOD_TIMES = ("2026-12-31T00:00:00Z", "2026-12-31T23:59:59.999999999Z", "2028-02-29T12:00:00.1+14:00")
DURATIONS = (
    *GOOD_DURATIONS, "1m", "60s", "60000ms", "0.5h", "1.125m", "8760h", "8759h60m", "1h1h", "0001h", "1h30m0.001s",
    "", "24", "h", "0h", "0s", "59s", "59.999s", "59999.999ms", "60.0001s", "59.99999999s", "8760h0.001s", "8761h",
    "-1h", "+1h", "1 h", " 1h", "1h ", "1h\n", "1H", "1d", "1us", "1ns", "1µs", "1e2h", "1_0h", "0x1h", ".5h", "1.h",
    "1.0000h", "1,5h", "\u0661h", "1h30", "2562047h", "2562048h", "99999999999h", "9" * 31 + "h", "0" * 31 + "h",
    "0" * 30 + "1h", "0" * 29 + "24h", "9223372036854775807ms", "9223372036854775808ms",
)
TIMES = (
    *GOOD_TIMES, "1000-01-01T00:00:00Z", "1000-01-01T00:00:00+00:01", "2026-12-31T00:00:00-00:00",
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59+23:59",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0999-12-31T23:59:59Z", "10000-01-01T00:00:00Z",
    "", "0", "now", "2026-12-31", "2026-12-31T00:00Z", "2026-12-31T00:00:00", "2026-12-31 00:00:00Z",
    "20261231T000000Z", "2026-W53-4T00:00:00Z", "2026-12-31t00:00:00Z", "2026-12-31T00:00:00z",
    "2026-12-31T00:00:00Z\n", " 2026-12-31T00:00:00Z", "-2026-12-31T00:00:00Z", "\u0662026-12-31T00:00:00Z",
    "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2027-02-29T00:00:00Z",
    "2026-12-31T24:00:00Z", "2026-12-31T23:60:00Z", "2026-12-31T23:59:60Z", "2026-12-31T00:00:00,5Z",
    "2026-12-31T00:00:00.Z", "2026-12-31T00:00:00.1234567890Z", "2026-12-31T00:00:00+24:00",
    "2026-12-31T00:00:00+23:60", "2026-12-31T00:00:00+0100", "2026-12-31T00:00:00+01", "2026-12-31T00:00:00 UTC",
)
OTHERS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 24, 65536, 10**30, 1.5, 1e300,
    [], {}, [None], [[]], [{}], ["a"], {"": ""}, {"a": None},
    "true", "1", "443", "a", "A", "a.b", "a..b", "-a", "a/b", "*", "é", "\x00", "a" * 64, "a" * 254, "a" * 5000,
    "10.0.0.0/8", "::/0", "10.0.0.0", "https://a/b", "https://a\u00a0b", "https://a/\x0b", "https://a/\x85",
)
# What to write at every place; the spaces of the URL are some that regular expressions disagree about.
WRONG: tuple[Any, ...] = (
    None, True, 1, 1.5, "1", "a\n", [], {}, {"unknown": None}, {"unknown": 1}, "https://a/\u00a0\x0b",
)
# fmt: on


@dataclass(frozen=True)
class Difference:
    """Something that the API server takes and the model refuses, on purpose."""

    why: str
    kind: Kind
    example: Spec
    applies: Callable[[Any], bool]


def somewhere(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether it holds for the value or for anything in it."""

    def found(value: Any) -> bool:
        return holds(value) or any(found(value[key]) for key in keys_of(value))

    return found


DIFFERENCES = (
    Difference(
        "JSON has one kind of number: the API server reads 443.0 as 443, and returns 443 to the operator. Nothing in a"
        " schema forbids it, and the model, which sees it in a file only, takes no number for another.",
        SERVICE_IDENTITY,
        {"certificate": {"renewBeforePercentage": 33.0}},
        somewhere(lambda value: isinstance(value, float) and value.is_integer()),
    ),
)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with the CRDs, which stay for the other tests of the session."""
    with closing(ApiServer(control_plane)) as server:
        server.install()
        yield server


def refusals(server: ApiServer, kind: Kind, spec: Any) -> tuple[str, str]:
    """What the API server and the model say against a spec; empty where it is accepted."""
    status, answer = server.try_to_create(kind, {"spec": spec})
    assert status in (201, 400, 422), answer
    try:
        parse(kind.spec, {} if spec is None else spec, "spec")  # without a spec, everything is defaulted
    except SpecError as error:
        return answer.get("message", ""), str(error)
    return answer.get("message", ""), ""


def assert_agreement(server: ApiServer, kind: Kind, spec: Any) -> bool:
    """Both accept, which is returned, or both refuse."""
    by_server, by_model = refusals(server, kind, spec)
    known = by_model and not by_server and any(difference.applies(spec) for difference in DIFFERENCES)
    assert bool(by_server) == bool(by_model) or known, (
        f"{kind.name} with spec {spec!r}\nAPI server: {by_server or 'accepted'}\nmodel: {by_model or 'accepted'}"
    )
    return not by_server


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: str(difference.example))
def test_known_differences_are_still_there(server: ApiServer, difference: Difference) -> None:
    by_server, by_model = refusals(server, difference.kind, difference.example)
    assert by_model
    assert not by_server, "they agree now: remove the difference"
    assert difference.applies(difference.example)


@pytest.mark.parametrize("case", [case for case in CASES if case.path.startswith("spec")], ids=str)
def test_rules(server: ApiServer, case: Case) -> None:
    sample = case.sample or samples_with(case.kind, case.path)[0]
    for value in (*case.accepted, *case.refused):
        assert_agreement(server, case.kind, test_crd_rules.put(sample, case.path, value)["spec"])


@pytest.mark.parametrize("text", DURATIONS, ids=repr)
def test_durations(server: ApiServer, text: str) -> None:
    assert_agreement(server, SERVICE_IDENTITY, {"certificate": {"duration": text}})
    assert_agreement(server, SERVICE_IDENTITY, {"certificate": {"renewBefore": text, "duration": "1h30m"}})
    assert_agreement(server, TRUST_DOMAIN, {"identities": {"duration": text, "maxDuration": "90m"}})
    short = {"duration": "1m", "maxDuration": text}
    for lifetime in (text, "6h", "9h"):  # 9h is six times an hour and a half
        assert_agreement(server, TRUST_DOMAIN, {"certificateAuthority": {"duration": lifetime}, "identities": short})


@pytest.mark.parametrize("text", TIMES, ids=repr)
def test_times(server: ApiServer, text: str) -> None:
    assert_agreement(server, SERVICE_IDENTITY, {"rotation": {"requestedAt": text}})
    assert_agreement(server, SERVICE_IDENTITY, {"revocation": {"before": text}})


@pytest.mark.parametrize("value", [*OTHERS, "24h", "2026-12-31T00:00:00Z"], ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_value_for_any_field(server: ApiServer, kind: Kind, value: Any) -> None:
    for field in kind.spec.model_fields.values():
        assert_agreement(server, kind, {field.alias: value})


@pytest.mark.parametrize(
    ("kind", "sample"),
    [pytest.param(kind, sample["spec"], id=kind.name) for kind in KINDS for sample in SAMPLES[kind.name]],
)
def test_any_place(server: ApiServer, kind: Kind, sample: Spec) -> None:
    assert assert_agreement(server, kind, sample)
    for way in ways(sample):
        for wrong in WRONG:
            assert_agreement(server, kind, put(sample, way, wrong))
        for name in ("unknown", to_snake(str(way[-1])) if way else "Spec"):
            assert_agreement(server, kind, renamed(sample, way, name))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_spec(server: ApiServer, kind: Kind) -> None:
    schema = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    verdicts: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(damaged(schema))
    def agree(spec: Any) -> None:
        note(f"spec: {spec!r}")
        verdicts["accepted" if assert_agreement(server, kind, spec) else "refused"] += 1

    agree()
    # Agreement about nothing but refusals, or nothing but acceptance, would prove little.
    assert min(verdicts["accepted"], verdicts["refused"]) > EXAMPLES / 5, verdicts


def keys_of(value: Any) -> list[Any]:
    """The places directly inside a value."""
    match value:
        case dict():
            return list(value)
        case list():
            return list(range(len(value)))
        case _:
            return []


def put(spec: Any, way: tuple[Any, ...], value: Any) -> Any:
    """The spec with another value at a place."""
    if not way:
        return value
    return (
        {**spec, way[0]: put(spec[way[0]], way[1:], value)}
        if isinstance(spec, dict)
        else [put(entry, way[1:], value) if number == way[0] else entry for number, entry in enumerate(spec)]
    )


def renamed(spec: Any, way: tuple[Any, ...], name: str) -> Any:
    """The spec with the last field of a way under another name; the spec itself and entries of lists have no name."""
    if not way or isinstance(way[-1], int):
        return spec
    container = spec
    for key in way[:-1]:
        container = container[key]
    return put(spec, way[:-1], {name if key == way[-1] else key: value for key, value in container.items()})


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What the schema allows, and most of its rules too."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return strings(schema)
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "array":
            few = min(schema["maxItems"], 3)
            same = {"set": lambda item: item, "map": lambda item: item["name"]}.get(
                schema.get("x-kubernetes-list-type", "")
            )
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=few, unique_by=same)
        case "object" if "additionalProperties" in schema:
            return st.dictionaries(matching(LABEL_KEY, 317), values(schema["additionalProperties"]), max_size=2)
        case _:
            return objects(schema)


def strings(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    longest = schema["maxLength"]
    match schema.get("pattern"):
        case None:
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(longest, 20)).map(
                lambda text: text.ljust(schema.get("minLength", 0))
            )
        case pattern if pattern == DURATION:
            (rule,) = schema["x-kubernetes-validations"]
            bounds = re.findall(r"duration\('(\w+)'\)", rule["rule"])
            return st.sampled_from([*bounds, schema.get("default", bounds[0]), *GOOD_DURATIONS])
        case pattern if pattern == TIMESTAMP:
            return st.sampled_from(GOOD_TIMES)
        case pattern:
            return matching(pattern, longest)


@cache
def matching(pattern: str, longest: int) -> st.SearchStrategy[str]:
    """What matches; kept, because making it takes longer than drawing from it."""
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)


@st.composite
def objects(draw: st.DrawFn, schema: dict[str, Any]) -> Spec:
    """An object with some of its fields, chosen so that the rules of unions and pairs mostly hold."""
    fields = schema["properties"]
    chosen = {name for name in fields if name in schema.get("required", []) or draw(st.booleans())}
    for rule in schema.get("x-kubernetes-validations", []):
        alternatives = re.findall(r"\(has\(self\.(\w+)\) \? 1 : 0\)", rule["rule"])
        if alternatives:
            chosen = chosen - set(alternatives) | {draw(st.sampled_from(alternatives))}
    return rule_abiding({name: draw(values(fields[name])) for name in sorted(chosen)}, fields)


def rule_abiding(body: Spec, fields: dict[str, Any]) -> Spec:
    """The same object after the corrections that make the commonest rules hold."""
    if "matchLabels" in fields and not body.get("matchLabels") and not body.get("matchExpressions"):
        body["matchLabels"] = {"team": "shop"}
    if "operator" in fields:
        body["values"] = ["a"]
        if body["operator"] in ("Exists", "DoesNotExist"):
            del body["values"]
    if "podSelector" in fields and "cidrs" not in fields and not body:
        body["podSelector"] = {"matchLabels": {"team": "shop"}}
    if "kubernetesAPI" in fields:
        body["ports"] = body.get("ports") or [{"port": 443}]
        if "kubernetesAPI" in body:
            del body["ports"]
    if "renewBefore" in fields and "renewBefore" in body:
        body.pop("renewBeforePercentage", None)
    for switch, value, field in (("source", "Secret", "secretName"), ("mode", "Selected", "selector")):
        if {switch, field} <= set(fields):
            body.pop(switch, None)
            if field in body:
                body[switch] = value
    return body


@st.composite
def damaged(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """A spec with as many changes as it takes to be wrong somewhere, or with none."""
    spec = draw(values(schema))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2]))):
        way = draw(st.sampled_from(list(ways(spec))))
        spec = draw(changed(spec, way, schema))
    return spec


def ways(value: Any) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every place in a value, and to the value itself."""
    yield ()
    for key in keys_of(value):
        yield from ((key, *rest) for rest in ways(value[key]))


@st.composite
def changed(draw: st.DrawFn, spec: Any, way: tuple[Any, ...], schema: dict[str, Any]) -> Any:
    """The spec with one place dropped, replaced, renamed, extended or distorted."""
    value = spec
    for key in way:
        value, schema = value[key], schema_at(schema, key)
    changes = [st.sampled_from(OTHERS), st.sampled_from([*DURATIONS, *TIMES])]
    match value:
        case str():
            changes.append(
                st.sampled_from([f"{value}\n", value.upper(), f"{value}é", value * 20, f" {value}", value[1:]])
            )
        case int() | float():
            changes.append(
                st.sampled_from([value + 100, -value, int(value), float(value), value + 0.5, str(value), bool(value)])
            )
        case list():
            changes.append(st.sampled_from([value * 2, value * 70, value[:0], [*value, None], value[1:]]))
        case dict():
            names = [name for name in schema.get("properties", {}) if name not in value]
            added = st.tuples(
                st.sampled_from(["unknown", "Ports", "", "zerotrust.dev/a", "a b"]), st.sampled_from(OTHERS)
            )
            if names:  # more often than not the other part of a union
                known = st.sampled_from(names).flatmap(lambda n: st.tuples(st.just(n), values(schema["properties"][n])))
                added = known | added
            changes.append(added.map(lambda entry: {**value, entry[0]: entry[1]}))
            changes += [st.just(without(value, name)) for name in value]
    if way and draw(st.integers(0, 9)) == 0:
        return renamed(spec, way, draw(st.sampled_from([to_snake(str(way[-1])), str(way[-1]).lower(), "unknown"])))
    return put(spec, way, draw(st.one_of(changes)))


def without(body: Spec, name: str) -> Spec:
    return {key: value for key, value in body.items() if key != name}


def schema_at(schema: dict[str, Any], key: Any) -> dict[str, Any]:
    """The schema of a place inside; unknown fields have none."""
    if isinstance(key, int):
        found = schema.get("items", {})
    else:
        found = schema.get("properties", {}).get(key) or schema.get("additionalProperties", {})
    assert isinstance(found, dict)
    return found
