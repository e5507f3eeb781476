"""Every block of the documentation follows the conventions, and what is YAML or JSON is right as far as no cluster is needed."""

import json

import pytest

from tests.docs.blocks import LANGUAGES, OURS, WHOLE, Block, blocks
from tests.docs.exceptions import FOREIGN
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common.resource import Resource, parse
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy.resource import TrustPolicySpec
from zerotrust.trustdomain.resource import TrustDomainSpec

MODELS: dict[str, type[Resource]] = {
    "TrustDomain": TrustDomainSpec,
    "ServiceIdentity": ServiceIdentitySpec,
    "TrustPolicy": TrustPolicySpec,
    "ApiKey": ApiKeySpec,
}


def test_the_documentation_has_blocks() -> None:
    assert len(blocks("yaml")) > 25
    assert len(blocks("console")) > 35


def test_every_block_names_its_language() -> None:
    strange = [f"{block}: {block.language or 'no language'}" for block in blocks() if block.language not in LANGUAGES]
    assert not strange, f"write one of {', '.join(sorted(LANGUAGES))} after the ```"


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml(block: Block) -> None:
    for document in block.documents():
        if block.is_fragment:
            continue
        whole = isinstance(document, dict) and {"apiVersion", "kind", "metadata"} <= document.keys()
        if whole and document["apiVersion"] == OURS:
            parse(MODELS[document["kind"]], document.get("spec") or {}, "spec")
        else:
            assert whole or (isinstance(document, dict) and document.get("kind") in FOREIGN), (
                f"{block}: a part of a resource names its kind after the language, ```yaml {'|'.join(WHOLE)}; "
                "any other part says ```yaml fragment"
            )


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json(block: Block) -> None:
    assert json.loads(block.text)
