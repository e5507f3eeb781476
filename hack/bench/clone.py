"""How long it takes from a clone to the first identity: the README's own commands, in a fresh clone.

`python -m hack.bench.clone`. The Go tools are taken from their cache; `make tools` says what an empty one costs.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hack.children import Child
from hack.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "zerotrust-system"
STOP_SECONDS = 15.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="zerotrust-clone-") as name, ControlPlane() as plane:
        clone, begun, before = Path(name) / "clone", time.monotonic(), 0.0

        def step(what: str, act: Callable[[], object]) -> None:
            nonlocal before
            act()
            after = time.monotonic() - begun
            print(f"{what:<40} {after - before:6.1f} s {after:8.1f} s", flush=True)
            before = after

        def apply(folder: str) -> None:
            plane.kubectl("apply", "-f", str(clone / folder))

        def ready() -> None:
            plane.kubectl("wait", "--for=condition=Ready", "svid", "--all", "-A", "--timeout=120s")

        print(f"{'step':<40} {'alone':>8} {'in all':>10}")
        step("git clone", lambda: _run("git", "clone", "--quiet", str(ROOT), str(clone)))
        step("make venv", lambda: _run("make", "--directory", str(clone), "venv"))
        step("kubectl apply -f crds/", lambda: apply("crds"))
        step("kubectl create namespace", lambda: plane.kubectl("create", "namespace", NAMESPACE))
        command: list[str | Path] = [clone / ".venv/bin/zerotrust", "controller", "--kubeconfig", plane.kubeconfig]
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", "0"]
        controller = Child("controller", command, Path(name) / "log")
        try:
            step("kubectl apply -f examples/quickstart", lambda: apply("examples/quickstart"))
            step("three identities are Ready", ready)
        finally:
            controller.stop(STOP_SECONDS)
    return 0


def _run(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
