"""Bodies of bounded size: read in time, unpacked in small steps, parsed no deeper than is sane."""

import asyncio
import json
import zlib
from typing import Any, NoReturn

from aiohttp import web

from zerotrust.bundleserver.refusals import Refused

_STEP = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS


async def read_json(request: web.Request, *, compressed: int, plain: int, nesting: int, seconds: float) -> Any:
    """Return the parsed body; Refused with 400, 408, 413 or 415. Sizes are in bytes, as sent and as unpacked."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Refused(415, "malformed", "Content-Encoding must be gzip or absent", close=True)
    try:
        async with asyncio.timeout(seconds):
            raw = await _read(request, compressed if encoding == "gzip" else min(compressed, plain))
    except TimeoutError:
        raise Refused(408, "slow", f"the body did not arrive within {seconds:g} s", close=True) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Refused(400, "malformed", "the body broke off", close=True) from None
    return parse(gunzip(raw, plain) if encoding == "gzip" else raw, nesting)


async def _read(request: web.Request, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    received = bytearray()
    async for chunk in request.content.iter_any():
        received += chunk
        if len(received) > limit:
            raise _too_large(limit)
    return bytes(received)


def gunzip(raw: bytes, limit: int) -> bytes:
    """Unpack one gzip member of at most `limit` bytes; never holds more than that, however much is packed in."""
    unpacker = zlib.decompressobj(_GZIP)
    plain, rest = bytearray(), raw
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(rest, min(_STEP, limit + 1 - len(plain)))
            plain += piece
            if len(plain) > limit:
                raise _too_large(limit)
            rest = unpacker.unconsumed_tail
            if not (rest or piece or unpacker.eof):
                raise Refused(400, "malformed", "the gzip body is cut short")
    except zlib.error:
        raise Refused(400, "malformed", "the body is no gzip") from None
    if unpacker.unused_data:
        raise Refused(400, "malformed", "something follows the gzip body")
    return bytes(plain)


def parse(plain: bytes, nesting: int) -> Any:
    """Read JSON of at most so many levels; NaN and infinities are no JSON."""
    try:
        value = json.loads(plain.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "malformed", "the body is no JSON") from None
    level, depth = _children([value]), 0
    while level:
        if depth == nesting:
            raise Refused(400, "malformed", f"the body is nested deeper than {nesting} levels")
        level = [child for parent in level for child in _children(parent)]
        depth += 1
    return value


def _children(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _too_large(limit: int) -> Refused:
    return Refused(413, "too_large", f"the body is larger than {limit} bytes", close=True)
