"""What must outlive the controller about a provider's keys, in one ConfigMap: the keys themselves, and how far they reach.

It is written when decision points would be told something else, or people would; not whenever keys were confirmed. So after
a restart a fetch may look due that has been made: that is one conditional request.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Plan
from zerotrust.providers import lifecycle, publish
from zerotrust.providers.jwks import KeySet, UnusableKeys
from zerotrust.providers.lifecycle import Retired, State, Validators
from zerotrust.providers.tokens import Provider
from zerotrust.trustdomain.resource import IdentityProvider

JWKS, STATE = "jwks.json", "state.json"
VERSION = 1
TOLD_AFTER = 3  # failures in a row, about 15 seconds, before anybody is told while there are keys
_NO_KEYS = KeySet({}).text()
_TOLD = ("version", "source", "not_after", "retired", "message")


def place(operator_namespace: str, trust_domain: str, provider: str) -> Ref:
    """The ConfigMap of a provider; both names together can be longer than a name may be."""
    digest = hashlib.sha256(trust_domain.encode()).hexdigest()[:16]
    return Ref("ConfigMap", operator_namespace, f"{provider}.{digest}{naming.IDENTITY_PROVIDER_SUFFIX}")


def is_memory(observed: ConfigMap, operator_namespace: str) -> bool:
    """Tell whether a ConfigMap is a provider's; only those in the operator's namespace count."""
    ours = observed.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_IDENTITY_PROVIDER
    return ours and observed.meta.namespace == operator_namespace


def named(observed: ConfigMap | None) -> tuple[str, str] | None:
    """The trust domain and the provider that a ConfigMap says it is of."""
    if observed is None:
        return None
    annotations = observed.meta.annotations
    return annotations.get(naming.TRUST_DOMAIN, ""), annotations.get(naming.IDENTITY_PROVIDER, "")


def source_of(provider: IdentityProvider) -> str:
    """What keys were fetched from, as a hash: those of another issuer, address or certificate authority count for nothing."""
    parts = [provider.issuer, provider.jwks_uri, provider.ca_bundle]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def complaint(state: State) -> str:
    """What is to be told of failures: nothing while there are keys and it may be over in a moment."""
    return state.message if state.confirmed is None or state.failures >= TOLD_AFTER else ""


def restored(observed: ConfigMap | None, source: str) -> State:
    """The state as it was last written; the first one when there is none, or it is about another source or unreadable."""
    found = _read(observed, source)
    if observed is None or found is None:
        return State()
    try:
        state = State(
            validators=Validators(*(str(found[name]) for name in ("etag", "last_modified", "uri"))),
            failures=int(found["failures"]),
            message=str(found["message"]),
        )
        if found["confirmed"] is None:
            return state
        keys = publish.usable(observed.data[JWKS])
        gone = {kid: _moment(until) for kid, until in found["retired"].items() if kid in keys.keys}
        current = {kid: key for kid, key in keys.keys.items() if kid not in gone}
        confirmed, period = _moment(found["confirmed"]), timedelta(seconds=int(found["fresh_for"]))
        return State(
            keys=KeySet(current),
            retired={kid: Retired(keys.keys[kid], until) for kid, until in gone.items()},
            validators=state.validators,
            confirmed=confirmed,
            fresh_for=period,
            next_fetch=confirmed + period if not state.message else None,
            failures=state.failures,
            message=state.message,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UnusableKeys):
        return State()


def published(observed: ConfigMap | None, provider: IdentityProvider) -> Provider | None:
    """What decision points get of a provider whose keys are fetched; None while there are none of its present source."""
    found = _read(observed, source_of(provider))
    if observed is None or found is None:
        return None
    try:
        keys, end = publish.usable(observed.data[JWKS]), int(found["not_after"])
    except (KeyError, TypeError, ValueError, UnusableKeys):
        return None
    return publish.entry(provider, keys, end)


def reconcile_memory(
    ref: Ref, trust_domain: str, provider: IdentityProvider, state: State, observed: ConfigMap | None, now: datetime
) -> Plan:
    """Write the memory when it says something else to anybody; wake when a retired key ceases to be accepted."""
    if state.confirmed is None and not state.message:
        return Plan()
    wanted = _data(provider, state, now)
    wake = lifecycle.changes_at(state, now)
    if observed is not None and is_memory(observed, ref.namespace) and _substance(observed.data) == _substance(wanted):
        return Plan(requeue_at=wake)
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_IDENTITY_PROVIDER},
            "annotations": {naming.TRUST_DOMAIN: trust_domain, naming.IDENTITY_PROVIDER: provider.name},
        },
        "data": wanted,
    }
    return Plan(applies=(Apply(manifest, exact=("data",)),), requeue_at=wake)


def _data(provider: IdentityProvider, state: State, now: datetime) -> dict[str, str]:
    told, message = publish.fetched(provider, state, now), complaint(state)
    content = {
        "version": VERSION,
        "source": source_of(provider),
        "not_after": told.not_after if told is not None else 0,
        "confirmed": int(state.confirmed.timestamp()) if state.confirmed is not None else None,
        "fresh_for": int(state.fresh_for.total_seconds()),
        "etag": state.validators.etag,
        "last_modified": state.validators.last_modified,
        "uri": state.validators.uri,
        "retired": {kid: int(one.until.timestamp()) for kid, one in sorted(state.retired.items()) if now < one.until},
        "failures": state.failures if message else 0,
        "message": message,
    }
    return {JWKS: told.jwks if told is not None else _NO_KEYS, STATE: json.dumps(content, sort_keys=True)}


def _substance(data: Any) -> Any:
    """What of it is told to anybody: the rest follows from the next request anyway."""
    try:
        content = json.loads(data[STATE])
        return data[JWKS], [content[name] for name in _TOLD]
    except (KeyError, TypeError, ValueError):
        return None


def _read(observed: ConfigMap | None, source: str) -> dict[str, Any] | None:
    try:
        content = json.loads(observed.data[STATE]) if observed is not None else None
    except (KeyError, ValueError):
        return None
    right = isinstance(content, dict) and (content.get("version"), content.get("source")) == (VERSION, source)
    return content if right else None


def _moment(seconds: Any) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
