"""Builders of what the pure core works on: good by default, every part switchable, nothing that does not matter in sight.

Specs are written as a user writes them (`certificate={"duration": "1h"}`) and go through the real parser. Certificates and
keys are real. Keys come from a small pool that is made once, so that the same test always uses the same ones.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from typing import Any

from cryptography import x509

from tests.support.certificates import NOW, TRUST_DOMAIN, Issued, a_root, an_intermediate, key_pem, pem
from zerotrust.common import conditions, naming, times
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import API_VERSION, Ref
from zerotrust.common.observed import ConfigMap, CustomResource, Plain, config_map, custom_resource, plain
from zerotrust.common.plan import Plan
from zerotrust.identity.reconcile import reconcile
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import IdentitySnapshot, TrustDomainView
from zerotrust.pki import keys, secret
from zerotrust.pki import x509 as profiles
from zerotrust.pki.keys import KeyAlgorithm, PrivateKey
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain.authority import Authority, Entropy, KeyRing, Record, Signer, State, first_record
from zerotrust.trustdomain.distribution import BundleSnapshot
from zerotrust.trustdomain.reconcile import BundleTargets, TrustDomainSnapshot
from zerotrust.trustdomain.resource import TrustDomainSpec

__all__ = ["NOW", "TRUST_DOMAIN"]

NAMESPACE = "shop"
IDENTITY = "orders"
OPERATOR_NAMESPACE = "zerotrust-system"
LAST_MONTH, IN_TWO_YEARS, YESTERDAY = (NOW + timedelta(days=number) for number in (-30, 700, -1))
POOL_SIZE = 8
LEAF_KEYS = 100  # the pool of `FixedEntropy` is not that of `an_authority`

# The labels of the Secret of `an_identity`, and an owner who has nothing to do with us.
MINE = {
    naming.MANAGED_BY: naming.OPERATOR,
    naming.COMPONENT: naming.COMPONENT_SVID,
    naming.IDENTITY: IDENTITY,
}
SOMEBODY = {"apiVersion": "v1", "kind": "Thing", "name": "it", "uid": "uid-of-it"}

Domain = CustomResource[TrustDomainSpec]
Identity = CustomResource[ServiceIdentitySpec]
Body = dict[str, Any]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    return timedelta(days=number)


# --- keys and chance ---


@cache
def a_key(number: int = 0, algorithm: KeyAlgorithm = "ECDSA-P256") -> PrivateKey:
    """The key of that number in the pool."""
    return keys.generate(algorithm)


class FixedEntropy:
    """Chance that repeats itself: equal seeds give the same keys and serial numbers in the same order."""

    def __init__(self, seed: int = 1) -> None:
        self._numbers, self._serials = count(seed), count(seed)
        self._seed = seed

    def private_key(self, algorithm: KeyAlgorithm) -> PrivateKey:
        return a_key(LEAF_KEYS + next(self._numbers) % POOL_SIZE, algorithm)

    def serial_number(self) -> int:
        """Positive and at most 20 bytes long, like a real one."""
        digest = hashlib.sha256(f"{self._seed}/{next(self._serials)}".encode()).digest()
        return int.from_bytes(digest[:20]) >> 1 | 1


# --- our resources ---


def a_trust_domain(
    name: str = TRUST_DOMAIN,
    *,
    uid: str = "",
    created: datetime = LAST_MONTH,
    generation: int = 1,
    status: Mapping[str, Any] | None = None,
    deleting: bool = False,
    **spec: Any,
) -> Domain:
    """A TrustDomain with this spec, as a user would write it."""
    metadata = _metadata("TrustDomain", "", name, uid, created, generation, {}, deleting)
    body = {"metadata": metadata, "spec": spec, "status": status or {}}
    return custom_resource("TrustDomain", TrustDomainSpec, body)


def an_identity(
    name: str = IDENTITY,
    *,
    namespace: str = NAMESPACE,
    uid: str = "",
    created: datetime = YESTERDAY,
    generation: int = 1,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    deleting: bool = False,
    **spec: Any,
) -> Identity:
    """A ServiceIdentity with this spec, as a user would write it."""
    metadata = _metadata("ServiceIdentity", namespace, name, uid, created, generation, annotations or {}, deleting)
    body = {"metadata": metadata, "spec": spec, "status": status or {}}
    return custom_resource("ServiceIdentity", ServiceIdentitySpec, body)


def a_namespace(name: str = NAMESPACE, *, version: int = 1, **labels: str) -> Plain:
    return plain("Namespace", {"metadata": {"name": name, "labels": labels, "resourceVersion": str(version)}})


def a_service_account(name: str = IDENTITY, namespace: str = NAMESPACE) -> Plain:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": "1"}
    return plain("ServiceAccount", {"metadata": metadata})


def _metadata(
    kind: str,
    namespace: str,
    name: str,
    uid: str,
    created: datetime,
    generation: int,
    annotations: Mapping[str, str],
    deleting: bool,
) -> Body:
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "uid": uid or f"uid-of-{kind}-{namespace}-{name}",
        "resourceVersion": "1",
        "generation": generation,
        "creationTimestamp": times.render(created),
        "annotations": dict(annotations),
        **({"deletionTimestamp": times.render(NOW)} if deleting else {}),
    }


# --- authorities ---


@cache
def an_authority(
    *,
    not_before: datetime = LAST_MONTH,
    not_after: datetime = IN_TWO_YEARS,
    number: int = 0,
    algorithm: KeyAlgorithm = "ECDSA-P256",
    state: State = "Active",
    trust_domain: str = TRUST_DOMAIN,
) -> Authority:
    """A self-signed authority, the same one for the same arguments; another `number` has another key."""
    key = a_key(number, algorithm)
    certificate = profiles.self_signed_authority(trust_domain, key, 4096 + number, not_before, not_after)
    return Authority(profiles.authority_id(key.public_key()), state, (certificate,), (certificate,))


def key_of(authority: Authority) -> PrivateKey:
    """The private key of an authority that `an_authority` made."""
    wanted = authority.certificate.public_key()
    pool = (a_key(number, algorithm) for algorithm in _ALGORITHMS for number in range(POOL_SIZE))
    return next(key for key in pool if key.public_key() == wanted)


_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("ECDSA-P256", "ECDSA-P384", "RSA-2048")


def a_key_ring(*authorities: Authority) -> KeyRing:
    """A key ring with the keys of these authorities (default: the one of `an_authority`)."""
    ring = KeyRing()
    for authority in authorities or (an_authority(),):
        ring.load(authority.certificate, key_of(authority))
    return ring


def a_record(*authorities: Authority, refresh_hint: int = 300) -> Record:
    """The record after these authorities became Active one after the other; the last one signs."""
    first, *later = authorities or (an_authority(),)
    record = first_record(first, refresh_hint)
    for authority in later:
        record = record.activated(authority)
    return record


def a_record_secret(record: Record | str | None = None, trust_domain: str = TRUST_DOMAIN) -> ObservedSecret:
    """The Secret that remembers a record, or holds a text in its place."""
    text = record if isinstance(record, str) else (record or a_record()).to_json()
    return secret.observe(
        _operator_secret(
            naming.authority_record_name(trust_domain),
            naming.COMPONENT_AUTHORITY_RECORD,
            {secret.RECORD: text.encode("utf-8", "surrogatepass")},
            "Opaque",
            trust_domain,
        )
    )


def an_authority_secret(
    authority: Authority | None = None, trust_domain: str = TRUST_DOMAIN, **data: bytes | None
) -> ObservedSecret:
    """The Secret with an authority's key; `data` replaces values (`tls_crt=b"…"`), None drops one."""
    return secret.observe(an_authority_body(authority, trust_domain, **data))


def an_authority_body(
    authority: Authority | None = None, trust_domain: str = TRUST_DOMAIN, **data: bytes | None
) -> Body:
    authority = authority or an_authority()
    values: dict[str, bytes | None] = {
        secret.CERTIFICATE: pem(*authority.chain),
        secret.PRIVATE_KEY: key_pem(key_of(authority)),
        secret.AUTHORITIES: pem(*authority.roots),
        **{name.replace("_", "."): value for name, value in data.items()},
    }
    name = naming.authority_secret_name(trust_domain, authority.id)
    kept = {key: value for key, value in values.items() if value is not None}
    return _operator_secret(name, naming.COMPONENT_AUTHORITY, kept, "kubernetes.io/tls", trust_domain)


def _operator_secret(name: str, component: str, data: Mapping[str, bytes], type_: str, trust_domain: str) -> Body:
    return a_secret_body(
        name,
        namespace=OPERATOR_NAMESPACE,
        type_=type_,
        labels={naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: component},
        annotations={naming.TRUST_DOMAIN: trust_domain},
        data=data,
    )


def a_brought_chain(**intermediate: Any) -> tuple[Issued, Issued]:
    """A root and an intermediate below it, as an organisation's PKI would make them: (intermediate, root)."""
    changes = {"uris": (), "not_before": NOW - days(10), "not_after": NOW + days(400), **intermediate}
    root = a_root(uris=(), not_before=NOW - days(300), not_after=NOW + days(3000))
    return an_intermediate(root, **changes), root


def a_brought_secret(
    issuer: Issued,
    *,
    chain: Sequence[x509.Certificate] = (),
    roots: Sequence[x509.Certificate] = (),
    name: str = "our-ca",
    version: int = 1,
    **data: bytes | None,
) -> ObservedSecret:
    """A user's Secret with an intermediate: `chain` follows it in tls.crt, `roots` make ca.crt (left out when there are none)."""
    values: dict[str, bytes | None] = {
        secret.CERTIFICATE: pem(issuer.certificate, *chain),
        secret.PRIVATE_KEY: key_pem(issuer.key),
        secret.AUTHORITIES: pem(*roots) or None,
        **{key.replace("_", "."): value for key, value in data.items()},
    }
    kept = {key: value for key, value in values.items() if value is not None}
    return secret.observe(
        a_secret_body(name, namespace=OPERATOR_NAMESPACE, type_="kubernetes.io/tls", data=kept, version=version)
    )


# --- Secrets and ConfigMaps ---


def a_secret_body(
    name: str = f"{IDENTITY}-svid",
    *,
    namespace: str = NAMESPACE,
    type_: str = "kubernetes.io/tls",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owners: Sequence[Mapping[str, Any]] = (),
    data: Mapping[str, bytes] | None = None,
    version: int = 1,
) -> Body:
    """A Secret's body as the API server shows it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": type_,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-of-Secret-{namespace}-{name}",
            "resourceVersion": str(version),
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
            "ownerReferences": [dict(owner) for owner in owners],
        },
        "data": {key: secret.encode(value) for key, value in (data or {}).items()},
    }


def a_secret(name: str = f"{IDENTITY}-svid", **parts: Any) -> ObservedSecret:
    """Somebody's Secret, which the operator did not make unless the labels or owners say so."""
    return secret.observe(a_secret_body(name, **parts))


def a_config_map(
    name: str = naming.trust_bundle_name(TRUST_DOMAIN),
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owners: Sequence[Mapping[str, Any]] = (),
    data: Mapping[str, str] | None = None,
    version: int = 1,
) -> ConfigMap:
    """Somebody's ConfigMap, which the operator did not make unless the labels or owners say so."""
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-of-ConfigMap-{name}",
        "resourceVersion": str(version),
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
        "ownerReferences": [dict(owner) for owner in owners],
    }
    return config_map({"metadata": metadata, "data": dict(data or {})})


def the_body_that(plan: Plan, name: str = "", before: Mapping[str, Any] | None = None) -> Body:
    """The object that a plan's Apply leaves in the API server; `before` is the body that was there, if any.

    `name` chooses among several applies. A plan of a repair has no private key in it, and needs `before`.
    """
    (manifest,) = (apply.manifest for apply in plan.applies if not name or apply.ref.name == name)
    place = f"{manifest['metadata'].get('namespace', '')}-{manifest['metadata']['name']}"
    fresh: Body = {"metadata": {"uid": f"uid-of-{manifest['kind']}-{place}", "resourceVersion": "0"}}
    body = merged(before or fresh, manifest)
    body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
    return body


def the_secret_that(plan: Plan, name: str = "", before: Mapping[str, Any] | None = None) -> ObservedSecret:
    """The Secret that a plan's Apply leaves in the cache, private key looked at and dropped on the way."""
    return secret.observe(the_body_that(plan, name, before))


def the_config_map_that(plan: Plan, before: Mapping[str, Any] | None = None) -> ConfigMap:
    """The ConfigMap that a plan's Apply leaves in the cache."""
    return config_map(the_body_that(plan, "", before))


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Body:
    """Apply a JSON merge patch (RFC 7396 §2, its pseudo-code word by word)."""
    result = copy.deepcopy(dict(target))
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            present = result.get(name)
            result[name] = merged(present if isinstance(present, Mapping) else {}, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


# --- snapshots ---


def a_view(domain: Domain | None = None, record: Record | None = None) -> TrustDomainView:
    """What identities see of a TrustDomain whose record this is (default: one Active authority)."""
    domain, record = domain or a_trust_domain(), record or a_record()
    return TrustDomainView(domain.meta.name, domain.spec, record.active, record.bundle(), domain.meta.created)


def a_view_without_authority(domain: Domain | None = None, *, created: datetime = LAST_MONTH) -> TrustDomainView:
    domain = domain or a_trust_domain()
    return TrustDomainView(domain.meta.name, domain.spec, None, None, created)


def an_identity_snapshot(
    identity: Identity | None = None,
    *,
    domain: Domain | None = None,
    record: Record | None = None,
    view: TrustDomainView | None = None,
    secret: ObservedSecret | None = None,
    **parts: Any,
) -> IdentitySnapshot:
    """A snapshot of an identity for which nothing stands in the way; by default nothing was issued yet."""
    snapshot = IdentitySnapshot(
        resource=identity or an_identity(),
        namespace=a_namespace(),
        service_account_exists=True,
        trust_domain=view or a_view(domain, record),
        secret=secret,
    )
    return replace(snapshot, **parts)


def an_issued_body(
    identity: Identity | None = None,
    *,
    at: datetime = NOW,
    domain: Domain | None = None,
    authority: Authority | None = None,
    entropy: Entropy | None = None,
    signer: Signer | None = None,
    before: Mapping[str, Any] | None = None,
) -> Body:
    """The body of the Secret with the SVID that was issued to the identity at that time."""
    authority = authority or an_authority()
    observed = secret.observe(before) if before is not None else None
    snapshot = an_identity_snapshot(identity, domain=domain, record=a_record(authority), secret=observed)
    plan = reconcile(snapshot, at, signer or a_key_ring(authority), entropy or FixedEntropy())
    return the_body_that(plan, before=before)


def an_issued_secret(identity: Identity | None = None, **how: Any) -> ObservedSecret:
    """The Secret with the SVID that was issued to the identity (see `an_issued_body`)."""
    return secret.observe(an_issued_body(identity, **how))


def with_status(resource: CustomResource[Any], plan: Plan) -> CustomResource[Any]:
    """The resource after the plan's status was written."""
    if plan.status is None:
        return resource
    ready = conditions.find(plan.status.get("conditions", ()), "Ready") or {}
    seen = (str(ready.get("status", "")), str(ready.get("reason", "")))
    return replace(resource, status_json=json.dumps(plan.status), ready=seen)


def a_trust_domain_snapshot(
    domain: Domain | None = None,
    *,
    record: Record | str | None = None,
    authorities: Sequence[Authority] = (),
    **parts: Any,
) -> TrustDomainSnapshot:
    """A snapshot of a TrustDomain that has nothing yet; `record` (or a text in its place) and `authorities` are what it has."""
    snapshot = TrustDomainSnapshot(
        resource=domain or a_trust_domain(),
        operator_namespace=OPERATOR_NAMESPACE,
        record=a_record_secret(record) if record is not None else None,
        authority_secrets=tuple(an_authority_secret(authority) for authority in authorities),
        brought=None,
        other_default=None,
        targets=BundleTargets(),
        identities_total=0,
        identities_ready=0,
        clock_skew=timedelta(),
    )
    return replace(snapshot, **parts)


def a_settled_trust_domain(domain: Domain | None = None, **parts: Any) -> TrustDomainSnapshot:
    """A snapshot of a TrustDomain whose authority and record are there."""
    authority = an_authority()
    return a_trust_domain_snapshot(domain, record=a_record(authority), authorities=(authority,), **parts)


def a_bundle_snapshot(
    domain: Domain | None = None,
    *,
    record: Record | None = None,
    observed: ConfigMap | None = None,
    selected: bool = True,
) -> BundleSnapshot:
    """A namespace that is to get the trust bundle."""
    place = Ref("ConfigMap", NAMESPACE, naming.trust_bundle_name(TRUST_DOMAIN))
    return BundleSnapshot(domain or a_trust_domain(), (record or a_record()).bundle(), selected, place, observed)


def spec_of(resource: CustomResource[Any]) -> Any:
    """The parsed spec of a resource that a test knows to be good."""
    assert not isinstance(resource.spec, SpecError), resource.spec
    return resource.spec


def owner_of(resource: CustomResource[Any], **more: Any) -> Body:
    """An owner reference to a resource, as the garbage collector understands it."""
    meta = resource.meta
    return {"apiVersion": API_VERSION, "kind": meta.ref.kind, "name": meta.name, "uid": meta.uid, **more}
