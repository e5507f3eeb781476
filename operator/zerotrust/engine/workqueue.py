"""A deduplicating queue of keys: the same key is never worked on twice at once, and never waits twice.

The idea is client-go's workqueue; the order is by priority (smaller first), then first come, first served.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Hashable
from datetime import timedelta
from itertools import count
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Workqueue(Generic[Key]):
    """Keys that need work."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._waiting: dict[Key, float] = {}
        self._working: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._order = count()
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody works."""
        return not self._waiting and not self._working

    def add(self, key: Key, priority: float = 0.0) -> None:
        """Ask for work on a key; while it is being worked on, it will be worked on once more afterwards."""
        if key in self._working:
            self._again[key] = min(priority, self._again.get(key, priority))
        elif key not in self._waiting or priority < self._waiting[key]:
            self._push(key, priority)

    def _push(self, key: Key, priority: float) -> None:
        self._waiting[key] = priority
        heapq.heappush(self._heap, (priority, next(self._order), key))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def get(self) -> Key:
        """Wait for a key and take it; the caller must call `done` with it."""
        while True:
            while self._heap:
                priority, _, key = heapq.heappop(self._heap)
                if self._waiting.get(key) != priority:
                    continue  # a stale entry: the key was taken, or moved forward
                del self._waiting[key]
                self._working.add(key)
                return key
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # this one was woken for a key and cannot take it: somebody else must
                raise

    def done(self, key: Key) -> None:
        """Give a key back."""
        self._working.discard(key)
        if key in self._again:
            self._push(key, self._again.pop(key))


class Backoff(Generic[Key]):
    """Exponential back-off for each key with full jitter, and a floor so that a retry is never at once."""

    def __init__(self, base: timedelta, longest: timedelta, source: random.Random | None = None) -> None:
        self._base, self._longest = base, longest
        self._random = source or random.Random()  # noqa: S311 - spreads load, guards no secret
        self._failures: dict[Key, int] = {}

    def failures(self, key: Key) -> int:
        """How often the key failed since its last success."""
        return self._failures.get(key, 0)

    def failing(self, times: int) -> list[Key]:
        """The keys that failed so often and more since their last success."""
        return [key for key, failures in self._failures.items() if failures >= times]

    def next(self, key: Key) -> timedelta:
        """Note a failure and return how long to wait: between a tenth and all of the doubling bound."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        doubled: timedelta = self._base * (1 << min(failures - 1, 24))
        bound = min(self._longest, doubled)
        return bound * self._random.uniform(0.1, 1.0)

    def forget(self, key: Key) -> None:
        """Note a success."""
        self._failures.pop(key, None)

    def __bool__(self) -> bool:
        """Tell whether any key has failed since its last success."""
        return bool(self._failures)
