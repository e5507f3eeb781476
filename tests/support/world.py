"""A cluster in memory for the pure core: plans become objects the way the executor makes them, without I/O."""

from collections.abc import Mapping
from typing import Any, TypeVar

from tests.support.builders import Body, merged, with_status
from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource, config_map
from zerotrust.common.plan import Apply, Plan
from zerotrust.engine.difference import difference, is_complete, owned_fields
from zerotrust.pki import secret
from zerotrust.pki.secret import ObservedSecret

Resource = TypeVar("Resource", bound=CustomResource[Any])


class World:
    """Objects by their place, and a list of what was written."""

    def __init__(self) -> None:
        self.bodies: dict[Ref, Body] = {}
        self.writes: list[str] = []
        self.issues = 0
        self._version = 100

    def put(self, body: Mapping[str, Any]) -> Ref:
        """Create or replace an object as anybody with kubectl could."""
        metadata = body["metadata"]
        ref = Ref(body["kind"], metadata.get("namespace", ""), metadata["name"])
        self._store(ref, dict(body))
        return ref

    def drop(self, ref: Ref) -> None:
        self.bodies.pop(ref, None)

    def patch(self, ref: Ref, patch: Mapping[str, Any]) -> None:
        self._store(ref, merged(self.bodies[ref], patch))

    def observe(self, ref: Ref) -> ObservedSecret | ConfigMap | None:
        body = self.bodies.get(ref)
        if body is None:
            return None
        return secret.observe(body) if ref.kind == "Secret" else config_map(body)

    def secret(self, namespace: str, name: str) -> ObservedSecret | None:
        observed = self.observe(Ref("Secret", namespace, name))
        assert observed is None or isinstance(observed, ObservedSecret)
        return observed

    def secrets(self) -> list[ObservedSecret]:
        found = [self.observe(ref) for ref in self.bodies if ref.kind == "Secret"]
        return [one for one in found if isinstance(one, ObservedSecret)]

    def value(self, ref: Ref, key: str) -> bytes:
        """One value of a Secret, decoded."""
        return secret.value_of(self.bodies[ref], key)

    def carry_out(self, resource: Resource, plan: Plan) -> Resource:
        """Make the plan true, note what it cost, and return the resource with its new status."""
        for apply in plan.applies:
            self._apply(apply)
        for delete in plan.deletes:
            present = self.bodies.get(delete.ref)
            if present is not None and present["metadata"]["uid"] == delete.uid:
                del self.bodies[delete.ref]
                self.writes.append(f"delete {delete.ref}")
        self.issues += sum(outcome.metric == "issued" for outcome in plan.outcomes)
        if plan.status is None or not status_patch(resource, plan.status):
            return resource
        self.writes.append(f"status {resource.meta.ref}")
        return with_status(resource, plan)

    def _apply(self, apply: Apply) -> None:
        observed = self.observe(apply.ref)
        if observed is None:
            assert is_complete(apply.manifest), "a correction was planned for an object that is not there"
            body = without_nulls(apply.manifest)
            body["metadata"]["uid"] = f"uid-{self._version}"
            self._store(apply.ref, body)
            self.writes.append(f"create {apply.ref}")
            return
        patch = difference(owned_fields(observed), apply.manifest)
        if patch:
            self.patch(apply.ref, patch)
            self.writes.append(f"patch {apply.ref}")

    def _store(self, ref: Ref, body: Body) -> None:
        self._version += 1
        metadata = {"uid": f"uid-{self._version}", **body["metadata"], "resourceVersion": str(self._version)}
        self.bodies[ref] = {**body, "metadata": metadata}


def status_patch(resource: CustomResource[Any], status: Mapping[str, Any]) -> Body:
    """What the executor would write into the status: the difference, and nulls for what is not said any more."""
    stale = {name: None for name in resource.status if name not in status}
    return difference(resource.status, {**status, **stale})
