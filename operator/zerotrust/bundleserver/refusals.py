"""Answers that are not what was asked for."""

import json

from aiohttp import web

from zerotrust.common.errors import ZerotrustError


class Refused(ZerotrustError):
    """A request that gets an error: HTTP `status`, a stable `code` for machines, a sentence, and when to come back.

    The sentence never holds anything that the client has sent as a credential. With `close` the connection ends.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int = 0, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after, self.close = status, code, retry_after, close

    def response(self) -> web.Response:
        """The answer: JSON with `code` and `message`."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="zerotrust-bundles"'
        body = json.dumps({"code": self.code, "message": str(self)}).encode()
        response = web.Response(status=self.status, body=body, headers=headers, content_type="application/json")
        if self.close:
            response.force_close()
        return response


def busy(message: str) -> Refused:
    """503: come back in a few seconds, perhaps to another replica."""
    return Refused(503, "busy", message, retry_after=5)


def unavailable(message: str) -> Refused:
    """503: it cannot be known whether this is allowed, so it is not."""
    return Refused(503, "unavailable", message, retry_after=5)
