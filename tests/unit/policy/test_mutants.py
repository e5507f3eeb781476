"""The shop's own tests notice every condition of its rules: each, taken away alone, flips a verdict that a test expects."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import NOW
from zerotrust.cli.manifests import Manifest, read
from zerotrust.cli.policies import Intent
from zerotrust.policy import acceptance

SHOP = Path(__file__).resolve().parents[3] / "examples" / "shop"
MANIFESTS = [one for one in read([str(SHOP)], "default") if one.body["apiVersion"].startswith("zerotrust.dev/") or
             one.body["kind"] == "Namespace" or one.body["kind"] == "ServiceAccount"]  # fmt: skip


def failing(manifests: list[Manifest]) -> list[str]:
    """The names of the tests that get another verdict than they expect."""
    intent = Intent(manifests, "zerotrust-system")
    failed = []
    for policy in intent.policies:
        assert policy.spec.spec is not None
        assert policy.spec.problem is None, policy.spec.problem
        run = acceptance.run_tests(policy, policy.spec.spec, intent.book, intent.candidate(policy), NOW)
        failed += [f"{policy.meta.name}/{name}" for name in run.failed]
    return failed


def conditions(rule: dict[str, Any], path: str = "") -> Iterator[tuple[str, ...]]:
    """The paths of everything in a rule that narrows it, or that makes it a Deny."""
    for position, _ in enumerate(rule["to"]):
        for key in ("methods", "paths"):
            if key in rule["to"][position]:
                yield ("to", str(position), key)
    for position, peer in enumerate(rule["from"]):
        for key in ("user", "apiKey"):
            if key in peer:
                yield ("from", str(position), key)
        for claim in peer.get("user", {}).get("claims", {}):
            yield ("from", str(position), "user", "claims", claim)
    for key in rule.get("when", {}):
        yield ("when", key)
    for key in ("until", "effect"):
        if key in rule:
            yield (key,)


def mutants() -> Iterator[Any]:
    for number, manifest in enumerate(MANIFESTS):
        if manifest.body["kind"] != "TrustPolicy":
            continue
        for position, rule in enumerate(manifest.body["spec"].get("rules", [])):
            for path in conditions(rule):
                title = f"{manifest.body['metadata']['name']}/{rule['name']}/{'.'.join(path)}"
                yield pytest.param(number, position, path, id=title)


def without(number: int, position: int, path: tuple[str, ...]) -> list[Manifest]:
    body = copy.deepcopy(MANIFESTS[number].body)
    rule = node = body["spec"]["rules"][position]
    if path == ("effect",):
        body["spec"]["rules"].remove(rule)
    else:
        parents = []
        for part in path[:-1]:
            parents.append((node, part))
            node = node[int(part)] if isinstance(node, list) else node[part]
        del node[path[-1]]
        if path[-1] in ("user", "apiKey"):  # scopes are theirs, and the model refuses them without
            rule.get("when", {}).pop("scopes", None)
        for parent, part in reversed(parents):  # what is empty now would not be read
            if isinstance(parent, dict) and parent[part] == {}:
                del parent[part]
    changed = list(MANIFESTS)
    changed[number] = replace(MANIFESTS[number], body=body)
    return changed


def test_the_shop_passes_its_own_tests() -> None:
    assert failing(MANIFESTS) == []


def test_there_is_something_to_take_away() -> None:
    assert len(list(mutants())) > 20


@pytest.mark.parametrize(("number", "position", "path"), list(mutants()))
def test_every_condition_is_noticed(number: int, position: int, path: tuple[str, ...]) -> None:
    assert failing(without(number, position, path))
