"""Conditional requests: our entity tags, what If-None-Match says a client has, and how long Prefer asks to wait.

Sources: RFC 9110 §8.8.3 and §13.1.2, RFC 7240, and OPA's `v1/download/download.go` for what it sends.
"""

import re
from dataclasses import dataclass
from typing import Self

KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
CONTENT_HASH = re.compile(r"[0-9a-f]{64}")
LONGEST_WAIT = 60.0  # seconds
_MOST_TAGS = 64
_TAG = re.compile(rf"({KEY_ID.pattern})\.([0-9]{{1,18}})\.({CONTENT_HASH.pattern})\.([0-9]{{1,18}})")
_WAIT = re.compile(r'(?:^|[;,\s])wait\s*=\s*"?([0-9]{1,9})"?\s*(?:$|[;,\s])', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tag:
    """What an ETag of ours says: `"<key id>.<serial>.<content hash>.<epoch>"`."""

    key_id: str
    serial: int
    content_hash: str
    epoch: int

    def __str__(self) -> str:
        return f'"{self.key_id}.{self.serial}.{self.content_hash}.{self.epoch}"'

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read one entity tag, weak or strong, with or without its quotes; None when it is not one of ours."""
        text = text.strip()
        text = text[2:] if text[:2] in ("W/", "w/") else text
        found = _TAG.fullmatch(text.strip('"'))
        return cls(found[1], int(found[2]), found[3], int(found[4])) if found else None


@dataclass(frozen=True, slots=True)
class Known:
    """What a client says it has: tags of ours, and with `anything` whatever is there now (`If-None-Match: *`)."""

    tags: frozenset[Tag] = frozenset()
    anything: bool = False

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read If-None-Match; what is not a tag of ours, and all after the 64th, counts for nothing."""
        members = [member.strip() for member in header.split(",", _MOST_TAGS)[:_MOST_TAGS]]
        tags = frozenset(tag for tag in map(Tag.parse, members) if tag is not None)
        return cls(tags, "*" in members)

    def lacks(self, current: Tag) -> bool:
        """Whether the client should get `current`: never when it has seen a higher serial, with whatever key."""
        if any(tag.serial > current.serial for tag in self.tags):
            return False
        same = (tag for tag in self.tags if _content(tag) == _content(current))
        return not any(tag.epoch >= current.epoch for tag in same)


def _content(tag: Tag) -> tuple[str, int, str]:
    return tag.key_id, tag.serial, tag.content_hash


def wait_of(prefer: str) -> float:
    """Seconds that `Prefer` asks to wait for something new, at most 60; 0 without a readable `wait`."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), LONGEST_WAIT) if found else 0.0
