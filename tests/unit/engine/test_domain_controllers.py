"""What a change in the cache makes due, and what the controllers collect for a decision."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    IDENTITY,
    MINE,
    NAMESPACE,
    NOW,
    OPERATOR_NAMESPACE,
    Domain,
    FixedEntropy,
    Identity,
    a_config_map,
    a_key_ring,
    a_namespace,
    a_record,
    a_record_secret,
    a_secret,
    a_service_account,
    a_trust_domain,
    an_authority,
    an_authority_secret,
    an_identity,
    an_issued_secret,
    days,
    owner_of,
    with_status,
)
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Controller
from zerotrust.engine.identities import IdentityController
from zerotrust.engine.trustdomains import TrustBundleController, TrustDomainController, TrustDomains
from zerotrust.identity.snapshot import IdentitySnapshot
from zerotrust.trustdomain.distribution import BundleSnapshot
from zerotrust.trustdomain.reconcile import TrustDomainSnapshot

DEFAULT = a_trust_domain(default=True)
DOMAIN = Ref("TrustDomain", "", "example.org")
ORDERS = Ref("ServiceIdentity", NAMESPACE, IDENTITY)
BUNDLE = Ref("TrustBundle", NAMESPACE, "example.org")


class Cluster:
    """The cache with our three controllers on it."""

    def __init__(self, *objects: Any) -> None:
        self.cache = Cache()
        self.domains = TrustDomains(self.cache, OPERATOR_NAMESPACE)
        self.trust_domains = TrustDomainController(self.cache, self.domains, FixedEntropy(), lambda: None)
        self.bundles = TrustBundleController(self.cache, self.domains)
        self.identities = IdentityController(self.cache, self.domains, a_key_ring(), FixedEntropy())
        self._version = 1
        self.put(*objects)

    def put(self, *objects: Any) -> Change:
        """Take in objects, each as the newest news; return the last change."""
        change = None
        for one in objects:
            self._version += 1
            change = self.cache.put(replace(one, meta=replace(one.meta, resource_version=str(self._version))))
        return change or Change(DOMAIN, None, None)

    def drop(self, ref: Ref) -> Change:
        change = self.cache.drop(ref)
        assert change is not None
        return change

    def touched(self, controller: Controller, change: Change) -> set[Ref]:
        return {touched.ref for touched in controller.touched_by(change)}

    def identity(self, name: str = IDENTITY) -> IdentitySnapshot:
        snapshot = self.identities.snapshot(Ref("ServiceIdentity", NAMESPACE, name))
        assert snapshot is not None
        return snapshot

    def domain(self, name: str = "example.org") -> TrustDomainSnapshot:
        snapshot = self.trust_domains.snapshot(Ref("TrustDomain", "", name))
        assert snapshot is not None
        return snapshot

    def bundle(self, namespace: str = NAMESPACE) -> BundleSnapshot | None:
        return self.bundles.snapshot(Ref("TrustBundle", namespace, "example.org"))


def everything(*more: Any) -> Cluster:
    """One identity with all that belongs to it."""
    return Cluster(
        a_namespace(),
        a_service_account(),
        an_authority_secret(),
        a_record_secret(),
        an_issued_secret(),
        DEFAULT,
        an_identity(),
        *more,
    )


def a_ready(identity: Identity) -> Identity:
    condition = {"type": "Ready", "status": "True", "reason": "Issued"}
    return with_status(identity, Plan(status={"conditions": [condition]}))


# --- what a change makes due: identities ---


def test_an_identity_is_due_when_it_changes_or_its_secret_or_account_does() -> None:
    cluster = everything()
    for change in (
        cluster.put(an_identity(generation=2)),
        cluster.put(an_issued_secret()),
        cluster.drop(Ref("Secret", NAMESPACE, "orders-svid")),
        cluster.drop(Ref("ServiceAccount", NAMESPACE, IDENTITY)),
        cluster.put(a_service_account()),
    ):
        assert cluster.touched(cluster.identities, change) == {ORDERS}


def test_an_edit_of_a_service_account_is_nothing_to_an_identity() -> None:
    cluster = everything()
    assert cluster.touched(cluster.identities, cluster.put(a_service_account())) == set()


def test_a_secret_under_an_earlier_name_is_its_identitys() -> None:
    cluster = everything(an_identity(secret={"name": "new"}, generation=2))
    assert cluster.touched(cluster.identities, cluster.put(an_issued_secret())) == {ORDERS}


def test_a_secret_that_loses_our_label_is_still_its_identitys() -> None:
    cluster = everything(an_identity(secret={"name": "new"}, generation=2))
    assert cluster.touched(cluster.identities, cluster.put(a_secret())) == {ORDERS}


@pytest.mark.parametrize("change", ["deleted", "renamed", "deleting"])
def test_rivals_are_due_when_the_one_with_the_better_claim_goes(change: str) -> None:
    elder = an_identity("elder", serviceAccountName=IDENTITY, created=NOW - days(9))
    cluster = everything(elder)
    assert cluster.identity().elder == "elder"
    event = {
        "deleted": lambda: cluster.drop(elder.meta.ref),
        "renamed": lambda: cluster.put(an_identity("elder", created=NOW - days(9), generation=2)),
        "deleting": lambda: cluster.put(
            an_identity("elder", serviceAccountName=IDENTITY, created=NOW - days(9), deleting=True)
        ),
    }[change]()
    assert ORDERS in cluster.touched(cluster.identities, event)
    assert cluster.identity().elder is None


def test_rivals_for_a_secret_are_due_too() -> None:
    elder = an_identity("elder", secret={"name": "orders-svid"}, created=NOW - days(9))
    cluster = everything(elder)
    assert cluster.identity().secret_elder == "elder"
    assert ORDERS in cluster.touched(cluster.identities, cluster.drop(elder.meta.ref))


def test_a_status_is_nothing_to_rivals() -> None:
    elder = an_identity("elder", serviceAccountName=IDENTITY, created=NOW - days(9))
    cluster = everything(elder)
    assert cluster.touched(cluster.identities, cluster.put(a_ready(elder))) == {elder.meta.ref}


@pytest.mark.parametrize("named", ["example.org", ""])
def test_identities_are_due_when_their_trust_domain_or_its_record_changes(named: str) -> None:
    identity = an_identity(trustDomain=named) if named else an_identity()
    cluster = everything(replace(identity, meta=replace(identity.meta, generation=2)))
    for change in (
        cluster.put(a_trust_domain(default=True, generation=2)),
        cluster.put(a_record_secret(a_record(an_authority(number=1)))),
        cluster.put(an_authority_secret(an_authority(number=1))),
        cluster.drop(DOMAIN),
    ):
        assert cluster.touched(cluster.identities, change) == {ORDERS}


def test_identities_of_other_trust_domains_are_not_due() -> None:
    cluster = everything(an_identity("other", trustDomain="other.org"))
    change = cluster.put(a_trust_domain(default=True, generation=2))
    assert cluster.touched(cluster.identities, change) == {ORDERS}


def test_a_trust_domains_status_is_nothing_to_identities() -> None:
    cluster = everything()
    change = cluster.put(with_status(DEFAULT, Plan(status={"identities": {"total": 1}})))
    assert cluster.touched(cluster.identities, change) == set()


def test_identities_are_due_when_the_labels_of_their_namespace_change() -> None:
    cluster = everything()
    assert cluster.touched(cluster.identities, cluster.put(a_namespace(team="a"))) == {ORDERS}
    assert cluster.touched(cluster.identities, cluster.put(a_namespace(team="a"))) == set()


def test_identities_are_due_when_their_namespace_comes_in_after_them() -> None:
    cluster = Cluster(DEFAULT, an_identity())
    assert cluster.touched(cluster.identities, cluster.put(a_namespace())) == {ORDERS}


def test_identities_are_due_when_the_key_of_a_brought_authority_comes_in() -> None:
    brought = a_trust_domain(default=True, certificateAuthority={"source": "Secret", "secretName": "our-ca"})
    cluster = Cluster(a_namespace(), a_service_account(), a_record_secret(), brought, an_identity())
    our_ca = a_secret("our-ca", namespace=OPERATOR_NAMESPACE)
    assert cluster.touched(cluster.identities, cluster.put(our_ca)) == {ORDERS}


# --- what is collected: identities ---


def test_a_snapshot_has_all_that_a_decision_needs() -> None:
    snapshot = everything().identity()
    assert snapshot.namespace is not None
    assert snapshot.service_account_exists
    assert snapshot.trust_domain is not None
    assert snapshot.trust_domain.active == an_authority()
    assert snapshot.secret is not None
    assert (snapshot.elder, snapshot.secret_elder, snapshot.stale_secrets) == (None, None, ())


def test_an_identity_that_is_gone_has_no_snapshot() -> None:
    assert Cluster().identities.snapshot(ORDERS) is None


def test_only_what_the_identity_owns_is_stale() -> None:
    owned = a_secret("old", labels=MINE, owners=[owner_of(an_identity())])
    labelled = a_secret("copied", labels=MINE)
    of_another = a_secret("other", labels=MINE, owners=[owner_of(an_identity(), uid="uid-of-another")])
    snapshot = everything(owned, labelled, of_another).identity()
    assert [one.meta.name for one in snapshot.stale_secrets] == ["old"]


def test_the_default_trust_domain_is_the_oldest_that_is_marked() -> None:
    younger = a_trust_domain("a.org", default=True, created=NOW - days(3))
    cluster = Cluster(younger, DEFAULT, a_trust_domain("older.org", created=NOW - days(99)), an_identity())
    view = cluster.identity().trust_domain
    assert view is not None
    assert view.name == "example.org"


@pytest.mark.parametrize(
    "objects",
    [(), (a_trust_domain(),), (a_trust_domain(default=True, deleting=True),)],
    ids=["none", "none marked", "being deleted"],
)
def test_without_a_default_there_is_no_trust_domain(objects: Iterable[Domain]) -> None:
    assert Cluster(*objects, an_identity()).identity().trust_domain is None


def test_a_view_follows_the_record() -> None:
    cluster = everything()
    cluster.put(a_record_secret(a_record(an_authority(), an_authority(number=1))))
    view = cluster.identity().trust_domain
    assert view is not None
    assert view.active == an_authority(number=1)
    cluster.put(a_record_secret("{"))
    assert cluster.domains.view(DEFAULT).active is None


def test_what_has_no_certificate_comes_first_then_what_expires_first() -> None:
    cluster = everything()
    issued = cluster.identities.priority(ORDERS)
    cluster.drop(Ref("Secret", NAMESPACE, "orders-svid"))
    missing = cluster.identities.priority(ORDERS)
    cluster.put(an_issued_secret(an_identity(certificate={"duration": "1h"})))
    sooner = cluster.identities.priority(ORDERS)
    assert cluster.trust_domains.priority(DOMAIN) < cluster.bundles.priority(BUNDLE) < missing < sooner < issued


# --- trust domains ---


def test_a_trust_domain_is_due_when_it_changes_or_its_secrets_do() -> None:
    cluster = everything()
    for change in (
        cluster.put(a_trust_domain(default=True, generation=2)),
        cluster.put(a_record_secret()),
        cluster.put(an_authority_secret()),
        cluster.drop(an_authority_secret().meta.ref),
    ):
        assert cluster.touched(cluster.trust_domains, change) == {DOMAIN}


def test_a_trust_domain_is_due_when_the_secret_that_it_names_comes_in() -> None:
    cluster = Cluster(a_trust_domain(certificateAuthority={"source": "Secret", "secretName": "our-ca"}))
    change = cluster.put(a_secret("our-ca", namespace=OPERATOR_NAMESPACE))
    assert cluster.touched(cluster.trust_domains, change) == {DOMAIN}
    elsewhere = cluster.put(a_secret("our-ca"))
    assert cluster.touched(cluster.trust_domains, elsewhere) == set()


def test_every_trust_domain_is_due_when_the_default_moves() -> None:
    cluster = everything(a_trust_domain("other.org"))
    change = cluster.put(a_trust_domain("other.org", default=True, generation=2))
    assert cluster.touched(cluster.trust_domains, change) == {DOMAIN, Ref("TrustDomain", "", "other.org")}


def test_identities_are_counted_by_trust_domain() -> None:
    cluster = everything(
        a_ready(an_identity("a")),
        an_identity("b", trustDomain="example.org"),
        an_identity("c", trustDomain="other.org"),
    )
    assert (cluster.domain().identities_total, cluster.domain().identities_ready) == (3, 1)


def test_the_count_is_due_when_readiness_changes() -> None:
    cluster = everything()
    assert cluster.touched(cluster.trust_domains, cluster.put(a_ready(an_identity()))) == {DOMAIN}
    assert cluster.touched(cluster.trust_domains, cluster.put(a_ready(an_identity(generation=2)))) == set()
    assert cluster.touched(cluster.trust_domains, cluster.drop(ORDERS)) == {DOMAIN}


def test_both_counts_are_due_when_an_identity_moves() -> None:
    cluster = everything(a_trust_domain("other.org"))
    change = cluster.put(an_identity(trustDomain="other.org", generation=2))
    assert cluster.touched(cluster.trust_domains, change) == {DOMAIN, Ref("TrustDomain", "", "other.org")}


def test_a_second_default_is_told_which_one_is_older() -> None:
    cluster = everything(a_trust_domain("other.org", default=True, created=NOW - days(1)))
    assert cluster.domain("other.org").other_default == "example.org"
    assert cluster.domain().other_default is None


def test_live_leaves_are_known_by_their_issuer() -> None:
    snapshot = everything().domain()
    (ends,) = snapshot.leaf_ends.values()
    issued = an_issued_secret().certificate
    assert issued is not None
    assert ends == [issued.not_after]


def test_where_the_bundle_is_and_is_not_is_seen() -> None:
    cluster = everything(a_namespace("empty"))
    assert (cluster.domain().targets.selected, cluster.domain().targets.carrying) == (1, 0)
    place = "example.org.trust-bundle"
    cluster.put(a_config_map())
    assert cluster.domain().targets.blocked == ((NAMESPACE, f"ConfigMap {place} was not made by this operator"),)
    bundle = a_record().bundle()
    cluster.put(a_config_map(owners=[owner_of(DEFAULT)], data={"bundle.pem": bundle.pem}))
    assert (cluster.domain().targets.carrying, cluster.domain().targets.blocked) == (1, ())


def test_a_trust_domain_is_due_when_a_foreign_config_map_is_found_in_the_place_of_its_bundle() -> None:
    cluster = everything()
    assert cluster.touched(cluster.trust_domains, cluster.put(a_config_map())) == {DOMAIN}


# --- bundles ---


def test_a_bundle_is_due_when_its_config_map_changes_whoever_made_it() -> None:
    cluster = everything()
    assert cluster.touched(cluster.bundles, cluster.put(a_config_map())) == {BUNDLE}
    assert cluster.touched(cluster.bundles, cluster.put(a_config_map("something-else"))) == set()


def test_every_bundle_is_due_when_the_record_or_the_trust_domain_changes() -> None:
    cluster = everything(a_namespace("web"))
    both = {BUNDLE, Ref("TrustBundle", "web", "example.org")}
    assert cluster.touched(cluster.bundles, cluster.put(a_record_secret(a_record(an_authority(number=1))))) == both
    assert cluster.touched(cluster.bundles, cluster.put(a_trust_domain(default=True, generation=2))) == both


def test_a_namespaces_bundles_are_due_with_its_first_and_its_last_identity() -> None:
    cluster = everything()
    assert cluster.touched(cluster.bundles, cluster.drop(ORDERS)) == {BUNDLE}
    assert cluster.touched(cluster.bundles, cluster.put(an_identity())) == {BUNDLE}


def test_a_bundle_is_due_when_an_identity_moves_to_its_trust_domain() -> None:
    cluster = everything()
    assert cluster.touched(cluster.bundles, cluster.put(an_identity(trustDomain="example.org"))) == {BUNDLE}


@pytest.mark.parametrize(
    ("namespaces", "selected"),
    [
        ({"withIdentities": True}, {NAMESPACE: True, "web": False}),
        ({"all": True}, {NAMESPACE: True, "web": True}),
        ({"selector": {"matchLabels": {"bundle": "yes"}}}, {NAMESPACE: False, "web": True}),
    ],
)
def test_namespaces_are_selected_as_the_spec_says(namespaces: dict[str, Any], selected: dict[str, bool]) -> None:
    domain = a_trust_domain(default=True, bundle={"namespaces": namespaces}, generation=2)
    cluster = everything(a_namespace("web", bundle="yes"), domain)
    for namespace, expected in selected.items():
        snapshot = cluster.bundle(namespace)
        assert snapshot is not None
        assert snapshot.selected is expected


def test_a_namespace_that_is_gone_or_going_gets_no_bundle() -> None:
    assert Cluster(DEFAULT).bundle() is None
    leaving = a_namespace()
    assert Cluster(DEFAULT, replace(leaving, meta=replace(leaving.meta, deleting=True))).bundle() is None
