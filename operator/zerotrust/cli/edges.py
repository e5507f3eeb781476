"""Who may call whom, as edges: one for each client, server, port, method, path pattern and set of conditions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from zerotrust.cli.policies import Intent
from zerotrust.cli.rows import client_of, conditions_of, port_of, requests_of
from zerotrust.policy import network
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.table import ANY_WORKLOAD, Row, Table, Window

DAY = 24 * 60
REFUSED = "the client's egress is isolated and does not name the server"


@dataclass(frozen=True)
class Edge:
    """One thing that is allowed or denied: a row of one method and one path at most, whatever rule it is from.

    `refused` when the client's isolated egress does not let it out, so that nothing comes of an Allow.
    """

    server: Workload
    row: Row
    refused: bool = False

    @property
    def order(self) -> tuple[Any, ...]:
        """The canonical order of edges."""
        return (self.server, self.row.order, self.refused)

    @property
    def conditions(self) -> list[str]:
        """What must hold beside who, where and what."""
        return conditions_of(self.row) + ([REFUSED] if self.refused else [])

    def __str__(self) -> str:
        row = self.row
        parts = [row.effect.lower(), client_of(row.client), "->", f"{self.server}:{port_of(row)}", requests_of(row)]
        conditions = f"[{'; '.join(self.conditions)}]" if self.conditions else ""
        return " ".join(part for part in (*parts, conditions) if part)

    def to_document(self) -> dict[str, Any]:
        """The edge as plain data."""
        row = self.row
        return {
            "client": str(row.client),
            "server": str(self.server),
            "port": row.port,
            "protocol": row.protocol,
            "effect": row.effect,
            "method": row.methods[0] if row.methods else None,
            "path": row.paths[0] if row.paths else None,
            "conditions": self.conditions,
        }

    def covers(self, other: "Edge") -> bool:
        """Tell whether this edge speaks of everything that the other one does; False where that is hard to know."""
        mine, its = self.row, other.row
        return (
            (self.server, mine.port, mine.protocol, mine.effect) == (other.server, its.port, its.protocol, its.effect)
            and (mine.client == its.client or (mine.client == ANY_WORKLOAD and its.client.kind == "workload"))
            and mine.methods in (None, its.methods)
            and (mine.paths is None or (its.paths is not None and path_covers(mine.paths[0], its.paths[0])))
            and mine.principal in (None, its.principal)
            and set(mine.scopes) <= set(its.scopes)
            and mine.require_mtls <= its.require_mtls
            and (mine.window is None or (its.window is not None and _open_longer(mine.window, its.window)))
            and (mine.until is None or (its.until is not None and its.until <= mine.until))
            and self.refused <= other.refused
        )


def path_covers(pattern: str, other: str) -> bool:
    """Tell whether a pattern matches every path that another one matches.

    It is enough to look at paths whose segments the pattern does not name where the other has a wildcard.
    """
    wanted, given = (tuple(one.removesuffix("/").split("/")[1:]) for one in (pattern, other))
    seen: set[tuple[int, frozenset[int]]] = set()
    waiting = [(0, _reached(wanted, {0}))]
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        position, reached = state
        if position == len(given):
            if len(wanted) not in reached:
                return False
            continue
        part = given[position]
        if part == "**":
            waiting += [(position + 1, reached), (position, _after(wanted, reached, "*"))]
        else:
            waiting.append((position + 1, _after(wanted, reached, part)))
    return True


def _after(wanted: tuple[str, ...], reached: frozenset[int], part: str) -> frozenset[int]:
    """Where a pattern may stand after one more segment; `*` is a segment that it does not name."""
    stayed = {one for one in reached if one < len(wanted) and wanted[one] == "**"}
    moved = {one + 1 for one in reached if one < len(wanted) and wanted[one] in ("*", part) and wanted[one] != "**"}
    return _reached(wanted, stayed | moved)


def _reached(wanted: tuple[str, ...], positions: set[int]) -> frozenset[int]:
    reached = set(positions)
    for position in sorted(positions):
        while position < len(wanted) and wanted[position] == "**":
            position += 1
            reached.add(position)
    return frozenset(reached)


def _open_longer(window: Window, other: Window) -> bool:
    return window.time_zone == other.time_zone and _minutes(window) >= _minutes(other)


@lru_cache(maxsize=256)
def _minutes(window: Window) -> frozenset[int]:
    """The minutes of the week at which a window is open, by the wall clock."""
    length = (window.end - window.start) % DAY or DAY
    return frozenset((day * DAY + window.start + minute) % (7 * DAY) for day in window.days for minute in range(length))


def edges(intent: Intent) -> set[Edge]:
    """Every edge that is in force; candidates in mode Observe are none."""
    return {edge for server, table in intent.tables() for edge in _of(intent, server, table)}


def _of(intent: Intent, server: Identity, table: Table) -> Iterator[Edge]:
    for row in table.rows:
        if not row.observe:
            refused = is_refused(intent, row, server)
            bare = replace(row, policy="", rule="")
            for method in row.methods or (None,):
                for path in row.paths or (None,):
                    one = replace(bare, methods=_only(method), paths=_only(path))
                    yield Edge(server.workload, one, refused)


def _only(value: str | None) -> tuple[str, ...] | None:
    return None if value is None else (value,)


def is_refused(intent: Intent, row: Row, server: Identity) -> bool:
    """Tell whether nothing comes of an Allow, because the client's isolated egress does not let it out."""
    if row.effect == "Deny":
        return False
    client = intent.book.identity(row.client.workload) if row.client.workload is not None else None
    return (
        client is not None
        and (client.enforcement, client.egress) == ("Enforce", "Isolated")
        and not network.consents(client, server.workload)
    )
