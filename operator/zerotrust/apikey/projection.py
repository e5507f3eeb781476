"""What decision points get of an ApiKey: digests and terms by key id, and which ids are revoked (ADR 0009)."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from zerotrust.apikey.memory import Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.rotation import good_until
from zerotrust.common.selectors import WorkloadReference

# A key may be used the moment it is delivered, also where the clock that wrote its issue ran hours ahead. Before its issue nobody
# had it.
BACKDATE = timedelta(hours=24)


def key_records(
    memory: Memory,
    spec: ApiKeySpec,
    server: Callable[[str], str | None],
    workload: Callable[[WorkloadReference], str | None],
) -> dict[str, dict[str, Any]]:
    """Return `{id: {hash, name, scopes, audience, not_before, not_after}}`, with `suspended: true`, `workload` where it applies.

    `server` gives the SPIFFE ID of a ServiceIdentity of the namespace, `workload` that of a holder; None where there is none:
    such an audience is left out, and the keys of such a holder too. Revoked keys are suspended for good, so that whoever uses one
    is told why. Ended ones stay for as long as they are remembered: `not_after` is what ends them.
    """
    bound = workload(spec.holder.workload) if spec.holder.workload is not None else ""
    if bound is None:
        return {}
    terms: dict[str, Any] = {
        "name": memory.name,
        "scopes": sorted(spec.scopes),
        "audience": sorted({found for name in spec.audience if (found := server(name)) is not None}),
    }
    if bound:
        terms["workload"] = bound
    return {
        key.id: {
            "hash": key.digest,
            **terms,
            "not_before": _seconds(key.issued - BACKDATE),
            "not_after": _seconds(good_until(key, spec)),
            **({"suspended": True} if spec.state == "Suspended" or key.revoked is not None else {}),
        }
        for key in sorted(memory.keys, key=lambda one: one.id)
    }


def revoked_keys(memories: Iterable[Memory]) -> dict[str, int]:
    """Return `{id: second since 1970}` of every revoked key, those of deleted ApiKeys too. Being there is what revokes."""
    found = {key.id: _seconds(key.revoked) for one in memories for key in one.keys if key.revoked is not None}
    return dict(sorted(found.items()))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
