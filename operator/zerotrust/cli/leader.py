"""Whether a controller works: who holds its Lease, and how long ago that was renewed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.cli.cluster import Cluster
from zerotrust.common import times
from zerotrust.common.naming import Ref

LEASE = "zerotrust-controller"


@dataclass(frozen=True)
class Leader:
    """`works` is None where that is not known; `text` says what is."""

    works: bool | None
    text: str
    holder: str = ""
    renewed: datetime | None = None


async def read_leader(cluster: Cluster, operator_namespace: str) -> Leader:
    """Look at the Lease in the operator's namespace."""
    from zerotrust.kube.errors import Forbidden, NotFound

    place = f"Lease {operator_namespace}/{LEASE}"
    try:
        body = await cluster.client.get(Ref("Lease", operator_namespace, LEASE))
    except NotFound:
        return Leader(False, f"no controller has ever led: there is no {place}")
    except Forbidden:
        return Leader(None, f"not known: {place} may not be read with these rights")
    return judge(body.get("spec") or {}, cluster.now, place)


def judge(spec: Mapping[str, Any], now: datetime, place: str) -> Leader:
    """Judge a Lease's spec by the API server's clock."""
    holder, renewed = str(spec.get("holderIdentity") or ""), times.parse_or_none(spec.get("renewTime"))
    if not holder or renewed is None:
        return Leader(False, f"no controller leads: {place} is free", renewed=renewed)
    age = max(now - renewed, timedelta())
    if age > timedelta(seconds=int(spec.get("leaseDurationSeconds") or 15)):
        return Leader(
            False, f"no controller leads: {place} was last renewed by {holder} {ago(age)} ago", holder, renewed
        )
    return Leader(True, f"{holder} leads, renewed {ago(age)} ago", holder, renewed)


def ago(span: timedelta) -> str:
    """A span in whole units that people read at a glance: `12s`, `5m`, `3h`, `12d`."""
    seconds = int(abs(span).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
