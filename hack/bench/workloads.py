"""Many workloads on a control plane of their own: where the benchmarks of identities and of policies begin, and how they end."""

import argparse
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hack.bench.cluster import OPERATOR_NAMESPACE, ControllerProcess, ensure, namespace, service_account, spread
from hack.controlplane import ControlPlane
from zerotrust.common.naming import API_VERSION
from zerotrust.kube.client import Client, load_configuration
from zerotrust.telemetry.metrics import Metrics

TRUST_DOMAIN = "bench.example.org"
CRDS = Path(__file__).resolve().parents[2] / "crds"


class Workloads:
    """`count` places (namespace and name) spread over the namespaces, and the controller, which does not run yet.

    `template` is for objects that the operator has written, as the shape for the bare client.
    """

    def __init__(self, plane: ControlPlane, client: Client, arguments: argparse.Namespace, log: Path) -> None:
        self.plane, self.client = plane, client
        self.count, self.pairs = arguments.count, arguments.pairs
        self.namespaces = [f"bench-{number:03d}" for number in range(arguments.namespaces)]
        self.places = [(self.namespaces[n % len(self.namespaces)], f"workload-{n:05d}") for n in range(self.count)]
        self.controller = ControllerProcess(plane, log)
        self.template: dict[str, Any] = {}

    async def populate(self) -> None:
        """CRDs, namespaces, the TrustDomain and ServiceAccounts."""
        self.plane.kubectl("apply", "-f", str(CRDS))
        self.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for name in (OPERATOR_NAMESPACE, *self.namespaces):
            await ensure(self.client, namespace(name))
        domain = {"apiVersion": API_VERSION, "kind": "TrustDomain", "metadata": {"name": TRUST_DOMAIN}, "spec": {}}
        await ensure(self.client, domain)
        await spread([partial(ensure, self.client, service_account(*place)) for place in self.places])


AnyWorkloads = TypeVar("AnyWorkloads", bound=Workloads)
Prepare = Callable[[ControlPlane, Client, argparse.Namespace, Path], AnyWorkloads]


async def measured(
    prepare: Prepare[AnyWorkloads], measure: Callable[[AnyWorkloads], Awaitable[list[str]]], given: argparse.Namespace
) -> list[str]:
    """Start a control plane, measure on it, and return the lines of the table."""
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        configuration = await load_configuration(str(plane.kubeconfig))
        async with Client(configuration, Metrics(), timeout=120) as client:
            return await measure(prepare(plane, client, given, Path(given.log or f"{folder}/controller.log")))


def arguments(what: str, description: str | None, *, pairs: int = 5, namespaces: int = 50) -> argparse.Namespace:
    """The command line of a benchmark that makes so many of `what`, which becomes `count`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{what}", dest="count", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--namespaces", type=int, default=namespaces)
    parser.add_argument("--log", help="where the controller's log goes; default: a temporary file")
    return parser.parse_args()


def of_each(delta: Counter[tuple[str, str]], count: int, users: str) -> str:
    """The operator's writes for each of `count`, by verb and resource.

    The Lease's, the TrustDomain's and the creates of `users` (the resource that users make) are left out.
    """
    parts = [
        f"{verb} {resource} {number / count:.3f}"
        for (verb, resource), number in sorted(delta.items())
        if resource != "leases" and not resource.startswith("trustdomains") and (verb, resource) != ("POST", users)
        if number / count >= 0.005
    ]
    return ", ".join(parts) or "none"


def table(lines: list[str]) -> str:
    """What a benchmark prints."""
    return "\n".join(["| what | measured |", "|---|---|", *lines])
