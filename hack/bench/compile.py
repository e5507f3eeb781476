"""`make bench`, policies without a cluster: what compiling all tables costs, and what one edit costs, in CPU time of one run."""

import itertools
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from zerotrust.common import naming, observed
from zerotrust.common.naming import API_VERSION, Ref
from zerotrust.common.observed import custom_resource
from zerotrust.engine.admission import AdmissionBook
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import SystemClock
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.isolation import NamespaceIsolation
from zerotrust.engine.pods import Pods
from zerotrust.engine.policies import NetworkPolicyController, TrustPolicyController
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy import acceptance, isolation, reading
from zerotrust.policy.directory import Workload

OPERATOR = "zerotrust-system"
NAMESPACES = 100
CLIENTS_OF_EACH = 5
PORTS = 2


class World:
    """Policies, each about an identity of its own, over the controller's own cache and indexes."""

    def __init__(self, policies: int) -> None:
        self.cache = Cache()
        domains = TrustDomains(self.cache, OPERATOR)
        self._versions = itertools.count(1)
        self.clock = SystemClock()
        self.book = PolicyBook(self.cache, domains, self.clock)
        self.networks = NetworkPolicyController(
            self.cache, self.book, domains, NamespaceIsolation(self.cache, domains), self.clock
        )
        contents = BundleContents(self.cache, self.book, domains, self.clock)
        enforcement = Enforcement(self.cache, contents, OPERATOR, self.clock)
        pods = Pods(self.cache, watched=False)
        admission = AdmissionBook(self.cache, self.book, contents.keys, pods, self.clock, timedelta())
        self.policies = TrustPolicyController(self.cache, self.book, self.networks, enforcement, admission, self.clock)
        self.touched: set[Ref] = set()
        self.places = [Workload(f"ns-{n % NAMESPACES:03d}", f"workload-{n:05d}") for n in range(policies)]
        for name in (OPERATOR, *(f"ns-{n:03d}" for n in range(NAMESPACES))):
            self.put(observed.plain("Namespace", self.body("Namespace", "", name, {})))
        for place in self.places:
            body = self.body("ServiceIdentity", *place, {})
            self.put(custom_resource("ServiceIdentity", ServiceIdentitySpec, body))
        for number in range(policies):
            self.apply(number, self.spec(number))
        self.cache.listen(self._listen)

    def body(self, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """An object as the API server has it."""
        version = str(next(self._versions))
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": f"{kind}-{namespace}-{name}",
            "resourceVersion": version,
        }
        return {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {**metadata, "generation": int(version)},
            "spec": spec,
        }

    def put(self, one: Any) -> None:
        """Take an object in."""
        self.cache.put(one)

    def spec(self, number: int, clients: int = CLIENTS_OF_EACH) -> dict[str, Any]:
        """A policy of `clients` x PORTS rows."""
        chosen = [self.places[(number * 7 + offset * 131) % len(self.places)] for offset in range(clients)]
        peers = [{"workload": {"namespace": one.namespace, "name": one.name}} for one in chosen]
        ports = [{"port": 8000 + offset, "methods": ["GET"], "paths": ["/api/**"]} for offset in range(PORTS)]
        rule = {"name": "callers", "from": peers, "to": ports}
        return {"target": {"identities": [self.places[number].name]}, "rules": [rule]}

    def apply(self, number: int, spec: dict[str, Any]) -> None:
        """Edit a policy and accept it: the two changes that the controller sees."""
        place = self.places[number]
        policy = reading.observe(self.body("TrustPolicy", place.namespace, place.name, spec))
        self.put(policy)
        assert policy.spec.spec is not None
        apply = acceptance.remember(policy, policy.spec.spec, int(policy.meta.resource_version), OPERATOR)
        manifest = dict(apply.manifest)
        manifest["metadata"] = {
            **manifest["metadata"],
            "uid": f"revision-{place}",
            "resourceVersion": policy.meta.resource_version,
        }
        self.put(reading.observe_revision(manifest))

    def _listen(self, change: Change) -> None:
        self.touched |= {one.ref for one in self.networks.touched_by(change)}
        list(self.policies.touched_by(change))

    def compile(self, places: list[Workload]) -> int:
        """Compile the tables of workloads and the network policies that follow; returns the number of rows."""
        rows, now = 0, datetime.now(UTC)
        for place in places:
            identity = self.book.identity(place)
            assert identity is not None
            rows += len(self.book.table(identity).rows)
            isolation.wanted(self.networks.snapshot(Ref("NetworkPolicy", place.namespace, f"zt-{place.name}")), now)
        return rows


def measure(policies: int, edits: int) -> list[str]:
    """Return the lines of the table."""
    world = World(policies)
    started = time.process_time()
    rows = world.compile(world.places)
    full = time.process_time() - started
    costs = []
    for number in range(edits):
        world.touched.clear()
        started = time.process_time()
        world.apply(number * 37 % policies, world.spec(number * 37 % policies, CLIENTS_OF_EACH - 1))
        places = [Workload(ref.namespace, ref.name.removeprefix(naming.NETWORK_POLICY_PREFIX)) for ref in world.touched]
        world.compile(places)
        costs.append(time.process_time() - started)
        assert len(places) == 1, places
    typical, worst = statistics.median(costs), max(costs)
    return [
        f"| policies, rows | {policies}, {rows} |",
        f"| full compile, with network policies, CPU | {full:.2f} s |",
        f"| one edit, CPU | median {typical * 1000:.2f} ms, longest of {edits} {worst * 1000:.2f} ms |",
        f"| **one edit as a share of all** | **1/{full / typical:.0f}** (longest 1/{full / worst:.0f}) |",
    ]


if __name__ == "__main__":
    print("\n".join(["| what | measured |", "|---|---|", *measure(5000, 200)]))
