"""Certificates become the identities of those whose pods use them; what an SVID cannot be is told field by field."""

from typing import Any

import pytest

from tests.support.old_objects import (
    Body,
    a_certificate,
    a_deployment,
    an_issuer,
    an_object,
    imported,
    left,
    the,
    the_left,
)
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import parse
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.trustdomain.resource import TrustDomainSpec

ORDERS = a_deployment("orders", secret="orders-tls")
ACCOUNT = an_object("ServiceAccount", "orders")


def one(**spec: Any) -> list[Body]:
    return [ACCOUNT, ORDERS, an_issuer(), a_certificate(**spec)]


def certificate(*bodies: Body, **options: Any) -> Body:
    spec = the(imported(*bodies, **options), "ServiceIdentity", "orders").get("spec", {})
    parse(ServiceIdentitySpec, spec, "spec")
    found: Body = spec.get("certificate", {})
    return found


def test_what_an_svid_can_be_is_taken_over() -> None:
    outcome = imported(
        *one(
            duration="720h0m0s",
            renewBefore="240h",
            dnsNames=["orders.shop.svc", "orders.shop.svc.cluster.local"],
            privateKey={"algorithm": "ECDSA", "size": 384, "rotationPolicy": "Never"},
            usages=["digital signature", "server auth"],
            secretTemplate={"labels": {"team": "shop"}},
            revisionHistoryLimit=3,
        )
    )
    assert not outcome.left
    assert [str(ref) for ref in outcome.replaced] == ["Certificate shop/orders"]
    assert the(outcome, "ServiceIdentity", "orders")["spec"] == {
        "certificate": {
            "duration": "720h",
            "renewBefore": "240h",
            "keyAlgorithm": "ECDSA-P384",
            "keyRotation": "Never",
            "dnsNames": ["orders.shop.svc", "orders.shop.svc.cluster.local"],
        },
        "secret": {"labels": {"team": "shop"}},
    }
    proposed = the(outcome, "TrustDomain", "cluster.local")["spec"]
    assert proposed == {"default": True, "identities": {"keyAlgorithms": ["ECDSA-P256", "ECDSA-P384"]}}


def test_a_certificate_that_asks_for_nothing_in_particular_takes_the_defaults() -> None:
    outcome = imported(*one())
    assert certificate(*one()) == {}
    assert "was 2160h by default, and is that of TrustDomain cluster.local now: 24h" in str(outcome.notes)


def test_long_lifetimes_raise_the_limits_of_the_proposal() -> None:
    outcome = imported(*one(duration="4380h"))
    spec = the(outcome, "TrustDomain", "cluster.local")["spec"]
    assert spec["identities"] == {"maxDuration": "4380h"}
    assert spec["certificateAuthority"] == {"duration": "26280h"}
    parse(TrustDomainSpec, spec, "spec")


@pytest.mark.parametrize(
    ("spec", "path", "why"),
    [
        ({"commonName": "orders"}, "spec.commonName", "no subject"),
        ({"dnsNames": ["orders.example.org"]}, "spec.dnsNames[0]", "is not <service>.shop.svc"),
        ({"dnsNames": ["*.shop.svc"]}, "spec.dnsNames[0]", "is not <service>.shop.svc"),
        ({"dnsNames": ["orders.web.svc"]}, "spec.dnsNames[0]", "is not <service>.shop.svc"),
        ({"ipAddresses": ["192.0.2.1"]}, "spec.ipAddresses[0]", "names no address"),
        ({"emailAddresses": ["a@example.org"]}, "spec.emailAddresses[0]", "names no mailbox"),
        ({"uris": ["spiffe://example.org/orders"]}, "spec.uris[0]", "derived and cannot be chosen"),
        ({"subject": {"organizations": ["Example"]}}, "spec.subject", "no subject"),
        ({"literalSubject": "CN=orders"}, "spec.literalSubject", "no subject"),
        ({"otherNames": [{"oid": "1.2", "utf8Value": "x"}]}, "spec.otherNames[0]", "one URI and DNS names only"),
        ({"usages": ["code signing"]}, "spec.usages[0]", "TLS only"),
        ({"keystores": {"jks": {"create": True}}}, "spec.keystores.jks", "no Java keystore"),
        ({"keystores": {"pkcs12": {"create": True}}}, "spec.keystores.pkcs12", "not written in this version"),
        ({"additionalOutputFormats": [{"type": "DER"}]}, "spec.additionalOutputFormats[0]", "PEM files only"),
        ({"nameConstraints": {"critical": True}}, "spec.nameConstraints", "authorities only"),
        ({"privateKey": {"algorithm": "Ed25519"}}, "spec.privateKey", "Ed25519 is none of"),
        ({"privateKey": {"algorithm": "ECDSA", "size": 521}}, "spec.privateKey", "ECDSA-P521 is none of"),
        ({"privateKey": {"encoding": "PKCS1"}}, "spec.privateKey.encoding", "PKCS#8"),
        ({"duration": "17520h"}, "spec.duration", "between 1m and 8760h"),
        ({"duration": "2 weeks"}, "spec.duration", "is not a duration"),
        ({"duration": "1h", "renewBefore": "2h"}, "spec.renewBefore", "shorter than duration"),
        ({"somethingNew": {"a": 1}}, "spec.somethingNew", "not known to this version"),
        (
            {"secretTemplate": {"labels": {"zerotrust.dev/x": "y"}}},
            "spec.secretTemplate.labels",
            "operator sets itself",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("spec.") else "",
)
def test_what_an_svid_cannot_be(spec: Body, path: str, why: str) -> None:
    outcome = imported(*one(**spec))
    assert the_left(outcome).path == path
    assert why in the_left(outcome).why
    assert the_left(outcome).instead
    assert not outcome.replaced
    certificate(*one(**spec))


def test_the_derived_spiffe_id_is_expressed() -> None:
    uri = "spiffe://example.org/ns/shop/sa/orders"
    assert not imported(*one(uris=[uri]), trust_domain="example.org").left


@pytest.mark.parametrize(
    ("issuer", "why"),
    [
        ({"acme": {"server": "https://example.org"}}, "is ACME"),
        ({"vault": {"path": "pki"}}, "is vault"),
        ({"venafi": {"zone": "x"}}, "is venafi"),
    ],
    ids=["acme", "vault", "venafi"],
)
def test_who_signs_elsewhere(issuer: Body, why: str) -> None:
    outcome = imported(ACCOUNT, ORDERS, an_issuer(**issuer), a_certificate())
    assert the_left(outcome).path == "spec.issuerRef"
    assert why in the_left(outcome).why
    assert bool(outcome.made) == ("acme" not in issuer)


def test_an_issuer_that_was_not_read_is_told() -> None:
    assert "not among what was read" in the_left(imported(ACCOUNT, ORDERS, a_certificate())).why


def test_an_authority_is_no_identity() -> None:
    outcome = imported(*one(isCA=True))
    assert not outcome.made
    assert left(outcome) == {"spec.isCA": "an authority is no workload's identity"}


def test_a_certificate_that_no_pod_uses_is_kept() -> None:
    outcome = imported(ACCOUNT, an_issuer(), a_certificate())
    assert left(outcome) == {"spec.secretName": "no pod that was read uses Secret orders-tls"}


def test_two_accounts_that_share_a_secret_get_one_identity_each() -> None:
    outcome = imported(*one(), a_deployment("batch", secret="orders-tls"))
    names = [made.body["metadata"]["name"] for made in outcome.made if made.body["kind"] == "ServiceIdentity"]
    assert names == ["batch", "orders"]
    assert "is shared by the ServiceAccounts batch, orders: each gets a key of its own" in str(outcome.notes)


def test_the_default_account_and_variables_are_told() -> None:
    outcome = imported(an_issuer(), a_certificate(), a_deployment("orders", account="default", env="orders-tls"))
    assert the(outcome, "ServiceIdentity", "default")
    assert "every pod without one of its own is this identity" in str(outcome.notes)
    assert "never see a renewal" in str(outcome.notes)


def test_secrets_are_new_unless_their_names_are_kept() -> None:
    assert "mount Secret orders-svid in volume tls" in str(imported(*one()).notes)
    kept = imported(*one(), keep_secret_names=True)
    assert the(kept, "ServiceIdentity", "orders")["spec"]["secret"] == {"name": "orders-tls"}


def test_of_two_certificates_of_one_account_the_first_decides() -> None:
    both = a_deployment("orders", secret="orders-tls", env="other-tls")
    other = a_certificate("other", duration="1h", dnsNames=["other.shop.svc"])
    outcome = imported(ACCOUNT, both, an_issuer(), a_certificate(duration="2h", dnsNames=["orders.shop.svc"]), other)
    spec = the(outcome, "ServiceIdentity", "orders")["spec"]["certificate"]
    assert spec == {"duration": "2h", "dnsNames": ["orders.shop.svc", "other.shop.svc"]}
    assert "one identity has one certificate" in the_left(outcome).why
    assert str(the_left(outcome).ref) == "Certificate shop/other"


def test_a_trust_domain_that_is_there_stays_as_it_is() -> None:
    domain = an_object("TrustDomain", "example.org", "", {"identities": {"maxDuration": "24h"}})
    outcome = imported(*one(duration="720h", privateKey={"algorithm": "RSA"}), domain)
    assert [made.body["kind"] for made in outcome.made] == ["ServiceIdentity"]
    assert the(outcome, "ServiceIdentity", "orders")["spec"]["trustDomain"] == "example.org"
    assert left(outcome) == {
        "spec.duration": "720h is longer than TrustDomain example.org signs, 24h",
        "spec.privateKey": "TrustDomain example.org does not allow RSA-2048",
    }


def test_an_identity_that_is_there_is_left_alone() -> None:
    there = an_object("ServiceIdentity", "mine", spec={"serviceAccountName": "orders"})
    outcome = imported(*one(duration="1h"), there)
    assert [made.body["kind"] for made in outcome.made] == []
    assert "ServiceIdentity shop/mine exists and is left alone: its spec.certificate differs" in the_left(outcome).why
    there["spec"]["certificate"] = {"duration": "1h"}
    assert not imported(*one(duration="1h"), there).left


def test_a_field_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"Certificate shop/orders: spec\.dnsNames"):
        imported(*one(dnsNames="orders.shop.svc"))
