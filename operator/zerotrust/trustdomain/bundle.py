"""The trust bundle in its formats: PEM and the SPIFFE bundle document.

Source: SPIFFE_Trust_Domain_and_Bundle.md section 4 (rules B1 to B6), X509-SVID.md section 6 (X15, X16).
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk

from zerotrust.pki import x509 as profiles

PEM_KEY = "bundle.pem"
SPIFFE_KEY = "bundle.spiffe.json"


@dataclass(frozen=True)
class TrustBundle:
    """The certificates that vouch for one trust domain; `refresh_hint` is in seconds, `sequence` grows with every change."""

    roots: tuple[x509.Certificate, ...]
    sequence: int
    refresh_hint: int

    @cached_property
    def pem(self) -> str:
        """The roots as PEM, in canonical order."""
        return profiles.write_pem(*self.roots).decode("ascii")

    @cached_property
    def document(self) -> str:
        """The SPIFFE bundle: a JWK Set with one `x509-svid` entry for each root."""
        content = {
            "keys": [_entry(root) for root in self.roots],
            "spiffe_refresh_hint": self.refresh_hint,
            "spiffe_sequence": self.sequence,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the PEM, in hex."""
        return hashlib.sha256(self.pem.encode()).hexdigest()


def canonical_order(roots: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return the distinct roots, oldest first, so that the same set always gives the same bytes."""
    distinct = {root.public_bytes(serialization.Encoding.DER): root for root in roots}
    return tuple(root for _, root in sorted(distinct.items(), key=lambda item: (item[1].not_valid_before_utc, item[0])))


def content_hash(roots: tuple[x509.Certificate, ...], refresh_hint: int) -> str:
    """Identify what the document says apart from its sequence: when this changes, the sequence must (rule B2)."""
    digest = hashlib.sha256(str(refresh_hint).encode())
    for root in roots:
        digest.update(root.public_bytes(serialization.Encoding.DER))
    return digest.hexdigest()


def _entry(root: x509.Certificate) -> dict[str, Any]:
    public_key = root.public_key()
    pem = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    elliptic = isinstance(public_key, ec.EllipticCurvePublicKey)
    key = jwk.import_key(pem, "EC") if elliptic else jwk.import_key(pem, "RSA")
    entry = dict(key.as_dict(private=False))
    entry.pop("kid", None)  # X15: an x509-svid entry has none
    der = root.public_bytes(serialization.Encoding.DER)
    return {**entry, "use": "x509-svid", "x5c": [base64.b64encode(der).decode("ascii")]}
