"""What bundle servers report, held against what is recorded: which decision points run which version of a policy."""

from collections.abc import Iterator, Set
from datetime import datetime, timedelta
from typing import NamedTuple

from zerotrust.apikey.snapshot import Acknowledged, Lagging, NotServed, Reach
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.contents import BundleContents, Content, Part
from zerotrust.engine.policybook import AcceptedVersion
from zerotrust.opabundle import reports
from zerotrust.opabundle.archive import Kind
from zerotrust.opabundle.record import KINDS, Entry
from zerotrust.opabundle.reports import SKEW, KeyUse, NamespaceReport, Point, ReportSnapshot
from zerotrust.policy.delivery import DecisionPoint, Delivery, Denial
from zerotrust.policy.survey import Survey, survey_ref

REPORTS = "bundle-reports"
UNHEARD = "pods beyond the number that one bundle server can report"
# The edit of one policy moves every decision point of its namespace to a new revision. For so long that is no news about others.
MOVING = timedelta(seconds=10)


class _Heard(NamedTuple):
    reports: tuple[NamespaceReport, ...]
    points: tuple[Point, ...]


class Enforcement:
    """Reads the reports of every replica out of the cache."""

    def __init__(self, cache: Cache, contents: BundleContents, operator_namespace: str, clock: Clock) -> None:
        self._cache, self._contents, self._clock = cache, contents, clock
        self._known: dict[str, tuple[tuple[str, ...], _Heard]] = {}
        self._first: dict[tuple[str, Kind], dict[Part, int]] = {}
        self.waiting: dict[str, set[Ref]] = {}  # by namespace, the ApiKeys to which it would be news how far a key is
        cache.index(REPORTS, "ConfigMap", lambda one: [""] if reports.is_report(one, operator_namespace) else [])
        cache.listen(self._changed)

    def _heard(self, namespace: str) -> _Heard:
        """What all replicas say of a namespace; read once for each change of a report, not for each policy."""
        found: list[ConfigMap] = self._cache.find(REPORTS, "")
        versions = tuple(one.meta.resource_version for one in found)
        known = self._known.get(namespace)
        if known is None or known[0] != versions:
            each = tuple(reports.read(one, namespace) for one in found)
            known = self._known[namespace] = (versions, _Heard(each, reports.merged(each)))
        return known[1]

    def _changed(self, change: Change) -> None:
        if change.ref.kind == "ConfigMap" and change.ref.name.endswith(naming.BUNDLE_RECORD_SUFFIX):
            namespace = change.ref.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)
            if change.new is not None and change.ref == self._contents.record_ref(namespace):
                self.note(namespace)

    def note(self, namespace: str) -> bool:
        """Remember the serials of contents that have been computed; tell whether anything is new that is in them.

        To be called when a record changes, and when computing a content anew has shown that its record need not.
        """
        known = [(kind, self._contents.known(namespace, kind)) for kind in KINDS]
        news = [self._note(namespace, kind, content) for kind, content in known if content is not None]
        return any(news)

    def _note(self, namespace: str, kind: Kind, content: Content) -> bool:
        """Remember which serial was the first that has a part in it: serials grow, so every later one has it too."""
        before, entry = self._first.setdefault((namespace, kind), {}), self._contents.record(namespace).get(kind)
        if entry is None or content.revision != entry.revision:
            return False
        parts = self._contents.parts(namespace, kind)
        self._first[namespace, kind] = {one: before.get(one, entry.serial) for one in parts}
        return not parts <= before.keys()

    def first_serial(self, namespace: str, part: Part, kind: Kind = "policy", *, cheaply: bool = False) -> int | None:
        """The serial from which on bundles have a part in them; None while that is not known.

        After a restart it is the serial that is current then, which is later than the truth and never earlier. `cheaply` does not
        compute a content that has changed: its record is about to be looked at, and that is when serials are noted.
        """
        if kind not in self._contents.record(namespace):
            return None  # no bundle server here, or not yet: nothing is computed for it
        first = self._first.get((namespace, kind))
        if first is None or (not cheaply and part not in first):
            self._note(namespace, kind, self._contents.content(namespace, kind))
        return self._first[namespace, kind].get(part)

    def reach(self, namespace: str, part: Part, kind: Kind = "policy") -> Reach:
        """How far a part of a namespace's bundles is: with everybody who decides there, only served, or not even that.

        Where there is no decision point, being served is as far as it goes.
        """
        first = self.first_serial(namespace, part, kind, cheaply=True)
        entry = self._contents.record(namespace).get(kind)
        if first is None or entry is None:
            return NotServed()
        if not any(one.served.get(kind, 0) >= first for one in self._heard(namespace).reports):
            return NotServed()
        lagging = [
            point.pod
            for point in self.living(namespace)
            if point.revisions.get(kind) != entry.revision and point.serials.get(kind, 0) < first
        ]
        lagging += [one.pod for one in self._unheard(namespace)]
        return Lagging(tuple(lagging)) if lagging else Acknowledged()

    def delivery(self, namespace: str, version: AcceptedVersion) -> Delivery:
        """How far an accepted version is."""
        found, first = self._heard(namespace).reports, self.first_serial(namespace, version)
        entry = self._contents.record(namespace).get("policy")
        replicas = sum(bool(one.served) for one in found)
        if first is None or entry is None:
            return Delivery(replicas)
        least = first if self._is_moving(entry) else entry.serial
        return Delivery(replicas, sum(one.served.get("policy", 0) >= least for one in found))

    def _is_moving(self, entry: Entry) -> bool:
        return self._clock.now().timestamp() - entry.serial < MOVING.total_seconds()

    def points(self, namespace: str, account: str, version: AcceptedVersion) -> tuple[DecisionPoint, ...]:
        """The decision points in pods of a ServiceAccount, and which of them run an accepted version."""
        found = [
            DecisionPoint(point.pod, self._runs(namespace, point, version))
            for point in self.living(namespace)
            if point.account == account
        ]
        return (*found, *self._unheard(namespace))

    def _unheard(self, namespace: str) -> Iterator[DecisionPoint]:
        """In place of decision points that a bundle server had no room for: they are not known to have agreed."""
        now = self._clock.now()
        if any(one.unheard_until and now <= one.unheard_until + SKEW for one in self._heard(namespace).reports):
            yield DecisionPoint(UNHEARD, acknowledged=False)

    def _runs(self, namespace: str, point: Point, version: AcceptedVersion) -> bool:
        first, entry = self.first_serial(namespace, version), self._contents.record(namespace).get("policy")
        if first is None or entry is None:
            return False
        if point.revisions.get("policy") == entry.revision:
            return True
        return self._is_moving(entry) and point.serials.get("policy", 0) >= first

    def living(self, namespace: str) -> Iterator[Point]:
        """Whoever may still decide by something that it was sent: its pod is there, and its content is not past its end."""
        now, survey = self._clock.now(), self._survey(namespace)
        for point in self._heard(namespace).points:
            seen = survey is not None and survey.at is not None and survey.at >= point.at
            gone = survey is not None and seen and point.uid not in survey.uids
            if point.until + SKEW >= now and not gone:
                yield point

    def _survey(self, namespace: str) -> Survey | None:
        survey: Survey | None = self._cache.get(survey_ref(namespace))
        return survey

    def denials(self, namespace: str, target: str, account: str) -> tuple[Denial, ...]:
        """Whom the decision points of a target denied lately, the newest of each client and reason."""
        found: dict[tuple[str, str], Denial] = {}
        for one in sorted(
            (one for report in self._heard(namespace).reports for one in report.denied), key=lambda one: one.at
        ):
            if one.account == account:
                found[one.client, one.reason] = Denial(one.at, target, one.client, one.reason)
        return tuple(found.values())

    def key_uses(self, namespace: str) -> Iterator[KeyUse]:
        """What decision logs tell of API keys of a namespace."""
        for report in self._heard(namespace).reports:
            yield from report.keys

    def logs_since(self, namespace: str) -> datetime | None:
        """Since when every bundle server has listened to decision logs; None while none of the namespace's come."""
        found = [one for one in self._heard(namespace).reports if one.served]
        heard = [one.logs_since for one in found if one.logs_since is not None]
        return max(heard, default=None)

    def report(self, ref: Ref) -> ReportSnapshot | None:
        """What decides about a report, None when that object is none."""
        found: list[ConfigMap] = self._cache.find(REPORTS, "")
        others = [one for one in found if one.meta.ref != ref]
        observed = next((one for one in found if one.meta.ref == ref), None)
        if observed is None:
            return None
        heard = {
            namespace: reports.merged(reports.read(one, namespace) for one in others) for namespace in observed.data
        }
        return ReportSnapshot(observed, self._survey(ref.namespace), heard)

    def keys_in_use(self) -> Set[str] | None:
        """The signing keys that decision points still use; None while no replica reports."""
        if not self._cache.size(REPORTS, ""):
            return None
        return {key for place in self._contents.namespaces() for one in self.living(place) for key in one.key_ids}

    def concerned(self, change: Change) -> frozenset[str]:
        """The namespaces of which a changed report says something new."""
        if change.ref.kind != "ConfigMap" or not change.ref.name.startswith(naming.REPORT_PREFIX):
            return frozenset()
        both = [one for one in (change.old, change.new) if one is not None]
        places = {place for one in both for place in one.data}
        known = len(both) == 2
        return frozenset(
            place for place in places if not known or _substance(both[0], place) != _substance(both[1], place)
        )


def _substance(report: ConfigMap, namespace: str) -> str:
    found = reports.read(report, namespace)
    points = [(one.uid, one.account, sorted(one.revisions.items()), one.key_ids) for one in found.points]
    return repr((sorted(found.served.items()), points, found.denied))
