"""What the operator keeps of a Secret with a certificate: public facts and digests, never a key.

The private key is looked at once, on the way into the cache, to say whether it belongs to the certificate.
"""

import base64
import binascii
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509

from zerotrust.common.naming import COMPONENT, COMPONENT_AUTHORITY_RECORD, COMPONENT_BUNDLE_KEYS
from zerotrust.common.observed import Meta, meta_of
from zerotrust.pki import keys
from zerotrust.pki import x509 as profiles

CERTIFICATE = "tls.crt"
PRIVATE_KEY = "tls.key"
AUTHORITIES = "ca.crt"
SPIFFE_BUNDLE = "bundle.spiffe.json"
RECORD = "record.json"
_WITH_RECORD = (COMPONENT_AUTHORITY_RECORD, COMPONENT_BUNDLE_KEYS)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a decision needs to know of the certificate in a Secret; `pem` is the whole chain, leaf first."""

    spiffe_ids: tuple[str, ...]
    dns_names: tuple[str, ...]
    serial_number: int
    not_before: datetime
    not_after: datetime
    key_algorithm: str
    issuer_key_id: str
    key_matches: bool
    signs: bool
    pem: bytes

    def chain(self) -> list[x509.Certificate]:
        """Parse the chain again; it is not kept parsed, to save memory."""
        return profiles.read_pem(self.pem)


@dataclass(frozen=True, slots=True)
class ObservedSecret:
    """A Secret without its values: `digests` are SHA-256 over each value, enough to see an edit.

    `public` keeps the few values that are no secret and that decisions read: an authority's roots, the authority record.
    """

    meta: Meta
    type: str
    digests: Mapping[str, bytes]
    certificate: CertificateFacts | None
    problem: str = ""
    public: Mapping[str, bytes] = field(default_factory=dict)


def observe(body: Mapping[str, Any]) -> ObservedSecret:
    """Reduce a Secret to what may be cached; what cannot be read is said in `problem`, never raised."""
    meta = meta_of("Secret", body)
    data = body.get("data") or {}
    digests = {sys.intern(key): digest(_decoded(value)) for key, value in data.items()}
    certificate, problem = _certificate(_decoded(data.get(CERTIFICATE)), _decoded(data.get(PRIVATE_KEY)))
    kept = [RECORD] if meta.labels.get(COMPONENT) in _WITH_RECORD else []
    if certificate is not None and certificate.signs:
        kept.append(AUTHORITIES)
    public = {key: _decoded(data[key]) for key in kept if key in data}
    if AUTHORITIES in public:
        public[AUTHORITIES] = _certificates_only(public[AUTHORITIES])
    return ObservedSecret(meta, body.get("type", "Opaque"), digests, certificate, problem, public)


def digest(value: bytes) -> bytes:
    """The digest under which a value is compared."""
    return hashlib.sha256(value).digest()


def value_of(body: Mapping[str, Any], key: str) -> bytes:
    """Return one decoded value of a Secret's body, empty when it is absent or not base64."""
    return _decoded((body.get("data") or {}).get(key))


def encode(value: bytes) -> str:
    """Encode a value for a Secret's `data`."""
    return base64.b64encode(value).decode("ascii")


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _certificate(pem: bytes, key_pem: bytes) -> tuple[CertificateFacts | None, str]:
    if not pem:
        return None, "tls.crt is missing or empty"
    try:
        chain = profiles.read_pem(pem)
        leaf = chain[0]
        public_key = leaf.public_key()
        facts = CertificateFacts(
            spiffe_ids=profiles.spiffe_ids(leaf),
            dns_names=profiles.dns_names(leaf),
            serial_number=leaf.serial_number,
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            key_algorithm=keys.algorithm_of(public_key),
            issuer_key_id=_issuer_key_id(leaf),
            key_matches=_key_matches(key_pem, leaf),
            signs=profiles.is_authority(leaf),
            pem=profiles.write_pem(*chain),  # written anew: a key that somebody put beside the certificate stays out
        )
    except Exception:  # noqa: BLE001 - the bytes are anybody's: whatever a parser makes of them, they are not a certificate
        return None, "tls.crt holds no readable PEM certificate"
    return facts, "" if facts.key_matches else "tls.key does not belong to the certificate in tls.crt"


def _certificates_only(pem: bytes) -> bytes:
    """Keep the certificates of a PEM text and nothing that may stand beside them; unreadable text stays unreadable."""
    try:
        return profiles.write_pem(*profiles.read_pem(pem))
    except profiles.UnreadableCertificate:
        return b"unreadable" if pem else b""


def _key_matches(key_pem: bytes, leaf: x509.Certificate) -> bool:
    try:
        return keys.belongs_to(keys.from_pem(key_pem), leaf)
    except keys.UnreadableKey:
        return False


def _issuer_key_id(leaf: x509.Certificate) -> str:
    try:
        identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return identifier.hex() if identifier else ""
