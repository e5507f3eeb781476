"""What an import comes to: the objects to apply, what they do not say, and what can be deleted afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zerotrust.common.naming import Ref


@dataclass(frozen=True, order=True)
class Left:
    """Something that the new objects do not say; `opens` tells that something opens if the old object is deleted all the same."""

    ref: Ref
    path: str
    why: str
    instead: str
    opens: bool = False


@dataclass(frozen=True, order=True)
class Note:
    """Something that is expressed, and of which somebody should know."""

    ref: Ref
    path: str
    text: str


@dataclass(frozen=True)
class Made:
    """A new object and what it came from."""

    body: dict[str, Any]
    sources: tuple[Ref, ...]
    comments: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[Any, ...]:
        """Trust domains first, then identities, then policies, by place."""
        metadata = self.body["metadata"]
        kinds = ("TrustDomain", "ServiceIdentity", "TrustPolicy")
        return kinds.index(self.body["kind"]), metadata.get("namespace", ""), metadata["name"]


@dataclass
class Report:
    """What is not expressed and what should be known; nothing stands in it twice."""

    left: dict[Left, None] = field(default_factory=dict)
    notes: dict[Note, None] = field(default_factory=dict)

    def leave(self, ref: Ref, path: str, why: str, instead: str, *, opens: bool = False) -> None:
        """Say what is not expressed."""
        self.left.setdefault(Left(ref, path, why, instead, opens))

    def note(self, ref: Ref, path: str, text: str) -> None:
        """Say what should be known."""
        self.notes.setdefault(Note(ref, path, text))


@dataclass(frozen=True)
class Outcome:
    """What an import comes to, everything sorted. `replaced` are the old objects of which nothing is left."""

    made: tuple[Made, ...]
    left: tuple[Left, ...]
    notes: tuple[Note, ...]
    replaced: tuple[Ref, ...]

    @classmethod
    def of(cls, made: Iterable[Made], report: Report, old: Iterable[Ref]) -> "Outcome":
        """Sort everything."""
        kept = {one.ref for one in report.left}
        return cls(
            made=tuple(sorted(made, key=lambda one: one.order)),
            left=tuple(sorted(report.left)),
            notes=tuple(sorted(report.notes)),
            replaced=tuple(sorted(ref for ref in old if ref not in kept)),
        )
