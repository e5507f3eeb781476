"""`make bench`: what issuing, renewing and restarting cost, against the bare client making the same writes in the same run.

Machines are shared and noisy, so the result is a ratio of interleaved pairs; API writes are the API server's own count.
"""

import asyncio
import statistics
from functools import partial
from typing import Any

from hack.bench.cluster import identity, say, spread, writes
from hack.bench.workloads import TRUST_DOMAIN, Workloads, arguments, measured, of_each, table
from zerotrust.common.naming import Ref
from zerotrust.kube.resources import EVENTS, SECRETS, SERVICE_IDENTITIES


class Bench(Workloads):
    """One run over one control plane."""

    async def prepare(self) -> None:
        """Everything that is there before an identity is."""
        say(f"preparing {self.count} ServiceAccounts in {len(self.namespaces)} namespaces")
        await self.populate()

    async def clean(self) -> None:
        """Delete every identity with its Secret and events, and wait until the garbage collector has nothing left to do."""
        await spread([partial(self.client.delete, Ref("ServiceIdentity", *place)) for place in self.places])
        await self.sweep(self.namespaces)
        await asyncio.sleep(2 + self.count / 1000)

    async def sweep(self, namespaces: list[str]) -> None:
        """Delete the Secrets and events of these namespaces."""
        collections = [f"{kind.collection(name)}" for name in namespaces for kind in (SECRETS, EVENTS)]
        delete = self.client._request
        await spread([partial(delete, "DELETE", path, "clean up", body={}) for path in collections], 4)

    async def raw(self) -> float:
        """The bare client makes the writes that the operator's users and the operator make: CR, Secret, status, event."""

        async def one(space: str, name: str) -> None:
            body = await self.client.create(identity(space, name, TRUST_DOMAIN))
            uid = body["metadata"]["uid"]
            secret, status, event = self.same_shape(space, name, uid)
            await self.client.create(secret)
            await self.client.patch(Ref("ServiceIdentity", space, name), status, "status")
            await self.client.create(event)

        return await spread([partial(one, *place) for place in self.places])

    def same_shape(self, space: str, name: str, uid: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Objects of the very shape and size that the operator has written, under other names."""
        secret, event = self.template["secret"], self.template["event"]
        owner = [{**secret["metadata"]["ownerReferences"][0], "name": name, "uid": uid}]
        metadata = {
            "name": f"{name}-svid",
            "namespace": space,
            "labels": secret["metadata"]["labels"],
            "annotations": secret["metadata"]["annotations"],
            "ownerReferences": owner,
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": secret["type"],
            "metadata": metadata,
            "data": secret["data"],
        }
        regarding = {**event["regarding"], "name": name, "namespace": space, "uid": uid}
        told = {
            **{key: value for key, value in event.items() if not key.startswith("deprecated")},
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{uid[:13]}", "namespace": space},
            "regarding": regarding,
        }
        return body, {"metadata": {"uid": uid}, "status": self.template["status"]}, told

    async def learn(self) -> None:
        """Let the operator issue one identity, and keep what it wrote as the shape for the bare client."""
        space, name = self.places[0]
        await self.client.create(identity(space, name, TRUST_DOMAIN))
        await self.controller.wait(
            lambda: self.controller.metric("zerotrust_identities", ready="True") >= 1, "the first identity"
        )
        await self.controller.wait(
            lambda: self.controller.metric("zerotrust_api_writes_total", kind="Event", verb="create") >= 2, "events"
        )
        secret = await self.client.get(Ref("Secret", space, f"{name}-svid"))
        status = (await self.client.get(Ref("ServiceIdentity", space, name)))["status"]
        events = await self.client._request("GET", f"/apis/events.k8s.io/v1/namespaces/{space}/events", "events")
        self.template = {"secret": secret, "status": status, "event": events["items"][0]}
        await self.client.delete(Ref("ServiceIdentity", space, name))
        await self.sweep([space])

    async def issue(self) -> float:
        """From the first create to the last Ready, as the controller's acknowledged writes tell."""
        all_ready = asyncio.create_task(
            self.controller.wait(
                lambda: self.controller.metric("zerotrust_identities", ready="True") >= self.count,
                "all identities",
                every=0.05,
            )
        )
        creating = spread([partial(self.client.create, identity(*place, TRUST_DOMAIN)) for place in self.places])
        _, seconds = await asyncio.gather(creating, all_ready)
        return seconds

    async def renew(self) -> float:
        """Make every certificate due at once by one edit of the TrustDomain: shorter lifetimes."""
        issued = self.controller.metric("zerotrust_issued_total")
        patch = {"spec": {"identities": {"duration": "12h"}}}
        await self.client.patch(Ref("TrustDomain", "", TRUST_DOMAIN), patch)
        return await self.controller.wait(
            lambda: self.controller.metric("zerotrust_issued_total") >= issued + self.count and self.controller.ready(),
            "the renewal wave",
        )

    async def settled(self) -> None:
        """Wait until the operator has nothing left to write, events and counts included."""
        await self.controller.wait(self.controller.ready, "an empty queue")
        before = -1.0
        while (now := self.controller.written()) != before:
            before = now
            await asyncio.sleep(6)  # longer than the delay after which counts are written

    async def check(self, revision: int) -> None:
        """Read everything back: all Ready, all of that revision."""
        good = 0
        async for page, _ in self.client.list(SERVICE_IDENTITIES):
            for body in page:
                conditions = {one["type"]: one["status"] for one in body["status"]["conditions"]}
                good += conditions["Ready"] == "True" and body["status"]["revision"] == revision
        if good != self.count:
            raise RuntimeError(f"only {good} of {self.count} identities are Ready with revision {revision}")


async def measure(bench: Bench) -> list[str]:
    """The interleaved pairs, then renewal and restart on what the last pair has left."""
    await bench.prepare()
    controller = bench.controller
    controller.start()
    await controller.wait(controller.ready, "the controller")
    await bench.learn()
    controller.stop()
    ratios, raws, issues, issue_writes = [], [], [], ""
    for pair in range(1, bench.pairs + 1):
        raws.append(await bench.raw())
        await bench.clean()
        controller.start()
        await controller.wait(controller.ready, "the controller")
        before = writes(bench.plane)
        issues.append(await bench.issue())
        await bench.settled()
        issue_writes = of_each(writes(bench.plane) - before, bench.count, "serviceidentities")
        await bench.check(revision=1)
        ratios.append(issues[-1] / raws[-1])
        say(
            f"pair {pair}: raw {raws[-1]:.2f} s, operator {issues[-1]:.2f} s, ratio {ratios[-1]:.2f}; writes: {issue_writes}"
        )
        if pair < bench.pairs:
            controller.stop()
            await bench.clean()
    issue_usage = controller.usage()
    before = writes(bench.plane)
    wave = await bench.renew()
    await bench.settled()
    wave_writes = of_each(writes(bench.plane) - before, bench.count, "serviceidentities")
    await bench.check(revision=2)
    wave_usage = controller.usage()
    say(f"renewal wave: {wave:.2f} s; writes: {wave_writes}")
    controller.stop()
    before = writes(bench.plane)
    controller.start()
    serving = await controller.wait(controller.serving, "the restarted controller's caches")
    restart = serving + await controller.wait(controller.ready, "the restarted controller")
    await asyncio.sleep(30)  # kopf's own listing and the comparison after it belong to a restart
    restart_delta = writes(bench.plane) - before
    restart_writes = {key: number for key, number in restart_delta.items() if key[1] != "leases"}
    restart_usage = controller.usage()
    say(f"restart: /readyz {serving:.2f} s, empty queue {restart:.2f} s; writes: {restart_writes or 'none'}")
    controller.stop()
    count = bench.count
    return [
        f"| identities | {count} in {len(bench.namespaces)} namespaces |",
        f"| raw client, create + Secret + status + Event | median {statistics.median(raws):.2f} s |",
        f"| operator, first create to last Ready | median {statistics.median(issues):.2f} s |",
        (
            f"| **ratio, median of {len(ratios)} pairs** | **{statistics.median(ratios):.2f}**"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) |"
        ),
        f"| API writes for each issue | {issue_writes} |",
        f"| renewal wave of all | {wave:.2f} s |",
        f"| API writes for each renewal | {wave_writes} |",
        f"| graceful restart until /readyz; until leading with an empty queue | {serving:.2f} s; {restart:.2f} s |",
        f"| API writes at restart (Lease apart) | {sum(restart_writes.values())} {restart_writes or ''} |",
        (
            f"| controller peak RSS: issue, wave, restart | {issue_usage.peak_mib:.0f}, {wave_usage.peak_mib:.0f},"
            f" {restart_usage.peak_mib:.0f} MiB |"
        ),
        (
            f"| controller CPU: start + issue, then wave, restart | {issue_usage.cpu_seconds:.1f},"
            f" {wave_usage.cpu_seconds - issue_usage.cpu_seconds:.1f}, {restart_usage.cpu_seconds:.1f} s |"
        ),
    ]


def main() -> int:
    """Parse the arguments, measure, print."""
    print(table(asyncio.run(measured(Bench, measure, arguments("identities", __doc__)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
