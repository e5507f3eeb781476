"""`zerotrust keys list`: which ApiKeys there are, what ends next, and what is wrong."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.cli import standing, tables
from zerotrust.cli.key_cluster import ApiKey, moment
from zerotrust.cli.policies import say
from zerotrust.cli.standing import Problem
from zerotrust.cli.tables import cell
from zerotrust.common import times

NARROW = ("NAME", "HOLDER", "KEY-ID", "PHASE", "NEXT-ROTATION", "EXPIRES", "LAST-USED", "PROBLEM")
WIDE = ("SCOPES", "AUDIENCE", "PREVIOUS-KEY-ID", "OVERLAP-ENDS", "SECRET")
_NEVER = datetime.max.replace(tzinfo=UTC)


def problem_of(one: ApiKey, now: datetime) -> Problem | None:
    """Return the first thing that is wrong, None while all is well; a status that is old is not believed."""
    return standing.problem_of("ApiKey", one.status, one.meta.generation, now)


def end_of(one: ApiKey) -> datetime | None:
    """When the first of its keys ends; None while it has none."""
    ends = [end for name in ("overlapEndsAt", "expiresAt") if (end := moment(one, name)) is not None]
    return min(ends, default=None)


def by_end(found: Iterable[ApiKey]) -> list[ApiKey]:
    """What ends first comes first; those without a key come last."""
    return sorted(found, key=lambda one: (end_of(one) is None, end_of(one) or _NEVER, one.meta.ref))


def holder_of(spec: ApiKeySpec) -> str:
    """The holder's name, or the workload as `workload namespace/name`."""
    workload = spec.holder.workload
    return f"workload {workload.namespace}/{workload.name}" if workload is not None else spec.holder.name or ""


def document(one: ApiKey, now: datetime) -> dict[str, Any]:
    """What scripts get of an ApiKey; times as in the status, null where there is none."""
    spec = one.spec if isinstance(one.spec, ApiKeySpec) else None
    problem = problem_of(one, now)
    told = ("phase", "keyID", "previousKeyID", "issuedAt", "nextRotationTime", "overlapEndsAt", "expiresAt")
    return {
        "namespace": one.meta.namespace,
        "name": one.meta.name,
        "holder": spec.holder.model_dump(by_alias=True, exclude_none=True) if spec is not None else None,
        "scopes": spec.scopes if spec is not None else None,
        "audience": spec.audience if spec is not None else None,
        **{name: one.status.get(name) for name in (*told, "lastUsedTime", "secretName")},
        "problem": vars(problem) if problem is not None else None,
    }


def show(found: Sequence[ApiKey], now: datetime, *, everywhere: bool, wide: bool) -> None:
    """Print a table."""
    if not found:
        say("No ApiKeys found; the guide (docs/guides/api-keys.md) has one to start with.", err=True)
        return
    headings = (*(("NAMESPACE",) if everywhere else ()), *NARROW, *(WIDE if wide else ()))
    rows = tables.table(*headings, folding=("HOLDER", "PROBLEM", "SCOPES", "AUDIENCE"))
    for one in found:
        rows.add_row(*_cells(one, now, everywhere=everywhere, wide=wide))
    tables.show(rows)


def _cells(one: ApiKey, now: datetime, *, everywhere: bool, wide: bool) -> list[Text]:
    spec, problem = one.spec if isinstance(one.spec, ApiKeySpec) else None, problem_of(one, now)
    cells = [one.meta.namespace] if everywhere else []
    cells += [one.meta.name, holder_of(spec) if spec is not None else "", *_told(one, "keyID", "phase")]
    cells += _told(one, "nextRotationTime", "expiresAt", "lastUsedTime")
    shown = [cell(text) for text in cells]
    shown.append(cell(str(problem), style="bold red") if problem is not None else cell(""))
    if wide:
        lists = [",".join(spec.scopes), ",".join(spec.audience)] if spec is not None else ["", ""]
        more = [*lists, *_told(one, "previousKeyID", "overlapEndsAt", "secretName")]
        shown += [cell(text) for text in more]
    return shown


def _told(one: ApiKey, *names: str) -> list[str]:
    moments = {name: times.render(found) for name in names if (found := moment(one, name)) is not None}
    return [moments.get(name) or str(one.status.get(name) or "") for name in names]
