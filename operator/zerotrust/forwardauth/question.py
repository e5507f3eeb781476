"""From what the proxy says about a request to the question of docs/reference/decisions.md.

Sources: NGINX ngx_http_auth_request_module and `$ssl_client_escaped_cert`; Traefik ForwardAuth and PassTLSClientCert.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.upstream import Upstream


class Headers(Protocol):
    """Header fields of a request, every occurrence of each."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        """The values of all fields of this name, in their order."""


class Malformed(Exception):
    """The proxy has not said what it must; the message names the header and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The headers that a proxy sets."""

    method: str
    uri: str
    certificate: str
    bare_certificate: bool
    """Whether the certificate comes as base64 without PEM's first and last lines."""


DIALECTS: Mapping[str, Dialect] = {
    "nginx": Dialect("X-Original-Method", "X-Original-URI", "X-Client-Cert", bare_certificate=False),
    "traefik": Dialect("X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Tls-Client-Cert", bare_certificate=True),
}


CREDENTIALS = ("Authorization", "X-API-Key", "X-Forwarded-Access-Token")
"""What a decision point reads of the caller's own headers: a token or a key, and the access token beside an ID token."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Reads what one proxy says; nothing else that the request holds gets into a question."""

    dialect: Dialect
    limits: Limits

    def question(self, headers: Headers, upstream: Upstream) -> dict[str, Any]:
        """OPA's input; Malformed when method or URI is missing, or anything came twice or is too large."""
        method = self._one(headers, self.dialect.method, 64)
        uri = self._one(headers, self.dialect.uri, self.limits.uri)
        if not method or not uri:
            raise Malformed(f"the proxy must set {self.dialect.uri if method else self.dialect.method}")
        certificate = self._one(headers, self.dialect.certificate, self.limits.certificate)
        request: dict[str, Any] = {"method": method, "path": uri, "port": upstream.port, "protocol": "TCP"}
        request["headers"] = self._credentials(headers)
        # The caller has proved in the handshake that it holds the certificate's key; OPA verifies who signed it.
        source = {"mtls": True, "certificate": self._pem(certificate)} if certificate else {"mtls": False}
        return {"server": str(upstream.server), "source": source, "request": request}

    def _one(self, headers: Headers, name: str, longest: int) -> str:
        values = headers.getall(name, ())
        if len(values) > 1:
            raise Malformed(f"{name} came more than once: the proxy must overwrite it, not add to it")
        value = values[0] if values else ""
        if len(value) > longest:
            raise Malformed(f"{name} is longer than {longest} characters")
        return value

    def _credentials(self, headers: Headers) -> dict[str, str]:
        """The caller's own; a header that came twice is joined and is no credential then."""
        joined = {name: ", ".join(headers.getall(name, ())) for name in CREDENTIALS}
        for name, value in joined.items():
            if len(value) > self.limits.authorization:
                raise Malformed(f"{name} is longer than {self.limits.authorization} characters")
        return {name.lower(): value for name, value in joined.items() if value}

    def _pem(self, value: str) -> str:
        if not self.dialect.bare_certificate:
            return value
        leaf = unquote(value).split(",")[0]  # before version 3 Traefik escapes it
        try:
            base64.b64decode(leaf, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed(f"{self.dialect.certificate} must be base64 without PEM's first and last lines") from None
        return f"-----BEGIN CERTIFICATE-----\n{leaf}\n-----END CERTIFICATE-----\n"
