"""What is imported from, as far as it matters: pods and what makes them, Services, namespaces. Kubernetes API v1.

What these models do not name is ignored: they read objects of others, which are valid already.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.resource import Resource, parse
from zerotrust.policy.directory import Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.podset import NAMESPACE_NAME, PodSet, Requirement, Selector, selects

Body = Mapping[str, Any]
Labels = Mapping[str, str]
Protocol = Literal["TCP", "UDP", "SCTP"]

TEMPLATES = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "Pod": "v1",
}
# Labels that pods get from what makes them, so a template does not tell whether a selector with one of them matches.
SET_BY_CONTROLLERS = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)


class Loose(Resource):
    """A part of an object of which only some fields matter."""

    model_config = ConfigDict(extra="ignore")


class _SecretVolume(Loose):
    secret_name: str = ""


class _SecretName(Loose):
    name: str = ""


class _Projection(Loose):
    secret: _SecretName | None = None


class _Projected(Loose):
    sources: list[_Projection] = Field(default=[])


class _Volume(Loose):
    name: str = ""
    secret: _SecretVolume | None = None
    projected: _Projected | None = None


class _ValueFrom(Loose):
    secret_key_ref: _SecretName | None = None


class _Variable(Loose):
    value_from: _ValueFrom | None = None


class _Variables(Loose):
    secret_ref: _SecretName | None = None


class _ContainerPort(Loose):
    name: str = ""
    container_port: int
    protocol: Protocol = "TCP"


class _Container(Loose):
    name: str = ""
    ports: list[_ContainerPort] = Field(default=[])
    env: list[_Variable] = Field(default=[])
    env_from: list[_Variables] = Field(default=[])


class _PodSpec(Loose):
    service_account_name: str = ""
    containers: list[_Container] = Field(default=[])
    init_containers: list[_Container] = Field(default=[])
    volumes: list[_Volume] = Field(default=[])


class _ServicePort(Loose):
    port: int
    target_port: int | str | None = None
    protocol: Protocol = "TCP"


class _ServiceSpec(Loose):
    selector: dict[str, str] = Field(default={})
    ports: list[_ServicePort] = Field(default=[])


class SecretUse(NamedTuple):
    """A place where a pod uses a Secret; variables never see a renewal."""

    secret: str
    place: str
    is_variable: bool


@dataclass(frozen=True)
class Pod:
    """A pod that runs, or one that a workload would make; `names` are its named ports."""

    origin: str
    namespace: str
    labels: Labels
    account: str
    names: frozenset[tuple[str, PortOf]]
    declared: frozenset[PortOf]
    secrets: tuple[SecretUse, ...]
    unlabelled: bool = False

    @property
    def owner(self) -> Workload:
        """Its ServiceAccount."""
        return Workload(self.namespace, self.account)

    def numbers(self, name: str, protocol: str) -> frozenset[PortOf]:
        """The ports that it calls by that name."""
        return frozenset(port for known, port in self.names if known == name and port.protocol == protocol)


@dataclass
class World:
    """Everything that was read.

    `complete` are the namespaces of which every pod is known, `unread` those whose labels are not.
    """

    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    complete: set[str] = field(default_factory=set)
    pods: list[Pod] = field(default_factory=list)
    accounts: set[Workload] = field(default_factory=set)
    services: set[Workload] = field(default_factory=set)
    others: dict[str, list[tuple[str, Ref, Body]]] = field(default_factory=dict)
    _matching: dict[PodSet, list[Pod]] = field(default_factory=dict, init=False, repr=False)

    def labels(self, namespace: str) -> Labels:
        """The labels of a namespace; of one that was not read, its name."""
        return self.namespaces.get(namespace, {NAMESPACE_NAME: namespace})

    @cached_property
    def _by_owner(self) -> dict[str, dict[str, list[Pod]]]:
        found: dict[str, dict[str, list[Pod]]] = {}
        for pod in self.pods:
            found.setdefault(pod.namespace, {}).setdefault(pod.account, []).append(pod)
        return found

    def pods_of(self, owner: Workload) -> list[Pod]:
        """The pods of a ServiceAccount."""
        return self._by_owner.get(owner.namespace, {}).get(owner.name, [])

    def matching(self, pods: PodSet) -> list[Pod]:
        """The known pods of a set; looked for once."""
        if pods not in self._matching:
            places = [name for name in self._by_owner if selects(pods.namespace, self.labels(name))]
            candidates = (pod for name in places for mine in self._by_owner[name].values() for pod in mine)
            self._matching[pods] = [pod for pod in candidates if selects(pods.pod, pod.labels)]
        return self._matching[pods]

    def knows_all_of(self, pods: PodSet) -> bool:
        """Whether every pod of a set is known, as far as its labels are written in templates."""
        if self.unread and by_label(pods.namespace):
            return False
        places = [name for name, labels in self.namespaces.items() if selects(pods.namespace, labels)]
        return bool(places) and self.complete.issuperset(places) and not is_uncertain(pods.pod)


def by_label(namespaces: Selector) -> bool:
    """Whether namespaces are selected by other labels than their name."""
    return any(one.key != NAMESPACE_NAME for one in namespaces)


def is_uncertain(selector: Selector) -> bool:
    """Whether a selector asks for labels that templates do not have."""
    return any(one.key in SET_BY_CONTROLLERS for one in selector)


ANYWHERE: Selector = (Requirement(NAMESPACE_NAME, "Exists"),)


def read_world(objects: Iterable[tuple[str, Body]], complete: Iterable[str] | None = None) -> World:
    """Collect `(origin, object)`; SpecError names a field that cannot be read.

    Without `complete`, every pod of each namespace that is mentioned counts as known.
    """
    world, services = World(), []
    for origin, body in objects:
        metadata = body["metadata"]
        ref = Ref(body["kind"], metadata.get("namespace", ""), metadata["name"])
        if ref.kind == "Namespace":
            world.namespaces[ref.name] = {**(metadata.get("labels") or {}), NAMESPACE_NAME: ref.name}
            continue
        if ref.namespace:
            world.complete.add(ref.namespace)
        if ref.kind in TEMPLATES:
            pod = _pod(ref, body)
            world.pods += [pod] if pod is not None else []
        elif ref.kind == "ServiceAccount":
            world.accounts.add(Workload(ref.namespace, ref.name))
        elif ref.kind == "Service":
            world.services.add(Workload(ref.namespace, ref.name))
            services.append((ref.namespace, parse(_ServiceSpec, body.get("spec") or {}, f"{ref}: spec")))
        else:
            world.others.setdefault(ref.kind, []).append((origin, ref, body))
    world.unread = world.complete - world.namespaces.keys()
    for name in world.unread:
        world.namespaces[name] = {NAMESPACE_NAME: name}
    if complete is not None:
        world.complete = set(complete)
    world.pods = sorted((_served(pod, services) for pod in world.pods), key=lambda one: (one.owner, one.origin))
    for found in world.others.values():
        found.sort(key=lambda one: one[1])
    return world


def _pod(ref: Ref, body: Body) -> Pod | None:
    spec, path, template = body.get("spec") or {}, f"{ref}: spec", body
    for step in {"Pod": (), "CronJob": ("jobTemplate", "spec", "template")}.get(ref.kind, ("template",)):
        template = (spec if template is body else template).get(step) or {}
        path += f".{step}"
    if ref.kind == "Pod" and (body.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    inner = spec if ref.kind == "Pod" else template.get("spec") or {}
    read = parse(_PodSpec, inner, path if ref.kind == "Pod" else f"{path}.spec")
    labels = {str(key): str(value) for key, value in ((template.get("metadata") or {}).get("labels") or {}).items()}
    account = read.service_account_name or "default"
    ports = [port for container in (*read.init_containers, *read.containers) for port in container.ports]
    return Pod(
        origin=str(ref),
        namespace=ref.namespace,
        labels={naming.SERVICE_ACCOUNT: account, **labels} if ref.kind != "Pod" else labels,
        account=account,
        names=frozenset((one.name, PortOf(one.container_port, one.protocol)) for one in ports if one.name),
        declared=frozenset(PortOf(one.container_port, one.protocol) for one in ports),
        secrets=tuple(_uses(read)),
        unlabelled=ref.kind == "Pod" and labels.get(naming.SERVICE_ACCOUNT) != account,
    )


def _uses(spec: _PodSpec) -> Iterable[SecretUse]:
    for volume in spec.volumes:
        place = f"volume {volume.name}"
        if volume.secret is not None:
            yield SecretUse(volume.secret.secret_name, place, False)
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.secret is not None:
                yield SecretUse(source.secret.name, place, False)
    for container in (*spec.init_containers, *spec.containers):
        place = f"variables of container {container.name}"
        for variable in container.env:
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
                yield SecretUse(variable.value_from.secret_key_ref.name, place, True)
        for several in container.env_from:
            if several.secret_ref is not None:
                yield SecretUse(several.secret_ref.name, place, True)


def _served(pod: Pod, services: Iterable[tuple[str, _ServiceSpec]]) -> Pod:
    """The pod with the ports to which Services lead."""
    found = set(pod.declared)
    for namespace, service in services:
        if namespace != pod.namespace or not service.selector or not service.selector.items() <= pod.labels.items():
            continue
        for port in service.ports:
            target = port.port if port.target_port is None else port.target_port
            if isinstance(target, str):
                found |= pod.numbers(target, port.protocol)
            else:
                found.add(PortOf(target, port.protocol))
    return Pod(**{**pod.__dict__, "declared": frozenset(found)})
