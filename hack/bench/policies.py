"""`make bench`, policies on the local control plane: a wave of TrustPolicies against the bare client, and the repair of drift."""

import asyncio
import statistics
import time
from functools import partial
from typing import Any

from hack.bench import compile as compiling
from hack.bench.cluster import OPERATOR_NAMESPACE, ensure, identity, say, spread, writes
from hack.bench.workloads import TRUST_DOMAIN, Workloads, arguments, measured, of_each, table
from zerotrust.common.naming import API_VERSION, Ref, isolation_record_name
from zerotrust.kube.errors import NotFound
from zerotrust.kube.resources import CONTROLLER_REVISIONS, EVENTS, NETWORK_POLICIES, TRUST_POLICIES

REPAIRS = 200


class Bench(Workloads):
    """One run over one control plane."""

    def policy(self, number: int) -> dict[str, Any]:
        """A policy with a caller in its own namespace and one in another, for one port."""
        space, name = self.places[number]
        callers = [self.places[(number + offset) % self.count] for offset in (1, len(self.namespaces))]
        rule = {
            "name": "callers",
            "from": [{"workload": {"namespace": one[0], "name": one[1]}} for one in callers],
            "to": [{"port": 8443}],
        }
        spec = {"target": {"identities": [name]}, "rules": [rule]}
        return {
            "apiVersion": API_VERSION,
            "kind": "TrustPolicy",
            "metadata": {"name": name, "namespace": space},
            "spec": spec,
        }

    async def prepare(self) -> None:
        """Identities that are Ready: everything that is there before a policy is."""
        say(f"preparing {self.count} identities in {len(self.namespaces)} namespaces")
        await self.populate()
        await spread([partial(ensure, self.client, identity(*place, TRUST_DOMAIN)) for place in self.places])
        await self.start()
        ready = partial(self.controller.metric, "zerotrust_identities", ready="True")
        await self.controller.wait(lambda: ready() >= self.count, "all identities")
        await asyncio.sleep(6)

    async def start(self) -> None:
        """Start the controller and wait until it has nothing to do."""
        self.controller.start()
        await self.controller.wait(self.controller.ready, "the controller")
        await asyncio.sleep(3)

    async def clean(self) -> None:
        """Take policies and all that follows from them away, while the controller is down."""
        for name in self.namespaces:
            for kind in (TRUST_POLICIES, NETWORK_POLICIES, EVENTS):
                await self.client._request("DELETE", kind.collection(name), "clean up", body={})
            try:
                await self.client.delete(Ref("ConfigMap", OPERATOR_NAMESPACE, isolation_record_name(name)))
            except NotFound:
                continue
        await self.client._request("DELETE", CONTROLLER_REVISIONS.collection(OPERATOR_NAMESPACE), "clean up", body={})
        await asyncio.sleep(2)

    async def learn(self) -> None:
        """Let the operator program one policy, and keep what it wrote as the shape for the bare client."""
        space, name = self.places[0]
        await self.client.create(self.policy(0))
        await self.programmed(1)
        await asyncio.sleep(3)
        revisions = [body async for page, _ in self.client.list(CONTROLLER_REVISIONS) for body in page]
        self.template = {
            "policy": await self.client.get(Ref("NetworkPolicy", space, f"zt-{name}")),
            "revision": {"apiVersion": "apps/v1", "kind": "ControllerRevision", **revisions[0]},
            "status": (await self.client.get(Ref("TrustPolicy", space, name)))["status"],
        }

    async def programmed(self, count: int) -> float:
        """Wait until so many statuses say so; returns the seconds."""
        told = partial(self.controller.metric, "zerotrust_api_writes_total", kind="TrustPolicy/status", verb="patch")
        before = self.told
        seconds = await self.controller.wait(lambda: told() >= before + count, "every status")
        self.told = before + count
        return seconds

    told = 0.0

    async def raw(self) -> float:
        """The bare client makes the same writes: TrustPolicy, ControllerRevision, NetworkPolicy, status."""

        async def one(number: int) -> None:
            space, name = self.places[number]
            body = await self.client.create(self.policy(number))
            uid = body["metadata"]["uid"]
            await self.client.create(_renamed(self.template["revision"], f"tp-{uid}-1", OPERATOR_NAMESPACE))
            await self.client.create(_renamed(self.template["policy"], f"zt-{name}", space))
            patch = {"metadata": {"uid": uid}, "status": self.template["status"]}
            await self.client.patch(Ref("TrustPolicy", space, name), patch, "status")

        return await spread([partial(one, number) for number in range(self.count)])

    async def wave(self) -> float:
        """From the first create to the last NetworkProgrammed."""
        creating = spread([partial(self.client.create, self.policy(number)) for number in range(self.count)])
        _, seconds = await asyncio.gather(creating, self.programmed(self.count))
        return seconds

    async def check(self) -> None:
        """Read everything back: all programmed."""
        good = 0
        async for page, _ in self.client.list(TRUST_POLICIES):
            for body in page:
                conditions = {one["type"]: one["status"] for one in body["status"]["conditions"]}
                good += conditions["NetworkProgrammed"] == "True"
        if good != self.count:
            raise RuntimeError(f"only {good} of {self.count} policies are programmed")

    async def repairs(self) -> list[float]:
        """Damage network policies one after the other; returns the seconds from the change to its repair."""
        times = []
        for number in range(REPAIRS):
            space, name = self.places[number * 7 % self.count]
            ref = Ref("NetworkPolicy", space, f"zt-{name}")
            wanted = (await self.client.get(ref))["spec"]
            started = time.monotonic()
            if number % 2:
                await self.client.delete(ref)
            else:
                await self.client.patch(ref, {"spec": {"ingress": [{}]}})
            while await self._spec(ref) != wanted:  # noqa: ASYNC110 - an API server has no better way to be asked
                await asyncio.sleep(0.005)
            times.append(time.monotonic() - started)
        return times

    async def _spec(self, ref: Ref) -> Any:
        try:
            return (await self.client.get(ref))["spec"]
        except NotFound:
            return None


def _renamed(body: dict[str, Any], name: str, space: str) -> dict[str, Any]:
    kept = {key: body["metadata"][key] for key in ("labels", "annotations") if key in body["metadata"]}
    content = {key: value for key, value in body.items() if key not in ("metadata", "status")}
    return {**content, "metadata": {**kept, "name": name, "namespace": space}}


async def measure(bench: Bench) -> list[str]:
    """Interleaved pairs, then one edit and the repairs on what the last pair has left."""
    await bench.prepare()
    await bench.learn()
    bench.controller.stop()
    ratios, raws, waves, told = [], [], [], ""
    for pair in range(1, bench.pairs + 1):
        await bench.clean()
        raws.append(await bench.raw())
        await bench.clean()
        await bench.start()
        bench.told = 0.0
        before = writes(bench.plane)
        waves.append(await bench.wave())
        await bench.controller.wait(bench.controller.ready, "an empty queue")
        await asyncio.sleep(8)
        told = of_each(writes(bench.plane) - before, bench.count, "trustpolicies")
        await bench.check()
        ratios.append(waves[-1] / raws[-1])
        say(f"pair {pair}: raw {raws[-1]:.2f} s, operator {waves[-1]:.2f} s, ratio {ratios[-1]:.2f}; writes: {told}")
        if pair < bench.pairs:
            bench.controller.stop()
    before = writes(bench.plane)
    edit = {"spec": {"rules": [{**bench.policy(0)["spec"]["rules"][0], "to": [{"port": 9443}]}]}}
    await bench.client.patch(Ref("TrustPolicy", *bench.places[0]), edit)
    await asyncio.sleep(5)
    one_edit = {
        f"{verb} {what}": number for (verb, what), number in (writes(bench.plane) - before).items() if what != "leases"
    }
    times = sorted(await bench.repairs())
    await asyncio.sleep(8)  # statuses tell of the last repair too
    bench.controller.stop()
    before = writes(bench.plane)
    await bench.start()
    await asyncio.sleep(20)
    restart = {key: number for key, number in (writes(bench.plane) - before).items() if key[1] != "leases"}
    bench.controller.stop()
    return [
        f"| policies at once | {bench.count} in {len(bench.namespaces)} namespaces |",
        f"| raw client: TrustPolicy, ControllerRevision, NetworkPolicy, status | median {statistics.median(raws):.2f} s |",
        f"| operator, first create to last NetworkProgrammed | median {statistics.median(waves):.2f} s |",
        (
            f"| **ratio, median of {len(ratios)} pairs** | **{statistics.median(ratios):.2f}**"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) |"
        ),
        f"| API writes for each policy | {told} |",
        f"| API writes for one edit of a rule | {one_edit} |",
        f"| API writes at restart (Lease apart) | {sum(restart.values())} {restart or ''} |",
        (
            f"| drift to repair, {len(times)} edits and deletions | median {statistics.median(times) * 1000:.0f} ms,"
            f" p99 {times[int(len(times) * 0.99) - 1] * 1000:.0f} ms, longest {times[-1] * 1000:.0f} ms |"
        ),
    ]


def main() -> int:
    """Parse the arguments, measure, print."""
    given = arguments("policies", __doc__)
    print(table(compiling.measure(5000, 200) + asyncio.run(measured(Bench, measure, given))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
