"""Waiting for something to have happened, instead of for time to pass."""

import asyncio
from collections.abc import Callable

PATIENCE = 10_000


async def eventually(condition: Callable[[], object]) -> None:
    """Let other tasks (and threads) run until the condition holds; fail when it never does."""
    for turn in range(PATIENCE):
        if condition():
            return
        # Whatever needs only the event loop is done after a few turns; only a thread is worth a nap.
        await asyncio.sleep(0 if turn < PATIENCE - 2_000 else 0.005)
    raise AssertionError("that never happened")


async def quiet(turns: int = 50) -> None:
    """Let everything run that can run without the clock, to see that something does not happen."""
    for _ in range(turns):
        await asyncio.sleep(0)
