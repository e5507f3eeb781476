"""The controllers for Gatekeeper: templates first, and constraints once every Gatekeeper pod knows their template."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from zerotrust.common.naming import Ref
from zerotrust.common.observed import Plain
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.engine.admission import INSTALLATION, AdmissionBook, says_something_else
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.controller import Statusless, Touched
from zerotrust.gatekeeper import constraints
from zerotrust.gatekeeper.constraints import ConstraintsSnapshot
from zerotrust.gatekeeper.observed import Installation
from zerotrust.gatekeeper.templates import TEMPLATES

SOON = timedelta(milliseconds=100)
AT_MOST_EVERY = timedelta(seconds=1)
OF_EACH_ENTRY = timedelta(milliseconds=5)  # a write of 1,000 entries costs the API server a third of a second
PODS = timedelta(seconds=5)
GENERATED = tuple(Ref("ValidatingAdmissionPolicy", "", f"gatekeeper-{one.name}") for one in TEMPLATES.values())


class TemplateController(Statusless):
    """Installs the ConstraintTemplates where there is Gatekeeper, and keeps them; a key is a template's place."""

    name = "ConstraintTemplate"

    def __init__(self, book: AdmissionBook) -> None:
        self._book = book

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which templates a change makes due."""
        if change.ref == INSTALLATION or (change.ref.kind == self.name and says_something_else(change)):
            yield from (Touched(Ref(self.name, "", one.name)) for one in TEMPLATES.values())

    def snapshot(self, ref: Ref) -> Apply | None:
        """The template as it should be now."""
        template = next((one for one in TEMPLATES.values() if one.name == ref.name), None)
        return self._book.wanted_template(template) if self._book.installed and template is not None else None

    def reconcile(self, snapshot: Apply, now: datetime) -> Plan:
        """Decide; and look again once the API server may be asked to enforce by itself."""
        due = self._book.native_from
        return Plan(applies=(snapshot,), requeue_at=due if due is not None and due > now else None)


class LeftoverController(Statusless):
    """Removes the policies that Gatekeeper generated from our templates, when it went without them.

    Their paramKind is gone with Gatekeeper's CRDs, so the next API server that starts would refuse every write that they match.
    """

    name = "GeneratedPolicy"

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Gatekeeper's coming and going."""
        if change.ref == INSTALLATION:
            yield Touched(INSTALLATION)

    def snapshot(self, ref: Ref) -> tuple[Plain, ...] | None:
        """The policies that are known to be there; None where there is a Gatekeeper, whose they are."""
        found: Installation | None = self._cache.get(ref)
        if found is None or found.installed:
            return None
        policies = (self._cache.get(one) for one in GENERATED)
        return tuple(one for one in policies if one is not None)

    def reconcile(self, snapshot: tuple[Plain, ...], now: datetime) -> Plan:  # noqa: ARG002 - no time in it
        """Decide; pure. What is read and found makes this be decided anew."""
        return Plan(refresh=GENERATED, deletes=tuple(Delete(one.meta.ref, one.meta.uid) for one in snapshot))


class ConstraintController(Statusless):
    """Keeps the constraints about each namespace; a key is a kind of constraints and a namespace."""

    name = "Constraint"
    urgency = -0.1

    def __init__(self, book: AdmissionBook, clock: Clock) -> None:
        self._book, self._clock = book, clock
        self._not_before: dict[Ref, datetime] = {}

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which constraints a change makes due: by a single edit at once, by a wave of them once in a while."""
        if not self._book.installed:
            return
        kind = change.ref.kind
        if change.ref == INSTALLATION:
            yield from self._of(TEMPLATES, self._book.namespaces())
        elif kind in TEMPLATES:
            if says_something_else(change):
                yield from self._of([kind], self._book.namespaces_of(change))
        elif kind == "ConstraintTemplate":
            if says_something_else(change):
                kinds = [one.kind for one in TEMPLATES.values() if one.name == change.ref.name]
                yield from self._of(kinds, self._book.namespaces())
        else:
            yield from self._of(TEMPLATES, self._book.concerned(change), PODS if kind == "Pod" else SOON)

    def _of(self, kinds: Iterable[str], namespaces: Iterable[str], within: timedelta = SOON) -> Iterable[Touched]:
        now = self._clock.now()
        for ref in (Ref(kind, namespace, "") for namespace in namespaces for kind in kinds):
            yield Touched(ref, max(within, self._not_before.get(ref, now) - now))

    def snapshot(self, ref: Ref) -> ConstraintsSnapshot:
        """Collect what a decision needs."""
        return ConstraintsSnapshot(
            kind=ref.kind,
            namespace=ref.namespace,
            served=self._book.is_served(ref.kind),
            ready=not self._book.waits(ref.kind),
            entries=self._book.entries(ref.namespace),
            observed=tuple(self._book.constraints(ref.namespace, ref.kind)),
        )

    def reconcile(self, snapshot: ConstraintsSnapshot, now: datetime) -> Plan:
        """Decide; pure, but for noting when the next time may be."""
        ref = Ref(snapshot.kind, snapshot.namespace, "")
        if mine := sum(place.kind == snapshot.kind for place in snapshot.entries):
            self._not_before[ref] = now + max(AT_MOST_EVERY, mine * OF_EACH_ENTRY)
        else:
            self._not_before.pop(ref, None)
        return constraints.reconcile(snapshot)
