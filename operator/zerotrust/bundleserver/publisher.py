"""From contents to the shelf: builds, signs, verifies and publishes what is recorded, and nothing else."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from zerotrust.bundleserver.shelf import Bundle, Kind, NotPublishable, Place, Shelf
from zerotrust.common.errors import ZerotrustError
from zerotrust.engine.cache import Change
from zerotrust.engine.contents import BundleContents, Content
from zerotrust.opabundle import archive
from zerotrust.opabundle.modules import modules
from zerotrust.opabundle.record import Entry
from zerotrust.opabundle.signing import SigningKey

logger = logging.getLogger(__name__)

TICK = 1.0
STEPS = 8  # times are moved on this often within a validity, so that a client is never far from fresh ones
REMEMBERED = 64

Keys = Callable[[], Mapping[str, SigningKey]]


class Publisher:
    """Keeps the shelf as the record says. `confirmed` is up to when this replica is known to miss nothing of a namespace."""

    def __init__(
        self,
        contents: BundleContents,
        shelf: Shelf,
        keys: Keys,
        confirmed: Callable[[str], datetime | None],
        instance: str,
    ) -> None:
        self._contents, self._shelf, self._keys = contents, shelf, keys
        self._confirmed, self._instance = confirmed, instance
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._serials: dict[tuple[str, Kind], OrderedDict[str, int]] = {}
        self._told = ""

    def changed(self, change: Change) -> None:
        """Look at the namespaces that a change is about."""
        concerned = self._contents.concerned(change)
        if concerned:
            self._due |= concerned
            self._wake.set()

    def serial_of(self, namespace: str, kind: Kind, revision: str) -> int:
        """The serial under which this replica has served a revision; 0 when it has not."""
        return self._serials.get((namespace, kind), OrderedDict[str, int]()).get(revision, 0)

    def namespaces(self) -> list[str]:
        """The namespaces that have bundles."""
        return self._contents.namespaces()

    def served(self, namespace: str) -> dict[Kind, Bundle]:
        """What is served for a namespace, whatever the key."""
        found = {}
        for key_id in self._keys():
            for kind in Kind:
                bundle = self._shelf.get(Place(key_id, namespace, kind))
                if bundle is not None:
                    found[kind] = bundle
        return found

    async def run(self) -> None:
        """Publish whatever is due, and everything once in a while because times move on; until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), TICK)
            except TimeoutError:
                self.everything_is_due()
            self._wake.clear()
            await self.publish_due()

    def everything_is_due(self) -> None:
        """Look at every namespace: times and keys change without any news."""
        self._due |= set(self._contents.namespaces())

    async def publish_due(self) -> None:
        """Publish what changes were about since the last time."""
        due, self._due = self._due, set()
        self._retire()
        for namespace in sorted(due):
            await self._publish(namespace)

    def _retire(self) -> None:
        """Serve nothing under keys that are gone, and nothing for namespaces without a record."""
        keys, namespaces = self._keys(), set(self._contents.namespaces())
        for place, _, _ in list(self._shelf.places()):
            if place.key_id not in keys or place.namespace not in namespaces:
                self._shelf.drop(place)

    async def _publish(self, namespace: str) -> None:
        recorded = self._contents.record(namespace)
        for kind in Kind:
            entry = recorded.get(kind.value)
            if entry is None or self._is_served(namespace, kind, entry):
                continue
            content = self._contents.content(namespace, kind.value)
            if content.revision != entry.revision:
                for key_id in self._keys():
                    self._shelf.hold(Place(key_id, namespace, kind), "this replica does not have what is recorded")
                continue
            await self._place(namespace, kind, entry, content)

    def _is_served(self, namespace: str, kind: Kind, entry: Entry) -> bool:
        """Whether what is recorded is served, with the newest times: then nothing need be computed, whatever has changed."""
        times = self._times(namespace, kind)
        if times is None:
            return False
        there = (self._shelf.get(Place(key_id, namespace, kind)) for key_id in self._keys())
        wanted = (entry.serial, entry.revision)
        return all(
            one is not None and (one.serial, one.content_hash) == wanted and one.epoch >= times[0] for one in there
        )

    async def _place(self, namespace: str, kind: Kind, entry: Entry, content: Content) -> None:
        times = self._times(namespace, kind)
        if times is None:
            return
        issued_at, not_after = times
        fresh = False
        for key_id, key in self._keys().items():
            place = Place(key_id, namespace, kind)
            there = self._shelf.get(place)
            if there is not None and (there.serial, there.epoch) >= (entry.serial, issued_at):
                continue
            try:
                body = await asyncio.to_thread(self._build, namespace, kind, entry, content, times, key)
                end = datetime.fromtimestamp(not_after, UTC)
                fresh |= self._shelf.publish(place, Bundle(entry.serial, entry.revision, issued_at, body, end))
            except (NotPublishable, ZerotrustError) as error:
                self._shelf.hold(place, str(error))
                if str(error) != self._told:
                    logger.error("bundle not published: %s", error, extra={"object": f"{namespace}/{kind}"})
                    self._told = str(error)
        if fresh:
            known = self._serials.setdefault((namespace, kind), OrderedDict())
            known[entry.revision] = entry.serial
            while len(known) > REMEMBERED:
                known.popitem(last=False)

    def _times(self, namespace: str, kind: Kind) -> tuple[int, int] | None:
        """When this content is confirmed, on a grid that all replicas share, and when it ceases to be believed."""
        confirmed = self._confirmed(namespace)
        if confirmed is None:
            return None
        validity: timedelta = self._contents.validity(namespace, kind.value)
        seconds = int(validity.total_seconds())
        grid = max(1, seconds // STEPS)
        issued_at = int(confirmed.timestamp()) // grid * grid
        return issued_at, issued_at + seconds

    def _build(
        self, namespace: str, kind: Kind, entry: Entry, content: Content, times: tuple[int, int], key: SigningKey
    ) -> bytes:
        """Build, sign, and read back as strictly as anybody could; only what passed is published."""
        meta = {
            "schema": 1,
            "serial": entry.serial,
            "revision": entry.revision,
            "issued_at": times[0],
            "not_after": times[1],
            "namespace": namespace,
        }
        document = {"zerotrust_data": {kind.value: {**content.document, "meta": meta}}}
        scope = archive.scope_of(self._instance, namespace, kind.value)
        body = archive.build(document, modules() if kind is Kind.POLICY else {}, scope, key)
        archive.read(body, {key.id: key.public}, scope)
        return body
