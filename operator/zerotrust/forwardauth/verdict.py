"""From OPA's answer to the one for the proxy: only `allowed == true` allows, and what cannot be read is unknown."""

import json
import re
from dataclasses import dataclass
from typing import Any

from aiohttp import web

_REASON = re.compile(r"[a-z_]{1,64}")
DENIALS = frozenset({400, 401, 403, 503})
UNAVAILABLE = "unavailable"


class Unknown(Exception):
    """Nobody can say whether the request is allowed; `why` is one of a few words and quotes nothing."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Verdict:
    """HTTP status for the proxy, 204 for an allow, and the reason: `[a-z_]+`."""

    status: int
    reason: str

    @property
    def headers(self) -> dict[str, str]:
        """What is said beside the status."""
        if self.status == 204:
            return {}
        told = {"x-zerotrust-reason": self.reason}
        if self.status == 401:
            # RFC 9110 §11.6.1 wants a challenge, and mutual TLS has none (RFC 6750 §3 for a token that is no good).
            told["WWW-Authenticate"] = 'Bearer realm="zerotrust"' + (
                "" if self.reason == "no_identity" else ', error="invalid_token"'
            )
        return told

    def response(self) -> web.Response:
        """The answer for the proxy; Traefik passes all of a denial on to the caller."""
        return web.Response(
            status=self.status, headers={**self.headers, "Cache-Control": "no-store", "Server": "zerotrust"}
        )


MALFORMED = Verdict(400, "malformed_request")
CANNOT_KNOW = Verdict(503, UNAVAILABLE)


def read(body: bytes) -> Verdict:
    """Read the body of OPA's answer; Unknown when it is not the contract's, or contradicts itself."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Unknown("malformed_answer") from None
    if not isinstance(document, dict):
        raise Unknown("malformed_answer")
    result = document.get("result")
    if result is None:
        raise Unknown("no_result")
    if not isinstance(result, dict):
        raise Unknown("malformed_answer")
    allowed, status, reason = result.get("allowed"), result.get("status"), result.get("reason")
    if type(status) is not int or not isinstance(reason, str) or not _REASON.fullmatch(reason):
        raise Unknown("malformed_answer")
    if allowed is True and status == 200:
        return Verdict(204, reason)
    if allowed is False and status in DENIALS:
        return Verdict(status, reason)
    raise Unknown("malformed_answer")
