"""Fixtures and settings that every kind of test shares."""

import contextlib
import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from hack.controlplane import ControlPlane, ControlPlaneError
from hack.gotools import ToolError
from hack.kubeconfig import KubeconfigError

# A deadline measures how busy a shared machine is, not the code. `make test` says the same of the same commit;
# `make prove` looks for new examples.
hypothesis.settings.register_profile("test", deadline=None, derandomize=True)
hypothesis.settings.register_profile("prove", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("cluster"):
            # Unmarked it would run among the unit tests, where every xdist worker would start its own cluster.
            raise pytest.UsageError(f"{item.nodeid} uses a control plane and must carry @pytest.mark.cluster")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A running Kubernetes control plane, the same for all tests of the session: keep to a namespace of your own."""
    with contextlib.ExitStack() as stack:
        try:
            plane = stack.enter_context(ControlPlane())
        except (ControlPlaneError, KubeconfigError, ToolError) as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A new namespace, deleted after the test without waiting for it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
