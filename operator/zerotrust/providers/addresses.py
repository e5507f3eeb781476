"""Which addresses the controller may fetch from: whoever edits a TrustDomain must not make it ask its own network.

A name is looked up once for each connection, what comes back is judged, and the connection goes to exactly that; so a name
that changes its address between two look-ups (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from zerotrust.common.errors import ZerotrustError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LookUp = Callable[[str, int], Awaitable[list[str]]]

_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # RFC 4291 §2.4: nothing else is assigned
# RFC 3056 and RFC 4380: addresses that carry an IPv4 address, which may be a private one.
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
# Public by the registries, and never where an identity provider is: cloud providers answer with credentials there.
_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")))


class ForbiddenAddress(ZerotrustError):
    """The server is where the controller must not ask; the message names the host and not the address."""


class LookUpFailed(ZerotrustError):
    """The name has no address."""


def is_public(address: IPAddress) -> bool:
    """Tell whether an address is a unicast one of the Internet (IANA special-purpose registries, RFC 6890)."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if isinstance(address, ipaddress.IPv6Address):
        assigned = address in _GLOBAL_IPV6 and not any(address in tunnel for tunnel in _TUNNELS)
    else:
        assigned = not (address.is_multicast or address.is_reserved)
    return assigned and address.is_global and address not in _METADATA


async def system_look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedResolver(AbstractResolver):
    """Resolves names for aiohttp to addresses that are public, or in `allowed`, and to nothing else.

    One forbidden address among several refuses the name. aiohttp asks no resolver about a host that is an address; `connecting`
    judges those, and all others once more.
    """

    def __init__(self, allowed: Collection[Network] = (), look_up: LookUp = system_look_up) -> None:
        self._allowed = tuple(allowed)
        self._look_up = look_up

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's interface
    ) -> list[ResolveResult]:
        """What aiohttp connects to: numeric addresses only."""
        try:
            texts = await self._look_up(host, port)
        except OSError:
            texts = []
        if not texts:
            raise LookUpFailed(f"the name {host} has no address")
        return [_result(host, port, self._judged(host, text)) for text in texts]

    def connecting(self, to: AddrInfoType) -> socket.socket:
        """The socket for one connection, whichever way its address was found; ForbiddenAddress instead of a forbidden one."""
        family, kind, protocol, _, address = to
        self._judged("the server", str(address[0]))
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing is open."""

    def _judged(self, host: str, text: str) -> IPAddress:
        address = ipaddress.ip_address(text)
        if getattr(address, "scope_id", None) or not (is_public(address) or self._is_allowed(address)):
            _refuse(host)
        return address

    def _is_allowed(self, address: IPAddress) -> bool:
        return any(address.version == network.version and address in network for network in self._allowed)


def _refuse(host: str) -> NoReturn:
    raise ForbiddenAddress(
        f"{host} is at an address that is not public, where the controller does not fetch keys; write the keys into jwks,"
        " or allow its address range in the controller's configuration"
    )


def _result(host: str, port: int, address: IPAddress) -> ResolveResult:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=str(address), port=port, family=family, proto=0, flags=flags)
