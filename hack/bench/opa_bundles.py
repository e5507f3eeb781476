"""`python -m hack.bench.opa_bundles`: what one publish costs, in CPU time: build and sign, then read and verify."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from zerotrust.opabundle import signing
from zerotrust.opabundle.archive import build, read, scope_of
from zerotrust.opabundle.document import content_hash
from zerotrust.opabundle.modules import modules

SIZES = (10, 1_000, 10_000)
CLIENTS_OF_EACH = 10
SCOPE = scope_of("zerotrust-system", "shop", "policy")


def document(grants: int) -> dict[str, Any]:
    """A namespace with this many grants: servers of ten clients each, every row with a method and a path."""
    servers = {
        f"spiffe://example.org/ns/shop/sa/server-{number:05d}": {
            "name": f"server-{number:05d}",
            "trust_domain": "example.org",
            "enforcement": "Enforce",
            "on_stale_revocations": "Deny",
            "grants": {
                f"spiffe://example.org/ns/web/sa/client-{number:05d}-{client}": [
                    {
                        "policy": "callers",
                        "rule": "reads",
                        "effect": "Allow",
                        "port": 8443,
                        "protocol": "TCP",
                        "methods": ["GET"],
                        "paths": [["api", "orders", "**"]],
                    }
                ]
                for client in range(CLIENTS_OF_EACH)
            },
        }
        for number in range(grants // CLIENTS_OF_EACH)
    }
    content = {"authorities": {}, "providers": {}, "servers": servers, "api_keys": {}}
    meta = {
        "schema": 1,
        "serial": 1,
        "revision": content_hash(content, modules()),
        "issued_at": 1,
        "not_after": 2,
        "namespace": "shop",
    }
    return {"zerotrust_data": {"policy": {**content, "meta": meta}}}


def milliseconds(action: Callable[[], object], runs: int) -> float:
    """The median CPU time of one call."""
    times = []
    for _ in range(runs):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return statistics.median(times) * 1000


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    key = signing.create()
    print(f"{'grants':>8} {'archive':>10} {'build+sign':>12} {'read+verify':>12} {'sign only':>10}")
    for size in SIZES:
        wanted = document(size)
        archive = build(wanted, modules(), SCOPE, key)
        building = milliseconds(lambda wanted=wanted: build(wanted, modules(), SCOPE, key), runs)  # type: ignore[misc]
        reading = milliseconds(lambda archive=archive: read(archive, {key.id: key.public}, SCOPE), runs)  # type: ignore[misc]
        signature = milliseconds(lambda: key.sign(b"x" * 2048), runs)
        print(f"{size:>8} {len(archive):>8} B {building:>9.1f} ms {reading:>9.1f} ms {signature:>7.2f} ms")


if __name__ == "__main__":
    main()
