"""Ports of NetworkPolicies as numbers, which is all that a TrustPolicy takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from zerotrust.importing.objects import Pod
from zerotrust.importing.original import OldRule, PortEntry
from zerotrust.policy.network import PortOf

MAX_RANGE = 64  # more ports than that are a range that somebody should think about
BY_HAND = "write each port that is needed, by its number"


@dataclass(frozen=True)
class Numbers:
    """Ports with which nothing is allowed that was not before; `problems` are `(path, why)` of what is missing."""

    ports: frozenset[PortOf]
    problems: tuple[tuple[str, str], ...] = ()


@dataclass
class _Found:
    ports: set[PortOf] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)


def numbers(rule: OldRule, servers: Sequence[Pod]) -> Numbers:
    """Return the ports of a rule for these servers, which are all that it can be about."""
    found = _Found()
    if rule.ports is not None and all(isinstance(one.port, int) and one.end_port is None for one in rule.ports):
        servers = ()  # what they declare plays no part, and they may be all pods of the cluster
    declared = frozenset(port for server in servers for port in server.declared)
    if rule.ports is None:
        found.ports |= declared
        found.problems.append((rule.path, f"every port: {_instead(declared)}"))
    for number, entry in enumerate(rule.ports or ()):
        _add(found, f"{rule.path}.ports[{number}]", entry, servers, declared)
    return Numbers(frozenset(found.ports), tuple(found.problems))


def _add(found: _Found, path: str, entry: PortEntry, servers: Sequence[Pod], declared: frozenset[PortOf]) -> None:
    match entry.port:
        case None:
            mine = frozenset(port for port in declared if port.protocol == entry.protocol)
            found.ports |= mine
            found.problems.append((f"{path}.port", f"every port of {entry.protocol}: {_instead(mine)}"))
        case str(name):
            known = {server.numbers(name, entry.protocol) for server in servers}
            if len(known) == 1 and len(ports := next(iter(known))) == 1:
                found.ports |= ports
            else:
                found.problems.append(
                    (f"{path}.port", f"the name {name} is not the same port in every pod it is about")
                )
        case first:
            last = entry.end_port or first
            if not 1 <= first <= last <= 65535:
                found.problems.append((path, "is no port"))
            elif last - first < MAX_RANGE:
                found.ports |= {PortOf(one, entry.protocol) for one in range(first, last + 1)}
            else:
                mine = frozenset(
                    one for one in declared if one.protocol == entry.protocol and first <= one.port <= last
                )
                found.ports |= mine
                why = f"{first} to {last} are more than {MAX_RANGE} ports: {_instead(mine)}"
                found.problems.append((f"{path}.endPort", why))


def _instead(ports: frozenset[PortOf]) -> str:
    if not ports:
        return "none is taken over, because the pods declare none"
    return f"taken over are those that the pods declare, {', '.join(f'{port}/{kind}' for port, kind in sorted(ports))}"
