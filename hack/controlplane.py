"""A local Kubernetes control plane for tests and the demo: etcd, kube-apiserver, kube-controller-manager on loopback.

`python hack/controlplane.py` starts one for a person. ZEROTRUST_TEST_KUBECONFIG names an existing cluster to use
instead. ZEROTRUST_AUDIT_LOGS names a folder that gets, for each control plane, a folder with the components' logs and with
`audit.log`: every write that the API server was asked for, Secrets included, and every read by a ServiceAccount.
"""

import argparse
import atexit
import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack import kubeconfig
from hack.certificates import CertificateAuthority, Credential, new_key, signing_request
from hack.children import Child
from hack.components import (
    AUDIT_POLICY,
    AUTHENTICATION,
    LOOPBACK,
    api_server_flags,
    audit_flags,
    controller_manager_flags,
    etcd_flags,
)
from hack.gotools import ToolError, all_tools, find_or_build

CONTEXT = "zerotrust-controlplane"
EXISTING_CLUSTER = "ZEROTRUST_TEST_KUBECONFIG"
AUDIT_LOGS = "ZEROTRUST_AUDIT_LOGS"
START_ATTEMPTS = 3
START_SECONDS = 60.0
STOP_SECONDS = 5.0
PROBE_SECONDS = 2.0
POLL_SECONDS = 0.02


class ControlPlaneError(Exception):
    """The control plane does not start or refused a command; the message has the end of the log or the answer."""


class _PortTaken(ControlPlaneError):
    """Another process took a port between our choosing it and the component's listening on it."""


class ControlPlane:
    """A control plane that runs inside a `with` block, and is stopped and removed however that block ends.

    `kubeconfig` is the administrator's; the PEM files are for clients that read no kubeconfig. Enter it in the main
    thread, or in one that lives as long: the kernel stops the components when the thread that started them ends.
    """

    kubeconfig: Path
    url: str
    authority: Path
    admin_certificate: Path
    admin_key: Path

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._logs = Path()
        self._children: list[Child] = []
        self._issuer: CertificateAuthority | None = None
        self._owner = os.getpid()
        self._signals: list[signal.Signals] = []

    def __enter__(self) -> Self:
        try:
            atexit.register(self.stop)
            self._catch_signals()
            self._kubectl = find_or_build("kubectl")
            self._directory = Path(tempfile.mkdtemp(prefix="zerotrust-controlplane-"))
            if existing := os.environ.get(EXISTING_CLUSTER):
                self._use(Path(existing))
            else:
                self._start(self._directory)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> str:
        """What kubectl prints, run as the administrator or with another kubeconfig.

        A failure raises ControlPlaneError with the answer; with `check=False` the answer is appended to the output.
        """
        command = [self._kubectl, "--kubeconfig", kubeconfig or self.kubeconfig, "--cache-dir", self._path("kubectl")]
        done = subprocess.run(
            [*map(str, command), *arguments],
            input=stdin or "",  # with None it would read our own standard input
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    @property
    def audit_log(self) -> Path:
        """What the API server was asked; it is there while ZEROTRUST_AUDIT_LOGS names a folder."""
        return self._logs / "audit.log"

    def metrics(self) -> str:
        """The API server's metrics in Prometheus' text format."""
        return self.kubectl("get", "--raw", "/metrics")

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a new client certificate for this user, who has no rights but those of RBAC bindings."""
        credential = self._issuer.client(user, groups) if self._issuer else self._sign_in_cluster(user, groups)
        document = kubeconfig.render(CONTEXT, self.url, self.authority.read_bytes(), credential)
        return self._write(f"user-{uuid4().hex}.kubeconfig", document.encode())

    def watch(self) -> None:
        """Blocks while all components run. Raises ControlPlaneError when one ends by itself."""
        while True:
            self._check_children()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stops the components in reverse order and removes everything that was written. May be called again."""
        if os.getpid() != self._owner:
            return  # a forked copy of this process runs our atexit handlers too
        try:
            while self._children:
                self._children[-1].stop(STOP_SECONDS)
                self._children.pop()
        finally:
            # Interrupted half-way, it keeps the rest for the handler of atexit.
            if not self._children:
                if self._directory:
                    shutil.rmtree(self._directory, ignore_errors=True)
                    self._directory = None
                atexit.unregister(self.stop)
                self._release_signals()

    def _start(self, directory: Path) -> None:
        binaries = {tool: find_or_build(tool) for tool in ("etcd", "kube-apiserver", "kube-controller-manager")}
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._launch(binaries, directory)
            except _PortTaken:
                if attempt == START_ATTEMPTS:
                    raise
                while self._children:
                    self._children.pop().stop(STOP_SECONDS)
                shutil.rmtree(directory)
                directory.mkdir(mode=0o700)
            else:
                return

    def _launch(self, binaries: Mapping[str, Path], directory: Path) -> None:
        etcd_port, api_port = _free_ports(2)
        audited = os.environ.get(AUDIT_LOGS)
        self._logs = Path(tempfile.mkdtemp(prefix="control-plane-", dir=audited)) if audited else directory
        issuer = self._issuer = CertificateAuthority(CONTEXT)
        self.url = f"https://{LOOPBACK}:{api_port}"
        self.authority = self._write("ca.crt", issuer.credential.certificate)
        self._write("ca.key", issuer.credential.key)
        self._write_administrator(issuer.client("admin", ["system:masters"]))

        self._run(binaries["etcd"], etcd_flags(directory, etcd_port))
        self._wait("etcd", lambda: _answers(_connection(etcd_port), "/readyz"))

        names = [LOOPBACK, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1"]
        serving = issuer.server("kube-apiserver", names)
        self._write("apiserver.crt", serving.certificate)
        self._write("apiserver.key", serving.key)
        self._write("service-accounts.key", new_key())
        self._write("authentication.json", json.dumps(AUTHENTICATION).encode())
        flags = dict(api_server_flags(directory, etcd_port, api_port))
        if audited:
            self._write("audit.json", json.dumps(AUDIT_POLICY).encode())
            flags |= audit_flags(directory, self.audit_log)
        self._run(binaries["kube-apiserver"], flags)
        anyone = ssl.create_default_context(cafile=self.authority)
        self._wait("kube-apiserver", lambda: _answers(_connection(api_port, anyone), "/readyz"))

        manager = issuer.client("system:kube-controller-manager", ["system:masters"])
        document = kubeconfig.render(CONTEXT, self.url, issuer.credential.certificate, manager)
        self._write("manager.kubeconfig", document.encode())
        self._run(binaries["kube-controller-manager"], controller_manager_flags(directory))
        admin = ssl.create_default_context(cafile=self.authority)
        admin.load_cert_chain(self.admin_certificate, self.admin_key)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait("kube-controller-manager", lambda: _answers(_connection(api_port, admin), account))

    def _use(self, existing: Path) -> None:
        access = kubeconfig.read(existing)
        self.url = access.url
        self.authority = self._write("ca.crt", access.authority)
        self.kubeconfig = existing
        if access.credential:
            self.admin_certificate = self._write("admin.crt", access.credential.certificate)
            self.admin_key = self._write("admin.key", access.credential.key)

    def _sign_in_cluster(self, user: str, groups: Sequence[str]) -> Credential:
        """A client certificate from a cluster whose authority's key we do not have."""
        request, name = signing_request(user, groups), f"zerotrust-{uuid4().hex}"
        specification = {
            "request": b64encode(request.certificate).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        }
        manifest = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": specification,
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        self.kubectl("certificate", "approve", name)
        signed = "jsonpath={.status.certificate}"
        self.kubectl("wait", f"--for={signed}", f"--timeout={START_SECONDS:.0f}s", "csr", name)
        return Credential(b64decode(self.kubectl("get", "csr", name, "-o", signed)), request.key)

    def _write_administrator(self, credential: Credential) -> None:
        self.admin_certificate = self._write("admin.crt", credential.certificate)
        self.admin_key = self._write("admin.key", credential.key)
        document = kubeconfig.render(CONTEXT, self.url, self.authority.read_bytes(), credential)
        self.kubeconfig = self._write("admin.kubeconfig", document.encode())

    def _run(self, binary: Path, flags: Mapping[str, object]) -> None:
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        self._children.append(Child(binary.name, [binary, *arguments], self._logs / f"{binary.name}.log"))

    def _wait(self, component: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self._check_children()
            if time.monotonic() > deadline:
                log = self._children[-1].tail()
                raise ControlPlaneError(f"{component} is not ready after {START_SECONDS:.0f} s; its log ends:\n{log}")
            time.sleep(POLL_SECONDS)

    def _check_children(self) -> None:
        for child in self._children:
            if child.exit_code is not None:
                log = child.tail()
                reason = _PortTaken if "address already in use" in log else ControlPlaneError
                raise reason(f"{child.name} ended with code {child.exit_code}; its log ends:\n{log}")

    def _path(self, name: str) -> Path:
        if self._directory is None:
            raise ControlPlaneError("the control plane is not running")
        return self._directory / name

    def _write(self, name: str, content: bytes) -> Path:
        path = self._path(name)
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    def _catch_signals(self) -> None:
        """Makes SIGTERM and SIGHUP unwind like Ctrl-C, unless the program already decided what they do."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, signal.default_int_handler)
                    self._signals.append(number)

    def _release_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            while self._signals:
                signal.signal(self._signals.pop(), signal.SIG_DFL)


def _connection(port: int, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    return http.client.HTTPSConnection(LOOPBACK, port, timeout=PROBE_SECONDS, context=tls)


def _answers(connection: http.client.HTTPConnection, path: str) -> bool:
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; all are chosen before any is let go, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for candidate in sockets:
            candidate.bind((LOOPBACK, 0))
        return [int(candidate.getsockname()[1]) for candidate in sockets]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs a local Kubernetes control plane until Ctrl-C.")
    parser.add_argument("--build-only", action="store_true", help="build the pinned Go tools if needed, and exit")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="write the administrator's kubeconfig here")
    options = parser.parse_args(arguments)
    # A shell that starts us in the background lets us ignore Ctrl-C, and then nobody could stop us with SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if options.build_only:
            for tool in all_tools():
                print(find_or_build(tool))
            return 0
        return _serve(options.kubeconfig)
    except (ControlPlaneError, ToolError, kubeconfig.KubeconfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _serve(target: Path | None) -> int:
    if target and target.exists() and kubeconfig.context(target) != CONTEXT:
        raise ControlPlaneError(f"{target} is not ours to overwrite: name another file")
    started = time.monotonic()
    with ControlPlane() as plane, contextlib.ExitStack() as leaving:
        shown = plane.kubeconfig
        if target:
            shown = target.absolute()
            shown.touch(mode=0o600)
            leaving.callback(shown.unlink, missing_ok=True)
            shown.write_bytes(plane.kubeconfig.read_bytes())
        print(f"Kubernetes is ready at {plane.url} ({time.monotonic() - started:.1f} s). In another terminal:\n")
        print(f"  export KUBECONFIG={shlex.quote(str(shown))}")
        print(f"  {shlex.quote(str(find_or_build('kubectl')))} get namespaces\n")
        print("Ctrl-C stops it and removes everything that it stored.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            plane.watch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
