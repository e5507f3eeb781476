"""One heap for everything that time alone makes due."""

import asyncio
import heapq
from collections.abc import Callable, Hashable
from datetime import datetime
from itertools import count

from zerotrust.engine.clock import Clock


class Scheduler:
    """Calls `due(name)` for each named timer when its time has come; a name has one time at most."""

    def __init__(self, clock: Clock, due: Callable[[Hashable], None]) -> None:
        self._clock, self._due = clock, due
        self._times: dict[Hashable, datetime] = {}
        self._heap: list[tuple[datetime, int, Hashable]] = []
        self._order = count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._times)

    def set(self, name: Hashable, when: datetime | None) -> None:
        """Set the timer to this time whatever it was before; None removes it."""
        if when is None:
            self._times.pop(name, None)
        elif self._times.get(name) != when:
            self._times[name] = when
            heapq.heappush(self._heap, (when, next(self._order), name))
            self._changed.set()

    def no_later_than(self, name: Hashable, when: datetime) -> None:
        """Set the timer to this time unless it is due earlier already: many calls within the time become one."""
        if name not in self._times or when < self._times[name]:
            self.set(name, when)

    def when(self, name: Hashable) -> datetime | None:
        """The time that a timer is set to."""
        return self._times.get(name)

    def fire(self) -> None:
        """Call everything that is due now."""
        now = self._clock.now()
        while self._heap and (self._heap[0][0] <= now or self._is_stale()):
            when, _, name = heapq.heappop(self._heap)
            if self._times.get(name) == when and when <= now:
                del self._times[name]
                self._due(name)

    def _is_stale(self) -> bool:
        when, _, name = self._heap[0]
        return self._times.get(name) != when

    async def run(self) -> None:
        """Fire timers until cancelled."""
        while True:
            self._changed.clear()
            self.fire()
            await self._clock.wait(self._changed, self._heap[0][0] if self._heap else None)
