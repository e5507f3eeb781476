"""How often each ConfigMap was written: the API server counts writes of a kind only, so a watch counts them by name."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import aiohttp

from hack.bench.cluster import OPERATOR_NAMESPACE, say
from zerotrust.common import naming
from zerotrust.kube.client import Client

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PATH = "/api/v1/configmaps"


class RecordWrites:
    """Every write of a ConfigMap since the context was entered, by namespace and name.

    The API server tells a watch of each write by itself. `complete` is False once the watch has ended early.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.counts: Counter[tuple[str, str]] = Counter()
        self.complete = True

    async def __aenter__(self) -> Self:
        listed = await self._client._request("GET", PATH, "list ConfigMaps", params={"limit": "1"})
        self._task = asyncio.create_task(self._watch(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self, version: str) -> None:
        session = self._client._session
        assert session is not None
        params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "86400"}
        forever = aiohttp.ClientTimeout(total=None, sock_connect=5)
        url = self._client._base + PATH
        try:
            async with session.get(url, params=params, headers={"Accept": METADATA}, timeout=forever) as answer:
                answer.raise_for_status()
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._note(json.loads(line))
        except aiohttp.ClientError as error:
            say(f"the watch of ConfigMaps ended: {type(error).__name__}")
        self.complete = False

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"] == "ERROR":
            self.complete = False
        else:
            metadata = event["object"]["metadata"]
            self.counts[(metadata["namespace"], metadata["name"])] += 1


def kind_of(namespace: str, name: str) -> str:
    """What a ConfigMap is for."""
    if namespace == OPERATOR_NAMESPACE:
        if naming.api_keys_shard(name) is not None:
            return "key records"
        if name.endswith(naming.BUNDLE_RECORD_SUFFIX):
            return "bundle records"
        if name.startswith(naming.REPORT_PREFIX):
            return "bundle servers' reports"
    return "other ConfigMaps"


def of_kinds(counts: Counter[tuple[str, str]], keys: int, complete: Iterable[bool] = ()) -> list[str]:
    """Lines of the table: for each kind of ConfigMap how many there are, all their writes, and the most of one."""
    kinds: dict[str, list[int]] = {}
    for place, number in sorted(counts.items()):
        kinds.setdefault(kind_of(*place), []).append(number)
    note = "" if all(complete) else " (at least: the watch ended early)"
    return [
        f"| writes of {kind} | {sum(numbers)} of {len(numbers)} objects, {sum(numbers) / keys:.4f} for each key, at most"
        f" {max(numbers)} of one{note} |"
        for kind, numbers in sorted(kinds.items())
    ]
