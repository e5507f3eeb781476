"""What layer 4 should let through, read from the tables and from nothing that was emitted."""

from datetime import datetime

from tests.support.clusters import Flow, Pod, Port, flows
from tests.support.policies import World
from zerotrust.policy import network
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.table import Table


def shadow(
    world: World, asked: tuple[Port, ...], now: datetime, tables: dict[Workload, Table] | None = None
) -> set[Flow]:
    """Every flow that the tables and the identities' egress allow; the tables are the world's unless others are given."""
    tables = world.tables() if tables is None else tables

    def allows(client: Pod, server: Pod, port: Port) -> bool:
        wanted = PortOf(port.number, port.protocol)
        return _enters(world, tables, client, server, wanted, now) and _leaves(
            world, tables, client, server, wanted, now
        )

    return flows(world.pods, asked, allows)


def closes(identity: Identity, table: Table) -> bool:
    """Tell whether a policy isolates an identity."""
    return identity.enforcement == "Enforce" and "NetworkPolicy" in table.layers


def _enters(world: World, tables: dict[Workload, Table], client: Pod, server: Pod, port: PortOf, now: datetime) -> bool:
    """A pod that several identities select is open to whom any of them admits: network policies add up."""
    closed = [tables[one.workload] for one in world.identities_of(server) if closes(one, tables[one.workload])]
    place = world.cluster().labels_of(client.namespace)
    return not closed or any(
        network.admits(table, world.directory, place, client.labels, port, now) for table in closed
    )


def _leaves(world: World, tables: dict[Workload, Table], client: Pod, server: Pod, port: PortOf, now: datetime) -> bool:
    closed = [one for one in world.identities_of(client) if (one.enforcement, one.egress) == ("Enforce", "Isolated")]
    return not closed or any(
        network.consents(one, target.workload)
        and port in network.callable_ports(tables[target.workload], one.workload, now)
        for one in closed
        for target in world.identities_of(server)
    )
