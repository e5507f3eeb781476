"""`make demo`: the operator at work on a control plane of its own, from nothing to verified identities and proved policies.

On a terminal it stays up until Ctrl-C, for a person to play with; otherwise it ends once everything is shown.
"""

import argparse
import base64
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.text import Text

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.children import Child
from hack.components import LOOPBACK
from hack.controlplane import EXISTING_CLUSTER, ControlPlane, ControlPlaneError
from hack.gotools import ToolError, find_or_build
from hack.stage import Row, Stage

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
SHOP = ROOT / "examples" / "shop"
PROGRAMS = Path(sys.executable).parent
NAMESPACE = "zerotrust-system"
KINDS = {"TrustDomain": "trustdomains", "ServiceIdentity": "serviceidentities", "TrustPolicy": "trustpolicies"}
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.5
STOP_SECONDS = 15.0


# Whether it is allowed, and who asks for what.
_QUESTIONS = (
    (True, ("--from", "web/frontend", "--method", "GET", "--path", "/api/orders/7")),
    (False, ("--from", "web/frontend", "--method", "GET", "--path", "/api/orders/7/card")),
    (False, ("--from", "ops/batch", "--method", "GET", "--path", "/api/orders/7")),
)


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


class Demo:
    """One run: a control plane, the controller, and what they are shown to do."""

    def __init__(self, stage: Stage, plane: ControlPlane, folder: Path) -> None:
        self._stage, self._plane, self._folder = stage, plane, folder
        self._port = _free_port()
        self._controller: Child | None = None

    def run(self) -> None:
        """Everything up to the verdicts. Raises DemoFailed or ControlPlaneError."""
        self._install()
        self._start_controller()
        self._apply("Intent", QUICKSTART)
        self._verify(self._wait(QUICKSTART))
        self._apply("Policies", SHOP)
        self._wait(SHOP)
        self._explain()

    def _install(self) -> None:
        self._stage.step("Kinds", f"kubectl apply -f crds; kubectl create namespace {NAMESPACE}")
        self._plane.kubectl("apply", "-f", str(ROOT / "crds"))
        self._plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self._plane.kubectl("create", "namespace", NAMESPACE)

    def _start_controller(self) -> None:
        self._stage.step("Controller", "zerotrust controller")
        access = ("--kubeconfig", self._plane.kubeconfig, "--namespace", NAMESPACE)
        metrics = ("--metrics-host", LOOPBACK, "--metrics-port", str(self._port))
        command = (PROGRAMS / "zerotrust", "controller", *access, *metrics)
        self._controller = Child("zerotrust controller", command, self._log)

    def _apply(self, title: str, example: Path) -> None:
        self._stage.step(title, f"kubectl apply -f {example.relative_to(ROOT)}")
        self._plane.kubectl("apply", "-f", str(example))

    def _wait(self, example: Path) -> list[Row]:
        """Show an example's rows until all are Ready, and return them."""
        awaited = _awaited(example)
        deadline = time.monotonic() + PATIENCE_SECONDS
        self._stage.say()
        with self._stage.board() as board:
            while True:
                found = self._rows()
                rows = [found.get(row.key, row) for row in awaited]
                board.show(rows)
                late = [row for row in rows if not row.ready]
                if not late:
                    break
                self._check_controller()
                if time.monotonic() > deadline:
                    told = "; ".join(f"{row.title}: {row.state}, {row.message or 'no status yet'}" for row in late)
                    raise DemoFailed(f"not Ready after {PATIENCE_SECONDS:.0f} s: {told}")
                time.sleep(POLL_SECONDS)
        self._stage.say()
        return rows

    def _rows(self) -> dict[tuple[str, str, str], Row]:
        answer = self._plane.kubectl("get", ",".join(KINDS.values()), "--all-namespaces", "-o", "json")
        return {row.key: row for row in map(Row.of, json.loads(answer)["items"])}

    def _verify(self, rows: Sequence[Row]) -> None:
        identities = [row for row in rows if row.kind == "ServiceIdentity"]
        self._stage.step("Proof", f"the Secrets of {len(identities)} identities, checked by two verifiers")
        self._stage.say()
        openssl = shutil.which("openssl")
        width = max(len(row.title) for row in identities)
        for row in identities:
            secret = self._plane.kubectl("get", "secret", "-n", row.namespace, row.secret, "-o", "json")
            verdicts = {"openssl verify": self._by_openssl(openssl, secret), "zerotrust verify": _by_us(row, secret)}
            for verifier, verdict in verdicts.items():
                style = "bold green" if verdict.startswith("OK") else "yellow"
                self._stage.say(Text.assemble(f"   {row.title:<{width}}  {verifier}: ", (verdict, style)))
        self._stage.say()

    def _by_openssl(self, openssl: str | None, secret: str) -> str:
        if openssl is None:
            return "openssl is not installed, skipped"
        data = json.loads(secret)["data"]
        for name in ("tls.crt", "ca.crt"):
            (self._folder / name).write_bytes(base64.b64decode(data[name]))
        command = [openssl, "verify", "-x509_strict", "-CAfile", "ca.crt", "-untrusted", "tls.crt", "tls.crt"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoFailed(f"openssl verify refuses a certificate:\n{done.stdout}{done.stderr}")
        return "OK"

    def _explain(self) -> None:
        """Ask who may call whom, and compare with what the shop's authors wrote."""
        self._stage.step("Decisions", "zerotrust explain --from … --to shop/orders --port 8443 --method … --path …")
        self._stage.say()
        for allowed, question in _QUESTIONS:
            command = [str(PROGRAMS / "zerotrust"), "explain", "--kubeconfig", str(self._plane.kubeconfig)]
            command += ["--namespace", NAMESPACE, "--to", "shop/orders", "--port", "8443", *question, "-o", "json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            try:
                verdict = json.loads(done.stdout)["verdict"]
            except (ValueError, KeyError):
                raise DemoFailed(
                    f"zerotrust explain ended with code {done.returncode}: {done.stderr.strip()}"
                ) from None
            if verdict["allowed"] != allowed:
                raise DemoFailed(f"{' '.join(question)} is decided as {verdict}")
            word = ("allowed", "bold green") if allowed else ("denied", "bold red")
            asked = " ".join(question[1::2])
            self._stage.say(Text.assemble(f"   {asked:<42} ", word, f" ({verdict['reason']})"))
        self._stage.say()

    def invite(self) -> None:
        """Say what to try next."""
        kubectl = find_or_build("kubectl").parent
        up = "Everything is up. In another terminal:"
        self._stage.say(up if self._stage.terminal else "On a terminal it stays up, and you can try:", style="bold")
        self._stage.say()
        self._stage.say(f"   export KUBECONFIG={shlex.quote(str(self._plane.kubeconfig))}")
        self._stage.say(f"   export PATH=$PATH:{shlex.quote(str(PROGRAMS))}:{shlex.quote(str(kubectl))}")
        for aim, *commands in _ideas(self._port, self._log):
            self._stage.say()
            self._stage.say(f"   # {aim}", style="dim")
            for command in commands:
                self._stage.say(f"   {command}")
        self._stage.say()

    def stay(self) -> None:
        """Block until Ctrl-C. Raises DemoFailed when the controller ends by itself."""
        with contextlib.suppress(KeyboardInterrupt):
            self._stage.say("Ctrl-C stops everything and removes what it stored.")
            while True:
                self._check_controller()
                time.sleep(POLL_SECONDS)

    def _check_controller(self) -> None:
        if self._controller and self._controller.exit_code is not None:
            raise DemoFailed(f"the controller ended with code {self._controller.exit_code}")

    def stop(self) -> None:
        """Stop the controller while there is still an API server to give its Lease back to."""
        if self._controller:
            self._controller.stop(STOP_SECONDS)

    def log_tail(self) -> str:
        """The end of the controller's log, empty when it was never started."""
        return self._controller.tail() if self._controller else ""

    @property
    def _log(self) -> Path:
        return self._folder / "controller.log"


def _awaited(example: Path) -> list[Row]:
    """A row for each of our resources in an example, in the order in which they are applied."""
    files = sorted(example.glob("*.yaml"))
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [Row.of(document) for document in documents if document["kind"] in KINDS]


def _by_us(row: Row, secret: str) -> str:
    trust_domain = row.detail.removeprefix("spiffe://").partition("/")[0]
    done = subprocess.run(
        [PROGRAMS / "zerotrust", "verify", "--trust-domain", trust_domain, "-o", "json", "-"],
        input=secret,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise DemoFailed(f"zerotrust verify ended with code {done.returncode}: {done.stderr.strip()}")
    (svid,) = json.loads(done.stdout)["svids"]
    broken = [f"{one['rule']}: {one['message']}" for one in svid["results"] if one["outcome"] == "fail"]
    if broken or svid["spiffeID"] != row.detail:
        raise DemoFailed(f"zerotrust verify refuses {row.title} ({svid['spiffeID']}): {'; '.join(broken)}")
    return f"OK ({sum(one['outcome'] == 'pass' for one in svid['results'])} rules pass)"


def _ideas(port: int, log: Path) -> Sequence[Sequence[str]]:
    """What a newcomer may try: an aim, then the commands."""
    check = "zerotrust verify secret/orders-svid -n shop"
    damage = """kubectl patch secret -n shop orders-svid -p '{"data":{"ca.crt":"b29wcw=="}}'"""
    now = "zerotrust.dev/rotate-requested-at=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    return (
        ("what there is, and how it came to be", "kubectl get td,svid -A", "kubectl describe svid -n shop orders"),
        ("judge an SVID by every SPIFFE rule", check),
        ("damage a Secret, and find it repaired", damage, check),
        (
            "delete a Secret, and find a new one",
            "kubectl delete secret -n shop payments-svid",
            "kubectl get svid,secret -n shop",
        ),
        (
            "renew a certificate before its time",
            f"kubectl annotate svid -n shop orders --overwrite {now}",
            "kubectl get events -n shop --field-selector reason=Issued",
        ),
        (
            "ask who may call whom, and see it all in a picture",
            "zerotrust explain --from web/frontend --to shop/orders --port 8443 --method GET --path /api/orders/7",
            "zerotrust graph -f examples/shop -o svg > shop.svg",
        ),
        (
            "break a network policy, and find it repaired",
            "kubectl delete networkpolicy -n shop zt-orders",
            "kubectl get networkpolicy,tp -n shop",
        ),
        (
            "what the controller counts, and what it says",
            f"curl -s http://{LOOPBACK}:{port}/metrics | grep -E '^zerotrust_(issued|repaired|api_writes)_total'",
            f"tail -f {shlex.quote(str(log))}",
        ),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _show(stage: Stage) -> None:
    stage.say("zerotrust-operator: workload identities on a real Kubernetes API server, on this machine", style="bold")
    stage.say()
    stage.step("Kubernetes", "etcd, kube-apiserver and kube-controller-manager (built now, if they never were)")
    with contextlib.ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="zerotrust-demo-")))
        demo = Demo(stage, leaving.enter_context(ControlPlane()), folder)
        leaving.callback(demo.stop)
        try:
            demo.run()
            demo.invite()
            if stage.terminal:
                demo.stay()
        except (DemoFailed, ControlPlaneError) as error:
            log = demo.log_tail()
            raise DemoFailed(f"{error}\nThe controller's log ends:\n{log}" if log else str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description="Shows the operator at work on a local control plane.").parse_args(arguments)
    # A shell that starts us in the background lets us ignore Ctrl-C, and then nobody could stop us with SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop(EXISTING_CLUSTER, None)  # that is for tests: a demo never touches a cluster that is not its own
    try:
        _show(Stage())
    except (DemoFailed, ControlPlaneError, ToolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything was stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
