"""What is served: one immutable bundle for each key, namespace and kind, and who waits for its successor."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from zerotrust.bundleserver.conditional import CONTENT_HASH, KEY_ID, Known, Tag
from zerotrust.common.errors import ZerotrustError


class Kind(StrEnum):
    """The two bundles of a namespace."""

    POLICY = "policy"
    REVOCATIONS = "revocations"


class Place(NamedTuple):
    """Where a bundle stands: `/bundles/<key id>/<namespace>/<kind>`."""

    key_id: str
    namespace: str
    kind: Kind


class NotPublishable(ZerotrustError):
    """A bundle that would go back, contradict the one that is there, or has no place to stand."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signed archive as it goes over the wire, already verified by whoever publishes it.

    `serial` is the recorded order of contents, `content_hash` the SHA-256 in hex of the content without its times,
    `epoch` grows when the same content is signed again with later times, `not_after` is when it ceases to be believed.
    """

    serial: int
    content_hash: str
    epoch: int
    body: bytes
    not_after: datetime

    def tag(self, key_id: str) -> Tag:
        """Its entity tag at a key's place."""
        return Tag(key_id, self.serial, self.content_hash, self.epoch)


@dataclass(eq=False, slots=True)
class _Waiter:
    known: Known
    woken: asyncio.Future[None]


@dataclass(slots=True)
class _Slot:
    bundle: Bundle
    tag: Tag
    held: str = ""
    waiters: set[_Waiter] = field(default_factory=set)


class Shelf:
    """All bundles of one replica. Every method runs on the event loop's thread; none copies a body."""

    def __init__(self) -> None:
        self._slots: dict[Place, _Slot] = {}
        self._spread: float | None = None
        self._random = random.Random()  # noqa: S311 - spreads answers, guards no secret

    def publish(self, place: Place, bundle: Bundle) -> bool:
        """Put a bundle in its place and wake whoever waits there for it; False when it is there already.

        NotPublishable when serial or epoch would go back, or when the same serial stands there with another content: a
        replica that lags calls `hold` instead.
        """
        _check(place, bundle)
        slot, tag = self._slots.get(place), bundle.tag(place.key_id)
        if slot is None:
            self._slots[place] = _Slot(bundle, tag)
            return True
        if bundle.serial == slot.bundle.serial and bundle.content_hash != slot.bundle.content_hash:
            raise NotPublishable(f"{_named(place)}: serial {bundle.serial} already names another content")
        if (bundle.serial, bundle.epoch) < (slot.bundle.serial, slot.bundle.epoch):
            raise NotPublishable(
                f"{_named(place)}: {bundle.serial}.{bundle.epoch} is older than"
                f" {slot.bundle.serial}.{slot.bundle.epoch}, which is being served"
            )
        slot.held = ""
        if tag == slot.tag:
            return False
        slot.bundle, slot.tag = bundle, tag
        for waiter in slot.waiters:
            if waiter.known.lacks(tag):
                _wake(waiter.woken)
        return True

    def hold(self, place: Place, reason: str) -> None:
        """Say why a place does not get the newest content; it serves what it has until the next `publish`."""
        if place in self._slots:
            self._slots[place].held = reason

    def drop(self, place: Place) -> None:
        """Serve nothing there any more; whoever waits there is told."""
        slot = self._slots.pop(place, None)
        for waiter in slot.waiters if slot else ():
            _wake(waiter.woken)

    def retire(self, key_id: str) -> int:
        """Drop every place of a key; returns how many there were."""
        gone = [place for place in self._slots if place.key_id == key_id]
        for place in gone:
            self.drop(place)
        return len(gone)

    def get(self, place: Place) -> Bundle | None:
        """The bundle that stands there now."""
        slot = self._slots.get(place)
        return slot.bundle if slot else None

    async def wait(self, place: Place, known: Known, seconds: float) -> None:
        """Return when the place has something that the client lacks or is gone, after `seconds`, or when let go."""
        slot = self._slots.get(place)
        if slot is None or known.lacks(slot.tag):
            return
        loop = asyncio.get_running_loop()
        waiter = _Waiter(known, loop.create_future())
        limit = seconds if self._spread is None else min(seconds, self._random.uniform(0, self._spread))
        timer = loop.call_later(limit, _wake, waiter.woken)
        slot.waiters.add(waiter)
        try:
            await waiter.woken
        finally:
            timer.cancel()
            slot.waiters.discard(waiter)

    def let_go(self, seconds: float) -> None:
        """Send everybody who waits, and whoever still comes, home within so many seconds, evenly spread."""
        self._spread = seconds
        loop = asyncio.get_running_loop()
        for slot in self._slots.values():
            for waiter in slot.waiters:
                loop.call_later(self._random.uniform(0, seconds), _wake, waiter.woken)

    def waiting(self, place: Place | None = None) -> int:
        """How many wait, at one place or at all."""
        slots = self._slots.values() if place is None else filter(None, [self._slots.get(place)])
        return sum(len(slot.waiters) for slot in slots)

    def places(self) -> Iterator[tuple[Place, Bundle, str]]:
        """Every place, what stands there, and why it is held, if it is."""
        for place, slot in self._slots.items():
            yield place, slot.bundle, slot.held


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _check(place: Place, bundle: Bundle) -> None:
    if not KEY_ID.fullmatch(place.key_id):
        raise NotPublishable(f"key id {place.key_id[:70]!r}: write letters, digits, dashes and underscores, at most 63")
    if not CONTENT_HASH.fullmatch(bundle.content_hash):
        raise NotPublishable(f"{_named(place)}: the content hash is not a SHA-256 in lower hex")
    if bundle.serial < 0 or bundle.epoch < 0 or max(bundle.serial, bundle.epoch) >= 10**18:
        raise NotPublishable(f"{_named(place)}: serial and epoch must be 0 or more and have at most 18 digits")
    if not bundle.body:
        raise NotPublishable(f"{_named(place)}: an empty body would clear the client's bundle")


def _named(place: Place) -> str:
    return f"{place.key_id}/{place.namespace}/{place.kind}"
