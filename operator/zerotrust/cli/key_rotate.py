"""`zerotrust keys rotate`: asks for a new key now. The old one stays good for its overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.apikey.resource import secret_name
from zerotrust.cli.key_cluster import Cluster, Found, Refused, moment
from zerotrust.cli.key_following import Followed, follow, stalled, told
from zerotrust.common import durations, times
from zerotrust.kube.errors import Conflict

ATTEMPTS = 10

# Marks that tools leave on what they deploy: in labels or annotations, by the tool's name.
TOOLS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
}


@dataclass(frozen=True)
class Request:
    """What was asked for: the time that stands in `spec.rotation.requestedAt`, and whether it stood there before."""

    found: Found
    requested: datetime
    stood: bool
    replaced: datetime | None = None


async def request(cluster: Cluster, namespace: str, name: str, *, dry_run: bool) -> Request:
    """Write `spec.rotation.requestedAt`, unless a request is under way already; Refused where nothing would come of it."""
    for attempt in range(1, ATTEMPTS + 1):
        found = await cluster.api_key(namespace, name)
        wanted = _wanted(found, cluster.now)
        if dry_run or wanted.stood:
            return wanted
        try:
            text = times.render(wanted.requested)
            changed = await cluster.change(found, {"rotation": {"requestedAt": text}})
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
    issued, before = moment(one, "issuedAt"), spec.rotation.requested_at
    if one.status.get("keyID") is None or issued is None:
        raise Refused(f"{found.place} has no key yet, so there is nothing to rotate; the first one comes by itself")
    if before is not None and issued < before <= now:
        return Request(found, before, stood=True)
    later = max(times.whole_seconds(now), issued + timedelta(seconds=1))
    return Request(found, later, stood=False, replaced=before if before is not None and before > now else None)


async def wait(cluster: Cluster, asked: Request, timeout: timedelta) -> Followed:
    """Follow until another key is in the Secret."""
    old = asked.found.resource.status.get("keyID")
    return await follow(
        cluster,
        asked.found,
        lambda found: found.resource.status.get("keyID") not in (None, old),
        lambda found: told(found, "Delivered", "Published"),
        timeout,
        stalled,
    )


def in_words(asked: Request, *, dry_run: bool) -> str:
    """What was done, and what becomes of it where the ApiKey comes from git."""
    text, old = times.render(asked.requested), asked.found.resource.status.get("keyID")
    place, overlap = asked.found.place, durations.render(asked.found.spec.rotation.overlap)
    if asked.stood:
        lines = [f"{place}: a rotation was requested at {text} and is under way; nothing was changed"]
    else:
        would = "would be" if dry_run else "is"
        lines = [f"{place}: a rotation {would} requested (spec.rotation.requestedAt: {text})"]
    lines.append(f"key {old} stays good for {overlap} after the new key was delivered, if it does not end before")
    if asked.replaced is not None:
        lines.append(
            f"this replaces the rotation that was planned for {times.render(asked.replaced)}; write it again after"
        )
    if not asked.stood:
        lines += ["", *_git(asked.found, text)]
    return "\n".join(lines)


def _git(found: Found, text: str) -> list[str]:
    """When whoever deploys the ApiKey would put another value back, and what to write there instead."""
    meta, writers = found.resource.meta, sorted(found.writers.get("requestedAt", ()))
    marks = {**meta.labels, **meta.annotations}
    tool = next((name for mark, name in TOOLS.items() if mark in marks), "")
    if writers:
        lines = [f"{' and '.join(writers)} has written this field, and puts its own value back when it applies again."]
    elif tool:
        lines = [
            f"{tool} deploys this ApiKey: it leaves the field alone, unless it is written in git or objects are replaced."
        ]
    else:
        lines = ["Where this ApiKey is deployed from git, the next sync may put another value back."]
    lines.append("Before the new key is issued that takes the request back; afterwards an older value does nothing.")
    return [*lines, "To ask by git instead, write there:", "", "spec:", "  rotation:", f'    requestedAt: "{text}"']


def outcome(followed: Followed, asked: Request) -> str:
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


def document(asked: Request, followed: Followed | None, *, dry_run: bool) -> Mapping[str, Any]:
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
    ended = {"ending": followed.ending, "seconds": round(followed.took.total_seconds(), 1), "waitedFor": followed.last}
    return {**told, **ended, "keyID": status.get("keyID"), "overlapEndsAt": status.get("overlapEndsAt")}
