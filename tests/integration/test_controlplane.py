"""The local control plane itself: that it is a real cluster, and that nothing of it is left behind."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack import controlplane
from hack.controlplane import ControlPlane, ControlPlaneError

pytestmark = pytest.mark.cluster

SCRIPT = Path(controlplane.__file__)
COMPONENTS = {"etcd", "kube-apiserver", "kube-controller-manager"}
only_with_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the components through /proc")
only_own = pytest.mark.skipif(controlplane.EXISTING_CLUSTER in os.environ, reason="an existing cluster is used")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@only_own
def test_the_api_server_is_the_pinned_one_and_ready(control_plane: ControlPlane) -> None:
    version = json.loads(control_plane.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"] == "v1.37.0"
    assert version["clientVersion"]["gitVersion"] == "v1.37.0"
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_kubectl_applies_what_it_is_given(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", "-f", "-", stdin=a_config_map("greeting", namespace, data={"hello": "world"}))
    assert control_plane.kubectl("get", "cm", "greeting", "-n", namespace, "-o", "jsonpath={.data.hello}") == "world"


def test_kubectl_raises_the_servers_answer(control_plane: ControlPlane, namespace: str) -> None:
    with pytest.raises(ControlPlaneError, match='configmaps "absent" not found'):
        control_plane.kubectl("get", "configmap", "absent", "-n", namespace)
    assert "not found" in control_plane.kubectl("get", "configmap", "absent", "-n", namespace, check=False)


def test_metrics_count_requests(control_plane: ControlPlane) -> None:
    assert "apiserver_request_total{" in control_plane.metrics()


def test_rbac_denies_a_user_until_a_role_is_bound(control_plane: ControlPlane, namespace: str) -> None:
    jane = control_plane.kubeconfig_for("jane", ["developers"])
    list_secrets = ("get", "secrets", "-n", namespace)
    with pytest.raises(ControlPlaneError, match=r'User "jane" cannot list resource "secrets"'):
        control_plane.kubectl(*list_secrets, kubeconfig=jane)

    binding = ("rolebinding", "developers", "--clusterrole=admin", "--group=developers", "-n", namespace)
    control_plane.kubectl("create", *binding)
    wait_until(
        lambda: "No resources found" in control_plane.kubectl(*list_secrets, kubeconfig=jane, check=False),
        "the group's role lets jane list Secrets",
    )


@only_own
@pytest.mark.parametrize(("path", "status"), [("/readyz", 200), ("/livez", 200), ("/version", 401), ("/api", 401)])
def test_only_health_is_public(control_plane: ControlPlane, path: str, status: int) -> None:
    trusting = ssl.create_default_context(cafile=control_plane.authority)
    address = urllib.parse.urlsplit(control_plane.url)
    assert address.hostname
    connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=10, context=trusting)
    with contextlib.closing(connection):
        connection.request("GET", path)
        assert connection.getresponse().status == status


def test_garbage_collector_deletes_a_dependent(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", "-f", "-", stdin=a_config_map("owner", namespace))
    owner = control_plane.kubectl("get", "cm", "owner", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner}
    control_plane.kubectl("apply", "-f", "-", stdin=a_config_map("dependent", namespace, owners=[reference]))
    control_plane.kubectl("delete", "configmap", "owner", "-n", namespace)
    wait_until(
        lambda: "not found" in control_plane.kubectl("get", "cm", "dependent", "-n", namespace, check=False),
        "the dependent is deleted",
    )


def test_a_namespace_gets_its_service_account_and_root_certificate(control_plane: ControlPlane, namespace: str) -> None:
    everything = ("get", "serviceaccounts,configmaps", "-n", namespace, "-o", "name")
    expected = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
    wait_until(lambda: expected <= set(control_plane.kubectl(*everything).split()), "both are there")


@only_own
def test_a_taken_port_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    choices: list[list[int]] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free_ports = controlplane._free_ports

        def unlucky_at_first(count: int) -> list[int]:
            ports = free_ports(count)
            choices.append([*ports[:1], taken.getsockname()[1]] if not choices else ports)
            return choices[-1]

        monkeypatch.setattr(controlplane, "_free_ports", unlucky_at_first)
        with ControlPlane() as plane:
            assert plane.kubectl("get", "--raw", "/readyz") == "ok"
            assert plane.url.endswith(f":{choices[1][1]}")


@only_own
def test_a_component_that_fails_shows_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(controlplane, "etcd_flags", lambda *_: {"no-such-flag": 1})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = r"(?s)etcd ended with code \d+; its log ends:.*no-such-flag"
    with pytest.raises(ControlPlaneError, match=ended), ControlPlane():
        pytest.fail("it must not start")
    assert not list(tmp_path.iterdir())


def test_an_existing_cluster_is_used_and_left_alone(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(controlplane.EXISTING_CLUSTER, str(control_plane.kubeconfig))
    with ControlPlane() as guest:
        assert guest.url == control_plane.url
        assert guest.authority.read_bytes() == control_plane.authority.read_bytes()
        assert guest.admin_key.read_bytes() == control_plane.admin_key.read_bytes()
        jane = guest.kubeconfig_for("jane", ["developers", "testers"])
        whoami = json.loads(guest.kubectl("auth", "whoami", "-o", "json", kubeconfig=jane))
        assert whoami["status"]["userInfo"]["username"] == "jane"
        assert {"developers", "testers"} <= set(whoami["status"]["userInfo"]["groups"])
    assert control_plane.kubectl("get", "namespace", namespace, "-o", "name").strip() == f"namespace/{namespace}"


@only_with_proc
@only_own
def test_nothing_outlives_a_killed_owner(command: "RunningCommand") -> None:
    command.process.kill()
    command.process.wait()
    wait_until(lambda: not command.survivors(), "the kernel ends the components", seconds=5)


@only_with_proc
@only_own
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_polite_signal(command: "RunningCommand", number: signal.Signals) -> None:
    command.process.send_signal(number)
    assert command.process.wait(20) == 0, command.log.read_text()
    assert not command.survivors()
    assert not command.kubeconfig.exists()
    assert not list(command.temporary.iterdir())


@only_with_proc
@only_own
def test_the_command_ends_when_a_component_does(command: "RunningCommand") -> None:
    os.kill(command.components["etcd"], signal.SIGKILL)
    assert command.process.wait(20) == 1
    assert "error: etcd ended with code -9" in command.log.read_text()
    assert not command.survivors()


@dataclass(frozen=True)
class RunningCommand:
    """`python hack/controlplane.py` in a process of its own, ready."""

    process: subprocess.Popen[bytes]
    kubeconfig: Path
    temporary: Path
    log: Path
    components: Mapping[str, int]

    def survivors(self) -> set[str]:
        return {name for name, process in self.components.items() if is_running(process)}


@pytest.fixture
def command(tmp_path: Path) -> Iterator[RunningCommand]:
    kubeconfig, temporary, log = tmp_path / "kubeconfig", tmp_path / "temporary", tmp_path / "log"
    temporary.mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--kubeconfig", str(kubeconfig)],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    with process:
        try:
            wait_until(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None, "it is ready", seconds=60)
            assert process.poll() is None, log.read_text()
            components = children_of(process.pid)
            assert set(components) == COMPONENTS
            yield RunningCommand(process, kubeconfig, temporary, log, components)
        finally:
            process.kill()


def children_of(parent: int) -> dict[str, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading of its files.
        with contextlib.suppress(OSError):
            if status_fields(entry)[1] == str(parent):
                program = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                found[Path(program).name] = int(entry.name)
    return found


def is_running(process: int) -> bool:
    try:
        # Where nobody reaps orphans, as in many containers, an ended process stays as a zombie.
        return status_fields(Path(f"/proc/{process}"))[0] not in {"Z", "X"}
    except OSError:
        return False


def status_fields(entry: Path) -> list[str]:
    """State, parent and so on: what follows the command's name, which is in parentheses and may contain any sign."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def a_config_map(name: str, namespace: str, *, data: object = None, owners: object = None) -> str:
    metadata = {"name": name, "namespace": namespace, "ownerReferences": owners or []}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data or {}})
