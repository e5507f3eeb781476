"""The text of an API key, `sk_<id>.<secret><check>`, and the digest by which it is recognised without being known.

`<id>` is 12 letters and digits and may be shown; `<secret>` is 43 characters, base64url of 32 random bytes (RFC 4648 §5, no
padding); `<check>` is the first 8 hex digits of SHA-256 over everything before it, so that Rego can tell a mistyped key from an
unknown one. A plain SHA-256 is enough of a one-way function for 256 random bits (NIST SP 800-63B, look-up secrets).
"""

import base64
import hashlib
import hmac
import re
import string
from collections.abc import Callable
from typing import NewType

from zerotrust.common.errors import ZerotrustError

KeyID = NewType("KeyID", str)
"""The part of a key that may be shown: 12 letters and digits."""
Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits: SHA-256 of a key's whole text."""
RandomBytes = Callable[[int], bytes]
"""Returns so many bytes of a CSPRNG, for example `secrets.token_bytes`."""

ID_PATTERN = r"^[0-9A-Za-z]{12}$"
LENGTH = 67

_ID, _DIGEST = re.compile(r"[0-9A-Za-z]{12}"), re.compile(r"sha256:[0-9a-f]{64}")
_SHAPE = re.compile(r"sk_([0-9A-Za-z]{12})\.[0-9A-Za-z_-]{43}([0-9a-f]{8})")
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FAIR = 256 - 256 % len(_ALPHABET)
_ROUNDS = 64


class BadKey(ZerotrustError):
    """A text is no API key; the message never holds a part of the text."""


class MistypedKey(BadKey):
    """A text has the shape of an API key, and its check digits are wrong."""


class ApiKeyText:
    """An API key in plaintext. Only `reveal()` shows it; as text, and to whoever compares or serialises, it is its id."""

    __slots__ = ("__text", "_id")

    def __init__(self, text: str) -> None:
        """Take a text of the right shape; BadKey says what is wrong with another."""
        self._id = _checked(text)
        self.__text = text

    @property
    def id(self) -> KeyID:
        """The part that may be shown."""
        return self._id

    def reveal(self) -> str:
        """The plaintext: for the consumer's Secret, and for nothing else."""
        return self.__text

    def __repr__(self) -> str:
        return f"ApiKeyText(id={self._id!r})"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an API key is not pickled or copied")


def generate(random_bytes: RandomBytes) -> ApiKeyText:
    """Make a key out of fresh randomness; ValueError when that is not what was asked for."""
    secret = _drawn(random_bytes, 32)
    head = f"sk_{_fresh_id(random_bytes)}.{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"
    return ApiKeyText(head + _check(head))


def parse(text: str) -> ApiKeyText:
    """Read what somebody presents; BadKey says what is wrong, in bounded time and without repeating any of it."""
    return ApiKeyText(text)


def digest(key: ApiKeyText) -> Digest:
    """Return what is stored of a key."""
    return Digest("sha256:" + hashlib.sha256(key.reveal().encode()).hexdigest())


def matches(key: ApiKeyText, stored: str) -> bool:
    """Tell whether `stored` is the key's digest, in a time that does not depend on where they differ."""
    return hmac.compare_digest(digest(key).encode(), stored.encode(errors="backslashreplace"))


def is_key_id(text: object) -> bool:
    """Tell whether this has the shape of a key's id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def is_digest(text: object) -> bool:
    """Tell whether this has the shape of a stored digest."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def _checked(text: str) -> KeyID:
    if len(text) != LENGTH:
        raise BadKey(f"an API key has {LENGTH} characters; copy all of it, and nothing around it")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise BadKey("an API key looks like sk_<id>.<secret>, with letters, digits, - and _ only")
    if not hmac.compare_digest(_check(text[:-8]), shape[2]):
        raise MistypedKey("the API key's check digits are wrong: a part of it was mistyped or lost")
    return KeyID(shape[1])


def _check(head: str) -> str:
    return hashlib.sha256(head.encode()).hexdigest()[:8]


def _fresh_id(random_bytes: RandomBytes) -> str:
    """Every id is as likely as any other: bytes that would favour the first letters are thrown away."""
    letters = ""
    for _ in range(_ROUNDS):
        letters += "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in _drawn(random_bytes, 16) if byte < _FAIR)
        if len(letters) >= 12:
            return letters[:12]
    raise ValueError("the source of randomness gives the same bytes again and again")


def _drawn(random_bytes: RandomBytes, count: int) -> bytes:
    drawn = random_bytes(count)
    if len(drawn) != count or (count >= 32 and len(set(drawn)) < 8):
        raise ValueError(f"the source of randomness did not give {count} random bytes")
    return drawn
