"""How objects and lists are written into answers: in full, or metadata only, as the Accept header says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .refusals import Refused
from .resources import ResourceType
from .store import Page
from .versions import Version, encode

_JSON = ("application/json", "application/*", "*/*")
_METADATA = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"}


def wants_metadata_only(accept: str, verb: str) -> bool:
    """Whether the first acceptable clause asks for PartialObjectMetadata; 406 if no clause is acceptable.

    Tables and protobuf are skipped, so that a client which offers plain JSON as well gets that.
    """
    partial = "PartialObjectMetadataList" if verb == "list" else "PartialObjectMetadata"
    for clause in (accept or "*/*").split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media_type not in _JSON or given.get("as") not in (None, partial):
            continue
        if "as" not in given:
            return False
        if (given.get("g"), given.get("v")) == ("meta.k8s.io", "v1"):
            return True
    raise Refused(406, f"only application/json is available, not {accept}")


def whole(version: Version) -> bytes:
    return version.encoded


def metadata_only(version: Version) -> bytes:
    return encode({**_METADATA, "metadata": version.metadata})


def list_of(resource: ResourceType, page: Page, *, partial: bool) -> bytes:
    """One chunk of a LIST. Only the items of custom resources say of themselves what they are."""
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.token or (resource.custom and not partial):
        metadata["continue"] = page.token
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    if partial:
        head = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata}
        items = [metadata_only(version) for version in page.versions]
    else:
        head = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "metadata": metadata}
        items = [version.encoded if resource.custom else version.encoded_item for version in page.versions]
    return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def bookmark(resource: ResourceType, revision: int, *, partial: bool) -> bytes:
    kind: Mapping[str, str] = _METADATA if partial else {"apiVersion": resource.api_version, "kind": resource.kind}
    return encode({**kind, "metadata": {"resourceVersion": str(revision)}})
