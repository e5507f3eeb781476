"""Which identities a remembered cut-off is about, and how it comes into a decision about them."""

from datetime import datetime

from tests.support.builders import IDENTITY, NAMESPACE, NOW, OPERATOR_NAMESPACE, a_trust_domain, an_identity, hours
from tests.unit.engine.test_domain_controllers import ORDERS, everything
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.opabundle.revocations import RevocationsSnapshot, reconcile_revocations
from zerotrust.pki.spiffe import SpiffeID

MEMORY = Ref("ConfigMap", OPERATOR_NAMESPACE, naming.REVOCATIONS)
OTHERS = SpiffeID.of_service_account("example.org", NAMESPACE, "payments")
MINE = SpiffeID.of_service_account("example.org", NAMESPACE, IDENTITY)


def memory(asked: dict[SpiffeID, datetime], namespace: str = OPERATOR_NAMESPACE) -> ConfigMap:
    plan = reconcile_revocations(RevocationsSnapshot(MEMORY, None, asked), NOW)
    body = dict(plan.applies[0].manifest)
    return config_map({**body, "metadata": {**body["metadata"], "namespace": namespace, "uid": "uid"}})


def test_a_remembered_cutoff_comes_into_the_decision_of_its_identity_only() -> None:
    cluster = everything(memory({MINE: NOW - hours(1), OTHERS: NOW - hours(2)}))
    assert cluster.identity().remembered_cutoff == NOW - hours(1)
    cluster.put(memory({OTHERS: NOW - hours(2)}))
    assert cluster.identity().remembered_cutoff is None


def test_a_memory_outside_the_operators_namespace_counts_for_nothing() -> None:
    cluster = everything(memory({MINE: NOW - hours(1)}, NAMESPACE))
    assert cluster.identity().remembered_cutoff is None


def test_a_cutoff_of_the_same_place_in_another_cluster_of_the_trust_domain_is_another_ids() -> None:
    cluster = everything(memory({MINE: NOW - hours(1)}))
    cluster.put(a_trust_domain(default=True, clusterName="west", generation=2))
    assert cluster.identity().remembered_cutoff is None


def test_an_identity_is_due_when_its_own_cutoff_changes() -> None:
    cluster = everything(memory({OTHERS: NOW - hours(2)}))
    assert cluster.touched(cluster.identities, cluster.put(memory({OTHERS: NOW - hours(1)}))) == set()
    both = memory({OTHERS: NOW - hours(1), MINE: NOW - hours(1)})
    assert cluster.touched(cluster.identities, cluster.put(both)) == {ORDERS}
    assert cluster.touched(cluster.identities, cluster.drop(MEMORY)) == {ORDERS}


def test_an_identity_that_is_created_anew_finds_the_cutoff_of_its_predecessor() -> None:
    cluster = everything(memory({MINE: NOW - hours(1)}))
    cluster.drop(ORDERS)
    cluster.put(an_identity(uid="another"))
    assert cluster.identity().remembered_cutoff == NOW - hours(1)
