"""Who waits for a key to be served hears of it, whatever changes while its record is being written."""

from datetime import datetime, timedelta

from tests.support.replicas import OPERATOR, Cluster
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Key, Memory, encode
from zerotrust.apikey.snapshot import Acknowledged, NotServed
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.opabundle import record

KEY = KeyID("AAAAAAAAAAAA")
PARTNER = Ref("ApiKey", "shop", "partner")


def remember(cluster: Cluster, delivered: datetime | None = None) -> None:
    now = cluster.clock.now()
    key = Key(KEY, Digest("sha256:" + "0" * 64), now, now + timedelta(days=1), delivered)
    name, labels = naming.api_keys_name("shop"), {naming.MANAGED_BY: naming.OPERATOR}
    labels[naming.COMPONENT] = naming.COMPONENT_API_KEYS
    data = {f"ApiKey-shop-{PARTNER.name}": encode(Memory(PARTNER.name, (key,)))}
    cluster.tell(cluster.body("ConfigMap", name, OPERATOR, api="v1", metadata={"labels": labels}, data=data))


def test_a_key_that_was_noted_by_nobody_when_its_record_was_written_is_noted_afterwards() -> None:
    cluster = Cluster(replicas=1)
    cluster.populate()
    cluster.tell(
        cluster.body(
            "ApiKey", PARTNER.name, "shop", spec={"holder": {"name": "them"}, "audience": ["orders"], "scopes": []}
        )
    )
    cluster.record()
    assert cluster.enforcement.reach("shop", KEY) == NotServed()
    cluster.enforcement.waiting["shop"] = {PARTNER}
    cluster.later(1)
    remember(cluster)

    plan = cluster.decide()
    remember(
        cluster, delivered=cluster.clock.now()
    )  # says the same to decision points, while the record is being written
    cluster.carry_out(plan)
    report(cluster)
    assert cluster.enforcement.reach("shop", KEY) == NotServed()

    assert [touch.ref for touch in cluster.decide().touches] == [PARTNER]
    assert cluster.enforcement.reach("shop", KEY) == Acknowledged()
    assert not cluster.decide().touches


def report(cluster: Cluster) -> None:
    """Say that one bundle server serves what is recorded."""
    recorded = record.read(cluster.leader.cache.get(Ref("ConfigMap", OPERATOR, naming.bundle_record_name("shop"))))
    served = ",".join(f'"{kind}":{entry.serial}' for kind, entry in recorded.items())
    labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_BUNDLE_REPORT}
    data = {"shop": f'{{"points":[],"served":{{{served}}}}}'}
    name = f"{naming.REPORT_PREFIX}replica-0"
    cluster.tell(cluster.body("ConfigMap", name, OPERATOR, api="v1", metadata={"labels": labels}, data=data))
