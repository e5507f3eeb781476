"""Random snapshots: what users, attackers and accidents can make of our resources and Secrets."""

import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.support.builders import (
    MINE,
    NOW,
    SOMEBODY,
    Body,
    Domain,
    FixedEntropy,
    Identity,
    a_key,
    a_key_ring,
    a_namespace,
    a_record,
    a_secret_body,
    a_trust_domain,
    a_view,
    a_view_without_authority,
    an_authority,
    an_identity,
    an_issued_body,
    days,
    hours,
    minutes,
    owner_of,
    seconds,
)
from tests.support.certificates import key_pem
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.identity.snapshot import IdentitySnapshot, TrustDomainView, secret_name, service_account
from zerotrust.pki import secret
from zerotrust.trustdomain.authority import Authority, KeyRing

# --- time ---

spans = st.sampled_from(
    [seconds(1), minutes(1), minutes(59), hours(1), hours(15), hours(23), hours(25), days(9), days(99)]
)
moments = st.builds(lambda span, sign, micro: NOW + sign * span + timedelta(microseconds=micro), spans,
                    st.sampled_from([-1, 0, 1]), st.sampled_from([0, 1, 999_999]))  # fmt: skip
times = moments.map(lambda moment: moment.isoformat().replace("+00:00", "Z"))

# --- resources ---

durations = st.sampled_from(["1m", "10m", "1h", "12h", "24h", "720h", "2160h"])
broken = st.sampled_from([None, "", "x", "0s", "-1h", 7, True, [], {}, "9999999999h", "é", "1h\n"])
words = st.sampled_from(["orders", "a", "spiffe", "web", "x" * 63])
values = st.text("abcXYZ019-_.", min_size=1, max_size=8).map(lambda text: f"a{text}z")
dns_names = st.sampled_from(
    ["orders.shop.svc", "a.shop.svc.cluster.local", "orders.bank.svc", "shop.cluster.svc", "spiffe", "*.shop.svc", ""]
)
algorithms = st.sampled_from(["ECDSA-P256", "ECDSA-P384", "RSA-2048", "Ed25519"])

certificates = st.fixed_dictionaries(
    {},
    optional={
        "duration": durations | broken,
        "renewBefore": st.sampled_from(["10s", "5m", "8h", "700h"]) | broken,
        "renewBeforePercentage": st.integers(0, 100),
        "keyAlgorithm": algorithms,
        "keyRotation": st.sampled_from(["Always", "Never"]),
        "dnsNames": st.lists(dns_names, max_size=3),
    },
)
good_certificates = st.fixed_dictionaries(
    {},
    optional={
        "duration": durations,
        "renewBeforePercentage": st.integers(1, 95),
        "keyAlgorithm": st.sampled_from(["ECDSA-P256", "ECDSA-P384"]),
        "keyRotation": st.sampled_from(["Always", "Never"]),
        "dnsNames": st.lists(st.sampled_from(["orders.shop.svc", "a.shop.svc.cluster.local"]), max_size=2),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["orders-svid", "new", "shared"]),
        "labels": st.dictionaries(st.sampled_from(["team", "example.org/team"]), values, max_size=2),
        "annotations": st.dictionaries(st.sampled_from(["note", "example.org/note"]), values, max_size=2),
        "formats": st.just(["PKCS12"]),
    },
)


def specs(certificate: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Specs of a ServiceIdentity around this certificate."""
    return st.fixed_dictionaries(
        {},
        optional={
            "serviceAccountName": words,
            "trustDomain": st.just("example.org"),
            "certificate": certificate,
            "secret": templates,
            "rotation": st.fixed_dictionaries({"requestedAt": times}),
            "issuance": st.sampled_from(["Active", "Active", "Paused"]),
            "deletionPolicy": st.sampled_from(["Delete", "Retain"]),
            "enforcement": st.sampled_from(["Observe", "Enforce"]),
        },
    )


garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
good_specs = specs(good_certificates)
any_specs = (
    good_specs
    | specs(certificates)
    | st.dictionaries(
        st.sampled_from(["certificate", "secret", "rotation", "spiffeID", "uri", "trustDomain", "serviceAccountName"]),
        garbage,
        max_size=3,
    )
)


@st.composite
def identities(draw: st.DrawFn, spec: st.SearchStrategy[dict[str, Any]] = any_specs) -> Identity:
    annotations = draw(
        st.dictionaries(
            st.sampled_from([naming.ROTATE_REQUESTED, naming.REVISION, "spiffe-id", "note"]),
            times | st.sampled_from(["", "spiffe://example.org/ns/bank/sa/admin", "now"]),
            max_size=2,
        )
    )
    return an_identity(
        draw(words),
        annotations=annotations,
        created=draw(st.sampled_from([NOW, NOW - hours(1), NOW - days(40)])),
        generation=draw(st.integers(1, 3)),
        **draw(spec),
    )


trust_domains = st.builds(
    lambda identities, more: a_trust_domain("example.org", identities=identities, **more),
    st.fixed_dictionaries(
        {"keyAlgorithms": st.just(["ECDSA-P256", "ECDSA-P384"])},
        optional={
            "duration": st.sampled_from(["10m", "1h", "24h"]),
            "maxDuration": st.sampled_from(["24h", "720h", "2160h"]),
            "renewBeforePercentage": st.sampled_from([1, 33, 90]),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "clusterName": st.sampled_from(["east", "a-b"]),
            "allowedNamespaces": st.sampled_from([{"all": True}, {"selector": {"matchLabels": {"zero": "trust"}}}]),
            "bundle": st.sampled_from([{"refreshHint": "1m"}, {"refreshHint": "x"}]),
        },
    ),
)

# --- authorities ---

AUTHORITIES: tuple[Authority, ...] = (
    an_authority(),
    an_authority(number=1, not_after=NOW + hours(20)),
    an_authority(number=2, not_after=NOW - days(1)),
    an_authority(number=3, not_before=NOW + hours(1)),
    an_authority(number=4, not_before=NOW - minutes(1)),
    an_authority(number=5, algorithm="ECDSA-P384"),
)
RECORDS = st.lists(st.sampled_from(AUTHORITIES), min_size=1, max_size=3).map(lambda them: a_record(*them))


@cache
def a_full_key_ring() -> KeyRing:
    """A key ring with every authority's key: what it does not sign is not for want of keys."""
    return a_key_ring(*AUTHORITIES)


# --- Secrets ---


@dataclass(frozen=True)
class Found:
    """A Secret's body in the identity's place, and whether it is somebody else's by construction."""

    body: Body | None
    foreign: bool = False


@cache
def _of_an_admin() -> Body:
    """The Secret of an identity that somebody else would like to have."""
    return an_issued_body(an_identity("admin", namespace="bank"), entropy=FixedEntropy(5))


def _edits(identity: Identity) -> st.SearchStrategy[tuple[tuple[str, ...], Any]]:
    """Edits of a Secret that leave it ours: a path, and the value to put there (None removes it)."""
    texts = st.sampled_from([None, "", "not base64!", secret.encode(b"nonsense"), secret.encode(key_pem(a_key(7)))])
    stolen = st.sampled_from(sorted(_of_an_admin()["data"].values()))
    names = st.sampled_from(["tls.crt", "tls.key", "ca.crt", "bundle.spiffe.json", "keystore.jks"])
    data = st.tuples(st.builds(lambda name: ("data", name), names), texts | stolen)
    annotations = st.tuples(
        st.sampled_from([naming.REVISION, naming.BUNDLE_SEQUENCE, naming.ROTATION_HANDLED, "note", "spiffe-id"]).map(
            lambda name: ("metadata", "annotations", name)
        ),
        st.sampled_from([None, "", "7", "spiffe://example.org/ns/bank/sa/admin"]) | times,
    )
    labels = st.tuples(
        st.sampled_from(["team", "note"]).map(lambda name: ("metadata", "labels", name)),
        st.sampled_from([None, "x"]),
    )
    owners = st.tuples(
        st.just(("metadata", "ownerReferences")),
        st.sampled_from([None, [SOMEBODY], [owner_of(identity), SOMEBODY], [SOMEBODY, owner_of(identity)]]),
    )
    return data | annotations | labels | owners


@st.composite
def found_secrets(draw: st.DrawFn, identity: Identity) -> Found:
    """What is in the place of an identity's Secret: nothing, an earlier one of ours however mistreated, or a foreign one."""
    name, namespace = secret_name(identity), identity.meta.namespace
    kind = draw(st.sampled_from(["none", "ours", "ours", "ours", "edited", "edited", "foreign"]))
    if kind == "none":
        return Found(None)
    if kind == "foreign":
        parts = draw(
            st.sampled_from(
                [
                    {"type_": "Opaque", "data": {"password": b"theirs"}},
                    {"data": {"tls.crt": b"x", "tls.key": b"y"}},
                    {"labels": {**MINE, naming.IDENTITY: "somebody-else"}},
                    {"labels": {**MINE, naming.IDENTITY: identity.meta.name}, "type_": "Opaque"},
                    {
                        "labels": {**MINE, naming.IDENTITY: identity.meta.name},
                        "owners": [{**SOMEBODY, "controller": True}],
                    },
                    {"owners": [SOMEBODY]},
                ]
            )
        )
        return Found(a_secret_body(name, namespace=namespace, **parts), foreign=True)
    body = _issued(draw, identity)
    for path, value in draw(st.lists(_edits(identity), max_size=3)) if kind == "edited" else []:
        _edit(body, path, value)
    return Found(body)


def _issued(draw: st.DrawFn, identity: Identity) -> Body:
    """A Secret that was issued to this identity, or to its account under another spec, at some earlier time."""
    cluster = draw(st.sampled_from(["", "", "east"]))
    age = draw(st.sampled_from([timedelta(), hours(1), hours(17), days(2)]))
    number = draw(st.sampled_from([0, 1]))
    issued = _once_issued(identity.meta.name, service_account(identity), secret_name(identity), cluster, age, number)
    return copy.deepcopy(issued)


@cache
def _once_issued(name: str, account: str, secret_name: str, cluster: str, age: timedelta, number: int) -> Body:
    identity = an_identity(name, serviceAccountName=account, secret={"name": secret_name})
    domain, authority = a_trust_domain(clusterName=cluster), AUTHORITIES[number]
    return an_issued_body(identity, at=NOW - age, domain=domain, authority=authority, entropy=FixedEntropy(3))


def _edit(body: Body, path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    inner = body
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = copy.deepcopy(value)


# --- snapshots ---


@dataclass(frozen=True)
class Case:
    """A snapshot, the time, and the bodies behind it."""

    snapshot: IdentitySnapshot
    now: datetime
    found: Found
    stale: tuple[Body, ...] = ()

    @property
    def place(self) -> Ref:
        resource = self.snapshot.resource
        return Ref("Secret", resource.meta.namespace, secret_name(resource))


def mostly(usual: Any, *unusual: Any) -> st.SearchStrategy[Any]:
    """Nine times out of ten the usual."""
    return st.sampled_from([usual] * 9 * len(unusual) + list(unusual))


def _views(domain: Domain, *, known: bool) -> st.SearchStrategy[TrustDomainView | None]:
    with_record = RECORDS.map(lambda record: a_view(domain, record))
    return with_record if known else st.one_of(with_record, st.sampled_from([a_view_without_authority(domain), None]))


@st.composite
def cases(
    draw: st.DrawFn, spec: st.SearchStrategy[dict[str, Any]] = any_specs, *, bundle_is_known: bool = False
) -> Case:
    """Anything that a ServiceIdentity may find itself in."""
    identity, domain = draw(identities(spec)), draw(trust_domains)
    found = draw(found_secrets(identity))
    stale = (_stale_body(identity.meta.name),) if draw(mostly(False, True)) else ()
    snapshot = IdentitySnapshot(
        resource=identity,
        namespace=draw(st.sampled_from([a_namespace(zero="trust"), a_namespace(zero="trust"), a_namespace(), None])),
        service_account_exists=draw(mostly(True, False)),
        trust_domain=draw(_views(domain, known=bundle_is_known)),
        secret=secret.observe(found.body) if found.body is not None else None,
        stale_secrets=tuple(secret.observe(body) for body in stale),
        elder=draw(mostly(None, "elder")),
        secret_elder=draw(mostly(None, "elder")),
        remembered_cutoff=draw(moments) if draw(mostly(False, True)) else None,
    )
    return Case(snapshot, draw(moments), found, stale)


@cache
def _stale_body(name: str) -> Body:
    return an_issued_body(an_identity(name, secret={"name": "before"}), entropy=FixedEntropy(4))
