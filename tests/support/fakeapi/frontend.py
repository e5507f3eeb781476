"""The HTTP side: from a request to a call of the store and back, with whatever misfortune the test has scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import partial
from typing import NoReturn

from aiohttp import web

from . import presentation
from .discovery import document
from .faults import MUTATING, CloseBefore, Delay, Exchange, Faults, Halt, Hang, LoseAnswer, Respond, StreamError
from .presentation import wants_metadata_only
from .refusals import NoSuchPage, Refused
from .resources import Object
from .reviews import Reviews
from .selectors import Selection, parse_fields, parse_labels
from .store import Store
from .urls import Target, check_query, locate, verb_of, whole_number
from .versions import Key, Version, encode
from .watches import Watches

_LARGEST_BODY = 3 * 1024 * 1024
_MERGE_PATCH = "application/merge-patch+json"
_LONGEST_WATCH = 3600
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


@dataclass
class Call:
    """One request on its way: what it wants, how it was understood, and why it will be refused, if it will."""

    request: web.BaseRequest
    raw: bytes
    target: Target | None
    exchange: Exchange
    epoch: int
    refusal: Refused | None = None


class Frontend:
    """Answers HTTP requests out of a store and records them. `latency` is in seconds, before each request."""

    def __init__(
        self,
        store: Store,
        watches: Watches,
        faults: Faults,
        *,
        clock: Callable[[], datetime],
        latency: float,
        bookmark_interval: float,
    ) -> None:
        self.latency = latency
        self.requests: list[Exchange] = []
        self.writes: list[Exchange] = []
        self.defects: list[Exception] = []
        self.reviews = Reviews()
        self.halted = asyncio.Event()
        self._resumed = asyncio.Event()
        self._epoch = 0
        self._store = store
        self._watches = watches
        self._faults = faults
        self._clock = clock
        self._bookmark_interval = bookmark_interval

    def halt(self) -> None:
        self._epoch += 1
        self._resumed.clear()
        self.halted.set()
        self._watches.freeze()

    def resume(self) -> None:
        self.halted.clear()
        self._resumed.set()
        self._watches.cut_frozen()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; a defect of the fake itself is kept in `defects`, so that it cannot pass for a fault."""
        try:
            return await self._handle(request)
        except ConnectionError:
            raise
        except Exception as defect:
            self.defects.append(defect)
            raise

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = self._understand(request, await request.read())
        exchange = call.exchange
        self.requests.append(exchange)
        if exchange.is_write:
            self.writes.append(exchange)
        if self.latency:
            await asyncio.sleep(self.latency)
        await self._pass(call)
        action = self._faults.next_action(exchange)
        match action:
            case Delay(seconds):
                await asyncio.sleep(seconds)
                await self._pass(call)
            case Hang():
                await _until_disconnected()
            case CloseBefore():
                await _break_off(request)
            case Respond():
                return self._refuse(call, action.refusal())
        try:
            if exchange.verb == "watch" and not call.refusal and not isinstance(action, LoseAnswer | Halt):
                return await self._watch(call, action if isinstance(action, StreamError) else None)
            response = self._answer(call)
        except Refused as refused:
            response = self._refuse(call, refused)
        match action:
            case LoseAnswer():
                await _break_off(request)
            case Halt():
                self.halt()
                await self._pass(call)
        return response

    async def _pass(self, call: Call) -> None:
        """Let only those through who were not there when the server was halted, and arrived when it was not."""
        if self.halted.is_set():
            await self._resumed.wait()
            await _break_off(call.request)
        if call.epoch != self._epoch:
            await _break_off(call.request)

    def _understand(self, request: web.BaseRequest, raw: bytes) -> Call:
        """Parse without refusing yet: a request that is wrong is recorded, delayed or lost like any other."""
        exchange = Exchange(request.method.lower(), "", "", "", "", path=request.path, query=request.query)
        call = Call(request, raw, None, exchange, self._epoch)
        try:
            if target := locate(request.path, self._store.resources):
                call.target = target
                exchange.resource, exchange.subresource = target.resource.plural, target.subresource
                exchange.namespace, exchange.name = target.namespace or "", target.name
                exchange.verb = verb_of(request.method, target, request.query)
                check_query(exchange.verb, request.query)
            if raw and exchange.verb in MUTATING:
                exchange.body = _parse(request, raw, exchange.verb)
                metadata = exchange.body.get("metadata")
                exchange.name = exchange.name or (metadata or {}).get("name") or ""
        except Refused as refusal:
            call.refusal = refusal
        return call

    def _answer(self, call: Call) -> web.Response:
        if call.refusal:
            raise call.refusal
        if call.target is None:
            return self._answer_discovery(call)
        target, exchange = call.target, call.exchange
        resource, key = target.resource, (target.namespace or "", target.name)
        brief = wants_metadata_only(call.request.headers.get("Accept", ""), exchange.verb)
        show = presentation.metadata_only if brief else presentation.whole
        match exchange.verb:
            case "get":
                return self._respond(call, 200, show(self._store.get(resource, key)))
            case "list":
                return self._respond(call, 200, self._list(call, target, brief=brief))
            case "create":
                created = self._store.create(resource, _own(call), target.namespace or "")
                exchange.name = created.metadata["name"]
                return self._respond(call, 201, show(created))
            case "update":
                code = 200 if self._store.find(resource, key) else 201
                return self._respond(
                    call, code, show(self._store.replace(resource, key, _own(call), target.subresource))
                )
            case "patch":
                patched = self._store.merge_patch(resource, key, exchange.body or {}, target.subresource)
                return self._respond(call, 200, show(patched))
            case "delete":
                return self._respond(call, 200, self._delete(call, target, key, show))
            case lost:
                assert lost == "watch", f"{lost} is not a verb"
                return self._respond(call, 200, b"")

    def _list(self, call: Call, target: Target, *, brief: bool) -> bytes:
        query = call.request.query
        if (asked := whole_number(query, "resourceVersion")) > self._store.revision:
            raise Refused(504, f"Too large resource version: {asked}, current: {self._store.revision}")
        page = self._store.page(
            target.resource, _selection(call, target), whole_number(query, "limit"), query.get("continue", "")
        )
        return presentation.list_of(target.resource, page, partial=brief)

    def _delete(self, call: Call, target: Target, key: Key, show: Callable[[Version], bytes]) -> bytes:
        options = dict(call.request.query) | (call.exchange.body or {})
        version, is_gone = self._store.delete(target.resource, key, options)
        if not is_gone or target.resource.returns_deleted:
            return show(version)
        group = {"group": target.resource.group} if target.resource.group else {}
        details = {"name": target.name, **group, "kind": target.resource.plural, "uid": version.metadata["uid"]}
        return encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    def _answer_discovery(self, call: Call) -> web.Response:
        path = call.request.path
        if call.request.method == "GET" and path in _HEALTH:
            call.exchange.code = 200
            return web.Response(text="ok", headers=self._headers())
        if call.request.method == "POST" and path in self.reviews.paths:
            return self._respond(call, 201, encode(self.reviews.answer(path, _parse(call.request, call.raw, "create"))))
        if call.request.method == "GET" and (found := document(path, self._store.resources)):
            return self._respond(call, 200, encode(found))
        raise NoSuchPage

    async def _watch(self, call: Call, error: StreamError | None) -> web.StreamResponse:
        request, target = call.request, call.target
        assert target is not None
        resource, query = target.resource, request.query
        brief = wants_metadata_only(request.headers.get("Accept", ""), "watch")
        stream = self._watches.open(
            resource,
            _selection(call, target),
            _starting_point(query.get("resourceVersion", "")),
            presentation.metadata_only if brief else presentation.whole,
            partial(presentation.bookmark, resource, partial=brief)
            if query.get("allowWatchBookmarks", "").lower() in ("1", "true")
            else None,
        )
        if error:
            self._watches.fail(stream, error.status())
        if request.transport:
            stream.break_off = request.transport.abort
        call.exchange.code = 200
        response = web.StreamResponse(headers=self._headers())
        response.content_type = "application/json"
        timeout = whole_number(query, "timeoutSeconds") or _LONGEST_WATCH
        try:
            await response.prepare(request)
            await stream.pump(response.write, timeout, self._bookmark_interval)
            if stream.was_cut:
                await _until_disconnected()
            await response.write_eof()
        finally:
            self._watches.close(stream)
        return response

    def _respond(self, call: Call, code: int, body: bytes) -> web.Response:
        call.exchange.code = code
        return web.Response(status=code, body=body, headers=self._headers(), content_type="application/json")

    def _refuse(self, call: Call, refusal: Refused) -> web.Response:
        if isinstance(refusal, NoSuchPage):
            call.exchange.code = refusal.code
            return web.Response(status=refusal.code, text=refusal.status["message"], headers=self._headers())
        response = self._respond(call, refusal.code, encode(refusal.status))
        if seconds := refusal.status.get("details", {}).get("retryAfterSeconds"):
            response.headers["Retry-After"] = str(seconds)
        return response

    def _headers(self) -> dict[str, str]:
        # Clients compare this with their own clock, so it has to be the test's idea of the time.
        return {"Date": format_datetime(self._clock(), usegmt=True), "Cache-Control": "no-cache, private"}


def _parse(request: web.BaseRequest, raw: bytes, verb: str) -> Object:
    if len(raw) > _LARGEST_BODY:
        raise Refused(413, f"Request entity too large: limit is {_LARGEST_BODY}")
    wanted = _MERGE_PATCH if verb == "patch" else "application/json"
    if request.headers.get("Content-Type", wanted if verb != "patch" else "").split(";")[0] != wanted:
        raise Refused(415, f"the body of the request was in an unknown format - accepted media types include: {wanted}")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refused(400, f"the object provided is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "the object provided is not a JSON object")
    return body


def _own(call: Call) -> Object:
    """A second copy of the body: the store keeps and changes what it is given, and the record must not change."""
    if not call.raw:
        raise Refused(400, "the request has no body")
    own: Object = json.loads(call.raw)
    return own


def _selection(call: Call, target: Target) -> Selection:
    query = call.request.query
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    return Selection(target.namespace, parse_labels(labels), parse_fields(fields, target.resource.fields))


def _starting_point(version: str) -> int | None:
    """The revision after which a watch starts; None means that it starts with what is there."""
    if version and not version.isdecimal():
        raise Refused(500, f"invalid resource version {version!r}", reason="")
    return int(version or 0) or None


async def _break_off(request: web.BaseRequest) -> NoReturn:
    if request.transport:
        request.transport.abort()
    await _until_disconnected()


async def _until_disconnected() -> NoReturn:
    """Never return: a handler is cancelled when its connection ends."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")
