"""Who is protected: servers by the name in the path that the proxy's own configuration asks at."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zerotrust.common.errors import ZerotrustError
from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


class InvalidUpstream(ZerotrustError):
    """A server cannot be used as it was given; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server and the port of its pod that policies speak of. `name` is empty for the one at `/auth`."""

    name: str
    server: SpiffeID
    port: int

    @classmethod
    def parse(cls, text: str) -> "Upstream":
        """Read `[NAME=]SPIFFE_ID:PORT`; InvalidUpstream says what is wrong with it."""
        name, separator, rest = text.partition("=")
        if not separator:
            name, rest = "", text
        elif not _NAME.fullmatch(name):
            raise InvalidUpstream(f"the name in {text!r} must be lower-case letters, digits and dashes, at most 63")
        identity, _, port = rest.rpartition(":")
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise InvalidUpstream(f"{text!r} must end in :<port of the pod>, from 1 to 65535")
        try:
            server = SpiffeID.parse(identity)
        except InvalidSpiffeID as error:
            raise InvalidUpstream(f"{text!r} must be [NAME=]SPIFFE_ID:PORT: {error}") from None
        if not server.path:
            raise InvalidUpstream(
                f"{text!r} names a trust domain; write spiffe://<trust domain>/ns/<ns>/sa/<sa>:<port>"
            )
        return cls(name, server, int(port))


def by_name(upstreams: Iterable[Upstream]) -> Mapping[str, Upstream]:
    """Index upstreams by their name; InvalidUpstream where two have the same or there is none."""
    found: dict[str, Upstream] = {}
    for one in upstreams:
        if one.name in found:
            raise InvalidUpstream(
                f"two servers are called {one.name!r}; give each a name of its own: NAME=SPIFFE_ID:PORT"
            )
        found[one.name] = one
    if not found:
        raise InvalidUpstream("name at least one server: [NAME=]SPIFFE_ID:PORT")
    return found
