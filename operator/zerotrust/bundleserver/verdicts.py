"""Answers of the API server, remembered for seconds: bounded, the least used go first, and one question at a time each."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from datetime import datetime
from typing import Generic, TypeVar

from zerotrust.bundleserver.refusals import busy
from zerotrust.engine.clock import Clock

Answer = TypeVar("Answer")
Question = Callable[[], Awaitable[tuple[Answer, datetime]]]


class ReviewGate:
    """Bounds how many questions are with the API server, and how many more may wait for that."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._inside = 0

    async def ask(self, question: Question[Answer]) -> tuple[Answer, datetime]:
        """Ask when it is this question's turn; Refused with 503 when too many wait already."""
        if self._inside >= self._most:
            raise busy("too many credentials are being looked up; try again")
        self._inside += 1
        try:
            async with self._slots:
                return await question()
        finally:
            self._inside -= 1


class Verdicts(Generic[Answer]):
    """A cache from a key to an answer and the time until which it holds. Errors are never kept.

    Whoever asks for the same key at the same time shares one question, which goes on when the first of them hangs up.
    """

    def __init__(self, clock: Clock, gate: ReviewGate, size: int) -> None:
        self._clock, self._gate, self._size = clock, gate, size
        self._known: OrderedDict[Hashable, tuple[Answer, datetime]] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[Answer]] = {}

    def __len__(self) -> int:
        return len(self._known)

    async def get(self, key: Hashable, question: Question[Answer]) -> Answer:
        """The remembered answer, or the one that `question` gives together with the time until which it holds."""
        found = self._known.get(key)
        if found is not None and self._clock.now() < found[1]:
            self._known.move_to_end(key)
            return found[0]
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, question))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Give up what is being asked."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        for flight in flights:
            with suppress(asyncio.CancelledError, Exception):
                await flight

    async def _fly(self, key: Hashable, question: Question[Answer]) -> Answer:
        answer, until = await self._gate.ask(question)
        self._known[key] = (answer, until)
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return answer

    def _landed(self, key: Hashable, flight: asyncio.Task[Answer]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; nobody may be left who does
