"""Leadership by a Lease (`coordination.k8s.io/v1`), as client-go does it, with release on shutdown.

The official client's election writes naive local times and does not release, so that a graceful restart would wait for the
Lease to run out; see docs/adr. A leader that cannot renew in time must stop: whoever runs this exits on `LeadershipLost`.
"""

import asyncio
import logging
import random
import time
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import times
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.engine.clock import Clock
from zerotrust.kube.client import Body, Client
from zerotrust.kube.errors import AlreadyExists, Conflict, KubeError, NotFound, Unreachable

logger = logging.getLogger(__name__)

DURATION = timedelta(seconds=15)


class LeadershipLost(ZerotrustError):
    """Somebody else leads, or may lead by now."""


class Lease:
    """One candidate for leadership."""

    def __init__(self, client: Client, clock: Clock, ref: Ref, identity: str, duration: timedelta = DURATION) -> None:
        """`duration` is how long others wait for a holder that does not renew; renewals come four times as often."""
        self._client, self._clock, self._ref, self._identity = client, clock, ref, identity
        self._duration, self._interval = duration, duration.total_seconds() / 4
        self._held: Body | None = None
        self._seen: tuple[str, float] | None = None
        self._random = random.Random()  # noqa: S311 - spreads candidates, guards no secret

    @property
    def held(self) -> bool:
        """Whether this candidate leads, as far as it knows."""
        return self._held is not None

    async def acquire(self) -> None:
        """Wait until this candidate leads."""
        said = ""
        while True:
            try:
                message = await self._try()
            except KubeError as error:
                message = str(error)
            if self.held:
                logger.info("leading", extra={"object": str(self._ref)})
                return
            if message != said:
                logger.info("waiting to lead: %s", message, extra={"object": str(self._ref)})
                said = message
            await asyncio.sleep(self._interval * self._random.uniform(0.6, 1.0))

    async def _try(self) -> str:
        """Take the Lease if it is free, released or run out; otherwise say who has it."""
        now = self._clock.now()
        try:
            body = await self._client.get(self._ref)
        except NotFound:
            fresh = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._ref.name, "namespace": self._ref.namespace},
                "spec": {**self._spec(now), "acquireTime": _micro(now), "leaseTransitions": 0},
            }
            try:
                self._held = await self._client.create(fresh)
            except AlreadyExists:
                return "another candidate was faster"
            except NotFound:
                return f"namespace {self._ref.namespace} does not exist; create it"
            return ""
        spec = body.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not self._ran_out(body, now):
            return f"{holder} leads"
        spec = {
            **spec,
            **self._spec(now),
            "acquireTime": _micro(now),
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
        }
        try:
            self._held = await self._client.replace(self._ref, {**body, "spec": spec})
        except Conflict:
            return "another candidate was faster"
        return ""

    def _ran_out(self, body: Body, now: datetime) -> bool:
        """Tell whether the Lease did not change for its own duration, by this candidate's clock alone."""
        version, spec = body["metadata"]["resourceVersion"], body.get("spec") or {}
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, _elapsed())
            renewed = times.parse_or_none(spec.get("renewTime"))
            # Left behind long ago, whatever the clocks say: no need to watch it for another duration.
            return renewed is not None and now - renewed > 20 * self._duration
        return _elapsed() - self._seen[1] > (spec.get("leaseDurationSeconds") or self._duration.total_seconds())

    async def keep(self) -> None:
        """Renew until cancelled; LeadershipLost when that fails for too long or somebody else took over."""
        longest = self._duration.total_seconds()
        renewed = _elapsed()
        while True:
            await asyncio.sleep(self._interval)
            started = _elapsed()
            if started - renewed > longest:
                raise LeadershipLost("the Lease was not renewed in time: this process was held up")
            try:
                await self._renew()
                renewed = started
            except Conflict:
                await self._check_still_ours()
                renewed = started
            except KubeError as error:
                logger.warning("lease not renewed: %s", error)
                if _elapsed() - renewed > longest * 2 / 3:
                    raise LeadershipLost(f"the Lease could not be renewed in time: {error}") from None

    async def _renew(self) -> None:
        assert self._held is not None
        body = {**self._held, "spec": {**self._held["spec"], **self._spec(self._clock.now())}}
        try:
            async with asyncio.timeout(self._interval * 2):
                self._held = await self._client.replace(self._ref, body)
        except TimeoutError:
            raise Unreachable("the API server did not answer in time") from None

    async def _check_still_ours(self) -> None:
        """After a conflict: our own renewal may have arrived although its answer was lost."""
        body = await self._client.get(self._ref)
        if (body.get("spec") or {}).get("holderIdentity") != self._identity:
            raise LeadershipLost("another process took the Lease over")
        self._held = body

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait."""
        if self._held is None:
            return
        spec = {
            **self._held["spec"],
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": _micro(self._clock.now()),
        }
        try:
            await self._client.replace(self._ref, {**self._held, "spec": spec})
            logger.info("released the lease", extra={"object": str(self._ref)})
        except KubeError as error:
            logger.warning("lease not released: %s", error)
        self._held = None

    def _spec(self, now: datetime) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration.total_seconds())),
            "renewTime": _micro(now),
        }


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _elapsed() -> float:
    """Seconds that have passed, suspension included; setting the clock does not move it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
