"""The life of one identity, simulated: whatever happens to it, it always has a good certificate and never too many."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import (
    NOW,
    FixedEntropy,
    Identity,
    a_key_ring,
    a_record,
    a_trust_domain,
    a_view,
    an_authority,
    an_identity,
    an_identity_snapshot,
    days,
    hours,
    seconds,
    with_status,
)
from tests.support.examples import examples
from tests.support.strategies import mostly
from tests.support.world import World
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.identity.reconcile import reconcile
from zerotrust.pki import secret
from zerotrust.pki import x509 as profiles
from zerotrust.trustdomain.authority import Authority, Record

PLACE = Ref("Secret", "shop", "orders-svid")
USUAL = {"duration": "24h", "renewBeforePercentage": 33}


@dataclass
class Life:
    """One identity with its Secret; `allowed` is how many certificates time and deeds have given a reason for."""

    authority: Authority
    certificate: dict[str, Any] = field(default_factory=lambda: dict(USUAL))
    now: datetime = NOW
    allowed: float = 1

    def __post_init__(self) -> None:
        self.world, self.entropy = World(), FixedEntropy()
        self.record: Record = a_record(self.authority)
        self.ring = a_key_ring(self.authority)
        self.rotation: datetime | None = None
        self.paused = False
        self.generation = 1
        self.identity: Identity = self._as_written()
        self.domain = a_trust_domain(identities={"keyAlgorithms": ["ECDSA-P256", "ECDSA-P384"]})
        self.plan = Plan()

    def _as_written(self) -> Identity:
        return an_identity(
            generation=self.generation,
            certificate=self.certificate,
            issuance="Paused" if self.paused else "Active",
            rotation={} if self.rotation is None else {"requestedAt": f"{self.rotation:%Y-%m-%dT%H:%M:%SZ}"},
        )

    @property
    def lifetime(self) -> timedelta:
        """How long a certificate that is not cut short lives."""
        return {"1h": hours(1), "24h": hours(24), "720h": days(30)}[self.certificate["duration"]]

    def _pass(self, until: datetime) -> None:
        """Let the time pass; no certificate is renewed earlier than half its time before the threshold."""
        shortest = self.lifetime * (100 - self.certificate["renewBeforePercentage"]) / 100 / 2
        self.allowed += max(until - self.now, timedelta()) / shortest
        self.now = until

    # --- what happens ---

    def edit(self, **changes: Any) -> None:
        """Somebody edits the spec."""
        self.certificate = {**self.certificate, **changes}
        self._edited()

    def rotate(self, moment: datetime) -> None:
        self.rotation = moment
        self._edited()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self._edited()

    def _edited(self) -> None:
        self.generation += 1
        self.allowed += 1
        self.identity = with_status(self._as_written(), Plan(status=self.identity.status))

    def lose_secret(self) -> None:
        self.world.drop(PLACE)
        self.allowed += 1

    def corrupt(self, key: str) -> None:
        if PLACE in self.world.bodies:
            self.world.patch(PLACE, {"data": {key: secret.encode(b"nonsense")}})
        self.allowed += 1

    def new_authority(self, authority: Authority) -> None:
        self.authority = authority
        self.record = self.record.activated(authority)
        self.ring = a_key_ring(self.authority)
        self.allowed += 1

    def set_clock(self, by: timedelta) -> None:
        """Somebody sets the clock, or the machine was suspended."""
        self.now += by
        # What was issued by a clock that was ahead may outlast the authority or the spec, what was left behind may be over.
        self.allowed += 1

    # --- and what the controller does about it ---

    def look(self) -> None:
        """One reconcile, and everything that must hold after it."""
        snapshot = an_identity_snapshot(
            self.identity,
            view=a_view(self.domain, self.record),
            secret=self.world.secret(PLACE.namespace, PLACE.name),
        )
        self.plan = reconcile(snapshot, self.now, self.ring, self.entropy)
        self.identity = self.world.carry_out(self.identity, self.plan)
        self._check()

    def _check(self) -> None:
        wake = self.plan.requeue_at
        assert wake is None or wake > self.now
        usable = self.authority.usable(self.now) and not self.paused
        observed = self.world.secret(PLACE.namespace, PLACE.name)
        facts = observed.certificate if observed is not None else None
        if usable:
            assert facts is not None
            assert facts.key_matches
            assert self.now < facts.not_after <= self.authority.not_after
            roots = profiles.read_pem(self.world.value(PLACE, "ca.crt"))
            profiles.verify_chain(facts.chain(), roots, max(self.now, facts.not_before))
            assert self.ready == "True"
        if facts is not None and facts.not_after > self.now:
            assert wake is not None, "somebody looks at the latest when it ends"
            assert wake <= facts.not_after
        elif not usable:
            assert self.ready == "False"
        assert self.world.issues <= self.allowed, "no more than time and deeds give a reason for"

    @property
    def ready(self) -> str:
        return self.identity.ready[0]

    def sleep(self, until: datetime) -> None:
        """Let time pass, with a look at each time that a plan has asked for."""
        looks = 0
        while self.plan.requeue_at is not None and self.plan.requeue_at <= until:
            self._pass(self.plan.requeue_at)
            self.look()
            looks += 1
            assert looks < 10_000, "a tight loop"
        self._pass(max(self.now, until))


def test_a_quiet_year() -> None:
    life = Life(an_authority(not_after=NOW + days(900)))
    life.look()
    life.sleep(NOW + days(365))
    between = days(365) / life.world.issues
    assert hours(24 * 0.67 - 1.7) < between < hours(24 * 0.67), "renewed at two thirds, or a little earlier"
    assert len(life.world.writes) == 2 * life.world.issues, "two writes for each certificate, and none between"


def test_the_last_year_of_an_authority() -> None:
    life = Life(an_authority(not_after=NOW + days(365)), {"duration": "720h", "renewBeforePercentage": 33})
    life.look()
    life.sleep(NOW + days(366))
    assert life.ready == "False"
    assert life.world.issues < 365 / (30 * 0.67 * 0.8)
    assert life.plan.requeue_at is None


AUTHORITIES = [an_authority(number=number, not_after=NOW + days(400)) for number in (1, 2, 3)]

steps = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.001, 0.1, 0.5])),
    st.tuples(st.just("sleep"), st.sampled_from([0.7, 1.5, 4])),
    st.tuples(st.just("duration"), st.sampled_from(["1h", "24h", "720h"])),
    st.tuples(st.just("percentage"), st.sampled_from([1, 33, 50, 80])),
    st.tuples(st.just("names"), st.sampled_from([[], ["orders.shop.svc"]])),
    st.tuples(st.just("key"), st.sampled_from(["ECDSA-P256", "ECDSA-P384"])),
    st.tuples(st.just("key rotation"), st.sampled_from(["Always", "Never"])),
    st.tuples(st.just("rotate"), st.sampled_from([-days(1), timedelta(), seconds(1), hours(5), days(20)])),
    st.tuples(st.just("pause"), mostly(False, True)),
    st.tuples(st.just("lose"), st.none()),
    st.tuples(st.just("corrupt"), st.sampled_from(["tls.crt", "tls.key", "ca.crt"])),
    st.tuples(st.just("authority"), st.sampled_from(AUTHORITIES)),
    st.tuples(st.just("clock"), st.sampled_from([-hours(2), -seconds(90), seconds(90), hours(2), days(3)])),
)


def happen(life: Life, step: str, value: Any) -> None:
    match step:
        case "sleep":
            life.sleep(life.now + value * life.lifetime)
        case "duration":
            life.edit(duration=value)
        case "percentage":
            life.edit(renewBeforePercentage=value)
        case "names":
            life.edit(dnsNames=value)
        case "key":
            life.edit(keyAlgorithm=value)
        case "key rotation":
            life.edit(keyRotation=value)
        case "rotate":
            life.rotate(life.now + value)
        case "pause":
            life.pause(value)
        case "lose":
            life.lose_secret()
        case "corrupt":
            life.corrupt(value)
        case "authority":
            life.new_authority(value)
        case "clock":
            life.set_clock(value)


@examples(100)
@given(st.lists(steps, min_size=5, max_size=40), st.sampled_from([days(20), days(90), days(400)]))
def test_an_eventful_life(steps: list[tuple[str, Any]], authority_life: timedelta) -> None:
    life = Life(an_authority(not_after=NOW + authority_life), {"duration": "720h", "renewBeforePercentage": 33})
    life.look()
    for step, value in steps:
        happen(life, step, value)
        life.look()
    life.sleep(life.now + 2 * life.lifetime)


@pytest.mark.parametrize("ahead", [hours(1), days(10)])
def test_a_clock_that_was_ahead_and_is_set_right_costs_at_most_one_certificate(ahead: timedelta) -> None:
    life = Life(an_authority(not_after=NOW + days(400)), now=NOW + ahead)
    life.look()
    life.set_clock(-ahead)
    life.look()
    life.sleep(NOW + ahead)
    assert life.world.issues <= 2
