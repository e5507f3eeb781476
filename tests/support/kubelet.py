"""Runs the pods of a Deployment as a kubelet would, but as processes of this machine.

Arguments, environment, account and mounted Secrets are those of the object in the cluster; the token is bound to a real Pod that
the API server has admitted. Only addresses, ports and paths are this machine's.
"""

import base64
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hack.children import Child
from hack.controlplane import ControlPlane
from tests.support.deployment import keep_metrics
from tests.support.opa import free_port
from tests.support.service_names import LOOPBACK

PATIENCE_SECONDS = 120.0
GRACE_SECONDS = 30.0
ENTRYPOINT = Path(sys.executable).with_name("zerotrust")


@dataclass(frozen=True)
class Running:
    """A container that runs; `telemetry` is where its probes and metrics are."""

    pod: str
    process: Child
    telemetry: int
    log: Path

    def answers(self, path: str) -> bool:
        """Tell whether a probe succeeds."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.telemetry}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.telemetry}/metrics", timeout=30) as answer:
            return str(answer.read().decode())


class Kubelet:
    """Starts and stops the pods of Deployments in one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder
        self.running = list[Running]()

    def start(self, deployment: str, replicas: int | None = None) -> None:
        """Run as many replicas as a Deployment asks for, or `replicas` of them, each once its Secrets are there."""
        found = self._read("deployment", deployment)
        for number in range(replicas or found["spec"]["replicas"]):
            self.running.append(self._run(f"{deployment}-{number}", found["spec"]["template"]))

    def stop(self) -> None:
        """End the processes, newest first, and delete their Pods."""
        while self.running:
            one = self.running.pop()
            keep_metrics(one.telemetry, one.log.with_suffix(".metrics"))
            one.process.stop(GRACE_SECONDS)
            self._kubectl("delete", "pod", one.pod, "--ignore-not-found", "--grace-period=0", "--force")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition while all processes live."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := condition()):
            for one in self.running:
                assert one.process.exit_code is None, f"{one.pod} ended:\n{one.process.tail()}"
            tails = "\n".join(f"{one.pod}: {one.process.tail()}" for one in self.running)
            assert time.monotonic() < deadline, f"it never came to this: {what}\n{tails}"
            time.sleep(0.1)
        return value

    def _run(self, name: str, template: dict[str, Any]) -> Running:
        metadata = {**template["metadata"], "name": name, "namespace": self._namespace}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        pod = json.loads(self._kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(manifest)))
        (container,) = pod["spec"]["containers"]
        folder = self._folder / f"{name}-{pod['metadata']['uid']}"
        folder.mkdir(parents=True)
        telemetry, log = free_port(), folder / "container.log"
        arguments = [*container["args"], f"--metrics-host={LOOPBACK}", f"--metrics-port={telemetry}"]
        if any(port["name"] == "https" for port in container["ports"]):
            arguments += [f"--host={LOOPBACK}", f"--port={free_port()}"]
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                assert f"--{volume['name']}" not in container["args"]
                arguments.append(f"--{volume['name']}={self._mounted(volume, folder)}")
        environment = {one["name"]: field(pod, one["valueFrom"]["fieldRef"]["fieldPath"]) for one in container["env"]}
        environment |= {"KUBECONFIG": str(self._kubeconfig(pod, folder)), "HOME": "/", "PATH": "/usr/bin:/bin"}
        return Running(name, Child(name, [ENTRYPOINT, *arguments], log, environment=environment), telemetry, log)

    def _mounted(self, volume: dict[str, Any], folder: Path) -> Path:
        """The files of a Secret, as soon as there is one."""
        name = volume["secret"]["secretName"]
        secret = self.until(lambda: self._read("secret", name), f"there is the Secret {name}")
        place = folder / str(volume["name"])
        place.mkdir()
        for file, content in secret["data"].items():
            (place / file).write_bytes(base64.b64decode(content))
        return place

    def _kubeconfig(self, pod: dict[str, Any], folder: Path) -> Path:
        """With a token of the pod's account, which a pod gets only if it asks for one."""
        assert pod["spec"]["automountServiceAccountToken"] is True
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}")
        account = pod["spec"]["serviceAccountName"]
        token = self._kubectl(
            "create", "token", account, *bound, f"--bound-object-uid={pod['metadata']['uid']}"
        ).strip()
        authority = base64.b64encode(self._plane.authority.read_bytes()).decode()
        cluster = {"server": self._plane.url, "certificate-authority-data": authority}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pod",
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
            "clusters": [{"name": "pod", "cluster": cluster}],
            "users": [{"name": "pod", "user": {"token": token}}],
        }
        file = folder / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(document))
        return file

    def _read(self, kind: str, name: str) -> dict[str, Any]:
        text = self._kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._plane.kubectl("-n", self._namespace, *arguments, stdin=stdin)


def field(pod: dict[str, Any], path: str) -> str:
    """What a fieldRef means."""
    section, name = path.split(".")
    return str(pod[section][name])
