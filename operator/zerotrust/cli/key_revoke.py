"""`zerotrust keys revoke`: adds keys to those that are refused for good, and tells when every decision point refuses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import click

from zerotrust.apikey.resource import MAX_REVOKED, ApiKeySpec
from zerotrust.apikey.rotation import good_until
from zerotrust.cli.cluster import ATTEMPTS, Refused
from zerotrust.cli.following import Followed, follow, is_judged, told
from zerotrust.cli.key_cluster import ApiKey, Cluster, Found, Records, moment
from zerotrust.cli.options import EXIT_DONE, EXIT_NOT_YET, emit, emit_first
from zerotrust.cli.policies import say
from zerotrust.common import times
from zerotrust.common.conditions import find
from zerotrust.kube.errors import Conflict


@dataclass(frozen=True)
class Choice:
    """Which keys are meant: ids, or the one in use, or all that are good."""

    key_ids: tuple[str, ...] = ()
    current: bool = False
    everything: bool = False

    def __post_init__(self) -> None:
        if sum((bool(self.key_ids), self.current, self.everything)) > 1:
            raise click.UsageError("Give one of --key-id, --current and --all.")

    def __bool__(self) -> bool:
        return bool(self.key_ids or self.current or self.everything)


@dataclass(frozen=True)
class Good:
    """A key that is accepted now; `end` is None where only the records tell."""

    id: str
    end: datetime | None
    current: bool

    def __str__(self) -> str:
        which = "in use" if self.current else "older, in overlap"
        return f"{self.id}  {which}" + (f", good until {times.render(self.end)}" if self.end is not None else "")


@dataclass(frozen=True)
class Revocation:
    """What was revoked: `added` are new on the list, `stood` were on it; `unsure` says what could not be checked."""

    found: Found
    added: tuple[str, ...]
    stood: tuple[str, ...]
    current: bool
    unsure: str = ""


def good_keys(found: Found, records: Records, now: datetime) -> list[Good]:
    """Return the keys that are accepted now, the newest first; without records the status knows two at most."""
    one, spec = found.resource, found.spec
    listed, in_use = set(spec.revoked_key_ids), one.status.get("keyID")
    memory = records.of(one)
    if memory is not None and memory.gone is None:
        keys = [key for key in reversed(memory.keys) if key.revoked is None and key.delivered is not None]
        return [
            Good(key.id, good_until(key, spec), key.id == in_use)
            for key in keys
            if key.id not in listed and good_until(key, spec) > now
        ]
    ends = {in_use: moment(one, "expiresAt"), one.status.get("previousKeyID"): moment(one, "overlapEndsAt")}
    revoked = _revoked_in_status(one)
    return [
        Good(str(key_id), end, key_id == in_use)
        for key_id, end in ends.items()
        if key_id is not None and key_id not in listed | revoked and (end is None or end > now)
    ]


def _revoked_in_status(one: ApiKey) -> set[str]:
    """The key in use, where the status says that it is revoked: it may have been taken off the list."""
    ready = find(one.conditions, "Ready") or {}
    return {str(one.status.get("keyID"))} if ready.get("reason") == "KeyRevoked" else set()


async def carry_out(
    cluster: Cluster,
    place: tuple[str, str],
    choice: Choice,
    operator_namespace: str,
    patience: timedelta | None,
    output: str,
    *,
    dry_run: bool,
) -> int:
    """Revoke keys of the ApiKey at `place`, wait until that is acknowledged unless `patience` is None; return the exit code."""
    made = await revoke(cluster, *place, choice, operator_namespace, dry_run=dry_run)
    if made.unsure:
        say(f"Warning: {made.unsure}", err=True)
    words = in_words(made, dry_run=dry_run)
    if patience is None or dry_run:
        emit(output, document(made, None, dry_run=dry_run), words)
        return EXIT_DONE
    emit_first(output, words)
    followed = await wait(cluster, made, patience)
    emit(output, document(made, followed, dry_run=False), outcome(followed, made))
    return EXIT_DONE if followed.ending == "done" else EXIT_NOT_YET


async def revoke(
    cluster: Cluster, namespace: str, name: str, choice: Choice, operator_namespace: str, *, dry_run: bool
) -> Revocation:
    """Add keys to `spec.revokedKeyIDs`; Refused says what to write where the choice does not fit."""
    for attempt in range(1, ATTEMPTS + 1):
        found = await cluster.api_key(namespace, name)
        records = await cluster.records(operator_namespace, namespace)
        wanted = _wanted(found, records, choice, cluster.now)
        if dry_run or not wanted.added:
            return wanted
        try:
            # The list is replaced as a whole (RFC 7396), and only if nobody has changed it since it was read.
            ids = [*found.spec.revoked_key_ids, *wanted.added]
            changed = await cluster.change_key(found, {"spec": {"revokedKeyIDs": ids}})
            return Revocation(changed, wanted.added, wanted.stood, wanted.current, wanted.unsure)
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _wanted(found: Found, records: Records, choice: Choice, now: datetime) -> Revocation:
    spec, good = found.spec, good_keys(found, records, now)
    if not choice:
        raise Refused(_what_to_write(found, good))
    ids, unsure = _chosen(found, records, choice, good)
    listed = set(spec.revoked_key_ids)
    added = tuple(one for one in ids if one not in listed)
    if len(listed) + len(added) > MAX_REVOKED:
        raise Refused(
            f"{found.place}: spec.revokedKeyIDs has {len(listed)} ids and takes {MAX_REVOKED};"
            " take old ones off it first: what was revoked stays so"
        )
    in_use = found.resource.status.get("keyID") in ids
    return Revocation(found, added, tuple(one for one in ids if one in listed), in_use, unsure)


def _chosen(found: Found, records: Records, choice: Choice, good: Sequence[Good]) -> tuple[list[str], str]:
    if choice.everything:
        if not good:
            raise Refused(f"{found.place} has no key that is good now, so there is nothing to revoke")
        gap = records.gap(found.resource)
        return [one.id for one in good], f"there may be more old keys in overlap than these: {gap}" if gap else ""
    if choice.current:
        in_use = found.resource.status.get("keyID")
        if in_use is None:
            raise Refused(f"{found.place} has no key yet, so there is nothing to revoke")
        return [str(in_use)], ""
    memory, ids = records.of(found.resource), list(dict.fromkeys(choice.key_ids))
    known = {found.resource.status.get(name) for name in ("keyID", "previousKeyID")} | set(found.spec.revoked_key_ids)
    known |= {key.id for key in memory.keys} if memory is not None else set()
    strangers = [one for one in ids if one not in known]
    gap = records.gap(found.resource)
    if strangers and not gap:
        what = f"{found.place}: --key-id: {', '.join(strangers)} is no key of this ApiKey, or ended more than a day ago"
        raise Refused("\n".join([what, *_listed(good)]))
    unsure = f"{', '.join(strangers)} could not be checked: {gap}" if strangers else ""
    return ids, unsure


def _what_to_write(found: Found, good: Sequence[Good]) -> str:
    command = f"zerotrust keys revoke {found.resource.meta.name} -n {found.resource.meta.namespace}"
    lines = [f"{found.place}: say which keys to revoke", *_listed(good)]
    if good:
        lines += ["", "Write one of these; what is revoked stays so for good:"]
        lines += [f"  {command} --key-id {good[-1].id}", f"  {command} --current", f"  {command} --all"]
    return "\n".join(lines)


def _listed(good: Sequence[Good]) -> list[str]:
    return ["Good now:", *(f"  {one}" for one in good)] if good else ["No key is good now."]


async def wait(cluster: Cluster, made: Revocation, timeout: timedelta) -> Followed[Found]:
    """Follow until every decision point has reported that it refuses the keys."""

    def is_strange(found: Found) -> str:
        strangers = ignored(found, (*made.added, *made.stood))
        return f"{', '.join(strangers)} is no key of this ApiKey, and is ignored" if strangers else ""

    return await follow(
        cluster.again,
        made.found,
        lambda found: is_acknowledged(found) and not is_strange(found),
        lambda found: told(found.resource, "Revoked"),
        timeout,
        is_strange,
    )


def is_acknowledged(found: Found) -> bool:
    """Whether the controller has said so of the present spec."""
    revoked = find(found.resource.conditions, "Revoked") or {}
    said = (revoked.get("status"), revoked.get("reason")) == ("True", "Acknowledged")
    return said and is_judged(found.resource)


def ignored(found: Found, key_ids: Sequence[str]) -> list[str]:
    """Which ids the controller says are no keys of the ApiKey."""
    said = str((find(found.resource.conditions, "Revoked") or {}).get("message", "")).partition("ignored:")[2]
    return [one for one in key_ids if is_judged(found.resource) and one in said]


def in_words(made: Revocation, *, dry_run: bool) -> str:
    """What was done, and what follows from it."""
    would, place = "would be" if dry_run else "is", made.found.place
    lines = [f"{place}: key {one} {would} revoked for good (spec.revokedKeyIDs)" for one in made.added]
    lines += [f"{place}: key {one} is on spec.revokedKeyIDs already" for one in made.stood]
    if made.current and made.added:
        lines.append(_what_follows(made.found.spec))
    if made.added:
        lines.append(
            "Where this ApiKey is deployed from git, write the ids there as well; once recorded, they stay revoked anyway."
        )
    return "\n".join(lines)


def _what_follows(spec: ApiKeySpec) -> str:
    if spec.state == "Suspended":
        return "it is the key in use; no new one is made while spec.state is Suspended"
    return "it is the key in use: a new one follows in the Secret, and until a client reads that it is refused"


def outcome(followed: Followed[Found], made: Revocation) -> str:
    """How the wait ended."""
    status, place = followed.found.resource.status, made.found.place
    match followed.ending:
        case "done":
            at = (status.get("revocation") or {}).get("effectiveAt")
            since = f" (effective at {at})" if at else ""
            return f"{place}: every decision point refuses what is revoked, after {followed.seconds}{since}"
        case "stuck":
            return f"{place}: not acknowledged until somebody acts: {followed.last}"
        case _:
            return (
                f"{place}: not acknowledged after {followed.seconds}: {followed.last}\n"
                "Who lags goes on accepting the keys until it hears of it, or its revocations are too old to be used."
            )


def document(made: Revocation, followed: Followed[Found] | None, *, dry_run: bool) -> Mapping[str, Any]:
    """What scripts get."""
    told = {
        "namespace": made.found.resource.meta.namespace,
        "name": made.found.resource.meta.name,
        "revoked": list(made.added),
        "revokedBefore": list(made.stood),
        "dryRun": dry_run,
    }
    if followed is None:
        return told
    effective = (followed.found.resource.status.get("revocation") or {}).get("effectiveAt")
    return {**told, **followed.to_document(), "effectiveAt": effective}
