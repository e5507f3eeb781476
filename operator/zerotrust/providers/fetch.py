"""Fetches the keys of an identity provider over HTTPS: from one named server, bounded in time and size, and nothing else.

OpenID Connect Discovery 1.0 §4, RFC 9110 §13 (conditional requests), RFC 9111 §4.2 (freshness).
"""

import asyncio
import json
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from zerotrust.common.errors import ZerotrustError
from zerotrust.providers.addresses import (
    ForbiddenAddress,
    GuardedResolver,
    LookUp,
    LookUpFailed,
    Network,
    system_look_up,
)
from zerotrust.providers.jwks import MAX_BYTES, UnusableKeys, parse
from zerotrust.providers.lifecycle import Failed, Fetched, Outcome, Unchanged, Validators
from zerotrust.trustdomain.resource import HTTPS_URL

NOTHING_KNOWN = Validators()
MAX_SECONDS = 10.0
MAX_HEADER_BYTES = 8_190
MAX_URL = 2048
MAX_VALIDATOR = 1024
_DISCOVERY = "/.well-known/openid-configuration"
_MAX_AGE = re.compile(r'(?:^|,)\s*max-age\s*=\s*"?([0-9]{1,10})"?\s*(?=,|$)', re.IGNORECASE)
_NOT_TO_BE_KEPT = re.compile(r"(?:^|,)\s*(?:no-cache|no-store)\s*(?=,|=|$)", re.IGNORECASE)


class FetchFailed(ZerotrustError):
    """There is no usable answer; the message names the server and what is wrong, and quotes nothing that it sent."""


@dataclass(frozen=True)
class Source:
    """Where a provider's keys are: at `jwks_uri`, or where the discovery document of the issuer says when that is None."""

    issuer: str
    jwks_uri: str | None = None
    ca_bundle: str | None = None


@dataclass(frozen=True)
class _Answer:
    """A complete answer; `body` is None for 304."""

    body: bytes | None
    headers: Mapping[str, str]


class KeyFetcher:
    """Fetches keys; `allowed` are address ranges that are fetched from although they are not public.

    Every fetch has its own connections, so that an address is judged each time and a certificate authority counts for the
    provider that names it and no other.
    """

    def __init__(
        self,
        allowed: Collection[Network] = (),
        look_up: LookUp = system_look_up,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self._resolver = GuardedResolver(allowed, look_up)
        self._max_seconds = max_seconds

    async def fetch(self, source: Source, known: Validators = NOTHING_KNOWN) -> Outcome:
        """Fetch the keys, unless they are still those of `known`. Never raises for what a server or a network does."""
        try:
            async with asyncio.timeout(self._max_seconds):
                return await self._fetch(source, known)
        except TimeoutError:
            return Failed(f"{_host(source)} took longer than {self._max_seconds:g} s")
        except (FetchFailed, ForbiddenAddress, LookUpFailed, UnusableKeys) as error:
            return Failed(str(error))

    async def _fetch(self, source: Source, known: Validators) -> Outcome:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            socket_factory=self._resolver.connecting,
            ssl=_context(source.ca_bundle),
            use_dns_cache=False,
            force_close=True,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
        ) as session:
            uri = source.jwks_uri or await self._discover(session, source.issuer)
            answer = await self._get(session, uri, known if known.uri == uri else NOTHING_KNOWN)
        fresh_for = freshness(answer.headers)
        if answer.body is None:
            return Unchanged(fresh_for)
        return Fetched(parse(answer.body), fresh_for, _validators(answer.headers, uri))

    async def _discover(self, session: aiohttp.ClientSession, issuer: str) -> str:
        """The `jwks_uri` of the issuer's discovery document, whose own issuer must be the same to the letter."""
        answer = await self._get(session, issuer.removesuffix("/") + _DISCOVERY)
        try:
            document = json.loads((answer.body or b"").decode("utf-8"))
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise FetchFailed(f"the discovery document of {issuer} is not a JSON object in UTF-8")
        if document.get("issuer") != issuer:
            raise FetchFailed(f"the discovery document of {issuer} is that of another issuer; write its exact `issuer`")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise FetchFailed(f"the discovery document of {issuer} has no jwks_uri")
        return uri

    async def _get(self, session: aiohttp.ClientSession, uri: str, known: Validators = NOTHING_KNOWN) -> _Answer:
        url = _permitted(uri)
        host = url.host
        headers = {"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"}
        if known.etag:
            headers["If-None-Match"] = known.etag
        if known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        try:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status == 304 and (known.etag or known.last_modified):
                    return _Answer(None, response.headers)
                if 300 <= response.status < 400:
                    raise FetchFailed(
                        f"{host} answered with a redirect, which is not followed; write the final address"
                    )
                if response.status != 200:
                    raise FetchFailed(f"{host} answered with status {response.status}")
                return _Answer(await _body(response), response.headers)
        except aiohttp.ClientConnectorCertificateError:
            raise FetchFailed(f"the certificate of {host} is not trusted; write its authority into caBundle") from None
        except aiohttp.ClientConnectorError:
            raise FetchFailed(f"{host} cannot be reached") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise FetchFailed(f"{host} gave no usable answer ({type(error).__name__})") from None


def _permitted(uri: str) -> URL:
    """An https URL without credentials in it, also where a discovery document names it.

    It is given to aiohttp as it was parsed here: two parsers could find two hosts.
    """
    if len(uri) > MAX_URL or not re.fullmatch(HTTPS_URL, uri):
        raise FetchFailed("the keys' address is not an https URL of a host, without a user, a query and a fragment")
    try:
        url = URL(uri)
    except ValueError:
        url = URL()
    if url.scheme != "https" or not url.host or url.user is not None:
        raise FetchFailed("the keys' address is not an https URL of a host, without a user, a query and a fragment")
    return url


def freshness(headers: Mapping[str, str]) -> timedelta | None:
    """How long an answer is fresh by its Cache-Control and Age; zero for no-store and no-cache, None where it is not said."""
    control = headers.get("Cache-Control", "")
    if _NOT_TO_BE_KEPT.search(control):
        return timedelta()
    found = _MAX_AGE.search(control)
    if found is None:
        return None
    age = headers.get("Age", "0")
    passed = int(age) if re.fullmatch(r"[0-9]{1,10}", age) else 0
    return timedelta(seconds=max(0, int(found[1]) - passed))


def _context(ca_bundle: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with host names checked; a provider's own authorities are trusted in place of the system's."""
    try:
        context = ssl.create_default_context(cadata=ca_bundle)
    except (ssl.SSLError, ValueError):
        raise FetchFailed("caBundle holds no PEM certificates that can be read") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _body(response: aiohttp.ClientResponse) -> bytes:
    host = response.url.host
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{host} answered with an encoding that was not asked for")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            raise FetchFailed(f"{host} answered with more than {MAX_BYTES} bytes")
    return bytes(body)


def _validators(headers: Mapping[str, str], uri: str) -> Validators:
    def kept(name: str) -> str:
        value = headers.get(name, "")
        return value if len(value) <= MAX_VALIDATOR and value.isprintable() else ""

    return Validators(kept("ETag"), kept("Last-Modified"), uri)


def _host(source: Source) -> str:
    return urlsplit(source.jwks_uri or source.issuer).hostname or "the identity provider"
