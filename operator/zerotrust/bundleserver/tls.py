"""The server's own SVID and whom it trusts, reloaded while it runs.

Each connection gets the context that is current when it is accepted. An `SSLContext` cannot forget an authority, so
every change makes a new one; connections that are open keep theirs. Session tickets are off, because a resumed session
would skip the verification against the present trust bundle.
"""

import asyncio
import hashlib
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from zerotrust.bundleserver.caller import NotACredential, PeerCertificate
from zerotrust.common.errors import ZerotrustError

logger = logging.getLogger(__name__)

CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"


class UnusableMaterial(ZerotrustError):
    """Certificate, key or trust bundle cannot be used; the message names the part and quotes nothing of it."""


@dataclass(frozen=True)
class TlsMaterial:
    """PEM: the server's certificate with its intermediates, its key, and the authorities that clients are verified by."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def __repr__(self) -> str:
        return "TlsMaterial(…)"

    @property
    def digest(self) -> bytes:
        """Tells whether anything has changed."""
        parts = (self.certificate, self.key, self.authorities)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


class TlsSource(Protocol):
    """Where the material comes from."""

    def load(self) -> TlsMaterial:
        """The material as it is now; UnusableMaterial when a part is missing."""


@dataclass(frozen=True)
class TlsFiles:
    """Material from files, as a mounted Secret shows them."""

    certificate: Path
    key: Path
    authorities: Path

    def load(self) -> TlsMaterial:
        """Read the three files; a mixture of old and new ones is noticed later, because its key does not match."""
        try:
            return TlsMaterial(self.certificate.read_bytes(), self.key.read_bytes(), self.authorities.read_bytes())
        except OSError as error:
            raise UnusableMaterial(f"{error.filename}: {error.strerror}") from None


@dataclass(frozen=True)
class TlsSecret:
    """Material from a Secret's data, already decoded: `tls.crt`, `tls.key` and `ca.crt`."""

    data: Callable[[], Mapping[str, bytes] | None]

    def load(self) -> TlsMaterial:
        """Take the three keys of the Secret."""
        found = self.data() or {}
        missing = [name for name in (CERTIFICATE, KEY, AUTHORITIES) if not found.get(name)]
        if missing:
            raise UnusableMaterial(f"the Secret with the server's SVID lacks {', '.join(missing)}")
        return TlsMaterial(found[CERTIFICATE], found[KEY], found[AUTHORITIES])


@dataclass(frozen=True)
class Presentation:
    """What one generation of the material makes: a context for new connections, and who can be verified with it."""

    context: ssl.SSLContext
    digest: bytes
    trust_domain: str
    authorities: frozenset[bytes]


class TlsIdentity:
    """The current presentation. `reload` replaces it only by one that works; the last good one stays otherwise.

    `on_distrust` is called with the fingerprints of authorities that are gone: connections that were authenticated while
    they were trusted must not go on.
    """

    def __init__(self, source: TlsSource, on_distrust: Callable[[frozenset[bytes]], None] = lambda _: None) -> None:
        self._source, self.on_distrust = source, on_distrust
        self.current = _present(source.load())
        self.failures = 0

    def reload(self) -> bool:
        """Look at the source again; whether something new is in use now. A defect is logged and counted."""
        try:
            material = self._source.load()
            if material.digest == self.current.digest:
                return False
            fresh = _present(material)
            if fresh.trust_domain != self.current.trust_domain:
                raise UnusableMaterial(f"tls.crt is of trust domain {fresh.trust_domain}: restart the server for that")
        except UnusableMaterial as error:
            self.failures += 1
            logger.warning("the server's SVID was not reloaded: %s", error)
            return False
        gone = self.current.authorities - fresh.authorities
        self.current = fresh
        logger.info("the server's SVID or its trust bundle was reloaded")
        if gone:
            self.on_distrust(gone)
        return True

    async def watch(self, period: float) -> None:
        """Reload every `period` seconds until cancelled."""
        while True:
            await asyncio.sleep(period)
            self.reload()


def _present(material: TlsMaterial) -> Presentation:
    try:
        leaf = x509.load_pem_x509_certificates(material.certificate)[0]
        own = PeerCertificate.parse(leaf.public_bytes(serialization.Encoding.DER))
    except (ValueError, IndexError, NotACredential):
        raise UnusableMaterial("tls.crt is no X.509-SVID in PEM") from None
    try:
        authorities = x509.load_pem_x509_certificates(material.authorities)
    except ValueError:
        raise UnusableMaterial("ca.crt has no certificates in PEM") from None
    fingerprints = frozenset(authority.fingerprint(hashes.SHA256()) for authority in authorities)
    return Presentation(_context(material), material.digest, own.spiffe_id.trust_domain, fingerprints)


def _context(material: TlsMaterial) -> ssl.SSLContext:
    """TLS 1.3 only; a client certificate is asked for, and verified if there is one (CERT_OPTIONAL)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _readable(material.certificate) as certificate, _readable(material.key) as key:
            context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError):
        raise UnusableMaterial("tls.key is not the key of tls.crt, or one of them is no PEM") from None
    try:
        context.load_verify_locations(cadata=material.authorities.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise UnusableMaterial("ca.crt has no usable certificates in PEM") from None
    context.verify_mode = ssl.CERT_OPTIONAL
    # Every certificate of a trust bundle is an anchor, also one that another authority has signed (SPIFFE bundle §4).
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """A path under which OpenSSL can read the content: in memory where the system can, else a private file."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
