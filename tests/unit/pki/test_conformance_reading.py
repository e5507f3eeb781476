"""Reading PEM that somebody else made: everything in it is judged, or nothing is."""

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import an_svid, key_pem, new_key, pem
from zerotrust.pki.conformance import UnreadableInput, read_certificates, read_private_key

HEADER = b"-----BEGIN CERTIFICATE-----\n"
FOOTER = b"-----END CERTIFICATE-----\n"


def test_certificates_are_read_in_order_and_text_around_them_is_ignored() -> None:
    svid = an_svid()
    text = b"# the leaf\n" + pem(svid.chain[0]) + b"\n# the rest\n" + pem(svid.chain[1])
    assert read_certificates("chain.pem", text) == svid.chain


def test_as_many_certificates_are_read_as_a_bundle_may_hold() -> None:
    assert len(read_certificates("bundle.pem", pem(an_svid().bundle[0]) * 100)) == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "tls.crt: holds no PEM certificate"),
        (b"hello", "holds no PEM certificate"),
        (HEADER + b"!!!!\n" + FOOTER, "damaged or cut short"),
        (HEADER + b"AAAA\n" + FOOTER, "damaged or cut short"),
        (pem(an_svid().chain[0])[:200], "damaged or cut short"),
        (pem(*an_svid().chain)[:-30], "damaged or cut short"),
        (pem(an_svid().chain[0]) * 101, "holds 101 certificates; at most 100 are read"),
        (b"x" * (4 * 2**20 + 1), "at most 4194304 are read"),
        (b"\x00\xff" * 10, "holds no PEM certificate"),
    ],
)
def test_what_cannot_be_read_is_said(text: bytes, words: str) -> None:
    with pytest.raises(UnreadableInput) as refused:
        read_certificates("tls.crt", text)
    assert words in str(refused.value)


def test_every_form_of_a_private_key_is_read() -> None:
    key = new_key()
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        assert read_private_key("tls.key", text).public_key() == key.public_key()


def test_a_damaged_key_is_not_quoted() -> None:
    text = key_pem(new_key())
    secret = text.splitlines()[2]
    with pytest.raises(UnreadableInput) as refused:
        read_private_key("tls.key", text.replace(secret[:8], b"????????"))
    assert str(refused.value) == "tls.key: holds no readable PEM private key; give PKCS#8, PKCS#1 or SEC 1"
    assert refused.value.__cause__ is None


def test_an_encrypted_key_is_said_to_be_encrypted() -> None:
    text = new_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(UnreadableInput, match="give it unencrypted"):
        read_private_key("tls.key", text)
