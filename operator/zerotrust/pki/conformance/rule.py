"""What a conformance rule is, what it looks at, and what it can say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class Outcome(StrEnum):
    """How one rule was decided."""

    PASS = "pass"  # noqa: S105  an outcome
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"


class Finding(NamedTuple):
    """The rule is broken: what is wrong, and what is required."""

    message: str


class Advice(NamedTuple):
    """The rule holds, but something that the specification only recommends is missing."""

    message: str


class NotApplicable(NamedTuple):
    """The inputs cannot break the rule, or cannot show whether they do."""

    reason: str


Verdict = Finding | Advice | NotApplicable | None


class Named(NamedTuple):
    """A certificate, and how messages call it."""

    name: str
    certificate: x509.Certificate


@dataclass(frozen=True)
class Evidence:
    """What is judged. `chain` is leaf first and not empty, `at` is aware, `bundle` is the one of `trust_domain`."""

    chain: tuple[x509.Certificate, ...]
    bundle: tuple[x509.Certificate, ...]
    at: datetime
    trust_domain: str | None = None
    spiffe_bundle: bytes | None = None
    private_key: PrivateKeyTypes | None = None

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that authenticates."""
        return self.chain[0]

    @property
    def signing(self) -> tuple[Named, ...]:
        """Every certificate that is there to sign others: the rest of the chain, and the trust bundle."""
        intermediates = (Named(f"chain certificate {at}", c) for at, c in enumerate(self.chain[1:], start=2))
        authorities = (Named(f"bundle certificate {at}", c) for at, c in enumerate(self.bundle, start=1))
        return (*intermediates, *authorities)

    @property
    def every(self) -> tuple[Named, ...]:
        """The leaf and all signing certificates."""
        return (Named("leaf", self.leaf), *self.signing)


@dataclass(frozen=True)
class Rule:
    """One requirement, where it is written, and the check of it."""

    id: str
    section: str
    requirement: str
    check: Callable[[Evidence], Verdict] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Result:
    """What a rule said. `message` is empty for a plain pass; on a pass it is advice, else the finding or the reason."""

    rule: Rule
    outcome: Outcome
    message: str


def judge(rule: Rule, evidence: Evidence) -> Result:
    """Apply one rule."""
    match rule.check(evidence):
        case None:
            return Result(rule, Outcome.PASS, "")
        case Advice(message):
            return Result(rule, Outcome.PASS, f"advised: {message}")
        case Finding(message):
            return Result(rule, Outcome.FAIL, message)
        case NotApplicable(reason):
            return Result(rule, Outcome.NOT_APPLICABLE, reason)


def cannot_show(reason: str) -> Callable[[Evidence], Verdict]:
    """Return the check of a rule that binds somebody else than the maker of these inputs, or permits something."""
    return lambda _evidence: NotApplicable(reason)


def quote(untrusted: str | bytes) -> str:
    """Render foreign text for a message: ASCII only, so that it cannot steer a terminal or pass for other text."""
    text = untrusted.decode(errors="surrogateescape") if isinstance(untrusted, bytes) else untrusted
    return ascii(text if len(text) <= 120 else f"{text[:117]}...")


ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[ExtensionT]) -> x509.Extension[ExtensionT] | None:
    """Return the certificate's extension of that kind, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def uri_names(certificate: x509.Certificate) -> tuple[bytes, ...]:
    """Return every URI SAN, byte for byte as it was signed (cryptography decodes it as UTF-8 and changes nothing)."""
    names = extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return ()
    return tuple(uri.encode() for uri in names.value.get_values_for_type(x509.UniformResourceIdentifier))


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether it is a signing certificate as X509-SVID §3.2 defines one: keyCertSign and cA=true."""
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    return constraints is not None and constraints.value.ca and usage is not None and usage.value.key_cert_sign
