"""Who gets no identity at all, and what they are told."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    MINE,
    NAMESPACE,
    NOW,
    SOMEBODY,
    Identity,
    a_namespace,
    a_secret,
    a_secret_body,
    a_trust_domain,
    an_identity,
    an_identity_snapshot,
    an_issued_secret,
    owner_of,
    the_secret_that,
)
from tests.support.decisions import asked, decide
from tests.support.plans import (
    conditions,
    has_issued,
    manifest,
    message,
    ready,
)
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.identity import reconcile as module
from zerotrust.pki.secret import ObservedSecret


def test_a_spec_that_cannot_be_used_is_refused_with_its_path() -> None:
    plan = decide(identity=asked(durration="1h"))
    assert ready(plan) == ("False", "InvalidSpec")
    assert message(plan).startswith(
        "spec.certificate.durration: is not a field of this resource; remove it or correct its"
    )
    assert conditions(plan)["Stalled"] == ("True", "InvalidSpec")


LIMITED = {"duration": "12h", "maxDuration": "24h", "keyAlgorithms": ["ECDSA-P256", "ECDSA-P384"]}


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (
            {"duration": "25h"},
            "spec.certificate.duration: 25h is longer than the maxDuration 24h of TrustDomain example.org",
        ),
        (
            {"renewBefore": "12h"},
            (
                "spec.certificate.renewBefore: must be shorter than the lifetime 12h"
                " that TrustDomain example.org gives by default"
            ),
        ),
        (
            {"keyAlgorithm": "RSA-2048"},
            "spec.certificate.keyAlgorithm: TrustDomain example.org allows ECDSA-P256, ECDSA-P384",
        ),
        (
            {"dnsNames": ["orders.shop.svc", "orders.bank.svc"]},
            "spec.certificate.dnsNames: orders.bank.svc is not in namespace shop; write <service>.shop.svc",
        ),
        (
            {"dnsNames": ["shop.cluster.svc.cluster.local"]},
            "spec.certificate.dnsNames: shop.cluster.svc.cluster.local is not in namespace shop; write <service>.shop.svc",
        ),
    ],
)
def test_what_the_trust_domain_does_not_allow_is_refused(certificate: dict[str, Any], told: str) -> None:
    plan = decide(identity=asked(**certificate), domain=a_trust_domain(identities=LIMITED))
    assert ready(plan) == ("False", "InvalidSpec")
    assert message(plan) == told
    assert conditions(plan)["Stalled"] == ("True", "InvalidSpec")
    assert (plan.applies, plan.deletes) == ((), ())


@pytest.mark.parametrize("certificate", [{"duration": "24h"}, {"renewBefore": "11h"}, {"keyAlgorithm": "ECDSA-P384"}])
def test_what_is_just_within_the_limits_is_issued(certificate: dict[str, Any]) -> None:
    assert has_issued(decide(identity=asked(**certificate), domain=a_trust_domain(identities=LIMITED)))


def test_the_younger_of_two_identities_for_one_service_account_is_stalled() -> None:
    plan = decide(identity=an_identity("mine", serviceAccountName="orders"), elder="orders")
    assert ready(plan) == ("False", "DuplicateIdentity")
    assert message(plan) == (
        "ServiceIdentity orders is older and is for ServiceAccount orders already; delete one of them"
    )
    assert conditions(plan)["Stalled"] == ("True", "DuplicateIdentity")


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (
            an_identity(trustDomain="other.org"),
            "TrustDomain other.org does not exist; create it or correct spec.trustDomain",
        ),
        (
            an_identity(),
            "no TrustDomain is marked default: name one in spec.trustDomain, or set spec.default on one",
        ),
    ],
)
def test_without_its_trust_domain_an_identity_waits(identity: Identity, told: str) -> None:
    plan = decide(replace(an_identity_snapshot(identity), trust_domain=None))
    assert ready(plan) == ("False", "TrustDomainNotFound")
    assert message(plan) == told
    assert "Stalled" not in conditions(plan)
    assert conditions(plan)["Reconciling"] == ("True", "TrustDomainNotFound")


def test_with_a_trust_domain_that_cannot_be_used_an_identity_waits() -> None:
    plan = decide(domain=a_trust_domain(identities={"duration": "1s"}))
    assert ready(plan) == ("False", "TrustDomainInvalid")
    assert message(plan) == "TrustDomain example.org: spec.identities.duration: must be between 1m and 8760h"


ALLOWING = a_trust_domain(allowedNamespaces={"selector": {"matchLabels": {"zero": "trust"}}})


def test_a_namespace_that_the_trust_domain_does_not_allow_is_refused() -> None:
    plan = decide(domain=ALLOWING)
    assert ready(plan) == ("False", "NamespaceNotAllowed")
    assert message(plan) == ("TrustDomain example.org does not allow namespace shop; see its spec.allowedNamespaces")
    assert conditions(plan)["Stalled"] == ("True", "NamespaceNotAllowed")


def test_a_namespace_that_the_trust_domain_allows_is_served() -> None:
    assert has_issued(decide(domain=ALLOWING, namespace=a_namespace(zero="trust")))


def test_a_namespace_that_is_not_known_is_not_allowed() -> None:
    assert ready(decide(domain=ALLOWING, namespace=None)) == ("False", "NamespaceNotAllowed")


def test_a_missing_service_account_gets_no_identity_until_it_is_created() -> None:
    plan = decide(service_account_exists=False)
    assert ready(plan) == ("False", "ServiceAccountNotFound")
    assert message(plan) == "ServiceAccount orders does not exist in this namespace; create it"
    assert conditions(plan)["Reconciling"] == ("True", "ServiceAccountNotFound")
    assert (plan.applies, plan.requeue_at) == ((), None)


def test_a_refusal_leaves_the_secret_alone() -> None:
    issued = an_issued_secret()
    for plan in (
        decide(secret=issued, service_account_exists=False),
        decide(secret=issued, elder="older"),
        decide(secret=issued, domain=ALLOWING),
        decide(secret=issued, identity=asked(duration="no")),
    ):
        assert (plan.applies, plan.deletes) == ((), ())


def test_what_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    assert decide(identity=an_identity(deleting=True)) == Plan()


@pytest.mark.parametrize(
    ("foreign", "told"),
    [
        (a_secret(type_="Opaque"), "exists and has type Opaque"),
        (a_secret(type_="Opaque", labels=MINE), "exists and has type Opaque"),
        (a_secret(), "exists and was not made by this operator"),
        (a_secret(labels={naming.MANAGED_BY: naming.OPERATOR}), "exists and was not made by this operator"),
        (
            a_secret(labels={**MINE, naming.COMPONENT: naming.COMPONENT_AUTHORITY}),
            "exists and was not made by this operator",
        ),
        (a_secret(labels={**MINE, naming.MANAGED_BY: "cert-manager"}), "exists and was not made by this operator"),
        (a_secret(labels={**MINE, naming.IDENTITY: "billing"}), "exists and belongs to ServiceIdentity billing"),
        (a_secret(labels=MINE, owners=[{**SOMEBODY, "controller": True}]), "exists and was not made by this operator"),
        (
            a_secret(owners=[owner_of(an_identity()), {**SOMEBODY, "controller": True}]),
            "exists and was not made by this operator",
        ),
        (a_secret(owners=[owner_of(an_identity(), uid="uid-of-another")]), "exists and was not made by this operator"),
    ],
    ids=[
        "another type",
        "another type with our labels",
        "no labels",
        "only managed-by",
        "another component",
        "another manager",
        "another identity",
        "controlled by somebody",
        "ours but controlled by somebody",
        "owned by an identity of another uid",
    ],
)
def test_a_secret_of_somebody_else_is_reported_and_not_touched(foreign: ObservedSecret, told: str) -> None:
    plan = decide(secret=foreign)
    assert ready(plan) == ("False", "SecretConflict")
    assert message(plan) == f"Secret orders-svid {told}; delete it or choose another spec.secret.name"
    assert conditions(plan)["SecretConflict"] == ("True", "ForeignSecret")
    assert conditions(plan)["Stalled"] == ("True", "SecretConflict")
    assert (plan.applies, plan.deletes) == ((), ())


def test_a_secret_of_somebody_else_is_looked_at_again_because_nobody_watches_it() -> None:
    plan = decide(secret=a_secret())
    assert plan.refresh == (Ref("Secret", NAMESPACE, "orders-svid"),)
    assert plan.requeue_at == NOW + module.REFRESH


def test_the_younger_of_two_identities_for_one_secret_is_stalled() -> None:
    plan = decide(identity=an_identity("b", secret={"name": "shared"}), secret_elder="a")
    assert ready(plan) == ("False", "SecretConflict")
    assert message(plan) == "Secret shared belongs to the older ServiceIdentity a"
    assert (plan.applies, plan.refresh) == ((), ())


@pytest.mark.parametrize(
    "ours",
    [
        {"labels": MINE},
        {"owners": [owner_of(an_identity())]},
        {"owners": [owner_of(an_identity(), controller=True)]},
        {"labels": MINE, "owners": [SOMEBODY]},
        {"labels": MINE, "owners": [owner_of(an_identity(), uid="uid-of-its-predecessor")]},
    ],
    ids=["by labels", "by owner", "by controller", "with another owner", "of a predecessor"],
)
def test_what_is_ours_is_taken_over(ours: Mapping[str, Any]) -> None:
    plan = decide(secret=a_secret(**ours))
    assert has_issued(plan)
    left = the_secret_that(plan, before=a_secret_body(**ours))
    assert owner_of(an_identity()) in left.meta.owners or owner_of(an_identity(), controller=True) in left.meta.owners


def test_another_owner_of_our_secret_stays_an_owner() -> None:
    plan = decide(secret=a_secret(labels=MINE, owners=[SOMEBODY]))
    assert manifest(plan)["metadata"]["ownerReferences"] == [SOMEBODY, owner_of(an_identity())]
