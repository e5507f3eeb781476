"""The ServiceIdentities that an import needs, while it is found out what belongs into them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.importing.objects import Body, World
from zerotrust.importing.report import Made, Report
from zerotrust.policy.directory import Workload

IMPORTED_FROM = f"{naming.GROUP}/imported-from"


@dataclass
class Draft:
    """What is to be said about a ServiceAccount; `spec` is that of its ServiceIdentity, without defaults."""

    owner: Workload
    name: str
    sources: set[Ref] = field(default_factory=set)
    spec: dict[str, Any] = field(default_factory=dict)
    existing: Body | None = None

    @property
    def ref(self) -> Ref:
        """Its place."""
        return Ref("ServiceIdentity", self.owner.namespace, self.name)

    @property
    def reference(self) -> dict[str, str]:
        """How rules name it."""
        return {"name": self.name, "namespace": self.owner.namespace}


class Drafts:
    """The drafts by ServiceAccount. An account that has a ServiceIdentity keeps it, and it is not written again."""

    def __init__(self, world: World) -> None:
        self._existing: dict[Workload, tuple[str, Body]] = {}
        for _, ref, body in world.others.get("ServiceIdentity", ()):
            account = (body.get("spec") or {}).get("serviceAccountName") or ref.name
            self._existing.setdefault(Workload(ref.namespace, str(account)), (ref.name, body))
        self._taken = {Workload(owner.namespace, name) for owner, (name, _) in self._existing.items()}
        self.by_owner: dict[Workload, Draft] = {}

    def closed_by_hand(self, closes_egress: bool) -> frozenset[Workload]:
        """The ServiceAccounts whose ServiceIdentity isolates egress, and not by an import: what they call is up to them."""
        found = set()
        for owner, (_, body) in self._existing.items():
            mode = ((body.get("spec") or {}).get("egress") or {}).get("mode")
            isolated = closes_egress if mode is None else mode == "Isolated"
            if isolated and IMPORTED_FROM not in (body["metadata"].get("annotations") or {}):
                found.add(owner)
        return frozenset(found)

    def of(self, owner: Workload, *sources: Ref) -> Draft:
        """The draft for a ServiceAccount, which is made when it is needed first."""
        if owner not in self.by_owner:
            name, body = self._existing.get(owner, ("", None))
            if not name:
                name = owner.name
                while Workload(owner.namespace, name) in self._taken:
                    name += "-imported"
                self._taken.add(Workload(owner.namespace, name))
            self.by_owner[owner] = Draft(owner, name, existing=body)
        draft = self.by_owner[owner]
        draft.sources.update(sources)
        return draft

    def made(self, report: Report, replacing: dict[Workload, list[Ref]]) -> list[Made]:
        """The identities to write; `replacing` are the NetworkPolicies whose closed egress each of them takes over."""
        found = []
        for owner, draft in sorted(self.by_owner.items()):
            spec = {key: value for key, value in draft.spec.items() if value != {}}
            spec = {"serviceAccountName": owner.name, **spec} if draft.name != owner.name else spec
            if draft.existing is None:
                found.append(Made(manifest(draft.ref, spec, draft.sources), tuple(sorted(draft.sources))))
            elif missing := _missing(spec, draft.existing.get("spec") or {}):
                for field_name in missing:
                    refs = replacing.get(owner, []) if field_name in ("egress", "enforcement") else []
                    for ref in refs or sorted(draft.sources):
                        why = f"{draft.ref} exists and is left alone: its spec.{field_name} differs"
                        report.leave(
                            ref, "spec", why, f"write into it {field_name}: {spec[field_name]}", opens=bool(refs)
                        )
        return found


def _missing(wanted: dict[str, Any], there: Body) -> list[str]:
    return [key for key, value in wanted.items() if not _says(there.get(key), value)]


def _says(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_says(there.get(key), value) for key, value in wanted.items())
    return bool(there == wanted)


def manifest(ref: Ref, spec: dict[str, Any], sources: Iterable[Ref]) -> dict[str, Any]:
    """An object that says what it came from."""
    metadata: dict[str, Any] = {"name": ref.name}
    if ref.namespace:
        metadata["namespace"] = ref.namespace
    if names := ", ".join(str(one) for one in sorted(sources)):
        metadata["annotations"] = {IMPORTED_FROM: names}
    body: dict[str, Any] = {"apiVersion": naming.API_VERSION, "kind": ref.kind, "metadata": metadata}
    return {**body, "spec": spec} if spec else body
