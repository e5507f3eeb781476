"""What this replica has heard, written into its report object: at most once a second, and only when it says something new."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from zerotrust.bundleserver.decisions import LogSummary
from zerotrust.bundleserver.intake import Delivery, Report
from zerotrust.bundleserver.keyuse import KeyUses
from zerotrust.bundleserver.publisher import Publisher
from zerotrust.bundleserver.shelf import Kind
from zerotrust.common.naming import Ref
from zerotrust.common.observed import config_map
from zerotrust.engine.clock import Clock
from zerotrust.kube.client import Client
from zerotrust.kube.errors import AlreadyExists, KubeError, NotFound
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import (
    HEARTBEAT,
    MAX_CLIENT,
    MAX_DENIED,
    MAX_KID,
    MAX_POINTS,
    MAX_UNKNOWN,
    SKEW,
    Denied,
    NamespaceReport,
    Point,
    UnknownKid,
)

logger = logging.getLogger(__name__)

PERIOD = 1.0
TOLD_EVERY, TOLD_FOR = timedelta(minutes=1), timedelta(minutes=5)
# Somebody who is denied all day is news a few times an hour, and no longer news an hour after the last time.
DENIED_EVERY, DENIED_FOR = timedelta(minutes=10), timedelta(hours=1)


class Reporting:
    """Takes reports and deliveries, and writes what follows from them; `pod_uid` is the replica's own pod, if it has one.

    The object outlives the replica: the controller removes it when nobody believes what the replica has sent any more.
    """

    def __init__(self, client: Client, clock: Clock, ref: Ref, publisher: Publisher, pod_uid: str = "") -> None:
        self._client, self._clock, self._ref = client, clock, ref
        self._publisher, self._pod_uid = publisher, pod_uid
        self._points: dict[str, tuple[str, Point]] = {}
        self._unknown: dict[str, dict[str, UnknownKid]] = {}
        self._denied: dict[str, OrderedDict[tuple[str, str, str], Denied]] = {}
        self._unheard: dict[str, datetime] = {}
        self._keys, self._since = KeyUses(), clock.now()
        self._written: dict[str, NamespaceReport] | None = None
        self._at: datetime | None = None

    def report(self, report: Report) -> None:
        """Take a status report; the newest of a pod replaces the older ones."""
        revisions = {
            kind.value: state.active_revision
            for kind in Kind
            if (state := report.bundles.get(kind.value)) is not None and state.active_revision
        }
        serials = {
            kind: self._publisher.serial_of(report.namespace, Kind(kind), one) for kind, one in revisions.items()
        }
        ends = [one.not_after for one in self._publisher.served(report.namespace).values()]
        known = self._points.get(report.pod_uid)
        until = max([*ends, *([known[1].until] if known else [])], default=report.received_at)
        keys = tuple(sorted(report.key_ids))
        self._note(
            report.namespace,
            Point(
                report.pod_uid, report.pod, report.service_account, revisions, serials, keys, until, report.received_at
            ),
        )

    def delivered(self, delivery: Delivery) -> None:
        """Take note that somebody was sent a bundle: whoever then keeps silent has not agreed."""
        caller, place = delivery.caller, delivery.place
        if not caller.pod_uid or caller.workload is None:
            return
        known = self._points.get(caller.pod_uid)
        point = known[1] if known else Point(
            caller.pod_uid, caller.pod, caller.workload.service_account, {}, {}, (), delivery.not_after,
            delivery.delivered_at,
        )  # fmt: skip
        keys = tuple(sorted({*point.key_ids, place.key_id}))
        self._note(place.namespace, point._replace(until=max(point.until, delivery.not_after), key_ids=keys))

    def decisions(self, summary: LogSummary) -> None:
        """Take what people should hear of out of a decision log."""
        self._keys.note(summary)
        if summary.unknown_keys:
            self._note_unknown_keys(summary)
        known = self._denied.setdefault(summary.namespace, OrderedDict())
        for one in summary.denials:
            account = one.server.rpartition("/sa/")[2]
            name = (account, one.client, one.reason)
            told = known.get(name)
            if account and len(one.client) <= MAX_CLIENT and (told is None or one.at >= told.at + DENIED_EVERY):
                known[name] = Denied(*name, one.at)
                known.move_to_end(name)
                if len(known) > MAX_DENIED:
                    known.popitem(last=False)

    def _note_unknown_keys(self, summary: LogSummary) -> None:
        """Take note of key IDs that a decision point lacks: one a minute of each provider, for anybody can make them up."""
        known = self._unknown.setdefault(summary.namespace, {})
        for one in sorted(summary.unknown_keys, key=lambda one: (one.provider, one.kid)):
            before = known.get(one.provider)
            told = before is not None and summary.received_at < before.at + TOLD_EVERY
            room = before is not None or len(known) < MAX_UNKNOWN
            if room and not told and one.provider and len(one.kid) <= MAX_KID:
                known[one.provider] = UnknownKid(one.provider, one.kid, summary.received_at)

    def _note(self, namespace: str, point: Point) -> None:
        if point.uid not in self._points and len(self._points) >= MAX_POINTS:
            if namespace not in self._unheard:
                logger.warning("more than %d decision points report to this replica: run more replicas", MAX_POINTS)
            self._unheard[namespace] = max(point.until, self._unheard.get(namespace, point.until))
            return
        self._points[point.uid] = (namespace, point)

    def _current(self, now: datetime) -> dict[str, NamespaceReport]:
        for uid in [uid for uid, (_, one) in self._points.items() if one.until + SKEW < now]:
            del self._points[uid]
        for place in [place for place, until in self._unheard.items() if until + SKEW < now]:
            del self._unheard[place]
        found: dict[str, NamespaceReport] = {}
        for namespace in self._publisher.namespaces():
            served = {kind.value: one.serial for kind, one in self._publisher.served(namespace).items()}
            points = sorted(one for place, one in self._points.values() if place == namespace)
            found[namespace] = NamespaceReport(
                served,
                tuple(points),
                self._lacking(namespace, now),
                self._denials(namespace, now),
                self._unheard.get(namespace),
                self._keys.current(namespace, now),
                self._since if self._keys.logged(namespace) else None,
            )
        return found

    def _denials(self, namespace: str, now: datetime) -> tuple[Denied, ...]:
        known = self._denied.get(namespace, OrderedDict[tuple[str, str, str], Denied]())
        for name in [name for name, one in known.items() if one.at + DENIED_FOR < now]:
            del known[name]
        return tuple(sorted(known.values()))

    def _lacking(self, namespace: str, now: datetime) -> tuple[UnknownKid, ...]:
        known = self._unknown.get(namespace, {})
        for provider in [provider for provider, one in known.items() if one.at + TOLD_FOR < now]:
            del known[provider]
        return tuple(sorted(known.values()))

    async def resume(self) -> None:
        """Take up what this pod has written before its process started anew: silence since then is no agreement."""
        try:
            observed = config_map(await self._client.get(self._ref))
        except NotFound:
            return
        for namespace in observed.data:
            before = reports.read(observed, namespace)
            for point in before.points:
                self._points.setdefault(point.uid, (namespace, point))
            if before.unheard_until is not None:
                self._unheard.setdefault(namespace, before.unheard_until)

    async def run(self) -> None:
        """Write until cancelled."""
        resumed = False
        while True:
            try:
                if not resumed:
                    await self.resume()
                    resumed = True
                await self.write()
            except KubeError as error:
                logger.warning("report not written, trying again: %s", error)
                self._written = None
            await asyncio.sleep(PERIOD)

    async def write(self) -> None:
        """Write the report if it says something new, or once a minute while anybody reports."""
        now = self._clock.now()
        current = self._current(now)
        if self._at is not None and self._written is not None and _substance(current) == _substance(self._written):
            somebody = any(one.points for one in current.values())
            if not somebody or now - self._at < HEARTBEAT:
                return
        body = reports.manifest(self._ref.name, self._ref.namespace, current, self._pod_uid)
        gone = {place: None for place in self._written or () if place not in current}
        try:
            if self._written is None:
                await self._client.create(body)
            else:
                await self._client.patch(self._ref, {"data": {**body["data"], **gone}})
        except AlreadyExists:
            await self._client.patch(self._ref, {key: body[key] for key in ("metadata", "data")})
        except NotFound:
            await self._client.create(body)
        self._written, self._at = current, now


_ANY = datetime.min.replace(tzinfo=UTC)


def _substance(found: Mapping[str, NamespaceReport]) -> dict[str, NamespaceReport]:
    """A report without the times at which somebody was heard: those alone are worth a write once a minute only."""
    return {
        namespace: replace(one, points=tuple(point._replace(at=_ANY, until=_ANY) for point in one.points))
        for namespace, one in found.items()
    }
