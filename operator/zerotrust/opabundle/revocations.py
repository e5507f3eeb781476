"""Cut-offs of identities: certificates from before are revoked. Kept until the last of them has expired, and never lowered."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from zerotrust.common import naming, times
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Plan
from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID

# No leaf lives longer (trustdomain.resource.LeafDuration and identity.renewal.BACKDATE, rounded up), so nothing from before a
# cut-off is left after it.
LONGEST_LEAF = timedelta(hours=8761)


class Cutoff(NamedTuple):
    """Certificates of an ID from before `before`, a whole second, are revoked; after `until` all of them have expired."""

    before: datetime
    until: datetime


@dataclass(frozen=True)
class RevocationsSnapshot:
    """What the memory of cut-offs depends on; `asked` is what ServiceIdentities ask for now."""

    ref: Ref
    observed: ConfigMap | None
    asked: Mapping[SpiffeID, datetime]


def read(memory: ConfigMap | None) -> dict[SpiffeID, Cutoff]:
    """Return what is remembered; entries that cannot be read are left out (nobody but the operator writes them)."""
    found: dict[SpiffeID, Cutoff] = {}
    for text in memory.data.values() if memory is not None else ():
        try:
            entry = json.loads(text)
            name = SpiffeID.parse(str(entry["id"]))
            cutoff = Cutoff(times.next_whole_second(times.parse(entry["before"])), times.parse(entry["until"]))
        except (ValueError, KeyError, TypeError, InvalidSpiffeID):
            continue
        found[name] = max(cutoff, found.get(name, cutoff))
    return found


def in_force(
    remembered: Mapping[SpiffeID, Cutoff], asked: Mapping[SpiffeID, datetime], now: datetime
) -> dict[SpiffeID, Cutoff]:
    """Return the cut-offs that count: the later of what is remembered and what is asked, none that lies in the future.

    Certificates count whole seconds, and so do cut-offs: one with a fraction is rounded up, and in force from then on.
    """
    found = {name: one for name, one in remembered.items() if now < one.until}
    for name, moment in asked.items():
        before = times.next_whole_second(moment)
        if before <= now < before + LONGEST_LEAF and (name not in found or found[name].before < before):
            found[name] = Cutoff(before, before + LONGEST_LEAF)
    return found


def reconcile_revocations(snapshot: RevocationsSnapshot, now: datetime) -> Plan:
    """Return what to do for the memory of cut-offs."""
    wanted = {_key(name): (name, one) for name, one in in_force(read(snapshot.observed), snapshot.asked, now).items()}
    gone = [key for key in (snapshot.observed.data if snapshot.observed else ()) if key not in wanted]
    rounded = [times.next_whole_second(moment) for moment in snapshot.asked.values()]
    coming = [before for before in rounded if before > now]
    ends = [one.until for _, one in wanted.values()]
    if not wanted and not gone:
        return Plan(requeue_at=min(coming, default=None))
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": snapshot.ref.name,
            "namespace": snapshot.ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_REVOCATIONS},
        },
        "data": {key: _entry(*one) for key, one in wanted.items()} | dict.fromkeys(gone),
    }
    return Plan(applies=(Apply(manifest),), requeue_at=min([*coming, *ends], default=None))


def _key(name: SpiffeID) -> str:
    """A ConfigMap's key takes no slash."""
    return hashlib.sha256(str(name).encode()).hexdigest()[:40]


def _entry(name: SpiffeID, cutoff: Cutoff) -> str:
    entry: dict[str, Any] = {
        "id": str(name),
        "before": times.render(cutoff.before),
        "until": times.render(cutoff.until),
    }
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
