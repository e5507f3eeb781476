"""Small random clusters with TrustPolicies: for what must hold of every table, and for the network policies that follow.

`random_world(seed)` is the same world for the same seed, in every process; `worlds` are the strategy behind it. Names, labels,
ports and paths come from small sets, so that rules meet, overlap and contradict each other.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.support.certificates import NOW
from tests.support.clusters import NAMESPACE_NAME, Cluster, Pod, Port
from zerotrust.common import naming, times
from zerotrust.common.naming import API_VERSION
from zerotrust.policy import reading, table
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.evaluate import Key, Request, Token
from zerotrust.policy.podset import equal, selects
from zerotrust.policy.reading import Policy
from zerotrust.policy.resource import TrustPolicySpec
from zerotrust.policy.table import Table

Body = dict[str, Any]
Item = TypeVar("Item")

PORTS = (Port("TCP", 8080), Port("TCP", 8443), Port("UDP", 53), Port("SCTP", 8443))
METHODS = ("GET", "POST", "DELETE")
PATTERNS = ("/", "/a", "/a/*", "/a/**", "/**", "/*/b", "/**/b", "/a/**/b/*")
PATHS = ("/", "/a", "/a/", "/a/b", "/b/b", "/a/c/b/d", "/a/%62", "/a/../b", "//a", "/c")
SCOPES = ("read", "write")
GROUPS = ("sre", "dev")
PROVIDERS = ("corp", "customers")
KEYS = ("partner-x", "partner-y")
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NAMESPACES = ("shop", "web", "edge", "bank")
ACCOUNTS = ("orders", "stock", "front", "gate")
MISSING = "ghost"  # an account of no ServiceIdentity
RANGES = ("10.20.0.0/16", "198.51.100.0/24", "2001:db8::/32")
POD_LABELS = {"app": ("one", "two"), "tier": ("front", "back")}
IDENTITY_LABELS = {"team": ("red", "blue"), "tier": ("front", "back")}
NAMESPACE_LABELS = {"env": ("prod", "test"), "team": ("red", "blue")}


@dataclass(frozen=True)
class World:
    """A cluster, whose identities are those of `directory`, and the TrustPolicies in it, as users wrote them."""

    seed: int
    directory: PlainDirectory
    pods: tuple[Pod, ...]
    manifests: tuple[Body, ...]

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The TrustPolicies as the controller reads them."""
        return tuple(reading.observe(body) for body in self.manifests)

    def tables(self) -> dict[Workload, Table]:
        """The table of every identity, with each policy in force as it stands."""
        return tables_of(self.directory, self.policies)

    def identities_of(self, pod: Pod) -> list[Identity]:
        """The identities that select a pod: mostly one, none for some, several where a selector is too wide."""
        return [one for one in self.directory.identities(pod.namespace) if selects(one.pods, pod.labels)]

    def cluster(self, network_policies: Sequence[Body] = ()) -> Cluster:
        """The cluster for an oracle, with these NetworkPolicies in it."""
        return Cluster(dict(self.directory.labels), self.pods, network_policies)


def tables_of(directory: PlainDirectory, policies: Iterable[Policy]) -> dict[Workload, Table]:
    """The table of every identity, as if each policy were accepted as it stands."""
    contributions: dict[Workload, list[table.Contribution]] = {one.workload: [] for one in directory.identities()}
    for policy in policies:
        name, namespace, spec = policy.meta.name, policy.meta.namespace, spec_of(policy)
        for server in table.targets_of(spec, namespace, directory):
            rows = table.resolve(name, namespace, spec, directory, server).rows
            contributions[server.workload].append(table.contribution(name, spec, rows))
    return {one.workload: table.compile_table(one, contributions[one.workload]) for one in directory.identities()}


def spec_of(policy: Policy) -> TrustPolicySpec:
    """The spec of a policy that a test knows to be good."""
    assert policy.spec.spec is not None
    assert policy.spec.problem is None, policy.spec.problem
    return policy.spec.spec


def a_policy_body(name: str = "policy", namespace: str = "shop", **spec: Any) -> Body:
    """A TrustPolicy as the API server has it; specs are written as users do."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{namespace}-{name}",
        "resourceVersion": "1",
        "generation": 1,
    }
    return {"apiVersion": API_VERSION, "kind": "TrustPolicy", "metadata": metadata, "spec": spec}


def a_policy(name: str = "policy", namespace: str = "shop", **spec: Any) -> Policy:
    """A TrustPolicy as the controller reads it."""
    return reading.observe(a_policy_body(name, namespace, **spec))


def random_world(seed: int) -> World:
    """2 to 4 namespaces, 3 to 8 identities, a pod or two of each and some of nobody, 1 to 6 TrustPolicies."""
    random = Random(seed)
    names = random.sample(NAMESPACES, random.randint(2, 4))
    places = [Workload(name, account) for name in names for account in ACCOUNTS]
    chosen = sorted(random.sample(places, min(random.randint(3, 8), len(places))))
    directory = PlainDirectory(
        {place: _identity(random, place, chosen) for place in chosen},
        {name: {**_labels(random, NAMESPACE_LABELS), NAMESPACE_NAME: name} for name in names},
        {Workload(name, key): frozenset(_some(random, SCOPES)) for name in names for key in KEYS},
    )
    pods = [pod for place in chosen for pod in _pods(random, directory.by_workload[place])]
    pods += [pod for name in names for pod in _strangers(random, name)]
    homes = [place.namespace for place in chosen]
    manifests = [
        random_policy(random, directory, f"policy-{number}", random.choice(homes))
        for number in range(random.randint(1, 6))
    ]
    return World(seed, directory, tuple(pods), tuple(manifests))


def random_policy(random: Random, directory: PlainDirectory, name: str, namespace: str) -> Body:
    """A valid TrustPolicy, of which now and then something does not resolve."""
    rules = [random_rule(random, directory, f"rule-{number}") for number in range(random.randint(1, 4))]
    spec: Body = {"target": _target(random, directory, namespace), "rules": rules}
    if _once_in(random, 6):
        spec["mode"] = "Observe"
    if _once_in(random, 6):
        spec["layers"] = random.choice((["OPA"], ["NetworkPolicy", "OPA"]))
    return a_policy_body(name, namespace, **spec)


def random_rule(random: Random, directory: PlainDirectory, name: str) -> Body:
    """A valid rule: with pods and address ranges about connections only, otherwise often about requests as well."""
    effect = random.choice(("Allow", "Allow", "Allow", "Deny"))
    layer4 = _once_in(random, 3)
    peers = [_peer(random, directory, layer4=layer4, effect=effect) for _ in range(random.randint(1, 3))]
    when = {} if layer4 or random.random() < 0.6 else _when(random, scopes=all(map(_has_principal, peers)))
    asks_more = bool(when) or any(map(_has_principal, peers))
    ports = [port for port in PORTS if port.protocol == "TCP" or not asks_more]
    rule: Body = {
        "name": name,
        "effect": effect,
        "from": peers,
        "to": [_destination(random, random.choice(ports), layer4=layer4) for _ in range(random.randint(1, 2))],
        **({"when": when} if when else {}),
    }
    if effect == "Allow" and not layer4 and _once_in(random, 5):
        rule["until"] = times.render(NOW + timedelta(hours=random.choice((-30, -1, 1, 30))))
    return rule


def random_request(random: Random, world: World, server: Workload) -> Request:
    """A request, or now and then a connection, which has a fair chance of meeting some row."""
    known: list[Workload | None] = [one.workload for one in world.directory.identities()]
    client = random.choice([*known, *known, None, Workload(server.namespace, MISSING)])
    port = random.choice(PORTS)
    if _once_in(random, 6):
        return Request(client, port.number, port.protocol, mtls=random.random() < 0.8)
    return Request(
        client,
        port.number,
        port.protocol,
        random.choice(METHODS),
        random.choice(PATHS),
        mtls=random.random() < 0.8,
        token=_token(random) if random.random() < 0.6 else None,
        key=_key(random, world, server) if random.random() < 0.6 else None,
    )


def random_moment(random: Random) -> datetime:
    """A time within two days of NOW, often at one of the bounds that `random_rule` writes."""
    return NOW + timedelta(minutes=random.choice((0, 1, -1))) + timedelta(hours=random.randint(-48, 48))


seeds = st.integers(0, 2**32 - 1)
worlds = seeds.map(random_world)
randoms = seeds.map(Random)
"""A source of further choices beside a world: requests, moments, changes."""


def shuffled(world: World, random: Random) -> World:
    """The same world, of which every list and map without an order comes in another one."""
    directory = world.directory
    return World(
        world.seed,
        PlainDirectory(
            _shuffled_map(random, directory.by_workload),
            {
                name: _shuffled_map(random, dict(labels))
                for name, labels in _shuffled_map(random, directory.labels).items()
            },
            _shuffled_map(random, directory.api_keys),
        ),
        tuple(random.sample(world.pods, len(world.pods))),
        tuple(_shuffled(random, body) for body in random.sample(world.manifests, len(world.manifests))),
    )


def changed(world: World, number: int, change: Callable[[Body], None]) -> World:
    """The world after a change of one policy's spec."""
    manifests = list(world.manifests)
    manifests[number] = copy.deepcopy(manifests[number])
    change(manifests[number]["spec"])
    return World(world.seed, world.directory, world.pods, tuple(manifests))


def _shuffled_map(random: Random, whole: dict[Any, Item]) -> dict[Any, Item]:
    return {key: whole[key] for key in random.sample(sorted(whole), len(whole))}


def _shuffled(random: Random, value: Any) -> Any:
    """No list of a TrustPolicy has an order that means anything."""
    if isinstance(value, dict):
        return {key: _shuffled(random, one) for key, one in _shuffled_map(random, value).items()}
    return [_shuffled(random, one) for one in random.sample(value, len(value))] if isinstance(value, list) else value


def _once_in(random: Random, number: int) -> bool:
    return random.randrange(number) == 0


def _some(random: Random, values: Sequence[Item]) -> list[Item]:
    return random.sample(values, random.randint(1, len(values)))


def _labels(random: Random, universe: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {key: random.choice(values) for key, values in universe.items() if random.random() < 0.7}


def _identity(random: Random, place: Workload, all_places: Sequence[Workload]) -> Identity:
    custom = _once_in(random, 6)
    isolated = _once_in(random, 3)
    abroad = [one for one in all_places if one.namespace != place.namespace]
    return Identity(
        place,
        _labels(random, IDENTITY_LABELS),
        (equal("app", random.choice(POD_LABELS["app"])),) if custom else default_selector(place.name),
        enforcement="Observe" if _once_in(random, 8) else "Enforce",
        egress="Isolated" if isolated else "Open",
        calls=frozenset(one for one in abroad if random.random() < 0.4) if isolated else frozenset(),
        providers=frozenset(PROVIDERS),
    )


def _pods(random: Random, identity: Identity) -> list[Pod]:
    place = identity.workload
    # A custom selector does not say whose account a pod has; the admission policy labels it all the same.
    must = {naming.SERVICE_ACCOUNT: place.name, **{one.key: one.values[0] for one in identity.pods}}
    return [
        Pod(place.namespace, f"{place.name}-{number}", {**_labels(random, POD_LABELS), **must}, account=place.name)
        for number in range(2 if _once_in(random, 3) else 1)
    ]


def _strangers(random: Random, namespace: str) -> list[Pod]:
    """Pods of no identity: of an account without one, or from before the label."""
    accounts: list[dict[str, str]] = [{}, {naming.SERVICE_ACCOUNT: "default"}]
    return [
        Pod(namespace, f"stranger-{number}", {**_labels(random, POD_LABELS), **account})
        for number, account in enumerate(accounts)
        if _once_in(random, 2)
    ]


def _selector(random: Random, universe: dict[str, tuple[str, ...]]) -> Body:
    key = random.choice(sorted(universe))
    values = universe[key]
    expressions: tuple[Body, ...] = (
        {"key": key, "operator": "In", "values": _some(random, values)},
        {"key": key, "operator": "NotIn", "values": [random.choice(values)]},
        {"key": key, "operator": "Exists"},
        {"key": key, "operator": "DoesNotExist"},
    )
    if _once_in(random, 2):
        return {"matchLabels": {key: random.choice(values)}}
    return {"matchExpressions": _some(random, expressions[:3]) if _once_in(random, 4) else [random.choice(expressions)]}


def _place_selector(random: Random, directory: PlainDirectory) -> Body:
    if _once_in(random, 3):
        return {"matchLabels": {NAMESPACE_NAME: random.choice(sorted(directory.labels))}}
    return _selector(random, NAMESPACE_LABELS)


def _target(random: Random, directory: PlainDirectory, namespace: str) -> Body:
    names = [one.workload.name for one in directory.identities(namespace)]
    kind = random.randrange(4)
    if kind == 0:
        return {"all": True}
    return {"selector": _selector(random, IDENTITY_LABELS)} if kind == 1 else {"identities": _some(random, names)}


def _peer(random: Random, directory: PlainDirectory, *, layer4: bool, effect: str) -> Body:
    kind = random.choice(
        (*["workload"] * 4, *["workloads"] * 2, *["anyWorkload"] * 2, *(["pods"] * 6 if layer4 else ()))
    )
    if layer4 and effect == "Allow" and _once_in(random, 8):
        return {"cidr": random.choice(RANGES)}
    if kind == "pods":
        return {"pods": _pair(random, _place_selector(random, directory), "podSelector", POD_LABELS)}
    peer: Body = {"anyWorkload": {}}
    if kind == "workload":
        place = random.choice(sorted(directory.by_workload))
        name = MISSING if _once_in(random, 12) else place.name
        peer = {"workload": {"name": name, "namespace": place.namespace}}
    elif kind == "workloads":
        peer = {"workloads": _pair(random, _place_selector(random, directory), "selector", IDENTITY_LABELS)}
    return peer if layer4 or random.random() < 0.6 else peer | _principal(random)


def _pair(random: Random, place: Body, name: str, universe: dict[str, tuple[str, ...]]) -> Body:
    """A namespaceSelector, another selector, or both."""
    kind = random.randrange(3)
    pair = {"namespaceSelector": place} if kind != 0 else {}
    return pair | ({name: _selector(random, universe)} if kind != 1 else {})


def _principal(random: Random) -> Body:
    if _once_in(random, 2):
        name = {"name": random.choice(KEYS)}
        return {"apiKey": {"scopes": _some(random, SCOPES)} if _once_in(random, 2) else name}
    user: Body = {"provider": random.choice(PROVIDERS), "audiences": _some(random, ACCOUNTS[:2])}
    return {"user": user | ({"claims": {"groups": _some(random, GROUPS)}} if _once_in(random, 2) else {})}


def _has_principal(peer: Body) -> bool:
    return "user" in peer or "apiKey" in peer


def _destination(random: Random, port: Port, *, layer4: bool) -> Body:
    destination: Body = {"port": port.number, "protocol": port.protocol}
    if not layer4 and port.protocol == "TCP":
        destination |= {"methods": _some(random, METHODS)} if random.random() < 0.4 else {}
        destination |= {"paths": _some(random, PATTERNS)} if random.random() < 0.5 else {}
    return destination


def _when(random: Random, *, scopes: bool) -> Body:
    when: Body = {}
    if scopes and _once_in(random, 2):
        when["scopes"] = _some(random, SCOPES)
    if _once_in(random, 3):
        when["requireMTLS"] = True
    if _once_in(random, 2):
        times_of_day = {"from": random.choice(("06:00", "22:00")), "to": random.choice(("05:30", "20:00"))}
        days = {"days": _some(random, DAYS)}
        when["time"] = {"timeZone": random.choice(ZONES)} | random.choice((times_of_day, days, times_of_day | days))
    return when


def _token(random: Random) -> Token:
    claims = {"groups": tuple(_some(random, GROUPS))} if random.random() < 0.8 else {}
    return Token(
        random.choice(PROVIDERS), frozenset(_some(random, ACCOUNTS[:2])), claims, frozenset(_some(random, SCOPES))
    )


def _key(random: Random, world: World, server: Workload) -> Key | None:
    name = random.choice(KEYS)
    scopes = world.directory.api_key_scopes(Workload(server.namespace, name))
    return Key(name, scopes) if scopes is not None else None
