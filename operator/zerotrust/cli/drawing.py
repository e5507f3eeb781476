"""The graph as SVG: boxes in layers, arrows as curves, details as tooltips. No script, no external font, everything escaped."""

from collections import Counter
from dataclasses import dataclass
from html import escape

from zerotrust.cli.graph import KINDS, Kind, Link, Node, Picture
from zerotrust.cli.layout import Bend, Layout, arrange
from zerotrust.cli.policies import printable

LETTER, LINE, PADDING = 7.0, 16, 12  # of a sans-serif font of 12 pixels, on the wide side
GAP_ACROSS, GAP_DOWN, MARGIN, LEGEND = 150, 26, 24, 34
BEND_HEIGHT = 10
APART = 13  # between arrows that end at the same side of a box
WIDEST = 34  # letters in a line of a box

STYLE = """
  text { font: 12px sans-serif; fill: #1b1b1b }
  .small { font-size: 10px; fill: #666 }
  .label { font-size: 10px; paint-order: stroke; stroke: #fff; stroke-width: 3px }
  .box { fill: #f4f7fb; stroke: #39587a } .other { fill: #fff; stroke-dasharray: 4 3 }
  .arrow { fill: none; stroke-width: 1.4 }
  .allow { stroke: #39587a } .deny { stroke: #b00020; stroke-dasharray: 6 3 } .refused { stroke: #777; stroke-dasharray: 2 3 }
  .deny-label { fill: #b00020 } .refused-label { fill: #777 }
""".strip("\n")
COLOURS: dict[Kind, str] = {"allow": "#39587a", "deny": "#b00020", "refused": "#777"}
# A Deny ends in a bar, so that colour is not all that tells it.
HEADS: dict[Kind, str] = {
    "allow": "M0,0 L9,4.5 L0,9 z",
    "deny": "M6,0 L9,0 L9,9 L6,9 z",
    "refused": "M0,0 L9,4.5 L0,9 z",
}


@dataclass(frozen=True)
class _Frame:
    """A box's place on the sheet."""

    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    @property
    def right(self) -> float:
        return self.left + self.width


_Thing = Node | Bend[Node]


def draw(picture: Picture) -> str:
    """Return a whole SVG document."""
    layout = arrange(picture.nodes, [(link.client, link.server) for link in picture.links])
    frames, width, height = _place(layout, _busiest(picture, layout))
    ends = _ends(picture, layout, frames)
    drawn = [_arrow(link, layout, frames, ends) for link in picture.links]
    boxes = [_box(node, frames[node]) for node in picture.nodes]
    size = f'width="{width:.0f}" height="{height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        "<title>Who may call whom</title>",
        f"<style>\n{STYLE}\n</style>",
        "<defs>",
        *(_head(kind) for kind in KINDS),
        "</defs>",
        f'<rect {size} fill="#fff"/>',
        *drawn,
        *boxes,
        *_legend(height - LEGEND / 2),
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def _lines(node: Node) -> list[str]:
    """A box's text; long words of those that are no identity go on the next line."""
    lines = [""]
    for word in printable(node.name).split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= WIDEST:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _busiest(picture: Picture, layout: Layout[Node]) -> dict[_Thing, int]:
    """How many arrows a box has on the side where it has most."""
    counts: Counter[tuple[Node, bool]] = Counter()
    layer_of = {one: number for number, layer in enumerate(layout.layers) for one in layer}
    for link in picture.links:
        outwards = layer_of[link.client] < layer_of[link.server]
        counts.update([(link.client, outwards), (link.server, not outwards)])
    busiest: dict[_Thing, int] = {}
    for (node, _), number in counts.items():
        busiest[node] = max(number, busiest.get(node, 0))
    return busiest


def _place(layout: Layout[Node], busiest: dict[_Thing, int]) -> tuple[dict[_Thing, _Frame], float, float]:
    """Give each box and bend its place; the layers are centred on one line."""
    sizes = {one: _size(one, busiest.get(one, 0)) for layer in layout.layers for one in layer}
    heights = [sum(sizes[one][1] + GAP_DOWN for one in layer) - GAP_DOWN for layer in layout.layers]
    tallest = max(heights, default=0)
    frames: dict[_Thing, _Frame] = {}
    left = float(MARGIN)
    for layer, height in zip(layout.layers, heights, strict=True):
        across = max((sizes[one][0] for one in layer), default=0.0)
        top = MARGIN + (tallest - height) / 2
        for one in layer:
            high = sizes[one][1]
            frames[one] = _Frame(left, top, across, high)
            top += high + GAP_DOWN
        left += across + GAP_ACROSS
    width = left - GAP_ACROSS + MARGIN
    return frames, max(width, 480.0), tallest + 2 * MARGIN + LEGEND


def _size(thing: _Thing, arrows: int) -> tuple[float, float]:
    if isinstance(thing, Bend):
        return 0.0, BEND_HEIGHT
    lines = _lines(thing)
    longest = max(len(printable(thing.namespace)), *map(len, lines))
    text = (len(lines) + bool(thing.namespace)) * LINE
    return longest * LETTER + 2 * PADDING, max(text, arrows * APART) + PADDING


def _ends(picture: Picture, layout: Layout[Node], frames: dict[_Thing, _Frame]) -> dict[tuple[Link, Node], float]:
    """How far from the middle of a box each of its arrows ends, so that they neither meet nor cross there."""
    sides: dict[tuple[Node, bool], list[tuple[float, int, Link]]] = {}
    for number, link in enumerate(picture.links):
        if link.client != link.server:
            way = layout.ways[link.client, link.server]
            for node, near in ((link.client, way[1]), (link.server, way[-2])):
                on_the_right = frames[near].left > frames[node].left
                sides.setdefault((node, on_the_right), []).append((frames[near].middle, number, link))
    ends: dict[tuple[Link, Node], float] = {}
    for (node, _), arrows in sides.items():
        step = min(APART, (frames[node].height - PADDING) / max(len(arrows) - 1, 1))
        for place, (_, _, link) in enumerate(sorted(arrows, key=lambda arrow: arrow[:2])):
            ends[link, node] = (place - (len(arrows) - 1) / 2) * step
    return ends


def _arrow(link: Link, layout: Layout[Node], frames: dict[_Thing, _Frame], ends: dict[tuple[Link, Node], float]) -> str:
    if link.client == link.server:
        path, x, y = _loop(frames[link.client])
    else:
        way = [frames[one] for one in layout.ways[link.client, link.server]]
        path, x, y = _curve(way, ends[link, link.client], ends[link, link.server])
    title = "\n".join((f"{_name(link.client)} {KINDS[link.kind]} {_name(link.server)}", *link.lines))
    label = escape(" ".join(link.ports))
    return (
        f'<g><title>{escape(title)}</title><path class="arrow {link.kind}" d="{path}" marker-end="url(#{link.kind})"/>'
        f'<text class="label {link.kind}-label" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{label}</text></g>'
    )


def _name(node: Node) -> str:
    return printable(f"{node.namespace}/{node.name}" if node.namespace else node.name)


def _curve(way: list[_Frame], start: float, end: float) -> tuple[str, float, float]:
    """A smooth line from the client's side to the server's, and where its label stands: over its last part but the head.

    `start` and `end` are how far from the middle of its boxes it begins and ends.
    """
    forwards = way[0].left < way[-1].left
    points: list[tuple[float, float]] = []
    for number, frame in enumerate(way):
        near, far = (frame.left, frame.right) if forwards else (frame.right, frame.left)
        # Between its boxes an arrow keeps to the side on which it ends, so that two of the same boxes stay apart.
        y = frame.middle + (start if not number else end if number == len(way) - 1 else max(-4.0, min(4.0, end)))
        if number:
            points.append((near, y))
        if number < len(way) - 1:
            points.append((far, y))
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for number in range(1, len(points)):
        (x0, y0), (x1, y1) = points[number - 1], points[number]
        half = (x0 + x1) / 2
        path += f" C{half:.1f},{y0:.1f} {half:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    (x0, y0), (x1, y1) = points[-2], points[-1]
    # Where arrows to different boxes have parted and those to one box have not met yet.
    share = 0.6
    bent = share * share * (3 - 2 * share)
    return path, x0 + (x1 - x0) * share, y0 + (y1 - y0) * bent - 3


def _loop(frame: _Frame) -> tuple[str, float, float]:
    x, y = frame.right - 24, frame.top
    return f"M{x:.1f},{y:.1f} C{x:.1f},{y - 20:.1f} {x + 18:.1f},{y - 20:.1f} {x + 18:.1f},{y:.1f}", x + 9, y - 17


def _box(node: Node, frame: _Frame) -> str:
    kind = "box" if node.namespace else "box other"
    lines = [("small", printable(node.namespace))] if node.namespace else []
    lines += [("", line) for line in _lines(node)]
    texts = [
        f'<text{f" class={chr(34)}{style}{chr(34)}" if style else ""} x="{frame.left + PADDING:.1f}"'
        f' y="{frame.top + PADDING / 2 + LINE * number + 12:.1f}">{escape(line)}</text>'
        for number, (style, line) in enumerate(lines)
    ]
    return (
        f'<g><rect class="{kind}" x="{frame.left:.1f}" y="{frame.top:.1f}" width="{frame.width:.1f}"'
        f' height="{frame.height:.1f}" rx="6"/>{"".join(texts)}</g>'
    )


def _head(kind: Kind) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 9 9" refX="9" refY="4.5" markerWidth="9" markerHeight="9" orient="auto"'
        f' markerUnits="userSpaceOnUse"><path d="{HEADS[kind]}" fill="{COLOURS[kind]}"/></marker>'
    )


def _legend(y: float) -> list[str]:
    parts = []
    for number, (kind, words) in enumerate(KINDS.items()):
        x = MARGIN + number * 150
        parts.append(
            f'<path class="arrow {kind}" d="M{x},{y - 4:.1f} H{x + 28}" marker-end="url(#{kind})"/>'
            f'<text class="small" x="{x + 36}" y="{y:.1f}">{escape(words)}</text>'
        )
    return parts
