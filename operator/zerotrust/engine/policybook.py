"""Policies, identities and the tables that follow from them, looked up in the cache; tables are compiled when asked for and kept.

The cache's indexes are the reverse ones: from a client to the policies that name it, from a workload to those that target it.
So a change drops the tables of the workloads that it is about, and no others.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ControllerRevision, CustomResource
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.trustdomains import BY_NAMESPACE, Domain, TrustDomains
from zerotrust.engine.trustdomains import Identity as ObservedIdentity
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import service_account
from zerotrust.policy import acceptance, table
from zerotrust.policy.acceptance import Accepted
from zerotrust.policy.directory import Identity, Workload, default_selector
from zerotrust.policy.podset import selector_of
from zerotrust.policy.reading import Policy, Reading
from zerotrust.policy.resource import TrustPolicySpec
from zerotrust.policy.table import Contribution, Table

BY_TARGET = "policies-by-target"
BY_CLIENT = "policies-by-client"
ACCEPTED_BY_TARGET = "accepted-policies-by-target"
ACCEPTED_BY_CLIENT = "accepted-policies-by-client"
BY_API_KEY = "policies-by-api-key"
ACCEPTED_BY_API_KEY = "accepted-policies-by-api-key"
ACCEPTED = "accepted-policies-by-uid"
POLICIES = "policies-by-namespace"
POLICY_BY_NAME = "accepted-policies-by-name"
OTHERWISE = "identities-selected-by-other-labels"

BY_ACCOUNT = "identities-by-service-account"

SELECTED = ""  # in place of a name: by selector, or all
MANY = Workload("", "selecting")
ANY = Workload("", "any")

Version = tuple[str, TrustPolicySpec]
"""A policy's namespace with one version of its spec."""


class AcceptedVersion(NamedTuple):
    """Which accepted version of a policy is in force; `number` is 0 while there is none."""

    uid: str
    number: int


class PolicyBook:
    """A `Directory` over the cache, with the table of each workload."""

    def __init__(self, cache: Cache, domains: TrustDomains, clock: Clock) -> None:
        self._cache, self._domains, self._clock = cache, domains, clock
        self.operator_namespace = domains.operator_namespace
        self._identities: dict[Workload, tuple[ObservedIdentity, Domain | None, Identity]] = {}
        self._tables: dict[Workload, Table] = {}
        self._asked: tuple[Change, frozenset[Workload]] | None = None
        cache.index(BY_ACCOUNT, "ServiceIdentity", lambda one: [(one.meta.namespace, service_account(one))])
        cache.index(BY_TARGET, "TrustPolicy", lambda one: _target_keys(_version(one)))
        cache.index(BY_CLIENT, "TrustPolicy", lambda one: _client_keys(_version(one)))
        cache.index(BY_API_KEY, "TrustPolicy", lambda one: _api_keys(_version(one)))
        cache.index(POLICIES, "TrustPolicy", lambda one: [one.meta.namespace])
        cache.index(ACCEPTED_BY_TARGET, "ControllerRevision", lambda one: _target_keys(_kept_version(one)))
        cache.index(ACCEPTED_BY_CLIENT, "ControllerRevision", lambda one: _client_keys(_kept_version(one)))
        cache.index(ACCEPTED_BY_API_KEY, "ControllerRevision", lambda one: _api_keys(_kept_version(one)))
        cache.index(ACCEPTED, "ControllerRevision", lambda one: [one.meta.labels.get(naming.POLICY_UID, "")])
        cache.index(POLICY_BY_NAME, "ControllerRevision", lambda one: [one.meta.annotations.get(naming.POLICY, "")])
        cache.index(OTHERWISE, "ServiceIdentity", lambda one: [""] if _has_selector(one) else [])
        cache.listen(self._changed)

    # The directory

    def identity(self, workload: Workload) -> Identity | None:
        """The ServiceIdentity at that place; None when its spec cannot be read or it is being deleted."""
        observed: ObservedIdentity | None = self._cache.get(Ref("ServiceIdentity", *workload))
        if observed is None or observed.meta.deleting or isinstance(observed.spec, SpecError):
            return None
        domain = self._domains.of(observed)
        if len(self._rivals(observed)) > 1:
            return _facts(observed, domain, resolved=self._is_eldest(observed))
        known = self._identities.get(workload)
        if known is None or known[0] is not observed or known[1] is not domain:
            known = self._identities[workload] = (observed, domain, _facts(observed, domain))
        return known[2]

    def _rivals(self, observed: ObservedIdentity) -> list[ObservedIdentity]:
        return self._cache.find(BY_ACCOUNT, (observed.meta.namespace, service_account(observed)))

    def _is_eldest(self, observed: ObservedIdentity) -> bool:
        living = [one for one in self._rivals(observed) if not one.meta.deleting]
        return min(living, key=lambda one: one.meta.seniority).meta.ref == observed.meta.ref

    def identities(self, namespace: str | None = None) -> Iterator[Identity]:
        """Every ServiceIdentity, of one namespace or of all."""
        found = (
            self._cache.of_kind("ServiceIdentity") if namespace is None else self._cache.find(BY_NAMESPACE, namespace)
        )
        return self._facts_of(found)

    def selected_otherwise(self) -> Iterator[Identity]:
        """Every ServiceIdentity whose pods are not told by the derived label."""
        return self._facts_of(self._cache.find(OTHERWISE, ""))

    def _facts_of(self, found: Iterable[ObservedIdentity]) -> Iterator[Identity]:
        for one in found:
            identity = self.identity(Workload(one.meta.namespace, one.meta.name))
            if identity is not None:
                yield identity

    def namespaces(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Every namespace with its labels."""
        for one in self._cache.of_kind("Namespace"):
            yield one.meta.name, one.meta.labels

    def watches(self, namespace: str) -> bool:
        """Whether what is in a namespace is known."""
        return self._domains.watches(namespace)

    def api_key_scopes(self, workload: Workload) -> frozenset[str] | None:
        """The scopes of the ApiKey at that place, or None when there is none."""
        return _key_grants(self._cache.get(Ref("ApiKey", *workload)))

    def revisions(self, uid: str) -> list[ControllerRevision]:
        """The accepted versions that are kept of a policy; only those in the operator's namespace count."""
        return self._ours(self._cache.find(ACCEPTED, uid)) if uid else []

    def revisions_named(self, ref: Ref) -> list[ControllerRevision]:
        """The versions that are kept of a policy of that name, earlier ones of the same name included."""
        return self._ours(self._cache.find(POLICY_BY_NAME, f"{ref.namespace}/{ref.name}"))

    def _ours(self, found: Iterable[ControllerRevision]) -> list[ControllerRevision]:
        return [one for one in found if one.meta.namespace == self.operator_namespace]

    def accepted(self, policy: Policy) -> Accepted | None:
        """The newest accepted version of a policy."""
        return acceptance.newest(self.revisions(policy.meta.uid))

    def version(self, policy: Policy) -> AcceptedVersion:
        """Which version of a policy is in force."""
        accepted = self.accepted(policy)
        return AcceptedVersion(policy.meta.uid, accepted.number if accepted is not None else 0)

    def accepted_at(self, policy: Policy) -> datetime | None:
        """When the newest accepted version of a policy was kept."""
        return max((one.meta.created for one in self.revisions(policy.meta.uid) if one.meta.created), default=None)

    def targeting(self, server: Workload) -> list[Policy]:
        """Every policy that may say something about a workload, by its spec or by its accepted version."""
        keys = (server, Workload(server.namespace, SELECTED))
        found: dict[Ref, Policy] = {one.meta.ref: one for key in keys for one in self._cache.find(BY_TARGET, key)}
        for key in keys:
            for revision in self._cache.find(ACCEPTED_BY_TARGET, key):
                policy = self.policy_of(revision)
                if policy is not None:
                    found[policy.meta.ref] = policy
        return [found[ref] for ref in sorted(found)]

    def policy_of(self, revision: ControllerRevision) -> Policy | None:
        """The policy that an accepted version belongs to, if it still exists."""
        namespace, _, name = revision.meta.annotations.get(naming.POLICY, "").partition("/")
        policy: Policy | None = self._cache.get(Ref("TrustPolicy", namespace, name))
        uid = revision.meta.labels.get(naming.POLICY_UID)
        return policy if policy is not None and policy.meta.uid == uid else None

    def naming_client(self, client: Workload) -> list[Policy]:
        """Every policy that may speak of a workload as a client."""
        return self._found_by_client((client, MANY, ANY))

    def _found_by_client(self, keys: Iterable[Workload]) -> list[Policy]:
        return self._found(BY_CLIENT, ACCEPTED_BY_CLIENT, keys)

    def _naming_key(self, key: Workload) -> list[Policy]:
        return self._found(BY_API_KEY, ACCEPTED_BY_API_KEY, [key])

    def _found(self, index: str, accepted_index: str, keys: Iterable[Workload]) -> list[Policy]:
        found: dict[Ref, Policy] = {}
        for key in keys:
            found |= {one.meta.ref: one for one in self._cache.find(index, key)}
            for revision in self._cache.find(accepted_index, key):
                policy = self.policy_of(revision)
                if policy is not None:
                    found[policy.meta.ref] = policy
        return list(found.values())

    def clients_of(self, policies: Iterable[Policy]) -> set[Workload]:
        """The workloads that these policies may speak of as clients; all of them where one selects, or says any."""
        keys: set[Workload] = set()
        for policy in policies:
            for spec in self._versions(policy):
                keys |= _client_keys((policy.meta.namespace, spec))
        if keys & {MANY, ANY}:
            keys |= {one.workload for one in self.identities()}
        return keys - {MANY, ANY}

    def targets(self, policy: Policy) -> list[Identity]:
        """The workloads that a policy is about, by its spec and by its accepted version."""
        found = {one.workload: one for spec in self._versions(policy) for one in self._targets(policy, spec)}
        return [found[workload] for workload in sorted(found)]

    def _targets(self, policy: Policy, spec: TrustPolicySpec) -> list[Identity]:
        return table.targets_of(spec, policy.meta.namespace, self)

    def _versions(self, policy: Policy) -> list[TrustPolicySpec]:
        accepted = self.accepted(policy)
        specs = [policy.spec.spec, accepted.spec if accepted is not None else None]
        return [spec for spec in specs if spec is not None]

    # Tables

    def table(self, server: Identity) -> Table:
        """The decision table of a workload."""
        known = self._tables.get(server.workload)
        if known is None:
            known = self._tables[server.workload] = table.compile_table(server, self._contributions(server))
        return known

    def table_with(self, policy: Policy, server: Identity, candidate: Contribution) -> Table:
        """The table as it would be with this in place of what the policy has in force."""
        others = (one for one in self.targeting(server.workload) if one.meta.ref != policy.meta.ref)
        contributions = [self._contribution(one, self.accepted(one), server) for one in others]
        return table.compile_table(server, [one for one in (*contributions, candidate) if one is not None])

    def _contributions(self, server: Identity) -> Iterator[Contribution]:
        for policy in self.targeting(server.workload):
            accepted = self.accepted(policy)
            if not acceptance.is_accepted(policy, accepted) and self._is_about_to_be_accepted(policy):
                # Until it is remembered, which takes moments, the version before it goes on: nothing closes in between.
                policy = replace(policy, spec=Reading(accepted.spec if accepted is not None else None))
                if accepted is None:
                    continue
            contribution = self._contribution(policy, accepted, server)
            if contribution is not None:
                yield contribution

    def _is_about_to_be_accepted(self, policy: Policy) -> bool:
        def table_of(server: Identity, candidate: Contribution) -> Table:
            return self.table_with(policy, server, candidate)

        return acceptance.may_be_accepted(policy, self, table_of, self._clock.now())

    def _contribution(self, policy: Policy, accepted: Accepted | None, server: Identity) -> Contribution | None:
        if policy.meta.deleting:
            return None
        found = acceptance.rows_in_force(policy, accepted, self, server)
        return table.contribution(policy.meta.name, *found) if found is not None else None

    # What a change is about

    def _changed(self, change: Change) -> None:
        if change.ref.kind == "ServiceIdentity" and change.new is None:
            self._identities.pop(Workload(change.ref.namespace, change.ref.name), None)
        for workload in self.servers_of(change):
            self._tables.pop(workload, None)

    def servers_of(self, change: Change) -> set[Workload]:
        """The workloads whose tables a change may change; found once for all who listen to the change."""
        if self._asked is None or self._asked[0] is not change:
            self._asked = (change, frozenset(self._find_servers(change)))
        return set(self._asked[1])

    def _find_servers(self, change: Change) -> set[Workload]:
        both = [one for one in (change.old, change.new) if one is not None]
        match change.ref.kind:
            case "TrustPolicy" if _says_something_else(change):
                versions = [(one.meta.namespace, spec) for one in both for spec in self._versions(one)]
                return {server for version in versions for server in self._places(version)}
            case "ControllerRevision":
                versions = [version for one in both if (version := _kept_version(one)) is not None]
                policy = self.policy_of(both[0])
                now = [one.workload for one in self.targets(policy)] if policy is not None else []
                return {*now, *(server for version in versions for server in self._places(version))}
            case "ServiceIdentity" if _says_something_else(change):
                places = {
                    Workload(one.meta.namespace, one.meta.name) for each in both for one in (each, *self._rivals(each))
                }
                keys = {*places, MANY} | ({ANY} if any(_has_selector(one) for one in both) else set())
                return {*places, *self._targets_of_all(self._found_by_client(keys))}
            case "ApiKey" if _grants_something_else(change):
                return set(self._targets_of_all(self._naming_key(Workload(change.ref.namespace, change.ref.name))))
            case "Namespace" if (
                change.old is None or change.new is None or change.old.meta.labels != change.new.meta.labels
            ):
                return set(self._targets_of_all(self._found_by_client((MANY,))))
            case "TrustDomain" if _says_something_else(change):
                return {Workload(one.meta.namespace, one.meta.name) for one in self._cache.of_kind("ServiceIdentity")}
        return set()

    def _targets_of_all(self, policies: Iterable[Policy]) -> Iterator[Workload]:
        for policy in policies:
            for identity in self.targets(policy):
                yield identity.workload

    def _places(self, version: Version) -> list[Workload]:
        namespace, spec = version
        return [one.workload for one in table.targets_of(spec, namespace, self)]

    def policies_of(self, servers: Iterable[Workload]) -> set[Ref]:
        """The policies that say something about any of these workloads."""
        return {policy.meta.ref for server in servers for policy in self.targeting(server)}


def _facts(observed: ObservedIdentity, domain: Domain | None, *, resolved: bool = True) -> Identity:
    spec = observed.spec
    assert isinstance(spec, ServiceIdentitySpec)
    defaults = domain.spec if domain is not None and not isinstance(domain.spec, SpecError) else None
    asked = spec.egress.mode if spec.egress is not None else None
    return Identity(
        workload=Workload(observed.meta.namespace, observed.meta.name),
        labels=observed.meta.labels,
        pods=selector_of(spec.selector) if spec.selector is not None else default_selector(service_account(observed)),
        enforcement=spec.enforcement or (defaults.identities.enforcement if defaults else "Enforce"),
        egress=asked or (defaults.identities.egress if defaults else "Open"),
        calls=frozenset(Workload(one.namespace, one.name) for one in (spec.egress.calls if spec.egress else ())),
        resolved=resolved,
        domain_known=defaults is not None,
        providers=frozenset(one.name for one in defaults.identity_providers) if defaults else frozenset(),
        spec=spec,
    )


def _says_something_else(change: Change) -> bool:
    """Tell whether more than the status changed; labels are no part of the generation, and selectors look at them."""
    old, new = change.old, change.new
    if old is None or new is None:
        return True
    return (old.meta.uid, old.meta.generation, old.meta.deleting, old.meta.labels) != (
        new.meta.uid,
        new.meta.generation,
        new.meta.deleting,
        new.meta.labels,
    )


def _version(policy: Policy) -> Version | None:
    return (policy.meta.namespace, policy.spec.spec) if policy.spec.spec is not None else None


def _kept_version(revision: ControllerRevision) -> Version | None:
    spec = revision.reading.spec
    namespace = revision.meta.annotations.get(naming.POLICY, "").partition("/")[0]
    return (namespace, spec) if spec is not None and namespace else None


def _target_keys(version: Version | None) -> list[Hashable]:
    if version is None:
        return []
    namespace, spec = version
    names = spec.target.identities
    return [Workload(namespace, name) for name in names] if names is not None else [Workload(namespace, SELECTED)]


def _client_keys(version: Version | None) -> set[Workload]:
    """The clients that a policy names; MANY for one that selects by label, ANY for one that says any workload."""
    keys: set[Workload] = set()
    for rule in version[1].policy_rules if version is not None else ():
        for peer in rule.from_:
            if peer.workload is not None:
                keys.add(Workload(peer.workload.namespace, peer.workload.name))
            elif peer.workloads is not None:
                keys.add(MANY)
            elif peer.any_workload is not None:
                keys.add(ANY)
    return keys


def _api_keys(version: Version | None) -> set[Workload]:
    """The ApiKeys that a policy names, in its rules and in its tests."""
    if version is None:
        return set()
    namespace, spec = version
    names = {peer.api_key.name for rule in spec.policy_rules for peer in rule.from_ if peer.api_key is not None}
    names |= {one.request.api_key for one in spec.tests or ()}
    return {Workload(namespace, name) for name in names if name is not None}


def _grants_something_else(change: Change) -> bool:
    return _key_grants(change.old) != _key_grants(change.new)


def _key_grants(key: CustomResource[ApiKeySpec] | None) -> frozenset[str] | None:
    if key is None or key.meta.deleting or isinstance(key.spec, SpecError):
        return None
    return frozenset(key.spec.scopes)


def _has_selector(identity: ObservedIdentity) -> bool:
    return isinstance(identity.spec, ServiceIdentitySpec) and identity.spec.selector is not None
