"""Reads what a namespace runs and exposes: a few lists at the moments when it matters, instead of watching every pod."""

from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta
from zerotrust.kube.client import Client
from zerotrust.kube.errors import NotFound
from zerotrust.kube.resources import HTTP_ROUTES, INGRESSES, PODS, SERVICES, ResourceType
from zerotrust.policy.survey import Survey, exposed

RUNNING = "status.phase!=Succeeded,status.phase!=Failed"

_versions = count(1)


async def read_survey(client: Client, ref: Ref) -> Survey:
    """Return the present survey of a namespace; its version only orders surveys of this process."""
    at = datetime.now(UTC)
    pods = await _all(client, PODS, ref.namespace, metadata_only=True, fields=RUNNING)
    services = await _all(client, SERVICES, ref.namespace)
    routes = await _all(client, INGRESSES, ref.namespace)
    with suppress(NotFound):  # no Gateway API here
        routes += await _all(client, HTTP_ROUTES, ref.namespace)
    labels = {tuple(sorted((pod["metadata"].get("labels") or {}).items())) for pod in pods}
    meta = Meta(ref, "", str(next(_versions)), 0, None, {}, {}, (), deleting=False)
    uids = frozenset(pod["metadata"].get("uid", "") for pod in pods)
    return Survey(meta, tuple(dict(one) for one in sorted(labels)), exposed(services, routes), uids, at)


async def _all(client: Client, resource: ResourceType, namespace: str, **how: Any) -> list[dict[str, Any]]:
    return [body async for page, _ in client.list(resource, namespace=namespace, **how) for body in page]
