"""Kubernetes events (`events.k8s.io/v1`): sent on transitions, aggregated into series, never in the way of the work."""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common.naming import API_VERSION, GROUP, Ref
from zerotrust.common.observed import Meta
from zerotrust.common.plan import Event
from zerotrust.engine.clock import Clock
from zerotrust.kube.client import Client
from zerotrust.kube.errors import KubeError, NotFound, Throttled
from zerotrust.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SERIES_WINDOW = timedelta(minutes=6)  # client-go finishes a series after six minutes without a repetition
MAX_WAITING = 20_000
MAX_SERIES = 10_000
MAX_NOTE = 1024


@dataclass
class _Series:
    """The last event of its kind about an object: where it is, how often it came, when."""

    ref: Ref
    count: int
    last: datetime


class Recorder:
    """Sends events in the background; what cannot be sent is dropped and counted."""

    def __init__(self, client: Client, clock: Clock, metrics: Metrics, instance: str, *, senders: int = 8) -> None:
        self._client, self._clock, self._metrics = client, clock, metrics
        self._instance = instance[:128]
        self._senders = senders
        self._waiting: asyncio.Queue[tuple[Meta, Event, datetime]] = asyncio.Queue(MAX_WAITING)
        self._series: OrderedDict[tuple[str, str, str], _Series] = OrderedDict()
        self._number = 0

    def record(self, about: Meta, event: Event) -> None:
        """Take an event in, to be sent later."""
        try:
            self._waiting.put_nowait((about, event, self._clock.now()))
        except asyncio.QueueFull:
            self._metrics.event_dropped("QueueFull")

    @property
    def waiting(self) -> int:
        """Events that were not sent yet."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._senders):
                tasks.create_task(self._send_all(), name=f"event-sender-{number}")

    async def drain(self, seconds: float) -> None:
        """Wait until everything was sent, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("%d events were not sent before the end", self.waiting)

    async def _send_all(self) -> None:
        while True:
            about, event, moment = await self._waiting.get()
            try:
                await self._send(about, event, moment)
            except KubeError as error:
                self._metrics.event_dropped(type(error).__name__)
                logger.debug("event not sent: %s", error)
                if isinstance(error, Throttled):
                    await asyncio.sleep(error.retry_after.total_seconds() if error.retry_after else 1.0)
            finally:
                self._waiting.task_done()

    async def _send(self, about: Meta, event: Event, moment: datetime) -> None:
        name = (about.uid, event.reason, event.message[:MAX_NOTE])
        series = self._series.get(name)
        if series is not None and moment - series.last < SERIES_WINDOW:
            series.count += 1
            series.last = moment
            repeated = {"series": {"count": series.count, "lastObservedTime": _micro(moment)}}
            try:
                await self._client.patch(series.ref, repeated)
                return
            except NotFound:  # the API server forgets events after an hour
                pass
        body = self._body(about, event, moment)
        await self._client.create(body)
        ref = Ref("Event", body["metadata"]["namespace"], body["metadata"]["name"])
        self._series[name] = _Series(ref, 1, moment)
        self._series.move_to_end(name)
        while len(self._series) > MAX_SERIES:
            self._series.popitem(last=False)

    def _body(self, about: Meta, event: Event, moment: datetime) -> dict[str, Any]:
        self._number += 1
        unique = f"{int(moment.timestamp() * 1e6):x}{self._number % 0x10000:04x}"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about.name[:200]}.{unique}",
                "namespace": about.namespace or "default",  # where kubectl looks for events of cluster-scoped objects
            },
            "eventTime": _micro(moment),
            "reportingController": f"{GROUP}/controller",
            "reportingInstance": self._instance,
            "action": event.action,
            "reason": event.reason,
            "type": event.type,
            "note": event.message[:MAX_NOTE],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": about.ref.kind,
                "name": about.name,
                "uid": about.uid,
                **({"namespace": about.namespace} if about.namespace else {}),
            },
        }


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
