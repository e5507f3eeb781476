"""The rules of SPIFFE-ID.md, applied to the URI SANs as raw bytes.

The bytes are split as RFC 3986 §3 says and never decoded, normalised or repaired: two readers that repair differently
see two identities in one certificate.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zerotrust.pki.conformance.rule import (
    Evidence,
    Finding,
    NotApplicable,
    Rule,
    Verdict,
    cannot_show,
    quote,
    uri_names,
)

MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

_LOWER_AND_DIGITS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_HOST = _LOWER_AND_DIGITS | frozenset(b".-_")
_SEGMENT = _HOST | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Parts:
    """A URI's components (RFC 3986 §3). None is a component that is absent; an empty one is there and empty."""

    raw: bytes
    scheme: bytes | None
    authority: bytes | None
    path: bytes
    query: bytes | None
    fragment: bytes | None

    @property
    def userinfo(self) -> bytes | None:
        """What stands before the authority's last `@`."""
        before, at, _ = (self.authority or b"").rpartition(b"@")
        return before if at else None

    @property
    def host(self) -> bytes:
        """The authority without userinfo and port: the trust domain."""
        return self._host_and_port[0]

    @property
    def port(self) -> bytes | None:
        """What stands behind the host's colon; a colon inside the brackets of an IPv6 address is none."""
        return self._host_and_port[1]

    @property
    def _host_and_port(self) -> tuple[bytes, bytes | None]:
        rest = (self.authority or b"").rpartition(b"@")[2]
        closing = rest.rfind(b"]")
        colon = rest.find(b":", closing + 1 if rest.startswith(b"[") else 0)
        return (rest, None) if colon < 0 else (rest[:colon], rest[colon + 1 :])


def split(raw: bytes) -> Parts:
    """Split a URI into its components, whatever they hold; nothing is refused here."""
    rest, hash_sign, fragment = raw.partition(b"#")
    rest, question_mark, query = rest.partition(b"?")
    scheme, colon, hierarchy = rest.partition(b":")
    if not colon:
        hierarchy = rest
    authority: bytes | None = None
    path = hierarchy
    if hierarchy.startswith(b"//"):
        authority, slash, tail = hierarchy[2:].partition(b"/")
        path = slash + tail
    return Parts(
        raw,
        scheme if colon else None,
        authority,
        path,
        query if question_mark else None,
        fragment if hash_sign else None,
    )


def is_spiffe_scheme(parts: Parts) -> bool:
    """Tell whether the URI claims to be a SPIFFE ID; schemes are case-insensitive (SPIFFE-ID §2.4)."""
    return parts.scheme is not None and parts.scheme.lower() == b"spiffe"


def is_root(parts: Parts) -> bool:
    """Tell whether the ID names the trust domain itself instead of something in it."""
    return parts.path in (b"", b"/")


def names_a_spiffe_id(parts: Parts) -> str | None:
    """S1: scheme spiffe, a trust domain, neither query nor fragment."""
    if not is_spiffe_scheme(parts):
        return "its scheme is not spiffe; required is spiffe://<trust domain>/<path>"
    if not parts.authority:
        return "it has no trust domain; required is spiffe://<trust domain>/<path>"
    if parts.query is not None:
        return "it has a query; remove everything from the question mark on"
    if parts.fragment is not None:
        return "it has a fragment; remove everything from the number sign on"
    return None


def has_only_a_host(parts: Parts) -> str | None:
    """S2: the authority is a host, without user and port."""
    if parts.userinfo is not None:
        return "its trust domain has a user part (@); only a host is allowed"
    if parts.port is not None:
        return "its trust domain has a port (:); only a host is allowed"
    if parts.authority and not parts.host:
        return "its trust domain has no host"
    return None


def host_is_spelled_right(parts: Parts) -> str | None:
    """S3: the host is made of lower case letters, digits, dot, dash and underscore."""
    if b"%" in parts.host:
        return "its trust domain is percent-encoded; write the characters themselves"
    if not set(parts.host.lower()) <= _HOST:
        return "its trust domain has other characters than a-z, 0-9, dot, dash and underscore"
    if parts.host != parts.host.lower():
        return "its trust domain has upper case letters; write it in lower case"
    return None


def path_is_spelled_right(parts: Parts) -> str | None:
    """S5: no encoding, no empty or relative segment, no trailing slash, only letters, digits, dot, dash, underscore."""
    if not parts.path:
        return None
    if b"%" in parts.path:
        return "its path is percent-encoded; write the characters themselves"
    if parts.path.endswith(b"/"):
        return "its path ends with a slash"
    for segment in parts.path[1:].split(b"/"):
        if not segment:
            return "its path has an empty segment (//)"
        if segment in (b".", b".."):
            return "its path has a relative segment (. or ..)"
        if not set(segment) <= _SEGMENT:
            return "its path has other characters than letters, digits, dot, dash and underscore"
    return None


def is_short_enough(parts: Parts) -> str | None:
    """S6: 2048 bytes for the ID, 255 for the trust domain: what every implementation has to accept."""
    if len(parts.raw) > MAX_ID_BYTES:
        return f"it has {len(parts.raw)} bytes; at most {MAX_ID_BYTES} are understood everywhere"
    if len(parts.host) > MAX_TRUST_DOMAIN_BYTES:
        return f"its trust domain has {len(parts.host)} bytes; at most {MAX_TRUST_DOMAIN_BYTES} are allowed"
    return None


def scheme_is_canonical(parts: Parts) -> str | None:
    """S7: scheme and trust domain are case-insensitive, so one spelling is canonical; S3 settles the trust domain's.

    Readers must take `SPIFFE:` for `spiffe:`, yet issuers write the lower case (RFC 3986 §3.1): whoever compares IDs as
    text would see two identities.
    """
    if is_spiffe_scheme(parts) and parts.scheme != b"spiffe":
        return "its scheme is not written in lower case; write spiffe://"
    return None


IdCheck = Callable[[Parts], str | None]
_GRAMMAR: tuple[IdCheck, ...] = (
    names_a_spiffe_id,
    has_only_a_host,
    host_is_spelled_right,
    path_is_spelled_right,
    is_short_enough,
    scheme_is_canonical,
)


def name_bytes(trust_domain: str) -> bytes:
    """Fold a trust domain's name for comparison: its case does not count (§2.4), in ASCII and nowhere else."""
    return trust_domain.encode(errors="replace").lower()


def is_spiffe_id(raw: bytes) -> bool:
    """Tell whether the bytes are a SPIFFE ID in its one canonical form (S1, S2, S3, S5, S6, S7)."""
    parts = split(raw)
    return all(check(parts) is None for check in _GRAMMAR)


def is_trust_domain(name: str) -> bool:
    """Tell whether it is the name of a trust domain (S2, S3, S6), in either case."""
    return "/" not in name and is_spiffe_id(b"spiffe://" + name_bytes(name))


def signing_ids(evidence: Evidence) -> tuple[tuple[str, Parts], ...]:
    """Every SPIFFE ID of a signing certificate, with the certificate's name; its other URIs are nobody's identity."""
    found = ((named.name, split(raw)) for named in evidence.signing for raw in uri_names(named.certificate))
    return tuple((name, parts) for name, parts in found if is_spiffe_scheme(parts))


def _of_every_id(check: IdCheck) -> Callable[[Evidence], Verdict]:
    def rule(evidence: Evidence) -> Verdict:
        leaf_ids = tuple(("leaf", split(raw)) for raw in uri_names(evidence.leaf))
        if not leaf_ids:
            return NotApplicable("the leaf has no URI SAN (see X1)")
        for name, parts in (*leaf_ids, *signing_ids(evidence)):
            problem = check(parts)
            if problem is not None:
                return Finding(f"{name}: URI SAN {quote(parts.raw)}: {problem}")
        return None

    return rule


RULES = (
    Rule(
        "S1",
        "SPIFFE-ID §2",
        "the ID has the scheme spiffe, a trust domain, no query and no fragment",
        _of_every_id(names_a_spiffe_id),
    ),
    Rule(
        "S2",
        "SPIFFE-ID §2.1",
        "the trust domain is a host, without user and port",
        _of_every_id(has_only_a_host),
    ),
    Rule(
        "S3",
        "SPIFFE-ID §2.1",
        "the trust domain has only a-z, 0-9, dot, dash and underscore, nothing percent-encoded",
        _of_every_id(host_is_spelled_right),
    ),
    Rule(
        "S4",
        "SPIFFE-ID §2.1",
        "trust domains that look like IP addresses or DNS names are not treated differently",
        cannot_show("binds the reader of an ID; this one has a single grammar for all trust domains"),
    ),
    Rule(
        "S5",
        "SPIFFE-ID §2.2",
        "path segments are letters, digits, dot, dash and underscore, none empty, '.' or '..', no trailing slash",
        _of_every_id(path_is_spelled_right),
    ),
    Rule(
        "S6",
        "SPIFFE-ID §2.3",
        f"the ID has at most {MAX_ID_BYTES} bytes, its trust domain at most {MAX_TRUST_DOMAIN_BYTES}",
        _of_every_id(is_short_enough),
    ),
    Rule(
        "S7",
        "SPIFFE-ID §2.4",
        "the ID is in its canonical spelling: scheme and trust domain are case-insensitive, the path is not",
        _of_every_id(scheme_is_canonical),
    ),
)
