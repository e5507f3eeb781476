"""A bundle server that does what a test says: serves any bytes, is slow, goes away and comes back. It keeps all reports."""

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.opa import LOOPBACK

CONTENT_TYPE = "application/vnd.openpolicyagent.bundles"
HOLD_SECONDS = 20.0
PATIENCE_SECONDS = 15.0


@dataclass
class Resource:
    """What one path serves; a request that knows this ETag is held until it changes."""

    body: bytes
    etag: str
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class BundleHost:
    """Loopback HTTP; `pause` is waited between the parts into which a body is cut."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.pause = 0.0
        self.url = ""
        self._resources: dict[str, Resource] = {}
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._reported = asyncio.Event()

    async def __aenter__(self) -> "BundleHost":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Serve, on the same port as before."""
        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_get("/{path:.*}", self._get)
        application.router.add_post("/status{tail:.*}", self._status)
        application.router.add_post("/logs{tail:.*}", self._logs)
        self._runner = web.AppRunner(application, shutdown_timeout=0.0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://{LOOPBACK}:{self._port}"

    async def close(self) -> None:
        """Drop every connection and stop listening."""
        if self._runner is not None:
            for resource in self._resources.values():
                resource.changed.set()
                resource.changed = asyncio.Event()
            await self._runner.cleanup()
            self._runner = None

    def publish(self, path: str, body: bytes, etag: str = "") -> None:
        """Serve these bytes at a path from now on, and wake whoever waits for news there."""
        before = self._resources.get(path)
        self._resources[path] = Resource(body, etag or f'"{len(self.requests)}-{hash(body)}"')
        if before is not None:
            before.changed.set()

    async def reported(self, bundle: str, **wanted: object) -> dict[str, Any]:
        """Wait for a status report in which this bundle's fields have these values, and return them all."""

        def fits(status: dict[str, Any]) -> bool:
            one = status.get("bundles", {}).get(bundle, {})  # a first report may have no bundles at all
            return all(one.get(name) == value for name, value in wanted.items())

        found: dict[str, Any] = (await self._report(fits, f"{bundle} with {wanted}"))["bundles"][bundle]
        return found

    async def labelled(self, label: str, value: str) -> dict[str, Any]:
        """Wait for a status report with this label."""
        return await self._report(lambda status: status["labels"].get(label) == value, f"{label} {value}")

    async def _report(self, fits: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        async def found() -> dict[str, Any]:
            while True:
                for status in self.statuses:
                    if fits(status):
                        return status
                self._reported.clear()
                await self._reported.wait()

        try:
            return await asyncio.wait_for(found(), PATIENCE_SECONDS)
        except TimeoutError:
            last = self.statuses[-1] if self.statuses else "none"
            raise AssertionError(f"no report of {what}; the last is {last}") from None

    def forget_reports(self) -> None:
        """Let `reported` look only at what comes from now on."""
        self.statuses.clear()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers)))
        resource = self._resources.get(request.path)
        if resource is None:
            return web.Response(status=404)
        if request.headers.get("If-None-Match", "") == resource.etag:
            try:
                await asyncio.wait_for(resource.changed.wait(), HOLD_SECONDS)
            except TimeoutError:
                return web.Response(status=304, headers={"ETag": resource.etag})
            resource = self._resources[request.path]
        headers = {"Content-Type": CONTENT_TYPE, "ETag": resource.etag}
        if not self.pause:
            return web.Response(body=resource.body, headers=headers)
        response = web.StreamResponse(headers=headers)
        response.content_length = len(resource.body)
        await response.prepare(request)
        for start in range(0, len(resource.body), 256):
            await response.write(resource.body[start : start + 256])
            await asyncio.sleep(self.pause)
        return response

    async def _status(self, request: web.Request) -> web.Response:
        self.statuses.append(await request.json())
        self._reported.set()
        return web.json_response({})

    async def _logs(self, request: web.Request) -> web.Response:
        body = await request.read()
        text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.decisions += json.loads(text)
        return web.json_response({})
