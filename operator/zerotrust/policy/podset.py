"""Sets of pods, described by labels: what network policies can say, with exact subtraction and intersection.

A pod belongs to a `PodSet` when its namespace meets every requirement of `namespace` and its own labels every one of `pod`.
Requirements have the meaning that Kubernetes gives them (docs: "Labels and Selectors"; NotIn also holds without the label).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zerotrust.common.selectors import LabelSelector

NAMESPACE_NAME = "kubernetes.io/metadata.name"

_OPPOSITE = {"In": "NotIn", "NotIn": "In", "Exists": "DoesNotExist", "DoesNotExist": "Exists"}


class Requirement(NamedTuple):
    """One requirement on a label; `values` are sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "In" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "In":
                return f"{self.key} in ({','.join(self.values)})"
            case "NotIn":
                return f"{self.key} notin ({','.join(self.values)})"
            case "Exists":
                return self.key
            case _:
                return f"!{self.key}"

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet the requirement."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


Selector = tuple[Requirement, ...]


def equal(key: str, *values: str) -> Requirement:
    """The label has one of these values."""
    return Requirement(key, "In", tuple(sorted(values)))


def selector_of(selector: LabelSelector | None) -> Selector:
    """Return a selector's requirements, sorted; none for an absent one."""
    if selector is None:
        return ()
    found = {equal(key, value) for key, value in (selector.match_labels or {}).items()}
    for one in selector.match_expressions or ():
        found.add(Requirement(one.key, one.operator, tuple(sorted(set(one.values or ())))))
    return tuple(sorted(found))


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Tell whether labels meet every requirement."""
    return all(one.holds(labels) for one in selector)


def contradictory(selector: Iterable[Requirement]) -> bool:
    """Tell whether no labels can meet all requirements."""
    allowed: dict[str, set[str]] = {}
    absent: set[str] = set()
    listed = list(selector)
    for one in listed:
        if one.operator == "In":
            allowed[one.key] = allowed[one.key] & set(one.values) if one.key in allowed else set(one.values)
        elif one.operator == "DoesNotExist":
            absent.add(one.key)
    for one in listed:
        if one.operator == "NotIn" and one.key in allowed:
            allowed[one.key] -= set(one.values)
    if any(not values for values in allowed.values()):
        return True
    return any(key in absent for key in allowed) or any(
        one.operator == "Exists" and one.key in absent for one in listed
    )


@dataclass(frozen=True, slots=True, order=True)
class PodSet:
    """Pods by the labels of their namespace and their own."""

    namespace: Selector
    pod: Selector

    @classmethod
    def within(cls, namespace: str, pod: Selector) -> "PodSet":
        """Pods of one namespace."""
        return cls((equal(NAMESPACE_NAME, namespace),), pod)

    def __str__(self) -> str:
        """In the words of `kubectl get pods -l`, such as `pods app=web in shop`."""
        places = [one for one in self.namespace if one.key == NAMESPACE_NAME and one.operator == "In"]
        rest = tuple(one for one in self.namespace if one not in places)
        where = [f"in {' or '.join(one.values)}" for one in places]
        where += [f"in namespaces with {_words(rest)}"] if rest else []
        return " ".join(["pods", *filter(None, [_words(self.pod)]), *where])

    def contains(self, namespace_labels: Mapping[str, str], pod_labels: Mapping[str, str]) -> bool:
        """Tell whether a pod belongs to the set."""
        return selects(self.namespace, namespace_labels) and selects(self.pod, pod_labels)

    def is_within(self, other: "PodSet") -> bool:
        """Tell whether every pod of this set surely belongs to the other."""
        return not self.minus(other)

    @property
    def is_empty(self) -> bool:
        """Tell whether the labels contradict themselves."""
        return contradictory(self.namespace) or contradictory(self.pod)

    def minus(self, other: "PodSet") -> list["PodSet"]:
        """Return disjoint sets that together hold every pod of this set and none of the other's."""
        both = PodSet(_joined(self.namespace, other.namespace), _joined(self.pod, other.pod))
        if both.is_empty:
            return [self]
        rest, namespace, pod = [], self.namespace, self.pod
        for one in other.namespace:
            rest.append(PodSet(_joined(namespace, (_negated(one),)), pod))
            namespace = _joined(namespace, (one,))
        for one in other.pod:
            rest.append(PodSet(namespace, _joined(pod, (_negated(one),))))
            pod = _joined(pod, (one,))
        return [one for one in rest if not one.is_empty]


def _words(selector: Selector) -> str:
    return ",".join(str(one) for one in selector)


def _negated(one: Requirement) -> Requirement:
    return Requirement(one.key, _OPPOSITE[one.operator], one.values)


def _joined(first: Selector, second: Selector) -> Selector:
    """Both together, without what is said twice."""
    joined = set(first) | set(second)
    for one in list(joined):
        # A list of exclusions beside a shorter one says the same and more.
        if one.operator == "NotIn" and any(
            two.key == one.key and two.operator == "In" and not set(two.values) & set(one.values) for two in joined
        ):
            joined.discard(one)
    return tuple(sorted(joined))


def to_kubernetes(selector: Selector) -> dict[str, Any]:
    """Return the LabelSelector object; single values become matchLabels, as people write them."""
    labels: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    for one in selector:
        if one.operator == "In" and len(one.values) == 1 and one.key not in labels:
            labels[one.key] = one.values[0]
        elif one.operator in ("In", "NotIn"):
            expressions.append({"key": one.key, "operator": one.operator, "values": list(one.values)})
        else:
            expressions.append({"key": one.key, "operator": one.operator})
    answer: dict[str, Any] = {}
    if labels:
        answer["matchLabels"] = labels
    if expressions:
        answer["matchExpressions"] = expressions
    return answer


def from_kubernetes(selector: Mapping[str, Any] | None) -> Selector:
    """Read a LabelSelector object as the API server has it; absent and empty ones select everything."""
    if not selector:
        return ()
    found = [equal(key, value) for key, value in (selector.get("matchLabels") or {}).items()]
    found += [
        Requirement(one["key"], one["operator"], tuple(sorted(one.get("values") or ())))
        for one in selector.get("matchExpressions") or ()
    ]
    return tuple(sorted(found))
