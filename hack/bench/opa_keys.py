"""`python -m hack.bench.opa_keys`: what an API key costs in a real OPA at 100, 10,000 and 100,000 keys of one namespace.

Every size has an OPA of its own, with the operator's configuration and signed bundles from a host on loopback. First the
bundles: their bytes, the CPU time to hash, build and sign, to read and verify, and the time from the moment a bundle with one
changed key, or one more revoked, is offered until OPA reports it active. Then decisions: the OPAs of all sizes are asked in
turn, over kept connections, each question followed by one to a policy that does nothing, so that machine, HTTP and noise hit
all of them alike.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table as Printed

from hack.bench.cluster import say
from hack.bench.key_bundles import INSTANCE, KEYED, KEYLESS, KeyBundles, Offer, mistyped, scope
from hack.bench.opa import DECISION, NO_OP, NOTHING, SERVER, ask, percentile, spiffe_id
from tests.support.bundle_host import BundleHost
from tests.support.opa import Opa
from zerotrust.opabundle import configuration, signing
from zerotrust.opabundle.archive import read
from zerotrust.opabundle.configuration import Service, Verification
from zerotrust.policy.directory import Workload

SIZES = (100, 10_000, 100_000)
WARM_UP = 200
# What is asked, who asks, and what must come of it; a key that is wrong must never be allowed, or the benchmark ends.
ALLOWED, REFUSED = b'"reason":"allowed"', b'"reason":"bad_key"'
QUESTIONS: Mapping[str, tuple[Workload, bytes]] = {
    "no key asked for": (KEYLESS, ALLOWED),
    "good key": (KEYED, ALLOWED),
    "unknown key": (KEYED, REFUSED),
    "wrong check": (KEYED, REFUSED),
}


@dataclass
class Sized:
    """An OPA with so many keys, what its bundles cost (seconds), and what it answered (milliseconds, by question)."""

    bundles: KeyBundles
    opa: Opa
    host: BundleHost
    signer: signing.SigningKey
    patience: float
    archive: int = 0
    revocations: int = 0
    builds: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    activations: list[float] = field(default_factory=list)
    withdrawals: list[float] = field(default_factory=list)
    start: float = 0.0
    decided: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    nothing: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def path(self, kind: str) -> str:
        """Where the host serves a bundle to this OPA."""
        return f"/bundles/{self.signer.id}/{SERVER.namespace}/{kind}"

    async def begin(self) -> None:
        """Offer both bundles and start OPA; both are active afterwards."""
        say(f"{self.bundles.size:,} keys: the first bundles")
        policy, revocations = await asyncio.to_thread(self.build, 1), self.bundles.revocations(1)
        self.revocations = len(revocations.archive)
        self.host.publish(self.path("policy"), policy.archive)
        self.host.publish(self.path("revocations"), revocations.archive)
        started = time.perf_counter()
        self.opa.start({"POD_NAME": "bench", "POD_UID": "bench"})
        await self.opa.serving()
        for kind, offer in (("policy", policy), ("revocations", revocations)):
            await self.active(kind, offer.revision)
        self.start = time.perf_counter() - started

    def build(self, serial: int) -> Offer:
        """A policy bundle, with what it costs to build and to verify noted."""
        offer = self.bundles.policy(serial)
        begun = time.process_time()
        read(offer.archive, {self.signer.id: self.signer.public}, scope("policy"))
        self.reads.append(time.process_time() - begun)
        self.builds.append(offer.built)
        self.archive = len(offer.archive)
        return offer

    async def change(self, serial: int) -> None:
        """Offer bundles in which one key has changed and one more is revoked, and wait until each is reported active."""
        self.activations.append(await self._offered("policy", await asyncio.to_thread(self.build, serial)))
        self.withdrawals.append(await self._offered("revocations", self.bundles.revocations(serial)))

    async def _offered(self, kind: str, offer: Offer) -> float:
        """Seconds from the moment a bundle is offered until it is reported active."""
        self.host.forget_reports()
        begun = time.perf_counter()
        self.host.publish(self.path(kind), offer.archive)
        await self.active(kind, offer.revision)
        return time.perf_counter() - begun

    async def active(self, kind: str, revision: str) -> None:
        """Wait for the status report that has this revision as the active one; a refusal ends the benchmark."""
        deadline = time.monotonic() + self.patience
        while True:
            for report in self.host.statuses:
                one = report.get("bundles", {}).get(kind, {})
                if one.get("active_revision") == revision:
                    return
                if one.get("code"):
                    raise SystemExit(
                        f"error: OPA refuses the {kind} bundle: {one.get('message')} {one.get('errors', '')}"
                    )
            if time.monotonic() > deadline:
                tail = self.opa.log.read_text(errors="replace")[-2000:] if self.opa.log.exists() else ""
                raise SystemExit(
                    f"error: {self.bundles.size:,} keys: {kind} not reported active after {self.patience:.0f} s\n{tail}"
                )
            await asyncio.sleep(0.002)

    def key(self, question: str, number: int) -> str:
        """The key that is presented."""
        good, unknown = self.bundles.good, self.bundles.unknown
        match question:
            case "unknown key":
                return unknown[number % len(unknown)]
            case "wrong check":
                return mistyped(good[number % len(good)])
        return good[number % len(good)]


def body(caller: Workload, key: str, number: int) -> bytes:
    """A question with a key, which is there also where no row asks for one: all requests have the same size."""
    headers = {"host": "orders", "user-agent": "bench", "x-request-id": str(number), "x-api-key": key}
    asked = {
        "server": str(spiffe_id(SERVER)),
        "source": {"principal": str(spiffe_id(caller)), "mtls": True},
        "request": {"method": "GET", "path": f"/api/orders/{number}?full=1", "port": 8443, "headers": headers},
    }
    return json.dumps({"input": asked}).encode()


def decide(every: list[Sized], requests: int) -> None:
    """Ask all OPAs all questions in turn, in an order that changes from round to round."""
    random = Random(len(every))  # noqa: S311 - the order of questions is no secret
    with contextlib.ExitStack() as stack:
        asked = []
        for one in every:
            address = one.opa.url.removeprefix("http://")
            asked.append(
                (one, stack.enter_context(contextlib.closing(http.client.HTTPConnection(address, timeout=30))))
            )
        turns = [(one, connection, question) for one, connection in asked for question in QUESTIONS]
        for number in range(requests + WARM_UP):
            if number % 500 == 0:
                say(f"decisions: round {number:,} of {requests + WARM_UP:,}")
            random.shuffle(turns)
            for one, connection, question in turns:
                caller, expected = QUESTIONS[question]
                sent = body(caller, one.key(question, number), number)
                took = ask(connection, DECISION, sent, expected)
                idle = ask(connection, NOTHING, sent)
                if number >= WARM_UP:
                    one.decided[question].append(took)
                    one.nothing[question].append(idle)


def configured(host: BundleHost, folder: Path, signer: signing.SigningKey) -> dict[str, Any]:
    """The operator's configuration, but for where the server is, and without decision logs, which nobody would read."""
    verification = Verification(signer.id, signing.public_pem(signer.public), INSTANCE)
    document = configuration.document(
        SERVER.namespace, Service("https://bundles"), verification, str(folder / "persisted")
    )
    token = folder / "token"
    token.write_text("bench")
    service = document["services"]["zerotrust"]
    service.update(url=host.url, credentials={"bearer": {"token_path": str(token)}})
    del service["tls"], document["decision_logs"]
    return document


def bundle_table(every: list[Sized]) -> Printed:
    """What publishing costs."""
    printed = Printed(
        title=f"bundles; CPU time of {len(every[0].builds)}, until active of {len(every[0].activations)} changes"
    )
    for heading in (
        "keys",
        "policy",
        "revocations",
        "build+sign",
        "read+verify",
        "active, p50",
        "longest",
        "revocation",
        "OPA's start",
    ):
        printed.add_column(heading, justify="right")
    for one in every:
        printed.add_row(
            f"{one.bundles.size:,}",
            f"{one.archive:,} B",
            f"{one.revocations:,} B",
            f"{statistics.median(one.builds) * 1000:.1f} ms",
            f"{statistics.median(one.reads) * 1000:.1f} ms",
            f"{statistics.median(one.activations) * 1000:.0f} ms",
            f"{max(one.activations) * 1000:.0f} ms",
            f"{statistics.median(one.withdrawals) * 1000:.0f} ms",
            f"{one.start * 1000:.0f} ms",
        )
    return printed


def decision_table(every: list[Sized], requests: int) -> Printed:
    """p50 and p99 of each question, less what the policy that does nothing took beside it; ratios to the smallest size."""
    printed = Printed(
        title=f"OPA decisions, ms, {requests:,} requests each; net: less the no-op beside it; ratios: of net"
    )
    headings = (
        "question",
        "keys",
        "p50",
        "p99",
        "no-op p50",
        "no-op p99",
        "net p50",
        "net p99",
        "p50 ratio",
        "p99 ratio",
    )
    for heading in headings:
        printed.add_column(heading, justify="left" if heading == "question" else "right")
    for question in QUESTIONS:
        first: list[float] = []
        for one in every:
            figures = [
                percentile(times[question], percent) for times in (one.decided, one.nothing) for percent in (50, 99)
            ]
            net = [figures[0] - figures[2], figures[1] - figures[3]]
            first = first or net
            ratios = [
                f"{mine / theirs:.2f}" if min(mine, theirs) > 0 else "no-op slower"
                for mine, theirs in zip(net, first, strict=True)
            ]
            printed.add_row(question, f"{one.bundles.size:,}", *(f"{time:.3f}" for time in (*figures, *net)), *ratios)
        printed.add_section()
    return printed


async def measure(sizes: list[int], requests: int, changes: int, patience: float) -> list[Printed]:
    """One run; every OPA that it starts is stopped."""
    signer, every = signing.create(), list[Sized]()
    with tempfile.TemporaryDirectory(prefix="zerotrust-bench-") as name:
        async with contextlib.AsyncExitStack() as stack:
            for size in sizes:
                folder = Path(name) / str(size)
                folder.mkdir()
                (folder / "bench.rego").write_text(NO_OP)
                host = await stack.enter_async_context(BundleHost())
                opa = Opa(folder, configured(host, folder, signer), [folder / "bench.rego"])
                stack.push_async_callback(opa.close)
                say(f"{size:,} keys: making them")
                bundles = await asyncio.to_thread(KeyBundles, size, signer)  # other OPAs poll meanwhile
                every.append(Sized(bundles, opa, host, signer, patience))
                await every[-1].begin()
            for serial in range(2, changes + 2):
                say(f"activation {serial - 1} of {changes}, at every size")
                for one in every:
                    await one.change(serial)
            await asyncio.to_thread(decide, every, requests)
    return [bundle_table(every), decision_table(every, requests)]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="keys, the smallest first")
    parser.add_argument("--requests", type=int, default=4000, help="of each kind, for each size")
    parser.add_argument("--changes", type=int, default=3, help="bundles offered to each OPA after the first")
    parser.add_argument("--patience", type=float, default=900, help="seconds until an activation counts as failed")
    given = parser.parse_args()
    if min(given.sizes) < 1 or given.requests < 2 or given.changes < 1:
        parser.error("--sizes and --changes must be at least 1, --requests at least 2")
    for printed in asyncio.run(measure(given.sizes, given.requests, given.changes, given.patience)):
        Console(width=140).print(printed)


if __name__ == "__main__":
    main()
