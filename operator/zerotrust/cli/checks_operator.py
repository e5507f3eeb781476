"""Whether the operator itself works: its controller, its bundle servers, and their rights."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from zerotrust.cli.checking import Verdict, install, listed
from zerotrust.cli.checks_cluster import LITTLE_SKEW, Found, is_ready
from zerotrust.cli.cluster import Cluster
from zerotrust.cli.leader import ago, read_leader
from zerotrust.common import naming
from zerotrust.common.conditions import some
from zerotrust.kube.resources import CONFIG_MAPS, ResourceType

CONTROLLER, BUNDLE_SERVER = "zerotrust-controller", naming.BUNDLE_SERVER
WATCHED = "ZEROTRUST_WATCH_NAMESPACES"
_MOST_AT_ONCE = 16


class Operator:
    """The checks of an operator in one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    async def controller(self, cluster: Cluster) -> Found:
        """Who leads, whether its clock is right, and how many replicas are ready."""
        leader = await read_leader(cluster, self._namespace)
        verdicts: dict[bool | None, Verdict] = {True: "ok", False: "fail", None: "unknown"}
        remedy = "" if leader.works is not False else "start one: docs/guides/install.md; or give --operator-namespace"
        found = [(verdicts[leader.works], leader.text, remedy)]
        if leader.renewed is not None and leader.renewed - cluster.now > LITTLE_SKEW:
            ahead = ago(leader.renewed - cluster.now)
            found.append(
                ("fail", f"the controller's clock is {ahead} ahead of the API server's", "correct its node's clock")
            )
        found += await self._replicas(cluster, CONTROLLER)
        return found

    async def bundle_servers(self, cluster: Cluster) -> Found:
        """How many bundle servers are ready, and for how many namespaces they report."""
        component = f"{naming.MANAGED_SELECTOR},{naming.COMPONENT}={naming.COMPONENT_BUNDLE_REPORT}"
        reports = await listed(cluster, _selected(CONFIG_MAPS, component), namespace=self._namespace) or []
        served = {namespace for report in reports for namespace in report.get("data") or {}}
        pods = await self._replicas(cluster, BUNDLE_SERVER)
        if not reports:
            text = "no bundle server reports; rules about requests are not enforced, and no API key is delivered"
            return [*pods, ("warn", text, "see docs/guides/install.md")]
        return [*pods, ("ok", f"{len(reports)} report, for {len(served)} namespaces", "")]

    async def _replicas(self, cluster: Cluster, name: str) -> list[tuple[Verdict, str, str]]:
        pods = await self._pods(cluster, name)
        if not pods:
            return []
        ready = [pod for pod in pods if is_ready(pod)]
        text = f"{len(ready)} of {len(pods)} pods of {name} ready"
        if not ready:
            return [("fail", text, f"kubectl describe pods -n {self._namespace} -l app.kubernetes.io/name={name}")]
        return [("ok" if len(ready) == len(pods) else "warn", text, "")]

    async def _pods(self, cluster: Cluster, name: str) -> list[Any]:
        resource = ResourceType("Pod", "", "v1", "pods", namespaced=True, selector=f"app.kubernetes.io/name={name}")
        return await listed(cluster, resource, namespace=self._namespace) or []

    async def rights(self, cluster: Cluster) -> Found:
        """Whether our ServiceAccounts may do what the install allows them, by SubjectAccessReviews."""
        found: list[tuple[Verdict, str, str]] = []
        for account in (CONTROLLER, BUNDLE_SERVER):
            pods = await self._pods(cluster, account)
            running = next((pod["spec"].get("serviceAccountName") for pod in pods), None) or account
            user = f"system:serviceaccount:{self._namespace}:{running}"
            mine = [one for one in install()["rights"] if one["account"] == account]
            asked = [(one, place) for one in mine for place in self._places(one, _watched(pods))]
            limit = asyncio.Semaphore(_MOST_AT_ONCE)
            allowed = await asyncio.gather(*(_may(cluster, limit, user, one, place) for one, place in asked))
            denied = [pair for pair, may in zip(asked, allowed, strict=True) if not may]
            if not denied:
                found.append(("ok", f"{running} has all {len(asked)} rights that it uses", ""))
                continue
            nothing = len(denied) == len(asked)
            lacking = "has none of its rights" if nothing else f"may not: {some(_told(denied), ', ')}"
            found.append(("fail", f"{running} {lacking}", "apply manifests/base or the chart"))
        return found

    def _places(self, right: Mapping[str, str], watched: list[str]) -> list[str]:
        """The namespaces in which a right is needed; an empty name is the whole cluster."""
        match right["scope"]:
            case "operator":
                return [self._namespace]
            case "namespaces":
                return [*watched, self._namespace] if watched else [""]
            case "default" if watched:
                return ["default"]
            case _:
                return [""]


def _told(denied: Sequence[tuple[Mapping[str, str], str]]) -> list[str]:
    verbs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for right, place in denied:
        resource = f"{right['resource']}.{right['group']}".rstrip(".") + (f"/{right['name']}" if right["name"] else "")
        verbs[resource, f" in {place}" if place else ""].append(right["verb"])
    return [f"{','.join(sorted(set(words)))} {resource}{place}" for (resource, place), words in sorted(verbs.items())]


def _watched(pods: list[Any]) -> list[str]:
    """The namespaces that a process is limited to; none means all."""
    found: list[str] = []
    for box in (box for pod in pods[:1] for box in pod["spec"].get("containers") or ()):
        words = [*(box.get("command") or ()), *(box.get("args") or ())]
        for number, word in enumerate(words):
            if word == "--watch-namespace":
                found += words[number + 1 : number + 2]
            elif word.startswith("--watch-namespace="):
                found.append(word.partition("=")[2])
        for variable in box.get("env") or ():
            if variable.get("name") == WATCHED:
                found += str(variable.get("value") or "").split()
    return found


async def _may(cluster: Cluster, limit: asyncio.Semaphore, user: str, right: Mapping[str, str], namespace: str) -> bool:
    resource, _, part = right["resource"].partition("/")
    attributes = {"verb": right["verb"], "group": right["group"], "resource": resource, "namespace": namespace}
    attributes |= {"subresource": part} if part else {}
    attributes |= {"name": right["name"]} if right["name"] else {}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {"user": user, "groups": _groups(user), "resourceAttributes": attributes},
    }
    async with limit:
        answer = await cluster.client.create(review)
    return bool((answer.get("status") or {}).get("allowed"))


def _groups(user: str) -> list[str]:
    """The groups that every ServiceAccount is in (Kubernetes docs, "Using RBAC Authorization")."""
    namespace = user.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def _selected(resource: ResourceType, selector: str) -> ResourceType:
    return ResourceType(resource.kind, resource.group, resource.version, resource.plural, resource.namespaced, selector)
