"""What identities, policies and keys mean, said once more in plain Python, is what the constraints made from them do to pods.

The operator's own compiler makes the constraints, and the real gator evaluates them; here stands only who may do what.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.support.gator import violations
from tests.support.proving import PROVING
from zerotrust.common import naming
from zerotrust.gatekeeper.constraints import manifests
from zerotrust.gatekeeper.projection import Demand, KeySecret, Subject, merged, of_key, of_subject
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, HOST_ACCESS, IMAGES, LABELS
from zerotrust.policy.directory import default_selector
from zerotrust.policy.podset import Requirement, Selector, equal
from zerotrust.policy.resource import Admission

WORLDS = 40 if PROVING else 6
PODS = 120
KINDS = (BINDING, LABELS, CREDENTIALS, HOST_ACCESS, IMAGES)
ACCOUNTS = ("orders", "batch", "web", "reports", "default")
DIGEST = "@sha256:" + "a" * 64
IMAGE_NAMES = (
    "nginx",
    "example.org/shop/app:1",
    f"example.org/shop/app{DIGEST}",
    "example.org:5000/app",
    f"evil.example/x{DIGEST}",
)
HOSTS_OF = {
    "nginx": "docker.io/library",
    "example.org:5000/app": "example.org:5000",
    f"evil.example/x{DIGEST}": "evil.example",
}


class World(NamedTuple):
    """Identities of one namespace, each with another ServiceAccount, and ApiKeys."""

    subjects: tuple[Subject, ...]
    keys: tuple[KeySecret, ...]


class Finding(NamedTuple):
    """A pod that a constraint of a kind and an action is against."""

    kind: str
    action: str
    pod: str


def a_world(seed: int) -> World:
    dice = Random(seed)
    subjects = tuple(a_subject(dice, account) for account in ACCOUNTS if dice.random() < 0.8)
    keys = (KeySecret("partner", "partner-api-key", ()), KeySecret("nightly", "nightly-api-key", ("batch",)))
    return World(subjects, keys)


def a_subject(dice: Random, account: str) -> Subject:
    own: list[Selector] = [
        (equal("app", account),),
        (equal("app", account, "shared"), Requirement("track", "NotIn", ("canary",))),
        (Requirement(f"is-{account}", "Exists"), Requirement("legacy", "DoesNotExist")),
    ]
    demands = [
        Demand("a", dice.random() < 0.7, Admission(allowed_registries=["example.org/shop", "docker.io/library/"])),
        Demand("b", dice.random() < 0.7, Admission(deny_host_network=dice.random() < 0.5, require_digest=True)),
    ]
    return Subject(
        name=f"{account}-identity",
        account=account,
        pods=default_selector(account) if dice.random() < 0.5 else dice.choice(own),
        enforced=dice.random() < 0.7,
        secret=f"{account}-svid" if dice.random() < 0.9 else None,
        labelled=dice.random() < 0.5,
        demands=tuple(one for one in demands if dice.random() < 0.6),
    )


def a_pod(seed: int) -> dict[str, Any]:
    dice = Random(f"pod {seed}")
    labels = {naming.SERVICE_ACCOUNT: dice.choice(ACCOUNTS)} if dice.random() < 0.6 else {}
    if dice.random() < 0.6:
        labels["app"] = dice.choice((*ACCOUNTS, "shared"))
    labels |= {key: "" for key in ("legacy", f"is-{dice.choice(ACCOUNTS)}") if dice.random() < 0.3}
    if dice.random() < 0.3:
        labels["track"] = dice.choice(("canary", "stable"))
    container: dict[str, Any] = {"name": "main", "image": dice.choice(IMAGE_NAMES)}
    spec: dict[str, Any] = {"containers": [container]}
    if (account := dice.choice(ACCOUNTS)) != "default":
        spec["serviceAccountName"] = account
    if dice.random() < 0.7:
        use = dice.choice(USES)
        use(
            spec,
            container,
            dice.choice([*(f"{one}-svid" for one in ACCOUNTS), "partner-api-key", "nightly-api-key", "own"]),
        )
    match dice.randrange(6):
        case 0:
            spec["hostNetwork"] = True
        case 1:
            container["ports"] = [{"containerPort": 80, "hostPort": 8080}]
        case 2:
            spec["hostPID"] = False
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{seed}", "namespace": "shop", "labels": labels},
        "spec": spec,
    }


def _volume(spec: dict[str, Any], _: dict[str, Any], secret: str) -> None:
    spec["volumes"] = [{"name": "v", "secret": {"secretName": secret}}]


def _projected(spec: dict[str, Any], _: dict[str, Any], secret: str) -> None:
    spec["volumes"] = [{"name": "v", "projected": {"sources": [{"secret": {"name": secret}}]}}]


def _environment(_: dict[str, Any], container: dict[str, Any], secret: str) -> None:
    container["env"] = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]


def _init(spec: dict[str, Any], container: dict[str, Any], secret: str) -> None:
    first = {"name": "first", "image": container["image"], "envFrom": [{"secretRef": {"name": secret}}]}
    spec["initContainers"] = [first]


USES: tuple[Callable[[dict[str, Any], dict[str, Any], str], None], ...] = (_volume, _projected, _environment, _init)


def secrets_of(pod: dict[str, Any]) -> Iterator[str]:
    spec = pod["spec"]
    for volume in spec.get("volumes", ()):
        yield from [volume["secret"]["secretName"]] if "secret" in volume else []
        yield from (one["secret"]["name"] for one in volume.get("projected", {}).get("sources", ()))
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        yield from (one["valueFrom"]["secretKeyRef"]["name"] for one in container.get("env", ()))
        yield from (one["secretRef"]["name"] for one in container.get("envFrom", ()))


def meant(world: World, pod: dict[str, Any]) -> Iterator[Finding]:
    """What the world's identities, policies and keys have against a pod."""
    name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
    account = pod["spec"].get("serviceAccountName", "default")
    used = set(secrets_of(pod))
    for one in world.subjects:
        action = "deny" if one.enforced else "dryrun"
        wears = all(requirement.holds(labels) for requirement in one.pods)
        if wears and account != one.account:
            yield Finding(BINDING, action, name)
        if not wears and account == one.account:
            yield Finding(LABELS, action if one.labelled or not one.enforced else "warn", name)
        if one.secret in used and account != one.account:
            yield Finding(CREDENTIALS, action, name)
        for demand in one.demands if account == one.account else ():
            yield from _against(demand, action if demand.enforced else "dryrun", pod)
    for key in world.keys:
        if key.secret in used and account not in key.accounts:
            yield Finding(CREDENTIALS, "deny", name)


def _against(demand: Demand, action: str, pod: dict[str, Any]) -> Iterator[Finding]:
    spec, admission = pod["spec"], demand.admission
    ports = [port for container in spec["containers"] for port in container.get("ports", ())]
    if admission.deny_host_network and (spec.get("hostNetwork") or any("hostPort" in port for port in ports)):
        yield Finding(HOST_ACCESS, action, pod["metadata"]["name"])
    image = spec["containers"][0]["image"]
    home = HOSTS_OF.get(image, "example.org/shop")
    allowed = admission.allowed_registries is None or home in {one.rstrip("/") for one in admission.allowed_registries}
    if not allowed or (admission.require_digest and not image.endswith(DIGEST)):
        yield Finding(IMAGES, action, pod["metadata"]["name"])


def done(world: World, pods: list[dict[str, Any]], folder: Path) -> set[Finding]:
    """What gator says of the pods with the constraints that the operator makes."""
    entries = merged([*map(of_subject, world.subjects), *map(of_key, world.keys)])
    constraints = [one for kind in KINDS for one in manifests(kind, "shop", entries)]
    labels = {"kubernetes.io/metadata.name": "shop"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
    found = violations(folder, constraints, [namespace, *pods])
    return {Finding(one.kind, one.action, one.object_name) for one in found}


@pytest.mark.parametrize("seed", range(WORLDS))
def test_gator_finds_what_is_meant_and_nothing_else(seed: int, tmp_path: Path) -> None:
    world, pods = a_world(seed), [a_pod(seed * PODS + number) for number in range(PODS)]
    wanted = {finding for pod in pods for finding in meant(world, pod)}
    assert done(world, pods, tmp_path) == wanted
    assert len(wanted) > PODS / 10, "hardly a pod is against anything: nothing was tested"


def test_every_kind_and_action_is_tested() -> None:
    everything = {
        (finding.kind, finding.action)
        for seed in range(WORLDS)
        for number in range(PODS)
        for finding in meant(a_world(seed), a_pod(seed * PODS + number))
    }
    assert everything == {(kind, action) for kind in KINDS for action in ("deny", "dryrun")} | {(LABELS, "warn")}
