"""Waits until the operator has done what a command asked for, and says meanwhile what it waits for."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from zerotrust.cli.key_cluster import Cluster, Found, is_judged
from zerotrust.cli.policies import say
from zerotrust.common import durations
from zerotrust.common.conditions import find

EVERY_SECONDS = 0.5

Ending = Literal["done", "stuck", "late"]


@dataclass(frozen=True)
class Followed:
    """How the wait ended: `stuck` where only a person can go on, `late` after the timeout; `last` is what was waited for."""

    found: Found
    ending: Ending
    took: timedelta
    last: str

    @property
    def seconds(self) -> str:
        """How long it took, to a tenth of a second."""
        return f"{self.took.total_seconds():.1f}s"


async def follow(
    cluster: Cluster,
    found: Found,
    is_done: Callable[[Found], bool],
    waiting_for: Callable[[Found], str],
    timeout: timedelta,
    stuck_at: Callable[[Found], str] = lambda _: "",
) -> Followed:
    """Look at an ApiKey until it is done, stuck or late; what is waited for is told when it changes.

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
        found = await cluster.again(found)


def told(found: Found, *types: str) -> str:
    """The first of these conditions that is not True, as a line; a status of an older spec is not worth telling."""
    if not is_judged(found.resource):
        return "the controller has not looked at it yet"
    for name in types:
        condition = find(found.resource.conditions, name) or {}
        if condition.get("status") != "True":
            return f"{name}={condition.get('status', 'Unknown')}/{condition.get('reason', '')}: {condition.get('message', '')}"
    return "the controller is on it"


def stalled(found: Found) -> str:
    """What only a person can solve, empty while there is nothing of the kind."""
    condition = find(found.resource.conditions, "Stalled") or {}
    if not is_judged(found.resource) or condition.get("status") != "True":
        return ""
    return f"{condition.get('reason')}: {condition.get('message')}"
