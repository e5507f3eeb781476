"""Gatekeeper against a local control plane: real processes, and pods that only look as if they ran (there is no kubelet).

What it installs is Gatekeeper's own: CRDs, rights and webhook configuration are read from the pinned Go module, and the
processes have the rights of its ServiceAccount. Mutation and certificate rotation are left out.
"""

import contextlib
import http.client
import json
import os
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from hack.certificates import CertificateAuthority
from hack.children import Child
from hack.components import LOOPBACK
from hack.controlplane import ControlPlane
from hack.gotools import find_or_build, module_files

MODULE = "github.com/open-policy-agent/gatekeeper/v3"
NAMESPACE = "gatekeeper-system"
USER = f"system:serviceaccount:{NAMESPACE}:gatekeeper-admin"
GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}")
CONFIGURATION = "gatekeeper-validating-webhook-configuration"
# Nobody listens on this port (RFC 863). Prometheus' exporter, the default, would listen on every address.
_NO_METRICS = ("--metrics-backend=opentelemetry", f"--otlp-endpoint={LOOPBACK}:9", "--otlp-metric-interval=24h")
_INSTALLED = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_LABEL_CHECK = "check-ignore-label.gatekeeper.sh"
START_SECONDS = 60.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05

Body = dict[str, Any]


class GatekeeperError(Exception):
    """Gatekeeper does not start, or the API server does not notice it; the message has the end of the log."""


@dataclass(frozen=True)
class _Process:
    """One of the Deployments of Gatekeeper's Helm chart, with what its one process does here."""

    deployment: str
    flags: tuple[str, ...]


WEBHOOK = _Process(
    "gatekeeper-controller-manager", ("--operation=webhook", f"--exempt-namespace={NAMESPACE}", "--log-denies")
)
AUDIT = _Process("gatekeeper-audit", ("--operation=audit", "--operation=status", "--operation=generate"))


def module_folder() -> Path:
    """Where Gatekeeper's manifests are. Raises ToolError."""
    return module_files("gatekeeper", MODULE)


class Gatekeeper:
    """A Gatekeeper inside a `with` block: one process that is asked by the API server, one that audits and tells the status.

    `folder` gets certificates and logs. Audits run `audit_seconds` apart. Like its children, enter it in a thread that stays.
    """

    def __init__(self, plane: ControlPlane, folder: Path, audit_seconds: int = 5) -> None:
        self._plane, self._folder, self._audit_seconds = plane, folder, audit_seconds
        self._children: dict[_Process, Child] = {}
        self._ports: dict[_Process, int] = {}
        self._rollouts = 0

    def __enter__(self) -> Self:
        try:
            self.install()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def install(self) -> None:
        """Put everything in place and wait until the API server asks the webhook; again after `uninstall`."""
        module = module_folder()
        documents = yaml.safe_load_all((module / "deploy" / "gatekeeper.yaml").read_text())
        self._shipped: dict[tuple[str, str], Body] = {
            (one["kind"], one["metadata"]["name"]): one for one in documents if one is not None
        }
        self._crds = module / "charts" / "gatekeeper" / "crds"
        self._plane.kubectl("apply", "--server-side", "-f", str(self._crds))
        self._plane.kubectl("wait", "--for=condition=Established", "-f", str(self._crds), "--timeout=60s")
        # One after the other, and the namespace is first among them.
        objects = [one for (kind, _), one in self._shipped.items() if kind in _INSTALLED]
        self._plane.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
        self._authority = self._write_certificates()
        self._kubeconfig = self._plane.kubeconfig_for(USER, GROUPS)
        self._start(WEBHOOK, AUDIT)
        self.restore_webhook_configuration()

    def stop(self) -> None:
        """End the processes, and take the webhook away from an API server that lives on. May be called again."""
        while self._children:
            self._children.popitem()[1].stop(STOP_SECONDS)
        if self._ports:
            self._plane.kubectl(
                "delete", "validatingwebhookconfiguration", CONFIGURATION, "--ignore-not-found", check=False
            )
            self._ports.clear()

    def stop_webhook(self) -> None:
        """The process that the API server asks ends; its configuration stays, and lets everything pass (failurePolicy Ignore)."""
        self._children.pop(WEBHOOK).stop(STOP_SECONDS)

    def start_webhook(self) -> None:
        """The process is back at its address, and ready."""
        self._start(WEBHOOK)

    def remove_webhook_configuration(self) -> None:
        """The API server asks no more, and has noticed."""
        self._plane.kubectl("delete", "validatingwebhookconfiguration", CONFIGURATION)
        self._wait(lambda: not self._asked(), "the API server forgets the webhook")

    def restore_webhook_configuration(self) -> None:
        """The API server asks, and has noticed: what the Helm chart's defaults make, but for the address."""
        configuration = self._shipped["ValidatingWebhookConfiguration", CONFIGURATION]
        for webhook in configuration["webhooks"]:
            path = _path(webhook["clientConfig"])
            url = f"https://{LOOPBACK}:{self._ports[WEBHOOK]}{path}"
            webhook["clientConfig"] = {"url": url, "caBundle": b64encode(self._authority).decode()}
        self._plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(configuration))
        self._wait(self._asked, "the API server asks the webhook")

    def restart(self) -> None:
        """Both processes end and others begin, in pods with other names, as after a rollout."""
        before = self.pods()
        while self._children:
            self._children.popitem()[1].stop(STOP_SECONDS)
        self._plane.kubectl("delete", "pods", *before, "-n", NAMESPACE, "--grace-period=0", "--force")
        self._rollouts += 1
        self._start(WEBHOOK, AUDIT)

    def uninstall(self) -> None:
        """No process, no webhook configuration, no CRD, and with the CRDs no template and no constraint either."""
        pods = self.pods()
        self.stop()
        self._rollouts += 1
        self._plane.kubectl(
            "delete", "pods", *pods, "-n", NAMESPACE, "--grace-period=0", "--force", "--ignore-not-found"
        )
        self._plane.kubectl("delete", "-f", str(self._crds), "--timeout=60s")

    def pods(self) -> list[str]:
        """Names of the pods that it runs in: ids in `status.byPod`."""
        return [self._pod(process) for process in self._ports]

    def logs(self) -> str:
        """Everything that its processes said, those before a restart included."""
        files = sorted(self._folder.glob("gatekeeper-*.log"))
        return "\n".join(f"== {file.stem}\n{file.read_text(errors='replace')}" for file in files)

    def _start(self, *processes: _Process) -> None:
        health = {process: self._launch(process) for process in processes}
        for process, port in health.items():
            self._wait(partial(_answers, port, "/readyz"), f"{process.deployment} is ready")

    def _launch(self, process: _Process) -> int:
        """Start a process in its pod; returns the port that tells about its health."""
        name = self._pod(process)
        serving, health = _free_port(), _free_port()
        serving = self._ports.setdefault(process, serving)
        self._make_pod(process, name)
        cache = self._folder / "audit"
        cache.mkdir(exist_ok=True)
        flags = [
            *process.flags,
            *_NO_METRICS,
            f"--host={LOOPBACK}",
            f"--port={serving}",
            f"--health-addr={LOOPBACK}:{health}",
            f"--cert-dir={self._folder}",
            f"--api-cache-dir={cache}",
            f"--audit-interval={self._audit_seconds}",
            "--disable-cert-rotation",
            "--disable-opa-builtin={http.send}",
            "--default-wait-for-vapb-generation=2",
            "--shutdown-delay=0",
        ]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAMESPACE": NAMESPACE,
            "POD_NAME": name,
        }
        command: list[str | Path] = [find_or_build("gatekeeper"), *flags]
        log = self._folder / f"{name}.log"
        self._children[process] = Child(name, command, log, directory=self._folder, environment=environment)
        return health

    def _make_pod(self, process: _Process, name: str) -> None:
        """The pod of the Deployment's template; status objects are owned by it, so that they go when it goes."""
        template = self._shipped["Deployment", process.deployment]["spec"]["template"]
        metadata = {"name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self._plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(pod))
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        change = json.dumps({"status": status})
        self._plane.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", change)

    def _pod(self, process: _Process) -> str:
        return f"{process.deployment}-{self._rollouts}"

    def _write_certificates(self) -> bytes:
        """Certificates in the folder, where the processes look for them; returns who issued them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        issuer = CertificateAuthority("gatekeeper-ca")
        serving = issuer.server("gatekeeper-webhook-service", [LOOPBACK])
        files = {
            "ca.crt": issuer.credential.certificate,
            "tls.crt": serving.certificate,
            "tls.key": serving.key,
        }
        for name, content in files.items():
            path = self._folder / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        return files["ca.crt"]

    def _asked(self) -> bool:
        """Tell whether the API server asks: Gatekeeper refuses its label to a namespace that is not exempt."""
        labels = {"admission.gatekeeper.sh/ignore": "probe"}
        probe = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gatekeeper-probe", "labels": labels}}
        answer = self._plane.kubectl(
            "create", "--dry-run=server", "-o", "name", "-f", "-", stdin=json.dumps(probe), check=False
        )
        return _LABEL_CHECK in answer

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            for child in self._children.values():
                if child.exit_code is not None:
                    raise GatekeeperError(f"{child.name} ended with code {child.exit_code}:\n{child.tail()}")
            if time.monotonic() > deadline:
                tails = "\n".join(child.tail() for child in self._children.values())
                raise GatekeeperError(f"not within {START_SECONDS:.0f} s: {what}; the logs end:\n{tails}")
            time.sleep(POLL_SECONDS)


def _path(client: Mapping[str, Any]) -> str:
    """The path of a webhook, whether it has a Service's address or has got ours already."""
    if "service" in client:
        return str(client["service"]["path"])
    return "/" + str(client["url"]).split("/", 3)[3]


def _answers(port: int, path: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=2)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])
