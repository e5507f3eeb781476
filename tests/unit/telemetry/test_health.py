"""Probes, scrapes and the watchdog."""

import asyncio
import time

import aiohttp

from zerotrust.telemetry.health import TelemetryServer, Watchdog
from zerotrust.telemetry.metrics import Metrics


async def test_probes_and_metrics() -> None:
    reason = "caches are being filled"
    metrics = Metrics()
    server = TelemetryServer(metrics, lambda: reason, "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            assert (await session.get("/healthz")).status == 200
            answer = await session.get("/readyz")
            assert (answer.status, await answer.text()) == (503, f"{reason}\n")
            reason = ""
            assert (await session.get("/readyz")).status == 200
            text = await (await session.get("/metrics")).text()
    finally:
        await server.stop()
    for name in ("zerotrust_issue_seconds_bucket", "zerotrust_renewal_lateness_seconds_bucket"):
        assert name in text


async def test_a_stall_is_counted() -> None:
    metrics = Metrics()
    watchdog = asyncio.create_task(Watchdog(metrics).run())
    await asyncio.sleep(0.1)
    time.sleep(2.0)  # noqa: ASYNC251 - the stall itself
    async with asyncio.timeout(5):
        while b"zerotrust_event_loop_stalls_total 1.0" not in metrics.render():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    watchdog.cancel()
