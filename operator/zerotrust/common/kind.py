"""What a custom resource's kind is: names, models and columns, from which its CRD is generated."""

from dataclasses import dataclass

from zerotrust.common.resource import Resource, Rule


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; priority 1 shows with `-o wide` only."""

    name: str
    type: str
    json_path: str
    description: str
    priority: int = 0


@dataclass(frozen=True)
class Kind:
    """One custom resource; `rules` are those of the whole object, which may look at `self.metadata.name`.

    `keeps_unknown_fields` lets the API server store a misspelt field of the spec, so that the model can refuse it by name:
    dropped silently, `untill` would make a grant permanent.
    """

    name: str
    plural: str
    short_name: str
    namespaced: bool
    description: str
    spec: type[Resource]
    status: type[Resource]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    keeps_unknown_fields: bool = False


def ready_column() -> Column:
    """The column that every kind starts with."""
    return Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether the resource works.")


def reason_column() -> Column:
    """Why it is ready or not."""
    return Column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not.", 1)


def age_column() -> Column:
    """How old it is."""
    return Column("Age", "date", ".metadata.creationTimestamp", "How long the resource has existed.")
