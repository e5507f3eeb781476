"""Whether decision points run in a way that keeps them closed: what can be seen of that in pods and ConfigMaps."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from zerotrust.bundleserver.caller import AUDIENCE
from zerotrust.cli.checking import Verdict
from zerotrust.cli.checks_cluster import Found
from zerotrust.cli.cluster import Body, Cluster
from zerotrust.common import naming
from zerotrust.common.conditions import some
from zerotrust.common.naming import Ref
from zerotrust.kube.resources import PODS
from zerotrust.opabundle.configuration import CONFIG_MAP

MAX_CONFIGURATIONS = 200  # ConfigMaps of Envoy that are read
_OPA = re.compile(r"(^|/)opa(:|@|$)")
_ENVOY = re.compile(r"(^|/)envoy(:|@|$)|envoyproxy/")
_OPENS = re.compile(r"failure_mode_allow[\"']?\s*:\s*(true|\"true\")")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "unix:")
GUIDE = "see docs/guides/decision-points.md#settings-that-keep-it-closed"


class Point(NamedTuple):
    """A pod with an OPA of ours: what is wrong with it, and the ConfigMaps that its Envoy reads."""

    place: str
    namespace: str
    problems: tuple[tuple[Verdict, str], ...]
    configurations: tuple[str, ...]


async def decision_points(cluster: Cluster) -> Found:
    """Look for settings of OPA and Envoy that would let requests through without a decision, or decisions be changed."""
    points = [one for one in await cluster.every(PODS, point_of) if one is not None]
    if not points:
        return [("ok", "no pod with an OPA of ours", "")]
    found: dict[tuple[Verdict, str], list[str]] = {}
    for one in points:
        for problem in one.problems:
            found.setdefault(problem, []).append(one.place)
    named = sorted({(one.namespace, name) for one in points for name in one.configurations})
    for namespace, name in named[:MAX_CONFIGURATIONS]:
        if await _opens(cluster, namespace, name):
            text = "failure_mode_allow: true lets requests through while OPA does not answer"
            found.setdefault(("fail", text), []).append(f"ConfigMap {namespace}/{name}")
    answers: list[tuple[Verdict, str, str]] = [
        (verdict, f"{some(places, ', ')}: {text}", GUIDE) for (verdict, text), places in sorted(found.items())
    ]
    if len(named) > MAX_CONFIGURATIONS:
        answers.append(("unknown", f"{len(named) - MAX_CONFIGURATIONS} of Envoy's ConfigMaps were not read", ""))
    return answers or [("ok", f"{len(points)} pods with OPA, nothing unsafe is seen in their settings", "")]


def point_of(pod: Body) -> Point | None:
    """Look at a pod; None where it has no OPA, or one that has nothing to do with us."""
    spec, metadata = pod.get("spec") or {}, pod["metadata"]
    boxes = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    volumes = spec.get("volumes") or ()
    configured = {one["name"] for one in volumes if (one.get("configMap") or {}).get("name") == CONFIG_MAP}
    ours = bool(configured) or _has_token(volumes) or naming.SERVICE_ACCOUNT in (metadata.get("labels") or {})
    opas = [
        box
        for box in boxes
        if _OPA.search(str(box.get("image", ""))) or (box.get("command") or [""])[0].endswith("opa")
    ]
    if not ours or not opas:
        return None
    problems = dict.fromkeys(problem for box in opas for problem in _problems(box, configured))
    envoys = [box for box in boxes if _ENVOY.search(str(box.get("image", "")))]
    place = f"{metadata['namespace']}/{metadata['name']}"
    return Point(place, metadata["namespace"], tuple(problems), tuple(_configurations(envoys, volumes)))


def _has_token(volumes: Iterable[Mapping[str, Any]]) -> bool:
    sources = [part for one in volumes for part in (one.get("projected") or {}).get("sources") or ()]
    return any((part.get("serviceAccountToken") or {}).get("audience") == AUDIENCE for part in sources)


def _problems(box: Mapping[str, Any], configured: set[str]) -> Iterator[tuple[Verdict, str]]:
    words = [str(word) for word in (*(box.get("command") or ()), *(box.get("args") or ()))]
    if any(word.startswith("--skip-verify") and not word.endswith("=false") for word in words):
        yield "fail", "OPA runs with --skip-verify, so anybody's bundle counts"
    for address in _values(words, "--addr", "-a"):
        if not address.startswith(_LOOPBACK):
            yield "fail", f"OPA listens on {address}: whoever reaches it can change its policies"
    if not {one["name"] for one in box.get("volumeMounts") or ()} & configured:
        yield "warn", f"OPA does not read ConfigMap {CONFIG_MAP}; whether its bundles are verified is not known"


def _values(words: list[str], *names: str) -> Iterator[str]:
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names and (equals or number + 1 < len(words)):
            yield value if equals else words[number + 1]


def _configurations(envoys: Iterable[Mapping[str, Any]], volumes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    mounted = {mount["name"] for box in envoys for mount in box.get("volumeMounts") or ()}
    for one in volumes:
        if one["name"] in mounted and "name" in (one.get("configMap") or {}):
            yield one["configMap"]["name"]


async def _opens(cluster: Cluster, namespace: str, name: str) -> bool:
    from zerotrust.kube.errors import NotFound

    try:
        body = await cluster.client.get(Ref("ConfigMap", namespace, name))
    except NotFound:
        return False
    return any(_OPENS.search(text) for text in (body.get("data") or {}).values())
