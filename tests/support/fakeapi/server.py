"""The fake API server as a test holds it: started and stopped, looked into, and made to misbehave."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from .faults import Exchange, Faults, Respond, StreamError
from .frontend import Frontend
from .resources import BUILT_IN, OURS, Object, ResourceType, definition_of
from .reviews import Reviews
from .store import Store
from .watches import Watches

_INITIAL_NAMESPACES = ("default", "kube-system")


def utc_now() -> datetime:
    return datetime.now(UTC)


def _with_large_body(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    """A request without aiohttp's own limit of 1 MiB; the API server's limit is checked where bodies are parsed."""
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=0)


class FakeApi:
    """A strict fake of kube-apiserver on a random loopback port: `async with FakeApi() as server`.

    `resources` are served besides the built-in kinds and ours. `clock` (UTC) is what the server believes the time is:
    its Date header and its timestamps. `latency` (seconds) passes before each request is processed. Without
    `garbage_collection` the server is alone, as without kube-controller-manager: dependents stay, namespaces never end.
    """

    def __init__(
        self,
        resources: Iterable[ResourceType] = (),
        *,
        namespaces: Iterable[str] = (),
        clock: Callable[[], datetime] = utc_now,
        latency: float = 0.0,
        garbage_collection: bool = True,
        bookmark_interval: float = 60.0,
        history_limit: int = 100_000,
    ) -> None:
        more = tuple(resources)
        self.url = ""
        self._store = Store(
            (*BUILT_IN, *OURS, *more), clock=clock, garbage_collection=garbage_collection, history_limit=history_limit
        )
        self._watches = Watches(self._store)
        self.faults = Faults(self._store.type_called)
        self._frontend = Frontend(
            self._store, self._watches, self.faults, clock=clock, latency=latency, bookmark_interval=bookmark_interval
        )
        for name in (*_INITIAL_NAMESPACES, *namespaces):
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for resource in (*OURS, *more):
            if resource.custom:
                self.create(definition_of(resource))

    async def __aenter__(self) -> Self:
        # With handler_cancellation a request ends with its connection, so that nothing outlives its client.
        self._web = web.Server(
            self._frontend.handle, request_factory=_with_large_body, handler_cancellation=True, access_log=None
        )
        self._runner = web.ServerRunner(self._web, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._web.connections:
            connection.force_close()
        await self._runner.cleanup()
        if self._frontend.defects and error is None:
            raise ExceptionGroup("the fake API server itself is broken", self._frontend.defects)

    # The state, directly: nothing here counts as a request, and no fault applies to it.

    @property
    def revision(self) -> int:
        """The newest resourceVersion."""
        return self._store.revision

    def create(self, body: Mapping[str, Any]) -> Object:
        """Create an object, its status included, and return it as stored."""
        own = copy.deepcopy(dict(body))
        namespace = own.get("metadata", {}).get("namespace", "")
        created = self._store.create(self._store.type_called(body["kind"]), own, namespace, keep_status=True)
        return copy.deepcopy(created.body)

    def restore(self, body: Mapping[str, Any]) -> Object:
        """Put an object there as it was recorded elsewhere, with its uid, times and status."""
        return self._store.restore(self._store.type_called(body["kind"]), copy.deepcopy(dict(body))).body

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        version = self._store.find(self._store.type_called(kind), (namespace or "", name))
        return copy.deepcopy(version.body) if version else None

    def list(self, kind: str, namespace: str | None = None) -> Sequence[Object]:
        found = self._store.all(self._store.type_called(kind))
        return [copy.deepcopy(version.body) for version in found if namespace in (None, version.key[0])]

    def patch(
        self, kind: str, name: str, changes: Mapping[str, Any], namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """Merge-patch an object, or its status with subresource="status"."""
        key = (namespace or "", name)
        return copy.deepcopy(self._store.merge_patch(self._store.type_called(kind), key, changes, subresource).body)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        self._store.delete(self._store.type_called(kind), (namespace or "", name))

    @property
    def reviews(self) -> Reviews:
        """Which tokens are good, who may read policy bundles, and what was asked about that."""
        return self._frontend.reviews

    # What clients did.

    @property
    def requests(self) -> Sequence[Exchange]:
        """Every HTTP request in the order of arrival, discovery included."""
        return self._frontend.requests

    @property
    def writes(self) -> Sequence[Exchange]:
        """The mutating ones among them, whatever became of them: see `Exchange.code` and `was_applied`."""
        return self._frontend.writes

    def count_writes(self, **attributes: object) -> int:
        """How many writes arrived with these attributes: `count_writes(resource="secrets", verb="create")`."""
        return sum(all(getattr(write, name) == value for name, value in attributes.items()) for write in self.writes)

    def reset_counts(self) -> None:
        self._frontend.requests.clear()
        self._frontend.writes.clear()

    def open_watches(self, resource: str | None = None) -> int:
        return len(self._watches.of(self._type(resource)))

    async def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until something is true, here or elsewhere; TimeoutError if it does not become true."""
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - what it depends on may be anywhere
                await asyncio.sleep(0.005)

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for this server to `path`. Every token is good enough here."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "fake"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "default"}}],
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    # Faults that are not about one request; the others are in `faults`.

    def halt(self) -> None:
        """Process and answer nothing any more, until `resume()`."""
        self._frontend.halt()

    async def wait_halted(self, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            await self._frontend.halted.wait()

    def resume(self) -> None:
        """Serve again. Whatever was sent or watched before is cut off: it belonged to a client that is dead."""
        self._frontend.resume()

    def set_latency(self, seconds: float) -> None:
        self._frontend.latency = seconds

    def cut_watches(self, resource: str | None = None) -> int:
        """Break off the open watch streams; returns how many there were."""
        return self._watches.cut(self._type(resource))

    def compact(self) -> None:
        """Forget the history: watches that resume get an in-stream 410, continued lists a 410 status."""
        self._store.compact()

    def gone_as_status(self, resource: str) -> None:
        """Answer the next watch or continued list of this resource with HTTP 410."""
        self.faults.on(
            verb={"watch", "list"},
            resource=resource,
            when=lambda exchange: exchange.verb == "watch" or "continue" in exchange.query,
            action=Respond(410, message="too old resource version"),
        )

    def error_in_stream(self, resource: str, code: int) -> None:
        """Send an ERROR event into the open streams of this resource, or into the next one if none is open."""
        error = StreamError(code)
        streams = self._watches.of(self._type(resource))
        for stream in streams:
            self._watches.fail(stream, error.status())
        if not streams:
            self.faults.on(verb="watch", resource=resource, action=error)

    def hold_watches(self, resource: str) -> None:
        """Deliver no events of this resource until `release_watches`; none is lost."""
        self._watches.hold(self._store.type_called(resource))

    def release_watches(self, resource: str) -> None:
        self._watches.release(self._store.type_called(resource))

    def send_bookmarks(self, resource: str | None = None) -> None:
        """Send a bookmark now on the open streams whose clients allow it."""
        for stream in self._watches.of(self._type(resource)):
            stream.mark()

    def _type(self, resource: str | None) -> ResourceType | None:
        return self._store.type_called(resource) if resource else None
