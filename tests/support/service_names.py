"""Names of Services on a machine without a cluster's DNS: a proxy (RFC 9110 §9.3.6, CONNECT) that knows where they listen."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

LOOPBACK = "127.0.0.1"


@contextlib.asynccontextmanager
async def named_services(ports: Mapping[str, int]) -> AsyncIterator[str]:
    """Yield the URL of a proxy that connects `<host>:<any port>` to the port on loopback that `ports` has for the host."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            host = request.split()[1].rpartition(":")[0]
            there, away = await asyncio.open_connection(LOOPBACK, ports[host])
        except (OSError, asyncio.IncompleteReadError, KeyError):
            writer.write(b"HTTP/1.1 502 nobody there\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 connected\r\n\r\n")
        await asyncio.gather(_copy(reader, away), _copy(there, writer))

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()
