import gzip
import json
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.bundleserver.bodies import gunzip, parse
from zerotrust.bundleserver.refusals import Refused

LIMIT = 100_000


@given(st.binary(max_size=5000))
def test_what_was_packed_comes_out(plain: bytes) -> None:
    assert gunzip(gzip.compress(plain), LIMIT) == plain


def test_the_limit_is_exact() -> None:
    assert len(gunzip(gzip.compress(b"x" * LIMIT), LIMIT)) == LIMIT
    with pytest.raises(Refused) as refused:
        gunzip(gzip.compress(b"x" * (LIMIT + 1)), LIMIT)
    assert refused.value.status == 413


def test_a_bomb_never_gets_into_memory() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(500)) + packer.flush()
    assert len(bomb) < 600_000
    tracemalloc.start()
    with pytest.raises(Refused):
        gunzip(bomb, LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "cut short"),
        (b"no gzip at all", "no gzip"),
        (gzip.compress(b"x" * 5000, mtime=0)[:-9], "cut short"),
        (gzip.compress(b"x", mtime=0)[:-8] + b"\0" * 8, "no gzip"),
        (gzip.compress(b"x", mtime=0) + gzip.compress(b"y", mtime=0), "follows"),
        (gzip.compress(b"x", mtime=0) + b"junk", "follows"),
        (zlib.compress(b"x"), "no gzip"),
    ],
)
def test_what_is_no_gzip(raw: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        gunzip(raw, LIMIT)
    assert refused.value.status == 400


@given(st.binary(max_size=300))
def test_no_bytes_break_the_readers(raw: bytes) -> None:
    for reader in (lambda: gunzip(raw, LIMIT), lambda: parse(raw, 8)):
        with suppress(Refused):
            reader()


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_nesting_has_an_end(open_: str, close: str) -> None:
    parse((open_ * 8 + "1" + close * 8).encode(), 8)
    for deep in (9, 1_000, 100_000):
        with pytest.raises(Refused):
            parse((open_ * deep + "1" + close * deep).encode(), 8)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "1" * 5000, '{"a": 1} x', '"\ud800"'.encode("utf-8", "surrogatepass")]
)
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(Refused, match="no JSON"):
        parse(text.encode() if isinstance(text, str) else text, 8)


def test_plain_values_pass() -> None:
    for value in (None, 1, "x", [], {}, [1, {"a": [2]}]):
        assert parse(json.dumps(value).encode(), 8) == value
