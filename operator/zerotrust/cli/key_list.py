"""`zerotrust keys list`: which ApiKeys there are, what ends next, and what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.cli.following import is_judged
from zerotrust.cli.key_cluster import ApiKey, moment
from zerotrust.cli.policies import printable, say
from zerotrust.common import times

# What conditions say while all is well; Stalled and Reconciling repeat Ready.
WELL = {
    "Ready": "True",
    "Published": "True",
    "Delivered": "True",
    "ExpiringSoon": "False",
    "Expired": "False",
    "Suspended": "False",
    "Unused": "False",
}
NARROW = ("NAME", "HOLDER", "KEY-ID", "PHASE", "NEXT-ROTATION", "EXPIRES", "LAST-USED", "PROBLEM")
WIDE = ("SCOPES", "AUDIENCE", "PREVIOUS-KEY-ID", "OVERLAP-ENDS", "SECRET")
# Without a terminal there is no width to keep: one ApiKey is one line, for grep and for logs.
_UNLIMITED = 10_000
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Problem:
    """What is not as it should be, in the words of a condition where one says so."""

    condition: str
    status: str
    reason: str
    message: str

    def __str__(self) -> str:
        head = f"{self.condition}={self.status}/{self.reason}"
        return f"{head}: {self.message}" if self.message else head


def problem_of(one: ApiKey, now: datetime) -> Problem | None:
    """Return the first thing that is wrong, None while all is well; a status that is old is not believed."""
    if not one.status:
        return Problem("Ready", "Unknown", "NotObserved", "no controller has looked at it; is one running?")
    for condition in one.conditions:
        kind, status, reason = (str(condition.get(name, "")) for name in ("type", "status", "reason"))
        revoking = kind == "Revoked" and status != "True" and reason != "NoRevokedKey"
        if revoking or status != WELL.get(kind, status):
            return Problem(kind, status, reason, str(condition.get("message", "")))
    if not is_judged(one):
        return Problem("Ready", "Unknown", "NotObserved", "the controller has not looked at the last change yet")
    ends = moment(one, "expiresAt")
    if ends is not None and ends <= now:
        text = "expiresAt is over and the status does not say so; is a controller running?"
        return Problem("Ready", "Unknown", "NotObserved", text)
    return None


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
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=_UNLIMITED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (*(("NAMESPACE",) if everywhere else ()), *NARROW, *(WIDE if wide else ())):
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("HOLDER", "PROBLEM", "SCOPES", "AUDIENCE"))
    for one in found:
        table.add_row(*_cells(one, now, everywhere=everywhere, wide=wide))
    if terminal.is_terminal:
        console.print(table)
        return
    with console.capture() as printed:
        console.print(table)
    say("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _cells(one: ApiKey, now: datetime, *, everywhere: bool, wide: bool) -> list[Text]:
    spec, problem = one.spec if isinstance(one.spec, ApiKeySpec) else None, problem_of(one, now)
    cells = [one.meta.namespace] if everywhere else []
    cells += [one.meta.name, holder_of(spec) if spec is not None else "", *_told(one, "keyID", "phase")]
    cells += _told(one, "nextRotationTime", "expiresAt", "lastUsedTime")
    shown = [Text(printable(text) or "-") for text in cells]
    shown.append(Text(printable(str(problem)), style="bold red") if problem is not None else Text("-"))
    if wide:
        lists = [",".join(spec.scopes), ",".join(spec.audience)] if spec is not None else ["", ""]
        more = [*lists, *_told(one, "previousKeyID", "overlapEndsAt", "secretName")]
        shown += [Text(printable(text) or "-") for text in more]
    return shown


def _told(one: ApiKey, *names: str) -> list[str]:
    moments = {name: times.render(found) for name in names if (found := moment(one, name)) is not None}
    return [moments.get(name) or str(one.status.get(name) or "") for name in names]
