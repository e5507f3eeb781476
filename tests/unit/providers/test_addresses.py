"""Which addresses keys are fetched from."""

import ipaddress

import pytest

from zerotrust.providers.addresses import ForbiddenAddress, GuardedResolver, is_public

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
FORBIDDEN = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "100.64.0.1", "169.254.169.254", "169.254.20.10", "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_the_internet_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", FORBIDDEN)
def test_special_addresses_are_not(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [*FORBIDDEN, "fe80::1%eth0"])
async def test_names_at_special_addresses_are_refused(text: str) -> None:
    async def look_up(_host: str, _port: int) -> list[str]:
        return [text]

    with pytest.raises(ForbiddenAddress, match=r"^login\.example\.org is at") as refusal:
        await GuardedResolver(look_up=look_up).resolve("login.example.org", 443)
    assert text not in str(refusal.value)


async def test_the_range_that_is_allowed_and_no_other() -> None:
    async def look_up(host: str, _port: int) -> list[str]:
        return [host]

    resolver = GuardedResolver([ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")], look_up)
    for host in ("10.1.2.3", "fd00:1::5"):
        assert [one["host"] for one in await resolver.resolve(host, 443)] == [host]
    for host in ("10.2.0.1", "fd00:2::5", "127.0.0.1"):
        with pytest.raises(ForbiddenAddress):
            await resolver.resolve(host, 443)
