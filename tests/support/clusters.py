"""Small pretended clusters, and what may flow in them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, NamedTuple

Labels = Mapping[str, str]
Manifest = Mapping[str, Any]
NAMESPACE_NAME = "kubernetes.io/metadata.name"
# For documentation (RFC 5737), so it is no address of anybody.
NODE_ADDRESS, POD_ADDRESS = "192.0.2.1", "192.0.2.2"


@dataclass(frozen=True)
class Pod:
    """A pod; the TCP ports on which it listens and its ServiceAccount matter only where it is more than a description."""

    namespace: str
    name: str
    labels: Labels = field(default_factory=dict, hash=False)
    ports: tuple[int, ...] = ()
    account: str = "default"

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Cluster:
    """Namespaces with their labels (their names are added as Kubernetes does), pods, and NetworkPolicies."""

    namespaces: Mapping[str, Labels]
    pods: Sequence[Pod]
    policies: Sequence[Manifest] = ()

    def labels_of(self, namespace: str) -> Labels:
        return {**self.namespaces[namespace], NAMESPACE_NAME: namespace}

    def manifests(self) -> list[Manifest]:
        namespaces = (namespace_manifest(name, self.labels_of(name)) for name in self.namespaces)
        return [*namespaces, *map(pod_manifest, self.pods), *self.policies]


class Port(NamedTuple):
    """A port to ask about; `protocol` is TCP, UDP or SCTP."""

    protocol: str
    number: int


class Flow(NamedTuple):
    """A connection that is allowed; client and server are `namespace/pod`."""

    client: str
    server: str
    protocol: str
    port: int


def namespace_manifest(name: str, labels: Labels) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def pod_manifest(pod: Pod, address: str = POD_ADDRESS) -> Manifest:
    """A pod that runs and has an address; without one netpol-analyzer passes it over."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "hostIP": NODE_ADDRESS, "podIP": address, "podIPs": [{"ip": address}]},
    }


def flows(pods: Sequence[Pod], asked: Iterable[Port], allows: Callable[[Pod, Pod, Port], bool]) -> set[Flow]:
    """Those that are allowed, of every pair of different pods and every port that is asked for."""
    return {
        Flow(client.key, server.key, *port)
        for port in asked
        for client, server in permutations(pods, 2)
        if allows(client, server, port)
    }
