"""`zerotrust forward-auth`: stands between a proxy that asks before each request and an OPA that decides. It fails closed."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from zerotrust.forwardauth.connection import Connection, Floor
from zerotrust.forwardauth.counts import Counts
from zerotrust.forwardauth.decision_point import DecisionPoint
from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.question import Dialect, Interpreter, Malformed
from zerotrust.forwardauth.upstream import Upstream
from zerotrust.forwardauth.verdict import CANNOT_KNOW, MALFORMED, Unknown, Verdict
from zerotrust.telemetry.health import TelemetryServer, Watchdog
from zerotrust.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

HEALTH_EVERY = 2.0
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class ForwardAuthOptions:
    """How the service runs; port 0 takes any free one. `upstreams` are by name, `""` is the one at `/auth`."""

    upstreams: Mapping[str, Upstream]
    dialect: Dialect
    opa: str = "http://127.0.0.1:8181"
    host: str = "127.0.0.1"
    port: int = 9292
    metrics_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from other hosts
    metrics_port: int = 9293
    limits: Limits = field(default_factory=Limits)


class ForwardAuth:
    """The process. It answers `/auth` and `/auth/<name>`, whatever the method."""

    def __init__(self, options: ForwardAuthOptions) -> None:
        self._options = options
        self.metrics = Metrics()
        self._counts = Counts(self.metrics)
        self._interpreter = Interpreter(options.dialect, options.limits)
        self._point = DecisionPoint(options.opa, options.limits)
        self._floor = Floor(options.limits, self._counts)
        self._unready = "OPA was not asked yet"
        self._listener: asyncio.Server | None = None
        self.telemetry = TelemetryServer(self.metrics, self._not_ready, options.metrics_host, options.metrics_port)
        self.port = options.port
        self._counts.gauge("asking", "Questions that OPA is being asked.", lambda: self._point.asking)
        self._counts.gauge("waiting", "Questions that wait for their turn.", lambda: self._point.waiting)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; raises OSError when an address cannot be listened on."""
        options = self._options
        app = web.Application()
        app.add_routes([web.route("*", "/auth", self._auth), web.route("*", "/auth/{upstream}", self._auth)])
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        tasks = [asyncio.create_task(Watchdog(self.metrics).run()), asyncio.create_task(self._look_after_opa())]
        try:
            await self.telemetry.start()
            await runner.setup()
            server = runner.server
            assert server is not None
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(lambda: self._floor.accept(server), options.host, options.port)
            self.port = self._listener.sockets[0].getsockname()[1]
            logger.info("answering for %d servers on %s:%d", len(options.upstreams), options.host, self.port)
            await self._until(stop, tasks)
        finally:
            await self._leave(runner, tasks)
        logger.info("stopped")

    async def _until(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for `stop`; a task that ends before takes the process along with its error."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in tasks:
            if task.done():
                task.result()

    async def _leave(self, runner: web.AppRunner, tasks: list[asyncio.Task[None]]) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if runner.server is not None:
            runner.server.pre_shutdown()
            await runner.server.shutdown(GRACE_SECONDS)
        await runner.cleanup()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._point.close()
        await self.telemetry.stop()

    async def _auth(self, request: web.Request) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.began()
        try:
            started = time.monotonic()
            upstream = self._options.upstreams.get(request.match_info.get("upstream", ""))
            if upstream is None:
                raise web.HTTPNotFound
            verdict = await self._verdict(request, upstream)
            self._counts.answered(upstream.name, verdict.status, verdict.reason, time.monotonic() - started)
            response = verdict.response()
            if request.body_exists:
                response.force_close()
            return response
        finally:
            connection.ended()

    async def _verdict(self, request: web.Request, upstream: Upstream) -> Verdict:
        if request.body_exists:
            return MALFORMED
        try:
            question = self._interpreter.question(request.headers, upstream)
        except Malformed as error:
            logger.debug("%s", error)
            return MALFORMED
        try:
            return await self._point.decide(question)
        except Unknown as unknown:
            self._counts.unknown(unknown.why)
            return CANNOT_KNOW

    def _not_ready(self) -> str:
        return self._unready if self._listener is not None else "not listening"

    async def _look_after_opa(self) -> None:
        """Ask how OPA is, and say so once when that changes."""
        while True:
            now = await self._point.health()
            if now != self._unready:
                logger.log(logging.WARNING if now else logging.INFO, "%s", now or "OPA is ready")
            self._unready = now
            await asyncio.sleep(HEALTH_EVERY)
