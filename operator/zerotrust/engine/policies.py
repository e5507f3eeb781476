"""The controllers for TrustPolicies and for the network policy of each identity: from the cache to pure decisions."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import EndpointSlice, NetworkPolicy
from zerotrust.common.plan import Apply, Plan
from zerotrust.engine.admission import INSTALLATION, AdmissionBook, concerns_gatekeeper, says_something_else
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.controller import Failure, Statusless, Touched
from zerotrust.engine.difference import missing
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.isolation import NamespaceIsolation
from zerotrust.engine.policybook import POLICIES, AcceptedVersion, PolicyBook
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.engine.widenings import Widenings
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.identity.snapshot import service_account
from zerotrust.policy import isolation, network, reconcile
from zerotrust.policy.directory import Identity, Workload, default_selector
from zerotrust.policy.foreign import Edge, may_select, widening
from zerotrust.policy.isolation import Awaited, NetworkSnapshot
from zerotrust.policy.network import PortOf, Surroundings
from zerotrust.policy.podset import PodSet
from zerotrust.policy.reading import Policy
from zerotrust.policy.reconcile import PolicySnapshot, Programming, TargetState
from zerotrust.policy.survey import Survey, survey_ref
from zerotrust.policy.table import Table
from zerotrust.trustdomain.resource import Dns

SOON = timedelta(milliseconds=500)
FOREIGN = "foreign-network-policies-by-namespace"
API_SERVER = "api-server-endpoint-slices"


class NetworkPolicyController(Statusless):
    """Keeps the network policy of each identity; a key is the network policy's place."""

    name = "NetworkPolicy"
    urgency = -0.75  # after authorities, and before the next policy: what is accepted is written before more is

    def __init__(
        self,
        cache: Cache,
        book: PolicyBook,
        domains: TrustDomains,
        isolation_of: NamespaceIsolation,
        clock: Clock,
        widenings: Widenings | None = None,
    ) -> None:
        self._cache, self._book, self._domains = cache, book, domains
        self._isolation, self._clock, self._widenings = isolation_of, clock, widenings
        cache.index(API_SERVER, "EndpointSlice", lambda one: [one.meta.namespace])

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which network policies a change makes due."""
        places = self._book.servers_of(change)
        match change.ref.kind:
            case "NetworkPolicy" if change.ref.name.startswith(naming.NETWORK_POLICY_PREFIX):
                yield Touched(change.ref)
            case "TrustPolicy" | "ControllerRevision" | "ServiceIdentity" | "ApiKey":
                refs = self._book.policies_of(places)
                places |= set(self._isolated_clients(self._policies(refs)))
            case "ConfigMap" if change.ref.name.endswith(naming.ISOLATION_RECORD_SUFFIX):
                namespace = change.ref.name.removesuffix(naming.ISOLATION_RECORD_SUFFIX)
                if change.ref.namespace == self._domains.operator_namespace and change.new is not None:
                    places = {Workload(namespace, name) for name in change.new.data}
            case "ConfigMap" if change.ref.name.endswith(naming.BUNDLE_RECORD_SUFFIX):
                if change.old is None or change.new is None:
                    namespace = change.ref.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)
                    isolated = (one for one in self._book.identities(namespace) if one.egress == "Isolated")
                    places = {one.workload for one in isolated}
            case "EndpointSlice":
                places = {one.workload for one in self._book.identities() if _calls_api_server(one)}
        yield from (Touched(place_of(workload)) for workload in places)
        if self._widenings is not None:
            yield from map(Touched, self._widenings.touched_by(change))

    def _policies(self, refs: Iterable[Ref]) -> Iterator[Policy]:
        return (policy for ref in refs if (policy := self._cache.get(ref)) is not None)

    def _isolated_clients(self, policies: Iterable[Policy]) -> Iterator[Workload]:
        for client in self._book.clients_of(policies):
            identity = self._book.identity(client)
            if identity is not None and identity.egress == "Isolated":
                yield client

    def snapshot(self, ref: Ref) -> NetworkSnapshot:
        """Collect what a decision needs."""
        name = ref.name.removeprefix(naming.NETWORK_POLICY_PREFIX)
        identity = self._book.identity(Workload(ref.namespace, name))
        record = self._isolation.record_ref(ref.namespace)
        servers = tuple(self._servers(identity)) if identity is not None and identity.egress == "Isolated" else ()
        return NetworkSnapshot(
            ref=ref,
            namespace=self._cache.get(Ref("Namespace", "", ref.namespace)),
            identity=identity,
            table=self._book.table(identity) if identity is not None else None,
            observed=self._cache.get(ref),
            record=record,
            remembered=isolation.remembered(self._cache.get(record), name),
            directory=self._book,
            servers=servers,
            awaited=self._widenings.awaited(ref, identity, servers) if identity and self._widenings else Awaited(),
            surroundings=self._surroundings(ref),
            survey=self._cache.get(survey_ref(ref.namespace)),
        )

    def _servers(self, client: Identity) -> Iterator[tuple[Identity, Table]]:
        seen = set()
        for policy in self._book.naming_client(client.workload):
            for server in self._book.targets(policy):
                if server.workload not in seen and network.consents(client, server.workload):
                    seen.add(server.workload)
                    yield server, self._book.table(server)

    def _surroundings(self, ref: Ref) -> Surroundings:
        observed = self._cache.get(Ref("ServiceIdentity", ref.namespace, _identity_name(ref)))
        domain = self._domains.of(observed) if observed is not None else self._domains.default()
        dns = domain.spec.dns if domain is not None and not isinstance(domain.spec, SpecError) else Dns()
        slices: list[EndpointSlice] = self._cache.find(API_SERVER, "default")
        api_server = {
            (f"{address}/{ip_address(address).max_prefixlen}", PortOf(*port))
            for one in slices
            for address in one.addresses
            for port in one.ports
        }
        closed = self._isolation.closed(ref.namespace)
        return Surroundings(dns, tuple(sorted(api_server)), closed, self._bundle_server(ref.namespace))

    def _bundle_server(self, namespace: str) -> PodSet | None:
        """Where decision points of a namespace get their bundles; None where there are none."""
        operator = self._domains.operator_namespace
        record = Ref("ConfigMap", operator, naming.bundle_record_name(namespace))
        if self._cache.get(record) is None:
            return None
        return PodSet.within(operator, default_selector(naming.BUNDLE_SERVER))

    def reconcile(self, snapshot: NetworkSnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return isolation.reconcile_network(snapshot, now)

    def programming(self, identity: Identity) -> tuple[Programming, NetworkSnapshot]:
        """How far an identity's network policy is: the object in the cluster against what it should be."""
        snapshot = self.snapshot(place_of(identity.workload))
        if isolation.conflicts(snapshot):
            return "conflict", snapshot
        wanted = isolation.wanted(snapshot, self._clock.now())
        if wanted is None:
            return ("pending" if snapshot.observed is not None else "observed"), snapshot
        if snapshot.observed is None or missing(snapshot.observed, Apply(wanted, exact=("spec",))):
            return "pending", snapshot
        return "programmed", snapshot


class TrustPolicyController:
    """Accepts changes of TrustPolicies and keeps their status; network policies are the other controller's."""

    name = "TrustPolicy"

    def __init__(
        self,
        cache: Cache,
        book: PolicyBook,
        networks: NetworkPolicyController,
        enforcement: Enforcement,
        admission: AdmissionBook,
        clock: Clock,
    ) -> None:
        self._cache, self._book, self._networks, self._clock = cache, book, networks, clock
        self._enforcement, self._admission = enforcement, admission
        self._operator_namespace = book.operator_namespace
        cache.index(FOREIGN, "NetworkPolicy", lambda one: [] if _is_kept(one) else [one.meta.namespace])

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which policies a change makes due."""
        match change.ref.kind:
            case "TrustPolicy":
                yield Touched(change.ref)
                yield from self._neighbours(change)
            case "ControllerRevision":
                place = (change.new or change.old).meta.annotations.get(naming.POLICY, "").partition("/")
                yield Touched(Ref("TrustPolicy", place[0], place[2]))
                yield from self._neighbours(change)
            case "NetworkPolicy" if change.ref.name.startswith(naming.NETWORK_POLICY_PREFIX):
                # What somebody else did to it is repaired in moments, and then there is nothing to tell.
                within = SOON if change.by is None else timedelta()
                for policy in self._book.targeting(Workload(change.ref.namespace, _identity_name(change.ref))):
                    yield Touched(policy.meta.ref, within)
            case "NetworkPolicy":
                for policy in self._cache.find(POLICIES, change.ref.namespace):
                    yield Touched(policy.meta.ref, SOON)
            case "ConfigMap":
                for namespace in self._enforcement.concerned(change):
                    yield from (Touched(policy.meta.ref, SOON) for policy in self._cache.find(POLICIES, namespace))
            case "ServiceIdentity" | "Namespace" | "TrustDomain" | "ApiKey":
                yield from self._neighbours(change)
            case "ValidatingWebhookConfiguration" if not concerns_gatekeeper(change):
                return
            case "Gatekeeper" | "ConstraintTemplate" | "ValidatingWebhookConfiguration":
                if change.ref == INSTALLATION or says_something_else(change):
                    yield from (Touched(ref, SOON) for ref in self._cache.refs("TrustPolicy"))
            case kind if kind in TEMPLATES and says_something_else(change):
                for namespace in self._admission.namespaces_of(change):
                    yield from (Touched(policy.meta.ref, SOON) for policy in self._cache.find(POLICIES, namespace))

    def _neighbours(self, change: Change) -> Iterator[Touched]:
        servers = self._book.servers_of(change)
        refs = self._book.policies_of(servers)
        if change.ref.kind == "ServiceIdentity" and servers:
            place = Workload(change.ref.namespace, change.ref.name)
            refs |= {policy.meta.ref for policy in self._book.naming_client(place)}
        yield from (Touched(ref, SOON) for ref in refs if ref != change.ref)

    def snapshot(self, ref: Ref) -> PolicySnapshot | None:
        """Collect what a decision needs."""
        policy: Policy | None = self._cache.get(ref)
        kept = self._book.revisions_named(ref)
        if policy is None:
            return PolicySnapshot(ref, None, tuple(kept), self._operator_namespace, self._book) if kept else None
        targets = self._book.targets(policy)
        revisions = tuple(self._book.revisions(policy.meta.uid))
        version = self._book.version(policy)
        return PolicySnapshot(
            ref=ref,
            resource=policy,
            revisions=revisions,
            operator_namespace=self._operator_namespace,
            directory=self._book,
            table_of=lambda server, candidate: self._book.table_with(policy, server, candidate),
            targets=tuple(self._target(one, version) for one in targets),
            refusing=tuple(self._refusing(policy, targets)),
            survey=self._survey(ref.namespace),
            leftover=tuple(one for one in kept if one.meta.labels.get(naming.POLICY_UID) != policy.meta.uid),
            delivery=self._enforcement.delivery(ref.namespace, version),
            admission=self._admission.state(ref.name, targets),
        )

    def _survey(self, namespace: str) -> Survey | None:
        survey: Survey | None = self._cache.get(survey_ref(namespace))
        return survey

    def _target(self, identity: Identity, version: AcceptedVersion) -> TargetState:
        programming, snapshot = self._networks.programming(identity)
        account = service_account(self._cache.get(Ref("ServiceIdentity", *identity.workload)))
        return TargetState(
            identity,
            programming,
            newly_isolated=snapshot.observed is None and identity.enforcement == "Enforce",
            too_complex=tuple(network.too_complex(self._book.table(identity), self._book, self._clock.now())),
            shadowed=self._shadowed(identity),
            points=self._enforcement.points(identity.workload.namespace, account, version),
            denials=self._enforcement.denials(identity.workload.namespace, identity.workload.name, account),
        )

    def _shadowed(self, identity: Identity) -> tuple[Edge, ...] | None:
        """What network policies of others let in and the table does not; None when the pods must be looked at."""
        others: list[NetworkPolicy] = self._cache.find(FOREIGN, identity.workload.namespace)
        if not others:
            return ()
        survey, table, now = self._survey(identity.workload.namespace), self._book.table(identity), self._clock.now()
        found = []
        for one in others:
            if (edge := widening(one, identity.workload, table, self._book, now)) is not None:
                selected = may_select(one, identity, survey)
                if selected is None:
                    return None
                if selected:
                    found.append(edge)
        return tuple(sorted(found))

    def _refusing(self, policy: Policy, targets: list[Identity]) -> Iterator[tuple[Workload, Workload]]:
        """Isolated clients in other namespaces that have not agreed to call what the policy lets them call."""
        for server in targets:
            table = self._book.table(server)
            for client in table.by_client:
                identity = self._book.identity(client.workload) if client.workload is not None else None
                if identity is None or identity.egress != "Isolated" or network.consents(identity, server.workload):
                    continue
                if any(row.policy == policy.meta.name and row.effect == "Allow" for row in table.by_client[client]):
                    yield identity.workload, server.workload

    def is_slow(self, snapshot: PolicySnapshot) -> bool:  # noqa: ARG002 - milliseconds
        """Never."""
        return False

    def reconcile(self, snapshot: PolicySnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return reconcile.reconcile(snapshot, now)

    def failed(self, snapshot: PolicySnapshot, failure: Failure, now: datetime) -> Plan:
        """Tell in the conditions that writing does not succeed."""
        return reconcile.failed(snapshot, failure.message, now)

    def priority(self, ref: Ref) -> float:  # noqa: ARG002 - who may talk to whom is more urgent than a renewal
        """After the network policies of those that are accepted, before leaves."""
        return -0.5


def place_of(workload: Workload) -> Ref:
    """Where the network policy of an identity is."""
    return Ref("NetworkPolicy", workload.namespace, naming.network_policy_name(workload.name))


def _is_kept(policy: NetworkPolicy) -> bool:
    """Tell whether the operator keeps a network policy as it should be; our labels on another name make it nobody's."""
    named = policy.meta.name.startswith(naming.NETWORK_POLICY_PREFIX) or policy.meta.name == naming.DEFAULT_DENY
    return named and isolation.is_ours(policy)


def _identity_name(ref: Ref) -> str:
    return ref.name.removeprefix(naming.NETWORK_POLICY_PREFIX)


def _calls_api_server(identity: Identity) -> bool:
    egress = identity.spec.egress if identity.spec is not None else None
    return egress is not None and any(rule.kubernetes_api for rule in egress.allow)
