"""The rules of SPIFFE-ID.md, one test each, on the ID of an otherwise good SVID."""

import pytest

from tests.support.certificates import Svid, an_svid
from tests.support.verdicts import failures, judge
from zerotrust.pki.conformance import Outcome


def with_id(uri: str | bytes) -> Svid:
    return an_svid(leaf={"uris": (uri.encode() if isinstance(uri, str) else uri,)})


@pytest.mark.parametrize(
    ("uri", "also"),
    [
        ("https://example.org/ns/shop", {"X14"}),
        ("spiffe:example.org/ns/shop", set()),
        ("spiffe:///ns/shop", set()),
        ("spiffe://example.org/ns/shop?x=1", set()),
        ("spiffe://example.org/ns/shop?", set()),
        ("spiffe://example.org/ns/shop#top", set()),
        ("spiffe://example.org/ns/shop#", set()),
    ],
)
def test_s1_scheme_trust_domain_no_query_no_fragment(uri: str, also: set[str]) -> None:
    assert failures(with_id(uri), trust_domain=None) == {"S1"} | also


@pytest.mark.parametrize("authority", ["admin@example.org", "@example.org", "example.org:443", "example.org:"])
def test_s2_the_trust_domain_is_only_a_host(authority: str) -> None:
    assert failures(with_id(f"spiffe://{authority}/ns/shop")) == {"S2"}


def test_s2_the_host_is_not_empty() -> None:
    assert failures(with_id("spiffe://:443/ns/shop"), trust_domain=None) == {"S2"}


@pytest.mark.parametrize("host", ["Example.org", "ex%61mple.org", "exa mple.org", "[::1]", "exämple.org", "a\x00b"])
def test_s3_the_trust_domain_has_only_the_allowed_characters(host: str) -> None:
    assert failures(with_id(f"spiffe://{host}/ns/shop"), trust_domain=None) == {"S3"}


@pytest.mark.parametrize("host", ["10.0.0.1", "999.1.1.1", "localhost", "-", "_._", "a..b", ".", "example.org."])
def test_s4_names_that_look_like_addresses_or_hosts_are_treated_like_all_others(host: str) -> None:
    svid = an_svid(leaf={"uris": (f"spiffe://{host}/ns/shop".encode(),)}, root={"uris": ()}, intermediate={"uris": ()})
    assert failures(svid, trust_domain=host) == set()


@pytest.mark.parametrize(
    "path", ["/a//b", "//", "/a/./b", "/a/..", "/a/", "/%61", "/a b", "/a~", "/a\\b", "/ä", "/a\x00", "/a:b", "/a@b"]
)
def test_s5_path_segments_have_only_the_allowed_characters(path: str) -> None:
    assert failures(with_id(f"spiffe://example.org{path}")) == {"S5"}


def test_s6_the_id_has_at_most_2048_bytes() -> None:
    longest = "spiffe://example.org/" + "a" * (2048 - 21)
    assert failures(with_id(longest)) == set()
    assert failures(with_id(f"{longest}a")) == {"S6"}


def test_s6_the_trust_domain_has_at_most_255_bytes() -> None:
    assert failures(with_id(f"spiffe://{'a' * 255}/x"), trust_domain=None) == set()
    assert failures(with_id(f"spiffe://{'a' * 256}/x"), trust_domain=None) == {"S6"}


def test_s7_the_scheme_is_case_insensitive_and_written_in_lower_case() -> None:
    assert failures(with_id("SPIFFE://example.org/ns/shop")) == {"S7"}


def test_s7_the_path_is_case_sensitive_and_may_have_upper_case() -> None:
    assert failures(with_id("spiffe://example.org/Ns/SHOP")) == set()


def test_s8_an_authority_of_the_trust_domain_carries_an_id() -> None:
    anonymous = an_svid(root={"uris": ()}, intermediate={"uris": ()})
    foreign = an_svid(root={"uris": (b"spiffe://other.org",)}, intermediate={"uris": ()})
    assert judge(an_svid())["S8"].message == ""
    assert judge(anonymous)["S8"].outcome is Outcome.NOT_APPLICABLE
    assert judge(foreign)["S8"].message.startswith("advised: no authority here carries the ID")


def test_messages_quote_foreign_text_so_that_it_cannot_steer_a_terminal() -> None:
    result = judge(with_id(b"spiffe://example.org/\x1b[2J\xc3\xa9"))["S5"]
    assert result.message.isascii()
    assert result.message.isprintable()
