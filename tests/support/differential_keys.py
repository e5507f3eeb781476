"""Random API keys for the differential: as a request shows them, as a bundle has them, as the evaluator is told of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from tests.support.api_keys import a_key, a_record, an_id
from tests.support.policies import KEYS, SCOPES
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.policy.evaluate import Key
from zerotrust.policy.table import KeyPrincipal, Row

GOOD = ("good",) * 6
RECORDED = (
    "not yet",
    "ends",
    "begins",
    "expired",
    "suspended",
    "revoked",
    "other audience",
    "no audience",
    "bound",
    "bound to other",
)
SHOWN = (
    "unknown",
    "other hash",
    "wrong check",
    "lower case",
    "twice",
    "two headers",
    "other header",
    "list",
    "nothing",
)


@dataclass(frozen=True)
class Shown:
    """`key` is what the evaluator is told, None where what is shown is no key of the bundle's."""

    key: Key | None
    headers: Mapping[str, Any]
    records: Mapping[str, Any] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)


def show(
    random: Random,
    number: int,
    row: Row,
    server: Workload,
    client: Workload | None,
    now: datetime,
    spiffe_id: Callable[[Workload], SpiffeID],
) -> Shown:
    """A key with a number of its own, which often is what the row asks for, and often not."""
    identifier, seconds = an_id(number), int(now.timestamp())
    text, kind = a_key(identifier, str(number)), random.choice((*GOOD, *RECORDED, *SHOWN))
    begin, end = seconds - random.randint(0, 100), seconds + random.randint(1, 100)
    begin = {"not yet": seconds + random.randint(1, 5), "begins": seconds + random.randint(-1, 1)}.get(kind, begin)
    end = {"expired": seconds - random.randint(0, 5), "ends": seconds + random.randint(-1, 1)}.get(kind, end)
    other = Workload("elsewhere", "other")
    audience = {"other audience": (other,), "no audience": ()}.get(kind, random.choice(((server,), (other, server))))
    workload = {"bound": client, "bound to other": other}.get(kind)
    asked = row.principal if isinstance(row.principal, KeyPrincipal) else KeyPrincipal("", ())
    name = asked.name if asked.name and random.random() < 0.8 else random.choice(KEYS)
    scopes = {*asked.scopes, *row.scopes} if random.random() < 0.7 else set(random.sample(SCOPES, 1))
    key = Key(
        name, frozenset(scopes), _at(begin), _at(end), kind in ("suspended", "revoked"), frozenset(audience), workload
    )
    record = a_record(
        a_key(identifier, "another") if kind == "other hash" else text,
        name=name, scopes=sorted(scopes), audience=[str(spiffe_id(one)) for one in audience], not_before=begin, not_after=end,
        **({"suspended": True} if kind == "suspended" else {}), **({"workload": str(spiffe_id(workload))} if workload else {}),
    )  # fmt: skip
    revoked = {identifier: seconds} if kind == "revoked" else {}
    known = key if kind in GOOD or kind in RECORDED else None
    if kind == "other header":
        known = key
    return Shown(known, _headers(random, kind, text), {} if kind == "unknown" else {identifier: record}, revoked)


def joined(shown: Shown) -> Shown:
    """The same as Envoy shows it: a header that came twice is one text."""
    texts = {name: ",".join(value) if isinstance(value, list) else value for name, value in shown.headers.items()}
    return replace(shown, headers=texts)


def _headers(random: Random, kind: str, text: str) -> dict[str, Any]:
    name = random.choice(("x-api-key", "x-api-key", "X-API-Key"))
    match kind:
        case "nothing":
            return {}
        case "wrong check":
            return {name: text[:-1] + ("1" if text[-1] == "0" else "0")}
        case "lower case":
            return {name: text.lower().replace("sk_", "Sk_")}
        case "twice":
            return {name: f"{text},{text}"}
        case "list":
            return {name: [text, text]}
        case "two headers":
            return {name: text, "authorization": f"ApiKey {a_key()}"}
        case "other header":
            return {"authorization": f"{random.choice(('ApiKey', 'apikey'))} {text}"}
    return {name: text}


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
