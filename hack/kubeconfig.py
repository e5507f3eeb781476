"""Reading and writing kubeconfig files."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hack.certificates import Credential


class KubeconfigError(Exception):
    """The file cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Access:
    """What a kubeconfig's current context gives; `credential` is None where the user has no client certificate."""

    url: str
    authority: bytes
    credential: Credential | None


def render(name: str, url: str, authority: bytes, credential: Credential) -> str:
    """A kubeconfig that needs no other file; `name` is its context."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority-data": _encode(authority)}}],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": _encode(credential.certificate),
                        "client-key-data": _encode(credential.key),
                    },
                }
            ],
        },
        sort_keys=False,
    )


def context(file: Path) -> str | None:
    """The current context's name; None when the file is no kubeconfig."""
    try:
        document = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return document.get("current-context") if isinstance(document, dict) else None


def read(file: Path) -> Access:
    """The access that the current context of `file` gives. Raises KubeconfigError."""
    try:
        document = yaml.safe_load(file.read_text())
        chosen = _named(document, "context", document["current-context"])
        cluster = _named(document, "cluster", chosen["cluster"])
        user = _named(document, "user", chosen["user"])
        authority = _content(file, cluster, "certificate-authority")
        certificate = _content(file, user, "client-certificate")
        key = _content(file, user, "client-key")
        url = str(cluster["server"])
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise KubeconfigError(f"{file} is not a usable kubeconfig: {error!r}") from error
    if authority is None:
        raise KubeconfigError(f"{file}: the cluster of its current context has no certificate authority")
    return Access(url, authority, Credential(certificate, key) if certificate and key else None)


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    for entry in document[f"{kind}s"]:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry[kind]
            return found
    raise KeyError(f"no {kind} named {name!r}")


def _content(file: Path, entry: Mapping[str, Any], key: str) -> bytes | None:
    """The value behind `key`, which is either inline or in a file named relative to the kubeconfig."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    if name := entry.get(key):
        return (file.parent / str(name)).read_bytes()
    return None


def _encode(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
