"""A control plane with our kinds and a running controller, as a user has them."""

import contextlib
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from hack.children import Child
from hack.controlplane import ControlPlane
from tests.support import rights

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "zerotrust-system"
GENEROUS_SECONDS = 120.0
# These clusters have no policies with parameters but ours, so the API server looks for their kinds when the first one comes.
AT_ONCE = ("--native-policies-after", "1")


class Running:
    """The running controller, with the rights of its account, and the cluster that it works on.

    `options` go to the controller's command line.
    """

    def __init__(self, plane: ControlPlane, folder: Path, *options: str) -> None:
        self.plane, self._options = plane, options
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        plane.kubectl("create", "namespace", OPERATOR_NAMESPACE)
        rights.install(plane, OPERATOR_NAMESPACE)
        self.rights = rights.kubeconfig_of(plane, rights.CONTROLLER, OPERATOR_NAMESPACE)
        self.bundle_server_rights = rights.kubeconfig_of(plane, rights.BUNDLE_SERVER, OPERATOR_NAMESPACE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = folder / "controller.log"
        self.restart_controller()

    def restart_controller(self) -> None:
        """Start the controller, for the first time or after it was stopped."""
        program = Path(sys.executable).with_name("zerotrust")
        place = ("--kubeconfig", self.rights, "--namespace", OPERATOR_NAMESPACE)
        listen = ("--metrics-host", "127.0.0.1", "--metrics-port", str(self.port))
        self.controller = Child("controller", [program, "controller", *place, *listen, *self._options], self._log)

    def apply(self, *documents: Any) -> None:
        """`kubectl apply` of documents, or of a path."""
        if len(documents) == 1 and isinstance(documents[0], str | Path):
            self.plane.kubectl("apply", "-f", str(documents[0]))
        else:
            self.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def every(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Every object of a kind, in all namespaces unless `arguments` say otherwise."""
        found = self.plane.kubectl("get", kind, *(arguments or ("-A",)), "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items

    def conditions(self, kind: str, name: str, namespace: str) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of each condition that is about the present generation."""
        text = self.plane.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        body = json.loads(text) if text else {}
        return {
            one["type"]: (one["status"], one["reason"], one["message"])
            for one in body.get("status", {}).get("conditions", [])
            if one["observedGeneration"] == body["metadata"]["generation"]
        }

    def until(self, condition: Callable[[], Any], what: str, every: float = 0.1) -> Any:
        """Wait for a condition and return what it says."""
        deadline = time.monotonic() + GENEROUS_SECONDS
        while not (value := condition()):
            assert self.controller.exit_code is None, self.controller.tail()
            assert time.monotonic() < deadline, f"it never came to this: {what}\n{self.controller.tail()}"
            time.sleep(every)
        return value

    def network_policies(self) -> list[dict[str, Any]]:
        """Every NetworkPolicy of the cluster, without what the API server adds."""
        return [
            {
                **{key: body[key] for key in ("apiVersion", "kind", "spec")},
                "metadata": {"name": body["metadata"]["name"], "namespace": body["metadata"]["namespace"]},
            }
            for body in self.every("networkpolicies")
        ]


def keep_metrics(port: int, page: Path) -> None:
    """Write what a process tells of itself into a file, if it still runs: it is searched for API keys."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        page.write_bytes(answer.read())


@contextlib.contextmanager
def deployed(folder: Path, *options: str) -> Iterator[Running]:
    """A control plane of its own with a controller; both are stopped at the end."""
    with ControlPlane() as plane:
        running = Running(plane, folder, *options)
        try:
            yield running
        finally:
            keep_metrics(running.port, folder / "controller.metrics")
            running.controller.stop(30)
