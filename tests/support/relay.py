"""A TCP server outside a network namespace, made reachable inside it at the same address."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

from tests.support.netns import Netns

CHUNK = 65_536


@contextlib.contextmanager
def relayed(netns: Netns, host: str, port: int) -> Iterator[None]:
    """Whoever connects to host:port inside is connected to host:port outside."""
    with _Relay((host, port), _Connection, bind_and_activate=False) as relay:
        relay.socket.close()
        relay.socket = netns.call(lambda: socket.create_server((host, port)))
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            relay.shutdown()
            thread.join()


class _Relay(socketserver.ThreadingTCPServer):
    daemon_threads = True
    server_address: tuple[str, int]


class _Connection(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self.server.server_address) as outside:
            threading.Thread(target=_copy, args=(outside, self.request), daemon=True).start()
            _copy(self.request, outside)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
