"""The server process from the socket inwards: listens, reloads its SVID, and leaves without hurry."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from aiohttp import web

from zerotrust.bundleserver.app import BundleApplication, Parts
from zerotrust.bundleserver.connection import Floor
from zerotrust.bundleserver.tls import TlsIdentity
from zerotrust.telemetry.metrics import Sample

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 5.0
BACKLOG = 1024


class BundleServer:
    """One replica's HTTPS side. `not_ready` is for the telemetry server's `/readyz`.

    `tls.on_distrust` is taken over: connections made under an authority that is gone are cut.
    """

    def __init__(
        self, parts: Parts, tls: TlsIdentity, host: str, port: int, *, reload_seconds: float = RELOAD_SECONDS
    ) -> None:
        self._parts, self._tls, self._host, self.port = parts, tls, host, port
        self._reload_seconds = reload_seconds
        self._application = BundleApplication(parts)
        self._floor = Floor(tls, parts.limits, parts.counts)
        tls.on_distrust = self._floor.distrust
        self._runner = web.AppRunner(self._application.build(), handler_cancellation=True, access_log=None)
        self._listener: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._draining = False
        parts.counts.gauge("connections", "Open connections.", lambda: self._floor.open)
        parts.counts.gauge("tls_reload_failures", "Reloads of the SVID that failed.", lambda: tls.failures)
        parts.counts.watch(
            "remaining_validity_ratio",
            "What is left of the validity of the bundle that ends first: 1 when it was just signed, 0 when it has ended.",
            ["kind"],
            self._remaining,
        )
        parts.counts.watch("places", "Bundles that are served, by key and namespace.", ["kind", "held"], self._places)

    async def start(self) -> None:
        """Begin to listen; port 0 takes a free one, which `port` then tells."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: self._floor.accept(server), self._host, self.port, backlog=BACKLOG
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        self._watch = asyncio.create_task(self._tls.watch(self._reload_seconds), name="tls-reload")

    def not_ready(self) -> str:
        """Why this replica should get no new clients; nothing when it should."""
        if self._draining:
            return "draining"
        return "" if self._listener is not None else "not listening yet"

    async def drain(self) -> None:
        """Leave: not ready, every held poll answered within some seconds, evenly spread, then no more connections."""
        limits = self._parts.limits
        self._draining = self._application.closing = True
        logger.info("draining: %d held requests within %g s", self._parts.shelf.waiting(), limits.drain_spread_seconds)
        self._parts.shelf.let_go(limits.drain_spread_seconds)
        await asyncio.sleep(limits.drain_spread_seconds)
        await self.stop()

    async def stop(self) -> None:
        """Close the listener, let requests in progress end within the time of grace, then cut what is left."""
        self._draining = True
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self._listener is not None:
            self._listener.close()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(self._parts.limits.drain_grace_seconds)
        await self._runner.cleanup()
        for connection in list(self._floor.connections):
            connection.abort("shutdown")
        await self._parts.authenticator.close()

    async def serve(self, stop: asyncio.Event) -> None:
        """Listen until `stop` is set, then drain."""
        await self.start()
        try:
            await stop.wait()
        finally:
            await self.drain()

    def _remaining(self) -> list[Sample]:
        """The least share of its validity that a bundle of each kind has left; its epoch is when it was signed."""
        now, least = self._parts.clock.now().timestamp(), dict[str, float]()
        for place, bundle, _ in self._parts.shelf.places():
            end = bundle.not_after.timestamp()
            left = max(0.0, end - now) / max(1.0, end - bundle.epoch)
            least[place.kind.value] = min(left, least.get(place.kind.value, left))
        return [((kind,), left) for kind, left in least.items()]

    def _places(self) -> list[Sample]:
        """How many places there are by kind, and how many of them do not get the newest content."""
        numbers = Counter((place.kind.value, "yes" if held else "no") for place, _, held in self._parts.shelf.places())
        return [(labels, number) for labels, number in numbers.items()]
