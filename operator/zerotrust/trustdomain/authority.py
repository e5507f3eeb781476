"""Certificate authorities of a trust domain: their states, what is remembered of them, and who may sign.

Keys live in one Secret for each authority and, while the controller runs, in the `KeyRing`. States, public certificates and
the bundle's sequence live together in one record, so that a step of the life cycle is one write.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, get_args

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from zerotrust.pki import keys
from zerotrust.pki import x509 as profiles
from zerotrust.pki.secret import AUTHORITIES, ObservedSecret
from zerotrust.trustdomain.bundle import TrustBundle, canonical_order, content_hash

State = Literal["Prepared", "Published", "Active", "Retiring", "Pruned"]
Source = Literal["SelfSigned", "Secret"]
IN_BUNDLE: tuple[State, ...] = ("Published", "Active", "Retiring")
_STATES: dict[str, State] = {state: state for state in get_args(State)}
_SOURCES: dict[str, Source] = {source: source for source in get_args(Source)}
BACKDATE = timedelta(minutes=5)
MIN_REMAINING = timedelta(minutes=1)


class RecordUnreadable(ValueError):
    """The record of a trust domain's authorities cannot be read."""


class NewerRecord(RecordUnreadable):
    """The record was written by a newer version of the operator, and must be left alone."""


class NotSignable(ValueError):
    """The key ring does not hold the key that should sign."""


class Entropy(Protocol):
    """Where randomness comes from; tests pass a deterministic one."""

    def private_key(self, algorithm: keys.KeyAlgorithm) -> keys.PrivateKey:
        """Make a private key."""

    def serial_number(self) -> int:
        """Make a certificate serial number: positive, at most 20 bytes (RFC 5280 §4.1.2.2)."""


class SystemEntropy:
    """The operating system's randomness."""

    def private_key(self, algorithm: keys.KeyAlgorithm) -> keys.PrivateKey:
        """Make a private key."""
        return keys.generate(algorithm)

    def serial_number(self) -> int:
        """Make a serial number with 159 random bits."""
        return x509.random_serial_number()


class Signer(Protocol):
    """Signs leaves without showing the key."""

    def holds(self, authority_id: str) -> bool:
        """Tell whether the authority's key is at hand."""

    def sign(self, authority_id: str, profile: profiles.LeafProfile) -> x509.Certificate:
        """Issue a leaf; NotSignable when the key is not at hand."""


class KeyRing:
    """The only place in the process where authority keys are."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[x509.Certificate, keys.PrivateKey]] = {}

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self._keys)})"

    def load(self, certificate: x509.Certificate, key: keys.PrivateKey) -> str:
        """Take a signing key in, and return its authority's id."""
        if not keys.belongs_to(key, certificate) or not profiles.is_authority(certificate):
            raise NotSignable("the key does not belong to a signing certificate")
        authority_id = profiles.authority_id(key.public_key())
        self._keys[authority_id] = (certificate, key)
        return authority_id

    def forget(self, authority_id: str) -> None:
        """Drop a key."""
        self._keys.pop(authority_id, None)

    def holds(self, authority_id: str) -> bool:
        """Tell whether the authority's key is at hand."""
        return authority_id in self._keys

    def sign(self, authority_id: str, profile: profiles.LeafProfile) -> x509.Certificate:
        """Issue a leaf that never outlives its authority (invariant I2)."""
        try:
            certificate, key = self._keys[authority_id]
        except KeyError:
            raise NotSignable(f"the key of authority {authority_id} is not at hand") from None
        if profile.not_after > certificate.not_valid_after_utc:
            raise NotSignable("a leaf must not outlive its authority")
        return profiles.sign_leaf(profile, certificate, key)


@dataclass(frozen=True)
class Authority:
    """One authority: `chain` starts with the signing certificate, `roots` is what verifiers trust."""

    id: str
    state: State
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    source: Source = "SelfSigned"

    @property
    def certificate(self) -> x509.Certificate:
        """The signing certificate."""
        return self.chain[0]

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What a leaf is followed by, so that it verifies against the roots alone."""
        return tuple(certificate for certificate in self.chain if certificate not in self.roots)

    @property
    def not_after(self) -> datetime:
        """When leaves cease to verify: the end of the chain, or of the last root."""
        chain = min(certificate.not_valid_after_utc for certificate in self.chain)
        return min(chain, max(root.not_valid_after_utc for root in self.roots))

    def usable(self, now: datetime) -> bool:
        """Tell whether it can sign a leaf that lives long enough to be worth it."""
        return self.certificate.not_valid_before_utc <= now and now + MIN_REMAINING < self.not_after


@dataclass(frozen=True)
class Record:
    """What is remembered of a trust domain's authorities; immutable, each step makes a new one."""

    authorities: tuple[Authority, ...]
    sequence: int
    bundle_hash: str
    refresh_hint: int

    @property
    def active(self) -> Authority | None:
        """The authority that signs."""
        return next((authority for authority in self.authorities if authority.state == "Active"), None)

    def bundle(self) -> TrustBundle:
        """The trust bundle that follows from the states."""
        return TrustBundle(_roots(self.authorities), self.sequence, self.refresh_hint)

    def activated(self, authority: Authority) -> "Record":
        """Return the record with this authority Active; the one before stays in the bundle as Retiring.

        When the same key comes below another root, its former roots stay trusted, because leaves lead to them.
        """
        former = next((other for other in self.authorities if other.id == authority.id), None)
        if former is not None:
            authority = replace(authority, roots=canonical_order((*authority.roots, *former.roots)))
        others = tuple(
            replace(other, state="Retiring") if other.state == "Active" else other
            for other in self.authorities
            if other.id != authority.id
        )
        return replace(self, authorities=(replace(authority, state="Active"), *others)).settled(self.refresh_hint)

    def settled(self, refresh_hint: int) -> "Record":
        """Return the record with a sequence that has grown exactly if the bundle's content changed (rule B2)."""
        content = content_hash(_roots(self.authorities), refresh_hint)
        if content == self.bundle_hash:
            return self
        return replace(self, sequence=self.sequence + 1, bundle_hash=content, refresh_hint=refresh_hint)

    def to_json(self) -> str:
        """Write the record; the same record gives the same bytes."""
        content = {
            "version": 1,
            "sequence": self.sequence,
            "bundleHash": self.bundle_hash,
            "refreshHintSeconds": self.refresh_hint,
            "authorities": [
                {
                    "id": authority.id,
                    "source": authority.source,
                    "state": authority.state,
                    "chain": profiles.write_pem(*authority.chain).decode("ascii"),
                    "roots": profiles.write_pem(*authority.roots).decode("ascii"),
                }
                for authority in self.authorities
            ],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """Read a record; RecordUnreadable when it is not one."""
        try:
            content: dict[str, Any] = json.loads(text)
            if content["version"] != 1:
                raise NewerRecord("was written by a newer version of the operator")
            return cls(
                authorities=tuple(
                    Authority(
                        id=str(entry["id"]),
                        state=_state(entry["state"]),
                        chain=tuple(profiles.read_pem(entry["chain"].encode())),
                        roots=tuple(profiles.read_pem(entry["roots"].encode())),
                        source=_source(entry.get("source", "SelfSigned")),
                    )
                    for entry in content["authorities"]
                ),
                sequence=int(content["sequence"]),
                bundle_hash=str(content["bundleHash"]),
                refresh_hint=int(content["refreshHintSeconds"]),
            )
        except RecordUnreadable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise RecordUnreadable("is not a record of authorities") from None


def first_record(authority: Authority, refresh_hint: int) -> Record:
    """Return the record of a trust domain's first authority, which is Active at once."""
    empty = Record(authorities=(), sequence=0, bundle_hash="", refresh_hint=refresh_hint)
    return replace(empty, authorities=(replace(authority, state="Active"),)).settled(refresh_hint)


def adopted_record(found: tuple[Authority, ...], refresh_hint: int, published: int) -> Record:
    """Return the record for authorities whose record was lost; its sequence goes on from the published one (rule B2)."""
    return Record(found, published, "", refresh_hint).settled(refresh_hint)


def from_secret(observed: ObservedSecret) -> Authority:
    """Return the authority that a Secret holds; ValueError says what is wrong with it.

    The roots are in `ca.crt`; without it the chain in `tls.crt` must end in a self-signed certificate.
    """
    if observed.certificate is None or not observed.certificate.key_matches:
        raise ValueError(observed.problem)
    chain = observed.certificate.chain()
    if not profiles.is_authority(chain[0]):
        raise ValueError("the first certificate of tls.crt is no authority: it needs cA=true and keyCertSign")
    pem = observed.public.get(AUTHORITIES, b"")
    roots = profiles.read_pem(pem) if pem else [one for one in chain if one.issuer == one.subject]
    trusted = tuple(roots)
    if not trusted:
        raise ValueError("the root is missing: put it into ca.crt, or at the end of tls.crt")
    for root in trusted:
        if not profiles.is_authority(root):
            raise ValueError("ca.crt holds a certificate that is no authority: it needs cA=true and keyCertSign")
        if not isinstance(root.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ValueError("ca.crt holds a root whose key is neither ECDSA nor RSA")
    try:
        profiles.verify_chain(chain, trusted, max(one.not_valid_before_utc for one in (*chain, *trusted)))
    except profiles.ChainError as error:
        raise ValueError(str(error)) from None
    public_key = chain[0].public_key()
    return Authority(profiles.authority_id(public_key), "Active", tuple(chain), trusted)  # type: ignore[arg-type]


def _state(text: object) -> State:
    return _STATES[str(text)]


def _source(text: object) -> Source:
    return _SOURCES[str(text)]


def _roots(authorities: Iterable[Authority]) -> tuple[x509.Certificate, ...]:
    return canonical_order(
        root for authority in authorities if authority.state in IN_BUNDLE for root in authority.roots
    )
