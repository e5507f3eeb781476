"""Leadership by a Lease (`coordination.k8s.io/v1`), as client-go does it, with release on shutdown.

The official client's election writes naive local times and does not release, so that a graceful restart would wait for the
Lease to run out; see docs/adr. A leader that cannot renew in time must stop: whoever runs this exits on `LeadershipLost`.
"""

import asyncio
import logging
import random
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import times
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.engine.clock import Clock
from zerotrust.kube.client import Body, Client
from zerotrust.kube.errors import AlreadyExists, Conflict, KubeError, NotFound

logger = logging.getLogger(__name__)

DURATION = timedelta(seconds=15)
RENEW_WITHIN = timedelta(seconds=10)
INTERVAL = 4.0


class LeadershipLost(ZerotrustError):
    """Somebody else leads, or may lead by now."""


class Lease:
    """One candidate for leadership."""

    def __init__(self, client: Client, clock: Clock, namespace: str, name: str, identity: str) -> None:
        self._client, self._clock, self._identity = client, clock, identity
        self._ref = Ref("Lease", namespace, name)
        self._held: Body | None = None
        self._seen: tuple[str, datetime] | None = None
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
            await asyncio.sleep(INTERVAL * self._random.uniform(0.6, 1.0))

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
        version = body["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
            renewed = times.parse_or_none((body.get("spec") or {}).get("renewTime"))
            return (
                renewed is not None and now - renewed > 20 * DURATION
            )  # left behind long ago, whatever the clocks say
        duration = timedelta(seconds=int(body["spec"].get("leaseDurationSeconds") or DURATION.seconds))
        return now - self._seen[1] > duration

    async def keep(self) -> None:
        """Renew until cancelled; LeadershipLost when that fails for too long or somebody else took over."""
        renewed = self._clock.now()
        while True:
            await asyncio.sleep(INTERVAL)
            now = self._clock.now()
            if now - renewed > DURATION:
                raise LeadershipLost("the Lease was not renewed in time: this process was held up or its clock was set")
            try:
                await self._renew(now)
                renewed = now
            except Conflict:
                renewed = await self._still_ours(now)
            except KubeError as error:
                logger.warning("lease not renewed: %s", error)
                if self._clock.now() - renewed > RENEW_WITHIN:
                    raise LeadershipLost(
                        f"the Lease could not be renewed for {RENEW_WITHIN.seconds} s: {error}"
                    ) from None

    async def _renew(self, now: datetime) -> None:
        assert self._held is not None
        async with asyncio.timeout(INTERVAL * 2):
            self._held = await self._client.replace(
                self._ref, {**self._held, "spec": {**self._held["spec"], **self._spec(now)}}
            )

    async def _still_ours(self, now: datetime) -> datetime:
        """After a conflict: our own renewal may have arrived although its answer was lost."""
        body = await self._client.get(self._ref)
        if (body.get("spec") or {}).get("holderIdentity") != self._identity:
            raise LeadershipLost("another process took the Lease over")
        self._held = body
        return now

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
            "leaseDurationSeconds": DURATION.seconds,
            "renewTime": _micro(now),
        }


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
