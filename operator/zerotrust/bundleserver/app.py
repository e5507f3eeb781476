"""The HTTP application: which path does what. Decisions are in the rooms beside it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from zerotrust.bundleserver.auth import Authenticator
from zerotrust.bundleserver.bodies import read_json
from zerotrust.bundleserver.caller import Caller, NotACredential
from zerotrust.bundleserver.conditional import KEY_ID, Known, wait_of
from zerotrust.bundleserver.connection import connection_of
from zerotrust.bundleserver.counts import Counts
from zerotrust.bundleserver.decisions import LogReader, LogSink
from zerotrust.bundleserver.documents import DocumentKind, DocumentProvider, matches
from zerotrust.bundleserver.intake import KeysInUse, ReportSink, delivery_of, report_of
from zerotrust.bundleserver.limits import Limits
from zerotrust.bundleserver.refusals import Refused
from zerotrust.bundleserver.sending import deliver, send_bundle
from zerotrust.bundleserver.shelf import Bundle, Kind, Place, Shelf
from zerotrust.bundleserver.waiting import Turnstile
from zerotrust.engine.clock import Clock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NAMESPACE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"


@dataclass(frozen=True)
class Parts:
    """What the application is put together from."""

    shelf: Shelf
    authenticator: Authenticator
    documents: DocumentProvider
    reports: ReportSink
    logs: LogSink
    log_reader: LogReader
    clock: Clock
    counts: Counts
    limits: Limits


class BundleApplication:
    """Answers requests. Once `closing` is set, every answer also ends its connection."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiters = Turnstile("long polls", parts.limits.waiters, parts.limits.waiters_per_client)
        self._intakes = Turnstile("uploads", parts.limits.intakes, parts.limits.waiters_per_client)
        self._keys = KeysInUse()
        self.closing = False
        parts.counts.gauge("waiters", "Requests that are held until there is something new.", parts.shelf.waiting)

    def build(self) -> web.Application:
        """The application with its routes; it reads no body by itself."""
        app = web.Application(middlewares=[self._guard])
        kinds = "|".join(Kind)
        bundle = f"/bundles/{{key_id:{KEY_ID.pattern}}}/{{namespace:{_NAMESPACE}}}/{{kind:{kinds}}}"
        app.add_routes(
            [
                web.get(bundle, self._bundle, name="bundle"),
                web.post("/status", self._status, name="status"),
                web.post("/logs", self._logs, name="logs"),
                web.get(f"/.well-known/spiffe-bundle/{{domain:{_TRUST_DOMAIN}}}", self._spiffe_bundle, name="spiffe"),
                web.get(f"/{{domain:{_TRUST_DOMAIN}}}/jwks", self._jwks, name="jwks"),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn refusals into answers, send within the time allowed, and count."""
        connection = connection_of(request)
        connection.began()
        try:
            try:
                response = await handler(request)
            except Refused as refused:
                response = refused.response()
            except web.HTTPException as error:
                response = Refused(error.status, "no_such_page", error.reason).response()
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            if self.closing:
                response.force_close()
            await deliver(request, response, self._parts.limits.write_seconds)
            self._parts.counts.answered(_route(request), response.status)
            return response
        finally:
            connection.ended()

    async def _caller(self, request: web.Request) -> Caller:
        connection = connection_of(request)
        try:
            certificate = connection.peer
        except NotACredential as error:
            raise Refused(401, "unauthenticated", str(error)) from None
        return await self._parts.authenticator.authenticate(certificate, request.headers.get("Authorization", ""))

    async def _bundle(self, request: web.Request) -> web.StreamResponse:
        parts = self._parts
        found = request.match_info
        place = Place(found["key_id"], found["namespace"], Kind(found["kind"]))
        caller = await self._caller(request)
        await parts.authenticator.authorise(caller, place.namespace)
        bundle = self._there(place)
        self._keys.note(caller.pod_uid, place.key_id, parts.clock.now())
        known = Known.parse(",".join(request.headers.getall("If-None-Match", ())))
        if known.anything:
            known = Known(known.tags | {bundle.tag(place.key_id)})
        seconds = wait_of(",".join(request.headers.getall("Prefer", ())))
        if seconds and request.method == "GET" and not known.lacks(bundle.tag(place.key_id)):
            with self._waiters.admit(caller.client):
                await parts.shelf.wait(place, known, seconds)
            bundle = self._there(place)
            if caller.valid_until <= parts.clock.now():
                raise Refused(401, "unauthenticated", "the credential has expired in the meantime")
        return await self._answer(request, caller, place, bundle, known)

    async def _answer(
        self, request: web.Request, caller: Caller, place: Place, bundle: Bundle, known: Known
    ) -> web.StreamResponse:
        parts, tag = self._parts, bundle.tag(place.key_id)
        headers = {"Cache-Control": "private, no-cache"}
        if not known.lacks(tag):
            if tag in known.tags:  # the tag of what is older than the client's would make it forget its own
                headers["ETag"] = str(tag)
            return web.Response(status=304, headers=headers)
        headers["ETag"] = str(tag)
        headers["Content-Type"] = "application/vnd.openpolicyagent.bundles"
        response = web.StreamResponse(headers=headers)
        response.content_length = len(bundle.body)
        if request.method == "HEAD":
            return response
        if self.closing:
            response.force_close()
        started = time.monotonic()
        delivery = delivery_of(caller, place, bundle, parts.clock.now())
        seconds = parts.limits.write_seconds
        await send_bundle(request, response, bundle.body, seconds, lambda: parts.reports.delivered(delivery))
        parts.counts.sent(time.monotonic() - started)
        return response

    def _there(self, place: Place) -> Bundle:
        bundle = self._parts.shelf.get(place)
        if bundle is None:
            raise Refused(404, "no_bundle", f"there is no {place.kind} bundle of {place.namespace} under this key")
        return bundle

    async def _status(self, request: web.Request) -> web.StreamResponse:
        parts, limits = self._parts, self._parts.limits
        caller = await self._sender(request)
        with self._intakes.admit(caller.client), _counted(parts.counts, "status"):
            body = await read_json(
                request,
                compressed=limits.status_compressed,
                plain=limits.status_plain,
                nesting=limits.nesting,
                seconds=limits.body_seconds,
            )
            now = parts.clock.now()
            keys = self._keys.of(caller.pod_uid, now)
            parts.reports.report(report_of(body, caller, keys, now, limits.reported_bundles))
        return web.Response(status=204)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        parts, limits = self._parts, self._parts.limits
        caller = await self._sender(request)
        with self._intakes.admit(caller.client), _counted(parts.counts, "logs"):
            body = await read_json(
                request,
                compressed=limits.logs_compressed,
                plain=limits.logs_plain,
                nesting=limits.nesting,
                seconds=limits.body_seconds,
            )
            summary = parts.log_reader.summary(body, caller, parts.clock.now())
            parts.counts.events("counted", summary.decided.total())
            parts.counts.events("foreign", summary.foreign)
            parts.counts.events("malformed", summary.malformed)
            parts.logs.decisions(summary)
        return web.Response(status=204)

    async def _sender(self, request: web.Request) -> Caller:
        """Who reports: a pod that may have the bundles of its own namespace; nobody else's word counts."""
        caller = await self._caller(request)
        workload = caller.workload
        if workload is None or not caller.pod_uid:
            raise Refused(
                403, "pod_unknown", "send this with a ServiceAccount token that is bound to a pod", close=True
            )
        await self._parts.authenticator.authorise(caller, workload.namespace)
        return caller

    async def _spiffe_bundle(self, request: web.Request) -> web.StreamResponse:
        return self._document(request, DocumentKind.SPIFFE_BUNDLE)

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        return self._document(request, DocumentKind.JWKS)

    def _document(self, request: web.Request, kind: DocumentKind) -> web.StreamResponse:
        document = self._parts.documents.document(kind, request.match_info["domain"])
        if document is None:
            raise Refused(404, "no_document", f"there is no {kind} of this trust domain")
        headers = {"ETag": document.etag, "Cache-Control": f"public, max-age={document.max_age}"}
        if matches(",".join(request.headers.getall("If-None-Match", ())), document.etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=document.body, headers={**headers, "Content-Type": document.content_type})


class _counted:  # noqa: N801 - reads as the word it is
    """Counts how an intake went, by the status of the refusal if there was one."""

    def __init__(self, counts: Counts, kind: str) -> None:
        self._counts, self._kind = counts, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        outcome = "taken" if error is None else error.code if isinstance(error, Refused) else "failed"
        self._counts.took(self._kind, outcome)


def _route(request: web.Request) -> str:
    return request.match_info.route.name or "none"
