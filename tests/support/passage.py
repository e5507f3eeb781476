"""A TCP server on loopback that passes everything on to another one: later, not at all, or elsewhere, as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

LOOPBACK = "127.0.0.1"
CHUNK = 65_536
CHUNKS = 1_024  # so many are under way on a connection before its sender has to wait


class Passage:
    """Whoever connects to `port` is connected to the port `target`; `late` seconds pass before an answer arrives."""

    def __init__(self, target: int) -> None:
        self.target, self.late = target, 0.0
        self.port = 0
        self._moves = asyncio.Event()
        self._moves.set()
        self._connections: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        """Hold every byte from now on: connections stay open, new ones are accepted, and nobody hears anything."""
        self._moves.clear()

    def release(self) -> None:
        """Pass on what was held, and whatever comes."""
        self._moves.set()

    def turn_to(self, target: int) -> None:
        """Send new connections to another port, and end those that are open."""
        self.target = target
        for connection in self._connections:
            connection.cancel()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["Passage"]:
        """Listen."""
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.turn_to(0)
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            with contextlib.suppress(OSError):
                there, away = await asyncio.open_connection(LOOPBACK, self.target)
                ends.append(away)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, away, answers=False))
                    both.create_task(self._pass(there, writer, answers=True))
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        """Copy until the source ends; only answers are late, each by as much, so that they keep their order."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)
        now = asyncio.get_running_loop().time

        async def arrive() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(0.0, due - now()))
                await self._moves.wait()
                with contextlib.suppress(OSError):
                    if not data:
                        sink.write_eof() if sink.can_write_eof() else sink.close()
                        return
                    sink.write(data)
                    await sink.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(arrive())
            data = b"-"
            while data:
                try:
                    data = await source.read(CHUNK)
                except OSError:
                    data = b""
                await under_way.put((now() + (self.late if answers else 0.0), data))
