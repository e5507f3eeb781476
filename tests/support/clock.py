"""A clock that stands still until a test moves it."""

import asyncio
from datetime import UTC, datetime, timedelta

from tests.support.certificates import NOW


class FakeClock:
    """Implements `zerotrust.engine.clock.Clock`; whoever waits is woken exactly when the moved clock has reached its time.

    Stricter than the system's clock, which looks again every few seconds: a wrong `until` is not put right by a nap.
    """

    def __init__(self, start: datetime = NOW) -> None:
        self._now = start.astimezone(UTC)
        self._alarms: dict[asyncio.Event, datetime | None] = {}

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move forward, or back with a negative `by`, wake whoever is due, and return the new time.

        The sleepers run once the test gives way, for example in `tests.support.waiting.eventually`.
        """
        return self.set(self._now + by)

    def set(self, moment: datetime) -> datetime:
        """Jump to that moment, as an administrator or NTP sets a clock."""
        self._now = moment.astimezone(UTC)
        for alarm, until in self._alarms.items():
            if until is not None and until <= self._now:
                alarm.set()
        return self._now

    @property
    def sleepers(self) -> int:
        """How many are in `wait`."""
        return len(self._alarms)

    @property
    def next_alarm(self) -> datetime | None:
        """The earliest time that anybody waits for; `clock.set(clock.next_alarm)` makes exactly that happen."""
        return min((until for until in self._alarms.values() if until is not None), default=None)

    async def wait(self, wake: asyncio.Event, until: datetime | None) -> None:
        """Return when `wake` is set or the clock has been moved to `until`; always gives way to other tasks once."""
        alarm = asyncio.Event()
        if until is not None and until <= self._now:
            alarm.set()
        self._alarms[alarm] = until
        either = [asyncio.ensure_future(event.wait()) for event in (wake, alarm)]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._alarms[alarm]
            for waiting in either:
                waiting.cancel()
