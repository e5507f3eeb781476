"""`zerotrust keys rotate`: asks for a new key now. The old one stays good for its overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.apikey.resource import secret_name
from zerotrust.cli.cluster import ATTEMPTS, Refused
from zerotrust.cli.following import Followed, follow, stalled, told
from zerotrust.cli.key_cluster import Cluster, Found, moment
from zerotrust.cli.options import EXIT_DONE, EXIT_NOT_YET, emit, emit_first
from zerotrust.common import durations, naming, times
from zerotrust.common.requests import asked_at
from zerotrust.kube.errors import Conflict


@dataclass(frozen=True)
class Request:
    """What was asked for: the time of the request, and whether it was under way before."""

    found: Found
    requested: datetime
    stood: bool
    replaced: datetime | None = None


async def carry_out(
    cluster: Cluster, place: tuple[str, str], patience: timedelta | None, output: str, *, dry_run: bool
) -> int:
    """Ask for a new key of the ApiKey at `place`, wait for it unless `patience` is None, and return the exit code."""
    asked = await request(cluster, *place, dry_run=dry_run)
    words = in_words(asked, dry_run=dry_run)
    if patience is None or dry_run:
        emit(output, document(asked, None, dry_run=dry_run), words)
        return EXIT_DONE
    emit_first(output, words)
    followed = await wait(cluster, asked, patience)
    emit(output, document(asked, followed, dry_run=False), outcome(followed, asked))
    return EXIT_DONE if followed.ending == "done" else EXIT_NOT_YET


async def request(cluster: Cluster, namespace: str, name: str, *, dry_run: bool) -> Request:
    """Write the annotation that asks for a rotation, unless one is under way; Refused where nothing would come of it."""
    for attempt in range(1, ATTEMPTS + 1):
        found = await cluster.api_key(namespace, name)
        wanted = _wanted(found, cluster.now)
        if dry_run or wanted.stood:
            return wanted
        try:
            annotations = {naming.ROTATE_REQUESTED: times.render(wanted.requested)}
            changed = await cluster.change_key(found, {"metadata": {"annotations": annotations}})
            return Request(changed, wanted.requested, stood=False, replaced=wanted.replaced)
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _wanted(found: Found, now: datetime) -> Request:
    spec, one = found.spec, found.resource
    if spec.state == "Suspended":
        raise Refused(f"{found.place}: spec.state is Suspended, and no key is made meanwhile; set it to Active first")
    if spec.not_after is not None and spec.not_after <= now:
        text = times.render(spec.not_after)
        raise Refused(f"{found.place}: spec.notAfter was {text}, and no key is made after it; write a later time first")
    issued, annotated = moment(one, "issuedAt"), asked_at(one.meta, naming.ROTATE_REQUESTED)
    if one.status.get("keyID") is None or issued is None:
        raise Refused(f"{found.place} has no key yet, so there is nothing to rotate; the first one comes by itself")
    requests = [asked for asked in (spec.rotation.requested_at, annotated) if asked is not None]
    if under_way := [asked for asked in requests if issued < asked <= now]:
        return Request(found, max(under_way), stood=True)
    later = max(times.whole_seconds(now), issued + timedelta(seconds=1))
    return Request(found, later, stood=False, replaced=annotated if annotated is not None and annotated > now else None)


async def wait(cluster: Cluster, asked: Request, timeout: timedelta) -> Followed[Found]:
    """Follow until another key is in the Secret."""
    old = asked.found.resource.status.get("keyID")
    return await follow(
        cluster.again,
        asked.found,
        lambda found: found.resource.status.get("keyID") not in (None, old),
        lambda found: told(found.resource, "Delivered", "Published"),
        timeout,
        lambda found: stalled(found.resource),
    )


def in_words(asked: Request, *, dry_run: bool) -> str:
    """What was done."""
    text, old = times.render(asked.requested), asked.found.resource.status.get("keyID")
    place, overlap = asked.found.place, durations.render(asked.found.spec.rotation.overlap)
    if asked.stood:
        lines = [f"{place}: a rotation was requested at {text} and is under way; nothing was changed"]
    else:
        would = "would be" if dry_run else "is"
        lines = [f"{place}: a rotation {would} requested (annotation {naming.ROTATE_REQUESTED}: {text})"]
    lines.append(f"key {old} stays good for {overlap} after the new key was delivered, if it does not end before")
    if asked.replaced is not None:
        lines.append(
            f"this replaces the rotation that was planned for {times.render(asked.replaced)}; write it again after"
        )
    return "\n".join(lines)


def outcome(followed: Followed[Found], asked: Request) -> str:
    """How the wait ended."""
    found, old = followed.found, asked.found.resource.status.get("keyID")
    status, place = found.resource.status, found.place
    match followed.ending:
        case "done":
            secret = f"Secret {found.resource.meta.namespace}/{secret_name(found.spec, found.resource.meta.name)}"
            until = status.get("overlapEndsAt") if status.get("previousKeyID") == old else None
            rest = f"; key {old} is good until {until}" if until else f"; key {old} is not good any more"
            return f"{place}: key {status.get('keyID')} is in {secret} after {followed.seconds}{rest}"
        case "stuck":
            return f"{place}: nothing comes of it until somebody acts: {followed.last}"
        case _:
            return f"{place}: no new key after {followed.seconds}; it is waited for: {followed.last}"


def document(asked: Request, followed: Followed[Found] | None, *, dry_run: bool) -> Mapping[str, Any]:
    """What scripts get."""
    told = {
        "namespace": asked.found.resource.meta.namespace,
        "name": asked.found.resource.meta.name,
        "requestedAt": times.render(asked.requested),
        "changed": not (asked.stood or dry_run),
        "dryRun": dry_run,
        "oldKeyID": asked.found.resource.status.get("keyID"),
    }
    if followed is None:
        return told
    status = followed.found.resource.status
    return {
        **told,
        **followed.to_document(),
        "keyID": status.get("keyID"),
        "overlapEndsAt": status.get("overlapEndsAt"),
    }
