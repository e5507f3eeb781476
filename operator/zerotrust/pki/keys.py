"""Private keys: which algorithms there are, how a key is made, written and compared.

Keys are PKCS#8 (RFC 5958), certificates carry SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
"""

from collections.abc import Callable
from typing import Literal, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

KeyAlgorithm = Literal["ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096"]
ALGORITHMS: tuple[KeyAlgorithm, ...] = get_args(KeyAlgorithm)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_GENERATORS: dict[str, Callable[[], PrivateKey]] = {
    "ECDSA-P256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECDSA-P384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-3072": lambda: rsa.generate_private_key(65537, 3072),
    "RSA-4096": lambda: rsa.generate_private_key(65537, 4096),
}


class UnreadableKey(ValueError):
    """The bytes are not an unencrypted private key of a supported kind; the message never quotes them."""


def generate(algorithm: KeyAlgorithm) -> PrivateKey:
    """Make a new key from the operating system's randomness; RSA takes 50 ms and more, ECDSA less than 0.1 ms."""
    return _GENERATORS[algorithm]()


def is_slow(algorithm: str) -> bool:
    """Tell whether making a key takes so long that it must not run on the event loop."""
    return algorithm.startswith("RSA")


def algorithm_of(key: object) -> str:
    """Name a public key's algorithm in the vocabulary of `KeyAlgorithm`; something else gives its class's name."""
    match key:
        case ec.EllipticCurvePublicKey():
            return f"ECDSA-P{key.curve.key_size}"
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case _:
            return type(key).__name__


def to_pkcs8(key: PrivateKey) -> bytes:
    """Write the key as unencrypted PKCS#8 PEM, for a Secret's `tls.key` and for nothing else."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def from_pem(pem: bytes) -> PrivateKey:
    """Read an unencrypted private key; UnreadableKey says why it cannot be used."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnreadableKey("tls.key is not an unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UnreadableKey("tls.key must hold an ECDSA or RSA key")
    return key


def spki(public_key: PublicKey) -> bytes:
    """The key's DER SubjectPublicKeyInfo: two keys are the same exactly when these bytes are."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def belongs_to(key: PrivateKey, certificate: x509.Certificate) -> bool:
    """Tell whether the certificate certifies this key."""
    return key.public_key() == certificate.public_key()


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that fits a signing key: SHA-384 for P-384, SHA-256 otherwise (RFC 5656 §6.2.1's pairing)."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()
