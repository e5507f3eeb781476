"""Manifests from files, read as Kubernetes reads YAML, and refused where that would surprise."""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zerotrust.cli.svid_files import STDIN, NamedBytes, read_input
from zerotrust.common import naming
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.pki.conformance import UnreadableInput

VERSIONS = {
    "Namespace": "v1",
    "TrustDomain": naming.API_VERSION,
    "ServiceIdentity": naming.API_VERSION,
    "ApiKey": naming.API_VERSION,
    "TrustPolicy": naming.API_VERSION,
}
CLUSTER_SCOPED = ("Namespace", "TrustDomain", "ClusterIssuer")
SUFFIXES = (".yaml", ".yml", ".json")
MAX_VALUES, MAX_DEPTH = 1_000_000, 64  # of one document, aliases counted as often as they are used

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Body = dict[str, Any]


class UnreadableManifest(ZerotrustError):
    """What was given is no manifest; the message names the file, and the line or object where that is known."""


@dataclass(frozen=True)
class Manifest:
    """An object as somebody wrote it, and the place that it came from."""

    origin: str
    body: Body

    @property
    def ref(self) -> Ref:
        """Where the object is."""
        metadata = self.body["metadata"]
        return Ref(self.body["kind"], metadata.get("namespace", ""), metadata["name"])


class Loader(yaml.SafeLoader):
    """Reads YAML as Kubernetes does: a time is text, 22:00 is text and no number of base 60; a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"has {key.value!r} twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_NUMBERS = {
    "int": (re.compile(r"^(?:[-+]?0b[01]+|[-+]?0[0-7]*|[-+]?[1-9][0-9_]*|[-+]?0x[0-9a-fA-F]+)$"), "-+0123456789"),
    "float": (
        re.compile(r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", re.I),
        "-+0123456789.",
    ),
}
_OTHERWISE = {f"tag:yaml.org,2002:{name}" for name in (*_NUMBERS, "timestamp")}
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHERWISE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _NUMBERS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))


def read(paths: Iterable[str], default_namespace: str, versions: Mapping[str, str] = VERSIONS) -> list[Manifest]:
    """Read files, folders (not the folders in them) and `-`, standard input; kinds that decide nothing here are left out.

    `versions` are the kinds that do, each with its apiVersion. UnreadableManifest names the first that cannot be read, or an
    object that is there twice.
    """
    found: dict[Ref, Manifest] = {}
    for path in paths:
        for file in _files(path):
            given = _content(file)
            for body in documents(given.name, given.content, default_namespace, versions):
                manifest = Manifest(given.name, body)
                known = found.setdefault(manifest.ref, manifest)
                if known.body != body:
                    raise UnreadableManifest(
                        f"{given.name}: {manifest.ref} is there twice, also in {known.origin}; keep one"
                    )
    return list(found.values())


def _content(file: str) -> NamedBytes:
    try:
        return read_input(file)
    except UnreadableInput as error:
        raise UnreadableManifest(str(error)) from None


def _files(path: str) -> list[str]:
    if path == STDIN or not Path(path).is_dir():
        return [path]
    try:
        files = sorted(str(file) for file in Path(path).iterdir() if file.suffix in SUFFIXES and not file.is_dir())
    except OSError as error:
        raise UnreadableManifest(f"{path}: {error.strerror}") from None
    if not files:
        raise UnreadableManifest(f"{path}: has no file that ends in {', '.join(SUFFIXES)}")
    return files


def documents(
    name: str, content: bytes, default_namespace: str, versions: Mapping[str, str] = VERSIONS
) -> Iterator[Body]:
    """Yield the manifests of a YAML or JSON text that matter here, with their namespace filled in."""
    try:
        found = [_plain(one, [MAX_VALUES]) for one in yaml.load_all(content.decode("utf-8-sig"), Loader=Loader)]
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem if isinstance(error, yaml.constructor.ConstructorError) else "is no YAML"
        raise UnreadableManifest(f"{name}:{where} {problem}") from None
    except UnicodeDecodeError:
        raise UnreadableManifest(f"{name}: is not UTF-8 text") from None
    except _NotPlain as error:
        raise UnreadableManifest(f"{name}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UnreadableManifest(f"{name}: is no YAML") from None
    for document in found:
        for body in _items(name, document):
            if _matters(body, versions):
                yield _checked(name, body, default_namespace, versions)


def _matters(body: Any, versions: Mapping[str, str]) -> bool:
    """Whether a document is of a kind that was asked for; others use names such as Service and Job for their own kinds."""
    kind, version = (body.get("kind"), body.get("apiVersion")) if isinstance(body, dict) else (None, None)
    if not isinstance(kind, str):
        return True
    same_group = str(version).rpartition("/")[0] == versions.get(kind, "").rpartition("/")[0]
    return kind in versions and (same_group or kind in VERSIONS)


def _items(name: str, document: Any) -> list[Any]:
    if document is None:
        return []
    kind = document.get("kind") if isinstance(document, dict) else None
    if not (isinstance(kind, str) and kind.endswith("List")):
        return [document]
    items = document.get("items") or []
    if not isinstance(items, list):
        raise UnreadableManifest(f"{name}: items of a {kind} must be a list")
    return [one for one in items if one is not None]


def _checked(name: str, body: Any, default_namespace: str, versions: Mapping[str, str]) -> Body:
    """Return the manifest if it has what every object needs; the rest is up to the model of its kind."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("name"), str)
        or body.get("kind") not in tuple(versions)
    ):
        raise UnreadableManifest(f"{name}: every document needs kind and metadata.name")
    kind = body["kind"]
    title = f"{kind} {metadata['name']}"
    if body.get("apiVersion") != versions[kind]:
        raise UnreadableManifest(f"{name}: {title}: apiVersion must be {versions[kind]}")
    metadata = {key: value for key, value in metadata.items() if value is not None}
    if kind in CLUSTER_SCOPED:
        metadata.pop("namespace", None)
    else:
        metadata.setdefault("namespace", default_namespace)
    for field in ("name", "namespace"):
        value = metadata.get(field, "a")
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise UnreadableManifest(
                f"{name}: {title}: metadata.{field} must be of small letters, digits, hyphens and dots"
            )
    for field in ("labels", "annotations"):
        values = metadata.get(field, {})
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise UnreadableManifest(
                f"{name}: {title}: metadata.{field} must be texts; write true and numbers in quotes"
            )
    for field in ("spec", "status"):
        if body.get(field) is not None and not isinstance(body[field], dict):
            raise UnreadableManifest(f"{name}: {title}: {field} must be an object")
    return {**body, "metadata": metadata}


class _NotPlain(Exception):
    """A document is YAML but cannot be JSON, or only an unreasonably large one."""


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """Return a copy without shared parts; `left` counts down the values that it may still have."""
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise _NotPlain("is too large or too deep to be a manifest")
    match value:
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise _NotPlain("has a key that is no text; write it in quotes")
            return {key: _plain(one, left, depth + 1) for key, one in value.items()}
        case list():
            return [_plain(one, left, depth + 1) for one in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise _NotPlain("has a value that JSON does not know")
