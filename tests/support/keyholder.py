"""A client that holds an API key: it sends whatever its Secret holds at the moment, as one that reads a mounted file does."""

import asyncio
import base64
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.support.deployment import Running
from tests.support.opa import Opa

READ_EVERY = 0.1


def read_secret(cluster: Running, name: str, namespace: str = "shop") -> dict[str, str]:
    """The values of a Secret, empty while there is none."""
    text = cluster.plane.kubectl("get", "secret", name, "-n", namespace, "-o", "json", "--ignore-not-found")
    data: Mapping[str, str] = json.loads(text).get("data") or {} if text else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


class KeyHolder:
    """Asks an OPA at a steady rate; `reasons` counts the verdicts, `keys` are all plaintexts that it ever had."""

    def __init__(self, cluster: Running, opa: Opa, secret: str, question: Mapping[str, Any]) -> None:
        self._cluster, self._opa, self._secret, self._question = cluster, opa, secret, question
        self.reasons: Counter[str] = Counter()
        self.key_ids: set[str] = set()
        self.keys: set[str] = set()
        self._key = ""
        self.asked = 0

    async def read(self) -> str:
        """Read the Secret again; the key in it."""
        found = await asyncio.to_thread(read_secret, self._cluster, self._secret)
        self._key = found.get("api-key", self._key)
        self.keys |= {value for name, value in found.items() if name.startswith("api-key")}
        return self._key

    def presenting(self, key: str) -> dict[str, Any]:
        """The question with a key."""
        asked = dict(self._question)
        asked["request"] = {**asked["request"], "headers": {"x-api-key": key}}
        return asked

    @contextlib.asynccontextmanager
    async def sending(self, rate: float) -> AsyncIterator[None]:
        """Send so many requests a second, for as long as the context lasts."""
        await self.read()
        tasks = [asyncio.create_task(self._keep_reading()), asyncio.create_task(self._keep_sending(rate))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            failed = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
            assert not failed, failed

    async def _keep_reading(self) -> None:
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY)

    async def _keep_sending(self, rate: float) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._ask())
                self.asked += 1
                await asyncio.sleep(max(0.0, began + self.asked / rate - time.monotonic()))

    async def _ask(self) -> None:
        answer = await self._opa.ask(self.presenting(self._key))
        self.reasons[answer["reason"]] += 1
        self.key_ids.add(answer.get("key_id", ""))
