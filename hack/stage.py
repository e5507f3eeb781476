"""What the demo shows: numbered steps, and a table of what becomes ready.

The table is redrawn on a terminal; elsewhere each change is one line, so that a log of the demo reads well.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """What is shown of a TrustDomain, a ServiceIdentity or a TrustPolicy; `detail` is its SPIFFE ID, or what a policy does."""

    kind: str
    namespace: str
    name: str
    ready: bool = False
    reason: str = ""
    message: str = ""
    detail: str = ""
    expires: datetime | None = None
    renewal: datetime | None = None
    secret: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read a resource as the API server shows it."""
        kind, metadata, status = body["kind"], body["metadata"], body.get("status", {})
        conditions: Sequence[Mapping[str, str]] = status.get("conditions", ())
        ready = next((one for one in conditions if one["type"] == "Ready"), {"status": "", "reason": "", "message": ""})
        is_domain = kind == "TrustDomain"
        authorities: Sequence[Mapping[str, str]] = status.get("certificateAuthorities", ())
        certificate = (authorities[0] if authorities else {}) if is_domain else status
        spiffe_id = f"spiffe://{metadata['name']}" if is_domain else status.get("spiffeID", "")
        return cls(
            kind,
            metadata.get("namespace", ""),
            metadata["name"],
            ready["status"] == "True" and status.get("observedGeneration") == metadata.get("generation"),
            ready["reason"],
            ready["message"],
            detail=_policy_detail(status) if kind == "TrustPolicy" else spiffe_id,
            expires=_time(certificate.get("notAfter")),
            renewal=_time(status.get("renewalTime")),
            secret=status.get("secretName", ""),
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the resource."""
        return self.kind, self.namespace, self.name

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def state(self) -> str:
        """One word on how it is."""
        return "Ready" if self.ready else self.reason or "waiting"

    def line(self) -> str:
        """All of it in one line."""
        words = [f"{self.kind} {self.title}: {self.state}"]
        words += [self.detail] if self.detail else []
        words += [f"expires {until(self.expires)}"] if self.expires else []
        words += [f"renewal {until(self.renewal)}"] if self.renewal else []
        words += [self.message] if self.message and not self.ready else []
        return ", ".join(words)


class Stage:
    """Standard output, as far as it can show things."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, force_terminal=self.terminal)
        self._steps = 0

    def step(self, title: str, detail: str) -> None:
        """Announce the next step."""
        self._steps += 1
        self.say(Text.assemble((f"{self._steps}. {title:<12}", "bold cyan"), detail))

    def say(self, text: str | Text = "", style: str = "") -> None:
        """Print a line, which is never wrapped: it may be a command to copy."""
        self._console.print(text, style=style, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def board(self) -> Iterator["Board"]:
        """Show rows while they change."""
        if not self.terminal or self._console.is_dumb_terminal:
            yield Board(self, None)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield Board(self, live)


class Board:
    """The table of what becomes ready."""

    def __init__(self, stage: Stage, live: Live | None) -> None:
        self._stage, self._live = stage, live
        self._shown: dict[tuple[str, str, str], Row] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Bring what is shown up to date."""
        if self._live:
            self._live.update(_table(rows), refresh=True)
            return
        for row in rows:
            if self._shown.get(row.key) != row:
                self._shown[row.key] = row
                self._stage.say(f"   {row.line()}")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=True, header_style="bold")
    table.add_column("NAME", no_wrap=True)
    for heading in ("READY", "DETAIL", "EXPIRES", "RENEWAL"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = Text(row.state, style="bold green" if row.ready else "yellow")
        times = (Text(until(row.expires)), Text(until(row.renewal)))
        table.add_row(Text(row.title), state, Text(row.detail or ABSENT), *times)
    return table


def _policy_detail(status: Mapping[str, Any]) -> str:
    if "networkPolicies" not in status:
        return ""
    tests = status.get("tests", {})
    return (
        f"tests: {tests.get('passed', 0)} passed, {len(tests.get('failed', ()))} failed; "
        f"network policies: {status['networkPolicies']}"
    )


def until(moment: datetime | None) -> str:
    """How long until then, in its two largest units."""
    if moment is None:
        return ABSENT
    minutes = max(0, round((moment - datetime.now(UTC)).total_seconds() / 60))
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if value]
    return f"in {' '.join(parts[:2]) or 'less than a minute'}"


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
