"""The generated CRDs on a real API server: every rule, enum and bound of the models, and what kubectl makes of them.

The models say what must hold, the API server is asked whether it does. A dry run evaluates the schema, the defaults and CEL;
only rules that compare with the old object need real ones. In paths, `[]` stands for a list's first entry and `{}` for a map's.
"""

import http.client
import json
import re
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from hack import generate
from hack.controlplane import ControlPlane
from hack.generate import ROOT
from zerotrust.common import durations
from zerotrust.common.kind import Kind
from zerotrust.common.naming import API_VERSION, GROUP, VERSION
from zerotrust.common.resource import (
    DNS_LABEL,
    DNS_SUBDOMAIN,
    DURATION,
    LABEL_KEY,
    LABEL_VALUE,
    TIME_RANGE,
    TIMESTAMP,
    Between,
    Resource,
    parse,
)
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.pki.keys import KeyAlgorithm
from zerotrust.trustdomain.resource import HTTPS_URL
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

pytestmark = pytest.mark.cluster

Body = dict[str, Any]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DRY_RUN = "?dryRun=All&fieldValidation=Strict"
MERGE_PATCH = "application/merge-patch+json"
SERVER_SIDE_APPLY = "application/apply-patch+yaml"
SECONDS = 60.0

TIME = "2026-12-31T00:00:00Z"
ABSENT = object()
OWN_NAME = "(its own name)"

# Valid objects which together have every field, as users write them: unions need several.
# Kinds without a complete default spec have files of their own: test_trustpolicy_rules.py, test_apikey_rules.py.
KINDS = [TRUST_DOMAIN, SERVICE_IDENTITY]

SAMPLES: dict[str, list[Body]] = yaml.safe_load("""
TrustDomain:
  - spec:
      default: true
      clusterName: east
      allowedNamespaces:
        selector: &selector
          matchLabels: {team: shop}
          matchExpressions: [{key: tier, operator: In, values: [prod]}]
      certificateAuthority:
        source: Secret
        secretName: intermediate
        duration: 17520h
        keyAlgorithm: ECDSA-P256
        rotation: &rotation {requestedAt: "2026-12-31T00:00:00Z"}
      identities:
        duration: 24h
        maxDuration: 2160h
        renewBeforePercentage: 33
        keyAlgorithms: [ECDSA-P256]
        enforcement: Enforce
        egress: Open
      bundle: {namespaces: {selector: *selector}, refreshHint: 5m}
      isolation: {mode: Selected, selector: *selector}
      dns:
        namespaceSelector: *selector
        podSelector: *selector
        cidrs: [169.254.20.10/32]
        ports: [{port: 53, protocol: UDP}]
      identityProviders:
        - name: corp
          issuer: https://login.example.org
          algorithms: [ES256]
          jwksURI: https://login.example.org/keys
          caBundle: PEM
          leeway: 1m
          maxStale: 24h
      policyBundles: {validity: 24h, revocationValidity: 1h, onStaleRevocations: Deny}
    status:
      observedGeneration: 1
      certificateAuthorities:
        - id: a1
          state: Active
          notBefore: "2026-12-31T00:00:00Z"
          notAfter: "9999-12-31T23:59:59Z"
          subjectKeyId: 00ff
          liveLeaves: 1
      bundle: {sequence: 1, hash: 00ff, namespaces: 1, blocked: [{namespace: shop, reason: Forbidden}]}
      identities: {total: 7, ready: 6}
      conditions:
        - &condition
          type: Ready
          status: "True"
          reason: Issued
          message: serving
          observedGeneration: 1
          lastTransitionTime: "2026-12-31T00:00:00Z"
  - spec:
      allowedNamespaces: {all: true}
      certificateAuthority: {source: SelfSigned}
      bundle: {namespaces: {all: true}}
      isolation: {mode: None}
      dns:
        namespaceSelector: &exists {matchExpressions: [{key: tier, operator: Exists}]}
        podSelector: *exists
      identityProviders: [{name: corp, issuer: https://login.example.org, algorithms: [ES256], jwks: "{}"}]
  - spec:
      allowedNamespaces: {selector: *exists}
      bundle: {namespaces: {selector: *exists}}
      isolation: {mode: Selected, selector: *exists}
  - spec: {bundle: {namespaces: {withIdentities: true}}}
ServiceIdentity:
  - spec:
      serviceAccountName: orders
      trustDomain: example.org
      selector: *selector
      enforcement: Enforce
      certificate:
        duration: 24h
        renewBefore: 8h
        keyAlgorithm: ECDSA-P256
        keyRotation: Always
        dnsNames: [orders.shop.svc]
      secret: {name: orders-svid, labels: {team: shop}, annotations: {team: shop}, formats: [PKCS12]}
      egress:
        mode: Isolated
        calls: [{name: stock, namespace: warehouse}]
        allow: [{pods: {namespaceSelector: *selector, podSelector: *selector}, ports: [{port: 1, protocol: TCP}]}]
      rotation: *rotation
      revocation: {before: "2026-12-31T00:00:00Z", reason: KeyCompromise}
      issuance: Active
      deletionPolicy: Delete
    status:
      observedGeneration: 1
      spiffeID: spiffe://example.org/ns/shop/sa/orders
      serialNumber: 00ff
      notBefore: "2026-12-31T00:00:00Z"
      notAfter: "2026-12-31T00:00:00Z"
      renewalTime: "2026-12-31T00:00:00Z"
      revokedBefore: "2026-06-01T00:00:00Z"
      revision: 1
      authorityID: a1
      secretName: orders-svid
      nextAttemptTime: "2026-12-31T00:00:00Z"
      failedAttempts: 0
      violations: {total: 1, examples: [{object: Pod batch-0, message: "…", foundAt: "2026-11-22T12:00:00Z"}]}
      conditions: [*condition]
  - spec:
      selector: *exists
      certificate: {renewBeforePercentage: 33}
      egress: {allow: [{cidr: 203.0.113.0/24, ports: [{port: 1, protocol: TCP}]}]}
  - spec: {egress: {allow: [{kubernetesAPI: true}]}}
  - spec:
      egress: {allow: [{pods: {namespaceSelector: *exists, podSelector: *exists}, ports: [{port: 1, protocol: TCP}]}]}
""")
SELECTOR = SAMPLES["ServiceIdentity"][0]["spec"]["selector"]
EXISTS = SAMPLES["ServiceIdentity"][1]["spec"]["selector"]
CONDITION = SAMPLES["TrustDomain"][0]["status"]["conditions"][0]
PORTS = [{"port": 443}]


class ApiServer:
    """The API server over one connection that stays open, as its administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        trusted = ssl.create_default_context(cafile=plane.authority)
        trusted.load_cert_chain(plane.admin_certificate, plane.admin_key)
        address = urllib.parse.urlsplit(plane.url)
        assert address.hostname
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=SECONDS, context=trusted)

    def close(self) -> None:
        self._connection.close()

    def send(
        self, method: str, path: str, body: Body | None = None, content: str = "application/json"
    ) -> tuple[int, Body]:
        """The status code and what came back: an object, or a Status that says why not."""
        self._connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": content})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        # Where nothing is served, the answer is a line of text.
        return answer.status, json.loads(text) if text.startswith("{") else {"message": text}

    def try_to_create(self, kind: Kind, body: Body) -> tuple[int, Body]:
        """A dry run of `kubectl create` with strict field validation."""
        return self.send("POST", f"{collection(kind)}{DRY_RUN}", an_object(kind, **body))

    def install(self) -> None:
        """Apply the generated CRDs and wait until they are served and described."""
        for kind in generate.KINDS:
            place = f"{DEFINITIONS}/{kind.plural}.{GROUP}"
            apply = f"{place}?fieldManager=test&force=true"
            status, answer = self.send("PATCH", apply, manifest_of(kind), SERVER_SIDE_APPLY)
            assert status in (200, 201), answer["message"]
            wait_until(partial(self._is_ready, kind, place), f"{kind.plural} are served and described")

    def _is_ready(self, kind: Kind, place: str) -> bool:
        established = condition(self.send("GET", place)[1], "Established") == "True"
        return established and self.send("GET", collection(kind))[0] == 200 and self._is_described(kind)

    def _is_described(self, kind: Kind) -> bool:
        status, document = self.send("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
        schemas = document.get("components", {}).get("schemas", {})
        wanted = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        published = [schema for name, schema in schemas.items() if name.endswith(f".{kind.name}")]
        return status == 200 and bool(published) and published[0]["properties"]["spec"] == wanted


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.05)


def manifest_of(kind: Kind) -> Body:
    manifest: Body = yaml.safe_load((ROOT / "crds" / f"{kind.plural}.yaml").read_text())
    return manifest


def condition(body: Body, type_: str) -> str | None:
    conditions = body.get("status", {}).get("conditions") or []
    return next((entry["status"] for entry in conditions if entry["type"] == type_), None)


def collection(kind: Kind, namespace: str = "default") -> str:
    place = f"/namespaces/{namespace}" if kind.namespaced else ""
    return f"/apis/{API_VERSION}{place}/{kind.plural}"


def an_object(kind: Kind, name: str = "probe", **parts: Any) -> Body:
    return {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, **parts}


def causes(answer: Body) -> list[tuple[str, str]]:
    """Field and sentence of every reason for which an object was refused."""
    found = answer.get("details", {}).get("causes", [])
    return [(cause.get("field", ""), cause["message"]) for cause in found]


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with the CRDs. They stay: the control plane is shared, and deleting them would delete objects."""
    with closing(ApiServer(control_plane)) as server:
        server.install()
        yield server


@dataclass(frozen=True)
class Existing:
    """A real object, in a namespace of its own where its kind has one."""

    kind: Kind
    name: str
    namespace: str

    @property
    def path(self) -> str:
        return f"{collection(self.kind, self.namespace)}/{self.name}"


@pytest.fixture
def create(server: ApiServer, namespace: str) -> Iterator[Callable[..., Existing]]:
    """Creates real objects, which are gone after the test."""
    created: list[Existing] = []

    def create(kind: Kind, **parts: Any) -> Existing:
        existing = Existing(kind, f"test-{uuid.uuid4().hex[:8]}", namespace)
        body = an_object(kind, existing.name, **parts)
        status, answer = server.send("POST", f"{collection(kind, namespace)}?fieldValidation=Strict", body)
        assert status == 201, answer["message"]
        created.append(existing)
        return existing

    yield create
    for existing in created:
        server.send("DELETE", existing.path)


@pytest.fixture(scope="module")
def targets(server: ApiServer) -> Iterator[dict[str, Existing]]:
    """One real object of each kind, whose status dry runs may try to change."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    status, answer = server.send("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert status == 201, answer["message"]
    found = {kind.name: Existing(kind, namespace, namespace) for kind in KINDS}
    for existing in found.values():
        body = an_object(existing.kind, existing.name)
        status, answer = server.send("POST", collection(existing.kind, namespace), body)
        assert status == 201, answer["message"]
    yield found
    for existing in found.values():
        server.send("DELETE", existing.path)
    server.send("DELETE", f"/api/v1/namespaces/{namespace}")


def submit(server: ApiServer, target: Existing, body: Body) -> tuple[bool, Body]:
    """Whether a dry run accepts these parts of an object."""
    if "status" in body:
        status, answer = server.send("PATCH", f"{target.path}/status{DRY_RUN}", body, MERGE_PATCH)
    else:
        status, answer = server.try_to_create(target.kind, body)
    assert status in (200, 201, 422), answer
    return status != 422, answer


def steps(path: str) -> list[str]:
    return re.findall(r"\[\]|\{\}|[^.\[\]{}]+", path)


def step_into(body: Any, step: str) -> Any:
    if step == "[]":
        return body[0]
    return next(iter(body.values())) if step == "{}" else body[step]


def has(body: Any, path: str) -> bool:
    try:
        get(body, path)
    except (KeyError, IndexError):
        return False
    return True


def get(body: Any, path: str) -> Any:
    for step in steps(path):
        body = step_into(body, step)
    return body


def put(body: Body, path: str, value: Any) -> Body:
    """The same body with another value, or none, at a place; an empty path replaces parts of the object itself."""
    if not path:
        return {**body, **value}
    body = deepcopy(body)
    *way, last = steps(path)
    place: Any = body
    for step in way:
        place = step_into(place, step)
    key: Any = 0 if last == "[]" else next(iter(place)) if last == "{}" else last
    if value is ABSENT:
        del place[key]
    else:
        place[key] = value
    return body


def as_reported(body: Body, path: str) -> str:
    """The path as the API server writes it."""
    text, place = "", body
    for step in steps(path):
        key = next(iter(place)) if step == "{}" else step
        text += "[0]" if step == "[]" else f".{key}"
        place = step_into(place, step) if has(place, step) else {}
    return text.lstrip(".")


def samples_with(kind: Kind, path: str) -> list[Body]:
    """The parts of the samples which have that place; status goes to another address, so it comes alone."""
    part = steps(path)[0]
    found = [{part: sample[part]} for sample in SAMPLES[kind.name] if has(sample, path)]
    assert found, f"no sample of {kind.name} has {path}: add one"
    return found


@dataclass(frozen=True)
class Node:
    """One place of a kind: its type without None, and what pydantic knows about it."""

    kind: Kind
    path: str
    shape: Any
    constraints: tuple[Any, ...]
    required: bool = False

    def __str__(self) -> str:
        return f"{self.kind.name} {self.path}"

    @property
    def pattern(self) -> str | None:
        if self.shape is datetime:
            return TIMESTAMP
        if any(isinstance(constraint, Between) for constraint in self.constraints):
            return DURATION
        return next((one.pattern for one in self.constraints if getattr(one, "pattern", None)), None)

    def bound(self, constraint: type[MaxLen | MinLen | Ge | Le], attribute: str) -> Any:
        """The strictest value of one bound, or None."""
        found = [getattr(one, attribute) for one in self.constraints if isinstance(one, constraint)]
        if constraint is MaxLen and self.pattern in (DURATION, TIMESTAMP):
            found.append(durations.MAX_LENGTH if self.pattern == DURATION else 64)
        return (max if constraint in (MinLen, Ge) else min)(found) if found else None


def nodes_of(kind: Kind) -> Iterator[Node]:
    for part, model in (("spec", kind.spec), ("status", kind.status)):
        yield from _nodes(kind, part, model, (), required=False)


def _nodes(kind: Kind, path: str, annotation: Any, constraints: tuple[Any, ...], *, required: bool) -> Iterator[Node]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *further = arguments
        flat = [one for item in further for one in (item.metadata if isinstance(item, FieldInfo) else [item])]
        yield from _nodes(kind, path, inner, (*flat, *constraints), required=required)
    elif origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        yield from _nodes(kind, path, inner, constraints, required=required)
    elif origin is list:
        yield Node(kind, path, list, constraints, required)
        yield from _nodes(kind, f"{path}[]", arguments[0], (), required=False)
    elif origin is dict:
        yield Node(kind, path, dict, constraints, required)
        yield from _nodes(kind, f"{path}{{}}", arguments[1], (), required=False)
    else:
        yield Node(kind, path, annotation, constraints, required)
        if isinstance(annotation, type) and issubclass(annotation, Resource):
            for field in annotation.model_fields.values():
                place = f"{path}.{field.alias}"
                yield from _nodes(kind, place, field.annotation, tuple(field.metadata), required=field.is_required())


def rules_of(kind: Kind) -> Iterator[tuple[str, str]]:
    """Place and message of every CEL rule of a kind."""
    yield from (("", rule.message) for rule in kind.rules)
    for node in nodes_of(kind):
        if isinstance(node.shape, type) and issubclass(node.shape, Resource):
            yield from ((node.path, rule.message) for rule in node.shape.rules)
        yield from ((node.path, one.message) for one in node.constraints if isinstance(one, Between))
        if node.shape is datetime:
            yield node.path, TIME_RANGE.message


NODES = [node for kind in KINDS for node in nodes_of(kind)]


def pattern_at(kind: Kind, path: str) -> str:
    (pattern,) = {node.pattern for node in NODES if node.kind is kind and node.path == path}
    assert pattern
    return pattern


ACCOUNT_NAME = pattern_at(SERVICE_IDENTITY, "spec.serviceAccountName")
CLUSTER_NAME = pattern_at(TRUST_DOMAIN, "spec.clusterName")
SERVICE_DNS = pattern_at(SERVICE_IDENTITY, "spec.certificate.dnsNames[]")
CIDR = pattern_at(SERVICE_IDENTITY, "spec.egress.allow[].cidr")


@dataclass(frozen=True)
class Case:
    """A rule, by its place and a part of its message, with values for that place in a sample.

    What is refused breaks this rule and no other, except for those that `beside` names.
    """

    kind: Kind
    path: str
    says: str
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]
    sample: Body | None = None
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.name} {self.path or 'object'}: {self.says}"


@dataclass(frozen=True)
class Transition:
    """A rule that compares with the old object: what `before` may become and what it may not.

    OWN_NAME as a serviceAccountName stands for the object's own name, which differs from run to run.
    """

    kind: Kind
    path: str
    says: str
    before: Body
    allowed: tuple[Body, ...]
    refused: tuple[Body, ...]

    def __str__(self) -> str:
        return f"{self.kind.name} {self.path or 'object'}: {self.says}: {self.before}"


def spec(**fields: Any) -> Body:
    return {"spec": fields}


def named(length: int) -> Body:
    return {"metadata": {"name": "a" * length}}


def selector_cases(kind: Kind, path: str) -> Iterator[Case]:
    empty: tuple[Body, ...] = (
        {},
        {"matchLabels": {}},
        {"matchExpressions": []},
        {"matchLabels": {}, "matchExpressions": []},
    )
    yield Case(kind, path, "an empty selector is refused", (SELECTOR, EXISTS, {"matchLabels": {"a": ""}}), empty)
    key = {"key": "example.org/tier"}
    yield Case(
        kind,
        f"{path}.matchExpressions[]",
        "values belongs to In and NotIn",
        (
            {**key, "operator": "In", "values": [""]},
            {**key, "operator": "NotIn", "values": ["a", "b"]},
            {**key, "operator": "Exists"},
            {**key, "operator": "DoesNotExist", "values": []},
        ),
        (
            {**key, "operator": "In"},
            {**key, "operator": "NotIn", "values": []},
            {**key, "operator": "Exists", "values": ["a"]},
            {**key, "operator": "DoesNotExist", "values": ["a"]},
        ),
    )


def duration_case(
    kind: Kind, path: str, bounds: tuple[str, str], outside: tuple[str, str], sample: Body, *beside: str
) -> Case:
    says = f"must be between {bounds[0]} and {bounds[1]}"
    # The largest number of hours that Go cannot count in nanoseconds, and more than a float can hold.
    overflows = ("2562048h", "99999999999h", "9" * (durations.MAX_LENGTH - 1) + "h")
    return Case(kind, path, says, bounds, (*outside, *overflows), sample, (*beside, "type conversion error"))


def time_case(kind: Kind, path: str) -> Case:
    # The API server takes a list for a string that has a format; without the rule it could never be compared later.
    bounds = ("1000-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
    outside = ("0999-12-31T23:59:59.9Z", "1000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01")
    return Case(kind, path, "between the years 1000 and 9999", bounds, (*outside, [], [TIME]))


def provider(**changes: Any) -> Body:
    whole = {"name": "corp", "issuer": "https://login.example.org", "algorithms": ["ES256"], "jwks": "{}", **changes}
    return {name: value for name, value in whole.items() if value is not ABSENT}


SHORT_IDENTITIES = {"identities": {"duration": "1m", "maxDuration": "1m"}}
LONG_IDENTITIES = {
    "certificateAuthority": {"duration": "175200h"},
    "identities": {"duration": "1m", "maxDuration": "8760h"},
}
PROVIDER = spec(identityProviders=[provider(leeway="1m", maxStale="1h")])
PEER = {"podSelector": SELECTOR}
LONGEST_LABEL = f"{'a' * 253}/{'b' * 63}"

CASES = (
    Case(TRUST_DOMAIN, "", "at most 200 characters", (named(200),), (named(201), named(253)), spec()),
    *(
        case
        for part in ("allowedNamespaces", "bundle.namespaces", "isolation")
        for case in selector_cases(TRUST_DOMAIN, f"spec.{part}.selector")
    ),
    *selector_cases(TRUST_DOMAIN, "spec.dns.namespaceSelector"),
    *selector_cases(TRUST_DOMAIN, "spec.dns.podSelector"),
    Case(
        TRUST_DOMAIN,
        "spec.allowedNamespaces",
        "exactly one of all: true and selector",
        ({"all": True}, {"selector": SELECTOR}),
        ({}, {"all": True, "selector": SELECTOR}),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.bundle.namespaces",
        "exactly one of withIdentities",
        ({"withIdentities": True}, {"all": True}, {"selector": SELECTOR}),
        (
            {},
            {"all": True, "withIdentities": True},
            {"all": True, "selector": SELECTOR},
            {"withIdentities": True, "selector": SELECTOR},
            {"all": True, "withIdentities": True, "selector": SELECTOR},
        ),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.certificateAuthority",
        "secretName belongs to source: Secret",
        ({}, {"source": "SelfSigned"}, {"source": "Secret", "secretName": "ca"}),
        ({"source": "Secret"}, {"source": "SelfSigned", "secretName": "ca"}, {"secretName": "ca"}),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.identities",
        "duration must not be longer than maxDuration",
        ({"duration": "2160h"}, {"duration": "1h", "maxDuration": "60m"}, {}),
        ({"duration": "2160h0m1s"}, {"maxDuration": "23h"}, {"duration": "1h0m0.001s", "maxDuration": "1h"}),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.identities",
        "names each algorithm once",
        ({"keyAlgorithms": ["RSA-2048", "ECDSA-P256"]},),
        ({"keyAlgorithms": ["RSA-2048", "RSA-2048"]}, {"keyAlgorithms": ["RSA-2048", "ECDSA-P256", "RSA-2048"]}),
        beside=("Duplicate value",),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.isolation",
        "selector belongs to mode: Selected",
        ({}, {"mode": "All"}, {"mode": "Selected", "selector": SELECTOR}),
        ({"mode": "Selected"}, {"mode": "All", "selector": SELECTOR}, {"selector": SELECTOR}),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.identityProviders[]",
        "at most one of jwksURI and jwks",
        (provider(), provider(jwks=ABSENT, jwksURI="https://login.example.org/keys"), provider(jwks=ABSENT)),
        (provider(jwksURI="https://login.example.org/keys"),),
    ),
    Case(
        TRUST_DOMAIN,
        "spec",
        "at least 6 times identities.maxDuration",
        (
            {},
            {"certificateAuthority": {"duration": "12960h"}},
            {"certificateAuthority": {"duration": "6h0m0.006s"}, "identities": {"duration": "1m", "maxDuration": "1h0.001s"}},
        ),
        (
            {"certificateAuthority": {"duration": "12959h"}},
            {"identities": {"maxDuration": "8760h"}},
            {"certificateAuthority": {"duration": "6h0m0.005s"}, "identities": {"duration": "1m", "maxDuration": "1h0.001s"}},
        ),
    ),
    Case(
        TRUST_DOMAIN,
        "spec",
        "identityProviders have unique names",
        ({"identityProviders": [provider(), provider(name="other", issuer="https://elsewhere.example.org")]},),
        ({"identityProviders": [provider(), provider(issuer="https://elsewhere.example.org")]},),
        beside=("Duplicate value",),
    ),
    Case(
        TRUST_DOMAIN,
        "spec",
        "identityProviders have unique issuers",
        ({"identityProviders": [provider(), provider(name="other", issuer="https://elsewhere.example.org")]},),
        ({"identityProviders": [provider(), provider(name="other")]},),
    ),
    duration_case(
        TRUST_DOMAIN,
        "spec.certificateAuthority.duration",
        ("1h", "175200h"),
        ("59m59.999s", "175200h0.001s"),
        spec(certificateAuthority={"duration": "1h"}, **SHORT_IDENTITIES),
        "at least 6 times",
    ),
    duration_case(
        TRUST_DOMAIN,
        "spec.identities.duration",
        ("1m", "8760h"),
        ("59.999s", "8760h0.001s"),
        spec(**LONG_IDENTITIES),
        "duration must not be longer",
    ),
    duration_case(
        TRUST_DOMAIN,
        "spec.identities.maxDuration",
        ("1m", "8760h"),
        ("59.999s", "8760h0.001s"),
        spec(**LONG_IDENTITIES),
        "duration must not be longer",
        "at least 6 times",
    ),
    duration_case(TRUST_DOMAIN, "spec.bundle.refreshHint", ("1m", "24h"), ("0s", "24h1s"), spec(bundle={})),
    duration_case(TRUST_DOMAIN, "spec.identityProviders[].leeway", ("0s", "5m"), ("5m0.001s", "301s"), PROVIDER),
    duration_case(TRUST_DOMAIN, "spec.identityProviders[].maxStale", ("1m", "168h"), ("0h", "168h1ms"), PROVIDER),
    duration_case(TRUST_DOMAIN, "spec.policyBundles.validity", ("1m", "720h"), ("1s", "720h1s"), spec(policyBundles={})),
    duration_case(
        TRUST_DOMAIN, "spec.policyBundles.revocationValidity", ("1m", "720h"), ("1s", "720h1s"), spec(policyBundles={})
    ),
    time_case(TRUST_DOMAIN, "spec.certificateAuthority.rotation.requestedAt"),
    time_case(TRUST_DOMAIN, "status.certificateAuthorities[].notBefore"),
    time_case(TRUST_DOMAIN, "status.certificateAuthorities[].notAfter"),
    time_case(TRUST_DOMAIN, "status.conditions[].lastTransitionTime"),
    time_case(SERVICE_IDENTITY, "spec.rotation.requestedAt"),
    time_case(SERVICE_IDENTITY, "spec.revocation.before"),
    time_case(SERVICE_IDENTITY, "status.notBefore"),
    time_case(SERVICE_IDENTITY, "status.notAfter"),
    time_case(SERVICE_IDENTITY, "status.renewalTime"),
    time_case(SERVICE_IDENTITY, "status.revokedBefore"),
    time_case(SERVICE_IDENTITY, "status.nextAttemptTime"),
    time_case(SERVICE_IDENTITY, "status.violations.examples[].foundAt"),
    time_case(SERVICE_IDENTITY, "status.conditions[].lastTransitionTime"),
    Case(SERVICE_IDENTITY, "", "at most 63 characters", (named(63),), (named(64), named(253)), spec()),
    *(
        case
        for place in ("selector", "egress.allow[].pods.namespaceSelector", "egress.allow[].pods.podSelector")
        for case in selector_cases(SERVICE_IDENTITY, f"spec.{place}")
    ),
    duration_case(
        SERVICE_IDENTITY, "spec.certificate.duration", ("1m", "8760h"), ("59.999s", "8760h1s"), spec(certificate={})
    ),
    duration_case(
        SERVICE_IDENTITY, "spec.certificate.renewBefore", ("10s", "8760h"), ("9.999s", "8760h1s"), spec(certificate={})
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.certificate",
        "renewBefore must be shorter than duration",
        ({"duration": "1h", "renewBefore": "59m59.999s"}, {"renewBefore": "8760h"}, {"duration": "1m"}),
        ({"duration": "1h", "renewBefore": "60m"}, {"duration": "1.5h", "renewBefore": "1h30m0.001s"}),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.certificate",
        "renewBefore or renewBeforePercentage, not both",
        ({"renewBefore": "1h"}, {"renewBeforePercentage": 50}),
        ({"renewBefore": "1h", "renewBeforePercentage": 50},),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.secret",
        "labels must not use zerotrust.dev/",
        ({"labels": {"zerotrust.development/a": "b", "zerotrust.dev": "c", "app.kubernetes.io/name": "d"}},),
        (
            {"labels": {"zerotrust.dev/component": "svid"}},
            {"labels": {"a": "b", "policies.zerotrust.dev/a": "b"}},
            {"labels": {"app.kubernetes.io/managed-by": "me"}},
        ),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.secret",
        "annotations must not use zerotrust.dev/",
        ({"annotations": {"notzerotrust.dev/a": "b", "app.kubernetes.io/managed-by": "me"}},),
        ({"annotations": {"zerotrust.dev/revision": "7"}}, {"annotations": {"a.zerotrust.dev/b": "c"}}),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.secret",
        "labels must have valid label keys",
        ({"labels": {LONGEST_LABEL: "a", "A_b.c-9": ""}},),
        tuple({"labels": {key: "a"}} for key in ("", "a b", "-a", "a/", "/a", "A.org/a", "a/b/c", "b" * 64, "a\n")),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.secret",
        "annotations must have valid keys",
        ({"annotations": {LONGEST_LABEL: "any text, of any kind", "a": ""}},),
        tuple({"annotations": {key: "a"}} for key in ("", "é", "a/", f"{'a' * 254}/{'b' * 63}", "b" * 64, "a\n")),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.egress.allow[].pods",
        "write namespaceSelector, podSelector or both",
        (PEER, {"namespaceSelector": SELECTOR}, {**PEER, "namespaceSelector": SELECTOR}),
        ({},),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.egress.allow[]",
        "exactly one of cidr, pods and kubernetesAPI",
        ({"cidr": "::/0", "ports": PORTS}, {"pods": PEER, "ports": PORTS}, {"kubernetesAPI": True}),
        ({"ports": PORTS}, {"cidr": "10.0.0.0/8", "pods": PEER, "ports": PORTS}, {"cidr": "::/0", "kubernetesAPI": True}),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.egress.allow[]",
        "ports are required with cidr and pods",
        ({"cidr": "10.0.0.0/8", "ports": PORTS},),
        ({"cidr": "10.0.0.0/8"}, {"cidr": "10.0.0.0/8", "ports": []}, {"pods": PEER}),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.egress.allow[]",
        "cidr must be an address range",
        ({"cidr": "10.0.0.0/8", "ports": PORTS}, {"cidr": "::/0", "ports": PORTS}),
        ({"cidr": "10.0.0.0/33", "ports": PORTS}, {"cidr": "999.0.0.1/8", "ports": PORTS}),
    ),
    Case(
        TRUST_DOMAIN,
        "spec.dns",
        "cidrs must be address ranges",
        ({"cidrs": ["fd00:10::10/128"]}, {"cidrs": []}),
        ({"cidrs": ["169.254.20.10/33"]}, {"cidrs": ["10.0.0.1/32", "1.2.3/8"]}),
    ),
    Case(
        SERVICE_IDENTITY,
        "spec.egress.allow[]",
        "kubernetesAPI takes no ports",
        ({"kubernetesAPI": True},),
        ({"kubernetesAPI": True, "ports": PORTS}, {"kubernetesAPI": True, "ports": []}),
    ),
)  # fmt: skip

TRANSITIONS = (
    Transition(
        TRUST_DOMAIN,
        "spec",
        "clusterName is immutable",
        before={},
        allowed=({"clusterName": ""}, {"default": True}),
        refused=({"clusterName": "east"},),
    ),
    Transition(
        TRUST_DOMAIN,
        "spec",
        "clusterName is immutable",
        before={"clusterName": "east"},
        allowed=({"clusterName": "east", "default": True},),
        refused=({"clusterName": "west"}, {"clusterName": ""}, {}),
    ),
    Transition(
        SERVICE_IDENTITY,
        "",
        "serviceAccountName is immutable",
        before={},
        allowed=({"issuance": "Paused"}, {"serviceAccountName": OWN_NAME}, {}),
        refused=({"serviceAccountName": "orders"},),
    ),
    Transition(
        SERVICE_IDENTITY,
        "",
        "serviceAccountName is immutable",
        before={"serviceAccountName": "orders"},
        allowed=({"serviceAccountName": "orders", "issuance": "Paused"},),
        refused=({"serviceAccountName": "stock"}, {"serviceAccountName": OWN_NAME}, {}),
    ),
    Transition(
        SERVICE_IDENTITY,
        "spec.revocation",
        "before is never lowered",
        before={"revocation": {"before": "2026-06-01T00:00:00Z"}},
        allowed=(
            {"revocation": {"before": "2026-06-01T02:00:00+02:00"}},
            {"revocation": {"before": "2026-06-01T00:00:00Z", "reason": "Superseded"}},
            {"revocation": {"before": "2026-06-01T00:00:00.5Z"}},
        ),
        refused=(
            {"revocation": {"before": "2026-05-31T23:59:59.999Z"}},
            {"revocation": {"before": "2026-06-01T01:00:00+02:00"}},
            {"revocation": {"before": "2025-06-01T00:00:00Z"}},
        ),
    ),
)


def test_every_rule_has_a_case() -> None:
    rules = {(kind.name, path, message) for kind in KINDS for path, message in rules_of(kind)}
    proven = [(case.kind.name, case.path, case.says) for case in CASES]
    proven += [(transition.kind.name, transition.path, transition.says) for transition in TRANSITIONS]
    without_case = {
        rule for rule in rules if not any(rule[:2] == (kind, path) and says in rule[2] for kind, path, says in proven)
    }
    without_rule = [case for case in proven if sum(case[:2] == rule[:2] and case[2] in rule[2] for rule in rules) != 1]
    assert not without_case, "add a Case (or a Transition, when the rule looks at oldSelf) for each of these rules"
    assert not without_rule, "these cases name no rule, or several"


def test_every_rule_of_the_models_is_in_the_crds() -> None:
    for kind in KINDS:
        schema = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert sorted(rules_in(schema, "")) == sorted(rules_of(kind))


def rules_in(schema: Body, path: str) -> Iterator[tuple[str, str]]:
    yield from ((path, rule["message"]) for rule in schema.get("x-kubernetes-validations", []))
    for name, field in schema.get("properties", {}).items():
        yield from rules_in(field, f"{path}.{name}".lstrip("."))
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from rules_in(schema[key], path + mark)


def message_of(case: Case | Transition) -> str:
    return next(message for path, message in rules_of(case.kind) if path == case.path and case.says in message)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_refuses_what_breaks_it_and_nothing_else(
    server: ApiServer, targets: dict[str, Existing], case: Case
) -> None:
    target, sample = targets[case.kind.name], case.sample or samples_with(case.kind, case.path)[0]
    message, field = message_of(case), as_reported(sample, case.path)
    for value in case.accepted:
        accepted, answer = submit(server, target, put(sample, case.path, value))
        assert accepted, f"{value} is refused: {answer['message']}"
    for value in case.refused:
        accepted, answer = submit(server, target, put(sample, case.path, value))
        assert not accepted, f"{value} is accepted"
        assert message in answer["message"], f"kubectl shows for {value}: {answer['message']}"
        found = causes(answer)
        assert any(place in (field, "<nil>") and message in sentence for place, sentence in found), found
        unexpected = [cause for cause in found if not any(says in cause[1] for says in (message, *case.beside))]
        assert not unexpected, f"{value} breaks more than this rule: {unexpected}"


@pytest.mark.parametrize("transition", TRANSITIONS, ids=str)
def test_rule_compares_with_the_old_object(
    server: ApiServer, create: Callable[..., Existing], transition: Transition
) -> None:
    existing = create(transition.kind, spec=transition.before)
    for changed in transition.refused:
        status, answer = replace_spec(server, existing, changed)
        assert status == 422, f"{changed} is accepted"
        assert [cause[1].removeprefix("Invalid value: ") for cause in causes(answer)] == [message_of(transition)]
        assert message_of(transition) in answer["message"]
    for changed in transition.allowed:
        status, answer = replace_spec(server, existing, changed)
        assert status == 200, f"{changed} is refused: {answer['message']}"
    for changed in transition.refused:
        assert replace_spec(server, existing, changed)[0] == 422, f"{changed} is accepted after other updates"


def replace_spec(server: ApiServer, existing: Existing, wanted: Body) -> tuple[int, Body]:
    present = server.send("GET", existing.path)[1]
    names = {"serviceAccountName": existing.name} if wanted.get("serviceAccountName") == OWN_NAME else {}
    return server.send("PUT", existing.path, {**present, "spec": {**wanted, **names}})


@dataclass(frozen=True)
class Check:
    """One constraint of a place: values that keep it, values that break it, and how the API server says so."""

    says: str
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]


ADDRESS = "0000:0000:0000:0000:0000:0000:0000:0000/128"

# A string of exactly so many characters that matches; None stands for no pattern.
WORDS: dict[str | None, Callable[[int], str]] = {
    None: lambda length: "é" * length,  # a bound counts characters, not bytes
    LABEL_VALUE: lambda length: "a" * length,
    LABEL_KEY: lambda length: f"{'a' * (length - 64)}/{'b' * 63}" if length > 64 else "a" * length,
    DNS_LABEL: lambda length: "a" * length,
    DNS_SUBDOMAIN: lambda length: "a" * length,
    ACCOUNT_NAME: lambda length: "a" * length,
    CLUSTER_NAME: lambda length: "a" * length,
    SERVICE_DNS: lambda length: f"{'a' * (length - 6)}.b.svc",
    CIDR: lambda length: ADDRESS.rjust(length, "0"),
    HTTPS_URL: lambda length: f"https://{'a' * (length - 8)}",
    TIMESTAMP: lambda length: TIME.replace("Z", f".{'0' * (length - 21)}Z"),
}

# What matches a pattern and what does not. Durations that are accepted are in CASES, because each field has its own range.
EXAMPLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    LABEL_VALUE: (("", "a", "A_b.c-9"), ("-a", "a-", "a b", "a/b", "é", "a\n")),
    LABEL_KEY: (("a", "A_b.c-9", "example.org/tier"), ("-a", "a b", "/a", "a/", "a/b/c", "A/b", "é", "a\n")),
    DNS_LABEL: (("a", "9", "a-b"), ("A", "-a", "a-", "a.b", "a_b", "é", "a\n")),
    DNS_SUBDOMAIN: (("a", "a.b-c.9"), ("A", ".a", "a.", "a..b", "a.-b", "a_b", "a\n")),
    ACCOUNT_NAME: (("a", "9", "a.b-c"), ("A", "-a", "a-", ".a", "a_b", "a/b", "a\n")),
    CLUSTER_NAME: (("", "a", "east-1"), ("A", "-a", "a-", "a.b", "a/b", "a\n")),
    SERVICE_DNS: (
        ("orders.shop.svc", "orders.shop.svc.cluster.local"),
        ("", "orders", "orders.shop", "*.shop.svc", "a.orders.shop.svc", "orders.shop.svc.example", "orders.shop.svc\n"),
    ),
    CIDR: (("10.0.0.0/8", "::/1", "2001:db8::/32"), ("", "10.0.0.0", "10.0.0.0/", "a.example/8", "10.0.0.0/8\n")),
    HTTPS_URL: (
        ("https://login.example.org", "https://[::1]:8443/realms/a%20b", "https://a/"),
        ("", "http://a", "https://", "https:///a", "https://a?b", "https://me@a", "https://a/\u00a0", "https://a\n"),
    ),
    DURATION: ((), ("", "24", "h", "1 h", "-1h", "+1h", "1d", "1us", ".5h", "1.h", "1.0000h", "1h30", "24h\n", "٢٤h")),
    TIMESTAMP: (
        (TIME, "2026-12-31T23:59:59.123456789+14:00", "1000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        ("", "2026-12-31", "2026-12-31T00:00:00", "2026-12-31t00:00:00z", f"{TIME}\n", "2026-12-31T00:00:00+24:00"),
    ),
}  # fmt: skip


def checks_of(node: Node, present: Any) -> Iterator[Check]:
    """Every constraint of a place with values at both sides of it; `present` is what a sample has there."""
    wrong_types = WRONG_TYPES.get(node.shape, ({},) if get_origin(node.shape) is Literal else ([],))
    yield Check("must be of type", (), wrong_types)
    if node.required:
        yield Check("Required value", (), (ABSENT,))
    if get_origin(node.shape) is Literal:
        choices = get_args(node.shape)
        yield Check("Unsupported value", choices, (False,) if choices == (True,) else ("", choices[0].lower(), "Other"))
        return
    if node.pattern:
        accepted, refused = EXAMPLES[node.pattern]
        yield Check("should match", accepted, refused)
    for says, kind, attribute, beyond in BOUNDS:
        bound = node.bound(kind, attribute)
        if bound is None:
            continue
        if kind in (Ge, Le):
            yield Check(says, (bound,), (bound + beyond,))
        else:
            reached = () if node.pattern == TIMESTAMP else (resized(node, present, bound),)
            yield Check(says, reached, (resized(node, present, bound + beyond),))


WRONG_TYPES: dict[Any, tuple[Any, ...]] = {
    str: (1, True, ["a"]),
    int: ("1", True, 1.5),
    bool: ("true", 1),
    list: ({}, "a"),
    dict: ([], "a"),
    timedelta: (24, ["24h"]),
    datetime: (0, True, {}),
}
# A bound, what the API server says, and the step across it.
BOUNDS: tuple[tuple[str, Any, str, int], ...] = (
    ("Too", MaxLen, "max_length", 1),  # Too long, Too many
    ("should ", MinLen, "min_length", -1),
    ("greater than or equal to", Ge, "ge", -1),
    ("less than or equal to", Le, "le", 1),
)


def resized(node: Node, present: Any, length: int) -> Any:
    """A value of exactly this length; the entries of a list differ where the API server wants them to."""
    if node.pattern == DURATION:  # what is valid in its range stays so with leading zeros
        return str(present).zfill(length)
    if node.shape not in (list, dict):
        return WORDS[node.pattern](length)
    if isinstance(present, dict):
        return {f"key{number}": next(iter(present.values())) for number in range(length)}
    first, algorithms = present[0], get_args(KeyAlgorithm)
    if first in algorithms:
        return list(islice(cycle(algorithms), length))
    keys = [key for key in ("name", "type", "issuer") if isinstance(first, dict) and key in first]
    return [{**first, **{key: f"{first[key]}{number}" for key in keys}} if keys else first for number in range(length)]


@pytest.mark.parametrize("node", NODES, ids=str)
def test_field_is_typed_and_bounded(server: ApiServer, targets: dict[str, Existing], node: Node) -> None:
    target, samples = targets[node.kind.name], samples_with(node.kind, node.path)
    kept: dict[tuple[str, int], list[str]] = {}
    for sample in samples:
        accepted, answer = submit(server, target, sample)
        assert accepted, answer["message"]
        for check in checks_of(node, get(sample, node.path)):
            for number, value in enumerate(check.accepted):
                accepted, answer = submit(server, target, put(sample, node.path, value))
                kept.setdefault((check.says, number), []).append("" if accepted else f"{value!r}: {answer['message']}")
            for value in check.refused:
                accepted, answer = submit(server, target, put(sample, node.path, value))
                assert not accepted, f"{value!r} is accepted"
                field = as_reported(sample, node.path)
                assert any(place == field and check.says in sentence for place, sentence in causes(answer)), (
                    f"{field}, {check.says!r}, {value!r}: {answer['message']}"
                )
    # Whether a value fits depends on its neighbours (mode: Selected wants a selector), so one sample is enough.
    refused = [answers[0] for answers in kept.values() if all(answers)]
    assert not refused


def test_every_string_list_and_map_is_bounded() -> None:
    sized = [node for node in NODES if node.shape in (str, list, dict, timedelta, datetime)]
    assert [str(node) for node in sized if node.bound(MaxLen, "max_length") is None] == []


# As in the documentation of the resources, written out: a change of a default must be seen and wanted.
DEFAULTS: dict[str, Body] = yaml.safe_load("""
TrustDomain:
  default: false
  clusterName: ""
  allowedNamespaces: {all: true}
  certificateAuthority: {source: SelfSigned, duration: 17520h, keyAlgorithm: ECDSA-P256, rotation: {}}
  identities:
    duration: 24h
    maxDuration: 2160h
    renewBeforePercentage: 33
    keyAlgorithms: [ECDSA-P256]
    enforcement: Enforce
    egress: Open
  bundle: {namespaces: {withIdentities: true}, refreshHint: 5m}
  isolation: {mode: None}
  dns:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    podSelector: {matchLabels: {k8s-app: kube-dns}}
    cidrs: [169.254.20.10/32]
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  identityProviders: []
  policyBundles: {validity: 24h, revocationValidity: 1h, onStaleRevocations: Deny}
ServiceIdentity:
  certificate: {keyRotation: Always}
  secret: {labels: {}, annotations: {}, formats: []}
  rotation: {}
  issuance: Active
  deletionPolicy: Delete
""")


# Fields that the server leaves out, because it would merge what comes later into its own.
ALTERNATIVES = (("allowedNamespaces",), ("bundle", "namespaces"), ("dns", "namespaceSelector"), ("dns", "podSelector"))


def unless_written(whole: Body, specification: Body) -> Body:
    """The specification with all defaults, but without those that the server leaves out."""
    kept = deepcopy(whole)
    for *parents, last in ALTERNATIVES:
        inside, written = kept, specification
        for parent in parents:
            inside, written = inside.get(parent) or {}, (written or {}).get(parent) or {}
        if not (written or {}).get(last):
            inside.pop(last, None)
    return kept


def as_read(kind: Kind, specification: Body) -> Body:
    """The specification with what the model fills in."""
    whole: Body = parse(kind.spec, specification, "spec").model_dump(mode="json", by_alias=True, exclude_none=True)
    return whole


def outside_lists(value: Any) -> Any:
    """What the server fills in as well: it leaves lists as they are written."""
    if isinstance(value, list):
        return len(value)
    return {name: outside_lists(part) for name, part in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("written", [{"spec": {}}, {}, {"spec": None}], ids=["empty spec", "no spec", "null spec"])
def test_an_empty_spec_gets_every_default(server: ApiServer, kind: Kind, written: Body) -> None:
    status, answer = server.try_to_create(kind, written)
    assert status == 201, answer["message"]
    assert as_read(kind, answer["spec"]) == as_read(kind, {}) == DEFAULTS[kind.name]
    assert answer["spec"] == unless_written(DEFAULTS[kind.name], {})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_server_and_model_fill_in_the_same_defaults(server: ApiServer, kind: Kind) -> None:
    written = [sample["spec"] for sample in SAMPLES[kind.name]]
    objects = [name for name, value in DEFAULTS[kind.name].items() if isinstance(value, dict)]
    # A union has no default of its own parts, so it cannot be written empty.
    written += [{name: {}} for name in objects if name != "allowedNamespaces"]
    written += [{name: None} for name in DEFAULTS[kind.name]]
    written += {
        "TrustDomain": [{"dns": {"ports": [{"port": 5353}]}}, {"certificateAuthority": {"rotation": None}}],
        "ServiceIdentity": [
            {"egress": {}},
            {"egress": {"allow": [{"cidr": "::/0", "ports": [{"port": 1}, {"port": 2, "protocol": None}]}]}},
            {"revocation": {"before": TIME}},
            {"secret": {"labels": {"gone": None, "stays": ""}, "formats": None}},
        ],
    }[kind.name]
    for specification in written:
        status, answer = server.try_to_create(kind, {"spec": specification})
        assert status == 201, f"{specification}: {answer['message']}"
        assert as_read(kind, answer["spec"]) == as_read(kind, specification)
        whole = unless_written(as_read(kind, specification), specification)
        assert outside_lists(answer["spec"]) == outside_lists(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"allowedNamespaces": {"selector": SELECTOR}},
        {"bundle": {"namespaces": {"all": True}}},
        {"bundle": {"namespaces": {"selector": SELECTOR}}},
        {"dns": {"podSelector": SELECTOR, "namespaceSelector": SELECTOR}},
    ],
    ids=["allowed", "bundle-all", "bundle-selector", "dns"],
)
def test_what_is_written_later_stands_alone(server: ApiServer, create: Callable[..., Existing], change: Body) -> None:
    """As in an object that was there before somebody chose: client-side and server-side apply send the same."""
    existing = create(TRUST_DOMAIN)
    code, answer = server.send("PATCH", existing.path, {"spec": change}, MERGE_PATCH)
    assert code == 200, answer["message"]
    ((part, written),) = change.items()
    assert answer["spec"][part] == {**unless_written(DEFAULTS["TrustDomain"], {}).get(part, {}), **written}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_status_is_a_subresource(server: ApiServer, create: Callable[..., Existing], kind: Kind) -> None:
    status = SAMPLES[kind.name][0]["status"]
    existing = create(kind, status=status)
    assert "status" not in server.send("GET", existing.path)[1]

    server.send("PATCH", existing.path, {"status": status}, MERGE_PATCH)
    assert "status" not in server.send("GET", existing.path)[1]

    changes_both = {"status": status, "spec": {"default": True, "issuance": "Paused"}}
    code, answer = server.send("PATCH", f"{existing.path}/status", changes_both, MERGE_PATCH)
    assert code == 200, answer["message"]
    present = server.send("GET", existing.path)[1]
    assert present["status"] == status
    assert present["spec"] == unless_written(DEFAULTS[kind.name], {})
    assert present["metadata"]["generation"] == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_conditions_are_a_list_keyed_by_type(server: ApiServer, create: Callable[..., Existing], kind: Kind) -> None:
    place = f"{create(kind).path}/status"
    for writer, type_ in (("one", "Ready"), ("two", "Isolated")):
        body = an_object(kind, place.split("/")[-2], status={"conditions": [{**CONDITION, "type": type_}]})
        code, answer = server.send("PATCH", f"{place}?fieldManager={writer}", body, SERVER_SIDE_APPLY)
        assert code == 200, answer["message"]
    assert [entry["type"] for entry in answer["status"]["conditions"]] == ["Ready", "Isolated"]

    code, answer = server.send("PATCH", place, {"status": {"conditions": [CONDITION, CONDITION]}}, MERGE_PATCH)
    assert code == 422
    assert causes(answer)[0] == ("status.conditions[1]", 'Duplicate value: {"type":"Ready"}')


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_definition_is_structural_and_established(server: ApiServer, kind: Kind) -> None:
    definition = server.send("GET", f"{DEFINITIONS}/{kind.plural}.{GROUP}")[1]
    assert condition(definition, "Established") == "True"
    assert condition(definition, "NamesAccepted") == "True"
    assert condition(definition, "NonStructuralSchema") is None
    installed = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    written = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert installed == written, "the API server dropped a part of the schema"


@dataclass(frozen=True)
class Kubectl:
    """kubectl as a user runs it; its cache of what the API server has is not older than the CRDs."""

    plane: ControlPlane
    cache: Path

    def __call__(self, *arguments: str) -> str:
        return self.plane.kubectl("--cache-dir", str(self.cache), *arguments)

    def table(self, *arguments: str) -> list[dict[str, str]]:
        """The rows of a table, each by the columns' titles."""
        title, *rows = self("get", *arguments).splitlines()
        starts = [found.start() for found in re.finditer(r"\S+", title)]
        cuts = list(zip(starts, [*starts[1:], None], strict=True))
        return [{title[a:b].strip(): row[a:b].strip() for a, b in cuts} for row in rows]


@pytest.fixture
def kubectl(server: ApiServer, control_plane: ControlPlane, tmp_path: Path) -> Kubectl:
    return Kubectl(control_plane, tmp_path)


COLUMNS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "TrustDomain": (
        {"READY": "True", "DEFAULT": "true", "IDENTITIES": "7", "IDENTITIES-READY": "6"},
        {"CA-EXPIRES": "9999-12-31T23:59:59Z", "REASON": "Issued"},
    ),
    "ServiceIdentity": (
        {
            "READY": "True",
            "SPIFFE-ID": "spiffe://example.org/ns/shop/sa/orders",
            "NOT-AFTER": TIME,
            "RENEWAL": TIME,
        },
        {"REASON": "Issued"},
    ),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kubectl_shows_the_columns_under_every_name(
    server: ApiServer, create: Callable[..., Existing], kubectl: Kubectl, kind: Kind
) -> None:
    existing = create(kind, spec={"default": True} if kind is TRUST_DOMAIN else {})
    status = {"status": SAMPLES[kind.name][0]["status"]}
    code, answer = server.send("PATCH", f"{existing.path}/status", status, MERGE_PATCH)
    assert code == 200, answer["message"]
    narrow, wide = COLUMNS[kind.name]
    short = {TRUST_DOMAIN.name: "td", SERVICE_IDENTITY.name: "svid"}[kind.name]
    where = ("-n", existing.namespace, existing.name)
    for name in (short, kind.plural, kind.name.lower()):
        (row,) = kubectl.table(name, *where)
        assert row.pop("AGE")
        assert row == {"NAME": existing.name, **narrow}
    (row,) = kubectl.table(short, *where, "-o", "wide")
    assert row.pop("AGE")
    assert row == {"NAME": existing.name, **narrow, **wide}


def test_the_category_lists_both_kinds(create: Callable[..., Existing], kubectl: Kubectl) -> None:
    created = [create(kind) for kind in KINDS]
    listed = kubectl("get", "zerotrust", "-A", "-o", "name").split()
    for existing in created:
        assert f"{existing.kind.name.lower()}.{GROUP}/{existing.name}" in listed


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_is_described(kind: Kind) -> None:
    schema = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["description"]
    silent = [path for path, field in properties_of(schema, "") if not field.get("description")]
    assert silent == ["metadata"]


def properties_of(schema: Body, path: str) -> Iterator[tuple[str, Body]]:
    """Every named field below a schema."""
    for name, field in schema.get("properties", {}).items():
        place = f"{path}.{name}".lstrip(".")
        yield place, field
        yield from properties_of(field.get("items", field), place)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kubectl_explains_every_field(kubectl: Kubectl, kind: Kind) -> None:
    schema = manifest_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = list(properties_of(schema, ""))
    parents = sorted({path.rpartition(".")[0] for path, _ in fields})
    explained = {parent: words(kubectl("explain", f"{kind.plural}.{parent}".rstrip("."))) for parent in parents}
    for path, field in fields:
        parent, _, name = path.rpartition(".")
        assert f" {name} <" in explained[parent], path
        if path not in ("apiVersion", "kind", "metadata"):  # Kubernetes has its own words for these
            assert words(field["description"]) in explained[parent], path


def words(text: str) -> str:
    """The text as kubectl may break its lines anywhere."""
    return " ".join(text.split())
