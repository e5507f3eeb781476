"""Who may connect to whom under NetworkPolicies, said by three that share no code.

`documented` reads the Kubernetes documentation literally, pod pair by pod pair; `by_nca` asks network-config-analyzer;
`by_netpol_analyzer` asks netpol-analyzer. Each takes clusters and the ports to ask about, and answers for each cluster
with the flows that are allowed. Not among them: what a pod sends to itself, because no policy can stop it, and what
leaves or enters the cluster. Named ports are refused.

Known limits: nca refuses a policy with rules for a direction that its `policyTypes` do not list, and errs in the
DIFFERENCES of tests/unit/support/test_reachability.py. netpol-analyzer, once in a while, also allows the ports between
two ports, where one policy names both and another a range that begins at one of them.
"""

import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hack.gotools import find_or_build
from hack.nca import find_or_install
from tests.support.clusters import Cluster, Flow, Labels, Manifest, Pod, Port, flows

Oracle = Callable[[Sequence[Cluster], Sequence[Port]], list[set[Flow]]]

_NCA_LINE = re.compile(r"^(\S+) => (\S+) : (.+)$", re.MULTILINE)
_NCA_CUBE = re.compile(r"(?:protocols:(?P<protocols>[^:]+?))?,?(?:dst_ports:(?P<ports>[\d,-]+))?")


class OracleError(Exception):
    """An oracle cannot judge what it was given, or its answer cannot be read."""


def documented(clusters: Sequence[Cluster], asked: Sequence[Port]) -> list[set[Flow]]:
    """What https://kubernetes.io/docs/concepts/services-networking/network-policies/ says, word by word."""

    def answer(cluster: Cluster) -> set[Flow]:
        return flows(cluster.pods, asked, lambda client, server, port: _allows(cluster, client, server, port))

    return [answer(cluster) for cluster in clusters]


def by_nca(clusters: Sequence[Cluster], asked: Sequence[Port]) -> list[set[Flow]]:
    """One call for all clusters, because starting it takes longer than the answers."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = [_write(cluster, Path(folder, f"cluster{index}.json")) for index, cluster in enumerate(clusters)]
        scheme = Path(folder, "scheme.json")
        scheme.write_text(json.dumps(_scheme(inputs)))
        _run(find_or_install(), "--scheme", scheme)
        answers = [_NCA_LINE.findall(file.with_suffix(".txt").read_text()) for file in inputs]
    return [_read(cluster, asked, lines, _nca_covers) for cluster, lines in zip(clusters, answers, strict=True)]


def by_netpol_analyzer(clusters: Sequence[Cluster], asked: Sequence[Port]) -> list[set[Flow]]:
    """One call for each cluster."""
    netpolicy = find_or_build("netpolicy")

    def answer(cluster: Cluster) -> set[Flow]:
        with tempfile.TemporaryDirectory() as folder:
            _write(cluster, Path(folder, "cluster.json"))
            said = json.loads(_run(netpolicy, "list", "--quiet", "--dirpath", folder, "--output", "json"))
        return _read(
            cluster, asked, [(line["src"], line["dst"], line["conn"]) for line in said], _netpol_analyzer_covers
        )

    return [answer(cluster) for cluster in clusters]


def _allows(cluster: Cluster, client: Pod, server: Pod, port: Port) -> bool:
    """Both the egress policies of the client and the ingress policies of the server must allow it."""
    return _passes(cluster, "Egress", client, server, port) and _passes(cluster, "Ingress", server, client, port)


def _passes(cluster: Cluster, direction: str, pod: Pod, peer: Pod, port: Port) -> bool:
    """The policies that select a pod for a direction isolate it, and then any rule of any of them may allow."""
    isolating = [
        policy
        for policy in cluster.policies
        if _namespace(policy) == pod.namespace
        and direction in _directions(policy["spec"])
        and _selects(policy["spec"].get("podSelector") or {}, pod.labels)
    ]
    return not isolating or any(
        _has_peer(cluster, policy, rule, peer) and _has_port(rule, port)
        for policy in isolating
        for rule in policy["spec"].get(direction.lower()) or ()
    )


def _namespace(policy: Manifest) -> str:
    return str(policy["metadata"].get("namespace", "default"))


def _directions(spec: Manifest) -> Sequence[str]:
    """Without `policyTypes`, Ingress is always meant, and Egress if there is any egress rule."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _has_peer(cluster: Cluster, policy: Manifest, rule: Manifest, pod: Pod) -> bool:
    """The items of `from` and `to` are alternatives; a missing or empty list means everybody."""
    peers = rule.get("from") or rule.get("to")
    return not peers or any(_is_peer(cluster, policy, peer, pod) for peer in peers)


def _is_peer(cluster: Cluster, policy: Manifest, peer: Manifest, pod: Pod) -> bool:
    """Both selectors of one peer must match; without a namespaceSelector it is about the policy's own namespace."""
    if peer.get("ipBlock") is not None:
        return False  # for addresses outside the cluster: pods' own are ephemeral and unpredictable
    namespaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    if namespaces is None:
        in_namespace = pod.namespace == _namespace(policy)
    else:
        in_namespace = _selects(namespaces, cluster.labels_of(pod.namespace))
    return in_namespace and (pods is None or _selects(pods, pod.labels))


def _has_port(rule: Manifest, asked: Port) -> bool:
    """A missing or empty list means every port."""
    ports = rule.get("ports")
    return not ports or any(_is_port(port, asked) for port in ports)


def _is_port(port: Manifest, asked: Port) -> bool:
    """Without a protocol it is TCP, and without a number every port of the protocol."""
    first = port.get("port")
    if isinstance(first, str):
        raise OracleError(f"port {first!r}: named ports are not supported, write its number")
    if port.get("protocol", "TCP") != asked.protocol:
        return False
    return first is None or first <= asked.number <= port.get("endPort", first)


def _selects(selector: Manifest, labels: Labels) -> bool:
    """All requirements must be met; an empty selector has none."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return wanted.items() <= labels.items() and all(_meets(labels, expression) for expression in expressions)


def _meets(labels: Labels, expression: Manifest) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values  # met where the label is missing
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case unknown:
            raise OracleError(f"operator {unknown!r} is none of In, NotIn, Exists, DoesNotExist")


def _write(cluster: Cluster, file: Path) -> Path:
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": cluster.manifests()}))
    return file


def _scheme(inputs: Sequence[Path]) -> Manifest:
    """Asks nca for the connectivity of each cluster by itself, to be put beside the input."""
    return {
        "resourceList": [str(inputs[0])],  # without a default it asks for a live cluster
        "networkConfigList": [{"name": file.stem, "resourceList": [str(file)]} for file in inputs],
        "queries": [
            {
                "name": f"query-{file.stem}",
                "connectivityMap": [file.stem],
                "outputConfiguration": {
                    "outputFormat": "txt_no_fw_rules",  # pair by pair; the other formats group pods by their labels
                    "outputEndpoints": "pods",
                    "outputPath": str(file.with_suffix(".txt")),
                },
            }
            for file in inputs
        ],
    }


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OracleError(f"{command[0]} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _read(
    cluster: Cluster, asked: Sequence[Port], lines: Iterable[tuple[str, str, str]], covers: Callable[[str, Port], bool]
) -> set[Flow]:
    """The flows in a tool's lines of client, server and connections; `covers` reads the connections."""
    said = defaultdict(list)
    for client, server, connections in lines:  # nca uses several lines for a pair that has several protocols
        said[client.removesuffix("[Pod]"), server.removesuffix("[Pod]")].append(connections)

    def allows(client: Pod, server: Pod, port: Port) -> bool:
        return any(covers(connections, port) for connections in said[client.key, server.key])

    return flows(cluster.pods, asked, allows)


def _nca_covers(connections: str, port: Port) -> bool:
    """Reads `All connections`, `{protocols:TCP, UDP,dst_ports:80,443-445},{protocols:SCTP}` and `All but {…}`."""
    if connections == "All connections":
        return True
    cubes = connections.removeprefix("All but ")
    within = any(_in_cube(cube, port) for cube in cubes.removeprefix("{").removesuffix("}").split("},{"))
    return within == (cubes == connections)


def _in_cube(cube: str, port: Port) -> bool:
    """Reads what is between nca's braces; a part that is missing means everything."""
    parts = _NCA_CUBE.fullmatch(cube)
    if not cube or parts is None:
        raise OracleError(f"nca answered {cube!r}, which cannot be read")
    protocols, ports = parts["protocols"] or "all but ", parts["ports"] or "0-65535"
    named = protocols.removeprefix("all but ")
    return (port.protocol in named.split(", ")) == (named == protocols) and _in_ranges(ports, port.number)


def _netpol_analyzer_covers(connections: str, port: Port) -> bool:
    """Reads `All Connections` and `TCP 80,443-445,UDP 1-65535`."""
    if connections == "All Connections":
        return True
    by_protocol = dict(part.split(" ") for part in re.split(r",(?=[A-Z])", connections))
    return _in_ranges(by_protocol.get(port.protocol, ""), port.number)


def _in_ranges(ranges: str, number: int) -> bool:
    """Whether it is in `80,443-445`."""
    bounds = (text.partition("-") for text in ranges.split(",") if text)
    return any(int(first) <= number <= int(last or first) for first, _, last in bounds)
