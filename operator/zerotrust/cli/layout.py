"""Where boxes and arrows stand: layers from left to right, clients before servers, few crossings.

The method of Sugiyama, Tagawa and Toda (1981): break cycles, put each box behind its clients, lead long arrows through every
layer between, and order each layer by the middle of its neighbours. Everything is deterministic.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

Box = TypeVar("Box", bound=Hashable)

SWEEPS = 8


@dataclass(frozen=True)
class Bend(Generic[Box]):
    """The place where an arrow passes a layer without a box of its own."""

    ends: tuple[Box, Box]
    layer: int


@dataclass(frozen=True)
class Layout(Generic[Box]):
    """What stands in each layer from top to bottom, and the way of each arrow from its client to its server."""

    layers: tuple[tuple[Box | Bend[Box], ...], ...]
    ways: dict[tuple[Box, Box], tuple[Box | Bend[Box], ...]]


def arrange(boxes: Sequence[Box], arrows: Iterable[tuple[Box, Box]]) -> Layout[Box]:
    """Lay out boxes, which come in the order that settles every tie; an arrow to itself takes no part."""
    wanted = [(client, server) for client, server in arrows if client != server]
    backwards = _closing_cycles(boxes, wanted)
    forwards = dict.fromkeys(
        (server, client) if (client, server) in backwards else (client, server) for client, server in wanted
    )
    layer_of = _layers(boxes, list(forwards))
    ways: dict[tuple[Box, Box], tuple[Box | Bend[Box], ...]] = {}
    for first, last in forwards:
        bends = [Bend((first, last), layer) for layer in range(layer_of[first] + 1, layer_of[last])]
        ways[first, last] = (first, *bends, last)
    layers: list[list[Box | Bend[Box]]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for box in boxes:
        layers[layer_of[box]].append(box)
    for way in ways.values():
        for bend in way[1:-1]:
            assert isinstance(bend, Bend)
            layers[bend.layer].append(bend)
    _untangle(layers, ways.values())
    there = {one: tuple(reversed(ways[one[1], one[0]])) if one in backwards else ways[one] for one in wanted}
    return Layout(tuple(map(tuple, layers)), there)


def _closing_cycles(boxes: Sequence[Box], arrows: Sequence[tuple[Box, Box]]) -> set[tuple[Box, Box]]:
    """The arrows that lead back to where a walk from the first boxes came from; without them there is no cycle."""
    servers: dict[Box, list[Box]] = {box: [] for box in boxes}
    called = set()
    for client, server in arrows:
        servers[client].append(server)
        called.add(server)
    closing, done, on_way = set(), set[Box](), set[Box]()
    for start in sorted(boxes, key=lambda box: box in called):
        walk = [(start, iter(servers[start]))] if start not in done else []
        done.add(start)
        on_way.update(box for box, _ in walk)
        while walk:
            box, rest = walk[-1]
            for server in rest:
                if server in on_way:
                    closing.add((box, server))
                elif server not in done:
                    done.add(server)
                    on_way.add(server)
                    walk.append((server, iter(servers[server])))
                    break
            else:
                on_way.discard(box)
                walk.pop()
    return closing


def _layers(boxes: Sequence[Box], arrows: Sequence[tuple[Box, Box]]) -> dict[Box, int]:
    """Put each box one layer behind the last of its clients."""
    servers: dict[Box, list[Box]] = {box: [] for box in boxes}
    waiting = dict.fromkeys(boxes, 0)
    for client, server in arrows:
        servers[client].append(server)
        waiting[server] += 1
    layer_of = dict.fromkeys(boxes, 0)
    ready = [box for box in boxes if not waiting[box]]
    for box in ready:
        for server in servers[box]:
            layer_of[server] = max(layer_of[server], layer_of[box] + 1)
            waiting[server] -= 1
            if not waiting[server]:
                ready.append(server)
    return layer_of


def _untangle(layers: list[list[Box | Bend[Box]]], ways: Iterable[Sequence[Box | Bend[Box]]]) -> None:
    """Order each layer by the middle of its neighbours, forwards and backwards in turn."""
    before: dict[Box | Bend[Box], list[Box | Bend[Box]]] = {}
    after: dict[Box | Bend[Box], list[Box | Bend[Box]]] = {}
    for way in ways:
        for first, second in pairwise(way):
            before.setdefault(second, []).append(first)
            after.setdefault(first, []).append(second)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        order = range(1, len(layers)) if forwards else range(len(layers) - 2, -1, -1)
        for number in order:
            fixed = {one: place for place, one in enumerate(layers[number - 1 if forwards else number + 1])}
            middles = {}
            for place, one in enumerate(layers[number]):
                found = [fixed[near] for near in neighbours.get(one, ()) if near in fixed]
                middles[one] = sum(found) / len(found) if found else float(place)
            layers[number].sort(key=lambda one, middles=middles: middles[one])  # type: ignore[misc]
