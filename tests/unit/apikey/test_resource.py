"""The ApiKey model as offline commands use it: the examples, and what a user reads about a mistake."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from zerotrust.apikey.resource import KIND, MAX_REVOKED, ApiKeySpec, secret_name
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import parse
from zerotrust.policy.peers import Scope
from zerotrust.policy.resource import TrustPolicySpec

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "api-keys"


def a_spec(**changes: Any) -> dict[str, Any]:
    return {"holder": {"name": "x"}, "audience": ["orders"], **changes}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def test_the_examples_are_valid() -> None:
    partner, export = (parse(ApiKeySpec, one["spec"], "spec") for one in documents("10-api-keys.yaml"))
    assert (secret_name(partner, "partner-x"), secret_name(export, "b")) == ("partner-x-api-key", "nightly-export")
    (policy,) = documents("20-policy.yaml")
    assert parse(TrustPolicySpec, policy["spec"], "spec").policy_rules


def test_defaults() -> None:
    spec = parse(ApiKeySpec, a_spec(), "spec")
    assert spec.rotation.interval == timedelta(days=90)
    assert spec.rotation.overlap == timedelta(days=7)
    assert spec.max_key_age == timedelta(days=365)
    assert spec.unused_after == timedelta(days=90)
    assert (spec.state, spec.rotation.retire_unused_after, spec.delivery.format) == ("Active", None, "Opaque")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"audience": []}, "spec.audience: list should have at least 1 item after validation, not 0"),
        ({"audience": ["a", "a"]}, "spec: audience names each ServiceIdentity once"),
        ({"holder": {}}, "spec.holder: write exactly one of name and workload"),
        ({"holder": {"name": "x\x1b[2J"}}, r"spec.holder.name: must match ^[^\x00-\x1f\x7f]+$"),
        ({"revokedKeyIDs": ["sk_0123456789aB"]}, "spec.revokedKeyIDs[0]: string should have at most 12 characters"),
        ({"revokedKeyIDs": ["a" * 12] * 2}, "spec.revokedKeyIDs: names each key once"),
        (
            {"revokedKeyIDs": [f"{number:012d}" for number in range(MAX_REVOKED + 1)]},
            "spec.revokedKeyIDs: list should have at most 1000 items after validation, not 1001",
        ),
        ({"rotation": {"overlap": "2160h"}}, "spec.rotation: overlap must be shorter than interval"),
        ({"maxKeyAge": "2160h"}, "spec: rotation.interval must be shorter than maxKeyAge, or a key would end before"),
        (
            {"notAfer": "2026-12-31T00:00:00Z"},
            "spec.notAfer: is not a field of this resource; remove it or correct its",
        ),
        ({"state": "suspended"}, "spec.state: must be one of 'Active' or 'Suspended'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(ApiKeySpec, a_spec(**change), "spec")
    assert str(caught.value).startswith(says)


def test_a_whole_key_on_the_list_is_not_repeated() -> None:
    """Somebody pastes the key where its id belongs: the error must not carry it on."""
    with pytest.raises(SpecError) as caught:
        parse(ApiKeySpec, a_spec(revokedKeyIDs=["sk_0123456789aB." + "A" * 43]), "spec")
    assert "AAAA" not in str(caught.value)


def test_scopes_are_those_that_policies_can_ask_for() -> None:
    assert repr(ApiKeySpec.model_fields["scopes"].annotation) == repr(list[Scope])


def test_columns() -> None:
    assert [column.name.upper() for column in KIND.columns] == [
        *("READY", "KEY-ID", "PHASE", "NEXT-ROTATION", "EXPIRES", "LAST-USED", "REASON", "AGE"),
    ]
