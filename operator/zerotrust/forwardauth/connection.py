"""One connection from the proxy: its requests have to arrive in time, and what is no HTTP is not quoted."""

import asyncio
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from zerotrust.forwardauth.counts import Counts
from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.verdict import CANNOT_KNOW, MALFORMED

# aiohttp would log errors with the request's line.
_silent = logging.Logger("forward-auth-connection")
_silent.addHandler(logging.NullHandler())


class Floor:
    """All open connections, bounded."""

    def __init__(self, limits: Limits, counts: Counts) -> None:
        self.limits, self.counts = limits, counts
        self.connections: set[Connection] = set()
        counts.gauge("connections", "Open connections.", lambda: len(self.connections))

    def accept(self, server: web.Server) -> asyncio.BaseProtocol:
        """A protocol for a new connection."""
        return Connection(server, self)


class Connection(web.RequestHandler):
    """aiohttp's handler, with a time for the head of a request; bodies are never read."""

    def __init__(self, server: web.Server, floor: Floor) -> None:
        limits = floor.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type] # documented: no log
            logger=_silent,
            max_line_size=limits.line,
            max_field_size=limits.header,
            max_headers=limits.headers,
            lingering_time=0.0,
            read_bufsize=4096,
            auto_decompress=False,
        )
        self._floor = floor
        self._busy = False
        self._head = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A request has to follow soon, and there must be room."""
        super().connection_made(transport)
        self._floor.connections.add(self)
        if len(self._floor.connections) > self._floor.limits.connections:
            self.abort("too_many_connections")
        else:
            self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Either side has closed."""
        self._floor.connections.discard(self)
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in; if they begin a request, its head has to be complete soon, and within its bound."""
        if not self._busy:
            self._head += len(data)
            if self._head > self._floor.limits.head:
                self.abort("large_head")
                return
            if self._deadline is None:
                self._arm()
        super().data_received(data)

    def handle_error(  # aiohttp's signature
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,  # noqa: ARG002
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or an error of ours, without quoting it here or in the log."""
        no_http = isinstance(exc, HttpProcessingError)
        self._floor.counts.cut("no_http" if no_http else "error")
        response = (MALFORMED if no_http else CANNOT_KNOW).response()
        response.force_close()
        return response

    def began(self) -> None:
        """A request's head is complete."""
        self._busy, self._head = True, 0
        self._disarm()

    def ended(self) -> None:
        """The answer is made; from here on the connection is idle."""
        self._busy = False

    def abort(self, reason: str) -> None:
        """Cut the connection."""
        self._floor.counts.cut(reason)
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def _arm(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._floor.limits.head_seconds, self._overdue)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        self._deadline = None
        if not self._busy:
            self.abort("slow_head")
