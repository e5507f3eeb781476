"""What a Certificate asks for that no SVID can be: field by field, with the reason and what to do instead."""

from collections.abc import Collection, Iterator

from zerotrust.importing.cert_manager import CertificateSpec
from zerotrust.importing.domain import Domain
from zerotrust.pki.keys import ALGORITHMS, KeyAlgorithm
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload

AUTHORITIES = ("ca", "selfSigned")
Item = tuple[str, str, str]  # path, why, instead

# What an SVID has anyway, and what TLS needs no more: RSA key transport went with TLS 1.3 (RFC 8446 §1.2).
USAGES = ("digital signature", "signing", "key encipherment", "key agreement", "server auth", "client auth")
_SIZES = {"RSA": 2048, "ECDSA": 256}

_NEVER = {
    "additionalOutputFormats": ("a Secret has PEM files only", "let the pod join or convert tls.crt and tls.key"),
    "emailAddresses": ("an SVID names no mailbox", "keep this Certificate where mail addresses are needed"),
    "ipAddresses": (
        "an SVID names no address, because addresses move",
        "verify the SPIFFE ID, or ask for a Service's name",
    ),
    "literalSubject": ("an SVID has no subject", "verify the SPIFFE ID instead of the subject"),
    "nameConstraints": ("belongs to authorities only", "leave it out"),
    "otherNames": ("an SVID has one URI and DNS names only", "keep this Certificate where other names are needed"),
    "signatureAlgorithm": ("follows from the authority's key", "leave it out"),
    "subject": ("an SVID has no subject", "verify the SPIFFE ID instead of the subject"),
}


def asked(spec: CertificateSpec, domain: Domain, owners: Collection[Workload]) -> Iterator[Item]:
    """Yield what is not expressible, where the pods of these ServiceAccounts use the certificate."""
    for name, value in sorted(spec.others.items()):
        why, instead = _NEVER.get(
            name, ("is not known to this version", "see what it is for, and keep this Certificate")
        )
        paths = (
            [f"spec.{name}[{number}]" for number in range(len(value))] if isinstance(value, list) else [f"spec.{name}"]
        )
        for path in paths:
            yield path, why, instead
    yield from _names(spec, domain, owners)
    for number, usage in enumerate(spec.usages):
        if usage not in USAGES:
            yield f"spec.usages[{number}]", f"an SVID is for TLS only, not for {usage}", "keep a Certificate for that"
    yield from _key(spec)
    if spec.keystores.jks is not None and spec.keystores.jks.create:
        yield "spec.keystores.jks", "there is no Java keystore", "let the pod read PEM, or make one at its start"
    if spec.keystores.pkcs12 is not None and spec.keystores.pkcs12.create:
        yield "spec.keystores.pkcs12", "PKCS12 is not written in this version", "let the pod read PEM"


def _names(spec: CertificateSpec, domain: Domain, owners: Collection[Workload]) -> Iterator[Item]:
    namespace = next(iter(owners)).namespace
    own = f"<service>.{namespace}.svc"
    for number, name in enumerate(spec.dns_names):
        if not is_own_service(name, namespace):
            instead = f"let clients call {own}, or verify the SPIFFE ID"
            yield f"spec.dnsNames[{number}]", f"{name} is not {own} or {own}.cluster.local", instead
    if spec.common_name and spec.common_name not in spec.dns_names:
        yield "spec.commonName", "an SVID has no subject", "verify the SPIFFE ID or a DNS name"
    cluster = domain.spec.cluster_name
    derived = [str(SpiffeID.of_service_account(domain.name, *owner, cluster)) for owner in owners]
    for number, uri in enumerate(spec.uris):
        if [uri] != derived:
            why = f"{uri} is not {' and '.join(derived)}, which is derived and cannot be chosen"
            yield f"spec.uris[{number}]", why, "let peers expect the derived SPIFFE ID"


def is_own_service(name: str, namespace: str) -> bool:
    """Whether a DNS name is that of a Service of the namespace, as an SVID can have it."""
    return name.removesuffix(".cluster.local").split(".")[1:] == [namespace, "svc"] and "*" not in name


def _key(spec: CertificateSpec) -> Iterator[Item]:
    if spec.private_key.encoding == "PKCS1":
        yield "spec.privateKey.encoding", "keys are PKCS#8", "nothing, if the program's library reads PKCS#8; most do"
    name = key_name(spec)
    if name and name not in ALGORITHMS:
        why = f"{name} is none of {', '.join(ALGORITHMS)}"
        yield "spec.privateKey", why, "choose one of these, or take the default of the TrustDomain"


def key_name(spec: CertificateSpec) -> str:
    """The kind of key that is asked for, empty where none is."""
    key = spec.private_key
    if key.algorithm is None and key.size is None:
        return ""
    algorithm = key.algorithm or "RSA"
    size = key.size or _SIZES.get(algorithm)
    if algorithm == "ECDSA":
        return f"ECDSA-P{size}"
    return f"{algorithm}-{size}" if size else algorithm


def key_algorithm(spec: CertificateSpec) -> KeyAlgorithm | None:
    """The same, where a ServiceIdentity can ask for it."""
    name = key_name(spec)
    return name if name in ALGORITHMS else None
