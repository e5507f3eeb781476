"""Builders of what is imported: workloads, Certificates, NetworkPolicies as somebody wrote them."""

from typing import Any

from zerotrust.importing.objects import read_world
from zerotrust.importing.report import Left, Outcome
from zerotrust.importing.translate import translate

Body = dict[str, Any]


def an_object(kind: str, name: str, namespace: str = "shop", spec: Body | None = None, **metadata: Any) -> Body:
    place = {"namespace": namespace} if namespace else {}
    return {"kind": kind, "metadata": {"name": name, **place, **metadata}, "spec": spec or {}}


def a_namespace(name: str, **labels: str) -> Body:
    return an_object("Namespace", name, "", labels=labels)


def a_deployment(name: str, namespace: str = "shop", account: str | None = None, **more: Any) -> Body:
    """Its pods are labelled `app`; `ports` are `{name: number}`, `secret` is mounted, `env` read into variables."""
    ports = [{"name": key, "containerPort": number} for key, number in more.get("ports", {"https": 8443}).items()]
    variables = [{"secretRef": {"name": more["env"]}}] if "env" in more else []
    spec: Body = {
        "serviceAccountName": account or name,
        "containers": [{"name": "main", "image": "none", "ports": ports, "envFrom": variables}],
    }
    if "secret" in more:
        spec["volumes"] = [{"name": "tls", "secret": {"secretName": more["secret"]}}]
    labels = {"app": name, **more.get("labels", {})}
    return an_object("Deployment", name, namespace, {"template": {"metadata": {"labels": labels}, "spec": spec}})


def a_certificate(name: str = "orders", namespace: str = "shop", **spec: Any) -> Body:
    wanted = {"secretName": f"{name}-tls", "issuerRef": {"name": "internal", "kind": "ClusterIssuer"}, **spec}
    return an_object("Certificate", name, namespace, wanted)


def an_issuer(name: str = "internal", **spec: Any) -> Body:
    return an_object("ClusterIssuer", name, "", spec or {"ca": {"secretName": "internal-ca"}})


def a_network_policy(name: str, namespace: str = "shop", app: str | None = None, **spec: Any) -> Body:
    selector = {"matchLabels": {"app": app}} if app is not None else {}
    return an_object("NetworkPolicy", name, namespace, {"podSelector": selector, **spec})


def imported(*bodies: Body, **options: Any) -> Outcome:
    return translate(read_world(("file", body) for body in bodies), **options)


def the(outcome: Outcome, kind: str, name: str) -> Body:
    (found,) = (one.body for one in outcome.made if (one.body["kind"], one.body["metadata"]["name"]) == (kind, name))
    return found


def left(outcome: Outcome) -> dict[str, str]:
    """Path and reason of what is left over."""
    return {one.path: one.why for one in outcome.left}


def the_left(outcome: Outcome) -> Left:
    (one,) = outcome.left
    return one
