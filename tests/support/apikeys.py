"""A small world for the life of API keys: an ApiKey, its record and Secret, decision points, clocks that differ, and crashes.

Decision points live by the true time; the controller lives by its own clock, which may be off. Nothing here is kept but what an
API server would keep, so that a restart of the controller loses what it really would.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from zerotrust.apikey import key as keys
from zerotrust.apikey.key import ApiKeyText, BadKey, KeyID, digest, parse
from zerotrust.apikey.lifecycle import Decision, decide
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.projection import key_records, revoked_keys
from zerotrust.apikey.records import RecordsSnapshot, adoptable, read, reconcile_records
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.snapshot import (
    Acknowledged,
    ApiKeySnapshot,
    Fingerprint,
    Lagging,
    NotServed,
    Reach,
    SecretView,
)
from zerotrust.apikey.status import status_of
from zerotrust.common.merge import without_nulls
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.resource import parse as parse_spec

START = datetime(2026, 6, 1, tzinfo=UTC)
VALIDITY = timedelta(hours=24)
SKEW = timedelta(seconds=30)
NAME = "partner-x"


def a_spec(**changes: Any) -> ApiKeySpec:
    """A spec as a user writes it, with some fields changed."""
    return parse_spec(ApiKeySpec, {"holder": {"name": "Partner X"}, "audience": ["orders"], **changes}, "spec")


def fixed_bytes(seed: str) -> keys.RandomBytes:
    """Bytes that look random and are the same in every run."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(size)

    return draw


def fingerprint(text: str | None) -> Fingerprint | None:
    """What the cache keeps of a plaintext in a Secret."""
    try:
        key = parse(text) if text is not None else None
    except BadKey:
        return None
    return Fingerprint(key.id, digest(key)) if key is not None else None


class Crash(Exception):
    """The controller dies."""


@dataclass
class Content:
    """What a bundle server serves: records of keys and revoked ids."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> set[str]:
        """The keys that may be accepted at some time."""
        return {key_id for key_id, record in self.records.items() if not record.get("suspended")}


@dataclass
class DecisionPoint:
    """An OPA: the content that it runs, from when, and what its last report says of it."""

    content: Content
    fetched: datetime
    reported: Content

    def is_fresh(self, now: datetime) -> bool:
        """Past the validity everything is denied."""
        return now < self.fetched + VALIDITY

    def accepts(self, text: str, now: datetime) -> bool:
        """Whether a key is accepted, by the rules of the evaluator as far as they are about keys alone."""
        found = fingerprint(text)
        record = self.content.records.get(found.id) if found is not None else None
        if found is None or record is None or not self.is_fresh(now) or found.id in self.content.revoked:
            return False
        in_time = record["not_before"] <= now.timestamp() < record["not_after"]
        return bool(record["hash"] == found.digest and in_time and not record.get("suspended"))


@dataclass
class Made:
    """A fresh key: why it was allowed to be made can be judged by what was there."""

    id: KeyID
    snapshot: ApiKeySnapshot


class World:
    """Everything there is, and what can happen to it."""

    def __init__(self, spec: ApiKeySpec | None = None, points: int = 2) -> None:
        self.now, self.offset = START, timedelta()
        self.shards: dict[str, dict[str, str]] = {}
        self.secret: dict[str, str] | None = None
        self.foreign = False
        self.uid: str | None = "uid-1"
        self.spec = spec or a_spec()
        self.status: dict[str, Any] = {}
        self.created = START
        self.candidates: dict[str, ApiKeyText] = {}
        self.used: dict[str, datetime] = {}
        self.logs_since: datetime | None = None
        self.annotated_rotation: datetime | None = None
        self.clock_is_watched = True
        self.served = Content()
        self.points = [DecisionPoint(Content(), START, Content()) for _ in range(points)]
        self.random = fixed_bytes("world")
        self.count, self.writes = 1, 0
        self.texts: dict[KeyID, str] = {}
        self.made: list[Made] = []
        self.shows, self.visible = False, list[str]()
        self.decision: Decision | None = None

    # --- what the controller sees ---

    @property
    def clock(self) -> datetime:
        """The time that the controller believes in."""
        return self.now + self.offset

    def config_maps(self) -> tuple[ConfigMap, ...]:
        """The record."""
        return tuple(
            config_map({"metadata": {"name": name, "namespace": "zerotrust-system", "uid": name}, "data": dict(data)})
            for name, data in sorted(self.shards.items())
        )

    @property
    def existing(self) -> set[str]:
        """The UIDs of the ApiKeys that there are."""
        return {self.uid} if self.uid is not None else set()

    @property
    def memory(self) -> Memory | None:
        """What is remembered of the ApiKey."""
        return read(self.config_maps()).get(self.uid or "")

    def content(self) -> Content:
        """What a bundle server that is up to date serves."""
        remembered = read(self.config_maps())
        mine = remembered.get(self.uid or "")
        records = key_records(mine, self.spec, lambda name: f"spiffe://example.org/{name}", str) if mine else {}
        return Content(records, revoked_keys(remembered.values()))

    def published(self, key_id: str) -> Reach:
        """How far a key's digest is."""
        return self._reach(
            key_id in self.served.records, [key_id in point.reported.records for point in self.points]
        )  # fmt: skip

    def withdrawn(self, key_id: str) -> Reach:
        """How far a revocation is."""
        return self._reach(
            key_id in self.served.revoked, [key_id in point.reported.revoked for point in self.points]
        )  # fmt: skip

    def _reach(self, served: bool, reported: list[bool]) -> Reach:
        lagging = tuple(f"opa-{number}" for number, one in enumerate(reported) if not one)
        return NotServed() if not served else Lagging(lagging) if lagging else Acknowledged()

    def snapshot(self) -> ApiKeySnapshot:
        """What a decision depends on now."""
        assert self.uid is not None
        remembered, fresh = read(self.config_maps()), self.candidates.get(self.uid)
        view = None
        if self.secret is not None:
            view = SecretView(
                fingerprint(self.secret.get("api-key")), fingerprint(self.secret.get("api-key-previous"))
            )  # fmt: skip
        return ApiKeySnapshot(
            spec=self.spec,
            uid=self.uid,
            name=NAME,
            namespace="shop",
            memory=remembered.get(self.uid),
            candidate=Fingerprint(fresh.id, digest(fresh)) if fresh is not None else None,
            secret=view,
            published=self.published,
            withdrawn=self.withdrawn,
            last_used=self.used.get,  # type: ignore[arg-type]
            grace=VALIDITY + SKEW,
            now=self.clock,
            created=self.created,
            foreign=self.foreign,
            orphans=adoptable(remembered, self.existing, NAME),
            clock_agrees=not self.clock_is_watched or abs(self.offset) <= SKEW,
            logs_since=self.logs_since,
            annotated_rotation=self.annotated_rotation,
        )

    # --- what the controller does ---

    def reconcile(self, dies_after: int | None = None) -> int:
        """Carry out one decision and return the number of writes; Crash after so many of them."""
        self.writes = 0
        try:
            for _ in self._steps():
                self.writes += 1
                if dies_after is not None and self.writes > dies_after:
                    raise Crash
        except Crash:
            self.restart()
        return self.writes

    def _steps(self) -> Iterator[None]:
        if self.uid is None:
            yield from self._write_record({}, {})
            return
        decision = self._decided()
        memory = decision.memory
        adopted = {self.uid: decision.adopted} if decision.adopted is not None else {}
        yield from self._write_record({self.uid: memory} if memory is not None else {}, adopted)
        if decision.deliver is not None:
            yield from self._write_secret(decision)
        snapshot = self.snapshot()
        status = status_of(snapshot, decision, 1, self.status)
        if self.shows:
            self.visible += [repr(decision), repr(snapshot), json.dumps(status), repr(snapshot.memory)]
        if status != self.status and not decision.quiet:
            self.status = status
            yield

    def _decided(self) -> Decision:
        assert self.uid is not None
        decision = decide(self.snapshot())
        if decision.generate:
            self.made.append(Made(KeyID(""), self.snapshot()))
            fresh = self.candidates[self.uid] = keys.generate(self.random)
            self.made[-1].id = fresh.id
            self.texts[fresh.id] = fresh.reveal()
            self.visible += [repr(fresh), str(self.candidates)]
            decision = decide(self.snapshot())
            assert not decision.generate, "a fresh key was not good enough"
        self.decision = decision
        return decision

    def _write_record(self, wanted: dict[str, Memory], adopted: dict[str, str]) -> Iterator[None]:
        plan = reconcile_records(
            RecordsSnapshot("zerotrust-system", "shop", self.config_maps(), wanted, self.existing, adopted), self.clock
        )
        for apply in plan.applies:
            name = apply.manifest["metadata"]["name"]
            before = self.shards.get(name, {})
            self.shards[name] = without_nulls({**before, **apply.manifest["data"]})
            self.visible.append(json.dumps(apply.manifest))
            if self.shards[name] != before:
                yield

    def _write_secret(self, decision: Decision) -> Iterator[None]:
        assert decision.deliver is not None
        assert not self.foreign, "somebody else's Secret is never written"
        fresh = self.candidates.get(self.uid or "")
        at_hand = {one.id: text for text in (self.secret or {}).values() if (one := fingerprint(text)) is not None}
        if fresh is not None:
            at_hand.setdefault(fresh.id, fresh.reveal())
        wanted = {"api-key": at_hand[decision.deliver.current]}
        if decision.deliver.previous is not None:
            wanted["api-key-previous"] = at_hand[decision.deliver.previous]
        if wanted != self.secret:
            self.secret = wanted
            yield

    def restart(self) -> None:
        """Another leader: what was only in memory is lost."""
        self.candidates.clear()

    # --- what happens to it ---

    def serve(self) -> None:
        """The bundle servers catch up."""
        self.served = self.content()

    def fetch(self, number: int, *, reports: bool = True) -> None:
        """A decision point gets what is served, and says so, unless its report is lost."""
        point = self.points[number % len(self.points)]
        point.content, point.fetched = self.served, self.now
        if reports:
            point.reported = point.content

    def delete(self) -> None:
        """Somebody deletes the ApiKey; its Secret stays."""
        self.uid, self.status = None, {}
        self.candidates.clear()

    def create(self) -> None:
        """Somebody creates it again."""
        if self.uid is None:
            self.count += 1
            self.uid, self.created = f"uid-{self.count}", self.now

    def edit(self, **changes: Any) -> None:
        """Somebody edits the spec."""
        written = self.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.spec = parse_spec(ApiKeySpec, {**written, **changes}, "spec")

    def rotation(self, **changes: Any) -> None:
        """Somebody edits spec.rotation."""
        written = self.spec.rotation.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.edit(rotation={**written, **changes})

    def settle(self, rounds: int = 12) -> None:
        """Nothing goes wrong for a while."""
        for _ in range(rounds):
            self.reconcile()
            self.serve()
            for number in range(len(self.points)):
                self.fetch(number)
            self.now += timedelta(seconds=1)

    @property
    def text(self) -> str | None:
        """The key that a consumer reads."""
        return self.secret.get("api-key") if self.secret is not None else None

    def held(self) -> KeyID | None:
        """Its id."""
        found = fingerprint(self.text)
        return found.id if found is not None else None
