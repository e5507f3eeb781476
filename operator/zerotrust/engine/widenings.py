"""Which widenings wait: a client's way out opens after its server's way in and the server's decision points.

Withdrawals never wait, and a widening waits for LONGEST at most: then the server, which decides, is asked and refuses for itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import NetworkPolicy
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.policybook import AcceptedVersion, PolicyBook
from zerotrust.identity.snapshot import service_account
from zerotrust.policy import network
from zerotrust.policy.directory import Identity
from zerotrust.policy.isolation import Awaited
from zerotrust.policy.table import Table

LONGEST = timedelta(seconds=30)


class Widenings:
    """Knows which accepted policies are not everywhere yet, and whose network policies wait for that."""

    def __init__(self, cache: Cache, book: PolicyBook, enforcement: Enforcement, clock: Clock) -> None:
        self._cache, self._book, self._enforcement, self._clock = cache, book, enforcement, clock
        self._waiting: dict[Ref, frozenset[str]] = {}

    def touched_by(self, change: Change) -> Iterable[Ref]:
        """The network policies of clients that wait for what a change may be: a server's network policy, or a report."""
        if change.ref.kind == "NetworkPolicy":
            places = frozenset({change.ref.namespace})
        else:
            places = self._enforcement.concerned(change) if self._waiting else frozenset()
        return [ref for ref, namespaces in self._waiting.items() if namespaces & places and ref != change.ref]

    def awaited(self, ref: Ref, client: Identity, servers: Sequence[tuple[Identity, Table]]) -> Awaited:
        """What an isolated client waits for: of each server, the policies whose Allow rows are not in force there yet."""
        found = {server.workload: self._on_their_way(client, server, table) for server, table in servers}
        policies = {server: frozenset(names) for server, names in found.items() if names}
        if not policies:
            self._waiting.pop(ref, None)
            return Awaited()
        self._waiting[ref] = frozenset(server.namespace for server in policies)
        until = max(since for names in found.values() for since in names.values()) + LONGEST
        return Awaited(policies, until)

    def _on_their_way(self, client: Identity, server: Identity, table: Table) -> Mapping[str, datetime]:
        """Policies by when they were accepted."""
        fresh: dict[str, tuple[datetime, AcceptedVersion]] = {}
        for name in {row.policy for row in table.about(client.workload) if row.effect == "Allow"}:
            policy = self._cache.get(Ref("TrustPolicy", server.workload.namespace, name))
            since = self._book.accepted_at(policy) if policy is not None else None
            if since is not None and self._clock.now() < since + LONGEST:
                fresh[name] = since, self._book.version(policy)
        waits_for_all = bool(fresh) and not self._lets_in(server, table)
        return {name: since for name, (since, version) in fresh.items() if waits_for_all or self._lags(server, version)}

    def _lets_in(self, server: Identity, table: Table) -> bool:
        place = Ref("NetworkPolicy", server.workload.namespace, naming.network_policy_name(server.workload.name))
        observed: NetworkPolicy | None = self._cache.get(place)
        if observed is None or "Ingress" not in (observed.spec.get("policyTypes") or ()):
            return True
        return (observed.spec.get("ingress") or []) == network.ingress(table, self._book, self._clock.now())

    def _lags(self, server: Identity, version: AcceptedVersion) -> bool:
        account = service_account(self._cache.get(Ref("ServiceIdentity", *server.workload)))
        points = self._enforcement.points(server.workload.namespace, account, version)
        if not points:
            return False
        published = self._enforcement.delivery(server.workload.namespace, version).published
        return not published or any(not point.acknowledged for point in points)
