"""The older controller itself, out of git's history, is replaced by the present one, and put back."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.children import Child
from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from hack.past import NAMESPACE, ROOT, Past, settled, written
from tests.support.proving import only_in_prove
from tests.upgrade.recorded import RECORDINGS, Recording


def is_in_history(revision: str) -> bool:
    """Whether git has it: a shallow clone has not."""
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
    )
    return found.returncode == 0


pytestmark = [
    pytest.mark.cluster,
    only_in_prove,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs older CRDs"),
]
LASTING = ("Secret", "NetworkPolicy", "ControllerRevision")


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """One of its own: the CRDs are the cluster's."""
    with ControlPlane() as plane:
        yield plane


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_an_upgrade_and_the_way_back(recording: Recording, control_plane: ControlPlane, tmp_path: Path) -> None:
    if not is_in_history(str(recording)):
        pytest.skip(f"{recording} is not in this clone's history")
    plane = control_plane
    with Past(str(recording)) as past:
        with past.at_work(plane, tmp_path):
            before = lasting(plane)
        assert len(before) > 10
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        log = tmp_path / "present-controller.log"
        program = Path(sys.executable).with_name("zerotrust")
        command = [program, "controller", "--kubeconfig", plane.kubeconfig, "--namespace", NAMESPACE]
        child = Child("controller", [*command, "--metrics-host", "127.0.0.1", "--metrics-port", "0"], log)
        try:
            settled(plane)
            assert child.exit_code is None, child.tail()
        finally:
            child.stop(30)
        assert unchanged(before, lasting(plane))
        assert not re.search(r"\b(ERROR|CRITICAL)\b", log.read_text()), child.tail()

        with past.controller(plane, tmp_path / "back.log") as child:
            settled(plane)
            assert child.exit_code is None, child.tail()
        assert unchanged(before, lasting(plane))


def lasting(plane: ControlPlane) -> dict[tuple[str, str, str], Any]:
    """What an upgrade must not touch, by kind, namespace and name: data and specs."""
    return {
        (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]): {
            field: value for field, value in one.items() if field in ("data", "spec")
        }
        for one in written(plane)
        if one["kind"] in LASTING
    }


def unchanged(before: dict[tuple[str, str, str], Any], now: dict[tuple[str, str, str], Any]) -> bool:
    """Everything that was there is there, as it was; there may be more."""
    changed = [place for place, content in before.items() if now.get(place) != content]
    assert not changed
    return True
