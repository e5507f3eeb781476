"""`make demo` as a newcomer and as a pipeline run it."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from hack import demo
from hack.controlplane import EXISTING_CLUSTER

pytestmark = pytest.mark.cluster

SCRIPT = Path(demo.__file__)
IDENTITIES = ("shop/orders", "shop/payments", "web/frontend")
GENEROUS_SECONDS = 300
MARK = "ZEROTRUST_DEMO_TEST"
only_with_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the children through /proc")


@only_with_proc
def test_without_a_terminal_it_shows_everything_and_ends(surroundings: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env=surroundings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=GENEROUS_SECONDS,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert re.search(r"TrustDomain example\.org: Ready, ", done.stdout)
    for identity in IDENTITIES:
        account = "/ns/{}/sa/{}".format(*identity.split("/"))
        assert f"ServiceIdentity {identity}: Ready, spiffe://example.org{account}, expires in " in done.stdout
        assert re.search(rf"{identity} +openssl verify: (OK|openssl is not installed, skipped)\n", done.stdout)
        assert re.search(rf"{identity} +zerotrust verify: OK \(\d+ rules pass\)\n", done.stdout)
    assert re.search(r"TrustPolicy shop/orders: Ready, tests: 15 passed, 0 failed; network policies: \d", done.stdout)
    assert re.search(r"web/frontend GET /api/orders/7 +allowed \(allowed\)\n", done.stdout)
    assert re.search(r"web/frontend GET /api/orders/7/card +denied \(denied_by_rule\)\n", done.stdout)
    assert "export KUBECONFIG=" in done.stdout
    assert_nothing_is_left(surroundings)


@only_with_proc
def test_on_a_terminal_it_stays_up_until_interrupted(surroundings: Mapping[str, str]) -> None:
    with on_a_terminal(surroundings) as terminal:
        terminal.wait_for("Ctrl-C stops everything")
        assert terminal.process.poll() is None
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(GENEROUS_SECONDS) == 0, terminal.shown
    assert_nothing_is_left(surroundings)


@only_with_proc
def test_an_early_interrupt_stops_what_was_started(surroundings: Mapping[str, str]) -> None:
    with on_a_terminal(surroundings) as terminal:
        terminal.wait_for("3. Controller")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(GENEROUS_SECONDS) == 128 + signal.SIGINT, terminal.shown
    assert_nothing_is_left(surroundings)


@only_with_proc
def test_what_does_not_become_ready_is_named(
    surroundings: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "00.yaml").write_text(
        "{apiVersion: zerotrust.dev/v1alpha1, kind: TrustDomain, metadata: {name: a.test}, spec: {default: true}}\n"
        "---\n"
        "{apiVersion: zerotrust.dev/v1alpha1, kind: ServiceIdentity, metadata: {name: ghost, namespace: default}}\n"
    )
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "QUICKSTART", tmp_path)
    monkeypatch.setattr(demo, "PATIENCE_SECONDS", 5.0)
    shutil.copytree(SCRIPT.parent.parent / "crds", tmp_path / "crds")
    monkeypatch.setattr(tempfile, "tempdir", surroundings["TMPDIR"])
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)

    assert demo.main([]) == 1

    told = capfd.readouterr().err
    assert re.search(r"error: not Ready after 5 s: .*default/ghost: (ServiceAccountNotFound|waiting), ", told)
    assert "The controller's log ends:" in told
    assert_nothing_is_left(surroundings)


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """By this the demo's processes and files are recognised; it names another cluster, which the demo must ignore."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {**os.environ, "TMPDIR": str(temporary), MARK: uuid4().hex, EXISTING_CLUSTER: "/nowhere", "TERM": "xterm"}


def assert_nothing_is_left(surroundings: Mapping[str, str]) -> None:
    assert not marked_processes(surroundings[MARK])
    assert not list(Path(surroundings["TMPDIR"]).iterdir())


def marked_processes(mark: str) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading; a zombie's environment is empty.
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


class Terminal:
    """The demo on a pseudo-terminal, and what it has shown there."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self.shown = process, ""
        self._master = master
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # what Linux says when the last process has closed the terminal
            while part := os.read(self._master, 65536):
                self.shown += part.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + GENEROUS_SECONDS
        while text not in self.shown:
            assert self.process.poll() is None, self.shown
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.05)


@contextlib.contextmanager
def on_a_terminal(surroundings: Mapping[str, str]) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, SCRIPT], env=surroundings, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    with process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            process.wait()
            os.close(master)
