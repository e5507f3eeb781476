"""Reading certificates and keys that somebody else made: bounded, and with errors that say what to give instead."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_BYTES = 4 * 1024 * 1024
MAX_CHAIN = 10
MAX_BUNDLE = 100

# What cryptography raises for a certificate, or a part of one, that it cannot parse.
UNPARSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


class UnreadableInput(ValueError):
    """An input that cannot be judged at all; the message names it and says what to give. It never quotes the input."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source


def read_certificates(source: str, pem: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM text in their order; `source` is what messages call it.

    Every block must be readable: one that is skipped would be a certificate that nobody judged.
    """
    check_size(source, pem)
    announced = pem.count(_BEGIN_CERTIFICATE)
    if not announced:
        raise UnreadableInput(source, "holds no PEM certificate; give text with -----BEGIN CERTIFICATE-----")
    if announced > MAX_BUNDLE:
        raise UnreadableInput(source, f"holds {announced} certificates; at most {MAX_BUNDLE} are read")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except UNPARSABLE:
        raise UnreadableInput(source, "holds a PEM certificate that is damaged or cut short") from None
    if len(certificates) != announced:
        raise UnreadableInput(
            source, f"only {len(certificates)} of {announced} PEM certificates can be read; one is damaged or cut short"
        )
    for at, certificate in enumerate(certificates, start=1):
        check_readable(f"{source}, certificate {at}", certificate)
    return tuple(certificates)


def check_readable(source: str, certificate: x509.Certificate) -> None:
    """Make sure that no rule meets a part that cannot be parsed: cryptography parses most of them when asked for."""
    try:
        certificate.extensions  # noqa: B018
        certificate.public_key()
        certificate.subject  # noqa: B018
        certificate.issuer  # noqa: B018
    except x509.DuplicateExtension as error:
        raise UnreadableInput(source, f"has the extension {error.oid.dotted_string} twice") from None
    except UNPARSABLE:
        raise UnreadableInput(source, "has a name, key or extension that is malformed or of an unknown kind") from None


def read_private_key(source: str, pem: bytes) -> PrivateKeyTypes:
    """Return the private key of a PEM text. No message quotes the text, nor what the parser says about it."""
    check_size(source, pem)
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise UnreadableInput(source, "holds an encrypted private key; give it unencrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnreadableInput(source, "holds no readable PEM private key; give PKCS#8, PKCS#1 or SEC 1") from None


def check_size(source: str, content: bytes) -> None:
    """Refuse what is too large to be what it claims, before anything parses it."""
    if len(content) > MAX_BYTES:
        raise UnreadableInput(source, f"has {len(content)} bytes; at most {MAX_BYTES} are read")
