"""Every attack that is to be refused, by what a reader would call it, with what the refusal says."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.support.attacks import Attack, AttackBook, Body, a_pod, environment_of, uses_of
from tests.support.bank import NAMESPACE, SELECTOR
from zerotrust.common import naming
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, TEMPLATES

BOOK = AttackBook(NAMESPACE)
FOREIGN = "registry.example.org.evil.example/app:1"
OURS = {naming.MANAGED_BY: naming.OPERATOR}
TELLERS = {naming.SERVICE_ACCOUNT: "teller"}

# The API server's own policy says it as well as Gatekeeper does; either may be the first.
DERIVED = r'zerotrust\.dev/service-account"?\]? is "teller", but '
STAYS = r'of this pod may only become "teller"|ServiceIdentity teller: metadata\.labels would no longer match'
OTHERS = r'ServiceIdentity clerk: metadata\.labels\["zerotrust\.dev/service-account"\] is "clerk"'
SELECTED = r"ServiceIdentity ledger: metadata\.labels match its selector \(app=ledger\)"
LEAVES = r"ServiceIdentity ledger: metadata\.labels would no longer match its selector \(app=ledger\)"
SVID = 'ServiceIdentity teller: .*"teller-svid", a credential that only pods of ServiceAccount "teller" may use'
KEY = 'ApiKey partner: .*"partner-api-key", a credential that only pods of ServiceAccount "clerk" may use'
HOST = r"TrustPolicy everything: spec\.\S+ is \S+, but pods of ServiceAccount .teller. may not share"
IMAGE = r"TrustPolicy everything: \S+ is .*, which is from none of the allowed registries"
KEPT = f"NetworkPolicy {NAMESPACE}/zt-teller is kept by the zerotrust-operator"
CAPTURE = "ServiceIdentity teller: "
FORBIDDEN = r'User "tenant" cannot \w+ resource'


def _labels(labels: Body) -> Body:
    return {"metadata": {"labels": labels}}


def _spoofing() -> Iterator[tuple[str, Attack]]:
    make, change = BOOK.creating, BOOK.patching
    yield "derived label on create", make(a_pod("spoof", "intruder", TELLERS), DERIVED)
    yield "selector's label on create", make(a_pod("spoof", "intruder", SELECTOR), SELECTED)
    yield "selector's label, no ServiceAccount named", make(a_pod("spoof", "", SELECTOR), SELECTED)
    both = a_pod("spoof", "intruder", TELLERS, serviceAccount="teller")
    yield "derived label, two ServiceAccounts named", make(both, DERIVED)
    yield "selector's label, another identity", make(a_pod("spoof", "teller", SELECTOR), SELECTED)
    yield "derived label on update", change("Pod", "intruder-0", _labels(TELLERS), DERIVED_UPDATE)
    yield "selector's label on update", change("Pod", "intruder-0", _labels(SELECTOR), SELECTED)
    yield "leaving the derived label", change("Pod", "teller-0", _labels({naming.SERVICE_ACCOUNT: None}), STAYS)
    yield (
        "another derived label",
        change("Pod", "teller-0", _labels({naming.SERVICE_ACCOUNT: "clerk"}), STAYS + "|" + OTHERS),
    )
    yield "leaving the selector", change("Pod", "ledger-0", _labels({"app": None}), LEAVES)
    yield "another value for the selector", change("Pod", "ledger-0", _labels({"app": "x"}), LEAVES)
    bare = "ServiceIdentity ledger: .* and would escape its NetworkPolicy"
    yield "unlabelled under the ServiceAccount", make(a_pod("bare", "ledger"), bare)
    yield (
        "derived label through pods/status",
        change("Pod", "intruder-0", _labels(TELLERS), FORBIDDEN, subresource="status"),
    )
    yield (
        "derived label through pods/status, with the right",
        change("Pod", "intruder-0", _labels(TELLERS), DERIVED_UPDATE, "admin", "status"),
    )
    yield "derived label through a Binding", BOOK.creating(_binding(TELLERS), FORBIDDEN)
    yield "derived label through a Binding, with the right", BOOK.creating(_binding(TELLERS), BOUND, "admin")
    mirror = a_pod("mirror", "", SELECTOR, nodeName="node-1")
    del mirror["spec"]["serviceAccountName"]
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    yield "a mirror pod with the selector's label", make(mirror, SELECTED)
    labelled = {**mirror, "metadata": {**mirror["metadata"], "labels": TELLERS}}
    yield "a mirror pod with the derived label", make(labelled, "a pod without ServiceAccount|" + DERIVED)


DERIVED_UPDATE = r'of this pod may only become "intruder"|' + DERIVED
BOUND = "a Binding cannot carry the label zerotrust.dev/service-account"


def _binding(labels: Body) -> Body:
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "intruder-0", "labels": labels},
        "target": target,
    }


def _swaps() -> Iterator[tuple[str, Attack]]:
    """Of a Deployment the template is free: its pods are looked at when the ReplicaSet's controller makes them."""
    for what, labels, expected in (("derived", TELLERS, DERIVED), ("selector's", SELECTOR, SELECTED)):
        pod = a_pod("swapped", "intruder", labels)
        yield f"template swapped, {what} label kept", BOOK.creating(pod, expected, "replica sets")
    swap = {"spec": {"serviceAccountName": "teller"}}
    yield "ServiceAccount of a running pod", BOOK.patching("Pod", "intruder-0", swap, "may not change fields")


def _credentials() -> Iterator[tuple[str, Attack]]:
    for use, spec in uses_of("teller-svid").items():
        yield f"SVID: {use}", BOOK.creating(a_pod("thief", "intruder", **spec), SVID)
    for use in ("volume secret", "volume projected", "envFrom in containers"):
        spec = uses_of("partner-api-key")[use]
        for account in ("intruder", "teller"):
            yield f"API key by {account}: {use}", BOOK.creating(a_pod("thief", account, **spec), KEY)
    outside = a_pod("thief", "clerk", **uses_of("outside-api-key")["env in containers"])
    yield "API key of a holder outside", BOOK.creating(outside, "ApiKey outside: .* that no pod may use")
    for name, expected in (("teller-svid", SVID), ("partner-api-key", KEY)):
        for form, given in environment_of(name).items():
            container = {"ephemeralContainers": [{"name": "debugger", **given}]}
            attack = BOOK.patching(
                "Pod", "intruder-0", {"spec": container}, expected, subresource="ephemeralcontainers"
            )
            yield f"ephemeral container: {form} of {name}", attack
    volume = {"driver": "csi.example.org", "volumeHandle": "x"}
    volume["nodePublishSecretRef"] = {"name": "teller-svid", "namespace": NAMESPACE}  # type: ignore[assignment]
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": volume}
    persistent = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "thief"}, "spec": spec}
    yield "SVID: a PersistentVolume's nodePublishSecretRef", BOOK.creating(persistent, FORBIDDEN)


def _hosts() -> Iterator[tuple[str, Attack]]:
    for form in ("hostNetwork", "hostPID", "hostIPC"):
        yield form, BOOK.creating(a_pod("host", "teller", {}, **{form: True}), HOST)
    for kind in ("containers", "initContainers"):
        ports = [{"containerPort": 8443, "hostPort": 8443}]
        given: Body = {"name": "one", "image": "registry.example.org/app:1", "ports": ports}
        yield f"hostPort in {kind}", BOOK.creating(a_pod("host", "teller", {}, **{kind: [given]}), HOST)


def _images() -> Iterator[tuple[str, Attack]]:
    for what, image in (
        ("a similar registry", FOREIGN),
        ("a short name", "nginx"),
        ("user info", "registry.example.org@x/y"),
    ):
        given: Any = [{"name": "main", "image": image}]
        expected = IMAGE if what != "user info" else "TrustPolicy everything: .* which is no image reference"
        yield f"image: {what}", BOOK.creating(a_pod("image", "teller", containers=given), expected)
    first = a_pod("image", "teller", initContainers=[{"name": "first", "image": FOREIGN}])
    yield "image of an init container", BOOK.creating(first, IMAGE)
    volume = a_pod("image", "teller", volumes=[{"name": "v", "image": {"reference": FOREIGN}}])
    yield "image as a volume", BOOK.creating(volume, IMAGE)
    exchanged = {"spec": {"containers": [{"name": "main", "image": FOREIGN}]}}
    yield "image exchanged", BOOK.patching("Pod", "teller-0", exchanged, IMAGE)
    debugger = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": FOREIGN}]}}
    yield (
        "image of an ephemeral container",
        BOOK.patching("Pod", "teller-0", debugger, IMAGE, subresource="ephemeralcontainers"),
    )


def _objects() -> Iterator[tuple[str, Attack]]:
    policy = ("NetworkPolicy", "zt-teller")
    opened: Body = {"spec": {"ingress": [{}]}}
    yield "NetworkPolicy edited", BOOK.patching(*policy, opened, KEPT)
    yield "NetworkPolicy deleted", BOOK.deleting(*policy, KEPT)
    yield "all NetworkPolicies deleted", BOOK.deleting("NetworkPolicy", "", "is kept by the zerotrust-operator")
    yield "NetworkPolicy called orphaned", BOOK.patching(*policy, _labels({naming.ORPHANED: "true"}), KEPT)
    yield "NetworkPolicy edited by an administrator", BOOK.patching(*policy, opened, KEPT, "admin")
    yield (
        "SVID's Secret edited",
        BOOK.patching(
            "Secret", "teller-svid", {"data": {"ca.crt": "b29wcw=="}}, f"Secret {NAMESPACE}/teller-svid is kept by"
        ),
    )
    yield "SVID's Secret deleted", BOOK.deleting("Secret", "teller-svid", f"Secret {NAMESPACE}/teller-svid is kept by")
    template, name = TEMPLATES[CREDENTIALS].name, f"{NAMESPACE}.enforce"
    dryrun = {"spec": {"enforcementAction": "dryrun"}}
    for who in ("tenant", "admin"):
        by = "" if who == "tenant" else " by an administrator"
        expected = (
            FORBIDDEN if who == "tenant" else "is kept by the zerotrust-operator, which alone changes and deletes it"
        )
        yield f"Constraint edited{by}", BOOK.patching(CREDENTIALS, name, dryrun, expected, who)
        yield f"Constraint deleted{by}", BOOK.deleting(BINDING, name, expected, who)
        yield (
            f"ConstraintTemplate edited{by}",
            BOOK.patching("ConstraintTemplate", template, {"spec": {"targets": []}}, expected, who),
        )
        yield f"ConstraintTemplate deleted{by}", BOOK.deleting("ConstraintTemplate", template, expected, who)
    webhook = "gatekeeper-validating-webhook-configuration"
    yield "webhook configuration deleted", BOOK.deleting("ValidatingWebhookConfiguration", webhook, FORBIDDEN)
    for protection in ("zerotrust-protected-objects", "zerotrust-pod-labels"):
        yield (
            f"Binding of {protection} deleted",
            BOOK.deleting("ValidatingAdmissionPolicyBinding", protection, FORBIDDEN),
        )


def _namespaces() -> Iterator[tuple[str, Attack]]:
    labels = {
        naming.EXEMPT: "by those who may update TrustDomains",
        "admission.gatekeeper.sh/ignore": "Only exempt namespace can have the admission.gatekeeper.sh/ignore label",
    }
    for label, expected in labels.items():
        for who, said in (("tenant", FORBIDDEN), ("labeller", expected)):
            by = "" if who == "tenant" else ", with the right"
            yield (
                f"namespace labelled {label}{by}",
                BOOK.patching("Namespace", NAMESPACE, _labels({label: "yes"}), said, who),
            )


def service(name: str, **spec: Any) -> Body:
    """A Service, with a port."""
    given = {"ports": [{"port": 8443}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}


def slice_of(name: str, service_name: str) -> Body:
    """Endpoints made by hand."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service_name}},
        "addressType": "IPv4",
        "ports": [{"port": 8443}],
        "endpoints": [{"addresses": ["192.0.2.66"]}],
    }


def _services() -> Iterator[tuple[str, Attack]]:
    change, make = BOOK.patching, BOOK.creating
    alias = {"type": "ExternalName", "externalName": "evil.example.org", "selector": None, "clusterIP": None}
    away = {"spec": {**alias, "clusterIPs": None}}
    yield "Service becomes an alias", change("Service", "teller", away, CAPTURE + 'spec.type is "ExternalName"')
    other = {"spec": {"selector": {naming.SERVICE_ACCOUNT: "intruder"}}}
    yield (
        "Service's selector changed",
        change("Service", "teller", other, CAPTURE + r"spec\.selector\[.* is \"intruder\""),
    )
    unselected = {"spec": {"selector": None}}
    yield "Service's selector removed", change("Service", "teller", unselected, CAPTURE + "spec.selector is empty")
    external = service("ledger", type="ExternalName", externalName="evil.example.org", ports=None)
    yield "Service made as an alias", make(external, 'ServiceIdentity ledger: spec.type is "ExternalName"')
    yield (
        "Service made for other pods",
        make(service("ledger", selector={"app": "x"}), 'ServiceIdentity ledger: .* is "x"'),
    )
    yield "Service made without selector", make(service("ledger"), "ServiceIdentity ledger: spec.selector is empty")
    for name in (f"teller.{NAMESPACE}.svc.cluster.local", f"TELLER.{NAMESPACE}.svc", f"pod-0.teller.{NAMESPACE}.svc."):
        body = service("shadow", type="ExternalName", externalName=name, ports=None)
        yield f"another Service as alias: {name}", make(body, "ServiceIdentity teller: spec.externalName is|is invalid")
    yield (
        "EndpointSlice by hand",
        make(slice_of("captured", "teller"), CAPTURE + ".* only the cluster's controllers write"),
    )
    captured = {"metadata": {"labels": {"kubernetes.io/service-name": "teller"}}}
    yield (
        "EndpointSlice relabelled",
        change("EndpointSlice", "other-0", captured, CAPTURE + ".* only the cluster's controllers write"),
    )
    subsets = [{"addresses": [{"ip": "192.0.2.66"}], "ports": [{"port": 8443}]}]
    body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "ledger"}, "subsets": subsets}
    yield "Endpoints by hand", make(body, "ServiceIdentity ledger: .* only the cluster's controllers write")
    edited = {"subsets": subsets}
    yield "Endpoints edited", change("Endpoints", "teller", edited, CAPTURE + ".* only the cluster's controllers write")


ATTACKS: dict[str, Attack] = {
    name: attack
    for part in (_spoofing, _swaps, _credentials, _hosts, _images, _objects, _namespaces, _services)
    for name, attack in part()
}

# docs/adr/0011-constraint-templates.md says so, and why. Each is tried by somebody who has the right.
OPEN: dict[str, Attack] = {
    name: replace(attack, path=f"{attack.path}?dryRun=All")
    for name, attack in {
        "selector's label through pods/status": BOOK.patching(
            "Pod", "intruder-0", _labels(SELECTOR), SELECTED, "admin", "status"
        ),
        "selector's label through a Binding": BOOK.creating(_binding(SELECTOR), SELECTED, "admin"),
        "SVID's Secret read by RBAC": BOOK.reading("Secret", "teller-svid", FORBIDDEN),
    }.items()
}

# What nothing but the API server itself is to refuse, when there is no webhook.
WITHOUT_WEBHOOK = (
    "derived label on create",
    "selector's label on create",
    "selector's label on update",
    "unlabelled under the ServiceAccount",
    "template swapped, selector's label kept",
    "SVID: volume secret",
    "SVID: envFrom in a sidecar",
    "API key by intruder: volume projected",
    "hostNetwork",
    "image exchanged",
    "Service becomes an alias",
    "EndpointSlice by hand",
    "NetworkPolicy edited",
    "Constraint deleted by an administrator",
)
