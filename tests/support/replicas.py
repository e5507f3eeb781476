"""Bundle server replicas without sockets: each with a cache that news may or may not reach, and a leader that records."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tests.support.certificates import a_root
from tests.support.clock import FakeClock
from zerotrust.bundleserver.publisher import Publisher
from zerotrust.bundleserver.shelf import Bundle, Kind, Place, Shelf
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION, Ref
from zerotrust.common.plan import Plan
from zerotrust.engine.bundles import BundleRecordController
from zerotrust.engine.cache import Cache
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.kube.observe import Observer
from zerotrust.opabundle import signing
from zerotrust.opabundle.signing import SigningKey
from zerotrust.pki import x509 as profiles
from zerotrust.policy import acceptance, reading
from zerotrust.trustdomain.authority import KeyRing
from zerotrust.trustdomain.bundle import PEM_KEY

OPERATOR = "zerotrust-system"
KEY = signing.create()
RECORD = Ref("ConfigMap", OPERATOR, naming.bundle_record_name("shop"))


class Replica:
    """A cache, what follows from it, and a shelf; `confirmed` stands still until a test moves it."""

    def __init__(self, clock: FakeClock) -> None:
        self.cache, self.shelf = Cache(), Shelf()
        self.observe = Observer(OPERATOR, KeyRing())
        domains = TrustDomains(self.cache, OPERATOR)
        self.book = PolicyBook(self.cache, domains, clock)
        self.contents = BundleContents(self.cache, self.book, domains, clock)
        self.keys: dict[str, SigningKey] = {KEY.id: KEY}
        self.confirmed: datetime | None = clock.now()
        self.publisher = Publisher(self.contents, self.shelf, lambda: self.keys, lambda _: self.confirmed, OPERATOR)
        self.cache.listen(self.publisher.changed)

    def hear(self, body: Mapping[str, Any]) -> None:
        self.cache.put(self.observe(body["kind"], body))

    async def publish(self) -> None:
        await self.publisher.publish_due()

    def policy(self, key: SigningKey = KEY) -> Bundle | None:
        return self.shelf.get(Place(key.id, "shop", Kind.POLICY))

    def held(self) -> str:
        found = [why for place, _, why in self.shelf.places() if place.kind is Kind.POLICY]
        return found[0] if found else ""


class Cluster:
    """Objects as the API server has them, a leader that hears everything, and replicas that hear what tests let through."""

    def __init__(self, replicas: int = 2) -> None:
        self.clock = FakeClock()
        self.leader = Replica(self.clock)
        self.replicas = [Replica(self.clock) for _ in range(replicas)]
        self._versions = 0
        self.enforcement = Enforcement(self.leader.cache, self.leader.contents, OPERATOR, self.clock)
        self._controller = BundleRecordController(self.leader.cache, self.leader.contents, self.enforcement, self.clock)

    def body(self, kind: str, name: str, namespace: str = "", api: str = API_VERSION, **fields: Any) -> dict[str, Any]:
        self._versions += 1
        metadata = {
            "name": name,
            "uid": f"{kind}-{namespace}-{name}",
            "resourceVersion": str(self._versions),
            "generation": self._versions,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **fields.pop("metadata", {}),
        }
        if namespace:
            metadata["namespace"] = namespace
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}

    def tell(self, body: Mapping[str, Any], *deaf: Replica) -> None:
        """Let everybody but the deaf hear of an object."""
        for replica in (self.leader, *self.replicas):
            if replica not in deaf:
                replica.hear(body)

    def populate(self, **bundles: str) -> None:
        self.tell(self.body("TrustDomain", "example.org", spec={"default": True, "policyBundles": bundles}))
        for name in (OPERATOR, "shop", "web"):
            self.tell(self.body("Namespace", name, api="v1"))
        identities = (("shop", "orders"), ("web", "frontend"), ("web", "batch"), (OPERATOR, naming.BUNDLE_SERVER))
        for namespace, name in identities:
            self.tell(self.body("ServiceIdentity", name, namespace, spec={}))
        labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_TRUST_BUNDLE}
        data = {PEM_KEY: profiles.write_pem(a_root().certificate).decode()}
        name = naming.trust_bundle_name("example.org")
        self.tell(self.body("ConfigMap", name, OPERATOR, api="v1", metadata={"labels": labels}, data=data))

    def allow(self, client: str, *deaf: Replica, name: str = "orders") -> None:
        """Accept a policy that lets one client of namespace web read orders."""
        peer = {"workload": {"namespace": "web", "name": client}}
        rule = {"name": "reads", "from": [peer], "to": [{"port": 8443, "methods": ["GET"]}]}
        body = self.body("TrustPolicy", name, "shop", spec={"target": {"identities": ["orders"]}, "rules": [rule]})
        policy = reading.observe(body)
        assert policy.spec.spec is not None
        apply = acceptance.remember(policy, policy.spec.spec, self._versions, OPERATOR)
        self._versions += 1
        metadata = {**apply.manifest["metadata"], "uid": f"r-{self._versions}", "resourceVersion": str(self._versions)}
        self.tell(body, *deaf)
        self.tell({**apply.manifest, "metadata": metadata}, *deaf)

    def decide(self) -> Plan:
        """What the leader's controller would do about the record now."""
        return self._controller.reconcile(self._controller.snapshot(RECORD), self.clock.now())

    def record(self, *deaf: Replica) -> None:
        """Let the leader record what is to be served now."""
        self.carry_out(self.decide(), *deaf)

    def carry_out(self, plan: Plan, *deaf: Replica) -> None:
        """Make a plan about the record true."""
        for apply in plan.applies:
            metadata = {**apply.manifest["metadata"]}
            name, namespace = metadata.pop("name"), metadata.pop("namespace")
            self.tell(
                self.body("ConfigMap", name, namespace, api="v1", metadata=metadata, data=apply.manifest["data"]), *deaf
            )

    async def publish(self) -> None:
        for replica in self.replicas:
            await replica.publish()

    def later(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
