"""Waits until the operator has done what a command asked for, and says meanwhile what it waits for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar

from zerotrust.cli.policies import say
from zerotrust.common import durations
from zerotrust.common.conditions import find
from zerotrust.common.observed import Own

EVERY_SECONDS = 0.5

Ending = Literal["done", "stuck", "late"]
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Followed(Generic[Seen]):
    """How the wait ended: `stuck` where only a person can go on, `late` after the timeout; `last` is what was waited for."""

    found: Seen
    ending: Ending
    took: timedelta
    last: str

    @property
    def seconds(self) -> str:
        """How long it took, to a tenth of a second."""
        return f"{self.took.total_seconds():.1f}s"

    def to_document(self) -> dict[str, Any]:
        """What scripts get of the wait."""
        return {"ending": self.ending, "seconds": round(self.took.total_seconds(), 1), "waitedFor": self.last}


async def follow(
    again: Callable[[Seen], Awaitable[Seen]],
    found: Seen,
    is_done: Callable[[Seen], bool],
    waiting_for: Callable[[Seen], str],
    timeout: timedelta,
    stuck_at: Callable[[Seen], str] = lambda _: "",
) -> Followed[Seen]:
    """Read a resource `again` until it is done, stuck or late; what is waited for is told when it changes.

    `stuck_at` says why waiting is of no use, and is empty while it is.
    """
    began, last = time.monotonic(), ""
    say(f"waiting for at most {durations.render(timeout)}", err=True)
    while True:
        taken = timedelta(seconds=time.monotonic() - began)
        if is_done(found):
            return Followed(found, "done", taken, last)
        if stuck := stuck_at(found):
            return Followed(found, "stuck", taken, stuck)
        news = waiting_for(found)
        if news != last:
            say(f"{durations.render(taken):>6}  {news}", err=True)
        last = news
        if taken >= timeout:
            return Followed(found, "late", taken, last)
        left = timeout.total_seconds() - taken.total_seconds()
        await asyncio.sleep(min(EVERY_SECONDS, left))
        found = await again(found)


def is_judged(one: Own[Any]) -> bool:
    """Whether the status is about the spec as it is now."""
    observed = one.status.get("observedGeneration")
    return isinstance(observed, int) and observed >= one.meta.generation


def told(one: Own[Any], *types: str) -> str:
    """The first of these conditions that is not True, as a line; a status of an older spec is not worth telling."""
    if not is_judged(one):
        return "the controller has not looked at it yet"
    for name in types:
        condition = find(one.conditions, name) or {}
        if condition.get("status") != "True":
            return f"{name}={condition.get('status', 'Unknown')}/{condition.get('reason', '')}: {condition.get('message', '')}"
    return "the controller is on it"


def stalled(one: Own[Any]) -> str:
    """What only a person can solve, empty while there is nothing of the kind."""
    condition = find(one.conditions, "Stalled") or {}
    if not is_judged(one) or condition.get("status") != "True":
        return ""
    return f"{condition.get('reason')}: {condition.get('message')}"
