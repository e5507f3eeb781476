"""Every version of our resources that a watch tells, in its order."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from hack.controlplane import ControlPlane

PLURALS = ("trustdomains", "serviceidentities", "trustpolicies", "apikeys")
SETTLING_SECONDS = 20.0  # for so long, an API server may refuse to serve new kinds
Body = dict[str, Any]


class Refused(Exception):
    """What the API server answers to a list or in a watch."""


class Recorder:
    """Watches the four kinds of an API server while its `with` block runs."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._place, self._tls = urlsplit(url), tls
        self._lock, self._seen, self._failures = threading.Lock(), list[Body](), list[str]()
        self._connections = list[http.client.HTTPConnection]()
        self._threads = list[threading.Thread]()
        self._is_over = False

    @classmethod
    def of(cls, plane: ControlPlane) -> Self:
        """A recorder with the administrator's rights."""
        tls = ssl.create_default_context(cafile=plane.authority)
        tls.load_cert_chain(plane.admin_certificate, plane.admin_key)
        return cls(plane.url, tls)

    def __enter__(self) -> Self:
        started = [threading.Event() for _ in PLURALS]
        for plural, event in zip(PLURALS, started, strict=True):
            thread = threading.Thread(target=self._follow, args=(plural, event), daemon=True)
            thread.start()
            self._threads.append(thread)
        for event in started:
            assert event.wait(30), self._failures
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        for connection in self._connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert error is not None or not self._failures, self._failures

    @property
    def all(self) -> list[Body]:
        """Everything that was told so far."""
        with self._lock:
            return list(self._seen)

    def of_object(self, kind: str, name: str, namespace: str = "") -> list[Body]:
        """The versions of the newest object of that name."""
        found = [one for one in self.all if _is(one, kind, name, namespace)]
        return [one for one in found if one["metadata"]["uid"] == found[-1]["metadata"]["uid"]]

    def until_quiet(self, seconds: float = 1.0, longest: float = 30.0) -> None:
        """Wait until nothing was told for some time: what was written has arrived, too."""
        deadline, count, since = time.monotonic() + longest, len(self.all), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < deadline:
            time.sleep(0.05)
            if len(self.all) != count:
                count, since = len(self.all), time.monotonic()

    def _follow(self, plural: str, started: threading.Event) -> None:
        """Watch from the first list on; a stream that ends, as those of new kinds do, is taken up where it ended."""
        version, deadline = "", time.monotonic() + SETTLING_SECONDS
        while not self._is_over:
            try:
                with contextlib.closing(self._connect()) as connection:
                    if not version:
                        answer = json.loads(self._get(connection, plural, "").read())
                        version = answer["metadata"]["resourceVersion"]
                    stream = self._get(connection, plural, f"?watch=true&timeoutSeconds=7200&resourceVersion={version}")
                    started.set()
                    while line := stream.readline():
                        version = self._note(json.loads(line))
            except (OSError, Refused, http.client.HTTPException) as problem:
                if not self._is_over and time.monotonic() > deadline:
                    self._failures.append(f"{plural}: {problem}")
                    return
            time.sleep(0.05)

    def _note(self, event: Body) -> str:
        if event["type"] == "ERROR":
            raise Refused(event["object"])
        if event["type"] in ("ADDED", "MODIFIED"):
            with self._lock:
                self._seen.append(event["object"])
        return str(event["object"]["metadata"]["resourceVersion"])

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._place.hostname or "", self._place.port
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port)
        else:
            connection = http.client.HTTPSConnection(host, port, context=self._tls)
        self._connections.append(connection)
        return connection

    def _get(self, connection: http.client.HTTPConnection, plural: str, query: str) -> http.client.HTTPResponse:
        path = f"/apis/zerotrust.dev/v1alpha1/{plural}{query}"
        connection.request("GET", path, headers={"Accept": "application/json", "Authorization": "Bearer none"})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise Refused(f"{answer.status}: {answer.read()[:500]!r}")
        return answer


def _is(body: Body, kind: str, name: str, namespace: str) -> bool:
    metadata = body["metadata"]
    return (body["kind"], metadata["name"], metadata.get("namespace", "")) == (kind, name, namespace)
