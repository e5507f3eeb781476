"""Small random namespaces, workloads and hand-written NetworkPolicies, and what becomes of them when they are imported."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from tests.support.clusters import NAMESPACE_NAME, Cluster, Labels, Manifest, Pod, Port
from zerotrust.cli.manifests import Manifest as Given
from zerotrust.cli.policies import Intent
from zerotrust.common import naming
from zerotrust.importing.objects import read_world
from zerotrust.importing.report import Outcome
from zerotrust.importing.translate import translate

NOW = datetime(2026, 11, 23, tzinfo=UTC)
OPERATOR_NAMESPACE = "zerotrust-system"
ASKED = (
    *(Port("TCP", number) for number in (53, 80, 443, 8080, 9090, 6005)),
    *(Port("UDP", number) for number in (53, 8080)),
)
OUTSIDE = ("198.51.100.1", "198.51.100.70", "203.0.113.9", "169.254.20.10", "2001:db8::1")
# Named ports are told by a label, so that a policy with a name can be written with numbers for readers that know none.
SHAPE = "shape"
SHAPES = {"none": {}, "old": {"http": 80}, "new": {"http": 8080, "metrics": 9090}}


@dataclass(frozen=True)
class OldWorld:
    """What there is before an import; `strangers` are pods that no file tells of, and that no policy selects by label."""

    seed: int
    namespaces: Mapping[str, Labels]
    pods: Sequence[Pod]
    policies: Sequence[Manifest]
    strangers: Sequence[Pod] = ()

    def manifests(self) -> list[Manifest]:
        """Everything as it stands in files: a Deployment for each pod."""
        places = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
            for name, labels in self.namespaces.items()
        ]
        return [*places, *map(_deployment, self.pods), *self.policies]

    def imported(self) -> Outcome:
        """The outcome of `zerotrust import`."""
        return translate(read_world(("file", body) for body in self.manifests()))

    def cluster(self, policies: Iterable[Manifest]) -> Cluster:
        """The pods under some policies, every name of a port written as numbers."""
        return Cluster(
            self.namespaces,
            [*self.pods, *self.strangers],
            [one for policy in policies for one in without_names(policy)],
        )


def _deployment(pod: Pod) -> Manifest:
    labels = {key: value for key, value in pod.labels.items() if key != naming.SERVICE_ACCOUNT}
    ports = [{"name": name, "containerPort": number} for name, number in SHAPES[labels[SHAPE]].items()]
    spec = {"serviceAccountName": pod.account, "containers": [{"name": "main", "image": "none", "ports": ports}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def made(outcome: Outcome, world: OldWorld) -> list[Manifest]:
    """The NetworkPolicies that the controller makes when the outcome is applied."""
    places = [body for body in world.manifests() if body["kind"] == "Namespace"]
    new = [one.body for one in outcome.made]
    intent = Intent([Given("file", dict(body)) for body in (*places, *new)], OPERATOR_NAMESPACE)
    assert not intent.problems, [str(one) for one in intent.problems]
    found = [policy for identity in intent.identities for policy in intent.network_policies(identity, NOW)]
    found += [policy for name in world.namespaces if (policy := intent.default_deny(name)) is not None]
    return list({(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found}.values())


def kept(outcome: Outcome, world: OldWorld, *, only_what_opens: bool = False) -> list[Manifest]:
    """The old NetworkPolicies of which something is left over; or only those whose deletion would open something."""
    refs = {one.ref for one in outcome.left if one.opens or not only_what_opens}
    places = {(ref.namespace, ref.name) for ref in refs}
    return [one for one in world.policies if (one["metadata"]["namespace"], one["metadata"]["name"]) in places]


def without_names(policy: Manifest) -> list[Manifest]:
    """The same as one policy for each shape of pods, in which every name of a port is the number that it has there."""
    spec = policy["spec"]
    if "'http'" not in str(spec) and "'metrics'" not in str(spec):
        return [policy]
    found = []
    for shape, names in SHAPES.items():
        changed: dict[str, Any] = {
            "podSelector": _within(spec["podSelector"], shape),
            "policyTypes": spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])],
        }
        if "Ingress" in changed["policyTypes"]:
            rules = [_numbered(rule, names) for rule in spec.get("ingress") or ()]
            changed["ingress"] = [one for one in rules if one is not None]
        if "Egress" in changed["policyTypes"]:
            changed["egress"] = [one for rule in spec.get("egress") or () for one in _by_shape(rule)]
        metadata = {**policy["metadata"], "name": f"{policy['metadata']['name']}-{shape}"}
        found.append({**policy, "metadata": metadata, "spec": changed})
    return found


def _within(selector: Manifest, shape: str) -> Manifest:
    return {**selector, "matchLabels": {**selector.get("matchLabels", {}), SHAPE: shape}}


def _numbered(rule: Manifest, names: Mapping[str, int]) -> Any:
    """The rule where these names are known, None where nothing of its ports is left."""
    if not rule.get("ports"):
        return rule
    ports = [
        {**port, "port": names.get(port["port"])} if isinstance(port.get("port"), str) else port
        for port in rule["ports"]
        if not isinstance(port.get("port"), str) or port["port"] in names
    ]
    return {**rule, "ports": ports} if ports else None


def _by_shape(rule: Manifest) -> list[Manifest]:
    """A rule of egress whose names are those of the server."""
    if "'http'" not in str(rule) and "'metrics'" not in str(rule):
        return [rule]
    plain = [port for port in rule["ports"] if not isinstance(port.get("port"), str)]
    found = [{**rule, "ports": plain}] if plain else []
    peers = rule.get("to") or [{"namespaceSelector": {}}]
    for shape, names in SHAPES.items():
        inside = [
            {**peer, "podSelector": _within(peer.get("podSelector") or {}, shape)}
            for peer in peers
            if "ipBlock" not in peer
        ]
        named = [port for port in rule["ports"] if isinstance(port.get("port"), str) and port["port"] in names]
        if inside and named:
            ports = [{**port, "port": names[port["port"]]} for port in named]
            found.append({"to": inside, "ports": ports})
    return found


def outside(cluster: Cluster) -> set[tuple[str, str, str, Port]]:
    """What addresses outside the cluster may do: direction, pod, address, port. Word by word from the documentation."""
    found = set()
    for direction in ("Ingress", "Egress"):
        for pod in cluster.pods:
            isolating = [one["spec"] for one in cluster.policies if _isolates(one, direction, pod)]
            rules = [rule for spec in isolating for rule in spec.get(direction.lower()) or ()]
            for address in OUTSIDE:
                reached = [rule for rule in rules if _has_address(rule, address)]
                for port in ASKED:
                    if not isolating or any(_has_port(rule, port) for rule in reached):
                        found.add((direction, pod.key, address, port))
    return found


def _isolates(policy: Manifest, direction: str, pod: Pod) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    same_place = policy["metadata"]["namespace"] == pod.namespace
    return same_place and direction in types and _selects(spec["podSelector"], pod.labels)


def _has_address(rule: Manifest, address: str) -> bool:
    peers = rule.get("from") or rule.get("to")
    blocks = [peer["ipBlock"] for peer in peers or () if "ipBlock" in peer]
    return not peers or any(
        _is_in(address, block["cidr"]) and not any(_is_in(address, one) for one in block.get("except", ()))
        for block in blocks
    )


def _is_in(address: str, cidr: str) -> bool:
    return ip_address(address) in ip_network(cidr, strict=False)


def _has_port(rule: Manifest, asked: Port) -> bool:
    return not rule.get("ports") or any(
        one.get("protocol", "TCP") == asked.protocol
        and (one.get("port") is None or one["port"] <= asked.number <= one.get("endPort", one["port"]))
        for one in rule["ports"]
    )


def _selects(selector: Manifest, labels: Labels) -> bool:
    wanted = selector.get("matchLabels") or {}
    met = {
        "In": lambda one: labels.get(one["key"]) in one["values"],
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
        "Exists": lambda one: one["key"] in labels,
        "DoesNotExist": lambda one: one["key"] not in labels,
    }
    return wanted.items() <= labels.items() and all(
        met[one["operator"]](one) for one in selector.get("matchExpressions") or ()
    )


def random_old_world(seed: int) -> OldWorld:
    """Two teams and the cluster's own namespace, at most nine pods, one to five policies; every other world is a tidy one."""
    random = Random(seed)
    tidy = seed % 2 == 0
    namespaces: dict[str, Labels] = {
        "one": {"team": random.choice(["x", "y"])},
        "two": random.choice([{"team": "x"}, {"team": "y"}, {}]),
        "kube-system": {},
    }
    pods = [Pod("kube-system", "dns", _labels("coredns", {"k8s-app": "kube-dns", SHAPE: "none"}), account="coredns")]
    if random.random() < 0.3:
        pods.append(Pod("kube-system", "other", _labels("other", {"app": "web", SHAPE: "none"}), account="other"))
    for place in ("one", "two"):
        accounts = random.sample(["default", "web", "db", "api"], random.randint(1, 3))
        for account in accounts:
            same = {"app": account, "tier": random.choice(["x", "y"]), SHAPE: random.choice(list(SHAPES))}
            for number in range(random.choice([1, 1, 2])):
                labels = dict(same)
                if random.random() < 0.2 and not tidy:
                    labels[random.choice(["app", "tier"])] = random.choice(["x", "y", "web"])
                if random.random() < 0.1 and not tidy:
                    labels[SHAPE] = random.choice(list(SHAPES))
                pods.append(Pod(place, f"{account}-{number}", _labels(account, labels), account=account))
    there = [pod for pod in pods if pod.namespace != "kube-system"]
    policies = [
        _tidy_policy(random, number, random.choice(there)) if tidy else _policy(random, number)
        for number in range(random.randint(1, 5))
    ]
    if tidy and random.random() < 0.6:
        policies += _agreement(random, *random.sample(there, 2))
    unknown = [Pod(place, "stranger", {"app": "stranger", SHAPE: "none"}) for place in ("one", "two")]
    return OldWorld(seed, namespaces, pods, policies, unknown if tidy else ())


def _agreement(random: Random, client: Pod, server: Pod) -> list[Manifest]:
    """Both sides of one call: what the server lets in and what the client may reach."""

    def policy(name: str, pod: Pod, spec: Manifest) -> Manifest:
        selector = {"podSelector": {"matchLabels": {"app": pod.labels["app"]}}}
        metadata = {"name": name, "namespace": pod.namespace}
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
        return {**body, "spec": {**selector, **spec}}

    def peer(pod: Pod) -> Manifest:
        app = {"podSelector": {"matchLabels": {"app": pod.labels["app"]}}}
        return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: pod.namespace}}, **app}

    ports: list[Manifest] = random.sample([{"port": 80}, {"port": 8080}, {"port": 443}], 2)
    names = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}
    out = [{"to": [peer(server)], "ports": ports[: random.randint(1, 2)]}, names]
    return [
        policy(
            "agreed-in", server, {"policyTypes": ["Ingress"], "ingress": [{"from": [peer(client)], "ports": ports[:1]}]}
        ),
        policy("agreed-out", client, {"policyTypes": ["Egress"], "egress": out}),
    ]


def _tidy_policy(random: Random, number: int, pod: Pod) -> Manifest:
    """What most people write: a default-deny, or who may call an app on some ports, and where it may connect."""
    metadata = {"name": f"policy-{number}", "namespace": pod.namespace}
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    if random.random() < 0.3:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": random.choice([[], [_tidy_dns()]])}
    if random.random() < 0.7:
        spec = {"podSelector": {"matchLabels": {"app": pod.labels["app"]}}, "policyTypes": ["Ingress"]}
        spec["ingress"] = [_tidy_rule(random, "from", pod) for _ in range(random.choice([1, 2]))]
        if random.random() < 0.5:
            spec["policyTypes"] = random.choice([["Egress"], ["Ingress", "Egress"]])
            rules = [_tidy_rule(random, "to", pod) for _ in range(random.choice([1, 2]))]
            spec["egress"] = [*rules, _tidy_dns()]
            if "Ingress" not in spec["policyTypes"]:
                del spec["ingress"]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _tidy_dns() -> Manifest:
    resolvers = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "kube-system"}}}
    return {"to": [resolvers], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}


def _tidy_rule(random: Random, side: str, pod: Pod) -> Manifest:
    app = {"podSelector": {"matchLabels": {"app": random.choice(["default", "web", "db", "api"])}}}
    team = {"namespaceSelector": {"matchLabels": {"team": random.choice(["x", "y"])}}}
    choices: list[Manifest] = [
        app,
        app,
        {**team, **app},
        {**team, **app},
        team,
        {"ipBlock": {"cidr": "198.51.100.0/24"}},
    ]
    ports: list[Manifest] = [
        {"port": 80},
        {"port": 8080},
        {"port": 443, "protocol": "TCP"},
        {"port": 8080, "protocol": "UDP"},
    ]
    if side == "from" and SHAPES[pod.labels[SHAPE]]:
        ports.append({"port": "http"})
    return {side: random.sample(choices, random.choice([1, 2])), "ports": random.sample(ports, random.choice([1, 2]))}


def _labels(account: str, labels: Mapping[str, str]) -> Labels:
    """As the admission policies leave them."""
    return {**labels, naming.SERVICE_ACCOUNT: account}


def _policy(random: Random, number: int) -> Manifest:
    spec: dict[str, Any] = {"podSelector": {} if random.random() < 0.3 else _selector(random)}
    types = random.choice([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Ingress", "Egress"]])
    if types:
        spec["policyTypes"] = types
    if "Ingress" in (types or ["Ingress"]) and random.random() < 0.8:
        spec["ingress"] = [_rule(random, "from") for _ in range(random.choice([0, 1, 1, 2]))]
    if "Egress" in (types or ["Egress"]) and random.random() < 0.8:
        spec["egress"] = [_rule(random, "to") for _ in range(random.choice([0, 1, 1, 2]))]
        if random.random() < 0.7:
            spec["egress"].append(_dns(random))
    metadata = {"name": f"policy-{number}", "namespace": random.choice(["one", "one", "two", "kube-system"])}
    if random.random() < 0.6 and metadata["namespace"] == "kube-system":
        metadata["namespace"] = "two"
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _selector(random: Random) -> Manifest:
    key = random.choice(["app", "app", "app", "tier"])
    values = {"app": ["default", "web", "db", "api"], "tier": ["x", "y"]}[key]
    match random.randrange(6):
        case 0:
            some = sorted(random.sample(values, 2))
            return {"matchExpressions": [{"key": key, "operator": random.choice(["In", "NotIn"]), "values": some}]}
        case 1:
            return {"matchExpressions": [{"key": key, "operator": random.choice(["Exists", "DoesNotExist"])}]}
        case 2:
            return {"matchLabels": {"app": random.choice(["web", "db"]), "tier": random.choice(["x", "y"])}}
        case _:
            return {"matchLabels": {key: random.choice(values)}}


def _places(random: Random) -> Manifest:
    return random.choice(
        [
            {},
            {"matchLabels": {"team": random.choice(["x", "y"])}},
            {"matchLabels": {NAMESPACE_NAME: random.choice(["one", "two", "kube-system"])}},
            {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
        ]
    )


def _peer(random: Random) -> Manifest:
    match random.randrange(8):
        case 0 | 1 | 2:
            return {"podSelector": _selector(random)}
        case 3:
            return {"podSelector": {}}
        case 4:
            return {"namespaceSelector": _places(random)}
        case 5:
            return {
                "ipBlock": random.choice(
                    [
                        {"cidr": "198.51.100.0/24"},
                        {"cidr": "198.51.100.0/24", "except": ["198.51.100.64/26"]},
                        {"cidr": "0.0.0.0/0", "except": ["198.51.100.0/25", "10.0.0.0/8"]},
                        {"cidr": "0.0.0.0/0"},
                        {"cidr": "2001:db8::/32"},
                    ]
                )
            }
        case _:
            return {"namespaceSelector": _places(random), "podSelector": _selector(random)}


def _ports(random: Random) -> list[Manifest]:
    choices: list[Manifest] = [
        {"port": 80},
        {"port": 8080},
        {"port": 8080, "protocol": "TCP"},
        {"port": 8080, "protocol": "UDP"},
        {"port": 6000, "endPort": 6010},
        {"port": 1024, "endPort": 32767},
        {"port": "http"},
        {"port": "http"},
        {"port": "metrics"},
        {"protocol": "TCP"},
    ]
    weights = [6, 6, 3, 2, 1, 1, 2, 2, 2, 1]
    return [dict(one) for one in random.choices(choices, weights, k=random.choice([1, 1, 2]))]


def _rule(random: Random, side: str) -> Manifest:
    rule: dict[str, Any] = {}
    if random.random() < 0.9:
        rule[side] = [_peer(random) for _ in range(random.choice([1, 1, 2]))]
    if random.random() < 0.9:
        rule["ports"] = _ports(random)
    return rule


def _dns(random: Random) -> Manifest:
    place = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "kube-system"}}}
    to = random.choice([[place], [{**place, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], None])
    to = [*to, {"ipBlock": {"cidr": "169.254.20.10/32"}}] if to and random.random() < 0.3 else to
    ports = [{"port": 53, "protocol": "UDP"}]
    ports += [{"port": 53, "protocol": "TCP"}] if random.random() < 0.7 else []
    return {**({"to": to} if to else {}), "ports": ports}
