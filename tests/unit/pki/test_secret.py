"""What is kept of a Secret: public facts and digests, never a key, whatever is in it."""

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.support.builders import (
    NOW,
    Body,
    a_key,
    a_record,
    a_record_secret,
    a_secret_body,
    an_authority,
    an_authority_body,
    an_authority_secret,
    an_issued_body,
    hours,
    key_of,
    minutes,
)
from tests.support.certificates import a_leaf, a_root, key_pem, pem
from tests.support.plans import shows_key
from zerotrust.pki import keys, secret
from zerotrust.pki.secret import observe


def with_data(body: Body, **values: Any) -> Body:
    """The body with these values instead, written `tls_crt=b"…"`; None drops one."""
    data = {**body["data"]}
    for name, value in values.items():
        key = name.replace("_", ".")
        if value is None:
            data.pop(key, None)
        else:
            data[key] = secret.encode(value)
    return {**body, "data": data}


def test_the_facts_are_those_of_the_leaf() -> None:
    facts = observe(an_issued_body()).certificate
    assert facts is not None
    assert facts.spiffe_ids == ("spiffe://example.org/ns/shop/sa/orders",)
    assert (facts.not_before, facts.not_after) == (NOW - minutes(1), NOW + hours(24))
    assert facts.key_algorithm == "ECDSA-P256"
    assert facts.key_matches
    assert not facts.signs
    assert facts.chain()[0].serial_number == facts.serial_number


def test_values_are_kept_as_digests() -> None:
    body = an_issued_body()
    observed = observe(body)
    assert set(observed.digests) == set(body["data"])
    assert observed.digests["tls.key"] == hashlib.sha256(base64.b64decode(body["data"]["tls.key"])).digest()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"tls_crt": None}, "tls.crt is missing or empty"),
        ({"tls_crt": b""}, "tls.crt is missing or empty"),
        ({"tls_crt": b"nonsense"}, "tls.crt holds no readable PEM certificate"),
        (
            {"tls_crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
            "tls.crt holds no readable PEM certificate",
        ),
        ({"tls_key": None}, "tls.key does not belong to the certificate in tls.crt"),
        ({"tls_key": b"nonsense"}, "tls.key does not belong to the certificate in tls.crt"),
        ({"tls_key": key_pem(a_key(1))}, "tls.key does not belong to the certificate in tls.crt"),
    ],
)
def test_what_is_wrong_is_said_and_never_raised(edit: dict[str, Any], told: str) -> None:
    observed = observe(with_data(an_issued_body(), **edit))
    assert observed.problem == told
    assert observed.certificate is None or not observed.certificate.key_matches


@pytest.mark.parametrize("value", ["not base64!", "====", "é", "QQ"])
def test_what_is_not_base64_counts_as_empty(value: str) -> None:
    body = an_issued_body()
    body["data"]["tls.crt"] = value
    assert observe(body).problem == "tls.crt is missing or empty"


@pytest.mark.parametrize("data", [None, {}])
def test_an_empty_secret_is_observed_too(data: Any) -> None:
    body = a_secret_body(type_="Opaque")
    body["data"] = data
    observed = observe(body)
    assert (observed.type, observed.certificate, dict(observed.digests)) == ("Opaque", None, {})


@pytest.mark.parametrize(
    "leaf",
    [
        {"uris": (), "other_names": ()},
        {"authority_key_id": None},
        {"usage": None},
        {"ca": None},
        {"uris": (b"spiffe://example.org/a", b"spiffe://example.org/b")},
        {"uris": (b"\xff\xfe",)},
    ],
    ids=["no name", "no AKI", "no usage", "no constraints", "two names", "a name that is no text"],
)
def test_a_strange_leaf_is_observed_too(leaf: dict[str, Any]) -> None:
    issued = a_leaf(a_root(), **leaf)
    data = {"tls.crt": pem(issued.certificate), "tls.key": key_pem(issued.key)}
    observed = observe(a_secret_body(data=data))
    assert observed.certificate is None or not observed.certificate.signs


def test_the_record_is_kept_of_the_records_secret_only() -> None:
    assert a_record_secret().public == {"record.json": a_record().to_json().encode()}
    body = a_secret_body(type_="Opaque", data={"record.json": b"{}"})
    assert observe(body).public == {}


def test_the_roots_are_kept_of_an_authoritys_secret_only() -> None:
    assert an_authority_secret().public == {"ca.crt": pem(an_authority().certificate)}
    assert observe(an_issued_body()).public == {}


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "RSA-2048"])
def test_the_search_for_keys_finds_them_in_every_form(algorithm: Any) -> None:
    key = a_key(0, algorithm)
    numbers = key.private_numbers()
    number = getattr(numbers, "private_value", None) or getattr(numbers, "d", None)
    written = key_pem(key)
    der = base64.b64decode(b"".join(written.splitlines()[1:-1]))
    for text in (
        written.decode(),
        repr(written),
        "".join(written.decode().splitlines()[1:-1]),
        json.dumps("\n".join(written.decode().splitlines()[1:-1])),
        base64.b64encode(written).decode(),
        repr(der),
        der.hex(),
        str(number),
    ):
        assert shows_key(f"before {text} after", key)
    assert not shows_key(repr(an_issued_body()["metadata"]) + str(key.public_key().public_numbers()), key)


def test_no_key_is_kept_or_shown() -> None:
    for body in (an_issued_body(), an_authority_body()):
        key = keys.from_pem(secret.value_of(body, "tls.key"))
        assert not shows_key(repr(observe(body)), key)


@pytest.mark.parametrize("name", ["tls_crt", "ca_crt"])
def test_no_key_is_kept_from_a_file_that_holds_certificate_and_key(name: str) -> None:
    key = key_of(an_authority())
    both = pem(an_authority().certificate) + key_pem(key)
    assert not shows_key(repr(observe(with_data(an_authority_body(), **{name: both}))), key)
