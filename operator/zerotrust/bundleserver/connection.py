"""One TLS connection: the context of the moment it was accepted in, little memory, and no patience with slow clients."""

import asyncio
import logging
import ssl
from asyncio import sslproto
from collections import Counter

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from zerotrust.bundleserver.caller import PeerCertificate
from zerotrust.bundleserver.counts import Counts
from zerotrust.bundleserver.limits import Limits
from zerotrust.bundleserver.refusals import Refused
from zerotrust.bundleserver.tls import TlsIdentity

CLOSE_SECONDS = 5.0


class Connection(web.RequestHandler):
    """aiohttp's handler, which cuts a connection whose request line and headers do not arrive in time.

    `authorities` are the fingerprints of whom was trusted when the connection was made.
    """

    def __init__(self, server: web.Server, floor: "Floor", authorities: frozenset[bytes]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=floor.limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type] # documented: no log
            logger=logging.getLogger(__name__),
            max_line_size=4096,
            max_field_size=16_384,
            max_headers=64,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self._floor = floor
        self.authorities = authorities
        self._busy = False
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: tuple[PeerCertificate | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done; the first request has to follow soon."""
        super().connection_made(transport)
        self._floor.connections.add(self)
        self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Either side has closed."""
        self._floor.connections.discard(self)
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in; if they begin a request, its head has to be complete soon."""
        if not self._busy and self._deadline is None:
            self._arm()
        super().data_received(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP without quoting it, here or in the log: a broken header may hold a token."""
        if isinstance(exc, HttpProcessingError):
            self._floor.counts.cut("no_http")
            return Refused(400, "malformed", "this is no HTTP request", close=True).response()
        return super().handle_error(request, status, exc, message)

    def began(self) -> None:
        """A request's head is complete."""
        self._busy = True
        self._disarm()

    def ended(self) -> None:
        """The answer is sent; from here on the connection is idle."""
        self._busy = False

    @property
    def peer(self) -> PeerCertificate | None:
        """The client's verified certificate, if it has sent one; NotACredential when it is no SVID."""
        if self._peer is None:
            channel = self.transport.get_extra_info("ssl_object") if self.transport else None
            der = channel.getpeercert(binary_form=True) if isinstance(channel, ssl.SSLObject) else None
            self._peer = (PeerCertificate.parse(der) if der else None,)
        return self._peer[0]

    @property
    def has_certificate(self) -> bool:
        """Whether the client has sent a certificate."""
        channel = self.transport.get_extra_info("ssl_object") if self.transport else None
        return isinstance(channel, ssl.SSLObject) and channel.getpeercert(binary_form=True) is not None

    def abort(self, reason: str) -> None:
        """Cut the connection without waiting for the client."""
        self._floor.counts.cut(reason)
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def _arm(self) -> None:
        limit = self._floor.limits.header_seconds
        self._deadline = asyncio.get_running_loop().call_later(limit, self._overdue)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        self._deadline = None
        if not self._busy:
            self.abort("slow_head")


class _Tls(sslproto.SSLProtocol):
    """asyncio's TLS with a buffer of 16 KiB, one record, instead of 256 KiB for each connection (measured: docs)."""

    max_size = 16 * 1024

    def __init__(self, floor: "Floor", connection: Connection, context: ssl.SSLContext) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            connection,
            context,
            None,  # type: ignore[arg-type] # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=floor.limits.handshake_seconds,  # type: ignore[arg-type] # typeshed says int
            ssl_shutdown_timeout=CLOSE_SECONDS,
        )
        self._floor = floor
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; too many get no handshake."""
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if not self._floor.enter(address):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        self._address = address
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._floor.leave(self._address)
        super().connection_lost(exc)


class Floor:
    """All open connections, bounded in all and for each address."""

    def __init__(self, identity: TlsIdentity, limits: Limits, counts: Counts) -> None:
        self._identity, self.limits, self.counts = identity, limits, counts
        self._by_address: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.open = 0

    def accept(self, server: web.Server) -> asyncio.BaseProtocol:
        """A protocol for a new connection, with the certificate and the trust of this moment."""
        present = self._identity.current
        return _Tls(self, Connection(server, self, present.authorities), present.context)

    def enter(self, address: str) -> bool:
        """Whether there is room for one more from this address."""
        if self.open >= self.limits.connections or self._by_address[address] >= self.limits.connections_per_address:
            self.counts.cut("too_many_connections")
            return False
        self.open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection from this address has ended; nothing for one that never got in."""
        if not address:
            return
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def distrust(self, gone: frozenset[bytes]) -> None:
        """Cut every connection that was authenticated by a certificate while an authority that is gone was trusted."""
        for connection in list(self.connections):
            if connection.authorities & gone and connection.has_certificate:
                connection.abort("distrusted")


def connection_of(request: web.Request) -> Connection:
    """The connection that a request came in on."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    return connection
