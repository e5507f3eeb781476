"""The operator's own check of a chain, and the profiles of what it signs."""

from datetime import datetime
from typing import Any

import pytest
from cryptography import x509

from tests.support.builders import NOW, days, hours
from tests.support.certificates import a_leaf, a_root, an_intermediate, pem
from zerotrust.pki import x509 as profiles
from zerotrust.pki.spiffe import SpiffeID

ROOT = a_root()
MIDDLE = an_intermediate(ROOT)
LEAF = a_leaf(MIDDLE)


def certificates(*issued: Any) -> list[x509.Certificate]:
    return [one.certificate for one in issued]


def verify(chain: list[Any], roots: list[Any], at: datetime = NOW) -> None:
    profiles.verify_chain(certificates(*chain), certificates(*roots), at)


@pytest.mark.parametrize(
    ("chain", "roots"),
    [
        ([LEAF, MIDDLE], [ROOT]),
        ([LEAF, MIDDLE, ROOT], [ROOT]),
        ([LEAF], [MIDDLE]),
        ([LEAF, MIDDLE], [a_root(), ROOT, a_root()]),
        ([a_leaf(ROOT)], [ROOT]),
        ([ROOT], [ROOT]),
    ],
)
def test_a_chain_to_a_root_verifies(chain: list[Any], roots: list[Any]) -> None:
    verify(chain, roots)


@pytest.mark.parametrize(
    ("chain", "roots", "told"),
    [
        ([], [ROOT], "there is no certificate"),
        ([LEAF, MIDDLE], [], "does not lead"),
        ([LEAF, MIDDLE], [a_root()], "does not lead"),
        ([LEAF], [ROOT], "does not lead"),
        ([MIDDLE, LEAF], [ROOT], "no authority"),
        ([LEAF, an_intermediate(ROOT)], [ROOT], "not signed by the next"),
        ([a_leaf(a_leaf(ROOT)), a_leaf(ROOT)], [ROOT], "no authority"),
        ([a_leaf(ROOT, not_after=NOW - hours(0.5))], [ROOT], "expired at"),
        ([a_leaf(ROOT, not_before=NOW + hours(0.5))], [ROOT], "not valid before"),
        ([LEAF, an_intermediate(ROOT, not_after=NOW - hours(1))], [ROOT], "expired at"),
        ([a_leaf(a_root(key=ROOT.key))], [a_root(key=ROOT.key, not_after=NOW - hours(1))], "expired at"),
    ],
)
def test_a_chain_that_is_broken_says_where(chain: list[Any], roots: list[Any], told: str) -> None:
    with pytest.raises(profiles.ChainError, match=told):
        verify(chain, roots)


def test_an_expired_root_does_not_hide_its_successor_of_the_same_key() -> None:
    expired = a_root(not_before=NOW - days(300), not_after=NOW - hours(1))
    renewed = a_root(key=expired.key)
    verify([a_leaf(renewed)], [expired, renewed])


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_unreadable(text: bytes) -> None:
    with pytest.raises(profiles.UnreadableCertificate):
        profiles.read_pem(text)


def test_pem_comes_back_in_order() -> None:
    both = certificates(LEAF, MIDDLE)
    assert profiles.write_pem(*both) == pem(*both)
    assert profiles.read_pem(profiles.write_pem(*both)) == both


@pytest.mark.parametrize(
    "leaf",
    [
        {"uris": ()},
        {"uris": (b"spiffe://a/b", b"spiffe://a/c")},
        {"uris": (b"https://a",)},
        {"uris": (b"spiffe://A/",)},
    ],
)
def test_a_certificate_without_one_good_id_has_none(leaf: dict[str, Any]) -> None:
    assert profiles.parsed_id(a_leaf(ROOT, **leaf).certificate) is None


def test_the_id_of_a_leaf_is_read() -> None:
    assert profiles.parsed_id(LEAF.certificate) == SpiffeID("example.org", "/ns/shop/sa/orders")
