"""`make bench-constraints`: from a TrustPolicy to constraints that a real Gatekeeper enforces, what that writes, many identities
at once, and a restart.

Control plane, Gatekeeper and controller are real processes; Gatekeeper audits once a minute, as it does by default. There are no
pods but those that are asked about (`dryRun=All`).
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hack.bench.cluster import (
    OPERATOR_NAMESPACE,
    ControllerProcess,
    ensure,
    identity,
    namespace,
    say,
    service_account,
    sources,
    spread,
    writes,
)
from hack.bench.workloads import CRDS, TRUST_DOMAIN, table
from hack.controlplane import ControlPlane
from hack.gatekeeper import Gatekeeper
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION, Ref
from zerotrust.gatekeeper.observed import Constraint, constraint
from zerotrust.gatekeeper.templates import CREDENTIALS, TEMPLATES
from zerotrust.kube.client import Client, load_configuration
from zerotrust.kube.errors import Forbidden, Invalid, KubeError
from zerotrust.kube.resources import CONFIG_MAPS, CONSTRAINTS, PODS
from zerotrust.telemetry.metrics import Metrics

AUDIT_SECONDS = 60
QUIET = 2.0  # longer than what a change is put off by
EVENTS_QUIET = 6.0  # longer than the delay after which counts of events are written
AFTER_RESTART = 30.0  # kopf's own listing and the comparison after it belong to a restart
PATIENCE = 600.0
ASKED = 100
OTHERS = "present"  # a policy that is there all the time, so that a run changes constraints and does not make the first

Delta = Counter[tuple[str, str]]
CONSTRAINT_RESOURCES = frozenset(one.plural for one in CONSTRAINTS)
# Nobody but the operator writes these; Gatekeeper writes statuses of constraints, its own kinds, and admission policies.
OPERATORS = CONSTRAINT_RESOURCES | {
    *("trustpolicies/status", "serviceidentities/status", "trustdomains/status"),
    *("networkpolicies", "controllerrevisions", "configmaps", "secrets", "events"),
}
GATEKEEPERS = ("gatekeeper.sh", "constrainttemplate", "zerotrust", "constraintpodstatuses", "validatingadmissionpolic")


class Controller(ControllerProcess):
    """One that does not wait for API servers with other policies with parameters: here there are none."""

    def _options(self) -> list[str]:
        return ["--native-policies-after", "1"]


class Bench:
    """One run: `small` is a namespace with a few identities, `large` gets many at once."""

    small, large = "bench-small", "bench-large"

    def __init__(self, plane: ControlPlane, client: Client, given: argparse.Namespace, folder: Path) -> None:
        self.plane, self.client = plane, client
        self.runs, self.counted = given.runs, min(given.runs, given.counted)
        self.neighbours, self.identities = given.neighbours, given.identities
        self.controller = Controller(plane, Path(given.log or folder / "controller.log"))

    def names(self, space: str) -> list[str]:
        """The identities of a namespace."""
        count = self.neighbours if space == self.small else self.identities
        return [f"workload-{number:05d}" for number in range(count)]

    async def populate(self, space: str) -> None:
        """A namespace and its ServiceAccounts."""
        await ensure(self.client, namespace(space))
        await spread([partial(ensure, self.client, service_account(space, name)) for name in self.names(space)])

    async def prepare(self) -> None:
        """Everything before the first identity, and a controller that has nothing to do."""
        self.plane.kubectl("apply", "-f", str(CRDS))
        self.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        await ensure(self.client, namespace(OPERATOR_NAMESPACE))
        domain = {"apiVersion": API_VERSION, "kind": "TrustDomain", "metadata": {"name": TRUST_DOMAIN}, "spec": {}}
        await ensure(self.client, domain)
        for space in (self.small, self.large):
            await self.populate(space)
        self.controller.start()
        await self.controller.wait(self.controller.ready, "the controller")

    async def create(self, space: str) -> tuple[float, float]:
        """Create the identities of a namespace; seconds until all are Ready, and until their constraints are in force."""
        names = self.names(space)
        present = self.controller.metric("zerotrust_identities", ready="True")
        started = time.monotonic()

        async def ready() -> float:
            told = partial(self.controller.metric, "zerotrust_identities", ready="True")
            await self.controller.wait(lambda: told() >= present + len(names), "all identities")
            return time.monotonic() - started

        async def enforced() -> float:
            while not all_enforced(await self.constraints(space), len(names)):
                if time.monotonic() - started > PATIENCE:
                    raise RuntimeError(f"the constraints about {space} are not in force after {PATIENCE:.0f} s")
                await asyncio.sleep(0.2)
            return time.monotonic() - started

        creating = spread([partial(self.client.create, identity(space, name, TRUST_DOMAIN)) for name in names])
        _, *seconds = await asyncio.gather(creating, ready(), enforced())
        return seconds[0], seconds[1]

    async def bodies(self, space: str) -> list[dict[str, Any]]:
        """Every constraint about a namespace."""
        found = []
        for resource in CONSTRAINTS:
            async for page, _ in self.client.list(resource):
                found += [{"kind": resource.kind, **one} for one in page]
        return [one for one in found if one["metadata"]["labels"].get(naming.NAMESPACE) == space]

    async def constraints(self, space: str) -> list[Constraint]:
        """The same as the controller reads them; none while a kind does not exist."""
        try:
            return [constraint(one) for one in await self.bodies(space)]
        except KubeError:
            return []

    async def settled(self, quiet: float = QUIET) -> None:
        """Wait until the operator has nothing left to write."""
        await self.controller.wait(self.controller.ready, "an empty queue")
        before = -1.0
        while (now := self.controller.written()) != before:
            before = now
            await asyncio.sleep(quiet)

    async def enforced(self, place: Ref) -> float:
        """When (monotonic) a policy says ConstraintsEnforced=True about its present generation."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            body = await self.client.get(place)
            found = {one["type"]: one for one in body.get("status", {}).get("conditions", ())}
            told = found.get("ConstraintsEnforced", {})
            if told.get("status") == "True" and told["observedGeneration"] == body["metadata"]["generation"]:
                return time.monotonic()
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{place} is not enforced: {told.get('reason')} {told.get('message')}")

    async def asked(self, space: str, name: str, *, refused: bool) -> float:
        """When (monotonic) a pod with a foreign image is refused, or admitted again."""
        metadata = {"name": "probe", "namespace": space, "labels": {naming.SERVICE_ACCOUNT: name}}
        spec = {"serviceAccountName": name, "containers": [{"name": "main", "image": "foreign.example.org/app"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            said = ""
            try:
                await self.client._request("POST", PODS.collection(space), "ask", params={"dryRun": "All"}, body=pod)
            except (Forbidden, Invalid) as error:
                said = str(error)
                if "TrustPolicy " not in said:
                    raise
            if bool(said) == refused:
                return time.monotonic()
            await asyncio.sleep(0.02)
        raise RuntimeError(f"the pod of {space}/{name} was {'never' if refused else 'always'} refused")

    async def written(self) -> tuple[Delta, float]:
        """All writes as the API server counts them, and the operator's as it counts them itself; nothing between the two."""
        while True:
            own = self.controller.written()
            found = writes(self.plane)
            if self.controller.written() == own:
                return found, own

    async def one_run(self, space: str, name: str, number: int) -> tuple[float, float, Delta | None]:
        """A policy that comes and goes: seconds until it says so, until a pod is refused, and writes, if they are counted."""
        place, quiet = Ref("TrustPolicy", space, f"run-{number:03d}"), EVENTS_QUIET if number < self.counted else QUIET
        await self.settled(quiet)
        before, told = await self.written()
        await self.client.create(policy(place, name))
        started = time.monotonic()
        enforced, refused = await asyncio.gather(self.enforced(place), self.asked(space, name, refused=True))
        delta = None
        if number < self.counted:
            await self.settled(quiet)
            after, own = await self.written()
            delta = after - before
            if sum(operators(delta).values()) != own - told:
                raise RuntimeError(
                    f"the operator counts {own - told:.0f} writes, the API server {said(operators(delta))}"
                )
        await self.client.delete(place)
        await self.asked(space, name, refused=False)
        return enforced - started, refused - started, delta

    async def measure_runs(self, space: str) -> list[str]:
        """The rows about single policies in a namespace, one after the other."""
        names = self.names(space)
        first = Ref("TrustPolicy", space, OTHERS)
        await self.settled()
        await self.client.create(policy(first, names[0]))
        started = time.monotonic()
        alone = await self.enforced(first) - started
        found = []
        for number in range(self.runs):
            found.append(await self.one_run(space, names[1 + number % (len(names) - 1)], number))
            enforced, refused, delta = found[-1]
            counted = f", {sum(operators(delta).values())} writes" if delta is not None else ""
            say(f"{space}, run {number}: enforced {enforced:.2f} s, refused {refused:.2f} s{counted}")
        deltas = [one[2] for one in found if one[2] is not None]
        sums = [sum(operators(one).values()) for one in deltas]
        total, rest = sum(map(operators, deltas), Delta()), sum(map(gatekeepers, deltas), Delta())
        where, counted = (
            f"{len(names)} identities",
            f"n={len(deltas)} median {statistics.median(sums):.0f}, most {max(sums)}",
        )
        return [
            f"| TrustPolicy to `ConstraintsEnforced=True`, {where} | {spoken([one[0] for one in found])} |",
            f"| TrustPolicy to the first refusal of a violating pod, {where} | {spoken([one[1] for one in found])} |",
            f"| the first policy of the namespace, {where} | {alone:.2f} s |",
            f"| **API writes of the operator per policy**, {where} | {counted}: {said(total, len(deltas))} |",
            f"| API writes of Gatekeeper per policy, {where} | {said(rest, len(deltas))} |",
        ]

    async def cost(self, space: str) -> str:
        """CPU of the API server for one create of something that no constraint is about, in a namespace; the median of 3."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": space}}
        ask = partial(self.client._request, "POST", CONFIG_MAPS.collection(space), "ask", body=body)
        spent = []
        for _ in range(3):
            before = cpu_seconds(self.plane)
            await spread([partial(ask, params={"dryRun": "All"})] * ASKED, 4)
            spent.append((cpu_seconds(self.plane) - before) / ASKED * 1000)
        return f"{statistics.median(spent):.1f} ms"

    async def measure_wave(self) -> list[str]:
        """The rows about many identities at once."""
        await self.settled(EVENTS_QUIET)
        before, told = await self.written()
        ready, enforced = await self.create(self.large)
        await self.settled(EVENTS_QUIET)
        after, own = await self.written()
        delta = after - before
        count = self.identities
        made = of_constraints(delta)
        bodies = await self.bodies(self.large)
        largest = max(bodies, key=lambda one: size(one["spec"]))
        usage = self.controller.usage()
        costs = [await self.cost(space) for space in ("default", self.small, self.large)]
        rest = Delta({one: number for one, number in operators(delta).items() if one not in made})
        return [
            f"| identities at once in one namespace | {count} |",
            f"| until all are Ready; until all their constraints are in force | {ready:.2f} s; {enforced:.2f} s |",
            f"| **constraint writes in all** | **{sum(made.values())}** ({len(bodies)} constraints): {said(made)} |",
            f"| other writes for each identity | {said(rest, count)} |",
            f"| the operator's own count of both | {own - told:.0f}, by the API server {sum(operators(delta).values())} |",
            f"| largest constraint ({largest['kind']}), its spec | {size(largest['spec'])} B |",
            f"| largest object, Gatekeeper's status included | {max(map(size, bodies))} B |",
            f"| API writes of Gatekeeper in the same time | {said(gatekeepers(delta))} |",
            f"| CPU of the API server to create a ConfigMap: no, {self.neighbours}, {count} identities | {', '.join(costs)} |",
            f"| controller peak RSS, CPU so far | {usage.peak_mib:.0f} MiB, {usage.cpu_seconds:.1f} s |",
        ]

    async def measure_restart(self) -> list[str]:
        """The rows about a restart with everything in force."""
        await self.settled(EVENTS_QUIET)
        self.controller.stop()
        before = writes(self.plane)
        self.controller.start()
        serving = await self.controller.wait(self.controller.serving, "the restarted controller's caches")
        empty = serving + await self.controller.wait(self.controller.ready, "the restarted controller")
        await asyncio.sleep(AFTER_RESTART)
        found = operators(writes(self.plane) - before)
        return [
            f"| restart until /readyz; until leading with an empty queue | {serving:.2f} s; {empty:.2f} s |",
            f"| **API writes of the operator at restart** (Lease apart) | **{sum(found.values())}**: {said(found)} |",
            f"| the operator's own count of them | {self.controller.written():.0f} |",
            f"| controller peak RSS after the restart | {self.controller.usage().peak_mib:.0f} MiB |",
        ]


def policy(place: Ref, target: str) -> dict[str, Any]:
    """One caller, one port, and images from one registry."""
    rule = {"name": "anyone", "from": [{"anyWorkload": {}}], "to": [{"port": 8443}]}
    admission = {"allowedRegistries": ["registry.example.org"]}
    spec = {"target": {"identities": [target]}, "rules": [rule], "admission": admission}
    metadata = {"name": place.name, "namespace": place.namespace}
    return {"apiVersion": API_VERSION, "kind": "TrustPolicy", "metadata": metadata, "spec": spec}


def all_enforced(found: list[Constraint], identities: int) -> bool:
    """Whether the Secrets of so many identities are guarded, and Gatekeeper's pods have the present generation of everything."""
    guarded = sum(len(one.parameters.get("secrets") or {}) for one in found if one.meta.ref.kind == CREDENTIALS)
    return guarded == identities and all(
        one.pods
        and any(pod.native for pod in one.pods)
        and all(pod.enforced and pod.generation == one.meta.generation and not pod.errors for pod in one.pods)
        for one in found
    )


def cpu_seconds(plane: ControlPlane) -> float:
    """What the API server has used so far."""
    lines = plane.metrics().splitlines()
    return next(float(one.split()[1]) for one in lines if one.startswith("process_cpu_seconds_total "))


def operators(delta: Delta) -> Delta:
    """The operator's writes."""
    return Delta({one: number for one, number in delta.items() if one[1] in OPERATORS})


def gatekeepers(delta: Delta) -> Delta:
    """Gatekeeper's writes: what belongs to its API and is not the operator's."""
    return Delta(
        {
            one: number
            for one, number in delta.items()
            if one[1] not in OPERATORS
            and (one[1].startswith(GATEKEEPERS) or one[1].split("/")[0] in CONSTRAINT_RESOURCES)
        }
    )


def of_constraints(delta: Delta) -> Delta:
    """The writes of constraints, without Gatekeeper's of their status."""
    return Delta({one: number for one, number in delta.items() if one[1] in CONSTRAINT_RESOURCES})


def size(body: object) -> int:
    """Bytes of JSON as it is sent."""
    return len(json.dumps(body, separators=(",", ":")).encode())


def spoken(times: list[float]) -> str:
    """Seconds as in the other benchmarks."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return f"n={len(times)} p50 {statistics.median(times):.2f} s, p99 {p99:.2f} s, longest {ordered[-1]:.2f} s"


def said(delta: Delta, count: int = 1) -> str:
    """Verbs and resources with their number, or their number for each."""
    show: Callable[[int], str] = str if count == 1 else lambda number: f"{number / count:.3f}"
    return (
        ", ".join(f"{verb} {resource} {show(number)}" for (verb, resource), number in sorted(delta.items())) or "none"
    )


async def measure(plane: ControlPlane, given: argparse.Namespace, folder: Path) -> list[str]:
    """One run over one control plane."""
    configuration = await load_configuration(str(plane.kubeconfig))
    async with Client(configuration, Metrics(), timeout=120) as client:
        bench, loaded = Bench(plane, client, given, folder), sources()
        try:
            await bench.prepare()
            say(f"{bench.neighbours} identities")
            ready, enforced = await bench.create(bench.small)
            kinds = f"{ready:.2f} s; {enforced:.2f} s, with {len(TEMPLATES)} templates that were new"
            lines = [f"| {bench.neighbours} identities until Ready; until in force | {kinds} |"]
            lines += await bench.measure_runs(bench.small)
            say(f"{bench.identities} identities at once")
            lines += await bench.measure_wave()
            lines += await bench.measure_runs(bench.large)
            say("restart")
            lines += await bench.measure_restart()
        finally:
            bench.controller.stop()
    changed = ["| **not valid** | the operator's sources were edited during the run |"] if sources() != loaded else []
    return changed + lines


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="policies, one after the other, in each namespace")
    parser.add_argument(
        "--counted", type=int, default=5, help="runs whose writes are counted; each takes 15 seconds more"
    )
    parser.add_argument("--neighbours", type=int, default=10, help="identities of the small namespace; at least 2")
    parser.add_argument(
        "--identities", type=int, default=1000, help="identities at once in the large namespace; at least 2"
    )
    parser.add_argument("--log", help="where the controller's log goes; default: a temporary file")
    given = parser.parse_args()
    if min(given.neighbours, given.identities) < 2 or min(given.runs, given.counted) < 1:
        parser.error("--neighbours and --identities are at least 2, --runs and --counted at least 1")
    with (
        tempfile.TemporaryDirectory(prefix="zerotrust-bench-") as name,
        ControlPlane() as plane,
        Gatekeeper(plane, Path(name) / "gatekeeper", AUDIT_SECONDS),
    ):
        print(table(asyncio.run(measure(plane, given, Path(name)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
