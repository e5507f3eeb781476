"""Paths as servers may read them, and the patterns that are compared with them."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.policy import paths
from zerotrust.policy.paths import MAX_PATH, matches, segments
from zerotrust.policy.peers import PATH_PATTERN


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/", ()),
        ("/a", ("a",)),
        ("/a/", ("a",)),
        ("/api/orders/7", ("api", "orders", "7")),
        ("/a?x=1", ("a",)),
        ("/a/?x=//../%2e", ("a",)),
        ("/?", ()),
        ("/%61", ("a",)),
        ("/%C3%A9", ("é",)),
        ("/%c3%a9", ("é",)),
        ("/é", ("é",)),
        ("/\u65e5\u672c", ("\u65e5\u672c",)),
        ("/...", ("...",)),
        ("/.well-known/x", (".well-known", "x")),
        ("/a.b/..c", ("a.b", "..c")),
        ("/a+b", ("a+b",)),
        ("/a:b@c=d", ("a:b@c=d",)),
        ("/*", ("*",)),
        ("/%2A%2a", ("**",)),
    ],
)
def test_what_can_be_read_in_one_way_is_decoded_once(path: str, read: tuple[str, ...]) -> None:
    assert segments(path) == read


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=ascii(path))
        for path in (
            *("", "a", "a/b", "*", "?", "?/a", "http://orders/a", "\\a", " /a", "\ufeff/a"),
            *("//", "//a", "/a//", "/a//b", "/a///b", "//?x"),
            *("/.", "/..", "/./a", "/a/.", "/a/..", "/a/../b", "/../a", "/a/./b"),
            *("/%2e", "/%2E%2e", "/a/%2e%2e/b", "/a/.%2e/b", "/a/%2E./b", "/%2e/", "/a/..?x"),
            *("/a%2Fb", "/a%2fb", "/%2f", "/a/%2F", "/a%5Cb", "/a%5cb", "/a\\b", "/a/..\\b"),
            *("/%2541", "/%252e%252e/a", "/%252F", "/%25", "/a%2500", "/%25%32%65"),
            *("/a%00", "/a\x00", "/a%0a", "/a\nb", "/a%0d%0a", "/a\t", "/%7f", "/\x7f", "/\x85", "/%C2%85", "/\x9f"),
            *("/a;v=1", "/a;/b", "/;", "/a%3Bv", "/a%3b", "/..;/a", "/a/..;x/b"),
            *("/a#b", "/a%23", "/a%3Fb", "/a%3f", "/a b", "/a%20b"),
            *("/%", "/%4", "/%zz", "/%4g", "/a%", "/%u002e", "/%-1", "/% 41", "/%+1", "/%\u0661\u0661"),
            *("/%ff", "/%C3", "/%C3%28", "/%A9", "/%C0%AF", "/%C0%AE%C0%AE/", "/%E0%80%AF", "/%F0%80%80%AF"),
            *("/%ED%A0%80", "/\ud800", "/\udc00a", "/a\ud83d", "/%F4%90%80%80", "/%FE"),
            *("/\ufffd", "/a%EF%BF%BDb"),  # what other readers make of such octets
        )
    ],
)
def test_what_servers_could_read_in_two_ways_is_refused(path: str) -> None:
    assert segments(path) is None


def test_a_lone_surrogate_in_the_query_takes_no_part() -> None:
    assert segments("/a?\ud800") == ("a",)


def test_a_path_is_bounded() -> None:
    assert segments("/" + "a" * (MAX_PATH - 1)) == ("a" * (MAX_PATH - 1),)
    assert segments("/" + "a" * MAX_PATH) is None
    assert segments("/a?" + "x" * MAX_PATH) == ("a",)


def test_very_many_segments_are_matched_without_delay() -> None:
    deep = segments("/a" * (MAX_PATH // 2))
    assert deep is not None
    assert not matches("/" + "**/a/" * 40 + "b", deep)
    assert matches("/" + "**/a/" * 40 + "**", deep)


@given(st.lists(st.text(min_size=1, max_size=6), max_size=5))
def test_escaping_changes_nothing(parts: list[str]) -> None:
    plain = segments("/" + "/".join(parts))
    escaped = segments("/" + "/".join("".join(f"%{octet:02x}" for octet in _octets(part)) for part in parts))
    if plain is not None and not any(set("/?") & set(part) for part in parts):
        assert escaped == plain == tuple(parts)


def _octets(part: str) -> bytes:
    return part.encode("utf-8", "surrogatepass")


@given(st.text(max_size=40) | st.text("/.%2eEfF5cC;\\a?#", max_size=30))
def test_segments_hold_nothing_that_could_be_decoded_again(text: str) -> None:
    found = segments("/" + text)
    for part in found or ():
        assert part not in ("", ".", "..")
        assert not re.search(r"[/\\;#%?\x00-\x20\x7f]", part)
    if found is not None:
        again = "/" + "/".join(quote(part, safe="") for part in found)
        assert segments(again) == found


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/", "/", True),
        ("/", "/a", False),
        ("/a", "/a", True),
        ("/a", "/a/", True),
        ("/a/", "/a", True),
        ("/a", "/A", False),
        ("/a", "/a/b", False),
        ("/a", "/", False),
        ("/*", "/", False),
        ("/*", "/a", True),
        ("/*", "/a/b", False),
        ("/*", "/é", True),
        ("/*/b", "/a/b", True),
        ("/*/b", "/b", False),
        ("/a/*", "/a", False),
        ("/a/*/", "/a/b", True),
        ("/**", "/", True),
        ("/**", "/a/b/c", True),
        ("/**/", "/", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/ab", False),
        ("/a/**", "/b/a", False),
        ("/**/b", "/b", True),
        ("/**/b", "/a/a/b", True),
        ("/**/b", "/a/b/c", False),
        ("/a/**/b", "/a/b", True),
        ("/a/**/b", "/a/x/y/b", True),
        ("/a/**/b", "/a", False),
        ("/**/**", "/", True),
        ("/**/**", "/a", True),
        ("/**/x/**", "/a/x/b", True),
        ("/**/x/**", "/x", True),
        ("/**/x/**", "/a/b", False),
        ("/**/*", "/", False),
        ("/*/**", "/", False),
        ("/*/**", "/a", True),
        ("/**/*/**", "/", False),
        ("/**/x/**/x", "/x", False),
        ("/**/x/**/x", "/x/x", True),
    ],
)
def test_stars_stand_for_whole_segments(pattern: str, path: str, expected: bool) -> None:
    parts = segments(path)
    assert parts is not None
    assert re.fullmatch(PATH_PATTERN, pattern)
    assert matches(pattern, parts) is expected


def test_a_star_in_a_request_is_a_segment_like_any_other() -> None:
    for path in ("/*", "/%2a", "/**", "/%2A%2A"):
        parts = segments(path)
        assert parts is not None
        assert not matches("/a", parts)
        assert not matches("/a/**", parts)
        assert matches("/*", parts)


def naive(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """What DESIGN says, read literally: `*` is one segment, `**` any number of them."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(naive(wanted[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and wanted[0] in ("*", parts[0]) and naive(wanted[1:], parts[1:])


words = st.sampled_from(["a", "b"])


@given(st.lists(words | st.sampled_from(["*", "**"]), max_size=7), st.lists(words, max_size=7))
def test_matching_is_what_the_naive_reading_says(wanted: list[str], parts: list[str]) -> None:
    pattern = "/" + "/".join(wanted)
    assert matches(pattern, tuple(parts)) is naive(tuple(wanted), tuple(parts))
    if wanted:
        assert matches(f"{pattern}/", tuple(parts)) is naive(tuple(wanted), tuple(parts))


HOSTILE_PATTERNS = (
    *("", "a", "a/b", "//", "//a", "/a//b", "/a//", "/.", "/..", "/./a", "/a/..", "/a/../b", "/a/."),
    *("/a b", "/a\tb", "/a\n", "/\x00", "/a;b", "/a?b", "/a#b", "/a\\b", "/%61", "/%2e%2e", "/a%2Fb", "/%"),
    *("/é", "/\u65e5", "/\u202e", "/\uff0f", "/\u2024\u2024", "/a\u0301", "/\ud800", "/\ufeff"),
    *("/a*", "/*a", "/a*b", "/***", "/a**", "/**a", "/a/***/b", "/[ab]", "/{a,b}", "/a|b", "/<id>", "/^a", '/"'),
    *("/...", "/..a", "/....", "\n/a", " /a"),
)


@pytest.mark.parametrize("pattern", HOSTILE_PATTERNS, ids=ascii)
def test_what_a_pattern_must_not_hold(pattern: str) -> None:
    assert not re.fullmatch(PATH_PATTERN, pattern)


@given(st.from_regex(PATH_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 256))
def test_every_pattern_can_match_some_request(pattern: str) -> None:
    request = re.sub(r"\*\*?", "x", pattern)
    parts = segments(request)
    assert parts is not None, "a pattern that no request can meet is a Deny without effect"
    assert matches(pattern, parts)


def test_a_path_may_be_longer_than_what_a_test_may_write() -> None:
    assert paths.MAX_PATH >= 4096
