"""The clock as an argument: the system's for the controller, a hand-moved one for tests."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol

LONGEST_NAP = 5.0


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> datetime:
        """The present time, aware, UTC."""

    async def wait(self, wake: asyncio.Event, until: datetime | None) -> None:
        """Return when `wake` is set or `until` has come, possibly earlier; the caller looks again."""


class SystemClock:
    """The wall clock; naps are short, so that a set clock or a suspended machine is noticed within seconds."""

    def now(self) -> datetime:
        """The present time, aware, UTC."""
        return datetime.now(UTC)

    async def wait(self, wake: asyncio.Event, until: datetime | None) -> None:
        """Return when `wake` is set, `until` has come, or a nap is over."""
        nap = LONGEST_NAP if until is None else min(LONGEST_NAP, max(0.0, (until - self.now()).total_seconds()))
        try:
            async with asyncio.timeout(nap):
                await wake.wait()
        except TimeoutError:
            return
