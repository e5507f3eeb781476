"""What a ServiceIdentity can be asked for from the command line: a renewal now, or the end of its earlier certificates.

Both are annotations with a time. They act once, and a tool that deploys the identity from git has nothing to take back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.cli.cluster import ATTEMPTS, Body, Cluster, Refused
from zerotrust.cli.following import Followed, follow, is_judged, told
from zerotrust.cli.options import EXIT_DONE, EXIT_NOT_YET, emit, emit_first
from zerotrust.common import naming, times
from zerotrust.common.conditions import find
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Own, own
from zerotrust.common.requests import asked_at
from zerotrust.identity.renewal import BACKDATE
from zerotrust.identity.status import STALLED


@dataclass(frozen=True)
class Identity:
    """A ServiceIdentity as it is now."""

    body: Body
    seen: Own[Mapping[str, Any]]

    @property
    def place(self) -> str:
        """`namespace/name`."""
        return f"{self.seen.meta.namespace}/{self.seen.meta.name}"

    def moment(self, name: str) -> datetime | None:
        """A time of the status, None where it is absent."""
        return times.parse_or_none(self.seen.status.get(name))

    @property
    def issued(self) -> datetime | None:
        """When its certificate was signed, at the latest."""
        begin, cutoff = self.moment("notBefore"), self.moment("revokedBefore")
        return begin if begin is None or begin == cutoff else begin + BACKDATE


@dataclass(frozen=True)
class Asked:
    """A request as it stands: its annotation and time, and whether it was there before."""

    identity: Identity
    annotation: str
    at: datetime
    stood: bool = False


async def _read(cluster: Cluster, ref: Ref) -> Identity:
    body = {**await cluster.read(ref), "kind": ref.kind}
    return Identity(body, own(ref.kind, body.get("spec") or {}, body))


async def renew(cluster: Cluster, ref: Ref, patience: timedelta | None, output: str, *, dry_run: bool) -> int:
    """Ask for a renewal, wait for it unless `patience` is None, and return the exit code."""

    def wanted(identity: Identity) -> Asked:
        if identity.seen.spec.get("issuance") == "Paused":
            raise Refused(
                f"{identity.place}: spec.issuance is Paused, and nothing is issued meanwhile; set it to Active"
            )
        issued, asked = identity.issued, asked_at(identity.seen.meta, naming.ROTATE_REQUESTED)
        if issued is None:
            _refuse_stalled(identity)
            raise Refused(f"{identity.place} has no certificate yet; the first one comes by itself")
        if asked is not None and issued < asked <= cluster.now:
            return Asked(identity, naming.ROTATE_REQUESTED, asked, stood=True)
        _refuse_stalled(identity)
        at = max(times.whole_seconds(cluster.now), issued + timedelta(seconds=1))
        return Asked(identity, naming.ROTATE_REQUESTED, at)

    asked = await _ask(cluster, ref, wanted, dry_run=dry_run)
    serial = asked.identity.seen.status.get("serialNumber")
    words = _in_words(asked, "a renewal", dry_run=dry_run)
    return await _finish(
        cluster,
        asked,
        words,
        lambda now: now.seen.status.get("serialNumber") != serial,
        patience,
        output,
        dry_run=dry_run,
    )


async def revoke(
    cluster: Cluster, ref: Ref, before: datetime | None, patience: timedelta | None, output: str, *, dry_run: bool
) -> int:
    """Revoke every certificate that begins before a time (default: now), wait for another one, and return the exit code."""
    moment = times.next_whole_second(before or cluster.now)

    def wanted(identity: Identity) -> Asked:
        known = [asked_at(identity.seen.meta, naming.REVOKE_BEFORE), identity.moment("revokedBefore")]
        latest = max((one for one in known if one is not None), default=None)
        if before is not None and latest is not None and latest > moment:
            raise Refused(
                f"{identity.place}: certificates from before {times.render(latest)} are revoked already; no cut-off is lowered"
            )
        return Asked(identity, naming.REVOKE_BEFORE, moment, stood=latest == moment)

    asked = await _ask(cluster, ref, wanted, dry_run=dry_run)
    words = _in_words(asked, f"every certificate from before {times.render(moment)}", dry_run=dry_run)
    words += "\nDecision points refuse them within seconds; pods that go on with the old one are refused until they read the new"

    def is_done(identity: Identity) -> bool:
        cutoff, begin = identity.moment("revokedBefore"), identity.moment("notBefore")
        return cutoff is not None and cutoff >= moment and begin is not None and begin >= moment

    return await _finish(cluster, asked, words, is_done, patience, output, dry_run=dry_run)


def _refuse_stalled(identity: Identity) -> None:
    """Nothing would come of a request that waits for a person."""
    ready = find(identity.seen.conditions, "Ready") or {}
    if ready.get("status") == "False" and ready.get("reason") in STALLED:
        raise Refused(f"{identity.place}: {ready['reason']}: {ready.get('message')}; solve that first")


async def _ask(cluster: Cluster, ref: Ref, wanted: Any, *, dry_run: bool) -> Asked:
    """Write the annotation, unless it stands already."""
    from zerotrust.kube.errors import Conflict

    for attempt in range(1, ATTEMPTS + 1):
        asked: Asked = wanted(await _read(cluster, ref))
        if dry_run or asked.stood:
            return asked
        try:
            annotations = {asked.annotation: times.render(asked.at)}
            await cluster.change(asked.identity.body, {"metadata": {"annotations": annotations}})
        except Conflict:
            if attempt == ATTEMPTS:
                raise
        else:
            return asked
    raise AssertionError("unreachable")


def _in_words(asked: Asked, what: str, *, dry_run: bool) -> str:
    place, verb = asked.identity.place, "revoked" if asked.annotation == naming.REVOKE_BEFORE else "requested"
    text = times.render(asked.at)
    if asked.stood:
        return f"{place}: {what} was {verb} at {text}; nothing was changed"
    would = "would be" if dry_run else "is"
    return f"{place}: {what} {would} {verb} (annotation {asked.annotation}: {text})"


async def _finish(
    cluster: Cluster, asked: Asked, words: str, is_done: Any, patience: timedelta | None, output: str, *, dry_run: bool
) -> int:
    if patience is None or dry_run:
        emit(output, _document(asked, None, dry_run=dry_run), words)
        return EXIT_DONE
    emit_first(output, words)
    followed = await follow(
        lambda identity: _again(cluster, identity),
        asked.identity,
        is_done,
        lambda identity: told(identity.seen, "Ready"),
        patience,
        _stuck,
    )
    emit(output, _document(asked, followed, dry_run=False), _outcome(followed))
    return EXIT_DONE if followed.ending == "done" else EXIT_NOT_YET


async def _again(cluster: Cluster, identity: Identity) -> Identity:
    fresh = await _read(cluster, identity.seen.meta.ref)
    if fresh.seen.meta.uid != identity.seen.meta.uid:
        raise Refused(f"ServiceIdentity {identity.place} was deleted and made anew meanwhile; look at it again")
    return fresh


def _stuck(identity: Identity) -> str:
    """What only a person can solve, or what holds every issue up."""
    ready = find(identity.seen.conditions, "Ready") or {}
    overdue = find(identity.seen.conditions, "RenewalOverdue") or {}
    for condition, bad in ((ready, "False"), (overdue, "True")):
        waits = condition.get("reason") in (*STALLED, "Paused")
        if is_judged(identity.seen) and condition.get("status") == bad and waits:
            return f"{condition['reason']}: {condition.get('message')}"
    return ""


def _outcome(followed: Followed[Identity]) -> str:
    identity = followed.found
    status = identity.seen.status
    match followed.ending:
        case "done":
            return (
                f"{identity.place}: revision {status.get('revision')} is in Secret {identity.seen.meta.namespace}/"
                f"{status.get('secretName')} after {followed.seconds}, valid until {status.get('notAfter')}"
            )
        case "stuck":
            return f"{identity.place}: nothing comes of it until somebody acts: {followed.last}"
        case _:
            return f"{identity.place}: no new certificate after {followed.seconds}; it is waited for: {followed.last}"


def _document(asked: Asked, followed: Followed[Identity] | None, *, dry_run: bool) -> dict[str, Any]:
    meta = (followed.found if followed is not None else asked.identity).seen.meta
    found = {
        "namespace": meta.namespace,
        "name": meta.name,
        "annotation": asked.annotation,
        "at": times.render(asked.at),
        "changed": not (asked.stood or dry_run),
        "dryRun": dry_run,
    }
    if followed is None:
        return found
    told = ("revision", "serialNumber", "notAfter", "revokedBefore")
    return {**found, **followed.to_document(), **{name: followed.found.seen.status.get(name) for name in told}}
