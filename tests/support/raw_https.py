"""A client of HTTPS that sends any header any number of times, and shows what came back or that the handshake failed."""

import asyncio
import ssl
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
PATIENCE = 10.0
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """Status and header fields; names are in lower case."""

    status: int
    fields: Fields

    @property
    def reason(self) -> str:
        """Of a denial; a second one is a fault."""
        found = [value for name, value in self.fields if name == "x-zerotrust-reason"]
        assert len(found) < 2, self.fields
        return "".join(found)


class Refused(Exception):
    """The server has ended the connection without an answer."""


async def call(
    port: int, context: ssl.SSLContext, name: str, start: str, fields: Fields = (), body: bytes = b""
) -> Answer:
    """Send a request that begins with `start`, as `GET /a`, to a server of this name; Refused when TLS ends it."""
    lines = [f"{start} HTTP/1.1", f"Host: {name}", "Connection: close", *(f"{key}: {value}" for key, value in fields)]
    if body and ("Transfer-Encoding", "chunked") not in fields:
        lines.append(f"Content-Length: {len(body)}")
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=name)
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        # In TLS 1.3 the client is done before the server has judged its certificate, so the refusal comes here.
        answer = (await asyncio.wait_for(reader.read(), PATIENCE)).decode(errors="replace")
        writer.close()
    except (ssl.SSLError, ConnectionError) as error:
        raise Refused(str(error)) from error
    if not answer:
        raise Refused("nothing came back")
    head = answer.partition("\r\n\r\n")[0].split("\r\n")
    pairs = (line.partition(": ") for line in head[1:])
    return Answer(int(head[0].split()[1]), tuple((key.lower(), value) for key, _, value in pairs))
