"""What a set of manifests, or a cluster, says about who may call whom: resolved and compiled as the controller does it.

Every policy that reads and resolves counts as accepted; what is wrong with the others is in `problems`.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from zerotrust.cli.manifests import Body, Manifest, read
from zerotrust.common import naming, times
from zerotrust.common.conditions import find
from zerotrust.common.errors import SpecError, ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.common.resource import EARLIEST, TIME_RANGE
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import SystemClock
from zerotrust.engine.isolation import NamespaceIsolation
from zerotrust.engine.policies import NetworkPolicyController, place_of
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.trustdomains import TrustDomains, named_trust_domain
from zerotrust.kube.observe import Observer
from zerotrust.policy import acceptance, isolation, network
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.reading import Policy
from zerotrust.policy.table import Contribution, Table
from zerotrust.trustdomain.authority import KeyRing

EXIT_PROBLEM = 2
CLUSTER = "the cluster"
ORDER = ("Namespace", "TrustDomain", "ServiceIdentity", "ApiKey", "EndpointSlice", "NetworkPolicy", "TrustPolicy")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Problem:
    """Something that keeps an object from counting; `text` begins with the path of the field."""

    origin: str
    ref: Ref
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.ref}: {self.text}"


class Intent:
    """Policies, what they are resolved against, and the tables that follow.

    In a cluster a policy that does not resolve was accepted when it did, mostly, so it counts for as much as resolves.
    """

    def __init__(self, manifests: Iterable[Manifest], operator_namespace: str, *, live: bool = False) -> None:
        self._cache = Cache()
        self._origins: dict[Ref, str] = {}
        self._observe = Observer(operator_namespace, KeyRing())
        domains = TrustDomains(self._cache, operator_namespace)
        self.book = PolicyBook(self._cache, domains, SystemClock())
        self._isolation = NamespaceIsolation(self._cache, domains)
        self._networks = NetworkPolicyController(self._cache, self.book, domains, self._isolation, SystemClock())
        self.problems: list[Problem] = []
        self._version = 0
        for manifest in sorted(manifests, key=lambda one: (ORDER.index(one.body["kind"]), one.ref)):
            self._put(manifest)
        if not live:
            self._assume(domains)
        self._accept(operator_namespace, live=live)

    def _put(self, manifest: Manifest) -> None:
        self._version += 1
        metadata = {"uid": f"{self._version:08}", "generation": 1, **manifest.body["metadata"]}
        if manifest.body["kind"] == "Namespace":
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
        metadata["resourceVersion"] = str(self._version)
        self._cache.put(self._observe(manifest.body["kind"], {**manifest.body, "metadata": metadata}))
        self._origins[manifest.ref] = manifest.origin

    def _assume(self, domains: TrustDomains) -> None:
        """Add the namespaces and TrustDomains that the manifests take for granted, with their defaults."""
        used = [ref.namespace for kind in ("ServiceIdentity", "TrustPolicy") for ref in self._cache.refs(kind)]
        missing = [("Namespace", name) for name in used if self._cache.get(Ref("Namespace", "", name)) is None]
        missing += [
            ("TrustDomain", named_trust_domain(one))
            for one in self._cache.of_kind("ServiceIdentity")
            if not isinstance(one.spec, SpecError) and domains.of(one) is None
        ]
        for kind, name in dict.fromkeys(missing):
            body: Body = {"kind": kind, "metadata": {"name": name or "default.assumed"}}
            if kind == "TrustDomain":
                body["spec"] = {"default": not name}
            self._put(Manifest("assumed", body))

    def _accept(self, operator_namespace: str, *, live: bool) -> None:
        for kind in ("TrustDomain", "ServiceIdentity", "ApiKey"):
            for one in self._cache.of_kind(kind):
                if isinstance(one.spec, SpecError):
                    self._complain(one.meta.ref, str(one.spec))
        for identity in self.book.identities():
            if not identity.resolved:
                ref = Ref("ServiceIdentity", *identity.workload)
                self._complain(ref, "spec.serviceAccountName: another ServiceIdentity has this ServiceAccount already")
        for policy in self.policies:
            spec = policy.spec.spec
            if policy.spec.problem is not None or spec is None:
                self._complain(policy.meta.ref, str(policy.spec.problem or "spec: cannot be read"))
                continue
            unresolved = acceptance.unresolved(policy, spec, self.book)
            for text in unresolved:
                self._complain(policy.meta.ref, text)
            if live:
                self._compare(policy)
            if live or not unresolved:
                memory = acceptance.remember(policy, spec, 1, operator_namespace)
                self._put(Manifest("memory", dict(memory.manifest)))

    def _compare(self, policy: Policy) -> None:
        """What is accepted is kept where not everybody may read; the status tells at least whether it is this version."""
        accepted = find(policy.conditions, "Accepted") or {}
        if accepted.get("status") == "False":
            text = f"is not accepted ({accepted.get('reason')}), so what is in force differs from the spec that is judged here"
            self._complain(policy.meta.ref, text)

    def _complain(self, ref: Ref, text: str) -> None:
        self.problems.append(Problem(self._origins.get(ref, CLUSTER), ref, text))

    @property
    def policies(self) -> list[Policy]:
        """Every TrustPolicy, by namespace and name."""
        return sorted(self._cache.of_kind("TrustPolicy"), key=lambda one: one.meta.ref)

    @property
    def identities(self) -> list[Identity]:
        """Every ServiceIdentity, by namespace and name."""
        return sorted(self.book.identities(), key=lambda one: one.workload)

    def tables(self) -> Iterator[tuple[Identity, Table]]:
        """Every identity with its table."""
        return ((one, self.book.table(one)) for one in self.identities)

    def origin(self, ref: Ref) -> str:
        """The file that an object came from."""
        return self._origins.get(ref, CLUSTER)

    def candidate(self, policy: Policy) -> acceptance.TableOf:
        """Compiles tables with something else in place of a policy; the same table only once."""
        known: dict[tuple[Workload, Contribution], Table] = {}

        def table_of(server: Identity, contribution: Contribution) -> Table:
            key = (server.workload, contribution)
            if key not in known:
                known[key] = self.book.table_with(policy, server, contribution)
            return known[key]

        return table_of

    def namespace_labels(self, namespace: str) -> dict[str, str]:
        """The labels of a namespace."""
        return dict(dict(self.book.namespaces()).get(namespace, {}))

    def network_policies(self, identity: Identity, now: datetime) -> list[Body]:
        """The network policies that the controller makes for an identity's pods: its own, and its namespace's default-deny."""
        own = isolation.wanted(self._networks.snapshot(place_of(identity.workload)), now)
        return [one for one in (own, self.default_deny(identity.workload.namespace)) if one is not None]

    def default_deny(self, namespace: str) -> Body | None:
        """The network policy that the controller makes for every pod of an isolated namespace."""
        closed = self._isolation.closed(namespace)
        if not closed:
            return None
        rules = {one: network.resolvers(self._isolation.dns(namespace)) if one == "Egress" else [] for one in closed}
        labels = {naming.COMPONENT: naming.COMPONENT_DEFAULT_DENY}
        return network.manifest(namespace, naming.DEFAULT_DENY, labels, {}, rules)


class Moment(click.ParamType[datetime]):
    """A time of RFC 3339."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time; a usage error says what to write."""
        if isinstance(value, datetime):
            return value
        try:
            moment = times.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if moment < EARLIEST:
            self.fail(TIME_RANGE.message, param, ctx)
        return moment


def now() -> datetime:
    """The present time."""
    return datetime.now(UTC)


_FILES = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="Manifests: file, folder or -; without: the cluster.",
)
_SURROUNDINGS = (
    click.option(
        "--namespace", envvar="ZEROTRUST_NAMESPACE", default="zerotrust-system", help="The operator's namespace."
    ),
    click.option("--default-namespace", default="default", help="For manifests that name no namespace."),
)
_CLUSTER = (
    click.option("--kubeconfig", metavar="FILE", help="Cluster to read from, without -f; default: KUBECONFIG."),
    click.option("--context", "kube_context", metavar="NAME", help="Context of the kubeconfig."),
)


def file_options(command: Command) -> Command:
    """Add the options that say how manifests are read."""
    for option in reversed(_SURROUNDINGS):
        command = option(command)
    return command


def source_options(command: Command) -> Command:
    """Add the options that say where policies come from: files or a cluster."""
    for option in reversed((_FILES, *_SURROUNDINGS, *_CLUSTER)):
        command = option(command)
    return command


def load(
    files: Sequence[str],
    namespace: str,
    default_namespace: str,
    kubeconfig: str | None = None,
    kube_context: str | None = None,
) -> Intent:
    """Read files, or without any the cluster; ends the command with 2 when that does not succeed."""
    try:
        if files:
            return Intent(read(files, default_namespace), namespace)
        found = asyncio.run(_read_cluster(kubeconfig, kube_context))
        say("Note: each policy is judged by its spec, as if that were accepted", err=True)
        return Intent(found, namespace, live=True)
    except (ZerotrustError, OSError) as error:
        say(f"Error: {error}", err=True)
        raise SystemExit(EXIT_PROBLEM) from None


async def _read_cluster(kubeconfig: str | None, context: str | None) -> list[Manifest]:
    """Read what decides from a cluster; what not everybody may read and explain can do without is left out."""
    from zerotrust.kube import resources
    from zerotrust.kube.client import Client, load_configuration
    from zerotrust.kube.errors import Forbidden
    from zerotrust.telemetry.metrics import Metrics

    needed = (resources.NAMESPACES, resources.TRUST_DOMAINS, resources.SERVICE_IDENTITIES, resources.TRUST_POLICIES)
    found: list[Manifest] = []
    async with Client(await load_configuration(kubeconfig, context), Metrics()) as client:
        for resource in (*needed, resources.ENDPOINT_SLICES, resources.NETWORK_POLICIES):
            try:
                async for items, _ in client.list(resource):
                    found += [Manifest(CLUSTER, {**body, "kind": resource.kind}) for body in items]
            except Forbidden as error:
                if resource in needed:
                    raise
                say(f"Warning: {error}; judged without", err=True)
    return found


def report(problems: Iterable[Problem], prefix: str = "Error") -> bool:
    """Print problems on standard error; tell whether there were any."""
    found = False
    for problem in problems:
        say(f"{prefix}: {problem}", err=True)
        found = True
    return found


def printable(text: str) -> str:
    """Return a text that does nothing to a terminal: what cannot be printed is escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, fit for any terminal."""
    click.echo("\n".join(printable(line).rstrip() for line in text.split("\n")), err=err)
