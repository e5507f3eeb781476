"""The controller that decides about each ApiKey."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from zerotrust.apikey import lifecycle, records, secret, status
from zerotrust.apikey.key import KeyID, RandomBytes, digest, generate
from zerotrust.apikey.lifecycle import Contents, Decision
from zerotrust.apikey.resource import secret_name
from zerotrust.apikey.snapshot import Acknowledged, ApiKeySnapshot, Fingerprint, Lagging
from zerotrust.common import naming, times
from zerotrust.common.conditions import Condition, false, merge
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Delete, Plan, Touch
from zerotrust.common.requests import asked_at, unreadable
from zerotrust.engine.apikeybook import ApiKey, ApiKeyBook, record_namespace, record_ref
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Failure, Touched
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.keydesk import Desk
from zerotrust.engine.keyrecords import RECORD
from zerotrust.engine.keyuses import KeyUses
from zerotrust.opabundle.reports import SKEW
from zerotrust.pki.secret import ObservedSecret
from zerotrust.policy.survey import Survey, survey_ref
from zerotrust.trustdomain.reconcile import MAX_SKEW

SECRETS = "api-key-secrets-by-name"
LOOK_AGAIN, SURVEY_EVERY = timedelta(seconds=30), timedelta(seconds=10)
USED_EVERY = timedelta(hours=1)


@dataclass(frozen=True)
class Work:
    """An ApiKey with what a decision about it depends on; `view` is None where its spec cannot be used."""

    resource: ApiKey
    place: Ref
    view: ApiKeySnapshot | None
    there: ObservedSecret | None
    elsewhere: tuple[ObservedSecret, ...]
    survey: Survey | None = None


class ApiKeyController:
    """Decides about each ApiKey. Plaintexts are made here and leave for the Secret; nothing else ever sees one."""

    name = "ApiKey"

    def __init__(
        self,
        cache: Cache,
        book: ApiKeyBook,
        enforcement: Enforcement,
        operator_namespace: str,
        validity: Callable[[str], timedelta],
        skew: Callable[[], timedelta | None],
        desk: Desk,
        uses: KeyUses,
        random_bytes: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._cache, self._book, self._enforcement = cache, book, enforcement
        self._operator_namespace, self._validity, self._skew = operator_namespace, validity, skew
        self._desk, self._uses, self._random = desk, uses, random_bytes
        self._looked: set[Ref] = set()
        self._surveyed: dict[str, datetime] = {}
        cache.index(SECRETS, "Secret", lambda one: [_owner(one)])

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which ApiKeys a change makes due."""
        match change.ref.kind:
            case "ApiKey":
                yield Touched(change.ref)
            case "Secret":
                for owner in {_owner(one) for one in (change.old, change.new) if one is not None}:
                    if owner.name:
                        yield Touched(owner)
            case "Survey":
                yield from (Touched(ref) for ref in sorted(self._enforcement.waiting.get(change.ref.namespace, ())))
            case "ConfigMap":
                yield from self._remembered_otherwise(change)
                for namespace in self._enforcement.concerned(change):
                    yield from (Touched(ref) for ref in sorted(self._enforcement.waiting.get(namespace, ())))
                yield from map(Touched, self._used_otherwise(change))

    def _used_otherwise(self, change: Change) -> Iterator[Ref]:
        """ApiKeys of which decision logs tell something that their status does not."""
        if change.new is None or not change.ref.name.startswith(naming.REPORT_PREFIX):
            return
        for namespace in change.new.data:
            yield from self._uses.take(namespace, self._enforcement.key_uses(namespace))

    def _remembered_otherwise(self, change: Change) -> Iterator[Touched]:
        if change.ref.namespace != self._operator_namespace or naming.api_keys_shard(change.ref.name) is None:
            return
        old: ConfigMap | None = change.old
        new: ConfigMap | None = change.new
        before, after = (one.data if one is not None else {} for one in (old, new))
        changed = {uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}
        if changed:
            for one in self._book.api_keys(record_namespace(change.ref.name)):
                if one.meta.uid in changed:
                    yield Touched(one.meta.ref)

    def snapshot(self, ref: Ref) -> Work | None:
        """Collect what a decision needs."""
        resource: ApiKey | None = self._cache.get(ref)
        if resource is None or resource.meta.deleting:
            self._enforcement.waiting.get(ref.namespace, set()).discard(ref)
            return None
        spec = resource.spec
        if isinstance(spec, SpecError):
            return Work(resource, ref, None, None, ())
        place = Ref("Secret", ref.namespace, secret_name(spec, ref.name))
        named: ObservedSecret | None = self._cache.get(place)
        ours = [one for one in self._cache.find(SECRETS, ref) if secret.is_ours(one, ref.name)]
        there = named if named is not None and secret.is_ours(named, ref.name) else None
        elsewhere = tuple(one for one in ours if one.meta.ref != place)
        shown = there or next(iter(elsewhere), None)
        memories = self._book.memories(ref.namespace)
        memory = self._desk.lost.get(ref.namespace, {}).get(resource.meta.uid) or memories.get(resource.meta.uid)
        orphans = self._book.orphans(ref.namespace, ref.name) if memory is None else {}
        remembered = (memory,) if memory is not None else tuple(orphans.values())
        candidate = self._desk.candidates.get(resource.meta.uid)
        skew = self._skew()
        view = ApiKeySnapshot(
            spec=spec,
            uid=resource.meta.uid,
            name=ref.name,
            namespace=ref.namespace,
            memory=memory,
            candidate=Fingerprint(candidate.id, digest(candidate)) if candidate is not None else None,
            secret=secret.view(shown, remembered) if shown is not None else None,
            published=lambda key: self._enforcement.reach(ref.namespace, key),
            withdrawn=lambda key: self._enforcement.reach(ref.namespace, key, "revocations"),
            last_used=lambda key: self._last_used(resource, key),
            grace=self._validity(ref.namespace) + SKEW,
            now=_UNTIL_DECIDED,
            created=resource.meta.created,
            foreign=named is not None and there is None,
            orphans=orphans,
            room=records.has_room(self._book.shards(ref.namespace), resource.meta.uid),
            clock_agrees=skew is None or abs(skew) <= MAX_SKEW,
            logs_since=self._enforcement.logs_since(ref.namespace),
            annotated_rotation=asked_at(resource.meta, naming.ROTATE_REQUESTED),
            unreadable=tuple(unreadable(resource.meta, naming.ROTATE_REQUESTED)),
        )
        return Work(resource, place, view, there, elsewhere, self._cache.get(survey_ref(ref.namespace)))

    def _last_used(self, resource: ApiKey, key: KeyID) -> datetime | None:
        """What this process has heard; before it heard anything, what the status says of the key in use."""
        heard, told = self._uses.last.get(key), resource.status.get("lastUsedTime")
        if heard is None and told is not None and resource.status.get("keyID") == key:
            return times.parse(told)
        return heard

    def is_slow(self, snapshot: Work) -> bool:  # noqa: ARG002 - microseconds
        """Never."""
        return False

    def reconcile(self, snapshot: Work, now: datetime) -> Plan:
        """Decide; a fresh key is the only thing that comes into being here."""
        meta, observed = snapshot.resource.meta, snapshot.resource.status
        if snapshot.view is None:
            assert isinstance(snapshot.resource.spec, SpecError)
            return Plan(status=status.refused_status(snapshot.resource.spec, meta.generation, observed, now))
        view = replace(snapshot.view, now=now)
        if self._may_be_overlooked(snapshot, view):
            return Plan(refresh=(snapshot.place,), requeue_at=now)
        if self._desk.basis.get(meta.uid) == _basis(snapshot):
            return Plan(touches=(self._touch(view),))
        decision = lifecycle.decide(view)
        if decision.generate:
            fresh = self._desk.candidates[meta.uid] = generate(self._random)
            view = replace(view, candidate=Fingerprint(fresh.id, digest(fresh)))
            decision = lifecycle.decide(view)
        if self._await(snapshot, view, decision) and (look := self._look_around(view)):
            return look
        if decision.memory != view.memory:
            return self._remember(snapshot, view, decision)
        return self._carry_on(snapshot, view, decision)

    def _may_be_overlooked(self, snapshot: Work, view: ApiKeySnapshot) -> bool:
        """Whether the Secret may be there without our label, and so outside the watch: look once before calling it lost."""
        delivered = view.memory is not None and any(key.delivered is not None for key in view.memory.keys)
        if view.secret is not None or view.foreign or not delivered:
            self._looked.discard(snapshot.resource.meta.ref)
            return False
        if snapshot.resource.meta.ref in self._looked:
            return False
        self._looked.add(snapshot.resource.meta.ref)
        return True

    def _await(self, snapshot: Work, view: ApiKeySnapshot, decision: Decision) -> bool:
        """Note whether reports of decision points would be news to this ApiKey; tell whether it waits for some of them."""
        standing = decision.standing
        key = standing.pending or standing.current
        open_ends = [view.withdrawn(one.id) for one in standing.revoked]
        open_ends += [view.published(key.id)] if key is not None else []
        waiting = self._enforcement.waiting.setdefault(view.namespace, set())
        if all(isinstance(one, Acknowledged) for one in open_ends) and open_ends:
            waiting.discard(snapshot.resource.meta.ref)
        else:
            waiting.add(snapshot.resource.meta.ref)
        return any(isinstance(one, Lagging) for one in open_ends)

    def _look_around(self, view: ApiKeySnapshot) -> Plan | None:
        """Look whether the pods are there for which is waited; for all ApiKeys of a namespace once in a while."""
        last = self._surveyed.get(view.namespace)
        if last is not None and view.now < last + SURVEY_EVERY:
            return None
        self._surveyed[view.namespace] = view.now
        return Plan(refresh=(survey_ref(view.namespace),), requeue_at=view.now)

    def _remember(self, snapshot: Work, view: ApiKeySnapshot, decision: Decision) -> Plan:
        """Hand over to the record what is to be remembered; everything else comes once it is."""
        uid, namespace = snapshot.resource.meta.uid, view.namespace
        wanted = self._desk.wanted.setdefault(namespace, {})
        news = wanted.get(uid) != decision.memory
        if decision.memory is not None:
            wanted[uid] = decision.memory
        if decision.adopted is not None:
            self._desk.adopted.setdefault(namespace, {})[uid] = decision.adopted
        self._desk.basis[uid] = _basis(snapshot)
        return Plan(events=decision.events if news else (), touches=(self._touch(view),))

    def _touch(self, view: ApiKeySnapshot) -> Touch:
        pause = self._desk.pause(view.namespace, view.now)
        return Touch(RECORD, record_ref(self._operator_namespace, view.namespace), pause)

    def _carry_on(self, snapshot: Work, view: ApiKeySnapshot, decision: Decision) -> Plan:
        """Write the Secret, or else tell where things stand."""
        resource, now = snapshot.resource, view.now
        self._desk.basis.pop(resource.meta.uid, None)
        self._desk.wanted.get(view.namespace, {}).pop(resource.meta.uid, None)
        self._desk.adopted.get(view.namespace, {}).pop(resource.meta.uid, None)
        contents = decision.deliver or self._moved(snapshot, view)
        if contents is not None and view.memory is not None and not view.foreign:
            candidate = self._desk.candidates.get(resource.meta.uid)
            source = snapshot.there or next(iter(snapshot.elsewhere), None)
            apply = secret.write(snapshot.place, view.spec, view.name, view.memory, contents, candidate, source)
            return Plan(applies=(apply,), requeue_at=now)
        current = decision.standing.current
        if current is not None and view.candidate is not None and view.candidate.id == current.id:
            self._desk.candidates.pop(resource.meta.uid, None)
        lagging = snapshot.resource.meta.ref in self._enforcement.waiting.get(view.namespace, ())
        again = (decision.wake, now + LOOK_AGAIN if view.foreign else None, now + SURVEY_EVERY if lagging else None)
        plan = Plan(
            applies=self._kept(snapshot, view, decision),
            deletes=self._left_behind(snapshot, view, decision),
            events=decision.events,
            refresh=(snapshot.place,) if view.foreign else (),
            requeue_at=min((one for one in again if one is not None), default=None),
        )
        shown = replace(view, last_used=lambda key: self._shown_use(view, resource, key))
        told = status.status_of(shown, decision, resource.meta.generation, resource.status)
        if decision.quiet and told.get("revocation") == resource.status.get("revocation"):
            return plan
        misused = [key.id for key in view.memory.keys] if view.memory is not None else []
        return replace(plan, status=told, events=(*plan.events, *self._uses.of_keys(misused)))

    def _shown_use(self, view: ApiKeySnapshot, resource: ApiKey, key: KeyID) -> datetime | None:
        """The status follows once an hour."""
        used, told = view.last_used(key), resource.status.get("lastUsedTime")
        if used is None or told is None or used >= times.parse(told) + USED_EVERY:
            return used
        return min(used, times.parse(told))

    def _moved(self, snapshot: Work, view: ApiKeySnapshot) -> Contents | None:
        """What is to be written anew because the Secret has another name or format now."""
        held, memory = view.secret, view.memory
        if held is None or memory is None or held.current is None or memory.key(held.current.id) is None:
            return None
        wanted = secret.FORMATS[view.spec.delivery.format]
        if snapshot.there is not None and secret.format_of(snapshot.there) == wanted:
            return None
        previous = held.previous.id if held.previous is not None and memory.key(held.previous.id) else None
        return Contents(held.current.id, previous)

    def _kept(self, snapshot: Work, view: ApiKeySnapshot, decision: Decision) -> tuple[Apply, ...]:
        current, held = decision.standing.current, view.secret.current if view.secret is not None else None
        if current is None or held is None or snapshot.there is None or held.id != current.id:
            return ()
        return (secret.kept(snapshot.place, view.spec, view.name, current),)

    def _left_behind(self, snapshot: Work, view: ApiKeySnapshot, decision: Decision) -> tuple[Delete, ...]:
        """Secrets of this ApiKey under names that it had before, once the key is under the present one."""
        if snapshot.there is None or decision.standing.pending is not None or view.secret is None:
            return ()
        return tuple(Delete(one.meta.ref, one.meta.uid) for one in snapshot.elsewhere)

    def failed(self, snapshot: Work, failure: Failure, now: datetime) -> Plan:
        """Tell in the conditions that writing does not succeed."""
        if snapshot.view is None:
            return Plan()
        meta, observed, view = snapshot.resource.meta, snapshot.resource.status, replace(snapshot.view, now=now)
        told = status.status_of(view, lifecycle.decide(view), meta.generation, observed)
        found = (Condition(one["type"], one["status"], one["reason"], one["message"]) for one in told["conditions"])
        failed = false("Delivered", "WriteFailed", failure.message)
        said = [failed if one.type == failed.type else one for one in found]
        return Plan(status=told | {"conditions": merge(observed.get("conditions") or (), said, meta.generation, now)})

    def priority(self, ref: Ref) -> float:  # noqa: ARG002
        """After what is revoked and withdrawn, before leaves."""
        return -0.4


_UNTIL_DECIDED = datetime.min.replace(tzinfo=UTC)


def _basis(snapshot: Work) -> object:
    """What a decision was made of that waits to be remembered: until some of it changes, it would only be made again."""
    view, there = snapshot.view, snapshot.there
    version = there.meta.resource_version if there is not None else ""
    return (snapshot.resource.spec, version, view.memory if view is not None else None)


def _owner(one: ObservedSecret) -> Ref:
    """The ApiKey that a Secret says it is of."""
    return Ref("ApiKey", one.meta.namespace, one.meta.labels.get(naming.API_KEY, ""))
