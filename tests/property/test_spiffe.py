"""SPIFFE IDs by rules S1 to S7: what is one is read and written back, what is none is refused, whatever the text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID

LOWER = "abcdefghijklmnopqrstuvwxyz"
NAME_CHARACTERS = LOWER + "0123456789.-_"
SEGMENT_CHARACTERS = NAME_CHARACTERS + LOWER.upper()

names = st.text(NAME_CHARACTERS, min_size=1, max_size=40)
segments = st.text(SEGMENT_CHARACTERS, min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, max_size=6).map(lambda parts: "".join(f"/{part}" for part in parts))
shouts = st.integers(0, 2**50 - 1)


def is_one(text: str) -> bool:
    """SPIFFE-ID §2 with the leniency of §2.4, character by character and in no way that the parser shares."""
    if any(ord(character) > 127 for character in text) or len(text) > 2048:
        return False
    scheme, rest = text[:9], text[9:]
    if "".join(_lowered(character) for character in scheme) != "spiffe://":
        return False
    name, *parts = rest.split("/")
    if not name or len(name) > 255:
        return False
    if any(_lowered(character) not in NAME_CHARACTERS for character in name):
        return False
    return all(
        part and part not in (".", "..") and not [one for one in part if one not in SEGMENT_CHARACTERS]
        for part in parts
    )


def _lowered(character: str) -> str:
    return chr(ord(character) + 32) if "A" <= character <= "Z" else character


def is_read(text: str) -> bool:
    try:
        SpiffeID.parse(text)
    except InvalidSpiffeID:
        return False
    return True


@given(names, paths)
def test_an_id_comes_back_as_it_was_written(name: str, path: str) -> None:
    text = f"spiffe://{name}{path}"
    parsed = SpiffeID.parse(text)
    assert (parsed.trust_domain, parsed.path, str(parsed)) == (name, path, text)
    assert SpiffeID.parse(str(parsed)) == parsed == SpiffeID(name, path)


@given(names, paths, shouts)
def test_s7_scheme_and_trust_domain_are_read_in_any_case_and_the_path_as_it_is(
    name: str, path: str, shout: int
) -> None:
    head = f"spiffe://{name}"
    shouted = "".join(one.upper() if shout >> place & 1 else one for place, one in enumerate(head))
    assert SpiffeID.parse(shouted + path) == SpiffeID(name, path)
    if path.swapcase() != path:
        assert SpiffeID.parse(head + path.swapcase()) != SpiffeID(name, path)


pieces = st.sampled_from(
    [
        *"/.:@?#%[]\\ ~-_aZ0\x00\n\u212a\u0130é",
        "//",
        "..",
        "%2f",
        "%41",
        "spiffe",
        "SPIFFE",
        "://",
        "ns",
        "/../",
        ":443",
    ]
)
near = st.builds(
    lambda head, tail: head + "".join(tail),
    st.sampled_from(["", "spiffe://", "spiffe://example.org", "spiffe://example.org/", "SPIFFE://Example.ORG/a"]),
    st.lists(pieces, max_size=8),
)


@given(near | st.text(max_size=40))
@example("spiffe://\u212aube.org/a")  # KELVIN SIGN, which becomes a plain k in lower case
@example("\u017fpiffe://example.org")  # LATIN SMALL LETTER LONG S
@example("spiffe://example.org/a\n")
@example("spiffe:///a")
@example("spiffe://example.org/")
@example("spiffe:example.org")
def test_s1_to_s5_what_is_no_id_is_refused_and_what_is_one_is_read(text: str) -> None:
    assert is_read(text) is is_one(text)


@given(near)
def test_what_is_read_is_written_in_its_normal_form(text: str) -> None:
    if not is_read(text):
        return
    written = str(SpiffeID.parse(text))
    assert is_one(written)
    assert written[9:].split("/")[0] == written[9:].split("/")[0].lower()
    assert SpiffeID.parse(written) == SpiffeID.parse(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("http://example.org/a", "S1"),
        ("spiffe://", "S1"),
        ("spiffe://example.org/a?b", "S1"),
        ("spiffe://example.org/a#b", "S1"),
        ("spiffe://user@example.org/a", "S2"),
        ("spiffe://example.org:443/a", "S2"),
        ("spiffe://exam%70le.org/a", "S3"),
        ("spiffe://exämple.org/a", "S3"),
        ("spiffe://[::1]/a", "S3"),
        ("spiffe://example.org/a%20b", "S5"),
        ("spiffe://example.org//a", "S5"),
        ("spiffe://example.org/./a", "S5"),
        ("spiffe://example.org/a/..", "S5"),
        ("spiffe://example.org/a/", "S5"),
        ("spiffe://example.org/a b", "S5"),
    ],
)
def test_each_rule_refuses_what_breaks_it(text: str, rule: str) -> None:
    assert not is_read(text), rule


@pytest.mark.parametrize("name", ["10.0.0.1", "example", "a..b", "-", "_x_", "example.org."])
def test_s4_names_that_look_like_addresses_or_hosts_are_names_like_others(name: str) -> None:
    assert is_read(f"spiffe://{name}/a")


@pytest.mark.parametrize(("length", "read"), [(2048, True), (2049, False)])
def test_s6_an_id_has_at_most_2048_bytes(length: int, read: bool) -> None:
    head = "spiffe://example.org/"
    assert is_read(head + "a" * (length - len(head))) is read


@pytest.mark.parametrize(("length", "read"), [(255, True), (256, False)])
def test_s6_a_trust_domain_has_at_most_255_bytes(length: int, read: bool) -> None:
    assert is_read("spiffe://" + "a" * length) is read


@given(st.text(max_size=12), st.text(max_size=12))
def test_what_was_built_from_parts_is_what_would_be_read(name: str, path: str) -> None:
    """There is no other way past the parser; but see the next test."""
    if path and not path.startswith("/"):
        return
    try:
        built = SpiffeID(name, path)
    except InvalidSpiffeID:
        return
    assert SpiffeID.parse(str(built)) == built


@pytest.mark.parametrize("path", [".evil/x", "xns/shop", "?a", "#b"])
def test_a_path_begins_with_a_slash(path: str) -> None:
    with pytest.raises(InvalidSpiffeID):
        SpiffeID("example.org", path)


# --- the derivation ---

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
accounts = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda text: ".." not in text)


@given(labels, labels, accounts, st.just("") | labels)
def test_every_service_account_has_an_id(trust_domain: str, namespace: str, account: str, cluster: str) -> None:
    derived = SpiffeID.of_service_account(trust_domain, namespace, account, cluster)
    prefix = f"/cluster/{cluster}" if cluster else ""
    assert str(derived) == f"spiffe://{trust_domain}{prefix}/ns/{namespace}/sa/{account}"
    assert is_one(str(derived))


@given(st.tuples(labels, labels, accounts, labels), st.tuples(labels, labels, accounts, labels))
def test_different_service_accounts_have_different_ids(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    ids = [SpiffeID.of_service_account(*parts) for parts in (one, other)]
    assert (ids[0] == ids[1]) is (one == other)


parts = st.text(max_size=8).filter(lambda text: "/" not in text)


@given(parts, parts, parts)
def test_no_name_reaches_into_another_place(namespace: str, account: str, cluster: str) -> None:
    """Names that the API server would never let through end in a refusal, not in somebody else's ID."""
    try:
        derived = SpiffeID.of_service_account("example.org", namespace, account, cluster)
    except InvalidSpiffeID:
        return
    place = ["", *(["cluster", cluster] if cluster else []), "ns", namespace, "sa", account]
    assert derived.path.split("/") == place


@pytest.mark.parametrize("names", [("shop/sa/admin", "x", ""), ("shop", "x/y", ""), ("shop", "x", "a/ns/bank/sa/b")])
def test_no_name_has_a_slash(names: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidSpiffeID):
        SpiffeID.of_service_account("example.org", *names)
