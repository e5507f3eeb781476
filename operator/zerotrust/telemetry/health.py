"""`/metrics`, `/healthz`, `/readyz`, and the watchdog over the event loop."""

import asyncio
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from zerotrust.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

BEAT = 0.5
STALL = 1.0
DUMP_AFTER = 10.0


class TelemetryServer:
    """Answers probes and scrapes; `ready` returns why the process is not ready, or nothing."""

    def __init__(self, metrics: Metrics, ready: Callable[[], str], host: str, port: int) -> None:
        self._metrics, self._ready, self._host, self._port = metrics, ready, host, port
        self._runner: web.AppRunner | None = None
        self.port = port

    async def start(self) -> None:
        """Begin to listen; port 0 takes a free one, which `port` then tells."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._scrape),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        addresses = self._runner.addresses
        self.port = addresses[0][1] if addresses else self._port

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._ready()
        return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")


class Watchdog:
    """Notices when the event loop stands still: a metric and a warning, and the stack of whoever holds it up."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last = time.monotonic()
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Beat until cancelled."""
        observer = threading.Thread(target=self._observe, name="watchdog", daemon=True)
        observer.start()
        try:
            while True:
                before = time.monotonic()
                await asyncio.sleep(BEAT)
                self._last = time.monotonic()
                lag = self._last - before - BEAT
                self._metrics.loop_lag.set(max(0.0, lag))
                if lag > STALL:
                    self._metrics.stalled()
                    logger.warning("the event loop stood still for %.1f s", lag)
        finally:
            self._stopped.set()

    def _observe(self) -> None:
        """Runs in its own thread, because the loop cannot tell of itself while it stands still."""
        dumped = False
        while not self._stopped.wait(BEAT):
            stuck = time.monotonic() - self._last > DUMP_AFTER
            if stuck and not dumped:
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            dumped = stuck
