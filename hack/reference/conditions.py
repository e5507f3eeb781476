"""The catalogue of conditions and reasons: what the code can say, joined with what the guide says about it.

The words come from the code, the sentences from the tables of docs/guides/troubleshooting.md, so neither is written twice. Where
they do not fit, `page` raises `DoesNotFit`: a reason that the guide does not explain, or a row about what no code says.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "operator" / "zerotrust"
# Where the conditions of each kind are made.
SOURCES = {
    "TrustDomain": ("trustdomain",),
    "ServiceIdentity": ("identity",),
    "TrustPolicy": ("policy",),
    "ApiKey": ("apikey", "engine/apikeys.py"),
}
STATUSES = {"true": "True", "false": "False", "unknown": "Unknown"}
# What every kind may say.
SHARED = ("common",)
# Calls that carry a reason, and where it stands among their arguments.
REASON_AT = {"true": 1, "false": 1, "unknown": 1, "Event": 1, "Reason": 0}
WORD = re.compile("[A-Z][A-Za-z]+")
# What a cell says when the sentence stands in another row.
ELSEWHERE = ("as above", "as there", "the same")
INTRODUCTION = """\
# Conditions and reasons

<!-- Generated from the code and docs/guides/troubleshooting.md by `make generate`; do not edit. -->

Every condition that the operator can set, with every reason, and what each reason means. How to read them is in
[Conditions by the clock](../concepts/conditions.md); events, and symptoms of the programs themselves, are in
[Troubleshooting](../guides/troubleshooting.md).

"Well" is the status that needs nobody. A condition that is well when absent is there only while it is true.
"""


class DoesNotFit(Exception):
    """The code and the guide disagree; the message lists every place."""


@dataclass(frozen=True, order=True)
class Said:
    """What code can say; an empty type or reason is one that is decided elsewhere."""

    type: str
    status: str
    reason: str


@dataclass(frozen=True)
class Row:
    """A row of the guide; without `reasons` its cell, `shown`, is prose."""

    kind: str
    types: tuple[str, ...]
    status: str
    reasons: tuple[str, ...]
    shown: str
    meaning: str
    remedy: str

    @property
    def refers(self) -> bool:
        """Whether its sentences stand in another row."""
        return self.meaning.startswith(ELSEWHERE) or self.remedy.startswith(ELSEWHERE)


def page(guide: str) -> str:
    """Return the catalogue in Markdown; `guide` is the text of the troubleshooting guide."""
    rows = rows_of(guide)
    problems: list[str] = []
    shared = list(_trees(SHARED))
    for kind, sources in SOURCES.items():
        own, trees = [row for row in rows if row.kind == kind], list(_trees(sources))
        types = {type_ for row in own for type_ in row.types}
        said = {one for tree in trees for one in conditions(tree)}
        said |= {one for tree in shared for one in conditions(tree) if one.type in types}
        words = {word for tree in trees + shared for word in _constants(tree)}
        problems += [f"{kind}: {text}" for text in _misfits(said, words, own)]
    if problems:
        raise DoesNotFit("\n".join(problems))
    parts = [INTRODUCTION]
    parts += ["\n".join(_overview(kind, [row for row in rows if row.kind == kind])) for kind in SOURCES]
    parts.append("\n".join(_index(rows)))
    return "\n".join(parts)


def _misfits(said: set[Said], words: set[str], rows: Sequence[Row]) -> Iterator[str]:
    explained = {Said(type_, row.status, word) for row in rows for type_ in row.types for word in row.reasons}
    prose = {(type_, row.status) for row in rows for type_ in row.types if not row.reasons}
    for one in sorted(said):
        if one.reason and one not in explained and (one.type, one.status) not in prose:
            yield f"the guide does not explain {one.type}={one.status}, reason {one.reason}"
    elsewhere = {(one.type, one.status) for one in said if not one.reason}
    for one in sorted(explained - said):
        if (one.type, one.status) not in elsewhere or one.reason not in words:
            yield f"no code says {one.type}={one.status}, reason {one.reason}, which the guide explains"


def _trees(sources: Iterable[str]) -> Iterator[ast.Module]:
    for source in sources:
        place = PACKAGE / source
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            yield ast.parse(path.read_text())


def _constants(tree: ast.AST) -> set[str]:
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if WORD.fullmatch(text)}


def conditions(tree: ast.Module) -> Iterator[Said]:
    """What a module's calls of `true`, `false` and `unknown` say, and conditions that are given another type."""
    constants = _assigned(tree.body)
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        names = constants | _assigned(ast.walk(function))
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            called = call.func.id if isinstance(call.func, ast.Name) else ""
            if called in STATUSES and len(call.args) >= 2:
                words = _texts(call.args[1], names)
                for type_ in _texts(call.args[0], names):
                    yield from (Said(type_, STATUSES[called], word) for word in words)
            elif called == "replace":
                for type_ in (text for one in call.keywords if one.arg == "type" for text in _texts(one.value, names)):
                    yield from (Said(type_, status, "") for status in STATUSES.values())


def reasons(tree: ast.Module) -> Iterator[str]:
    """The constants that stand where a reason belongs, also where a variable was given one of several first."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        names = _assigned(ast.walk(function))
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            called = call.func.id if isinstance(call.func, ast.Name) else ""
            position = REASON_AT.get(called, len(call.args))
            if position < len(call.args):
                yield from filter(None, _texts(call.args[position], names))


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """What names are given by assignments, those of several names at once included."""
    found: dict[str, ast.expr] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                found[target.id] = node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
                found |= {name.id: value for name, value in pairs if isinstance(name, ast.Name)}
    return found


def _texts(expression: ast.expr, names: dict[str, ast.expr]) -> list[str]:
    """The words that an expression may be; an empty one for what is decided elsewhere."""
    if isinstance(expression, ast.Name):
        expression = names.get(expression.id, expression)
    if isinstance(expression, ast.IfExp):
        return _texts(expression.body, names) + _texts(expression.orelse, names)
    word = expression.value if isinstance(expression, ast.Constant) else ""
    return [word if isinstance(word, str) and WORD.fullmatch(word) else ""]


def rows_of(guide: str) -> list[Row]:
    """The guide's rows about conditions, in its order; links lead on from docs/reference."""
    found = []
    for section in re.split(r"^## ", guide, flags=re.MULTILINE)[1:]:
        kind, _, rest = section.partition("\n")[0].partition(": ")
        if kind not in SOURCES or rest not in ("Ready", "other conditions"):
            continue
        for line in section.splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) < 4 or cells[0] in ("Status", "Condition") or cells[0].startswith("---"):
                continue
            types, status, reason, meaning, remedy = ["`Ready`", *cells] if rest == "Ready" else cells
            words = tuple(re.findall(r"`(\w+)`", reason)) if reason.startswith("`") else ()
            texts = (_relinked(meaning), _relinked(remedy))
            found.append(Row(kind, tuple(re.findall(r"`(\w+)`", types)), status, words, reason, *texts))
    return found


def _relinked(text: str) -> str:
    """Links as they are written in docs/guides, for a page in docs/reference."""
    text = re.sub(r"\]\(#", "](../guides/troubleshooting.md#", text)
    return re.sub(r"\]\((?!\.\./|https:)", "](../guides/", text)


def _overview(kind: str, rows: Sequence[Row]) -> list[str]:
    lines = [f"## {kind}", "", "| Condition | Well | True | False | Unknown |", "|---|---|---|---|---|"]
    for type_ in dict.fromkeys(type_ for row in rows for type_ in row.types):
        own = [row for row in rows if type_ in row.types]
        well = dict.fromkeys(row.status for row in own if row.remedy == "nothing" and row.status != "Unknown")
        cells = []
        for status in STATUSES.values():
            named = [row for row in own if row.status == status]
            words = dict.fromkeys(f"`{word}`" for row in named for word in row.reasons)
            prose = [_relinked(row.shown) for row in named if not row.reasons]
            cells.append(", ".join([*words, *prose]))
        lines.append(f"| `{type_}` | {next(iter(well), 'absent')} | {' | '.join(cells)} |")
    return [*lines, ""]


def _index(rows: Sequence[Row]) -> list[str]:
    lines = ["## Every reason", "", "| Reason | Of | Meaning | What to do |", "|---|---|---|---|"]
    words = sorted({word for row in rows for word in row.reasons})
    for word in words:
        for kind in SOURCES:
            own = [row for row in rows if row.kind == kind and word in row.reasons]
            explaining = [row for row in own if not row.refers] or own[:1]
            referring = [row for row in own if row not in explaining]
            for number, row in enumerate(explaining):
                places = [
                    f"`{type_}={one.status}`" for one in [row, *(() if number else referring)] for type_ in one.types
                ]
                lines.append(f"| `{word}` | {kind}: {', '.join(places)} | {row.meaning} | {row.remedy} |")
    return [*lines, ""]
