"""Raw HTTP exchanges with an API server, fake or real: no interpretation, so that tests see what was said."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any, Self

import aiohttp

from .resources import Object

MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any
    headers: Mapping[str, str]


class WatchReader:
    """The events of one open watch, one at a time."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self, timeout: float = 10.0) -> Object:
        """The next event; EOFError when the stream has ended, cleanly or not."""
        async with asyncio.timeout(timeout):
            try:
                line = await self._response.content.readline()
            except aiohttp.ClientError as error:
                raise EOFError(f"broken off: {error!r}") from error
        if not line:
            raise EOFError("ended")
        event: Object = json.loads(line)
        return event

    async def rest(self) -> list[Object]:
        """All events until the stream ends, which it has to do cleanly."""
        return [json.loads(line) async for line in self._response.content]

    async def take(self, count: int) -> list[tuple[str, str]]:
        """The types and names of the next `count` events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


class RawClient:
    """One HTTP session, with a client certificate for a real API server: `async with RawClient(url) as api`."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._tls: ssl.SSLContext | bool = tls or True

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 30.0,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """Send one request. A `query` name may end in an underscore where it would be a Python keyword."""
        headers = {"Accept": accept} | ({} if body is None else {"Content-Type": content_type})
        async with self._session.request(
            method,
            self._url + path,
            data=None if body is None else BytesIO(json.dumps(body).encode()),
            headers=headers,
            params={name.rstrip("_"): value for name, value in query.items()},
            ssl=self._tls,
            timeout=aiohttp.ClientTimeout(total=timeout),
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(response.status, json.loads(text) if is_json else text, response.headers)

    async def get(self, path: str, *, accept: str = "application/json", **query: str) -> Answer:
        return await self.send("GET", path, accept=accept, query=query)

    async def post(self, path: str, body: object) -> Answer:
        return await self.send("POST", path, body)

    async def put(self, path: str, body: object) -> Answer:
        return await self.send("PUT", path, body)

    async def patch(self, path: str, body: object, content_type: str = MERGE_PATCH) -> Answer:
        return await self.send("PATCH", path, body, content_type=content_type)

    async def delete(self, path: str, body: object = None) -> Answer:
        return await self.send("DELETE", path, body)

    @asynccontextmanager
    async def watch(self, path: str, *, accept: str = "application/json", **query: str) -> AsyncIterator[WatchReader]:
        """Open a watch; the answer has to be 200."""
        async with self._session.get(
            self._url + path, params={"watch": "true", **query}, headers={"Accept": accept}, ssl=self._tls
        ) as response:
            assert response.status == 200, await response.text()
            yield WatchReader(response)
