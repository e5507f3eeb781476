"""What a hostile or broken client can hold of the server: little, and not for long."""

import asyncio
import contextlib
import gzip
import json
import socket
import zlib
from pathlib import Path

import aiohttp
import pytest

from tests.support.bundleserver import PATH, POLICY, Rig, a_bundle, serving, wait

HELD = {"If-None-Match": str(a_bundle(1).tag("k1")), **wait()}


async def get(session: aiohttp.ClientSession, **headers: str) -> tuple[int, str]:
    async with session.get(PATH, headers=headers) as response:
        await response.read()
        return response.status, response.headers.get("Retry-After", "")


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(5):
            return await reader.read()
    return b""


def head(rig: Rig, path: str = PATH, method: str = "GET", **headers: str) -> bytes:
    lines = {"Host": "x", "Authorization": f"Bearer {rig.token()}", **headers}
    return f"{method} {path} HTTP/1.1\r\n".encode() + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode()


async def test_a_client_holds_only_so_many_polls(tmp_path: Path) -> None:
    async with serving(tmp_path, waiters=6, waiters_per_client=4) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        orders, web, third = [await rig.session(rig.token(name)) for name in ("orders", "web", "third")]
        held = [asyncio.create_task(get(orders, **HELD)) for _ in range(4)]
        await rig.waiting(4)
        assert await get(orders, **HELD) == (503, "5")
        assert await get(orders) == (200, ""), "only holding is bounded"
        held += [asyncio.create_task(get(web, **HELD)) for _ in range(2)]
        await rig.waiting(6)
        assert await get(third, **HELD) == (503, "5")
        held.pop(0).cancel()
        await rig.waiting(5)
        held.append(asyncio.create_task(get(third, **HELD)))
        await rig.waiting(6)
        rig.shelf.publish(POLICY, a_bundle(2))
        assert await asyncio.gather(*held) == [(200, "")] * 6
        assert rig.metric("requests_total", route="bundle", code="503") == 2


async def test_connections_are_bounded_before_the_handshake(tmp_path: Path) -> None:
    async with serving(tmp_path, connections_per_address=3) as rig:
        open_ = [await rig.raw() for _ in range(3)]
        with pytest.raises(OSError):  # noqa: PT011 - reset or ended, as the kernel has it
            await rig.raw()
        open_.pop()[1].close()
        await rig.api.until(lambda: rig.metric("connections") == 2)
        open_.append(await rig.raw())
        for _, writer in open_:
            writer.close()
        assert rig.metric("connections_cut_total", reason="too_many_connections") == 1
        await rig.api.until(lambda: rig.metric("connections") == 0)


async def test_a_silent_tcp_client_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_seconds=0.2) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
        assert await until_closed(reader) == b""
        writer.close()
        await rig.api.until(lambda: rig.metric("connections") == 0)


@pytest.mark.parametrize(
    ("first", "more"), [(b"", b""), (b"GET /", b"x"), (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n")]
)
async def test_a_slow_loris_is_cut(tmp_path: Path, first: bytes, more: bytes) -> None:
    async with serving(tmp_path, header_seconds=0.3) as rig:
        reader, writer = await rig.raw()
        writer.write(first)
        started = asyncio.get_running_loop().time()

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await asyncio.sleep(0.05)
                    writer.write(more)
                    await writer.drain()

        dripping = asyncio.create_task(drip())
        assert await until_closed(reader) == b""
        assert 0.2 < asyncio.get_running_loop().time() - started < 2
        dripping.cancel()
        assert rig.metric("connections_cut_total", reason="slow_head") == 1


async def test_the_second_request_must_not_drip_either(tmp_path: Path) -> None:
    async with serving(tmp_path, header_seconds=0.3) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        reader, writer = await rig.raw()
        writer.write(head(rig) + b"\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)  # idle is no crime
        assert not reader.at_eof()
        writer.write(b"GET / HT")
        await until_closed(reader)
        assert rig.metric("connections_cut_total", reason="slow_head") == 1


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_seconds=0.3) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        reader, writer = await rig.raw()
        writer.write(head(rig) + b"\r\n")
        assert b"200 OK" in await until_closed(reader)
        writer.close()


async def test_a_held_poll_is_not_idle(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_seconds=0.2, header_seconds=0.2) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        session = await rig.session(rig.token())
        held = asyncio.create_task(get(session, **HELD))
        await rig.waiting(1)
        await asyncio.sleep(0.6)
        rig.shelf.publish(POLICY, a_bundle(2))
        assert await held == (200, "")


async def test_a_body_that_drips_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, body_seconds=0.3) as rig:
        reader, writer = await rig.raw()
        writer.write(head(rig, "/status", "POST", **{"Content-Length": "100"}) + b"\r\n{")
        assert b"408" in await until_closed(reader)
        writer.close()
        assert rig.metric("intake_total", kind="status", outcome="slow") == 1


async def test_who_does_not_read_is_cut_and_holds_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path, write_seconds=0.3) as rig:
        rig.shelf.publish(POLICY, a_bundle(1, size=30_000_000))
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", rig.server.port))
        reader, writer = await asyncio.open_connection(sock=plain, ssl=rig.context(), server_hostname="x", limit=1024)
        writer.write(head(rig) + b"\r\n")
        await rig.api.until(lambda: rig.metric("connections_cut_total", reason="slow_reader") == 1)
        await rig.api.until(lambda: rig.metric("connections") == 0)
        assert not rig.sinks.deliveries, "what was not sent was not delivered"
        writer.transport.abort()
        assert reader is not None


async def test_who_asks_on_and_on_without_reading_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, write_seconds=0.5) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", rig.server.port))
        reader, writer = await asyncio.open_connection(sock=plain, ssl=rig.context(), server_hostname="x", limit=1024)
        asked = head(rig) + b"\r\n"

        async def ask() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(asked * 50)
                    await writer.drain()

        asking = asyncio.create_task(ask())
        await rig.api.until(lambda: rig.metric("connections_cut_total", reason="slow_reader") == 1, 30)
        asking.cancel()
        writer.transport.abort()
        assert reader is not None


async def test_a_slow_reader_that_reads_gets_it_all(tmp_path: Path) -> None:
    async with serving(tmp_path, write_seconds=1) as rig:
        rig.shelf.publish(POLICY, a_bundle(1, size=8_000_000))
        session = await rig.session(rig.token())
        async with session.get(PATH) as response:
            received = 0
            async for chunk in response.content.iter_chunked(400_000):
                received += len(chunk)
                await asyncio.sleep(0.06)
        assert received == 8_000_000
        assert len(rig.sinks.deliveries) == 1


async def test_bodies_are_bounded_packed_and_unpacked(tmp_path: Path) -> None:
    async with serving(tmp_path, status_compressed=20_000, status_plain=100_000) as rig:
        session = await rig.session(rig.token())
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(15)) + packer.flush()
        noise = json.dumps({"a": "x" * 30_000}).encode()
        for body, encoding, status in (
            (gzip.compress(b'{"bundles": {}}'), "gzip", 204),
            (b'{"bundles": {}}', "identity", 204),
            (bomb, "gzip", 413),
            (b" " * 20_001, "identity", 413),
            (noise, "identity", 413),
            (gzip.compress(noise), "gzip", 204),
            (gzip.compress(b"[" * 50_000), "gzip", 400),
            (b"{}", "br", 415),
            (b"\x1f\x8b", "gzip", 400),
        ):
            async with session.post("/status", data=body, headers={"Content-Encoding": encoding}) as response:
                assert response.status == status, (body[:20], encoding)
        assert len(rig.sinks.reports) == 3


async def test_a_body_without_a_length_is_bounded_too(tmp_path: Path) -> None:
    async with serving(tmp_path, status_compressed=20_000) as rig:
        session = await rig.session(rig.token())

        async def endless():
            while True:
                yield b" " * 4096

        with contextlib.suppress(aiohttp.ClientError):
            async with session.post("/status", data=endless()) as response:
                assert response.status == 413
        assert rig.metric("intake_total", kind="status", outcome="too_large") == 1


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: sk_secret." + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"GET / HTTP/1.1\r\nAuthorization sk_secret.x\r\n\r\n",
        b"sk_secret.x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["long header", "long line", "many headers", "broken header", "nonsense", "smuggling"],
)
async def test_heads_that_are_too_much_or_no_http(
    tmp_path: Path, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as rig:
        reader, writer = await rig.raw()
        writer.write(request_)
        answer = await until_closed(reader)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer[:80]
        assert b"sk_secret" not in answer
        assert "sk_secret" not in caplog.text
        assert rig.metric("connections_cut_total", reason="no_http") == 1
        writer.close()
