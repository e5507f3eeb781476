"""Finds the parts of an SVID in what a person has at hand: a Secret, its manifest, or the mounted files."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import click
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from zerotrust.pki.conformance import (
    UnreadableInput,
    UnusableBundle,
    is_authority,
    quote,
    read_certificates,
    read_private_key,
    x509_authorities,
)
from zerotrust.pki.secret import AUTHORITIES, CERTIFICATE, PRIVATE_KEY, SPIFFE_BUNDLE

STDIN = "-"
# Some 5,000 Secrets; what does not fit is no manifest.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class SvidParts:
    """What can be judged together; `name` is what a person calls it."""

    name: str
    chain: tuple[x509.Certificate, ...]
    bundle: tuple[x509.Certificate, ...]
    private_key: PrivateKeyTypes | None = None
    spiffe_bundle: bytes | None = None


@dataclass(frozen=True)
class NamedBytes:
    """A file's or a field's content, and what messages call it."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Given:
    """The parts of one SVID that were given by themselves; those beside a Secret replace its own."""

    certificate: NamedBytes | None = None
    bundle: NamedBytes | None = None
    private_key: NamedBytes | None = None
    spiffe_bundle: NamedBytes | None = None

    def assemble(self, name: str) -> SvidParts:
        """Read the parts. Raises UnreadableInput for the first that cannot be, or that is missing."""
        if self.certificate is None:
            raise UnreadableInput(name, "there is no certificate; give one with --cert FILE")
        return SvidParts(
            name,
            read_certificates(self.certificate.name, self.certificate.content),
            self._authorities(name),
            read_private_key(self.private_key.name, self.private_key.content) if self.private_key else None,
            self.spiffe_bundle.content if self.spiffe_bundle else None,
        )

    def _authorities(self, name: str) -> tuple[x509.Certificate, ...]:
        if self.bundle is not None:
            return read_certificates(self.bundle.name, self.bundle.content)
        if self.spiffe_bundle is None:
            raise UnreadableInput(name, "there is no trust bundle; give one with --bundle or --spiffe-bundle FILE")
        try:
            return tuple(x509_authorities(self.spiffe_bundle.content))
        except UnusableBundle as error:
            raise UnreadableInput(self.spiffe_bundle.name, str(error)) from None


def read_input(path: str) -> NamedBytes:
    """Read a file, or standard input for `-`, up to the size that a manifest may have."""
    name = "standard input" if path == STDIN else click.format_filename(path)
    try:
        with click.open_file(path, "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UnreadableInput(name, f"{error.strerror}; give a file that exists and can be read") from None
    if len(content) > MAX_MANIFEST_BYTES:
        raise UnreadableInput(name, f"has more than {MAX_MANIFEST_BYTES} bytes")
    return NamedBytes(name, content)


def secret_name(secret: Mapping[str, object]) -> str:
    """What a message calls the Secret: `Secret <namespace>/<name>`."""
    metadata = secret.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    parts = [known[part] for part in ("namespace", "name") if isinstance(known.get(part), str)]
    name = "/".join(parts) or "without a name"
    return f"Secret {name if name.isascii() and name.isprintable() else quote(name)}"


def parts_of_secret(secret: Mapping[str, object], given: Given | None = None) -> SvidParts:
    """Read the SVID out of a Secret as the API server or a manifest has it (`data` in base64, `stringData` as text).

    A part in `given` replaces the Secret's. Raises UnreadableInput naming the Secret and the field.
    """
    given = given or Given()
    name = secret_name(secret)
    certificate = given.certificate or _field(secret, CERTIFICATE)
    if certificate is None:
        raise UnreadableInput(name, f"{CERTIFICATE} is missing; give a Secret that holds an SVID")
    return Given(
        certificate,
        given.bundle or _field(secret, AUTHORITIES),
        given.private_key or _field(secret, PRIVATE_KEY),
        given.spiffe_bundle or _field(secret, SPIFFE_BUNDLE),
    ).assemble(name)


def _field(secret: Mapping[str, object], key: str) -> NamedBytes | None:
    """One value, as the API server would merge it: `stringData` wins over `data`."""
    for section in ("stringData", "data"):
        values = secret.get(section)
        if not isinstance(values, Mapping) or key not in values:
            continue
        name = f'{secret_name(secret)}, {section}["{key}"]'
        value = values[key]
        if not isinstance(value, str):
            raise UnreadableInput(name, "is not text; quote it in the manifest")
        return NamedBytes(name, value.encode() if section == "stringData" else _decoded(name, value))
    return None


def _decoded(name: str, value: str) -> bytes:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableInput(name, "is not base64; encode it, or write it under stringData") from None


def secrets_in(manifest: NamedBytes) -> list[Mapping[str, object]]:
    """Every Secret of a YAML or JSON manifest: of all its documents, and of the lists in them; at least one."""
    secrets = [found for document in _documents(manifest) for found in _secrets_of(document)]
    if not secrets:
        raise UnreadableInput(manifest.name, "holds no Secret; give what `kubectl get secret NAME -o yaml` prints")
    return secrets


def _secrets_of(document: object) -> Iterable[Mapping[str, object]]:
    if not isinstance(document, Mapping):
        return []
    items = document.get("items")
    if isinstance(items, list):
        # The API server leaves kind out of the items of a SecretList.
        implied = {"kind": "Secret"} if document.get("kind") == "SecretList" else {}
        return [found for item in items if isinstance(item, Mapping) for found in _secrets_of({**implied, **item})]
    return [document] if document.get("kind") == "Secret" else []


def _documents(manifest: NamedBytes) -> list[object]:
    """Parse without ever repeating a line in a message: PyYAML would quote the one that it does not understand."""
    try:
        text = manifest.content.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            return [json.loads(text)]
        # Not libyaml's loader, which is faster: deep nesting overflows its stack and ends the process.
        return list(yaml.safe_load_all(text))
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}"
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = f"is not YAML{where}"
    except (yaml.YAMLError, ValueError, RecursionError):
        problem = "is not YAML"
    raise UnreadableInput(manifest.name, f"{problem}; give a Secret's manifest, PEM, or a SPIFFE bundle")


def recognise(files: Iterable[NamedBytes]) -> tuple[list[NamedBytes], Given]:
    """Sort files by what they hold: Secret manifests, and the parts of one SVID."""
    manifests: list[NamedBytes] = []
    parts: dict[str, NamedBytes] = {}
    for file in files:
        kinds = _kinds(file)
        if not kinds:
            manifests.append(file)
        for kind in kinds:
            if kind in parts:
                what, other = kind.replace("_", " "), parts[kind].name
                raise UnreadableInput(file.name, f"is a second {what} beside {other}; give one SVID at a time")
            parts[kind] = file
    return manifests, Given(**parts)


def _kinds(file: NamedBytes) -> list[str]:
    """Which fields of `Given` a file fills; none for a manifest, where PEM is indented or inside a JSON string."""
    blocks = [line for line in file.content.splitlines() if line.startswith(b"-----BEGIN ")]
    kinds = ["private_key"] if any(b"PRIVATE KEY" in line for line in blocks) else []
    if any(line.startswith(b"-----BEGIN CERTIFICATE") for line in blocks):
        first = read_certificates(file.name, file.content)[0]
        kinds.append("bundle" if is_authority(first) else "certificate")
    if kinds or not file.content.lstrip().startswith(b"{"):
        return kinds
    try:
        document = json.loads(file.content)
    except (ValueError, RecursionError):
        return []
    return ["spiffe_bundle"] if isinstance(document, dict) and "keys" in document and "kind" not in document else []
