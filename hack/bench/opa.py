"""`python -m hack.bench.opa`: what a decision costs at OPA's HTTP API, at 10, 1,000 and 10,000 grants of one server.

Each size has an OPA of its own with the shipped modules. Requests go one after the other over a kept connection, each followed by
the same request to a policy that does nothing, so that what the machine and HTTP cost is measured in the same moment.
"""

import argparse
import contextlib
import http.client
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table as Printed

from hack.children import Child
from hack.gotools import find_or_build
from zerotrust.opabundle.document import Server, policy_document, revocations_document
from zerotrust.opabundle.modules import modules
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.policy.table import Client, Row, Table

SERVER = Workload("shop", "orders")
SIZES = (10, 1_000, 10_000)
DECISION, NOTHING = "/v1/data/zerotrust/authz/decision", "/v1/data/bench/nothing"
NO_OP = 'package bench\n\nnothing := {"allowed": true}\n'
END = int(time.time()) + 86_400
META = {"schema": 1, "serial": 1, "revision": "bench", "issued_at": 0, "not_after": END, "namespace": "shop"}
COLLECTOR = {"GOGC": "800"}  # as in examples/opa
START_SECONDS, STOP_SECONDS = 60.0, 5.0


def spiffe_id(workload: Workload) -> SpiffeID:
    return SpiffeID.of_service_account("example.org", workload.namespace, workload.name)


def client(number: int) -> Workload:
    return Workload(f"ns-{number % 100}", f"client-{number}")


def row(number: int) -> Row:
    """A grant as users write them: a port, methods, paths."""
    return Row(
        client=Client.of(client(number)),
        port=8443,
        protocol="TCP",
        effect="Allow",
        observe=False,
        methods=("GET", "POST"),
        paths=("/api/orders/**", "/health"),
        principal=None,
        scopes=(),
        require_mtls=True,
        window=None,
        until=None,
        policy="clients",
        rule=f"client-{number}",
    )


def document(grants: int) -> dict[str, Any]:
    """The data of both bundles with so many clients of one server."""
    rows = tuple(sorted(map(row, range(grants)), key=lambda one: one.order))
    table = Table(SERVER, "Enforce", frozenset({"OPA"}), rows)
    policy = policy_document([Server(table, "example.org")], spiffe_id, {}, {})
    return {
        "zerotrust_data": {
            "policy": {**policy, "meta": META},
            "revocations": {**revocations_document({}), "meta": META},
        }
    }


def question(number: int) -> bytes:
    asked = {
        "server": str(spiffe_id(SERVER)),
        "source": {"principal": str(spiffe_id(client(number))), "mtls": True},
        "request": {
            "method": "GET",
            "path": f"/api/orders/{number}?full=1",
            "port": 8443,
            "headers": {
                "host": "orders",
                "user-agent": "bench",
                "accept": "application/json",
                "x-request-id": str(number),
            },
        },
    }
    return json.dumps({"input": asked}).encode()


@contextlib.contextmanager
def opa(folder: Path, grants: int) -> Iterator[http.client.HTTPConnection]:
    """A connection to an OPA with so many grants."""
    for name, text in {**modules(), "bench.rego": NO_OP}.items():
        (folder / "modules" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "modules" / name).write_text(text)
    (folder / "data.json").write_text(json.dumps(document(grants)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [find_or_build("opa"), "run", "--server", "--disable-telemetry", "--log-level", "error"]
    command += ["--addr", f"127.0.0.1:{port}", folder / "modules", folder / "data.json"]
    child = Child("opa", command, folder / "opa.log", environment=COLLECTOR)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        _await(connection, child, folder / "opa.log")
        yield connection
    finally:
        connection.close()
        child.stop(STOP_SECONDS)


def _await(connection: http.client.HTTPConnection, child: Child, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.exit_code is None:
        try:
            connection.request("GET", "/health")
            if connection.getresponse().read() is not None:
                return
        except OSError:
            connection.close()
            time.sleep(0.05)
    raise SystemExit(f"error: OPA did not start:\n{log.read_text()[-2000:]}")


def ask(connection: http.client.HTTPConnection, path: str, body: bytes, expected: bytes = b'"allowed":true') -> float:
    """Milliseconds until the answer is read; an answer that does not say what is expected is an error of the benchmark."""
    begin = time.perf_counter()
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse().read()
    spent = (time.perf_counter() - begin) * 1000
    if expected not in answer:
        raise SystemExit(f"error: not {expected.decode()}: {answer[:500].decode()}")
    return spent


def measure(grants: int, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each decision, and of each question to the policy that does nothing."""
    random = Random(grants)  # noqa: S311 - which client asks is no secret
    with tempfile.TemporaryDirectory() as folder, opa(Path(folder), grants) as connection:
        bodies = [question(random.randrange(grants)) for _ in range(requests + 200)]
        pairs = [(ask(connection, DECISION, body), ask(connection, NOTHING, body)) for body in bodies][200:]
    return [one for one, _ in pairs], [other for _, other in pairs]


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000, help="of each kind, for each size")
    arguments = parser.parse_args()
    printed = Printed(title=f"OPA decisions, ms, {arguments.requests} requests each")
    for heading in (
        "grants",
        "p50",
        "p99",
        "no-op p50",
        "no-op p99",
        "net p50",
        "net p99",
        "net p50 ratio",
        "net p99 ratio",
    ):
        printed.add_column(heading, justify="right")
    first: tuple[float, float] | None = None
    for grants in SIZES:
        decided, nothing = measure(grants, arguments.requests)
        figures = [percentile(values, percent) for values in (decided, nothing) for percent in (50, 99)]
        net = (figures[0] - figures[2], figures[1] - figures[3])
        first = first or net
        ratios = [f"{mine / theirs:.2f}" for mine, theirs in zip(net, first, strict=True)]
        printed.add_row(f"{grants:,}", *(f"{one:.3f}" for one in (*figures, *net)), *ratios)
    Console(width=140).print(printed)


if __name__ == "__main__":
    main()
