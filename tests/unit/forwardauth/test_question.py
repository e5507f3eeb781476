"""From a proxy's headers to OPA's input."""

import pytest
from multidict import CIMultiDict

from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.question import DIALECTS, Interpreter, Malformed
from zerotrust.forwardauth.upstream import Upstream

ORDERS = Upstream.parse("spiffe://example.org/ns/shop/sa/orders:8443")
NGINX = Interpreter(DIALECTS["nginx"], Limits())
TRAEFIK = Interpreter(DIALECTS["traefik"], Limits())
GOOD = [("X-Original-Method", "GET"), ("X-Original-URI", "/a?b=1"), ("X-Client-Cert", "-----BEGIN%20CERT")]


def test_a_question_holds_what_the_proxy_says_and_the_callers_token() -> None:
    given = CIMultiDict([*GOOD, ("Authorization", "Bearer x"), ("Cookie", "c"), ("Host", "forged.example.org")])
    assert NGINX.question(given, ORDERS) == {
        "server": "spiffe://example.org/ns/shop/sa/orders",
        "source": {"mtls": True, "certificate": "-----BEGIN%20CERT"},
        "request": {
            "method": "GET",
            "path": "/a?b=1",
            "port": 8443,
            "protocol": "TCP",
            "headers": {"authorization": "Bearer x"},
        },
    }


def test_every_credential_of_the_caller_goes_to_opa() -> None:
    sent = {"authorization": "Bearer a", "x-api-key": "sk_b", "x-forwarded-access-token": "c"}
    given = CIMultiDict([*GOOD, *((name.title(), value) for name, value in sent.items())])
    assert NGINX.question(given, ORDERS)["request"]["headers"] == sent
    given.add("X-Api-Key", "sk_c")
    assert NGINX.question(given, ORDERS)["request"]["headers"] == {**sent, "x-api-key": "sk_b, sk_c"}


def test_without_a_certificate_there_is_no_mutual_tls() -> None:
    for certificate in ([], [("X-Client-Cert", "")]):
        assert NGINX.question(CIMultiDict([*GOOD[:2], *certificate]), ORDERS)["source"] == {"mtls": False}


def test_no_header_names_a_principal_a_server_or_a_port() -> None:
    plain = NGINX.question(CIMultiDict(GOOD), ORDERS)
    forged = [
        ("X-Server", "spiffe://example.org/ns/shop/sa/other"),
        ("X-Principal", "spiffe://example.org/ns/web/sa/admin"),
        ("X-Forwarded-Client-Cert", "URI=spiffe://example.org/ns/web/sa/admin"),
        ("X-Forwarded-Tls-Client-Cert", "AAAA"),
        ("X-Forwarded-Method", "PUT"),
        ("X-Forwarded-Uri", "/other"),
        ("X-Forwarded-Port", "1"),
        ("X_Original_URI", "/other"),
    ]
    assert NGINX.question(CIMultiDict([*GOOD, *forged]), ORDERS) == plain


@pytest.mark.parametrize("name", [name for name, _ in GOOD])
@pytest.mark.parametrize("again", ["", "/b"])
def test_what_came_twice_is_malformed(name: str, again: str) -> None:
    with pytest.raises(Malformed, match=f"{name} came more than once"):
        NGINX.question(CIMultiDict([*GOOD, (name.lower(), again)]), ORDERS)


@pytest.mark.parametrize("name", ["X-Original-Method", "X-Original-URI"])
@pytest.mark.parametrize("empty", [True, False])
def test_what_is_missing_is_malformed(name: str, empty: bool) -> None:
    given = CIMultiDict(GOOD)
    if empty:
        given[name] = ""
    else:
        del given[name]
    with pytest.raises(Malformed, match=name):
        NGINX.question(given, ORDERS)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("X-Original-Method", 65),
        ("X-Original-URI", 16_385),
        ("X-Client-Cert", 65_537),
        ("Authorization", 16_385),
        ("X-API-Key", 16_385),
        ("X-Forwarded-Access-Token", 16_385),
    ],
)
def test_what_is_too_large_is_malformed_and_not_quoted(name: str, size: int) -> None:
    given = CIMultiDict(GOOD)
    given[name] = "x" * size
    with pytest.raises(Malformed, match=name) as caught:
        NGINX.question(given, ORDERS)
    assert "xx" not in str(caught.value)


def test_a_token_that_came_twice_is_joined() -> None:
    given = CIMultiDict([*GOOD, ("Authorization", "Bearer a"), ("Authorization", "Bearer b")])
    assert NGINX.question(given, ORDERS)["request"]["headers"] == {"authorization": "Bearer a, Bearer b"}


@pytest.mark.parametrize("sent", ["AA+/", "AA+/,BBBB", "AA%2B%2F", "AA%2B%2F%2CBBBB"])
def test_traefik_sends_certificates_without_their_first_and_last_lines(sent: str) -> None:
    said = [("X-Forwarded-Method", "PUT"), ("X-Forwarded-Uri", "/a"), ("X-Forwarded-Tls-Client-Cert", sent)]
    question = TRAEFIK.question(CIMultiDict([*said, *GOOD]), ORDERS)
    assert question["request"]["method"] == "PUT"
    assert question["source"]["certificate"] == "-----BEGIN CERTIFICATE-----\nAA+/\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("certificate", ["AAA", "AA AA", "-----BEGIN CERTIFICATE-----", "AAAA\n-----END", "é", ","])
def test_a_certificate_of_traefik_is_base64(certificate: str) -> None:
    said = [("X-Forwarded-Method", "PUT"), ("X-Forwarded-Uri", "/a"), ("X-Forwarded-Tls-Client-Cert", certificate)]
    if certificate == ",":
        assert "certificate" in TRAEFIK.question(CIMultiDict(said), ORDERS)["source"]
        return
    with pytest.raises(Malformed, match="must be base64"):
        TRAEFIK.question(CIMultiDict(said), ORDERS)
