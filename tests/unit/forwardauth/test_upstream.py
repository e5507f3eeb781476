"""Which servers are protected, as the command line names them."""

import pytest

from zerotrust.forwardauth.decision_point import InvalidAddress, checked
from zerotrust.forwardauth.upstream import InvalidUpstream, Upstream, by_name

ORDERS = "spiffe://example.org/ns/shop/sa/orders"


def test_a_server_may_have_a_name() -> None:
    plain, named = Upstream.parse(f"{ORDERS}:8443"), Upstream.parse(f"orders-2={ORDERS}:1")
    assert (plain.name, str(plain.server), plain.port) == ("", ORDERS, 8443)
    assert (named.name, str(named.server), named.port) == ("orders-2", ORDERS, 1)
    assert by_name([plain, named]) == {"": plain, "orders-2": named}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ORDERS, "must end in :<port"),
        (f"{ORDERS}:0", "must end in :<port"),
        (f"{ORDERS}:65536", "must end in :<port"),
        (f"{ORDERS}:٣", "must end in :<port"),
        (f"{ORDERS}:+1", "must end in :<port"),
        ("https://example.org/a:1", "starts with spiffe://"),
        ("spiffe://example.org:1", "names a trust domain"),
        (f"{ORDERS}/:1", "not empty"),
        (f"{ORDERS}/../x:1", "path segments"),
        (f"={ORDERS}:1", "the name in"),
        (f"Orders={ORDERS}:1", "the name in"),
        (f"a/b={ORDERS}:1", "the name in"),
        ("", "must end in"),
    ],
)
def test_what_cannot_be_used_is_told(text: str, says: str) -> None:
    with pytest.raises(InvalidUpstream, match=says):
        Upstream.parse(text)


def test_names_are_unique_and_there_is_one() -> None:
    with pytest.raises(InvalidUpstream, match="two servers"):
        by_name([Upstream.parse(f"{ORDERS}:1"), Upstream.parse(f"{ORDERS}:2")])
    with pytest.raises(InvalidUpstream, match="at least one"):
        by_name([])


@pytest.mark.parametrize("url", ["http://127.0.0.1:8181", "http://127.0.0.1:8181/", "http://[::1]:8181"])
def test_opa_is_on_loopback(url: str) -> None:
    assert checked(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8181",
        "https://127.0.0.1:8181",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://opa:8181",
        "http://192.0.2.1:8181",
        "http://user@127.0.0.1:8181",
        "http://127.0.0.1:8181/v1",
        "http://127.0.0.1:8181?a",
        "http://[::1:8181",
    ],
)
def test_opa_is_nowhere_else(url: str) -> None:
    with pytest.raises(InvalidAddress, match="must be at http://<loopback"):
        checked(url)
