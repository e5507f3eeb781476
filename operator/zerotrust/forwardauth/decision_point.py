"""The OPA on loopback: asked by so many at once, each for so long, and what it says is read with suspicion."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from zerotrust.common.errors import ZerotrustError
from zerotrust.forwardauth.limits import Limits
from zerotrust.forwardauth.verdict import Unknown, Verdict, read

DECISION = "/v1/data/zerotrust/authz/decision"
HEALTH = "/health?bundles"


class InvalidAddress(ZerotrustError):
    """OPA's address cannot be used."""


def checked(url: str) -> str:
    """Give back `http://<loopback address>:<port>`; InvalidAddress for anything else.

    The question holds the caller's credentials, and the answer opens doors: neither crosses a network without TLS.
    """
    try:
        parts = urlsplit(url)
        loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
        port = parts.port
    except ValueError:
        loopback, port = False, None
    if not loopback or not port or url.rstrip("/") != f"http://{parts.netloc}" or "@" in parts.netloc:
        raise InvalidAddress(f"OPA must be at http://<loopback address>:<port>, as http://127.0.0.1:8181, got {url!r}")
    return url.rstrip("/")


class DecisionPoint:
    """Asks for verdicts. `waiting` and `asking` tell how many questions there are."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._url, self._limits = checked(url), limits
        self._turns = asyncio.Semaphore(limits.questions_at_once)
        self._session: aiohttp.ClientSession | None = None
        self.waiting = self.asking = 0

    async def decide(self, question: Mapping[str, Any]) -> Verdict:
        """OPA's verdict; Unknown when there is none in time."""
        try:
            async with asyncio.timeout(self._limits.decide_seconds), self._turn():
                return await self._ask(question)
        except TimeoutError:
            raise Unknown("timeout") from None

    async def health(self) -> str:
        """Why OPA is not ready to decide; nothing when it is."""
        try:
            async with asyncio.timeout(self._limits.health_seconds):
                async with self._client().get(self._url + HEALTH, allow_redirects=False) as response:
                    return "" if response.status == 200 else "OPA has no active bundle yet"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "OPA does not answer"

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._turns.locked() and self.waiting >= self._limits.questions_waiting:
            raise Unknown("busy")
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.asking += 1
        try:
            yield
        finally:
            self.asking -= 1
            self._turns.release()

    async def _ask(self, question: Mapping[str, Any]) -> Verdict:
        with suppress(aiohttp.ClientError, OSError):
            return await self._post(question)
        # Perhaps an idle connection that OPA has closed, as it does when it restarts; a question may be repeated.
        try:
            return await self._post(question)
        except (aiohttp.ClientError, OSError):
            raise Unknown("unreachable") from None

    async def _post(self, question: Mapping[str, Any]) -> Verdict:
        async with self._client().post(
            self._url + DECISION, json={"input": question}, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise Unknown("malformed_answer")
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > self._limits.answer:
                    raise Unknown("malformed_answer")
        return read(bytes(body))

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self._limits
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=limits.questions_at_once + 1),
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_seconds),
                headers={"Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session
