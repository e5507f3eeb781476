"""Looks for API keys where none may be: in everything that API servers were asked to write, and in every file that tests left.

API servers of tests keep audit logs (`hack.controlplane.AUDIT_LOGS`) of every write with its body: objects, statuses, events,
reviews of tokens. The writes of Secrets in them tell which keys were ever made. A key counts as found where 27 consecutive
characters of its secret part stand in plain, as base64 at any alignment, or as hex; what is gzipped is unpacked first.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import audit

CONTROLLER = "zerotrust-operator/"  # how the controller and the bundle server call themselves
OPERATOR_NAMESPACE = "zerotrust-system"
WINDOW, STEP = 16, 12
BLOCK, OVERLAP = 1 << 24, 256

_KEY = re.compile(r"sk_([0-9A-Za-z]{12})\.([0-9A-Za-z_-]{43})[0-9a-f]{8}")
_RUN = re.compile(rb"[0-9A-Za-z+/_-]{%d,}" % (WINDOW + STEP - 1))
_GZIP = b"\x1f\x8b\x08"


class Keys:
    """Keys by the parts of their secrets, in every spelling in which they are looked for."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._windows: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add_from(self, text: str) -> bool:
        """Learn the keys in a text, which may be base64; tell whether there are any."""
        found = _KEY.findall(text) or _KEY.findall(_decoded(text))
        for key_id, secret in found:
            if key_id not in self.ids:
                self.ids.add(key_id)
                for spelling in _spellings(secret.encode()):
                    for start in range(len(spelling) - WINDOW + 1):
                        self._windows[spelling[start : start + WINDOW]] = key_id
        return bool(found)

    def within(self, content: bytes) -> set[str]:
        """The ids of the keys of which a part stands in `content`."""
        return {
            self._windows[window]
            for run in set(_RUN.findall(content))
            for start in range(0, len(run) - WINDOW + 1, STEP)
            if (window := run[start : start + WINDOW]) in self._windows
        }


@dataclass
class Search:
    """What was searched, and what was found: `leaks` name places and ids of keys, never a key."""

    keys: Keys = field(default_factory=Keys)
    told: set[str] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    writes: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def unseen(self) -> set[str]:
        """Ids that the controller has told as keys in use, and that no write of a Secret had: the search is blind to them."""
        return self.told - self.keys.ids

    def summary(self) -> str:
        """One line for a person."""
        place = f"{self.writes} writes and {self.files} files, {self.bytes / 2**20:.1f} MiB"
        return (
            f"{len(self.keys)} API keys looked for in {place}: found in {len(self.leaks)} places outside their Secrets"
        )


def search(folder: Path) -> Search:
    """Search every file below a folder, audit logs by what they are and all others as they stand."""
    done, logs, others = Search(), list[Path](), list[Path]()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            (logs if path.name == audit.AUDIT_LOG else others).append(path)
    for log in logs:
        for event in audit.writes(log):
            _learn(done, event)
    if not done.keys:
        return done
    for log in logs:
        for event in audit.writes(log):
            _judge(done, event)
    for path in others:
        done.files += 1
        found = set[str]()
        for content in _contents(path):
            done.bytes += len(content)
            found |= done.keys.within(content)
        if found:
            done.leaks.append(f"{path.relative_to(folder)}: {', '.join(sorted(found))}")
    return done


def _learn(done: Search, event: Mapping[str, Any]) -> None:
    """Take down the keys that a Secret got, and those that the controller says are in use."""
    reference, body = event.get("objectRef") or {}, event.get("requestObject")
    if reference.get("resource") == "secrets":
        has_keys = [done.keys.add_from(text) for text in _texts(body)]
        if any(has_keys) and reference.get("namespace") == OPERATOR_NAMESPACE:
            done.leaks.append(f"{_name(event)}: an API key in a Secret of the operator")
    elif reference.get("resource") == "apikeys" and event.get("userAgent", "").startswith(CONTROLLER):
        status = body.get("status") if isinstance(body, Mapping) else None
        key_id = status.get("keyID") if isinstance(status, Mapping) else None
        done.told |= {key_id} if isinstance(key_id, str) else set()


def _judge(done: Search, event: dict[str, Any]) -> None:
    """Look for keys in all of a write but the data of a Secret."""
    if (event.get("objectRef") or {}).get("resource") == "secrets":
        event = {**event, "requestObject": _without_data(event.get("requestObject"))}
    text = json.dumps(event).encode()
    done.writes += 1
    done.bytes += len(text)
    if found := done.keys.within(text):
        done.leaks.append(f"{_name(event)}: {', '.join(sorted(found))}")


def _without_data(body: Any) -> Any:
    """A Secret, or a patch of one, without what may hold a key."""
    if isinstance(body, Mapping):
        return {name: value for name, value in body.items() if name not in ("data", "stringData")}
    if isinstance(body, list):
        return [one for one in body if not _is_of_data(one)]
    return body


def _is_of_data(operation: Any) -> bool:
    """Whether an operation of a JSON patch writes the data of a Secret; tests send lists of other things too."""
    path = operation.get("path") if isinstance(operation, Mapping) else None
    return isinstance(path, str) and path.startswith(("/data", "/stringData"))


def _name(event: Mapping[str, Any]) -> str:
    """Which write it is, as far as that can be told without its body or path."""
    reference = event.get("objectRef") or {}
    resource = "/".join(reference[part] for part in ("resource", "subresource") if reference.get(part))
    place = "/".join(reference[part] for part in ("namespace", "name") if reference.get(part))
    return f"{event.get('verb')} {resource} {place} by {event.get('userAgent', '').partition(' ')[0]}"


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _contents(path: Path) -> Iterable[bytes]:
    """A file in overlapping blocks; a gzipped one as it stands and unpacked, as far as it can be."""
    content = path.read_bytes()
    yield from _blocks(content)
    if content.startswith(_GZIP):
        try:
            yield from _blocks(zlib.decompressobj(wbits=31).decompress(content))
        except zlib.error:
            return


def _blocks(content: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(content), 1), BLOCK):
        yield content[max(0, start - OVERLAP) : start + BLOCK]


def _spellings(secret: bytes) -> Iterator[bytes]:
    """A text in plain, in hex, and as the middle of a longer base64 text, which begins anywhere in a group of three."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret)
        inner = whole[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _decoded(text: str) -> str:
    """What a text stands for as base64; empty where it is none."""
    try:
        return base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
