"""DESIGN section 7 for identities: what holds whatever is in the resource, its trust domain, its Secret and on the clock."""

import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from hypothesis import assume, event, given
from hypothesis import strategies as st

from tests.support.builders import (
    NAMESPACE,
    NOW,
    Body,
    FixedEntropy,
    a_key,
    a_key_ring,
    a_record,
    a_view,
    an_authority,
    an_identity_snapshot,
    hours,
    key_of,
    minutes,
    with_status,
)
from tests.support.plans import everything_visible, has_issued, issue_reason, leaf, shows_key, value
from tests.support.strategies import AUTHORITIES, Case, Found, a_full_key_ring, cases, good_specs
from tests.support.world import World
from zerotrust.common import times
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.identity.reconcile import failed, reconcile
from zerotrust.identity.snapshot import Failure, IdentitySnapshot
from zerotrust.pki import keys, secret
from zerotrust.pki import x509 as profiles
from zerotrust.pki.conformance import Outcome, check_svid, x509_authorities
from zerotrust.trustdomain.authority import KeyRing, Signer

LEAF_KEYS = [a_key(100 + number, algorithm) for number in range(8) for algorithm in ("ECDSA-P256", "ECDSA-P384")]


class RecordingSigner(KeyRing):
    """A key ring that remembers what it was asked to sign."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, profiles.LeafProfile]] = []
        for authority in AUTHORITIES:
            self.load(authority.certificate, key_of(authority))

    def sign(self, authority_id: str, profile: profiles.LeafProfile) -> x509.Certificate:
        self.asked.append((authority_id, profile))
        return super().sign(authority_id, profile)


def decide(case: Case, signer: Signer | None = None, seed: int = 1) -> Plan:
    return reconcile(case.snapshot, case.now, signer or a_full_key_ring(), FixedEntropy(seed))


def derived_id(snapshot: IdentitySnapshot) -> str:
    """The one ID of an identity, derived here by hand from the place of the object and nothing else."""
    resource, view = snapshot.resource, snapshot.trust_domain
    assert view is not None
    assert not isinstance(view.spec, SpecError)
    named = None if isinstance(resource.spec, SpecError) else resource.spec.service_account_name
    cluster = f"/cluster/{view.spec.cluster_name}" if view.spec.cluster_name else ""
    return f"spiffe://{view.name}{cluster}/ns/{resource.meta.namespace}/sa/{named or resource.meta.name}"


def world_of(case: Case) -> World:
    """The cluster that the case was found in."""
    world = World()
    for body in (case.found.body, *case.stale):
        if body is not None:
            world.put(copy.deepcopy(body))
    return world


def after(case: Case, world: World, plan: Plan) -> Case:
    """The same case once the plan was carried out."""
    resource = world.carry_out(case.snapshot.resource, plan)
    return replace(
        case,
        snapshot=replace(
            case.snapshot,
            resource=resource,
            secret=world.secret(case.place.namespace, case.place.name),
            stale_secrets=tuple(
                one for one in world.secrets() if one.meta.ref in {old.meta.ref for old in case.snapshot.stale_secrets}
            ),
        ),
    )


# --- I1 ---


@given(cases())
def test_i1_the_signer_never_signs_another_id_than_the_derived_one(case: Case) -> None:
    signer = RecordingSigner()
    plan = decide(case, signer)
    assert len(signer.asked) == has_issued(plan), "one certificate for one issue, none otherwise"
    for _, profile in signer.asked:
        event("issued")
        assert str(profile.spiffe_id) == derived_id(case.snapshot)
        assert {name.split(".")[1] for name in profile.dns_names} <= {NAMESPACE}
        assert profiles.spiffe_ids(leaf(plan)) == (derived_id(case.snapshot),)


@given(cases())
def test_i1_no_status_shows_another_id_than_the_derived_one(case: Case) -> None:
    shown = (decide(case).status or {}).get("spiffeID")
    assert shown is None or shown == derived_id(case.snapshot)


@given(cases(good_specs))
def test_i1_nobody_gets_an_identity_who_is_refused(case: Case) -> None:
    plan = decide(case)
    snapshot = case.snapshot
    if has_issued(plan):
        assert snapshot.service_account_exists
        assert (snapshot.elder, snapshot.secret_elder) == (None, None)
        assert not snapshot.resource.meta.deleting


# --- I2 and I3 ---


@given(cases(good_specs))
def test_i2_an_issued_leaf_never_outlives_its_authority(case: Case) -> None:
    plan = decide(case)
    if not has_issued(plan):
        return
    event("issued")
    view = case.snapshot.trust_domain
    assert view is not None
    assert view.active is not None
    issued = leaf(plan)
    for above in (*view.active.chain, *view.active.roots):
        assert issued.not_valid_after_utc <= above.not_valid_after_utc
    assert issued.not_valid_before_utc <= case.now < issued.not_valid_after_utc


def verifies(world: World, place: Ref, at: datetime) -> bool:
    """Judge a Secret by itself: its leaf against its own ca.crt and its own bundle.spiffe.json, in the judge's own words."""
    observed = world.secret(place.namespace, place.name)
    if observed is None or observed.certificate is None:
        return False
    chain = x509.load_pem_x509_certificates(world.value(place, "tls.crt"))
    roots = x509.load_pem_x509_certificates(world.value(place, "ca.crt"))
    document = world.value(place, "bundle.spiffe.json")
    key = keys.from_pem(world.value(place, "tls.key"))
    judged = [
        *check_svid(chain, roots, at, trust_domain="example.org", spiffe_bundle=document, private_key=key),
        *check_svid(chain, x509_authorities(document), at, trust_domain="example.org", spiffe_bundle=document),
    ]
    return all(result.outcome is not Outcome.FAIL for result in judged)


@given(cases(good_specs))
def test_i3_an_issued_leaf_verifies_against_both_bundles_of_its_secret(case: Case) -> None:
    world = world_of(case)
    plan = decide(case)
    after(case, world, plan)
    if has_issued(plan):
        event("issued")
        assert verifies(world, case.place, case.now)


@given(cases(good_specs, bundle_is_known=True))
def test_i3_who_is_ready_has_a_leaf_that_verifies(case: Case) -> None:
    """Whenever the bundle is known; without one, what is in the Secret is left as it is."""
    world = world_of(case)
    plan = decide(case)
    after(case, world, plan)
    ready = [one for one in (plan.status or {}).get("conditions", ()) if one["type"] == "Ready"]
    if ready and ready[0]["status"] == "True":
        event("ready")
        observed = world.secret(case.place.namespace, case.place.name)
        assert observed is not None
        assert observed.certificate is not None
        # With the clock set back, a leaf is judged from its own beginning on.
        assert verifies(world, case.place, max(case.now, observed.certificate.not_before))


# --- revocation ---


@given(cases(good_specs), st.integers(-90_000, 90_000), st.integers(0, 999_999))
def test_whoever_is_issued_begins_at_the_cutoff_at_the_earliest_and_is_left_alone(
    case: Case, offset: int, fraction: int
) -> None:
    cutoff = case.now + timedelta(seconds=offset, microseconds=fraction)
    case = replace(case, snapshot=replace(case.snapshot, remembered_cutoff=cutoff))
    world = world_of(case)
    plan = decide(case)
    then = after(case, world, plan)
    certificate = then.snapshot.secret.certificate if then.snapshot.secret is not None else None
    in_force = times.next_whole_second(cutoff) <= case.now
    if has_issued(plan):
        event("issued")
        assert certificate is not None
        assert not in_force or certificate.not_before >= cutoff
        assert not has_issued(decide(then)), "one certificate for one cut-off"
    if in_force and any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(plan)):
        assert certificate is not None
        assert certificate.not_before >= cutoff, "what is revoked is not Ready"


def _conditions(plan: Plan) -> list[dict[str, Any]]:
    return list((plan.status or {}).get("conditions", ()))


# --- I7 ---

RSA = an_authority(number=6, algorithm="RSA-2048")  # RSA signatures (PKCS #1 v1.5) are deterministic, ECDSA's are not


@given(cases(good_specs), st.integers(0, 9))
def test_i7_the_same_input_gives_the_same_plan(case: Case, seed: int) -> None:
    known = replace(case, snapshot=replace(case.snapshot, trust_domain=a_view(record=a_record(RSA))))
    ring = a_key_ring(RSA)
    assert decide(known, ring, seed) == decide(known, ring, seed)


@given(cases(good_specs))
def test_i7_what_was_decided_before_changes_nothing(case: Case) -> None:
    """The status is never an input: only transition times, events and what is measured may depend on it."""
    forgotten = replace(case.snapshot, resource=with_status(case.snapshot.resource, Plan(status={"conditions": []})))
    told = replace(case.snapshot, resource=with_status(case.snapshot.resource, decide(case)))
    first, second = (decide(replace(case, snapshot=snapshot)) for snapshot in (forgotten, told))
    assert _without_signatures(first) == _without_signatures(second)


def _without_signatures(plan: Plan) -> Any:
    """A plan without what a random signature makes different, and without what tells of transitions."""
    applies = [
        {**apply.manifest, "data": {name: data for name, data in apply.manifest["data"].items() if name != "tls.crt"}}
        for apply in plan.applies
    ]
    status = dict(plan.status or {})
    status["conditions"] = [{**one, "lastTransitionTime": ""} for one in status.get("conditions", ())]
    return applies, plan.deletes, status, plan.requeue_at, plan.refresh, issue_reason(plan)


# --- I8 ---


@given(cases())
def test_i8_to_look_again_writes_nothing(case: Case) -> None:
    world = world_of(case)
    plan = decide(case)
    event("issued" if has_issued(plan) else "kept")
    settled = after(case, world, plan)
    world.writes.clear()
    again = decide(settled, seed=2)
    after(settled, world, again)
    assert world.writes == []
    assert again.events == ()
    assert not has_issued(again)


@given(cases(), st.integers(1, 600))
def test_i8_a_restart_some_time_later_writes_nothing_before_something_is_due(case: Case, later: int) -> None:
    world = world_of(case)
    plan = decide(case)
    settled = after(case, world, plan)
    now = case.now + later * minutes(1)
    assume(plan.requeue_at is None or now < plan.requeue_at)
    # An authority may meanwhile begin, or come so close to its end that it cannot sign any more: that is news too.
    assume(not any(case.now < moment <= now + minutes(2) for one in AUTHORITIES for moment in (one.not_after,)))
    assume(not any(case.now < one.certificate.not_valid_before_utc <= now for one in AUTHORITIES))
    world.writes.clear()
    after(settled, world, decide(replace(settled, now=now), seed=2))
    assert world.writes == []


# --- I10 ---


@given(cases())
def test_i10_no_key_is_shown_by_a_plan_or_a_snapshot(case: Case) -> None:
    plan = decide(case)
    told = failed(case.snapshot, Failure("no", 2, case.now + hours(1)), case.now)
    shown = everything_visible(plan) + everything_visible(told) + repr(case.snapshot)
    bodies = [body for body in (case.found.body, *case.stale) if body is not None]
    for key in (*LEAF_KEYS[:4], *_keys_in(bodies), *_keys_written(plan), *map(key_of, AUTHORITIES)):
        assert not shows_key(shown, key)


def _keys_in(bodies: list[Body]) -> list[keys.PrivateKey]:
    found = []
    for body in bodies:
        try:
            found.append(keys.from_pem(secret.value_of(body, "tls.key")))
        except keys.UnreadableKey:
            continue
    return found


def _keys_written(plan: Plan) -> list[keys.PrivateKey]:
    return [keys.from_pem(value(plan, "tls.key"))] if has_issued(plan) and _has_key(plan) else []


def _has_key(plan: Plan) -> bool:
    return any("tls.key" in apply.manifest["data"] for apply in plan.applies)


@given(cases())
def test_i10_a_key_is_written_into_tls_key_and_nowhere_else(case: Case) -> None:
    plan = decide(case)
    for key in _keys_written(plan):
        event("a new key")
        for name in ("tls.crt", "ca.crt", "bundle.spiffe.json"):
            assert not shows_key(value(plan, name).decode(), key)


# --- I12 and I14 ---


@given(cases())
def test_i12_a_secret_of_somebody_else_is_never_touched(case: Case) -> None:
    plan = decide(case)
    if case.found.foreign or case.snapshot.secret_elder is not None:
        event("foreign")
        assert plan.applies == ()
        assert plan.deletes == ()


@given(cases())
def test_i14_a_plan_touches_the_identitys_own_secret_and_its_former_ones_only(case: Case) -> None:
    plan = decide(case)
    assert {apply.ref for apply in plan.applies} <= {case.place}
    stale = {(one.meta.ref, one.meta.uid) for one in case.snapshot.stale_secrets}
    assert {(delete.ref, delete.uid) for delete in plan.deletes} <= stale
    assert case.place not in {delete.ref for delete in plan.deletes}


@given(cases())
def test_i14_what_others_added_to_our_secret_stays(case: Case) -> None:
    world = world_of(case)
    before = copy.deepcopy(world.bodies.get(case.place))
    after(case, world, decide(case))
    if before is None:
        return
    body = world.bodies[case.place]
    ours = {"tls.crt", "tls.key", "ca.crt", "bundle.spiffe.json"}
    assert _others(before["data"], ours) == _others(body["data"], ours)
    for part in ("labels", "annotations"):
        ours = {name for name in body["metadata"].get(part, {}) if "zerotrust" in name or "managed-by" in name}
        template = _template(case, part)
        assert _others(before["metadata"].get(part), ours | template) == _others(
            body["metadata"].get(part), ours | template
        )
    owners = [one for one in before["metadata"].get("ownerReferences") or [] if one["uid"] == "uid-of-it"]
    assert [one for one in body["metadata"].get("ownerReferences") or [] if one["uid"] == "uid-of-it"] == owners


def _others(values: dict[str, Any] | None, ours: set[str]) -> dict[str, Any]:
    return {name: one for name, one in (values or {}).items() if name not in ours}


def _template(case: Case, part: str) -> set[str]:
    spec = case.snapshot.resource.spec
    return set() if isinstance(spec, SpecError) else set(getattr(spec.secret, part))


# --- whatever happens ---


@given(cases())
def test_a_plan_is_always_made_and_always_looks_ahead(case: Case) -> None:
    plan = decide(case)
    assert plan.requeue_at is None or plan.requeue_at > case.now
    assert plan.status is None or len(plan.status["conditions"]) == len(
        {one["type"] for one in plan.status["conditions"]}
    )


@given(cases())
def test_telling_of_a_failure_is_always_possible_and_writes_only_the_status(case: Case) -> None:
    told = failed(case.snapshot, Failure("no", 2, case.now + hours(1)), case.now)
    assert (told.applies, told.deletes, told.requeue_at) == ((), (), None)


@given(cases(good_specs, bundle_is_known=True))
def test_what_becomes_stale_goes_only_when_its_successor_is_good(case: Case) -> None:
    world = world_of(case)
    plan = decide(case)
    after(case, world, plan)
    if plan.deletes:
        event("deleted")
        observed = world.secret(case.place.namespace, case.place.name)
        assert observed is not None
        assert observed.certificate is not None
        assert verifies(world, case.place, max(case.now, observed.certificate.not_before))


def test_the_world_sees_a_difference_where_there_is_one() -> None:
    """What the properties above rely on."""
    case = Case(an_identity_snapshot(), NOW, Found(None))
    world = World()
    settled = after(case, world, decide(case))
    assert world.writes == ["create Secret shop/orders-svid", "status ServiceIdentity shop/orders"]
    assert verifies(world, case.place, NOW)
    world.patch(case.place, {"data": {"ca.crt": secret.encode(b"")}})
    edited = after(replace(settled, now=NOW + hours(1)), world, Plan())
    after(edited, world, decide(edited))
    assert world.writes[2:] == ["patch Secret shop/orders-svid"]
