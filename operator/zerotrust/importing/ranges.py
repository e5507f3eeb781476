"""Address ranges without some parts, as ranges that need no `except`."""

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from zerotrust.common.resource import is_address_range

Network = IPv4Network | IPv6Network
MAX_RANGES = 64


def ranges(cidr: str, without: tuple[str, ...]) -> list[str]:
    """Return ranges that together are `cidr` without the others; ValueError says why there are none."""
    if not is_address_range(cidr) or not all(is_address_range(one) for one in without):
        raise ValueError("is no address range that can be read")
    left: list[Network] = [ip_network(cidr, strict=False)]
    for text in without:
        hole = ip_network(text, strict=False)
        left = [rest for one in left for rest in _minus(one, hole)]
        if len(left) > MAX_RANGES:
            raise ValueError(f"has more than {MAX_RANGES} parts without its exceptions")
    if not left:
        raise ValueError("has no address without its exceptions")
    return [str(one) for one in sorted(collapse_addresses(left))]  # type: ignore[type-var]


def _minus(one: Network, hole: Network) -> list[Network]:
    if one.version != hole.version or not one.overlaps(hole):
        return [one]
    if hole.supernet_of(one):  # type: ignore[arg-type]
        return []
    return list(one.address_exclude(hole))  # type: ignore[arg-type]
