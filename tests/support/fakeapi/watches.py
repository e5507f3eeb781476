"""Open watch streams: what they deliver, and the ways in which they are held, cut and broken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from .refusals import Refused
from .resources import Object, ResourceType
from .selectors import Selection
from .store import Store
from .versions import Change, Version, encode

Encoder = Callable[[Version], bytes]


def event_line(kind: str, encoded: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + encoded + b"}\n"


class Stream:
    """One open watch. Changes are offered synchronously and written as fast as the client reads."""

    def __init__(
        self, resource: ResourceType, selection: Selection, encoder: Encoder, bookmark: Callable[[], bytes] | None
    ) -> None:
        self.resource = resource
        self.was_cut = False
        self.break_off: Callable[[], None] = lambda: None
        self._selection = selection
        self._encoder = encoder
        self._bookmark = bookmark
        self._pending: deque[Change | bytes] = deque()
        self._is_over = False
        self._is_held = False
        self._wake = asyncio.Event()

    def offer(self, item: Change | bytes) -> None:
        self._pending.append(item)
        self._wake.set()

    def hold(self) -> None:
        self._is_held = True

    def release(self) -> None:
        self._is_held = False
        self._wake.set()

    def end(self) -> None:
        """Finish cleanly after what is pending, as at a time-out."""
        self._is_over = True
        self._wake.set()

    def cut(self) -> None:
        """Break the connection off without another byte, even to a client that has stopped reading."""
        self.was_cut = True
        self.break_off()
        self._wake.set()

    def mark(self) -> None:
        """Put a bookmark behind what is pending, if the client asked for them."""
        if self._bookmark:
            self.offer(event_line("BOOKMARK", self._bookmark()))

    async def pump(self, write: Callable[[bytes], Awaitable[None]], timeout: float, bookmark_interval: float) -> None:
        """Write events until the stream is cut or ended, or `timeout` seconds are over, which a bookmark announces."""
        loop = asyncio.get_running_loop()
        deadline, next_mark = loop.time() + timeout, loop.time() + bookmark_interval
        while not self.was_cut:
            if not self._is_held and (lines := b"".join(self._lines())):
                await write(lines)
                continue
            if self._is_over and not self._is_held:
                return
            await self._sleep(None if self._is_held else min(deadline, next_mark))
            if self._is_held:
                continue
            if loop.time() >= deadline:
                self.mark()
                self.end()
            elif loop.time() >= next_mark:
                next_mark += bookmark_interval
                self.mark()

    async def _sleep(self, until: float | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            return

    def _lines(self) -> Iterable[bytes]:
        while self._pending:
            item = self._pending.popleft()
            if isinstance(item, bytes):
                yield item
            elif seen := item.seen_through(self._selection):
                yield event_line(seen[0], self._encoder(seen[1]))


class Watches:
    """All open streams of one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: set[Stream] = set()
        self._frozen: set[Stream] = set()
        self._held: set[ResourceType] = set()
        store.subscribe(self._deliver)

    def _deliver(self, change: Change) -> None:
        for stream in self._streams:
            if stream.resource == change.resource:
                stream.offer(change)
            elif change.after is None and not self._store.serves(stream.resource):
                stream.end()

    def open(
        self,
        resource: ResourceType,
        selection: Selection,
        since: int | None,
        encoder: Encoder,
        bookmark: Callable[[int], bytes] | None,
    ) -> Stream:
        """Start a stream after revision `since`, or with the present state (None).

        A revision that was compacted away makes it an ERROR event in the stream, not a refusal.
        """
        mark = (lambda: bookmark(self._store.revision)) if bookmark else None
        stream = Stream(resource, selection, encoder, mark)
        try:
            backlog: Iterable[Change] = (
                [Change(resource, version.revision, None, version) for version in self._store.all(resource)]
                if since is None
                else self._store.changes_since(resource, since)
            )
        except Refused as refusal:
            self.fail(stream, refusal.status)
            return stream
        for change in backlog:
            stream.offer(change)
        if resource in self._held:
            stream.hold()
        self._streams.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._frozen.discard(stream)

    def of(self, resource: ResourceType | None) -> list[Stream]:
        return [stream for stream in self._streams if resource is None or stream.resource == resource]

    def fail(self, stream: Stream, status: Object) -> None:
        """Send an ERROR event and end the stream."""
        stream.offer(event_line("ERROR", encode(status)))
        stream.end()

    def hold(self, resource: ResourceType) -> None:
        self._held.add(resource)
        for stream in self.of(resource):
            stream.hold()

    def release(self, resource: ResourceType) -> None:
        self._held.discard(resource)
        for stream in self.of(resource):
            stream.release()

    def freeze(self) -> None:
        """Deliver nothing more on any stream that is open now; they are no longer counted as open."""
        for stream in self._streams:
            stream.hold()
        self._frozen |= self._streams
        self._streams.clear()

    def cut_frozen(self) -> None:
        for stream in self._frozen:
            stream.cut()
        self._frozen.clear()

    def cut(self, resource: ResourceType | None = None) -> int:
        streams = self.of(resource)
        for stream in streams:
            stream.cut()
        return len(streams)
