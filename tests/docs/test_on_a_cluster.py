"""The documentation on a real API server: its YAML is accepted, and its commands do what the pages say.

Commands run in the order of pages and lines, in one cluster that has the examples and a controller. What would be deleted is
deleted with a server's dry run, because the commands after it need it.
"""

import re
import secrets
from collections.abc import Iterator

import pytest
import yaml

from tests.docs.blocks import Block, blocks
from tests.docs.commands import Command, commands
from tests.docs.exceptions import FOREIGN
from tests.docs.options import misread_by_kubectl
from tests.docs.sandbox import Sandbox, placeholders
from tests.support.deployment import AT_ONCE, ROOT, deployed
from zerotrust.apikey.key import generate

pytestmark = pytest.mark.cluster

EXAMPLES = ("quickstart", "shop", "api-keys")
YAML = [block for block in blocks("yaml") if not block.is_fragment]
KUBECTL = sorted(
    {(call, str(one)) for one in commands() for call in one.calls if call[0] == "kubectl"}, key=lambda one: one[1]
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("documentation")
    with deployed(folder, *AT_ONCE) as running:
        for example in EXAMPLES:
            running.apply(ROOT / "examples" / example)
        for kind in ("trustdomains", "serviceidentities", "trustpolicies"):
            running.plane.kubectl("wait", "--for=condition=Ready", kind, "--all", "-A", "--timeout=120s")
        sandbox = Sandbox(folder, running.plane)
        placeholders({"found.txt": generate(secrets.token_bytes).reveal()}, sandbox)
        yield sandbox


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_is_accepted(block: Block, sandbox: Sandbox) -> None:
    """As a new object, so that nothing comes from one that is there."""
    for document in block.documents():
        if document["kind"] in FOREIGN:
            continue
        document["metadata"]["name"] = f"new-{document['metadata']['name']}"
        placeholders({"block.yaml": yaml.safe_dump(document)}, sandbox)
        ran = sandbox.run("kubectl create --dry-run=server --validate=strict -f block.yaml")
        assert ran.code == 0, f"{block}: {ran.errors}"


@pytest.mark.parametrize(("call", "place"), KUBECTL, ids=[place for _, place in KUBECTL])
def test_kubectl_has_these_options(call: tuple[str, ...], place: str, sandbox: Sandbox) -> None:
    assert misread_by_kubectl(call[1:], sandbox) is None


@pytest.mark.parametrize(
    "wrong", [("gett", "pods"), ("get", "pods", "--al-namespaces"), ("rollout", "status", "--wach")]
)
def test_a_wrong_option_is_noticed(wrong: tuple[str, ...], sandbox: Sandbox) -> None:
    assert misread_by_kubectl(wrong, sandbox) is not None


@pytest.mark.parametrize("command", [one for one in commands() if one.treatment == "on a cluster"], ids=str)
def test_command(command: Command, sandbox: Sandbox) -> None:
    deletes = re.sub(r"^kubectl delete(?= )", "kubectl delete --dry-run=server --ignore-not-found", command.text)
    sandbox.check(command, deletes)
