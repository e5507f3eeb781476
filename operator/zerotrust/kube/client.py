"""The one door to the API server: dictionaries over one aiohttp session.

Configuration and credentials come from the official client's configuration (kubeconfig, in-cluster token with refresh, client
certificates, exec plugins); requests are our own, because the generated client costs eight times the CPU per call.
"""

import asyncio
import json
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from zerotrust import __version__
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.kube.errors import Gone, KubeError, Unreachable, error_of
from zerotrust.kube.resources import BY_KIND, ResourceType
from zerotrust.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Body = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
PAGE = 500
READ_RETRIES = 4
RETRIABLE = (429, 500, 502, 503, 504)


class NoCluster(ZerotrustError):
    """There is no usable configuration for reaching a cluster."""


async def load_configuration(kubeconfig: str | None = None, context: str | None = None) -> Configuration:
    """Return how to reach the cluster: a kubeconfig if one is named or KUBECONFIG is set, else the pod's own account."""
    configuration = Configuration()
    kubeconfig = kubeconfig or os.environ.get("KUBECONFIG") or None
    try:
        if kubeconfig is None and context is None:
            with suppress(config.ConfigException):
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                return configuration
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, context=context, client_configuration=configuration
        )
    except config.ConfigException as error:
        raise NoCluster(
            f"no cluster to talk to: {error}; set KUBECONFIG or run inside a cluster with a ServiceAccount"
        ) from None
    return configuration


class Client:
    """Requests to one API server.

    Reads are retried within a small budget, honouring Retry-After. Writes are sent once: whoever made the plan decides
    whether it still holds. `skew` is local time minus the server's, measured from each answer's Date.
    """

    def __init__(self, configuration: Configuration, metrics: Metrics, *, timeout: float = 30.0, connections: int = 64):
        self._configuration = configuration
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=5)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._base = configuration.host.rstrip("/")
        self._random = random.Random()  # noqa: S311 - spreads retries, guards no secret
        self.skew: timedelta | None = None

    def reserve(self, streams: int) -> None:
        """Keep so many connections more, for watches that stay open; to be called before it is entered."""
        self._connections += streams

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections, ssl=_tls(self._configuration), ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers={"User-Agent": f"zerotrust-operator/{__version__}", "Accept": "application/json"},
            json_serialize=_compact,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, ref: Ref) -> Body:
        """Read one object; NotFound when it is not there."""
        return await self._read(BY_KIND[ref.kind].path(ref), {}, f"get {ref}")

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Create an object; AlreadyExists when its name is taken."""
        resource = BY_KIND[body["kind"]]
        namespace = body["metadata"].get("namespace", "")
        what = f"create {body['kind']} {namespace}/{body['metadata'].get('name', '…')}"
        return await self._write("POST", resource.kind, resource.collection(namespace), body, what)

    async def patch(self, ref: Ref, patch: Mapping[str, Any], subresource: str = "") -> Body:
        """Send a merge patch (RFC 7396); Conflict when a resourceVersion or uid in it is not the present one."""
        path = BY_KIND[ref.kind].path(ref) + (f"/{subresource}" if subresource else "")
        kind = f"{ref.kind}/{subresource}" if subresource else ref.kind
        return await self._write("PATCH", kind, path, patch, f"patch {ref}")

    async def replace(self, ref: Ref, body: Mapping[str, Any]) -> Body:
        """Replace an object; Conflict when its resourceVersion is not the present one."""
        return await self._write("PUT", ref.kind, BY_KIND[ref.kind].path(ref), body, f"replace {ref}")

    async def delete(self, ref: Ref, uid: str = "") -> None:
        """Delete an object, and only the one with this uid; NotFound when it is gone already."""
        options: Body = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._write("DELETE", ref.kind, BY_KIND[ref.kind].path(ref), options, f"delete {ref}")

    async def list(
        self, resource: ResourceType, *, metadata_only: bool = False, namespace: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[list[Body], str]]:
        """Yield the pages of a list with the resourceVersion they all show; Gone when the list must be started again."""
        params = {"limit": str(PAGE)}
        if resource.selector:
            params["labelSelector"] = resource.selector
        if fields:
            params["fieldSelector"] = fields
        headers = {"Accept": METADATA_ONLY} if metadata_only else None
        what = f"list {resource.plural}{_in(namespace)}"
        while True:
            page = await self._read(resource.collection(namespace), params, what, headers=headers)
            metadata = page.get("metadata", {})
            yield page.get("items") or [], metadata.get("resourceVersion", "")
            if not metadata.get("continue"):
                return
            params["continue"] = metadata["continue"]

    async def watch(self, resource: ResourceType, version: str, namespace: str = "") -> AsyncIterator[tuple[str, Body]]:
        """Yield what happens after a resourceVersion, as `(ADDED, MODIFIED or DELETED, object)`; ends when the server ends it.

        Raises Gone when the version is too old. Source: Kubernetes documentation, "Efficient detection of changes".
        """
        what, params = f"watch {resource.plural}{_in(namespace)}", {"watch": "1", "resourceVersion": version}
        params |= {"allowWatchBookmarks": "true", "timeoutSeconds": str(self._random.randint(240, 360))}
        if resource.selector:
            params["labelSelector"] = resource.selector
        patience = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=400)
        path = resource.collection(namespace)
        async with self._requested("GET", path, what, params=params, timeout=patience) as response:
            if response.status >= 400:
                raise _refusal(response, await response.read(), what, creating=False)
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = _decoded(line, what)
                    if event["type"] == "ERROR":
                        raise _told(event["object"], what)
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]

    async def version(self) -> Body:
        """The API server's version."""
        return await self._read("/version", {}, "read /version")

    async def _read(
        self, path: str, params: Mapping[str, str], what: str, headers: Mapping[str, str] | None = None
    ) -> Body:
        for attempt in range(READ_RETRIES + 1):
            try:
                return await self._request("GET", path, what, params=params, headers=headers)
            except Gone:
                raise
            except KubeError as error:
                if attempt == READ_RETRIES or (error.code and error.code not in RETRIABLE):
                    raise
                pause = 0.25 * 2**attempt * self._random.uniform(0.5, 1.0)
                if error.retry_after is not None:
                    pause = max(pause, error.retry_after.total_seconds())
                await asyncio.sleep(min(pause, 30.0))
        raise AssertionError("unreachable")

    async def _write(self, method: str, kind: str, path: str, body: Mapping[str, Any], what: str) -> Body:
        headers = {"Content-Type": MERGE_PATCH} if method == "PATCH" else None
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[method]
        code = 0
        try:
            answer = await self._request(method, path, what, body=body, headers=headers)
            code = 200
            return answer
        except KubeError as error:
            code = error.code
            raise
        finally:
            self._metrics.wrote(kind, verb, code)

    async def _request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        async with self._requested(method, path, what, params=params, json=body, headers=headers) as response:
            payload = await response.read()
            self._note_clock(response)
            if response.status < 400:
                return _decoded(payload, what)
            raise _refusal(response, payload, what, creating=method == "POST")

    @asynccontextmanager
    async def _requested(
        self, method: str, path: str, what: str, *, headers: Mapping[str, str] | None = None, **how: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; whatever goes wrong on the way, then or while the answer is read, is Unreachable."""
        assert self._session is not None, "used outside `async with`"
        sent = dict(headers or {})
        token = await self.authorization()
        if token:
            sent["Authorization"] = token
        how |= {"proxy": self._configuration.proxy, "server_hostname": self._configuration.tls_server_name}
        try:
            async with self._session.request(method, self._base + path, headers=sent, **how) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{what}: the API server did not answer ({type(error).__name__})") from None

    async def authorization(self) -> str | None:
        """The Authorization header, refreshed by the configuration's own hook (in-cluster tokens, exec plugins)."""
        for name in ("BearerToken", "authorization"):
            value = await self._configuration.get_api_key_with_prefix(name)
            if value:
                return value
        return None

    def _note_clock(self, response: aiohttp.ClientResponse) -> None:
        with suppress(ValueError, TypeError):
            server = parsedate_to_datetime(response.headers["Date"]) if "Date" in response.headers else None
            if server is not None:
                self.skew = datetime.now(UTC) - server


def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return False
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if configuration.disable_strict_ssl_verification:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _in(namespace: str) -> str:
    return f" in {namespace}" if namespace else ""


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _decoded(payload: bytes, what: str) -> Body:
    try:
        answer = json.loads(payload)
    except ValueError:
        raise Unreachable(f"{what}: the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise Unreachable(f"{what}: the answer is no object")
    return answer


def _told(status: Body, what: str) -> KubeError:
    """Turn the Status object of a watch's ERROR event into an error."""
    return error_of(status.get("code") or 0, status.get("reason", ""), status.get("message", ""), what, creating=False)


def _refusal(response: aiohttp.ClientResponse, payload: bytes, what: str, *, creating: bool) -> KubeError:
    """Turn a Status object into an error; its `message` names fields and never a Secret's values."""
    reason, message = "", response.reason or ""
    with suppress(ValueError, AttributeError):
        answer = json.loads(payload)
        reason, message = answer.get("reason", ""), answer.get("message", message)
    after = response.headers.get("Retry-After", "")
    retry_after = timedelta(seconds=min(int(after), 300)) if after.isdecimal() else None
    return error_of(response.status, reason, message, what, creating=creating, retry_after=retry_after)
