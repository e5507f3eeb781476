"""What the cache keeps of objects: trimmed, typed, frozen."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

from zerotrust.common import conditions, times
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.resource import Resource, parse

Spec = TypeVar("Spec", bound=Resource)
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of an object's metadata that decisions need."""

    ref: Ref
    uid: str
    resource_version: str
    generation: int
    created: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[Mapping[str, Any], ...]
    deleting: bool

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.ref.name

    @property
    def namespace(self) -> str:
        """Namespace of the object, empty for cluster-scoped kinds."""
        return self.ref.namespace

    @property
    def seniority(self) -> tuple[str, str]:
        """Sorts the older object first, then the lower uid."""
        return (times.render(self.created) if self.created else "9", self.uid)


@dataclass(frozen=True, slots=True)
class Plain:
    """An object of which only the metadata matters: Namespace, ServiceAccount."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class Own(Generic[Read]):
    """One of our own resources, with what was read of its spec.

    The status is kept as JSON: ten thousand parsed ones would cost the garbage collector more than reading them again.
    `ready` is the status and reason of its Ready condition, empty texts before there is one.
    """

    meta: Meta
    spec: Read
    status_json: str
    ready: tuple[str, str]

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it was last written; not to be changed, for whoever asks next sees the same."""
        return _read_status(self.status_json)

    @property
    def conditions(self) -> Sequence[Mapping[str, Any]]:
        """The conditions as they were last written; for transition times only, never for decisions."""
        return self.status.get("conditions") or ()


CustomResource = Own[Spec | SpecError]
"""`spec` is the parsed model, or the error that says why it cannot be used."""


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap with its data."""

    meta: Meta
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A NetworkPolicy with its spec as the API server has it."""

    meta: Meta
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ControllerRevision:
    """A ControllerRevision with its data, and with what was read of it."""

    meta: Meta
    revision: int
    data: Mapping[str, Any]
    reading: Any = None


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """An EndpointSlice: the addresses that are not known to be unready, and its numbered ports with their protocol."""

    meta: Meta
    addresses: tuple[str, ...]
    ports: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod by its labels and its ServiceAccount; `running` is False once it can never run again.

    `on_host` says that it uses its node's network, where no NetworkPolicy applies to it.
    """

    meta: Meta
    account: str
    running: bool
    on_host: bool = False


def meta_of(kind: str, body: Mapping[str, Any]) -> Meta:
    """Read an object's metadata."""
    metadata = body["metadata"]
    return Meta(
        ref=Ref(kind, sys.intern(metadata.get("namespace", "")), metadata["name"]),
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        created=times.parse_or_none(metadata.get("creationTimestamp")),
        labels=_interned(metadata.get("labels")),
        annotations=_interned(metadata.get("annotations")),
        owners=tuple(metadata.get("ownerReferences") or ()),
        deleting="deletionTimestamp" in metadata,
    )


def plain(kind: str, body: Mapping[str, Any]) -> Plain:
    """Keep the metadata only."""
    return Plain(meta_of(kind, body))


def config_map(body: Mapping[str, Any]) -> ConfigMap:
    """Keep a ConfigMap's metadata and data."""
    return ConfigMap(meta_of("ConfigMap", body), body.get("data") or {})


def network_policy(body: Mapping[str, Any]) -> NetworkPolicy:
    """Keep a NetworkPolicy's metadata and spec."""
    return NetworkPolicy(meta_of("NetworkPolicy", body), body.get("spec") or {})


def controller_revision(body: Mapping[str, Any], reading: Any = None) -> ControllerRevision:
    """Keep a ControllerRevision's metadata, number and data."""
    meta = meta_of("ControllerRevision", body)
    return ControllerRevision(meta, body.get("revision") or 0, body.get("data") or {}, reading)


def endpoint_slice(body: Mapping[str, Any]) -> EndpointSlice:
    """Keep an EndpointSlice's addresses and ports."""
    endpoints = body.get("endpoints") or ()
    serving = [one for one in endpoints if (one.get("conditions") or {}).get("ready") is not False]
    addresses = sorted({address for one in serving for address in one.get("addresses") or ()})
    ports = {(one["port"], one.get("protocol") or "TCP") for one in body.get("ports") or () if one.get("port")}
    return EndpointSlice(meta_of("EndpointSlice", body), tuple(addresses), tuple(sorted(ports)))


def pod(body: Mapping[str, Any]) -> Pod:
    """Keep of a Pod what tells whose it is: clusters have many, and they change often."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    kept = {
        name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion", "labels") if name in metadata
    }
    phase = (body.get("status") or {}).get("phase")
    account = sys.intern(spec.get("serviceAccountName") or "default")
    running, on_host = phase not in ("Succeeded", "Failed"), spec.get("hostNetwork") is True
    return Pod(meta_of("Pod", {"metadata": kept}), account, running, on_host)


def custom_resource(kind: str, model: type[Spec], body: Mapping[str, Any]) -> CustomResource[Spec]:
    """Parse one of our resources; a spec that cannot be used is kept as the error to report."""
    return own(kind, _parsed(model, json.dumps(body.get("spec") or {}, sort_keys=True)), body)


def own(kind: str, spec: Read, body: Mapping[str, Any]) -> Own[Read]:
    """Keep one of our resources with what was read of its spec."""
    status = body.get("status") or {}
    ready = conditions.find(status.get("conditions") or (), "Ready") or {}
    return Own(
        meta_of(kind, body),
        spec,
        json.dumps(status, separators=(",", ":")),
        (ready.get("status", ""), ready.get("reason", "")),
    )


@lru_cache(maxsize=64)
def _read_status(text: str) -> Mapping[str, Any]:
    """One reconcile asks several times."""
    status: Mapping[str, Any] = json.loads(text)
    return status


@lru_cache(maxsize=8192)
def _parsed(model: type[Spec], text: str) -> Spec | SpecError:
    """Parse a spec; equal specs, of which a cluster has thousands, share one model."""
    try:
        return parse(model, json.loads(text), "spec")
    except SpecError as error:
        return SpecError(error.path, error.message, error.reason)


_NOTHING: Mapping[str, str] = {}


def _interned(values: Mapping[str, str] | None) -> Mapping[str, str]:
    """Keep each key once for the whole process."""
    return {sys.intern(key): value for key, value in values.items()} if values else _NOTHING


def controller_uid(meta: Meta) -> str | None:
    """The uid of the object that controls this one, or None."""
    return next((owner.get("uid") for owner in meta.owners if owner.get("controller")), None)
