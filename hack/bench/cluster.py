"""What a benchmark needs of a cluster: objects to measure with, the API server's own counters, the controller as a process."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zerotrust
from hack.controlplane import ControlPlane
from zerotrust.common.naming import API_VERSION, BUNDLE_SERVER
from zerotrust.kube.client import Client
from zerotrust.kube.errors import AlreadyExists

OPERATOR_NAMESPACE = "zerotrust-system"
CONCURRENCY = 50
WRITES = ("POST", "PATCH", "PUT", "DELETE", "APPLY")

_LINE = re.compile(r"apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def spread(work: list[Callable[[], Coroutine[Any, Any, Any]]], concurrency: int = CONCURRENCY) -> float:
    """Run all of it with bounded concurrency and return the seconds it took."""
    waiting = iter(work)

    async def worker() -> None:
        for one in waiting:
            await one()

    started = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.monotonic() - started


def writes(plane: ControlPlane) -> Counter[tuple[str, str]]:
    """Read the API server's own count of writes: (verb, resource/subresource) -> number; questions (`dryRun`) are left out."""
    counts: Counter[tuple[str, str]] = Counter()
    for match in _LINE.finditer(plane.metrics()):
        labels = dict(_LABEL.findall(match["labels"]))
        answered = labels.get("code", "").startswith(("2", "4"))
        if labels.get("verb") in WRITES and answered and not labels.get("dry_run"):
            resource = labels["resource"] + (f"/{labels['subresource']}" if labels.get("subresource") else "")
            counts[(labels["verb"], resource)] += int(float(match["value"]))
    return counts


def sources() -> str:
    """A digest of the operator's sources: each process loads them when it starts, so edits spoil what compares two of them."""
    found = hashlib.sha256()
    for path in sorted(Path(zerotrust.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".rego"):
            found.update(path.read_bytes())
    return found.hexdigest()


def identity(namespace: str, name: str, trust_domain: str) -> dict[str, Any]:
    """A ServiceIdentity as a user writes it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ServiceIdentity",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"trustDomain": trust_domain},
    }


def service_account(namespace: str, name: str) -> dict[str, Any]:
    """A ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def namespace(name: str) -> dict[str, Any]:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def ensure(client: Client, body: dict[str, Any]) -> None:
    """Create an object unless it is there."""
    with contextlib.suppress(AlreadyExists):
        await client.create(body)


@dataclass(frozen=True)
class Usage:
    """What a process has used: peak resident memory in MiB, CPU in seconds."""

    peak_mib: float
    cpu_seconds: float


class ControllerProcess:
    """`zerotrust controller` as a user runs it."""

    name = "controller"

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        self._plane, self._log = plane, log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start it; returns at once."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        program = Path(sys.executable).with_name("zerotrust")
        telemetry = ["--metrics-host", "127.0.0.1", "--metrics-port", str(self.port)]
        place = ["--kubeconfig", str(self._plane.kubeconfig), "--namespace", OPERATOR_NAMESPACE]
        command: list[str | Path] = [program, self.name, *place, *telemetry, *self._options()]
        self._process = subprocess.Popen(command, stderr=self._log.open("ab"))

    def _options(self) -> list[str]:
        """What its command line has beside where the cluster and its metrics are."""
        return []

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 when there is none."""
        total = 0.0
        for line in self._read("/metrics").splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rpartition(" ")[2])
        return total

    def written(self) -> float:
        """Writes so far, the Lease's renewals left out."""
        name = "zerotrust_api_writes_total"
        return self.metric(name) - self.metric(name, kind="Lease")

    def ready(self) -> bool:
        """Caches filled, leading, and nothing waits for work."""
        return self.metric("zerotrust_leading") == 1 and self.metric("zerotrust_queue_depth") == 0

    def serving(self) -> bool:
        """What the readiness probe asks: caches filled."""
        return self._read("/readyz") != ""

    def _read(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    async def wait(self, condition: Callable[[], bool], what: str, seconds: float = 600, every: float = 0.1) -> float:
        """Wait for a condition and return the seconds it took."""
        started = time.monotonic()
        while not await asyncio.to_thread(condition):
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"the {self.name} ended while waiting for {what}; see {self._log}")
            if time.monotonic() - started > seconds:
                raise RuntimeError(f"gave up waiting for {what} after {seconds:.0f} s; see {self._log}")
            await asyncio.sleep(every)
        return time.monotonic() - started

    def usage(self) -> Usage:
        """Peak memory and CPU so far."""
        assert self._process is not None
        proc = Path("/proc") / str(self._process.pid)
        peak = re.search(r"VmHWM:\s+(\d+) kB", (proc / "status").read_text())
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return Usage(int(peak[1]) / 1024 if peak else 0.0, ticks / 100)

    def stop(self) -> int:
        """Stop it gracefully and return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process = None


class BundleServerProcess(ControllerProcess):
    """`zerotrust bundle-server` with the SVID that the controller has issued to it."""

    name = "bundle-server"

    def __init__(self, plane: ControlPlane, log: Path, folder: Path) -> None:
        super().__init__(plane, log)
        self._folder = folder

    def _options(self) -> list[str]:
        secret = f"{BUNDLE_SERVER}-svid"
        found = self._plane.kubectl("get", "secret", secret, "-n", OPERATOR_NAMESPACE, "-o", "json")
        self._folder.mkdir(exist_ok=True)
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (self._folder / name).write_bytes(base64.b64decode(json.loads(found)["data"][name]))
        return ["--svid", str(self._folder), "--pod", "bench-replica", "--host", "127.0.0.1", "--port", "0"]
