"""Measure the bundle server: 304 answers a second, and held polls woken by one publish, with their memory.

The server is a process of its own with real TLS 1.3; the clients are bare TLS connections of this one. The API server's
reviews are answered inside the server's process: what they cost is the API server's affair.
"""

import argparse
import asyncio
import hashlib
import json
import ssl
import statistics
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zerotrust.bundleserver.app import Parts
from zerotrust.bundleserver.auth import Authenticator
from zerotrust.bundleserver.caller import AUDIENCE, POD_NAME, POD_UID, Subject, Workload
from zerotrust.bundleserver.counts import Counts
from zerotrust.bundleserver.decisions import LogReader, LogSummary
from zerotrust.bundleserver.documents import Document, DocumentKind
from zerotrust.bundleserver.intake import Delivery, Report
from zerotrust.bundleserver.limits import KIB, Limits
from zerotrust.bundleserver.server import BundleServer
from zerotrust.bundleserver.shelf import Bundle, Kind, Place, Shelf
from zerotrust.bundleserver.tls import TlsFiles, TlsIdentity
from zerotrust.engine.clock import SystemClock
from zerotrust.pki import keys, x509
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.telemetry.metrics import Metrics

PLACE = Place("k1", "shop", Kind.POLICY)
PATH = "/bundles/k1/shop/policy"
DOMAIN = "bench.example.org"
FILES = ("tls.crt", "tls.key", "ca.crt")


class Everything:
    """Stands for the API server, the directory and the sinks: says yes at once, and keeps nothing."""

    async def authenticate(self, token: str, _: str) -> Subject | None:
        """Every token is a pod's of the namespace."""
        pod = hashlib.sha256(token.encode()).hexdigest()[:16]
        extra = ((POD_NAME, (f"pod-{pod}",)), (POD_UID, (pod,)))
        return Subject("system:serviceaccount:shop:orders", extra=extra)

    async def may_get_bundles(self, subject: Subject, namespace: str) -> bool:
        return subject.user.startswith("system:") and namespace == "shop"

    def resolve(self, _: SpiffeID, __: datetime) -> Workload | None:
        return None

    def report(self, report: Report) -> None:
        del report

    def delivered(self, delivery: Delivery) -> None:
        del delivery

    def decisions(self, summary: LogSummary) -> None:
        del summary

    def document(self, _: DocumentKind, __: str) -> Document | None:
        return None


def a_bundle(serial: int, size: int) -> Bundle:
    digest = hashlib.sha256(str(serial).encode()).hexdigest()
    return Bundle(serial, digest, 0, b"x" * size, datetime.now(UTC) + timedelta(hours=24))


def memory(field: str = "VmRSS") -> float:
    """Resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / KIB for line in lines if line.startswith(f"{field}:"))


async def serve(folder: Path, size: int) -> None:
    """The server's process: tells its port, then obeys one word a line and answers each with a line of JSON."""
    everything, limits = Everything(), Limits(connections_per_address=20_000)
    shelf, metrics, clock = Shelf(), Metrics(), SystemClock()
    shelf.publish(PLACE, a_bundle(1, size))
    parts = Parts(
        shelf, Authenticator(everything, everything, clock, DOMAIN, limits), everything, everything, everything,
        LogReader(everything, limits.log_entries, limits.label_sets, limits.denials), clock, Counts(metrics), limits,
    )  # fmt: skip
    server = BundleServer(parts, TlsIdentity(TlsFiles(*(folder / name for name in FILES))), "127.0.0.1", 0)
    await server.start()
    print(json.dumps({"port": server.port}), flush=True)
    serial = 1
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        answer: dict[str, float] = {}
        if word == "publish":
            serial += 1
            started = time.perf_counter()
            shelf.publish(PLACE, a_bundle(serial, size))
            answer["publish_ms"] = (time.perf_counter() - started) * 1000
        cpu = time.process_time()
        print(json.dumps({"rss": memory(), "cpu": cpu, "waiting": shelf.waiting(), **answer}), flush=True)
    await server.stop()


class Server:
    """The server's process as the bench holds it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self.port = process, port

    @classmethod
    async def start(cls, folder: Path, size: int) -> "Server":
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hack.bench.bundle_server", "--serve", str(folder), "--size", str(size),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        return cls(process, json.loads(await process.stdout.readline())["port"])

    async def say(self, word: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word.encode() + b"\n")
        answer: dict[str, float] = json.loads(await self._process.stdout.readline())
        return answer

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


def make_files(folder: Path) -> ssl.SSLContext:
    """Write the server's SVID; returns a client's context."""
    now = datetime.now(UTC)
    authority_key, key = keys.generate("ECDSA-P256"), keys.generate("ECDSA-P256")
    authority = x509.self_signed_authority(
        DOMAIN, authority_key, 1, now - timedelta(minutes=1), now + timedelta(days=1)
    )
    profile = x509.LeafProfile(
        SpiffeID.of_service_account(DOMAIN, "zerotrust-system", "bundle-server"),
        key.public_key(), 2, now - timedelta(minutes=1), now + timedelta(hours=12),
    )  # fmt: skip
    leaf = x509.sign_leaf(profile, authority, authority_key)
    for name, content in zip(FILES, (x509.write_pem(leaf), keys.to_pkcs8(key), x509.write_pem(authority)), strict=True):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.crt")
    return context


def a_token(number: int) -> str:
    claims = {"aud": [AUDIENCE], "exp": int(time.time()) + 3600, "sub": number, "pad": "x" * 700}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b"s" * 256))


class Waiter:
    """One client on a bare connection, cheap enough that a thousand do not slow the measurement down."""

    def __init__(self, number: int, size: int) -> None:
        self._token, self._size = a_token(number), size
        self.got = 0.0

    async def connect(self, port: int, context: ssl.SSLContext) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=2**20)

    def ask(self, serial: int, wait: int) -> None:
        prefer = f"Prefer: modes=snapshot,delta;wait={wait}\r\n" if wait else ""
        known = a_bundle(serial, 1).tag("k1")
        self._writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
            f"If-None-Match: {known}\r\n{prefer}\r\n".encode()
        )

    async def answer(self) -> int:
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if status == 200:
            await self._reader.readexactly(self._size)
        self.got = time.perf_counter()
        return status

    async def repeat(self, until: float) -> int:
        number = 0
        while time.perf_counter() < until:
            self.ask(1, 0)
            assert await self.answer() == 304
            number += 1
        return number

    def close(self) -> None:
        self._writer.transport.abort()


async def measure(waiters: int, size: int, rounds: int, seconds: float, rate_clients: int) -> list[str]:
    """The lines of the table."""
    with tempfile.TemporaryDirectory() as name:
        context = make_files(Path(name))
        server = await Server.start(Path(name), size)
        try:
            idle = (await server.say("state"))["rss"]
            rate = await measure_rate(server, context, rate_clients, seconds)
            woken = await measure_waiters(server, context, waiters, size, rounds, idle)
        finally:
            await server.stop()
    return ["| what | measured |", "|---|---|", f"| RSS, idle | {idle:.0f} MiB |", *rate, *woken]


async def measure_rate(server: Server, context: ssl.SSLContext, clients: int, seconds: float) -> list[str]:
    crowd = [Waiter(number, 0) for number in range(clients)]
    for one in crowd:
        await one.connect(server.port, context)
    before = await server.say("state")
    started = time.perf_counter()
    numbers = await asyncio.gather(*(one.repeat(started + seconds) for one in crowd))
    passed = time.perf_counter() - started
    after = await server.say("state")
    for one in crowd:
        one.close()
    number, cpu = sum(numbers), after["cpu"] - before["cpu"]
    return [
        f"| 304 answers a second, {clients} connections | {number / passed:.0f} (client on the same machine) |",
        f"| 304 answers a second of the server's CPU | {number / cpu:.0f} |",
    ]


async def measure_waiters(
    server: Server, context: ssl.SSLContext, number: int, size: int, rounds: int, idle: float
) -> list[str]:
    crowd = [Waiter(one, size) for one in range(number)]
    for start in range(0, number, 50):
        await asyncio.gather(*(one.connect(server.port, context) for one in crowd[start : start + 50]))
    lines, peak = [], 0.0
    all_times: list[list[float]] = []
    cpus = []
    for serial in range(1, rounds + 1):
        for one in crowd:
            one.ask(serial, 60)
        while (state := await server.say("state"))["waiting"] < number:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        if serial == 1:
            lines.append(
                f"| RSS, {number:,} waiters | {state['rss']:.0f} MiB, {(state['rss'] - idle) / number * KIB:.0f} KiB each |"
            )
        answers = [asyncio.create_task(one.answer()) for one in crowd]
        await asyncio.sleep(0)
        started = time.perf_counter()
        said = await server.say("publish")
        assert set(await asyncio.gather(*answers)) == {200}
        all_times.append(sorted((one.got - started) * 1000 for one in crowd))
        after = await server.say("state")
        cpus.append((after["cpu"] - said["cpu"]) * 1000)
        peak = max(peak, after["rss"])
    for one in crowd:
        one.close()
    p50, p99, last = (_median(times, share) for times, share in ((all_times, 0.5), (all_times, 0.99), (all_times, 1.0)))
    times = f"until the client has it all: p50 {p50:.0f} ms, p99 {p99:.0f} ms, last {last:.0f} ms, {rounds} rounds"
    return [
        *lines,
        f"| {number:,} waiters woken by one publish of {size / KIB:.0f} KiB | {times} |",
        f"| the server's CPU for that | {statistics.median(cpus):.0f} ms |",
        f"| RSS afterwards | {peak:.0f} MiB |",
    ]


def _median(rounds: Iterable[list[float]], share: float) -> float:
    return statistics.median(times[min(len(times) - 1, int(len(times) * share))] for times in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--size", type=int, default=16 * KIB, help="bytes of the bundle")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8, help="connections that ask for 304 answers")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.size))
    else:
        print("\n".join(asyncio.run(measure(given.waiters, given.size, given.rounds, given.seconds, given.clients))))


if __name__ == "__main__":
    main()
