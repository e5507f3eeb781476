"""The text of a key: its shape, its check digits, hostile texts, and that nothing but `reveal` shows it."""

import copy
import hashlib
import json
import pickle
import secrets
import traceback

import pytest

from zerotrust.apikey import key
from zerotrust.apikey.key import ApiKeyText, BadKey, digest, generate, is_digest, is_key_id, matches, parse


def fixed(seed: str) -> key.RandomBytes:
    """Bytes that look random and are the same in every run."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(size)

    return draw


def with_check(head: str) -> str:
    return head + hashlib.sha256(head.encode()).hexdigest()[:8]


KEY = generate(fixed("a"))


def test_a_key_has_the_documented_shape() -> None:
    text = generate(secrets.token_bytes).reveal()
    head, check = text[:-8], text[-8:]
    prefix, _, secret = head.partition(".")
    assert (len(text), prefix[:3], len(prefix[3:]), len(secret)) == (67, "sk_", 12, 43)
    assert check == hashlib.sha256(head.encode()).hexdigest()[:8]
    assert parse(text).id == prefix[3:]
    assert is_key_id(parse(text).id)


def test_known_key() -> None:
    """Written out, because Rego and scanners rely on every byte."""
    head = "sk_0123456789aB." + "A" * 43
    text = head + "00b67fdd"
    assert parse(text).reveal() == text
    assert digest(parse(text)) == "sha256:17c69db44f0cf13d2e08539945cdf0f23fed1976fac487c9e0e9c8602df2e72e"


def test_all_32_bytes_and_every_letter_are_used() -> None:
    keys = [generate(fixed(str(number))) for number in range(2000)]
    assert len({one.id for one in keys}) == len(keys)
    letters = "".join(one.id for one in keys)
    counts = [letters.count(letter) for letter in sorted(set(letters))]
    assert len(counts) == 62
    assert max(counts) < 1.4 * min(counts), "some letters are more likely than others"
    assert len({one.reveal()[58] for one in keys}) == 16  # 32 bytes leave four bits for the last of 43 characters


@pytest.mark.parametrize(
    "source", [lambda _: b"", lambda size: b"\xff" * size, bytes, lambda size: b"a" * (size - 1)],
    ids=["nothing", "ones", "zeros", "too few"],
)  # fmt: skip
def test_bad_randomness_makes_no_key(source: key.RandomBytes) -> None:
    with pytest.raises(ValueError, match="randomness"):
        generate(source)


def test_randomness_without_usable_bytes_ends() -> None:
    draw = fixed("a")
    with pytest.raises(ValueError, match="again and again"):
        generate(lambda size: draw(size) if size == 32 else b"\xff" * size)


TEXT = KEY.reveal()
HOSTILE = {
    "empty": "",
    "cut": TEXT[:-1],
    "longer": TEXT + "0",
    "newline": TEXT[:-1] + "\n",
    "space before": " " + TEXT[:-1],
    "bearer": f"Bearer {TEXT}",
    "last digit": TEXT[:-1] + ("0" if TEXT[-1] != "0" else "1"),
    "one letter": TEXT[:20] + ("A" if TEXT[20] != "A" else "B") + TEXT[21:],
    "upper-case check": TEXT[:-8] + with_check("sk_0123456789aB." + "A" * 43)[-8:].upper(),
    "other prefix": with_check("pk" + TEXT[2:-8]),
    "short id": with_check("sk_" + "a" * 11 + "." + "b" * 44),
    "arabic digits": with_check("sk_" + "\u0663" * 12 + TEXT[15:-8]),
    "full-width": with_check("\uff53" + TEXT[1:-8]),
    "no dot": with_check(TEXT[:-8].replace(".", "_")),
    "padding": with_check(TEXT[:-9] + "="),
    "digest": digest(KEY)[:67],
    "whole digest": digest(KEY),
    "a megabyte": "sk_" + "a" * 1_000_000,
    "a surrogate": "sk_\ud800" + TEXT[4:],
    "a null": TEXT[:30] + "\x00" + TEXT[31:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_refused_and_never_repeated(name: str) -> None:
    with pytest.raises(BadKey) as caught:
        parse(HOSTILE[name])
    shown = "".join(traceback.format_exception(caught.value))
    assert TEXT[16:-8] not in shown
    assert len(str(caught.value)) < 120
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_only_reveal_shows_the_plaintext() -> None:
    secret = TEXT[16:59]
    shown = [repr(KEY), str(KEY), f"{KEY}", f"{KEY!r:>80}", "%s" % KEY, repr([KEY]), repr({"key": KEY})]  # noqa: UP031
    assert all(secret[:6] not in text and KEY.id in text for text in shown)
    for leak in (json.dumps, pickle.dumps, copy.copy, copy.deepcopy, vars):
        with pytest.raises(TypeError):
            leak(KEY)
    with pytest.raises(AttributeError):
        KEY.text = "x"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        KEY.id = "x"  # type: ignore[misc,assignment]


def test_a_key_matches_its_own_digest_only() -> None:
    other = generate(fixed("b"))
    assert matches(KEY, digest(KEY))
    assert is_digest(digest(KEY))
    for stored in (
        digest(other),
        "",
        digest(KEY).upper(),
        digest(KEY)[:-1],
        digest(KEY)[7:],
        KEY.id,
        TEXT,
        "é",
        "\ud800",
    ):
        assert not matches(KEY, stored)


def test_equal_texts_are_not_equal_objects() -> None:
    """Comparing keys is `matches`, which takes the same time for every answer."""
    assert ApiKeyText(TEXT) != ApiKeyText(TEXT)


@pytest.mark.parametrize(
    "value", [None, 1, "", "a" * 11, "a" * 13, "0123456789a\n", "0123456789a-", "\u0663" * 12, ["a" * 12]]
)
def test_what_is_no_id(value: object) -> None:
    assert not is_key_id(value)
    assert not is_digest(value)
