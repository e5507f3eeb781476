"""A real OPA server on loopback, with a configuration file or with files to load."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from hack.children import Child
from hack.gotools import find_or_build
from zerotrust.opabundle.configuration import to_yaml

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
DECISION = "zerotrust/authz/decision"


class OpaFailed(AssertionError):
    """OPA ended or did not become ready; the message has the end of its log."""


class Opa:
    """One OPA process, which can be stopped and started again on the same port and with the same folder.

    `folder` gets the configuration and the log; `files` are what the command line loads beside it.
    """

    def __init__(
        self, folder: Path, configuration: Mapping[str, Any] | None = None, files: Sequence[Path] = ()
    ) -> None:
        self.folder = folder
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self.log = folder / "opa.log"
        self._configuration = folder / "opa.yaml"
        self._files = files
        self._child: Child | None = None
        self._session: aiohttp.ClientSession | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(configuration or {})

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Write the configuration that the next start reads."""
        self._configuration.write_text(to_yaml(configuration))

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; it listens a moment later (`serving`)."""
        assert self._child is None, "it runs already"
        command: list[str | Path] = [find_or_build("opa"), "run", "--server", "--skip-version-check", "--watch-config"]
        command += ["--addr", self.url.removeprefix("http://"), "--config-file", self._configuration, *self._files]
        self._child = Child("opa", command, self.log, directory=self.folder, environment=environment)

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Ask the process to end and wait for it; a grace of 0 kills it."""
        if self._child is not None:
            self._child.stop(grace)
            self._child = None

    async def close(self) -> None:
        """Stop the process and the client."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        self.stop(grace=0)  # gracefully it would first wait for its connections

    async def serving(self) -> None:
        """Wait until it answers at all."""
        await self._healthy("")

    async def ready(self) -> None:
        """Wait until every bundle is active."""
        await self._healthy("?bundles")

    async def ask(self, given: object, path: str = DECISION) -> Any:
        """What `data.<path>` is for this input; None where it is undefined. Anything but 200 fails."""
        async with self._client().post(f"{self.url}/v1/data/{path}", json={"input": given}) as response:
            body = await response.text()
            assert response.status == 200, body
            return json.loads(body).get("result")

    async def data(self, path: str) -> Any:
        """What `data.<path>` is without any input."""
        async with self._client().get(f"{self.url}/v1/data/{path}") as response:
            body = await response.text()
            assert response.status == 200, body
            return json.loads(body).get("result")

    async def status(self) -> dict[str, Any]:
        """What the status plugin would report (it must be configured)."""
        async with self._client().get(f"{self.url}/v1/status") as response:
            body = await response.text()
            assert response.status == 200, body
            status: dict[str, Any] = json.loads(body)["result"]
            return status

    async def configuration(self) -> dict[str, Any]:
        """The configuration as it understood it."""
        async with self._client().get(f"{self.url}/v1/config") as response:
            body = await response.text()
            assert response.status == 200, body
            known: dict[str, Any] = json.loads(body)["result"]
            return known

    def said(self, text: str) -> bool:
        """Tell whether its log has this text."""
        return text in self.log.read_text(errors="replace")

    async def _healthy(self, query: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._child is None or self._child.exit_code is not None:
                break
            with contextlib.suppress(aiohttp.ClientError):
                async with self._client().get(f"{self.url}/health{query}") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.02)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        raise OpaFailed(f"OPA did not become ready:\n{tail}")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection that outlived a restart would fail the first request after it.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))
        return self._session


@contextlib.asynccontextmanager
async def running_opa(
    folder: Path, configuration: Mapping[str, Any] | None = None, files: Sequence[Path] = ()
) -> AsyncIterator[Opa]:
    """An OPA that answers; whether its bundles are active is another question (`ready`)."""
    opa = Opa(folder, configuration, files)
    try:
        opa.start()
        await opa.serving()
        yield opa
    finally:
        await opa.close()


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port
