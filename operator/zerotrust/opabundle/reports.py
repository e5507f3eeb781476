"""What bundle servers report, one object for each replica: what it serves, and which revision each decision point runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from zerotrust.common import naming
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.opabundle.record import KINDS
from zerotrust.policy.survey import Survey, survey_ref

MAX_UNKNOWN, MAX_KID = 16, 64
MAX_DENIED, MAX_CLIENT = 16, 256
UNKNOWN_KEY = "unknown_key"  # why a key was refused that no ApiKey has
MAX_USED, MAX_MISUSED, MAX_REASON = 2_000, 16, 32
HEARTBEAT = timedelta(minutes=1)  # so often a replica writes while anybody reports to it
SKEW = timedelta(seconds=30)
LOOK_AGAIN = timedelta(seconds=30)
MAX_POINTS = 2_000  # of one replica: 400 bytes each stay below the megabyte that an object may have


class Point(NamedTuple):
    """A decision point: a pod with an OPA. `revisions` are those that it runs, `serials` their places in the order (0:
    unknown), `until` is when the last content that it was sent ceases to be believed, `at` when it was heard of last.
    """

    uid: str
    pod: str
    account: str
    revisions: Mapping[str, str]
    serials: Mapping[str, int]
    key_ids: tuple[str, ...]
    until: datetime
    at: datetime


class UnknownKid(NamedTuple):
    """A token's key ID that a decision point did not have at `at`; `provider` is its identity provider's name."""

    provider: str
    kid: str
    at: datetime


class Denied(NamedTuple):
    """A caller was denied by the decision points of a ServiceAccount, lately at `at`; `client` is a SPIFFE ID, or `none`."""

    account: str
    client: str
    reason: str
    at: datetime


class KeyUse(NamedTuple):
    """An API key was used, lately at `at`; `reason` is why it was refused, empty where it was accepted."""

    key_id: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class NamespaceReport:
    """One replica's view of one namespace: the serials that it serves, its decision points, key IDs that they lack, and whom
    they denied lately. `unheard_until` is when the content ends of decision points that it had no room for. `keys` are API keys
    that were used lately; `logs_since` is since when it has listened to their decision logs, None while none came.
    """

    served: Mapping[str, int] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    unknown: tuple[UnknownKid, ...] = ()
    denied: tuple[Denied, ...] = ()
    unheard_until: datetime | None = None
    keys: tuple[KeyUse, ...] = ()
    logs_since: datetime | None = None


def manifest(name: str, namespace: str, reports: Mapping[str, NamespaceReport], pod_uid: str = "") -> dict[str, Any]:
    """The object of one replica; `pod_uid` is its own pod's."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_BUNDLE_REPORT},
            "annotations": {naming.POD_UID: pod_uid},
        },
        "data": {place: _rendered(report) for place, report in sorted(reports.items())},
    }


def is_report(observed: ConfigMap, operator_namespace: str) -> bool:
    """Tell whether an object is a replica's; only those in the operator's namespace count."""
    ours = observed.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_BUNDLE_REPORT
    return ours and observed.meta.namespace == operator_namespace


def read(observed: ConfigMap, namespace: str) -> NamespaceReport:
    """What a replica says of a namespace; what cannot be read counts as nothing said."""
    try:
        content = json.loads(observed.data.get(namespace, "{}"))
        points = tuple(_point(one) for one in content.get("points", ()))
        served: dict[str, int] = {
            kind: int(content.get("served", {})[kind]) for kind in KINDS if kind in content.get("served", {})
        }
        unknown = tuple(_unknown(one) for one in content.get("unknown", ())[:MAX_UNKNOWN])
        denied = tuple(_denied(one) for one in content.get("denied", ())[:MAX_DENIED])
        unheard, logs = (_moment(content, name) for name in ("unheardUntil", "logsSince"))
        keys = tuple(_use(one) for one in content.get("keys", ())[: MAX_USED + MAX_MISUSED])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return NamespaceReport()
    return NamespaceReport(served, points, unknown, denied, unheard, keys, logs)


def merged(reports: Iterable[NamespaceReport]) -> tuple[Point, ...]:
    """The decision points of all replicas, by what was heard of each last; whatever was sent to it counts."""
    newest: dict[str, Point] = {}
    for report in reports:
        for point in report.points:
            known = newest.get(point.uid)
            if known is not None:
                later = max(known, point, key=lambda one: one.at)
                point = later._replace(until=max(known.until, point.until))
            newest[point.uid] = point
    return tuple(newest[uid] for uid in sorted(newest))


@dataclass(frozen=True)
class ReportSnapshot:
    """A replica's report, the pods of the operator's namespace, and what the other replicas have heard of each namespace."""

    observed: ConfigMap
    survey: Survey | None
    others: Mapping[str, tuple[Point, ...]]


def reconcile_report(snapshot: ReportSnapshot, now: datetime) -> Plan:
    """Return what to do for the report of a replica that is gone: what it has sent may be believed until that ends.

    Its decision points are kept until another replica hears of them or their content has ended; then the report goes.
    """
    observed, survey = snapshot.observed, snapshot.survey
    found = {namespace: read(observed, namespace) for namespace in observed.data}
    heard = max((one.at for report in found.values() for one in report.points), default=None)
    if heard is not None and now < heard + 2 * HEARTBEAT:
        return Plan(requeue_at=heard + 2 * HEARTBEAT)
    pod, created = observed.meta.annotations.get(naming.POD_UID), observed.meta.created
    if not pod:
        return Plan()  # a replica outside the cluster: nobody can tell whether it is gone
    look = Plan(refresh=(survey_ref(observed.meta.namespace),), requeue_at=now + LOOK_AGAIN)
    since = max((one for one in (heard, created) if one is not None), default=now)
    if survey is None or survey.at is None or survey.at < since or pod in survey.uids:
        return look
    left = {namespace: _left(report, snapshot.others.get(namespace, ()), now) for namespace, report in found.items()}
    kept = {namespace: report for namespace, report in left.items() if report.points or report.unheard_until}
    if not kept:
        return Plan(deletes=(Delete(observed.meta.ref, observed.meta.uid),))
    wanted = manifest(observed.meta.name, observed.meta.namespace, kept, pod)
    return replace(look, applies=(Apply(wanted, exact=("data",)),))


def _left(report: NamespaceReport, others: Iterable[Point], now: datetime) -> NamespaceReport:
    newer = {one.uid: one.at for one in others}
    unheard = report.unheard_until if report.unheard_until and now <= report.unheard_until + SKEW else None
    points = [one for one in report.points if one.until + SKEW >= now and newer.get(one.uid, _NEVER) < one.at]
    return NamespaceReport(points=tuple(points), unheard_until=unheard)


_NEVER = datetime.min.replace(tzinfo=UTC)


def _rendered(report: NamespaceReport) -> str:
    points = [
        {
            "uid": one.uid,
            "pod": one.pod,
            "account": one.account,
            "revisions": dict(one.revisions),
            "serials": dict(one.serials),
            "keys": list(one.key_ids),
            "until": int(one.until.timestamp()),
            "at": int(one.at.timestamp()),
        }
        for one in report.points
    ]
    content: dict[str, Any] = {"served": dict(report.served), "points": points}
    if report.unknown:
        content["unknown"] = [{**one._asdict(), "at": int(one.at.timestamp())} for one in report.unknown]
    if report.denied:
        content["denied"] = [{**one._asdict(), "at": int(one.at.timestamp())} for one in report.denied]
    if report.keys:
        content["keys"] = [[one.key_id, one.reason, int(one.at.timestamp())] for one in report.keys]
    for name, moment in (("unheardUntil", report.unheard_until), ("logsSince", report.logs_since)):
        if moment is not None:
            content[name] = int(moment.timestamp())
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _unknown(entry: Mapping[str, Any]) -> UnknownKid:
    return UnknownKid(str(entry["provider"]), str(entry["kid"])[:MAX_KID], datetime.fromtimestamp(entry["at"], UTC))


def _denied(entry: Mapping[str, Any]) -> Denied:
    at = datetime.fromtimestamp(entry["at"], UTC)
    return Denied(str(entry["account"]), str(entry["client"])[:MAX_CLIENT], str(entry["reason"]), at)


def _use(entry: Sequence[Any]) -> KeyUse:
    key_id, reason, at = entry
    return KeyUse(str(key_id)[:MAX_KID], str(reason)[:MAX_REASON], datetime.fromtimestamp(at, UTC))


def _moment(content: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(content[name], UTC) if name in content else None


def _point(entry: Mapping[str, Any]) -> Point:
    return Point(
        str(entry["uid"]),
        str(entry["pod"]),
        str(entry["account"]),
        {kind: str(entry["revisions"][kind]) for kind in KINDS if kind in entry["revisions"]},
        {kind: int(entry["serials"][kind]) for kind in KINDS if kind in entry["serials"]},
        tuple(str(one) for one in entry["keys"]),
        datetime.fromtimestamp(entry["until"], UTC),
        datetime.fromtimestamp(entry["at"], UTC),
    )
