"""What to do about a reason: the sentences of docs/guides/troubleshooting.md, which come with the program."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Advice:
    """What a reason means, and what to do; `remedy` is `nothing` where all is well."""

    meaning: str
    remedy: str


def advice(kind: str, condition: str, status: str, reason: str) -> Advice | None:
    """Return the guide's row about a condition; else about the reason in any of the kind's conditions; None without one."""
    own = [row for row in _rows() if row["kind"] == kind and reason in row["reasons"]]
    exact = [row for row in own if condition in row["types"] and row["status"] == status]
    row = next(iter([*exact, *own]), None)
    return Advice(row["meaning"], row["remedy"]) if row is not None else None


@cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((files("zerotrust.cli") / "advice.json").read_text(encoding="utf-8"))
    return rows
