"""When the API server is asked to enforce by itself: late enough, and then for ever."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.clock import FakeClock
from zerotrust.common.naming import Ref
from zerotrust.engine.admission import INSTALLATION, AdmissionBook, installation
from zerotrust.engine.apikeybook import ApiKeyBook
from zerotrust.engine.cache import Cache
from zerotrust.engine.constraints import TemplateController
from zerotrust.engine.pods import Pods
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.gatekeeper import observed, templates
from zerotrust.gatekeeper.templates import BINDING, IMAGES, TEMPLATES

AFTER = timedelta(seconds=45)
BINDING_TEMPLATE = TEMPLATES[BINDING]


class World:
    """A cache with Gatekeeper installed, and what the controller makes of it."""

    def __init__(self) -> None:
        self.cache, self.clock, self.version = Cache(), FakeClock(), 0
        book = PolicyBook(self.cache, TrustDomains(self.cache, "zerotrust-system"), self.clock)
        keys = ApiKeyBook(self.cache, "zerotrust-system", lambda _: None)
        pods = Pods(self.cache, watched=False)
        self.book = AdmissionBook(self.cache, book, keys, pods, self.clock, AFTER)
        self.controller = TemplateController(self.book)
        self.cache.put(installation(installed=True, version=1, at=self.clock.now()))
        assert self.cache.get(INSTALLATION) is not None

    def template(self, kind: str, *, created: bool = True, native: bool = False) -> None:
        self.version += 1
        body = dict(templates.manifest(TEMPLATES[kind].name, native=native))
        metadata = {**body["metadata"], "uid": kind, "resourceVersion": str(self.version), "generation": self.version}
        self.cache.put(observed.template({**body, "metadata": metadata, "status": {"created": created}}))

    def all_created(self) -> None:
        for kind in TEMPLATES:
            self.template(kind)

    def asks(self, kind: str = BINDING) -> bool:
        """Whether the API server would be asked now."""
        plan = self.controller.reconcile(self.snapshot(kind), self.clock.now())
        spec: dict[str, Any] = dict(plan.applies[0].manifest)["spec"]
        return templates.is_native(spec)

    def snapshot(self, kind: str) -> Any:
        found = self.controller.snapshot(Ref("ConstraintTemplate", "", TEMPLATES[kind].name))
        assert found is not None
        return found


def test_at_first_it_is_not_asked() -> None:
    assert not World().asks()


def test_it_is_asked_so_long_after_the_last_kind_was_made() -> None:
    world = World()
    world.all_created()
    world.clock.advance(AFTER - timedelta(seconds=1))
    assert not world.asks()
    plan = world.controller.reconcile(world.snapshot(BINDING), world.clock.now())
    assert plan.requeue_at == world.clock.now() + timedelta(seconds=1)
    world.clock.advance(timedelta(seconds=1))
    assert all(world.asks(kind) for kind in TEMPLATES)
    assert world.controller.reconcile(world.snapshot(BINDING), world.clock.now()).requeue_at is None


def test_one_that_is_missing_holds_up_all() -> None:
    world = World()
    world.all_created()
    world.template(IMAGES, created=False)
    world.clock.advance(2 * AFTER)
    assert not any(world.asks(kind) for kind in TEMPLATES)
    world.template(IMAGES)
    world.clock.advance(AFTER)
    assert all(world.asks(kind) for kind in TEMPLATES)


def test_what_was_asked_once_is_not_taken_back_by_a_restart_or_by_another_template() -> None:
    world = World()
    for kind in TEMPLATES:
        world.template(kind, native=True)
    assert all(world.asks(kind) for kind in TEMPLATES)
    world.cache.drop(Ref("ConstraintTemplate", "", TEMPLATES[IMAGES].name))
    assert world.asks(BINDING)
    assert not world.asks(IMAGES)


@pytest.mark.parametrize(
    "spec", [{}, {"targets": []}, {"targets": [{"code": [{"source": {}}]}]}], ids=["none", "empty", "unsaid"]
)
def test_what_does_not_say_so_does_not_ask(spec: dict[str, Any]) -> None:
    assert not templates.is_native(spec)


def test_the_shipped_texts_are_changed_in_nothing_else() -> None:
    one, other = (templates.manifest(BINDING_TEMPLATE.name, native=native) for native in (True, False))
    assert one != other
    assert one == templates.manifests()[BINDING_TEMPLATE.name]
    assert not templates.is_native(other["spec"])
