"""`zerotrust keys inspect`: whether a key that somebody has is good, and whose it is. The key is read, compared and forgotten."""

import getpass
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from zerotrust.apikey.key import ApiKeyText, BadKey, MistypedKey, matches, parse
from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.projection import BACKDATE
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.rotation import good_until, lifetime_end
from zerotrust.cli.cluster import Refused
from zerotrust.cli.key_cluster import ApiKey, Records, Remembered, moment
from zerotrust.cli.key_list import holder_of
from zerotrust.common import times
from zerotrust.common.errors import SpecError

MAX_BYTES = 1024

Verdict = Literal["good", "refused", "unknown", "unverified", "mistyped", "malformed"]
EXIT_CODES: Mapping[Verdict, int] = {
    "good": 0,
    "refused": 1,
    "unknown": 1,
    "unverified": 1,
    "mistyped": 2,
    "malformed": 2,
}


@dataclass(frozen=True)
class Judged:
    """What is known of a presented key; nothing in here is a part of it but its id.

    `compared` is the ConfigMap with the digest that the key matches, None where no digest could be compared.
    """

    verdict: Verdict
    message: str
    key_id: str = ""
    resource: ApiKey | None = None
    owner: str = ""
    phase: str = ""
    until: datetime | None = None
    revoked: datetime | None = None
    compared: str | None = None
    notes: Sequence[str] = ()


def read_key() -> ApiKeyText:
    """Read a key from standard input, or without echo from the terminal; BadKey says what is wrong with it."""
    if sys.stdin.isatty():
        return parse(_asked().removesuffix("\n"))
    given = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(given) > MAX_BYTES:
        raise BadKey(f"standard input has more than {MAX_BYTES} bytes; give the key alone")
    line = given.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise BadKey("standard input is empty; write for example `zerotrust keys inspect < FILE`")
    return parse(line.decode("ascii", errors="replace"))


def _asked() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass("API key (is not shown): ", stream=sys.stderr)
        except getpass.GetPassWarning:
            raise Refused("this terminal would show the key; write `zerotrust keys inspect < FILE`") from None
        except EOFError:
            raise BadKey("there was no key") from None


def malformed(error: BadKey) -> Judged:
    """What is said of a text that is no key."""
    return Judged("mistyped" if isinstance(error, MistypedKey) else "malformed", str(error))


def judge(key: ApiKeyText, resources: Iterable[ApiKey], records: Records, now: datetime) -> Judged:
    """Say what decision points do with a key, as far as records and the ApiKeys' status tell."""
    found = list(resources)
    known = {(one.meta.namespace, one.meta.uid): one for one in found}
    entries = [(entry, one) for entry in records.entries if (one := entry.memory.key(key.id)) is not None]
    entries.sort(key=lambda pair: (pair[0].namespace, pair[0].uid) not in known)
    for entry, remembered in entries:
        if matches(key, remembered.digest):
            # What is revoked anywhere in a namespace's record is refused there.
            since = [one.revoked for other, one in entries if other.namespace == entry.namespace and one.revoked]
            remembered = replace(remembered, revoked=min(since, default=None))
            return _remembered(key, remembered, entry, known.get((entry.namespace, entry.uid)), now)
    if entries:
        owner = f"{entries[0][0].namespace}/{entries[0][0].memory.name}"
        text = f"its id is that of a key of ApiKey {owner}, and the rest of it is not that key's: it was made up"
        return Judged("refused", text, key.id, owner=owner)
    notes = (records.unreadable,) if records.unreadable else ()
    for resource in found:
        if key.id in (resource.status.get("keyID"), resource.status.get("previousKeyID"), *_listed(resource)):
            return _by_status(key, resource, now, (records.gap(resource) or "the record does not have this key",))
    text = "no ApiKey that could be read has a key with this id; it was never made here, or ended more than a day ago"
    if records.unreadable:
        text += ", or is an older key in overlap, which only the records tell"
    return Judged("unknown", text, key.id, notes=notes)


def _remembered(key: ApiKeyText, remembered: Key, entry: Remembered, one: ApiKey | None, now: datetime) -> Judged:
    """What is known of a key whose digest is recorded: the same terms that decision points get."""
    owner, place = f"{entry.namespace}/{entry.memory.name}", f"{entry.place.namespace}/{entry.place.name}"
    if one is None or one.meta.deleting or entry.memory.gone is not None:
        text = f"its ApiKey {owner} is deleted"
        return Judged(
            "refused", text, key.id, owner=owner, phase="Retired", revoked=remembered.revoked, compared=place
        )  # fmt: skip
    if isinstance(one.spec, SpecError):
        text = f"the spec of ApiKey {owner} cannot be used, so all its keys are refused: {one.spec}"
        return Judged("refused", text, key.id, one, owner, compared=place)
    end, phase = good_until(remembered, one.spec), _phase(remembered, entry.memory, one, one.spec, now)
    why = _refusal(remembered, one.spec, end, now)
    text = why or f"it is good until {times.render(end)}"
    verdict: Verdict = "refused" if why else "good"
    notes = ("only in connections that its holder makes",) if one.spec.holder.workload is not None else ()
    return Judged(verdict, text, key.id, one, owner, phase, end, remembered.revoked, place, notes)


def _refusal(key: Key, spec: ApiKeySpec, end: datetime, now: datetime) -> str:
    """Why decision points refuse a key; empty where they accept it."""
    if key.revoked is not None:
        return f"it is revoked for good since {times.render(key.revoked)}"
    if key.id in spec.revoked_key_ids:
        return "it is on spec.revokedKeyIDs, and about to be refused everywhere"
    if spec.state == "Suspended":
        return "spec.state is Suspended: every key of the ApiKey is refused for now"
    if now < key.issued - BACKDATE:
        return f"it was issued in the future, at {times.render(key.issued)}; compare the clocks"
    if now < end:
        return ""
    if end == spec.not_after:
        return f"spec.notAfter was {times.render(end)}"
    cause = "its overlap with the newer key ended" if end == key.retires else "it expired"
    return f"{cause} at {times.render(end)}"


def _phase(key: Key, memory: Memory, one: ApiKey, spec: ApiKeySpec, now: datetime) -> str:
    """The phase of this one key, in the words of the status."""
    if key.revoked is not None or key.id in spec.revoked_key_ids:
        return "Revoked"
    if spec.state == "Suspended":
        return "Suspended"
    if key.delivered is None:
        return "Pending"
    if key.retires is not None:
        return "Overlap" if now < good_until(key, spec) else "Retired"
    if now >= lifetime_end(key, spec) or now >= good_until(key, spec):
        return "Expired"
    if any(older.id != key.id and older.retires and good_until(older, spec) > now for older in memory.keys):
        return "Overlap"
    return "Active" if one.status.get("lastUsedTime") else "Delivered"


def _by_status(key: ApiKeyText, one: ApiKey, now: datetime, notes: Sequence[str]) -> Judged:
    """Without records only the id is known, and an id proves nothing; what is refused in any case can be said, though."""
    owner, in_use = f"{one.meta.namespace}/{one.meta.name}", key.id == one.status.get("keyID")
    if isinstance(one.spec, SpecError):
        return Judged("refused", f"the spec of ApiKey {owner} cannot be used: {one.spec}", key.id, one, owner)
    end = moment(one, "expiresAt" if in_use else "overlapEndsAt")
    phase = str(one.status.get("phase", "")) if in_use else "Overlap"
    why = ""
    if key.id in _listed(one):
        why, phase = "it is on spec.revokedKeyIDs", "Revoked"
    elif one.spec.state == "Suspended":
        why, phase = "spec.state is Suspended: every key of the ApiKey is refused for now", "Suspended"
    elif end is not None and end <= now:
        why, phase = f"it ended at {times.render(end)}", "Expired" if in_use else "Retired"
    elif in_use and phase in ("Revoked", "Expired"):
        why = f"the status says that it is {phase}"
    if why:
        return Judged("refused", why, key.id, one, owner, phase, end, notes=notes)
    until = f", which is good until {times.render(end)}" if end is not None else ""
    text = f"its id is that of a key{until}; whether the rest is that key's, only the records tell"
    return Judged("unverified", text, key.id, one, owner, phase, end, notes=notes)


def _listed(one: ApiKey) -> Sequence[str]:
    return one.spec.revoked_key_ids if isinstance(one.spec, ApiKeySpec) else ()


def in_words(judged: Judged) -> str:
    """What is known, for people."""
    lines = [f"{judged.verdict.upper()}: {judged.message}"]
    spec = judged.resource.spec if judged.resource is not None else None
    told = {
        "key id": judged.key_id,
        "ApiKey": judged.owner,
        "phase": judged.phase,
        "good until": times.render(judged.until) if judged.until is not None else "",
        "revoked": times.render(judged.revoked) if judged.revoked is not None else "",
        "holder": holder_of(spec) if isinstance(spec, ApiKeySpec) else "",
        "audience": ", ".join(spec.audience) if isinstance(spec, ApiKeySpec) else "",
        "scopes": ", ".join(spec.scopes) if isinstance(spec, ApiKeySpec) else "",
        "digest": f"the one that ConfigMap {judged.compared} has of this id" if judged.compared else "",
    }
    lines += [f"  {name + ':':<12}{text}" for name, text in told.items() if text]
    return "\n".join([*lines, *(f"  note:       {note}" for note in judged.notes if note)])


def document(judged: Judged) -> Mapping[str, Any]:
    """What scripts get; null where nothing is known."""
    one = judged.resource
    return {
        "verdict": judged.verdict,
        "message": judged.message,
        "keyID": judged.key_id or None,
        "namespace": judged.owner.partition("/")[0] or None,
        "name": judged.owner.partition("/")[2] or None,
        "phase": judged.phase or None,
        "goodUntil": times.render(judged.until) if judged.until is not None else None,
        "revokedSince": times.render(judged.revoked) if judged.revoked is not None else None,
        "audience": one.spec.audience if one is not None and isinstance(one.spec, ApiKeySpec) else None,
        "scopes": one.spec.scopes if one is not None and isinstance(one.spec, ApiKeySpec) else None,
        "digestComparedWith": judged.compared,
        "notes": [note for note in judged.notes if note],
    }
