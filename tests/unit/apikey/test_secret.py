"""The consumer's Secret: whose it is, what it holds, and what is written into it."""

import secrets as randomness
from typing import Any

import pytest

from tests.support.apikeys import START, a_spec
from tests.support.builders import days
from zerotrust.apikey import key, secret
from zerotrust.apikey.lifecycle import Contents
from zerotrust.apikey.memory import Key, Memory
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.pki.secret import ObservedSecret, encode, observe

PLACE = Ref("Secret", "shop", "partner-api-key")
OURS = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_API_KEY, naming.API_KEY: "partner"}
NEW, OLD = key.generate(randomness.token_bytes), key.generate(randomness.token_bytes)


def remembered(text: key.ApiKeyText) -> Key:
    return Key(text.id, key.digest(text), START, START + days(365))


MEMORY = Memory("partner", (remembered(OLD), remembered(NEW)))


def there(labels: dict[str, str] | None = None, **data: str) -> ObservedSecret:
    metadata = {"name": PLACE.name, "namespace": PLACE.namespace, "uid": "uid", "resourceVersion": "1"}
    body = {"metadata": metadata | {"labels": OURS if labels is None else labels}}
    return observe({**body, "data": {name.replace("_", "-"): encode(text.encode()) for name, text in data.items()}})


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        (OURS, True),
        ({name: value for name, value in OURS.items() if name != naming.MANAGED_BY}, True),
        ({name: value for name, value in OURS.items() if name != naming.COMPONENT}, True),
        (OURS | {naming.API_KEY: "another"}, False),
        (OURS | {naming.COMPONENT: naming.COMPONENT_SVID}, False),
        ({naming.API_KEY: "partner"}, False),
        ({}, False),
    ],
    ids=["all labels", "not managed", "no component", "of another", "an SVID's", "only the name", "none"],
)
def test_whose_it_is(labels: dict[str, str], ours: bool) -> None:
    assert secret.is_ours(there(labels), "partner") is ours


def test_keys_are_recognised_by_their_digests_alone() -> None:
    view = secret.view(there(api_key=NEW.reveal(), api_key_previous="somebody's"), [MEMORY])
    assert view.current is not None
    assert (view.current.id, view.current.digest) == (NEW.id, key.digest(NEW))
    assert view.previous is not None
    assert view.previous.id == ""
    assert secret.view(there(key_id=NEW.id), [MEMORY]).current is None


def data(apply: Any) -> dict[str, str | None]:
    found: dict[str, str | None] = apply.manifest["data"]
    return found


def test_a_fresh_key_is_written_and_the_one_before_is_copied() -> None:
    apply = secret.write(PLACE, a_spec(), "partner", MEMORY, Contents(NEW.id, OLD.id), NEW, there(api_key=OLD.reveal()))
    assert data(apply)["api-key"] == encode(NEW.reveal().encode())
    assert apply.copies["api-key-previous"].data_key == "api-key"
    assert apply.copies["api-key-previous"].digest.hex() == key.digest(OLD).removeprefix("sha256:")
    assert OLD.reveal() not in repr(apply)


def test_what_the_format_does_not_have_is_taken_out() -> None:
    spec = a_spec(delivery={"format": "Env"})
    apply = secret.write(PLACE, spec, "partner", MEMORY, Contents(NEW.id, None), None, there(api_key=NEW.reveal()))
    assert {name for name, value in data(apply).items() if value is None} == {
        "api-key", "api-key-previous", "key-id", "expires-at", "API_KEY_PREVIOUS"
    }  # fmt: skip
    assert set(apply.copies) == {"API_KEY"}


def test_what_is_kept_right_touches_no_key() -> None:
    apply = secret.kept(PLACE, a_spec(), "partner", remembered(NEW))
    assert not {"api-key", "api-key-previous"} & set(data(apply))
