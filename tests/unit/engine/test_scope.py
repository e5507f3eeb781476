"""Which keys of work are about namespaces that are known."""

import pytest

from zerotrust.common.naming import Ref
from zerotrust.engine.scope import Scope
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.kube.resources import CONTROLLER_REVISIONS, ENDPOINT_SLICES, NAMESPACES, RECORDS, SECRETS, TRUST_DOMAINS

OPERATOR = "zerotrust-system"


def a_scope() -> Scope:
    """Watches shop, of which everything is read, and web, of which nothing is."""
    scope = Scope(OPERATOR, ["shop", "web"])
    scope.unread.remove("shop")
    return scope


ABOUT = {
    "shop": True,
    "web": False,
    "bank": False,
}


@pytest.mark.parametrize("namespace", sorted(ABOUT))
@pytest.mark.parametrize(
    "ref",
    [
        Ref("ServiceIdentity", "{}", "orders"),
        Ref("NetworkPolicy", "{}", "zt-orders"),
        Ref("TrustBundle", "{}", "example.org"),
        Ref(sorted(TEMPLATES)[0], "{}", ""),
        Ref("ConfigMap", "{}", "zerotrust-opa-config"),
        Ref("ConfigMap", OPERATOR, "{}.isolation"),
        Ref("ConfigMap", OPERATOR, "{}.bundles"),
        Ref("ConfigMap", OPERATOR, "{}.api-keys"),
        Ref("ConfigMap", OPERATOR, "{}.api-keys-3"),
    ],
    ids=lambda ref: f"{ref.kind}-{ref.namespace}-{ref.name}",
)
def test_what_is_about_a_namespace(ref: Ref, namespace: str) -> None:
    placed = Ref(ref.kind, ref.namespace.format(namespace), ref.name.format(namespace))
    assert a_scope().decides(placed) is ABOUT[namespace]
    assert Scope(OPERATOR).decides(placed)


@pytest.mark.parametrize(
    "ref",
    [
        Ref("TrustDomain", "", "example.org"),
        Ref("IdentityProvider", "example.org", "corp"),
        Ref("Secret", OPERATOR, "policy-bundle-keys"),
        Ref("ConfigMap", OPERATOR, "zerotrust-revocations"),
        Ref("ConfigMap", OPERATOR, "web.isolation.trust-bundle"),
        Ref("ConfigMap", OPERATOR, "zt-reports-web"),
        Ref("ConfigMap", OPERATOR, "example.org.corp.identity-provider"),
        Ref("Gatekeeper", "", "gatekeeper"),
        Ref("ConstraintTemplate", "", "zerotrustimages"),
    ],
    ids=lambda ref: f"{ref.kind}-{ref.name}",
)
def test_what_is_about_none(ref: Ref) -> None:
    assert a_scope().decides(ref)


def test_where_kinds_are_watched() -> None:
    named, cluster = a_scope(), Scope(OPERATOR)
    assert SECRETS.places(named) == ("shop", "web", OPERATOR)
    assert SECRETS.places(cluster) == NAMESPACES.places(named) == TRUST_DOMAINS.places(named) == ("",)
    for scope in (named, cluster):
        assert RECORDS.places(scope) == CONTROLLER_REVISIONS.places(scope) == (OPERATOR,)
        assert ENDPOINT_SLICES.places(scope) == ("default",)
