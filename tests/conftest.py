"""Fixtures and settings that every kind of test shares."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from hack.controlplane import AUDIT_LOGS, ControlPlane, ControlPlaneError
from hack.gotools import ToolError
from hack.kubeconfig import KubeconfigError
from tests.support import leaks, rights

# A deadline measures how busy a shared machine is, not the code. `make test` says the same of the same commit;
# `make prove` looks for new examples.
hypothesis.settings.register_profile("test", deadline=None, derandomize=True)
hypothesis.settings.register_profile("prove", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

SEARCHED = pytest.StashKey[leaks.Search]()
USAGE = pytest.StashKey[rights.Usage]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-right",
        action="store_true",
        help="fail when a right of manifests/base was never used; for runs of the whole cluster suite",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what an xdist worker has seen."""
    if (told := getattr(node, "workeroutput", {}).get("rights")) is not None:
        node.config.stash.setdefault(USAGE, rights.Usage()).add(rights.Usage.from_json(told))


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash.get(USAGE, None)
    if found is not None and found.unused and session.config.getoption("--every-right"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (done := config.stash.get(SEARCHED, None)) is not None:
        terminalreporter.write_line(done.summary())
    if (found := config.stash.get(USAGE, None)) is not None:
        terminalreporter.write_line(found.summary())
        if config.getoption("--every-right"):
            for right in found.unused:
                terminalreporter.write_line(f"never used: {right}", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("cluster"):
            # Unmarked it would run among the unit tests, where every xdist worker would start its own cluster.
            raise pytest.UsageError(f"{item.nodeid} uses a control plane and must carry @pytest.mark.cluster")


@pytest.fixture(scope="session", autouse=True)
def audited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of the session, every API key that its control planes ever had is looked for in all that was written, and no
    request of the operator may have been refused for want of a right.
    """
    logs = tmp_path_factory.mktemp("control-planes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(AUDIT_LOGS, str(logs))
        yield
    if not any(logs.iterdir()):
        return
    seen = rights.usage(logs)
    if (output := getattr(request.config, "workeroutput", None)) is not None:
        output["rights"] = seen.to_json()
    else:
        request.config.stash[USAGE] = seen
    done = request.config.stash[SEARCHED] = leaks.search(tmp_path_factory.getbasetemp())
    if done.leaks:
        pytest.fail("API keys stand outside their Secrets:\n" + "\n".join(done.leaks), pytrace=False)
    if seen.refused:
        pytest.fail("the operator lacks rights:\n" + "\n".join(seen.refused), pytrace=False)
    if done.unseen:
        pytest.fail(f"no write of a Secret had these keys, which are in use: {sorted(done.unseen)}", pytrace=False)


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
