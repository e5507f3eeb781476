"""What the cluster can do: its version, admission policies, network plugin, Gatekeeper, our CRDs, its clock."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from zerotrust.cli.checking import Verdict, install, listed
from zerotrust.cli.cluster import Cluster
from zerotrust.cli.kinds import KINDS
from zerotrust.common import naming
from zerotrust.common.conditions import some
from zerotrust.common.crd import custom_resource_definition
from zerotrust.gatekeeper.observed import webhook_configuration
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.kube.resources import ADMISSION_POLICIES, CONSTRAINT_TEMPLATES, WEBHOOK_CONFIGURATIONS, ResourceType

Found = Iterable[tuple[Verdict, str, str]]

OLDEST, MUTATING = (1, 30), (1, 36)  # docs/guides/install.md
SKEW, LITTLE_SKEW = timedelta(seconds=30), timedelta(seconds=5)

_ADMISSION = "admissionregistration.k8s.io"
CRDS = ResourceType(
    "CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False
)
DAEMON_SETS = ResourceType("DaemonSet", "apps", "v1", "daemonsets", namespaced=True)
VALIDATING_BINDINGS = ResourceType(
    "ValidatingAdmissionPolicyBinding", _ADMISSION, "v1", "validatingadmissionpolicybindings", namespaced=False
)
MUTATING_POLICIES = ResourceType(
    "MutatingAdmissionPolicy", _ADMISSION, "v1", "mutatingadmissionpolicies", namespaced=False
)
MUTATING_BINDINGS = ResourceType(
    "MutatingAdmissionPolicyBinding", _ADMISSION, "v1", "mutatingadmissionpolicybindings", namespaced=False
)


async def version(cluster: Cluster) -> Found:
    """The version of Kubernetes."""
    told = await cluster.client.version()
    text = str(told.get("gitVersion", ""))
    found = re.match(r"v(\d+)\.(\d+)", text)
    if found is None:
        return [("unknown", f"the API server calls itself {text[:40]!r}", "")]
    number = (int(found[1]), int(found[2]))
    if number < OLDEST:
        return [("fail", f"{text}; 1.30 or newer is needed", "upgrade the cluster")]
    if number < MUTATING:
        return [
            ("warn", f"{text}: pods do not get their label by themselves before 1.36", "see docs/guides/pod-labels.md")
        ]
    return [("ok", text, "")]


async def admission_policies(cluster: Cluster) -> Found:
    """Whether our admission policies are installed and bound, as far as the cluster serves them."""
    found: list[tuple[Verdict, str, str]] = []
    for policies, bindings in ((ADMISSION_POLICIES, VALIDATING_BINDINGS), (MUTATING_POLICIES, MUTATING_BINDINGS)):
        wanted = [one["name"] for one in install()["policies"] if one["kind"] == policies.kind]
        there = await listed(cluster, policies)
        if there is None:
            why = "labels of pods are not set" if policies is MUTATING_POLICIES else "they protect nothing"
            found.append(("warn", f"{policies.kind} v1 is not served: {why}", "see docs/guides/pod-labels.md"))
            continue
        found += _installed(policies.kind, wanted, there, await listed(cluster, bindings) or [])
    return found


def _installed(
    kind: str, wanted: list[str], there: list[Any], bindings: list[Any]
) -> Iterator[tuple[Verdict, str, str]]:
    names = {one["metadata"]["name"] for one in there}
    bound = {one["spec"].get("policyName") for one in bindings if _denies(one)}
    if missing := sorted(set(wanted) - names):
        yield (
            "fail",
            f"{kind} {some(missing, ', ')} not installed",
            "kubectl apply -k manifests/admission, or the chart",
        )
    if loose := sorted((set(wanted) & names) - bound):
        yield (
            "fail",
            f"{kind} {some(loose, ', ')} installed, but no binding makes it refuse",
            "apply manifests/admission again",
        )
    if not missing and not loose:
        yield "ok", f"{len(wanted)} {kind} of ours installed and bound", ""


def _denies(binding: Mapping[str, Any]) -> bool:
    """A mutating binding has no actions: it always acts."""
    return "Deny" in (binding["spec"].get("validationActions") or ["Deny"])


class Plugin(NamedTuple):
    """A network plugin; `enforces` is None where that depends on its settings."""

    name: str
    pattern: str
    enforces: bool | None


_PLUGINS = (
    Plugin("Cilium", r"cilium|anetd", True),
    Plugin("Calico", r"calico-node", True),
    Plugin("Canal (Flannel with Calico)", r"canal", True),
    Plugin("Antrea", r"antrea-agent", True),
    Plugin("OVN-Kubernetes", r"ovnkube-node|ovnkube", True),
    Plugin("kube-router", r"kube-router", True),
    Plugin("Weave Net", r"weave-net", True),
    Plugin("Azure NPM", r"azure-npm", True),
    Plugin("kindnet", r"kindnet", None),
    Plugin("Amazon VPC CNI", r"aws-node", None),
    Plugin("Flannel", r"kube-flannel(-ds)?|flannel", False),
)
_AGENTS = ("aws-eks-nodeagent", "aws-network-policy-agent", "kube-network-policies")


async def network_plugin(cluster: Cluster) -> Found:
    """Which network plugin is there, by the names of DaemonSets: a guess, and never more."""
    sets = await listed(cluster, DAEMON_SETS) or []
    containers = {
        box.get("name", "") for one in sets for box in one["spec"]["template"]["spec"].get("containers") or ()
    }
    for plugin in _PLUGINS:
        seen = [one for one in sets if re.fullmatch(plugin.pattern, one["metadata"]["name"])]
        if not seen:
            continue
        place = f"DaemonSet {seen[0]['metadata']['namespace']}/{seen[0]['metadata']['name']}"
        guess = f"looks like {plugin.name}, by the name of {place}: a guess"
        if plugin.enforces or (plugin.enforces is None and any(one.startswith(_AGENTS) for one in containers)):
            return [("ok", f"{guess}; it enforces NetworkPolicies", "")]
        if plugin.enforces is None:
            return [("warn", f"{guess}; whether it enforces NetworkPolicies depends on its settings", _TRY)]
        return [("fail", f"{guess}; by itself it enforces no NetworkPolicy, so nobody is isolated", _TRY)]
    return [("unknown", "no DaemonSet has the name of a network plugin that is known here", _TRY)]


_TRY = "try it: docs/guides/network-policies.md"


async def gatekeeper(cluster: Cluster) -> Found:
    """Whether Gatekeeper is there, answers, and has our templates."""
    templates = await listed(cluster, CONSTRAINT_TEMPLATES)
    if templates is None:
        return [("ok", "not installed; policies say ConstraintsEnforced=Unknown, and native policies hold", "")]
    selector = ResourceType("Pod", "", "v1", "pods", namespaced=True, selector="gatekeeper.sh/system=yes")
    pods = await listed(cluster, selector) or []
    ready = [pod for pod in pods if is_ready(pod)]
    images = {box["image"].rpartition(":")[2] for pod in pods for box in pod["spec"]["containers"] if "image" in box}
    head = f"Gatekeeper {some(sorted(images), ', ') or 'of an unknown version'}, {len(ready)} of {len(pods)} pods ready"
    names = {one["metadata"]["name"]: bool((one.get("status") or {}).get("created")) for one in templates}
    missing = sorted({one.name for one in TEMPLATES.values()} - names.keys())
    idle = sorted(name for name, created in names.items() if not created)
    if not ready:
        return [("fail", f"{head}: its webhook cannot answer", "see its pods' logs")]
    configurations = await listed(cluster, WEBHOOK_CONFIGURATIONS) or []
    if not any(webhook_configuration(one).is_gatekeeper for one in configurations):
        text = f"{head}, and no ValidatingWebhookConfiguration: the API server does not ask them"
        return [("fail", text, "apply Gatekeeper's manifests again")]
    if missing:
        return [
            (
                "warn",
                f"{head}; without our templates {some(missing, ', ')}",
                "does the controller run? They are its own",
            )
        ]
    if idle:
        return [
            ("warn", f"{head}; templates {some(idle, ', ')} are not compiled yet", "see status.byPod of the template")
        ]
    return [("ok", f"{head}, our {len(TEMPLATES)} templates compiled", "")]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod says that it is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


async def definitions(cluster: Cluster) -> Found:
    """Whether the CRDs have every field that this program knows, and no other."""
    there = {one["metadata"]["name"]: one for one in await listed(cluster, CRDS) or []}
    found: list[tuple[Verdict, str, str]] = []
    for kind in KINDS:
        name = f"{kind.plural}.{naming.GROUP}"
        if name not in there:
            found.append(("fail", f"CRD {name} is missing", "kubectl apply -f crds/"))
            continue
        known = set(_fields(_schema(custom_resource_definition(kind)), ""))
        served = set(_fields(_schema(there[name]), ""))
        if lacking := sorted(known - served):
            text = f"CRD {name} is older than this program: it lacks {some(lacking, ', ')}"
            found.append(("warn", text, "kubectl apply -f crds/"))
        elif unknown := sorted(served - known):
            text = f"CRD {name} is newer than this program: it has {some(unknown, ', ')}"
            found.append(("warn", text, "use the command line of the installed version"))
    return found or [("ok", f"the {len(KINDS)} CRDs are those of this program", "")]


def _schema(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    versions = [one for one in definition["spec"]["versions"] if one["name"] == naming.VERSION]
    return versions[0]["schema"]["openAPIV3Schema"] if versions else {}


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}{name}"
        yield from _fields(child, f"{path}{name}.")
    if isinstance(schema.get("items"), Mapping):
        yield from _fields(schema["items"], path)


async def clock(cluster: Cluster) -> Found:
    """How far this machine's clock and the API server's are apart, by the Date of its answers, which are whole seconds."""
    await cluster.client.version()
    skew = cluster.client.skew
    if skew is None:
        return [("unknown", "the API server's answers have no Date", "")]
    apart = f"this machine is {abs(skew).total_seconds():.0f}s {'ahead of' if skew > timedelta() else 'behind'} the API server"
    if abs(skew) > SKEW:
        return [("fail", apart, "correct the clock: certificates and keys are judged by time")]
    return [("warn", apart, "correct the clock") if abs(skew) > LITTLE_SKEW else ("ok", apart, "")]
