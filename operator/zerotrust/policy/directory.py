"""What policies are resolved against: identities, the labels of namespaces, identity providers and API keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from zerotrust.common import naming
from zerotrust.common.selectors import LabelSelector
from zerotrust.policy.podset import PodSet, Selector, equal


class Workload(NamedTuple):
    """The place of a ServiceIdentity; written `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def default_selector(service_account: str) -> Selector:
    """The pods of a ServiceAccount, by the label that the admission policies derive from it."""
    return (equal(naming.SERVICE_ACCOUNT, service_account),)


@dataclass(frozen=True)
class Identity:
    """What policies need to know about a ServiceIdentity.

    `enforcement` Observe: nothing of it is isolated. `resolved` is False while the identity itself is refused, for example
    because an older one has its ServiceAccount: nothing is granted to or by it then. `domain_known` is False while its
    TrustDomain, with the defaults and the `providers`, is gone; its certificates and grants go on.
    """

    workload: Workload
    labels: Mapping[str, str]
    pods: Selector
    enforcement: Literal["Enforce", "Observe"] = "Enforce"
    egress: Literal["Open", "Isolated"] = "Open"
    calls: frozenset[Workload] = frozenset()
    resolved: bool = True
    domain_known: bool = True
    providers: frozenset[str] = frozenset()
    spec: Any = field(default=None, compare=False)

    @property
    def pod_set(self) -> PodSet:
        """The pods of the identity."""
        return PodSet.within(self.workload.namespace, self.pods)

    @property
    def is_labelled(self) -> bool:
        """Whether its pods are told by the derived label and nothing else."""
        return len(self.pods) == 1 and self.pods == default_selector("".join(self.pods[0].values))


class Directory(Protocol):
    """Where the compiler looks things up."""

    def identity(self, workload: Workload) -> Identity | None:
        """The ServiceIdentity at that place."""

    def identities(self, namespace: str | None = None) -> Iterable[Identity]:
        """Every ServiceIdentity, of one namespace or of all."""

    def selected_otherwise(self) -> Iterable[Identity]:
        """Every ServiceIdentity whose pods are not told by the derived label."""

    def namespaces(self) -> Iterable[tuple[str, Mapping[str, str]]]:
        """Every namespace with its labels."""

    def watches(self, namespace: str) -> bool:
        """Whether what is in a namespace is known: the controller may work in some namespaces only."""

    def api_key_scopes(self, workload: Workload) -> frozenset[str] | None:
        """The scopes of the ApiKey at that place, or None when there is none."""


@dataclass
class PlainDirectory:
    """A directory over plain maps: for manifests from files, and for tests."""

    by_workload: dict[Workload, Identity] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    api_keys: dict[Workload, frozenset[str]] = field(default_factory=dict)
    unwatched: frozenset[str] = frozenset()

    def identity(self, workload: Workload) -> Identity | None:
        """The ServiceIdentity at that place."""
        return self.by_workload.get(workload)

    def identities(self, namespace: str | None = None) -> Iterable[Identity]:
        """Every ServiceIdentity, of one namespace or of all."""
        return [one for one in self.by_workload.values() if namespace in (None, one.workload.namespace)]

    def selected_otherwise(self) -> Iterable[Identity]:
        """Every ServiceIdentity whose pods are not told by the derived label."""
        return [one for one in self.by_workload.values() if not one.is_labelled]

    def namespaces(self) -> Iterable[tuple[str, Mapping[str, str]]]:
        """Every namespace with its labels."""
        return self.labels.items()

    def watches(self, namespace: str) -> bool:
        """Whether what is in a namespace is known."""
        return namespace not in self.unwatched

    def api_key_scopes(self, workload: Workload) -> frozenset[str] | None:
        """The scopes of the ApiKey at that place, or None when there is none."""
        return self.api_keys.get(workload)


def named_namespaces(directory: Directory, selector: LabelSelector | None, own: str) -> list[str]:
    """The namespaces that a selector selects, sorted; the policy's own when there is no selector."""
    if selector is None:
        return [own]
    return sorted(name for name, labels in directory.namespaces() if selector.matches(labels))


def unwatched(directory: Directory, selector: LabelSelector | None, own: str) -> list[str]:
    """The namespaces among them of which nothing is known."""
    return [name for name in named_namespaces(directory, selector, own) if not directory.watches(name)]
