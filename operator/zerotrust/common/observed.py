"""What the cache keeps of objects: trimmed, typed, frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from zerotrust.common import times
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.resource import Resource, parse

Spec = TypeVar("Spec", bound=Resource)


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
class CustomResource(Generic[Spec]):
    """One of our own resources; `spec` is the parsed model, or the error that says why it cannot be used."""

    meta: Meta
    spec: Spec | SpecError
    status: Mapping[str, Any]

    @property
    def conditions(self) -> Sequence[Mapping[str, Any]]:
        """The conditions as they were last written; for transition times only, never for decisions."""
        return self.status.get("conditions") or ()


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap with its data."""

    meta: Meta
    data: Mapping[str, str]


def meta_of(kind: str, body: Mapping[str, Any]) -> Meta:
    """Read an object's metadata."""
    metadata = body["metadata"]
    return Meta(
        ref=Ref(kind, metadata.get("namespace", ""), metadata["name"]),
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        created=times.parse_or_none(metadata.get("creationTimestamp")),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        owners=tuple(metadata.get("ownerReferences") or ()),
        deleting="deletionTimestamp" in metadata,
    )


def plain(kind: str, body: Mapping[str, Any]) -> Plain:
    """Keep the metadata only."""
    return Plain(meta_of(kind, body))


def config_map(body: Mapping[str, Any]) -> ConfigMap:
    """Keep a ConfigMap's metadata and data."""
    return ConfigMap(meta_of("ConfigMap", body), body.get("data") or {})


def custom_resource(kind: str, model: type[Spec], body: Mapping[str, Any]) -> CustomResource[Spec]:
    """Parse one of our resources; a spec that cannot be used is kept as the error to report."""
    spec: Spec | SpecError
    try:
        spec = parse(model, body.get("spec") or {}, "spec")
    except SpecError as error:
        spec = error
    return CustomResource(meta_of(kind, body), spec, body.get("status") or {})


def controller_uid(meta: Meta) -> str | None:
    """The uid of the object that controls this one, or None."""
    return next((owner.get("uid") for owner in meta.owners if owner.get("controller")), None)
