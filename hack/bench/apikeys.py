"""`make bench-apikeys`: many ApiKeys at once, against the bare client making the same writes in the same run, and a restart.

Control plane, controller and bundle server are real processes. A wave ends when every ApiKey is Ready and its Secret holds the
key that its status names. Nobody runs an OPA: keys are delivered once they are served.
"""

import asyncio
import base64
import statistics
import tempfile
import time
from argparse import Namespace
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from hack.bench.cluster import (
    OPERATOR_NAMESPACE,
    BundleServerProcess,
    ensure,
    identity,
    say,
    service_account,
    sources,
    spread,
    writes,
)
from hack.bench.record_writes import RecordWrites, kind_of, of_kinds
from hack.bench.workloads import TRUST_DOMAIN, Workloads, arguments, measured, of_each, table
from hack.controlplane import ControlPlane
from zerotrust.apikey.key import BadKey, parse
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION, BUNDLE_SERVER, Ref
from zerotrust.kube.client import Client
from zerotrust.kube.resources import API_KEYS, CONFIG_MAPS, EVENTS, SECRETS, ResourceType

AUDIENCE = "orders"
PATIENCE = 1800.0
LOOK_EVERY = 2.0
QUIET = 6.0  # longer than the delay after which counts of events are written
AFTER_RESTART = 30.0  # kopf's own listing and the comparison after it belong to a restart


class Bench(Workloads):
    """One run over one control plane; `keys` are the places of the ApiKeys."""

    def __init__(self, plane: ControlPlane, client: Client, given: Namespace, log: Path) -> None:
        super().__init__(plane, client, given, log)
        self.keys = [(space, name.replace("workload", "partner")) for space, name in self.places]
        self.places = [(space, AUDIENCE) for space in self.namespaces]
        self._folder = tempfile.TemporaryDirectory()
        self.server = BundleServerProcess(plane, log.with_name("bundle-server.log"), Path(self._folder.name))

    def api_key(self, space: str, name: str) -> dict[str, Any]:
        """An ApiKey as a user writes it."""
        spec = {"holder": {"name": name}, "audience": [AUDIENCE], "scopes": ["orders:read"]}
        return {
            "apiVersion": API_VERSION,
            "kind": "ApiKey",
            "metadata": {"name": name, "namespace": space},
            "spec": spec,
        }

    async def prepare(self) -> None:
        """Identities of the servers and of the bundle server: everything that is there before a key is."""
        say(f"preparing {len(self.namespaces)} namespaces for {self.count} keys")
        await self.populate()
        await ensure(self.client, service_account(OPERATOR_NAMESPACE, BUNDLE_SERVER))
        for place in ((OPERATOR_NAMESPACE, BUNDLE_SERVER), *self.places):
            await ensure(self.client, identity(*place, TRUST_DOMAIN))
        self.controller.start()
        ready = partial(self.controller.metric, "zerotrust_identities", ready="True")
        await self.controller.wait(lambda: ready() > len(self.namespaces), "all identities", 300)
        self.server.start()
        await self.server.wait(self.server.serving, "the bundle server", 120)

    async def start(self) -> None:
        """Start both processes and wait until there is nothing to do."""
        self.controller.start()
        self.server.start()
        await self.controller.wait(self.controller.ready, "the controller", 300)
        await self.server.wait(self.server.serving, "the bundle server", 300)
        await self.settled()

    def stop(self) -> None:
        """Stop both."""
        self.controller.stop()
        self.server.stop()

    def forget(self) -> None:
        """Remove the bundle server's SVID."""
        self._folder.cleanup()

    async def learn(self) -> None:
        """Let the operator deliver one key, and keep what it wrote as the shape for the bare client."""
        space, name = self.keys[0]
        await self.client.create(self.api_key(space, name))
        await self._complete([self.keys[0]])
        self.template = {
            "secret": await self.client.get(Ref("Secret", space, f"{name}-api-key")),
            "status": (await self.client.get(Ref("ApiKey", space, name)))["status"],
        }

    async def raw(self) -> float:
        """The bare client makes the writes of users and of the operator, but for events and records: CR, Secret, status."""
        secret = self.template["secret"]

        async def one(space: str, name: str) -> None:
            body = await self.client.create(self.api_key(space, name))
            metadata = {
                "name": f"{name}-api-key",
                "namespace": space,
                "labels": {**secret["metadata"]["labels"], naming.API_KEY: name},
            }
            await self.client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": secret["type"],
                    "metadata": metadata,
                    "data": secret["data"],
                }
            )
            patch = {"metadata": {"uid": body["metadata"]["uid"]}, "status": self.template["status"]}
            await self.client.patch(Ref("ApiKey", space, name), patch, "status")

        return await spread([partial(one, *place) for place in self.keys])

    async def clean(self) -> None:
        """Take keys and all that follows from them away, while the controller is down."""
        for space in self.namespaces:
            await self._sweep(API_KEYS, space)
            await self._sweep(SECRETS, space, f"{naming.COMPONENT}={naming.COMPONENT_API_KEY}")
            await self._sweep(EVENTS, space)
        await self._sweep(CONFIG_MAPS, OPERATOR_NAMESPACE, f"{naming.COMPONENT}={naming.COMPONENT_API_KEYS}")
        await asyncio.sleep(2)

    async def _sweep(self, kind: ResourceType, space: str, selector: str = "") -> None:
        params = {"labelSelector": selector} if selector else None
        await self.client._request("DELETE", kind.collection(space), "clean up", params=params, body={})

    async def wave(self) -> float:
        """From the first create to the moment at which every key is found delivered and Ready; seconds."""
        started = time.monotonic()
        creating = asyncio.create_task(spread([partial(self.client.create, self.api_key(*one)) for one in self.keys]))
        try:
            told = partial(self.controller.metric, "zerotrust_api_writes_total", kind="ApiKey/status", verb="patch")
            before = await asyncio.to_thread(told)
            await self.controller.wait(lambda: told() >= before + self.count, "a status of each key", PATIENCE)
            await creating
            return await self._complete(self.keys) - started
        finally:
            creating.cancel()

    async def _complete(self, wanted: list[tuple[str, str]]) -> float:
        """Wait until every key is Ready and delivered; the time (monotonic) just before the look that found it so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            looked = time.monotonic()
            missing = await self._missing(wanted)
            if not missing:
                return looked
            if looked > deadline:
                raise RuntimeError(
                    f"{len(missing)} keys are not delivered after {PATIENCE:.0f} s, such as {missing[0]}"
                )
            say(f"{len(missing)} of {len(wanted)} keys are not delivered and Ready yet")
            # A look at everything costs the API server work, so at most a third of the time goes into looking.
            await asyncio.sleep(min(LOOK_EVERY, max(0.2, 2 * (time.monotonic() - looked))))

    async def _missing(self, wanted: list[tuple[str, str]]) -> list[str]:
        """Which keys are not there yet, each with its place and what its status says."""
        statuses, delivered = dict[tuple[str, str], dict[str, Any]](), dict[tuple[str, str], str]()
        async for page, _ in self.client.list(API_KEYS):
            statuses |= {_place(body): body.get("status") or {} for body in page}
        ready = {place for place, status in statuses.items() if _is_ready(status)}
        all_ready = ready.issuperset(wanted)
        if all_ready:  # Secrets are read only once that is so
            async for page, _ in self.client.list(SECRETS):
                delivered |= {_place(body): _key_id(body) for body in page}
        return [
            f"{space}/{name}: {statuses.get((space, name), {}).get('phase', 'no phase')}"
            for space, name in wanted
            if (space, name) not in ready
            or (all_ready and delivered.get((space, f"{name}-api-key")) != statuses[(space, name)].get("keyID"))
        ]

    async def settled(self) -> None:
        """Wait until the operator has nothing left to write, events and counts included."""
        await self.controller.wait(self.controller.ready, "an empty queue")
        before = -1.0
        while (now := self.controller.written()) != before:
            before = now
            await asyncio.sleep(QUIET)


def _place(body: dict[str, Any]) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _is_ready(status: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))


def _key_id(body: dict[str, Any]) -> str:
    """The id of the key that a Secret holds, empty without one."""
    try:
        return parse(base64.b64decode((body.get("data") or {}).get("api-key", "")).decode()).id
    except (BadKey, ValueError):
        return ""


async def measure(bench: Bench) -> list[str]:
    """The interleaved pairs, then a restart on what the last pair has left."""
    try:
        return await _measure(bench)
    finally:
        bench.stop()
        bench.forget()


async def _measure(bench: Bench) -> list[str]:
    await bench.prepare()
    await bench.learn()
    bench.stop()
    loaded = sources()
    ratios, raws, waves = list[float](), list[float](), list[float]()
    async with RecordWrites(bench.client) as records:
        for pair in range(1, bench.pairs + 1):
            await bench.clean()
            raws.append(await bench.raw())
            await bench.clean()
            await bench.start()
            before, records_before = writes(bench.plane), records.counts.copy()
            waves.append(await bench.wave())
            await bench.settled()
            delta, written = writes(bench.plane) - before, records.counts - records_before
            ratios.append(waves[-1] / raws[-1])
            say(f"pair {pair}: raw {raws[-1]:.2f} s, operator {waves[-1]:.2f} s, ratio {ratios[-1]:.2f}")
            say(f"writes: {of_each(delta, bench.count, 'apikeys')}")
            if pair < bench.pairs:
                bench.stop()
        usage, server_usage = bench.controller.usage(), bench.server.usage()
        bench.controller.stop()
        restart_before, records_before = writes(bench.plane), records.counts.copy()
        bench.controller.start()
        serving = await bench.controller.wait(bench.controller.serving, "the restarted controller's caches")
        empty = serving + await bench.controller.wait(bench.controller.ready, "the restarted controller")
        await asyncio.sleep(AFTER_RESTART)
        restart = Counter({one: n for one, n in (writes(bench.plane) - restart_before).items() if one[1] != "leases"})
        renewed = Counter[str]()
        for place, number in (records.counts - records_before).items():
            renewed[kind_of(*place)] += number
        await bench._complete(bench.keys)
        restart_usage = bench.controller.usage()
        complete = records.complete
    changed = ["| **not valid** | the operator's sources were edited during the run |"] if sources() != loaded else []
    each = sum(delta[one] for one in delta if _is_operators(*one)) / bench.count
    return [
        *changed,
        f"| keys at once | {bench.count} in {len(bench.namespaces)} namespaces |",
        f"| raw client: ApiKey, Secret, status | median {statistics.median(raws):.2f} s |",
        f"| operator, first create to last Ready with its key in the Secret | median {statistics.median(waves):.2f} s |",
        (
            f"| **ratio, median of {len(ratios)} pairs** | **{statistics.median(ratios):.2f}**"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) |"
        ),
        f"| **API writes for each key** | **{each:.3f}**: {of_each(delta, bench.count, 'apikeys')} |",
        *of_kinds(written, bench.count, [complete]),
        f"| ConfigMap writes, by the API server's counter and by the watch | {_config_maps(delta)}, {sum(written.values())} |",
        f"| restart until /readyz; until leading with an empty queue | {serving:.2f} s; {empty:.2f} s |",
        f"| API writes at restart (Lease apart) | {sum(restart.values())} {_said(restart)} {dict(renewed) or ''} |",
        f"| controller peak RSS: wave, restart | {usage.peak_mib:.0f}, {restart_usage.peak_mib:.0f} MiB |",
        f"| controller CPU: start + wave, restart | {usage.cpu_seconds:.1f}, {restart_usage.cpu_seconds:.1f} s |",
        f"| bundle server peak RSS, CPU | {server_usage.peak_mib:.0f} MiB, {server_usage.cpu_seconds:.1f} s |",
    ]


def _is_operators(verb: str, resource: str) -> bool:
    """Not a user's create, nor what goes on without any key."""
    return resource != "leases" and (verb, resource) != ("POST", "apikeys")


def _config_maps(delta: Counter[tuple[str, str]]) -> int:
    return sum(number for (_, resource), number in delta.items() if resource == "configmaps")


def _said(delta: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{verb} {resource} {number}" for (verb, resource), number in sorted(delta.items()))


def main() -> int:
    """Parse the arguments, measure, print."""
    given = arguments("keys", __doc__, pairs=3, namespaces=10)
    print(table(asyncio.run(measured(Bench, measure, given))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
