"""OPA's status reports (v1/plugins/status of OPA 1.22), reduced to what an acknowledgement needs."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from zerotrust.bundleserver import words
from zerotrust.bundleserver.caller import Caller
from zerotrust.bundleserver.conditional import KEY_ID
from zerotrust.bundleserver.refusals import Refused
from zerotrust.bundleserver.shelf import Bundle, Place

OK = ""
KEY_LABEL = "signing_key"
KEYS_REMEMBERED = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class BundleState:
    """What an OPA says of one bundle: the revision that it runs, an error code or nothing, the last activation."""

    active_revision: str
    error: str = OK
    activated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One status report. Who sent it comes from the token; `opa_id` is only what the sender calls itself.

    `key_ids` are the keys under whose paths this replica has served the pod in the last quarter of an hour, and the one
    that the report's label `signing_key` names: a pod that lies about it keeps an old key alive, as by asking for it.
    """

    pod: str
    pod_uid: str
    namespace: str
    service_account: str
    opa_id: str
    bundles: Mapping[str, BundleState]
    key_ids: frozenset[str]
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One bundle that a client may have got whole; without it a decision point that keeps silent would not be known."""

    caller: Caller
    place: Place
    serial: int
    content_hash: str
    epoch: int
    not_after: datetime
    delivered_at: datetime


class ReportSink(Protocol):
    """Takes what decision points report and get. Both return at once: they are called in the middle of a request."""

    def report(self, report: Report) -> None:
        """Take a report; the newest of a pod replaces the older ones."""

    def delivered(self, delivery: Delivery) -> None:
        """Take note that somebody is being sent the end of a bundle; told before, so that none is missed."""


@dataclass
class KeysInUse:
    """Which keys' paths each pod was served under lately; bounded, the pod that was quiet for longest goes first."""

    size: int = 20_000
    _seen: OrderedDict[str, dict[str, datetime]] = field(default_factory=OrderedDict)

    def note(self, pod_uid: str, key_id: str, now: datetime) -> None:
        """A pod was answered under a key's path."""
        if not pod_uid:
            return
        self._seen.setdefault(pod_uid, {})[key_id] = now
        self._seen.move_to_end(pod_uid)
        while len(self._seen) > self.size:
            self._seen.popitem(last=False)

    def of(self, pod_uid: str, now: datetime) -> frozenset[str]:
        """The keys that a pod has used within the last quarter of an hour."""
        seen = self._seen.get(pod_uid, {})
        return frozenset(key for key, at in seen.items() if now - at < KEYS_REMEMBERED)


def report_of(body: Any, caller: Caller, keys: frozenset[str], now: datetime, most: int) -> Report:
    """Read a status report of at most `most` bundles; Refused with 400 names the field that is wrong."""
    workload = caller.workload
    if not caller.pod_uid or workload is None:
        raise Refused(403, "pod_unknown", "reports must be sent with a ServiceAccount token that is bound to a pod")
    if not isinstance(body, Mapping):
        raise Refused(400, "malformed", "the report must be an object")
    bundles = body.get("bundles") or {}
    if not isinstance(bundles, Mapping) or len(bundles) > most:
        raise Refused(400, "malformed", f"bundles must be an object of at most {most} members")
    return Report(
        pod=caller.pod,
        pod_uid=caller.pod_uid,
        namespace=workload.namespace,
        service_account=workload.service_account,
        opa_id=words.revision(words.member(body.get("labels"), "id")),
        bundles=dict(_state(name, state) for name, state in bundles.items()),
        key_ids=keys | _named_key(body),
        received_at=now,
    )


def _named_key(body: Mapping[str, Any]) -> frozenset[str]:
    named = words.member(body.get("labels"), KEY_LABEL)
    return frozenset({named}) if isinstance(named, str) and KEY_ID.fullmatch(named) else frozenset()


def _state(name: str, state: Any) -> tuple[str, BundleState]:
    if not words.name(name):
        raise Refused(400, "malformed", "bundles: a member's name is no bundle name")
    if not isinstance(state, Mapping):
        raise Refused(400, "malformed", f"bundles.{name} must be an object")
    active = state.get("active_revision", "")
    if active and not words.revision(active):
        raise Refused(400, "malformed", f"bundles.{name}.active_revision must be a revision")
    failed = any(state.get(field) for field in ("code", "message", "errors", "http_code"))
    error = (words.code(state.get("code")) or "error") if failed else OK
    return name, BundleState(active or "", error, words.moment(state.get("last_successful_activation")))


def delivery_of(caller: Caller, place: Place, bundle: Bundle, now: datetime) -> Delivery:
    """The note that a bundle was sent."""
    return Delivery(caller, place, bundle.serial, bundle.content_hash, bundle.epoch, bundle.not_after, now)
