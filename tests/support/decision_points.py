"""Bundle servers and OPAs beside a running controller, as pods of a cluster would be: real tokens, real SVIDs, real OPA."""

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from hack.children import Child
from tests.support.deployment import GENEROUS_SECONDS, OPERATOR_NAMESPACE, Running, keep_metrics
from tests.support.opa import Opa, free_port
from tests.support.passage import Passage
from tests.support.service_names import LOOPBACK, named_services
from zerotrust.common.naming import API_VERSION, BUNDLE_SERVER
from zerotrust.opabundle.configuration import CONFIG_MAP, OPA_FILE, SERVICE

HOST = f"{BUNDLE_SERVER}.{OPERATOR_NAMESPACE}.svc"
PROGRAM = Path(sys.executable).with_name("zerotrust")


class Replica:
    """One bundle server process; `rights` is the kubeconfig that it gets, by default that of its account.

    `options` go to its command line.
    """

    options: Sequence[str] = ()

    def __init__(self, running: Running, folder: Path, name: str, rights: Path | None = None) -> None:
        self._running, self._folder, self.name = running, folder, name
        self._rights = rights or running.bundle_server_rights
        self.port, self.metrics = free_port(), free_port()
        self.process: Child | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        svid = self._folder / "svid"
        svid.mkdir(exist_ok=True)
        text = self._running.plane.kubectl(
            "get", "secret", f"{BUNDLE_SERVER}-svid", "-n", OPERATOR_NAMESPACE, "-o", "json"
        )
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (svid / name).write_bytes(base64.b64decode(json.loads(text)["data"][name]))
        command: list[str | Path] = [PROGRAM, "bundle-server", "--kubeconfig", self._rights]
        command += ["--namespace", OPERATOR_NAMESPACE, "--svid", svid, "--pod", self.name]
        command += ["--host", LOOPBACK, "--port", str(self.port)]
        command += ["--metrics-host", LOOPBACK, "--metrics-port", str(self.metrics), *self.options]
        self.process = Child(self.name, command, self._folder / "bundle-server.log")

    def stop(self, grace: float = 20.0) -> None:
        if self.process is not None:
            keep_metrics(self.metrics, self._folder / "bundle-server.metrics")
            self.process.stop(grace)
            self.process = None


class DecisionPoints:
    """One bundle server, and OPAs that are told everything by the ConfigMap that the controller wrote."""

    program: type[Opa] = Opa
    file = OPA_FILE

    def __init__(self, running: Running, folder: Path) -> None:
        self.running, self._folder = running, folder
        self.server = Replica(running, folder / "bundle-server", "replica-0")
        self._proxy, self._ports = "", dict[str, int]()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["DecisionPoints"]:
        """With the bundle server's own identity issued, and the server started."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        place = {"name": BUNDLE_SERVER, "namespace": OPERATOR_NAMESPACE}
        identity = {"apiVersion": API_VERSION, "kind": "ServiceIdentity", "metadata": place}
        spec = {"certificate": {"dnsNames": [HOST]}}
        self.running.apply({**account, "metadata": place}, {**identity, "spec": spec})
        await self.until(
            lambda: self.running.conditions("svid", BUNDLE_SERVER, OPERATOR_NAMESPACE).get("Ready", " ")[0] == "True",
            "the bundle server has its SVID",
        )
        self.server.start()
        try:
            self._ports[HOST] = self.server.port
            async with named_services(self._ports) as self._proxy:
                yield self
        finally:
            self.server.stop()

    def send_to(self, listener: Replica | Passage) -> None:
        """Let new connections to the Service go to another replica, or to what stands before several."""
        self._ports[HOST] = listener.port

    @contextlib.asynccontextmanager
    async def opa(self, namespace: str, account: str, pod: str) -> AsyncIterator[Opa]:
        """A pod with an OPA, which has a token that is bound to it; it may not answer yet (`ready`)."""
        uid = self._pod(namespace, account, pod)
        folder = self._folder / pod
        folder.mkdir()
        kubectl = self.running.plane.kubectl
        token = kubectl(
            "create", "token", account, "-n", namespace, "--audience", "zerotrust-bundles",
            "--bound-object-kind", "Pod", "--bound-object-name", pod, "--bound-object-uid", uid,
        )  # fmt: skip
        (folder / "token").write_text(token.strip())
        await self.until(lambda: self._configuration(namespace), f"the OPA configuration of {namespace}")
        authorities = json.loads(kubectl("get", "configmap", "example.org.trust-bundle", "-n", namespace, "-o", "json"))
        (folder / "bundle.pem").write_text(authorities["data"]["bundle.pem"])
        configuration = self._configuration(namespace)
        service = configuration["services"][SERVICE]
        service["credentials"]["bearer"]["token_path"] = str(folder / "token")
        service["tls"]["ca_cert"] = str(folder / "bundle.pem")
        configuration["persistence_directory"] = str(folder / "persisted")
        opa = self.program(folder, configuration)
        self.environment = {"POD_NAME": pod, "POD_UID": uid, "HTTPS_PROXY": self._proxy}
        opa.start(self.environment)
        try:
            yield opa
        finally:
            await opa.close()
            kubectl("delete", "pod", pod, "-n", namespace)  # while it is there, its silence is no agreement

    def _pod(self, namespace: str, account: str, pod: str) -> str:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": "policybundles", "namespace": namespace},
        }
        rule = {"apiGroups": ["zerotrust.dev"], "resources": ["policybundles"], "verbs": ["get"]}
        group = {
            "kind": "Group",
            "name": f"system:serviceaccounts:{namespace}",
            "apiGroup": "rbac.authorization.k8s.io",
        }
        reference = {"kind": "Role", "name": "policybundles", "apiGroup": "rbac.authorization.k8s.io"}
        self.running.apply(
            {**role, "kind": "Role", "rules": [rule]},
            {**role, "kind": "RoleBinding", "subjects": [group], "roleRef": reference},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "namespace": namespace},
                "spec": {"serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]},
            },
        )
        found = json.loads(self.running.plane.kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        return str(found["metadata"]["uid"])

    def _configuration(self, namespace: str) -> dict[str, Any]:
        text = self.running.plane.kubectl(
            "get", "configmap", CONFIG_MAP, "-n", namespace, "-o", "json", "--ignore-not-found"
        )
        found: dict[str, Any] = yaml.safe_load(json.loads(text)["data"][self.file]) if text else {}
        return found

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait, without holding up the proxy, for a condition that asks kubectl."""
        return await asyncio.to_thread(self.running.until, condition, what)

    async def decided(self, opa: Opa, given: object, reason: str, seconds: float = GENEROUS_SECONDS) -> float:
        """Wait until an OPA answers with this reason; returns after how many seconds it did."""
        started = time.monotonic()
        while True:
            answer: dict[str, Any] = {}
            with contextlib.suppress(aiohttp.ClientError):  # it may be starting
                answer = await opa.ask(given) or {}
            if answer.get("reason") == reason:
                return time.monotonic() - started
            log = self.server.process.tail() if self.server.process else ""
            assert time.monotonic() - started < seconds, (
                f"{reason} expected, got {answer}\n{log}\n{opa.log.read_text()}"
            )
            await asyncio.sleep(0.005)
