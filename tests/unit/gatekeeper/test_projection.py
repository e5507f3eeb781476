"""What identities, policies and API keys ask of admission, and whether the cluster says it."""

from typing import Any

import pytest

from zerotrust.common import naming
from zerotrust.gatekeeper.projection import Demand, KeySecret, Place, Subject, merged, of_key, of_subject, says
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, HOST_ACCESS, IMAGES, LABELS, SERVICES
from zerotrust.policy.podset import Requirement, equal
from zerotrust.policy.resource import Admission

DERIVED = (equal(naming.SERVICE_ACCOUNT, "orders"),)
OWN = (equal("app", "orders"), Requirement("track", "DoesNotExist"))
LIMITED = Admission(allowed_registries=["registry.example.org"])


def subject(**changed: Any) -> Subject:
    given: dict[str, Any] = {
        "name": "shop-orders",
        "account": "orders",
        "pods": DERIVED,
        "enforced": True,
        "secret": "orders-svid",
    }
    return Subject(**{**given, **changed})


def test_an_identity_binds_its_pods_and_guards_its_secret() -> None:
    who = {"identity": "shop-orders", "derived": True}
    assert of_subject(subject()) == {
        Place(BINDING, "deny", "orders"): who,
        Place(LABELS, "warn", "orders"): who,
        Place(CREDENTIALS, "deny", "orders-svid"): {
            "owner": "ServiceIdentity shop-orders",
            "serviceAccounts": ["orders"],
        },
    }


def test_labels_are_demanded_once_every_pod_had_them() -> None:
    assert Place(LABELS, "deny", "orders") in of_subject(subject(labelled=True))
    assert Place(LABELS, "warn", "orders") not in of_subject(subject(labelled=True))


def test_an_identity_that_observes_denies_nothing() -> None:
    found = of_subject(
        subject(
            enforced=False, services=frozenset({"orders"}), demands=(Demand("a", enforced=True, admission=LIMITED),)
        )
    )
    assert {place.action for place in found} == {"dryrun"}
    assert {place.kind for place in found} == {BINDING, LABELS, CREDENTIALS, SERVICES, HOST_ACCESS, IMAGES}


def test_a_selector_is_written_out() -> None:
    entry = of_subject(subject(pods=OWN))[Place(BINDING, "deny", "orders")]
    assert entry == {
        "identity": "shop-orders",
        "derived": False,
        "selector": [
            {"key": "app", "operator": "In", "values": ["orders"]},
            {"key": "track", "operator": "DoesNotExist"},
        ],
    }


@pytest.mark.parametrize(
    "pods",
    [
        (equal(naming.SERVICE_ACCOUNT, "batch"),),
        (equal(naming.SERVICE_ACCOUNT, "batch", "orders"),),
        (Requirement(naming.SERVICE_ACCOUNT, "NotIn", ("orders",)),),
        (*DERIVED, equal("app", "orders")),
    ],
    ids=["other", "several", "not", "more"],
)
def test_only_the_derived_label_alone_is_derived(pods: tuple[Requirement, ...]) -> None:
    assert not subject(pods=pods).derived


def test_somebody_elses_secret_is_not_guarded() -> None:
    assert not [place for place in of_subject(subject(secret=None)) if place.kind == CREDENTIALS]


def test_a_service_is_guarded_and_loose_selectors_are_warned_of() -> None:
    found = of_subject(subject(services=frozenset({"orders"})))
    assert {place.action for place in found if place.kind == SERVICES} == {"deny", "warn"}


def test_several_policies_ask_together_and_each_by_its_mode() -> None:
    demands = (
        Demand("b", enforced=True, admission=LIMITED),
        Demand("a", enforced=True, admission=Admission(require_digest=True)),
        Demand("c", enforced=False, admission=Admission(deny_host_network=False, require_digest=True)),
        Demand("d", enforced=True, admission=Admission(deny_host_network=False)),
    )
    found = of_subject(subject(demands=demands))
    assert found[Place(HOST_ACCESS, "deny", "orders")] == {"policies": "a, b"}
    assert found[Place(IMAGES, "deny", "orders")] == {
        "rules": [
            {"policy": "a", "digest": True},
            {"policy": "b", "digest": False, "registries": ["registry.example.org"]},
        ]
    }
    assert found[Place(IMAGES, "dryrun", "orders")] == {"rules": [{"policy": "c", "digest": True}]}
    assert Place(HOST_ACCESS, "dryrun", "orders") not in found


def test_the_key_of_a_holder_outside_is_for_no_pod() -> None:
    assert of_key(KeySecret("partner", "partner-api-key", ())) == {
        Place(CREDENTIALS, "deny", "partner-api-key"): {"owner": "ApiKey partner", "serviceAccounts": []}
    }


def test_the_first_claim_of_a_place_stays() -> None:
    first, second = of_key(KeySecret("a", "same", ())), of_key(KeySecret("b", "same", ("b",)))
    assert merged([first, second]) == first


@pytest.mark.parametrize(
    ("kind", "present", "asked", "said"),
    [
        (HOST_ACCESS, {"policies": "a, b"}, {"policies": "a"}, True),
        (HOST_ACCESS, {"policies": "ab"}, {"policies": "a"}, False),
        (HOST_ACCESS, {}, {"policies": "a"}, False),
        (IMAGES, {"rules": [{"policy": "a"}, {"policy": "b"}]}, {"rules": [{"policy": "b"}]}, True),
        (IMAGES, {"rules": [{"policy": "b", "digest": False}]}, {"rules": [{"policy": "b", "digest": True}]}, False),
        (IMAGES, {}, {"rules": [{"policy": "b"}]}, False),
        (CREDENTIALS, {"owner": "x", "serviceAccounts": ["a", "b"]}, {"owner": "x", "serviceAccounts": ["a"]}, False),
        (BINDING, {"identity": "a", "derived": True}, {"identity": "a", "derived": True}, True),
    ],
    ids=["host", "host-prefix", "host-none", "image", "image-weaker", "image-none", "secret-wider", "same"],
)
def test_what_one_policy_asks_is_found_among_what_others_ask(
    kind: str, present: dict[str, Any], asked: dict[str, Any], said: bool
) -> None:
    assert says(kind, present, asked) is said
