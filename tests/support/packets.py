"""Real packets: network namespaces stand in for pods, and kube-network-policies judges what they send to each other.

One more network namespace is the node that routes between them; the agent runs there. So this machine's own network is
never touched, and nothing of it stays, however this process ends.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hack.children import Child
from hack.controlplane import ControlPlane
from hack.gotools import find_or_build
from tests.support.clusters import Cluster, Flow, Manifest, Pod, namespace_manifest, pod_manifest
from tests.support.netns import Netns
from tests.support.relay import relayed

COMMANDS = {"ip": "iproute2", "iptables-restore": "iptables", "nsenter": "util-linux"}  # and their Debian packages
CONNECT_SECONDS = 1.5  # what a dropped connection costs; the kernel sends a lost packet again after one
READY_SECONDS = 30.0
STOP_SECONDS = 0.2
PROBES_AT_ONCE = 128
LABEL = "packets.test/run"  # on the objects that are ours to delete
NODE = "packets-node"
GATEWAY = "169.254.1.1"
QUEUE = 100
# The agent does the like with nftables, but not every kernel can queue from there. While nobody reads the queue, what is
# sent there is dropped: an agent that dies opens nothing.
FILTER = f"""*filter
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -j NFQUEUE --queue-num {QUEUE}
COMMIT
"""


class PacketsError(Exception):
    """The agent does not start; the message has the end of its log."""


@dataclass(frozen=True)
class Host:
    """A pod's end of the wire."""

    pod: Pod
    address: str
    netns: Netns
    listeners: Mapping[int, socket.socket]

    def connects(self, server: "Host", port: int) -> bool:
        """Whether a TCP connection to the server is established, and arrives there."""

        def connect() -> bool:
            try:
                socket.create_connection((server.address, port), CONNECT_SECONDS).close()
            except TimeoutError:
                return False
            return True

        if not self.netns.call(connect):
            return False
        server.listeners[port].accept()[0].close()
        return True


class Wire:
    """Pods that can be made to connect to each other."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = {host.pod.key: host for host in hosts}

    def reachable(self, client: Pod, server: Pod, port: int) -> bool:
        """Whether a TCP connection from the client arrives at the server, which must listen on this port."""
        return self._hosts[client.key].connects(self._hosts[server.key], port)

    def flows(self) -> set[Flow]:
        """What arrives, of all pairs of different pods and every port on which the server listens."""
        asked = [
            Flow(client.pod.key, server.pod.key, "TCP", port)
            for client, server in permutations(self._hosts.values(), 2)
            for port in server.pod.ports
        ]
        with ThreadPoolExecutor(PROBES_AT_ONCE) as probes:
            answers = probes.map(self._arrives, asked)
            return {flow for flow, arrives in zip(asked, answers, strict=True) if arrives}

    def _arrives(self, flow: Flow) -> bool:
        return self._hosts[flow.client].connects(self._hosts[flow.server], flow.port)


def missing() -> str:
    """Why this machine cannot do it; empty when it can."""
    if os.geteuid() != 0:
        return "real packets need root, for network namespaces"
    packages = [package for command, package in COMMANDS.items() if shutil.which(command) is None]
    return f"real packets need `apt-get install {' '.join(packages)}`" if packages else ""


@contextlib.contextmanager
def wired(plane: ControlPlane, cluster: Cluster) -> Iterator[Wire]:
    """The cluster's pods on the wire, under its policies and those that the control plane has besides.

    Namespaces that exist already are taken as they are. Skips the test where the machine cannot do it.
    """
    if reason := missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(_node())
        hosts = [stack.enter_context(_host(node, index, pod)) for index, pod in enumerate(cluster.pods)]
        stack.enter_context(_objects(plane, cluster, hosts))
        stack.enter_context(_agent(plane, node))
        yield Wire(hosts)


@contextlib.contextmanager
def _node() -> Iterator[Netns]:
    """Forwards between pods, but the first packet of each connection only after the agent's verdict."""
    with contextlib.closing(Netns()) as node:
        node.run("ip", "link", "set", "lo", "up")
        node.run("iptables-restore", stdin=FILTER)
        node.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        yield node


@contextlib.contextmanager
def _host(node: Netns, index: int, pod: Pod) -> Iterator[Host]:
    """A pod with an address of its own and a wire to the node."""
    address, wire = f"192.0.2.{10 + index}", f"pod{index}"  # 192.0.2.0/24 is for documentation (RFC 5737)
    with contextlib.closing(Netns()) as netns, contextlib.ExitStack() as stack:
        node.run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", netns.path)
        _ip(node, f"address add {GATEWAY}/32 dev {wire}", f"link set {wire} up", f"route add {address}/32 dev {wire}")
        _ip(
            netns,
            f"address add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {GATEWAY}/32 dev eth0",
            f"route add default via {GATEWAY}",
        )
        listeners = {}
        for port in pod.ports:
            listener = netns.call(partial(socket.create_server, (address, port)))
            listener.settimeout(CONNECT_SECONDS)
            listeners[port] = stack.enter_context(listener)
        yield Host(pod, address, netns, listeners)


def _ip(netns: Netns, *commands: str) -> None:
    netns.run("ip", "-batch", "-", stdin="\n".join(commands))


@contextlib.contextmanager
def _objects(plane: ControlPlane, cluster: Cluster, hosts: Sequence[Host]) -> Iterator[None]:
    """What the agent reads: the cluster as objects, with the pods' addresses."""
    run = uuid.uuid4().hex
    existing = set(plane.kubectl("get", "namespaces", "-o", "name").replace("namespace/", "").split())
    namespaces = [
        namespace_manifest(name, labels) for name, labels in cluster.namespaces.items() if name not in existing
    ]
    pods = [_pod(host) for host in hosts]
    try:
        _kubectl(plane, run, [*namespaces, *cluster.policies], "create")
        for pod in cluster.pods:
            account = f"serviceaccount/{pod.account}"
            plane.kubectl("wait", "--for=create", f"--timeout={READY_SECONDS:.0f}s", account, "-n", pod.namespace)
        _kubectl(plane, run, pods, "create")
        _kubectl(plane, run, pods, "apply", "--server-side", "--force-conflicts", "--subresource=status")
        yield
    finally:
        ours = f"{LABEL}={run}"
        plane.kubectl("delete", "pods,networkpolicies", "-A", "-l", ours, "--wait=false")
        plane.kubectl("delete", "namespaces", "-l", ours, "--wait=false")


def _pod(host: Host) -> Manifest:
    """Bound to a node without a kubelet, so it is never started, and deleted at once."""
    manifest = pod_manifest(host.pod, host.address)
    spec = {**manifest["spec"], "nodeName": NODE, "terminationGracePeriodSeconds": 0}
    return {**manifest, "spec": {**spec, "serviceAccountName": host.pod.account}}


def _kubectl(plane: ControlPlane, run: str, manifests: Sequence[Manifest], *command: str) -> None:
    """Create or apply manifests that are labelled as ours."""
    items = [_labelled(manifest, run) for manifest in manifests]
    if items:
        plane.kubectl(*command, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _labelled(manifest: Manifest, run: str) -> Manifest:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), LABEL: run}}}


@contextlib.contextmanager
def _agent(plane: ControlPlane, node: Netns) -> Iterator[None]:
    """kube-network-policies on the node, from when it judges packets."""
    server = urlsplit(plane.url)
    flags = {
        "kubeconfig": plane.kubeconfig,
        "hostname-override": NODE,
        "nfqueue-id": QUEUE,
        "disable-nri": "true",  # there is no container runtime to ask
        "fail-open": "false",
        "strict-mode": "false",
        "netfilter-bug-1766-fix": "false",
        "metrics-bind-address": "127.0.0.1:9080",
    }
    binary = find_or_build("kube-network-policies")
    command = node.command(binary, *(f"--{name}={value}" for name, value in flags.items()))
    with tempfile.TemporaryDirectory() as folder, relayed(node, server.hostname or "", server.port or 443):
        agent = Child("kube-network-policies", command, Path(folder, "agent.log"))
        try:
            _wait_for_queue(agent, node)
            yield
        finally:
            agent.stop(STOP_SECONDS)


def _wait_for_queue(agent: Child, node: Netns) -> None:
    """It takes the queue after it has read every object."""
    deadline = time.monotonic() + READY_SECONDS
    while not node.call(_queues):
        if agent.exit_code is not None or time.monotonic() > deadline:
            raise PacketsError(f"{agent.name} does not read its queue; its log ends:\n{agent.tail()}")
        time.sleep(0.02)


def _queues() -> list[str]:
    """The kernel's queues that somebody reads."""
    return Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines()
