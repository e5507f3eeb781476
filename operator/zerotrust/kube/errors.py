"""What the API server can answer, as types; messages never hold an object's content."""

from datetime import timedelta

from zerotrust.common.errors import ZerotrustError


class KubeError(ZerotrustError):
    """A request failed; `code` is the HTTP status, 0 when the server was not reached."""

    code = 0

    def __init__(self, message: str, *, code: int = 0, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class Unreachable(KubeError):
    """No answer: connection refused, cut or timed out. A write may or may not have been carried out."""


class NotFound(KubeError):
    """404: the object, its namespace or its kind does not exist."""


class AlreadyExists(KubeError):
    """409 to a create."""


class Conflict(KubeError):
    """409 to an update: somebody else was faster; read again and decide anew."""


class Gone(KubeError):
    """410: the resourceVersion or the continue token is too old; list again."""


class Forbidden(KubeError):
    """403 or 401: the operator's role does not allow it."""


class Invalid(KubeError):
    """422 or 400: the API server refuses the object as it stands."""


class Throttled(KubeError):
    """429: too many requests; `retry_after` says when to come back."""


class ServerError(KubeError):
    """5xx."""


def error_of(
    code: int, reason: str, message: str, request: str, *, creating: bool, retry_after: timedelta | None = None
) -> KubeError:
    """Return the typed error for an answer of the API server; `request` says what was asked, without content."""
    kinds: dict[int, type[KubeError]] = {
        400: Invalid, 401: Forbidden, 403: Forbidden, 404: NotFound, 410: Gone, 422: Invalid, 429: Throttled,
        409: AlreadyExists if creating and reason == "AlreadyExists" else Conflict,
    }  # fmt: skip
    kind = kinds.get(code, ServerError if code >= 500 else KubeError)
    return kind(f"{request}: {code} {reason or 'error'}: {message[:300]}", code=code, retry_after=retry_after)
