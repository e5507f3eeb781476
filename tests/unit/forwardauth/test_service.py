"""The service on sockets, between pretended proxies and an OPA that does what a test says."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.waiting import eventually
from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.question import DIALECTS
from zerotrust.forwardauth.service import ForwardAuth, ForwardAuthOptions
from zerotrust.forwardauth.upstream import Upstream, by_name

LOOPBACK = "127.0.0.1"
ORDERS = "spiffe://example.org/ns/shop/sa/orders"
PAYMENTS = "spiffe://example.org/ns/shop/sa/payments"
SAID = {"X-Original-Method": "GET", "X-Original-URI": "/a", "X-Client-Cert": "cert-of-somebody"}
ALLOWED = {"result": {"allowed": True, "status": 200, "reason": "allowed"}}
DENIED = {"result": {"allowed": False, "status": 403, "reason": "no_grant"}}
SECRETS = ("cert-of-somebody", "token-of-somebody", "/path-of-somebody")


class Scripted:
    """Stands for an OPA that is slow, broken or gone, which a real one cannot be told to be."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = self.allow

    async def allow(self) -> web.StreamResponse:
        return web.json_response(ALLOWED)

    async def decide(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        return await self.answer()

    async def elsewhere(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(ALLOWED)

    async def health(self, _: web.Request) -> web.StreamResponse:
        return web.Response()


class Service:
    def __init__(self, running: ForwardAuth, session: aiohttp.ClientSession) -> None:
        self.running, self._session = running, session

    async def ask(self, path: str = "/auth", **how: Any) -> tuple[int, str]:
        headers = how.pop("headers", SAID)
        url = f"http://{LOOPBACK}:{self.running.port}{path}"
        async with self._session.request(how.pop("method", "GET"), url, headers=headers, **how) as response:
            assert await response.read() == b"" or response.status in (404, 417)
            return response.status, response.headers.get("x-zerotrust-reason", "")

    async def probe(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"http://{LOOPBACK}:{self.running.telemetry.port}{path}") as response:
            return response.status, await response.text()


@asynccontextmanager
async def serving(limits: Limits | None = None, opa: str = "") -> AsyncIterator[tuple[Service, Scripted]]:
    scripted = Scripted()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/data/zerotrust/authz/decision", scripted.decide),
            web.route("*", "/allowed", scripted.elsewhere),
            web.get("/health", scripted.health),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    options = ForwardAuthOptions(
        upstreams=by_name([Upstream.parse(f"{ORDERS}:8443"), Upstream.parse(f"payments={PAYMENTS}:9443")]),
        dialect=DIALECTS["nginx"],
        opa=opa or f"http://{LOOPBACK}:{runner.addresses[0][1]}",
        port=0,
        metrics_host=LOOPBACK,
        metrics_port=0,
        limits=limits or Limits(),
    )
    running, stop = ForwardAuth(options), asyncio.Event()
    task = asyncio.create_task(running.run(stop))
    try:
        await eventually(lambda: running.port)
        async with aiohttp.ClientSession() as session:
            yield Service(running, session), scripted
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
        await runner.cleanup()


async def test_only_an_allow_is_204() -> None:
    async with serving() as (service, opa):
        assert await service.ask() == (204, "")
        opa.answer = lambda: soon(web.json_response(DENIED))
        assert await service.ask() == (403, "no_grant")


async def test_server_and_port_are_those_of_the_path_that_the_proxy_asks_at() -> None:
    async with serving() as (service, opa):
        assert await service.ask("/auth?server=x&port=1") == (204, "")
        assert await service.ask("/auth/payments", method="POST") == (204, "")
        asked = [(one["input"]["server"], one["input"]["request"]["port"]) for one in opa.asked]
        assert asked == [(ORDERS, 8443), (PAYMENTS, 9443)]
        for path in ("/auth/", "/auth/other", "/", "/auth/payments/x"):
            assert (await service.ask(path))[0] == 404
        assert len(opa.asked) == 2


@pytest.mark.parametrize("headers", [{}, {"X-Original-URI": "/a"}, {"X-Original-Method": "GET"}])
async def test_a_question_that_is_not_whole_is_400_and_not_asked(headers: dict[str, str]) -> None:
    async with serving() as (service, opa):
        assert await service.ask(headers=headers) == (400, "malformed_request")
        assert await service.ask(headers=[*SAID.items(), ("X-Client-Cert", "b")]) == (400, "malformed_request")
        assert await service.ask(method="POST", data=b"body") == (400, "malformed_request")
        assert not opa.asked


async def soon(response: web.StreamResponse) -> web.StreamResponse:
    return response


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.json_response(ALLOWED, status=201),
        lambda: web.json_response(ALLOWED, status=500),
        lambda: web.Response(status=302, headers={"Location": "/allowed"}),
        lambda: web.Response(status=307, headers={"Location": "/allowed"}),
        lambda: web.Response(status=204),
        lambda: web.json_response({}),
        lambda: web.Response(text="allowed"),
        lambda: web.Response(text=json.dumps(ALLOWED) + " " * 70_000),
    ],
)
async def test_an_answer_that_is_none_is_503(response: Callable[[], web.Response]) -> None:
    async with serving() as (service, opa):
        opa.answer = lambda: soon(response())
        assert await service.ask() == (503, "unavailable")
        assert "zerotrust_forward_auth_unknown_total" in (await service.probe("/metrics"))[1]


async def test_no_opa_is_503_and_not_ready() -> None:
    async with serving(opa=f"http://{LOOPBACK}:9") as (service, _):
        assert await service.ask() == (503, "unavailable")
        assert (await service.probe("/readyz"))[0] == 503
        assert (await service.probe("/healthz"))[0] == 200


async def test_with_an_opa_it_is_ready() -> None:
    async with serving() as (service, _):
        await eventually(lambda: not service.running._unready)
        assert await service.probe("/readyz") == (200, "ok\n")


async def test_a_slow_opa_is_503_and_questions_beyond_the_queue_are_refused_at_once() -> None:
    limits = Limits(questions_at_once=2, questions_waiting=2, decide_seconds=0.5)
    async with serving(limits) as (service, opa):
        opa.answer = never
        loop = asyncio.get_running_loop()
        began = loop.time()
        held = [asyncio.create_task(service.ask()) for _ in range(2)]
        await eventually(lambda: len(opa.asked) == 2)
        queued = [asyncio.create_task(service.ask()) for _ in range(2)]
        await eventually(lambda: service.running._point.waiting == 2)
        assert await service.ask() == (503, "unavailable")
        assert loop.time() - began < 0.5
        assert await asyncio.gather(*held, *queued) == [(503, "unavailable")] * 4
        assert loop.time() - began < 2
        assert 'unknown_total{why="busy"} 1.0' in (await service.probe("/metrics"))[1]
        opa.answer = opa.allow
        assert await service.ask() == (204, "")
        assert service.running._point.waiting == service.running._point.asking == 0


async def never() -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def test_a_proxy_that_goes_away_gives_its_turn_back() -> None:
    async with serving(Limits(questions_at_once=1, decide_seconds=30)) as (service, opa):
        opa.answer = never
        task = asyncio.create_task(service.ask())
        await eventually(lambda: opa.asked)
        task.cancel()
        await eventually(lambda: service.running._point.asking == 0)
        opa.answer = opa.allow
        assert await service.ask() == (204, "")


@pytest.mark.parametrize(
    "sent",
    [
        b"token-of-somebody\r\n\r\n",
        b"GET /auth HTTP/1.1\r\nHost: a\r\ntoken-of-somebody\r\n\r\n",
        b"GET /auth HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /auth" + b"x" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /auth HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_and_closed(sent: bytes) -> None:
    async with serving() as (service, opa):
        answer = await exchange(service, sent)
        assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        assert b"somebody" not in answer
        assert not opa.asked


async def test_a_slow_head_and_too_many_connections_are_cut() -> None:
    async with serving(Limits(head_seconds=0.2, connections=2)) as (service, _):
        assert await exchange(service, b"GET /auth HTTP/1.1\r\nHost: a\r\nX: ") == b""
        open_ones = [await asyncio.open_connection(LOOPBACK, service.running.port) for _ in range(2)]
        assert await exchange(service, b"GET /auth HTTP/1.1\r\n") == b""
        for _, writer in open_ones:
            writer.close()
        text = (await service.probe("/metrics"))[1]
        assert 'cut_total{reason="too_many_connections"} 1.0' in text
        assert 'cut_total{reason="slow_head"}' in text


async def test_a_head_is_bounded_as_a_whole() -> None:
    async with serving() as (service, opa):
        head = b"GET /auth HTTP/1.1\r\nHost: a\r\n" + b"".join(
            b"X-%d: " % n + b"x" * 30_000 + b"\r\n" for n in range(6)
        )
        assert await exchange(service, head + b"\r\n") == b""
        assert not opa.asked
        assert 'cut_total{reason="large_head"} 1.0' in (await service.probe("/metrics"))[1]
        for _ in range(10):  # on one connection: the bound is for each request
            assert await service.ask(headers={**SAID, "Cookie": "x" * 30_000}) == (204, "")
        assert 'cut_total{reason="large_head"} 1.0' in (await service.probe("/metrics"))[1]


async def test_headers_that_change_how_http_is_spoken_change_nothing() -> None:
    async with serving() as (service, opa):
        for name, value in (
            ("Expect", "100-continue"),
            ("Connection", "X-Client-Cert, X-Original-URI"),
            ("If-None-Match", "*"),
            ("Range", "bytes=0-1"),
            ("X-HTTP-Method-Override", "DELETE"),
        ):
            assert await service.ask(headers={**SAID, name: value}) == (204, ""), name
        assert all(one["input"] == opa.asked[0]["input"] for one in opa.asked)
        assert (await service.ask(headers={**SAID, "Connection": "Upgrade", "Upgrade": "websocket"}))[0] == 204
        assert (await service.ask(headers={**SAID, "Expect": "nonsense"}))[0] == 417


async def test_an_address_in_use_is_an_error() -> None:
    async with serving() as (service, _):
        taken = replace(service.running._options, port=service.running.port)
        with pytest.raises(OSError, match="in use"):
            await ForwardAuth(taken).run(asyncio.Event())


async def test_a_part_that_fails_takes_the_process_along() -> None:
    async with serving() as (service, _):
        other = ForwardAuth(replace(service.running._options, port=0))

        async def broken() -> str:
            raise RuntimeError("broken")

        other._point.health = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="broken"):
            await asyncio.wait_for(other.run(asyncio.Event()), 5)


async def exchange(service: Service, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(LOOPBACK, service.running.port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_nothing_of_a_request_is_logged_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"X-Original-Method": "GET", "X-Original-URI": SECRETS[2], "X-Client-Cert": SECRETS[0]}
    secret["Authorization"] = f"Bearer {SECRETS[1]}"
    async with serving() as (service, opa):
        assert (await service.ask(headers=secret))[0] == 204
        assert (await service.ask(headers=[*secret.items(), ("X-Client-Cert", SECRETS[0])]))[0] == 400
        opa.answer = lambda: soon(web.Response(status=500))
        assert (await service.ask(headers=secret))[0] == 503
        said = caplog.text + (await service.probe("/metrics"))[1]
        assert all(one["input"]["request"]["path"] == SECRETS[2] for one in opa.asked)
    assert not [secret for secret in SECRETS if secret in said]
