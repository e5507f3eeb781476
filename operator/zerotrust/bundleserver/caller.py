"""Who is calling: what a client certificate or the API server says, and nothing that the request's body claims."""

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from cryptography import x509

from zerotrust.common.errors import ZerotrustError
from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID

AUDIENCE = "zerotrust-bundles"
MAX_TOKEN = 8192
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
_ACCOUNT_PREFIX = "system:serviceaccount:"


class NotACredential(ZerotrustError):
    """The certificate or token cannot be anybody's; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A ServiceAccount in its namespace."""

    namespace: str
    service_account: str

    @property
    def user(self) -> str:
        """Its name for the API server."""
        return f"{_ACCOUNT_PREFIX}{self.namespace}:{self.service_account}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A user as the API server knows it; `extra` in the order of its names."""

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def sole(self, name: str) -> str:
        """The value of an extra that has exactly one, else nothing."""
        values = dict(self.extra).get(name, ())
        return values[0] if len(values) == 1 else ""

    @property
    def workload(self) -> Workload | None:
        """The ServiceAccount that this is, if it is one."""
        namespace, _, account = self.user.removeprefix(_ACCOUNT_PREFIX).partition(":")
        is_account = self.user.startswith(_ACCOUNT_PREFIX) and namespace and account and ":" not in account
        return Workload(namespace, account) if is_account else None


def subject_of(workload: Workload) -> Subject:
    """The subject that the API server would make of a ServiceAccount's token."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{workload.namespace}", "system:authenticated")
    return Subject(workload.user, groups=groups)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client; `pod` and `pod_uid` only with a token that is bound to a pod, `spiffe_id` with an SVID.

    `valid_until` is when the credential itself ends.
    """

    subject: Subject
    valid_until: datetime
    pod: str = ""
    pod_uid: str = ""
    spiffe_id: SpiffeID | None = None

    @property
    def workload(self) -> Workload | None:
        """The ServiceAccount that calls, if it is one."""
        return self.subject.workload

    @property
    def client(self) -> str:
        """What limits count by: the pod where it is known, else the user."""
        return self.pod_uid or self.subject.user


class IdentityResolver(Protocol):
    """Knows which SPIFFE IDs are ours."""

    def resolve(self, spiffe_id: SpiffeID, issued_at: datetime) -> Workload | None:
        """Whose ID this is; None when it is not ours, or when certificates from before then are revoked."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What we need of a client's SVID, whose chain the TLS layer has verified."""

    spiffe_id: SpiffeID
    not_before: datetime
    not_after: datetime

    @classmethod
    def parse(cls, der: bytes) -> "PeerCertificate":
        """Read a leaf: exactly one URI, a SPIFFE ID with a path, and no authority (X509-SVID §2 and §4.1)."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            constraints = [one.value for one in certificate.extensions if isinstance(one.value, x509.BasicConstraints)]
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
            raise NotACredential("the client certificate cannot be read as an X.509-SVID") from None
        if any(constraint.ca for constraint in constraints):
            raise NotACredential("the client certificate is an authority's, not a workload's")
        if len(uris) != 1:
            raise NotACredential("the client certificate must have exactly one URI name, its SPIFFE ID")
        try:
            spiffe_id = SpiffeID.parse(uris[0])
        except InvalidSpiffeID as error:
            raise NotACredential(f"the client certificate's URI name is no SPIFFE ID: {error}") from None
        if not spiffe_id.path:
            raise NotACredential("the client certificate names a trust domain, not a workload")
        return cls(spiffe_id, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def token_of(authorization: str) -> str:
    """The token of an Authorization header; NotACredential for any other scheme."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotACredential("the Authorization header must be: Bearer <token>")
    return token.strip()


def expiry_of(token: str, audience: str, now: datetime) -> datetime:
    """When a ServiceAccount token ends, read without verifying it; NotACredential when it is not worth a question.

    The API server verifies the signature; this only spares it what cannot be right: no JWT, too long, expired, or for
    another audience.
    """
    if len(token) > MAX_TOKEN:
        raise NotACredential(f"the token is longer than {MAX_TOKEN} characters")
    claims = _claims(token)
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise NotACredential(f"the token is not for the audience {audience}")
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int) or not 0 < expiry < 2**40:
        raise NotACredential("the token has no expiry")
    try:
        moment = datetime.fromtimestamp(expiry, UTC)
    except (ValueError, OverflowError, OSError):
        raise NotACredential("the token's expiry is no date") from None
    if moment <= now:
        raise NotACredential("the token has expired")
    return moment


def _claims(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) == 3 and token.isascii():
        try:
            claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            claims = None
        if isinstance(claims, dict):
            return claims
    raise NotACredential("the token is no ServiceAccount token")
