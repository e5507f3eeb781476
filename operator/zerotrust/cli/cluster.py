"""The API server as the commands see it: objects by the names that people use, and errors that say what to do."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref

if TYPE_CHECKING:  # imported where they are needed: the other commands start in a tenth of the time without them
    from zerotrust.kube.client import Client
    from zerotrust.kube.errors import KubeError
    from zerotrust.kube.resources import ResourceType

Body = Mapping[str, Any]
Kept = TypeVar("Kept")
Connected = TypeVar("Connected", bound="Cluster")
ATTEMPTS = 10  # of a change that others keep coming before
NEAR = 3

_REFUSED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


class Refused(ZerotrustError):
    """A command cannot do what it was asked; the message says what to do instead."""


class Cluster:
    """One API server; `namespace` is the one that commands mean when they name none."""

    def __init__(self, client: "Client", namespace: str = "default") -> None:
        self.client, self.namespace = client, namespace

    @property
    def now(self) -> datetime:
        """The present time by the API server's clock, as far as it has answered; else by the local one."""
        return datetime.now(UTC) - self.client.skew if self.client.skew is not None else datetime.now(UTC)

    async def read(self, ref: Ref) -> Body:
        """Read one object; Refused when there is none, with names that are near."""
        from zerotrust.kube.errors import NotFound

        try:
            return await self.client.get(ref)
        except NotFound:
            pass
        raise Refused(f"there is no {ref}{await self._near(ref)}")

    async def _near(self, ref: Ref) -> str:
        """What else it could have meant: an object of a like name, or of this name elsewhere."""
        from zerotrust.kube.errors import KubeError
        from zerotrust.kube.resources import BY_KIND

        resource = BY_KIND[ref.kind]
        try:
            names = await self.every(resource, lambda body: _name(body), ref.namespace, metadata_only=True)
            same = await self.every(
                resource, lambda body: _place(body), metadata_only=True, fields=f"metadata.name={ref.name}"
            )
        except (KubeError, Refused):
            return ""
        near = [
            f"{ref.namespace}/{name}" if ref.namespace else name for name in get_close_matches(ref.name, names, NEAR)
        ]
        if near or same:
            return f"; there is {' and '.join([*near, *same[:NEAR]])}"
        where = f" in namespace {ref.namespace}" if ref.namespace else ""
        return f"; there are {len(names)} of this kind{where}" if names else f"; there is none of this kind{where}"

    async def every(
        self, resource: "ResourceType", keep: Callable[[Body], Kept], namespace: str = "", **how: Any
    ) -> list[Kept]:
        """Read the objects of a kind page by page, and keep of each what `keep` returns; Refused where the kind is unknown."""
        from zerotrust.kube.errors import NotFound

        found: list[Kept] = []
        try:
            async for items, _ in self.client.list(resource, namespace=namespace, **how):
                found += [keep(body) for body in items]
        except NotFound:
            crds = "; `kubectl apply -f crds/` makes it known" if resource.group.endswith("zerotrust.dev") else ""
            raise Refused(f"this cluster does not know {resource.plural}.{resource.group}{crds}") from None
        return found

    async def change(self, body: Body, patch: Mapping[str, Any]) -> Body:
        """Merge into an object; Conflict when it was changed since it was read."""
        from zerotrust.kube.errors import Unreachable

        metadata = body["metadata"]
        precondition = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        merged = {**patch, "metadata": {**patch.get("metadata", {}), **precondition}}
        try:
            return await self.client.patch(Ref(body["kind"], metadata.get("namespace", ""), metadata["name"]), merged)
        except Unreachable as error:
            raise Refused(
                f"{error}, so nobody knows whether it was written; run the command again, it does nothing twice"
            ) from None


def in_cluster(
    kubeconfig: str | None,
    context: str | None,
    task: Callable[[Connected], Awaitable[int]],
    of: Callable[["Client", str], Connected],
) -> int:
    """Carry out a task on the cluster and return its exit code; 2 with an error on standard error where it fails.

    `of` makes what the task gets, out of the client and the namespace of the kubeconfig's context.
    """

    async def connected() -> int:
        from zerotrust.kube.client import Client, load_configuration
        from zerotrust.telemetry.metrics import Metrics

        configuration = await load_configuration(kubeconfig, context)
        async with Client(configuration, Metrics()) as client:
            return await task(of(client, context_namespace(kubeconfig, context)))

    from zerotrust.kube.errors import KubeError

    try:
        return asyncio.run(connected())
    except KubeError as error:
        say(f"Error: {in_words(error)}", err=True)
    except BrokenPipeError:  # whoever read the output has seen enough
        raise
    except (ZerotrustError, OSError) as error:
        say(f"Error: {error}", err=True)
    return EXIT_PROBLEM


def context_namespace(kubeconfig: str | None, context: str | None) -> str:
    """Return the namespace of the kubeconfig's context, as kubectl has it by default; `default` where none is named."""
    from kubernetes.aio import config

    try:
        path = kubeconfig or os.environ.get("KUBECONFIG") or None
        contexts, active = config.list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError):
        return "default"
    chosen = next((one for one in contexts if one["name"] == context), active) if context else active
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def in_words(error: "KubeError") -> str:
    """What the API server said, and where that follows from it, which right is missing or what to look at."""
    found = _REFUSED.search(str(error)) if error.code == 403 else None
    if found is not None:
        resource = f"{found['resource']}.{found['group']}".rstrip(".")
        scope = f"-n {found['namespace']}" if found["namespace"] else "-A"
        place = f"in namespace {found['namespace']}" if found["namespace"] else "in every namespace"
        return (
            f"{error}\nMissing right: {found['verb']} {resource} {place}, for {found['user']};"
            f" `kubectl auth can-i {found['verb']} {resource} {scope}` asks for it"
        )
    if error.code == 401:
        return f"{error}\nThe credentials of the kubeconfig are not accepted; log in again"
    if error.code == 0:
        return f"{error}\nIs this the right cluster? `kubectl config current-context` says which one it is"
    return str(error)


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _place(body: Body) -> str:
    namespace = body["metadata"].get("namespace", "")
    return f"{namespace}/{_name(body)}" if namespace else _name(body)
