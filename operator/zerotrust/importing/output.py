"""What an import prints: manifests with comments, the report as text, or both as one document."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import yaml

from zerotrust.common.naming import Ref
from zerotrust.importing.report import Left, Made, Note, Outcome

WIDTH = 79


class _Dumper(yaml.SafeDumper):
    """Writes lists below their key, as people do, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent lists too."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write a part again where it is used again."""
        return True


def manifests(outcome: Outcome) -> str:
    """The objects to apply; each begins with what it came from, and with what there is to know about it."""
    return "".join(_manifest(made, outcome) for made in outcome.made)


def _manifest(made: Made, outcome: Outcome) -> str:
    comments = list(made.comments)
    for source in made.sources:
        comments.append(f"From {source}.")
        if made.body["kind"] != "TrustDomain":
            comments += [f"Not expressed: {one.path}: {one.why}." for one in outcome.left if one.ref == source]
    lines = [line for comment in comments for line in textwrap.wrap(comment, WIDTH - 2, break_on_hyphens=False)]
    lines = ["".join(one if one.isprintable() else "?" for one in line) for line in lines]
    body = yaml.dump(made.body, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return "---\n" + "".join(f"# {line}\n" for line in lines) + body


def text(outcome: Outcome) -> str:
    """The report, for people: what is left over by object, what to know, and what can be deleted later."""
    parts: list[str] = []
    if outcome.left:
        parts.append(f"LEFT OVER ({len(outcome.left)})")
        for ref, items in groupby(outcome.left, key=lambda one: one.ref):
            parts += ["", f"{ref}: keep it", *(line for one in items for line in _left(one))]
    if outcome.notes:
        parts += ["", f"TO KNOW ({len(outcome.notes)})", ""]
        parts += [line for note in outcome.notes for line in _wrapped(f"{note.ref} {note.path}: {note.text}", "")]
    if outcome.replaced:
        parts += ["", f"REPLACED ({len(outcome.replaced)}): delete these once the new objects are ready", ""]
        parts += [f"  {ref}" for ref in outcome.replaced]
    parts += ["", _summary(outcome)]
    return "\n".join(parts).lstrip("\n")


def _left(one: Left) -> Iterable[str]:
    yield f"  {one.path}"
    yield from _wrapped(one.why, "    ")
    yield from _wrapped(f"-> {one.instead}", "    ")
    if one.opens:
        yield from _wrapped("deleting the old object opens something", "    ")


def _wrapped(line: str, indent: str) -> Sequence[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _summary(outcome: Outcome) -> str:
    kinds = [made.body["kind"] for made in outcome.made]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "nothing to apply"
    return f"{counts}; left over: {len(outcome.left)}; replaced: {len(outcome.replaced)}"


def document(outcome: Outcome) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "resources": [made.body for made in outcome.made],
        "left": [{**_place(one), "why": one.why, "instead": one.instead, "opens": one.opens} for one in outcome.left],
        "notes": [{**_place(one), "text": one.text} for one in outcome.notes],
        "replaced": [_ref(one) for one in outcome.replaced],
    }


def _place(one: Left | Note) -> dict[str, Any]:
    return {"object": _ref(one.ref), "path": one.path}


def _ref(ref: Ref) -> dict[str, str]:
    place = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    return {key: value for key, value in place.items() if value}
