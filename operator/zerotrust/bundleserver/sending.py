"""Sending within the time allowed: whoever does not read is cut, and never holds a whole body in our memory."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from zerotrust.bundleserver.connection import connection_of

CHUNK = 64 * 1024


class Cut(ConnectionError):
    """The client did not read; its connection is gone."""


async def send_bundle(
    request: web.Request,
    response: web.StreamResponse,
    body: bytes,
    seconds: float,
    before_the_last: Callable[[], None],
) -> None:
    """Send headers and body in pieces, each within `seconds`; Cut when a piece takes longer.

    `before_the_last` is called when only the last piece is missing: from there on the client may have all of it.
    """
    view = memoryview(body)
    async with _patience(request, seconds):
        await response.prepare(request)
    for start in range(0, len(view), CHUNK):
        if start + CHUNK >= len(view):
            before_the_last()
        async with _patience(request, seconds):
            await response.write(view[start : start + CHUNK])
    async with _patience(request, seconds):
        await response.write_eof()


async def deliver(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    """Send what of an answer is not sent yet, within `seconds`; Cut when it takes longer."""
    async with _patience(request, seconds):
        await response.prepare(request)
        await response.write_eof()
        await request.writer.drain()  # aiohttp itself does not wait after an answer without a body


class _patience:  # noqa: N801 - reads as the word it is
    def __init__(self, request: web.Request, seconds: float) -> None:
        self._request, self._timeout = request, asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, None)
        except TimeoutError:
            connection = connection_of(self._request)
            connection.abort("slow_reader")
            raise Cut("the client does not read") from None
