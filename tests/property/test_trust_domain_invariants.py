"""DESIGN section 7 for trust domains: authorities and bundles, whatever is found in the operator's namespace."""

import copy
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from tests.support.builders import (
    NOW,
    OPERATOR_NAMESPACE,
    Body,
    Domain,
    FixedEntropy,
    a_brought_chain,
    a_key,
    a_record,
    a_secret_body,
    a_trust_domain,
    a_trust_domain_snapshot,
    an_authority,
    an_authority_body,
    days,
    hours,
    key_of,
    with_status,
)
from tests.support.certificates import key_pem, pem
from tests.support.plans import everything_visible, shows_key
from tests.support.world import World
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.pki import secret
from zerotrust.pki.conformance import x509_authorities
from zerotrust.trustdomain.authority import Record, RecordUnreadable
from zerotrust.trustdomain.reconcile import BundleTargets, TrustDomainSnapshot, failed, reconcile

OWN = [an_authority(number=number, not_before=NOW - days(30 - number)) for number in range(3)]
ISSUER, ROOT = a_brought_chain()
OTHER_ISSUER, OTHER_ROOT = a_brought_chain()
RECORD = Ref("Secret", OPERATOR_NAMESPACE, naming.authority_record_name("example.org"))
BROUGHT = Ref("Secret", OPERATOR_NAMESPACE, "our-ca")

records = st.lists(st.sampled_from(OWN), min_size=1, max_size=3, unique_by=lambda one: one.id).map(
    lambda them: a_record(*them).to_json()
)
texts = st.sampled_from(["", "{", "null", "[]", '{"version":1}', '{"version":9}'])


def brought_body(issuer: Any, root: Any) -> Body:
    data = {"tls.crt": pem(issuer.certificate), "tls.key": key_pem(issuer.key), "ca.crt": pem(root.certificate)}
    return a_secret_body(BROUGHT.name, namespace=OPERATOR_NAMESPACE, data=data)


brought_bodies = st.sampled_from(
    [
        None,
        brought_body(ISSUER, ROOT),
        brought_body(OTHER_ISSUER, OTHER_ROOT),
        brought_body(ISSUER, OTHER_ROOT),
        a_secret_body(BROUGHT.name, namespace=OPERATOR_NAMESPACE),
    ]
)
authority_bodies = st.lists(
    st.one_of(
        st.sampled_from(OWN).map(an_authority_body),
        st.sampled_from(OWN).map(lambda one: an_authority_body(one, tls_key=b"nonsense")),
        st.sampled_from(OWN).map(lambda one: an_authority_body(one, tls_crt=b"")),
    ),
    max_size=3,
    unique_by=lambda body: body["metadata"]["name"],
)
requests = st.sampled_from([None, NOW - days(60), NOW - hours(1), NOW, NOW + hours(1)])


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    authority: dict[str, Any] = draw(
        st.sampled_from([{}, {}, {"source": "Secret", "secretName": BROUGHT.name}, {"duration": "13000h"}])
    )
    requested = draw(requests)
    rotation = {"rotation": {"requestedAt": f"{requested:%Y-%m-%dT%H:%M:%SZ}"}} if requested else {}
    more = draw(st.sampled_from([{}, {}, {"bundle": {"refreshHint": "10m"}}, {"isolation": {"mode": "Odd"}}]))
    return a_trust_domain(default=draw(st.booleans()), certificateAuthority={**authority, **rotation}, **more)


@dataclass(frozen=True)
class Case:
    """A TrustDomain with what is found of it in the operator's namespace."""

    domain: Domain
    now: datetime
    world: World
    rest: TrustDomainSnapshot

    def snapshot(self) -> TrustDomainSnapshot:
        """What a reconcile sees now."""
        secrets = self.world.secrets()
        return replace(
            self.rest,
            resource=self.domain,
            record=self.world.secret(RECORD.namespace, RECORD.name),
            brought=self.world.secret(BROUGHT.namespace, BROUGHT.name),
            authority_secrets=tuple(
                one for one in secrets if one.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_AUTHORITY
            ),
        )

    def record(self) -> Record | None:
        try:
            return Record.from_json(self.world.value(RECORD, "record.json"))
        except (KeyError, RecordUnreadable):
            return None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    world = World()
    found = [draw(brought_bodies), *draw(authority_bodies)]
    text = draw(st.none() | records | records | texts)
    if text is not None:
        labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_AUTHORITY_RECORD}
        annotations = {naming.TRUST_DOMAIN: "example.org"}
        data = {"record.json": text.encode()}
        found.append(
            a_secret_body(
                RECORD.name,
                namespace=RECORD.namespace,
                type_="Opaque",
                labels=labels,
                annotations=annotations,
                data=data,
            )
        )
    for body in found:
        if body is not None:
            world.put(copy.deepcopy(body))
    rest = a_trust_domain_snapshot(
        targets=draw(st.sampled_from([BundleTargets(), BundleTargets(3, 2), BundleTargets(1, 0, (("bank", "why"),))])),
        identities_total=draw(st.integers(0, 3)),
        other_default=draw(st.sampled_from([None, None, "older.org"])),
        clock_skew=draw(st.sampled_from([None, timedelta(), hours(1)])),
    )
    now = NOW + draw(st.sampled_from([timedelta(), hours(2), days(399), days(500), days(800)]))
    return Case(draw(domains()), now, world, rest)


def decide(case: Case, seed: int = 1) -> Plan:
    return reconcile(case.snapshot(), case.now, FixedEntropy(seed))


def carried_out(case: Case, plan: Plan) -> Case:
    return replace(case, domain=case.world.carry_out(case.domain, plan))


def made(plan: Plan) -> list[str]:
    """The new authorities of a plan."""
    return [apply.ref.name for apply in plan.applies if ".ca-" in apply.ref.name]


@given(cases())
def test_i8_to_look_again_writes_nothing(case: Case) -> None:
    plan = decide(case)
    event("wrote" if plan.applies else "kept")
    settled = carried_out(case, plan)
    case.world.writes.clear()
    again = decide(settled, seed=2)
    carried_out(settled, again)
    assert case.world.writes == []
    assert again.events == ()


@given(cases())
def test_i9_a_crash_after_the_first_write_loses_no_key_and_makes_no_second_authority(case: Case) -> None:
    plan = decide(case)
    if len(plan.applies) < 2:
        return  # there is nothing between two writes
    event("crashed")
    crashed = carried_out(case, Plan(applies=plan.applies[:1]))
    again = decide(crashed, seed=2)
    recorded = case.record()
    if recorded is None:
        assert made(again) == [], "adopted"
    keys_before = {ref for ref in case.world.bodies if ".ca-" in ref.name}
    final = carried_out(crashed, again)
    assert keys_before <= set(case.world.bodies)
    record = final.record()
    assert record is not None
    assert record.active is not None


@given(cases())
def test_a_key_is_never_overwritten_or_deleted(case: Case) -> None:
    before = {ref: copy.deepcopy(body) for ref, body in case.world.bodies.items() if ref != RECORD}
    plan = decide(case)
    carried_out(case, plan)
    assert plan.deletes == ()
    assert {ref: case.world.bodies[ref] for ref in before} == before


@given(cases())
def test_an_authority_is_made_for_the_first_time_or_on_request_only(case: Case) -> None:
    snapshot = case.snapshot()
    new = made(decide(case))
    assert len(new) <= 1
    if new:
        event("made")
        requested = case.domain.spec.certificate_authority.rotation.requested_at  # type: ignore[union-attr]
        empty = snapshot.record is None and not snapshot.authority_secrets
        assert empty or (case.record() is not None and requested is not None and requested <= case.now)


@given(cases())
def test_the_bundle_keeps_every_root_that_the_record_had(case: Case) -> None:
    before = case.record()
    assume(before is not None)
    after = carried_out(case, decide(case)).record()
    assert before is not None
    assert after is not None
    event("changed" if before.bundle().roots != after.bundle().roots else "same")
    assert set(before.bundle().roots) <= set(after.bundle().roots)


@given(cases())
def test_b2_the_sequence_grows_exactly_when_the_document_changes(case: Case) -> None:
    before = case.record()
    assume(before is not None)
    after = carried_out(case, decide(case)).record()
    assert before is not None
    assert after is not None
    same = _content(before) == _content(after)
    assert after.sequence == before.sequence if same else after.sequence > before.sequence


def _content(record: Record) -> Any:
    """What a document says apart from its sequence."""
    content = json.loads(record.bundle().document)
    del content["spiffe_sequence"]
    return content


@given(cases())
def test_the_record_that_is_written_can_be_read_and_its_bundle_be_used(case: Case) -> None:
    plan = decide(case)
    if not any(apply.ref == RECORD for apply in plan.applies):
        return
    after = carried_out(case, plan).record()
    assert after is not None
    assert x509_authorities(after.bundle().document.encode()) == list(after.bundle().roots)
    assert sum(one.state == "Active" for one in after.authorities) == 1


@given(cases())
def test_i10_no_key_is_shown(case: Case) -> None:
    plan = decide(case)
    shown = everything_visible(plan) + repr(case.snapshot()) + repr(failed(case.snapshot(), "no", case.now))
    record = [apply.manifest["data"]["record.json"] for apply in plan.applies if apply.ref == RECORD]
    shown += "".join(map(str, record))
    for key in (*map(key_of, OWN), ISSUER.key, ROOT.key, *(a_key(100 + number) for number in range(3))):
        assert not shows_key(shown, key)


@given(cases())
def test_i7_the_same_input_gives_the_same_plan(case: Case) -> None:
    plan = decide(case)
    assume(not made(plan))  # an ECDSA signature is never the same twice
    assert decide(case) == plan


@given(cases())
@example(Case(a_trust_domain(deleting=True), NOW, World(), a_trust_domain_snapshot()))
def test_a_plan_is_always_made_and_always_looks_ahead(case: Case) -> None:
    plan = decide(case)
    assert plan.requeue_at is None or plan.requeue_at > case.now
    told = failed(case.snapshot(), "no", case.now)
    assert (told.applies, told.deletes) == ((), ())


@given(cases())
def test_i14_a_plan_touches_our_own_secrets_only(case: Case) -> None:
    for apply in decide(case).applies:
        assert apply.ref.namespace == OPERATOR_NAMESPACE
        assert apply.ref.name.startswith("example.org.")
        assert apply.ref == RECORD or apply.ref not in case.world.bodies


@given(cases())
def test_what_was_decided_before_changes_nothing(case: Case) -> None:
    told = replace(case, domain=with_status(case.domain, decide(case)))
    first, second = decide(case), decide(told)
    assert [apply.ref for apply in first.applies] == [apply.ref for apply in second.applies]
    assert (first.requeue_at, first.refresh, first.deletes) == (second.requeue_at, second.refresh, second.deletes)


def test_values_are_encoded_as_the_api_server_wants_them() -> None:
    plan = reconcile(a_trust_domain_snapshot(), NOW, FixedEntropy())
    for apply in plan.applies:
        for name, encoded in apply.manifest["data"].items():
            assert secret.encode(secret.value_of(apply.manifest, name)) == encoded
