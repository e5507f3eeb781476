"""Scripted misfortune: which request goes wrong, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from .refusals import Refused
from .resources import Object, ResourceType

MUTATING = frozenset({"create", "update", "patch", "delete"})


@dataclass
class Exchange:
    """One request as the server saw it.

    `resource` is the plural name ("" for discovery and health), `code` the HTTP status that the server decided on: 0
    when it never processed the request. A code does not mean that the client ever saw the answer.
    """

    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int = 0
    body: Object | None = None
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_write(self) -> bool:
        return self.verb in MUTATING

    @property
    def was_applied(self) -> bool:
        return self.is_write and 200 <= self.code < 300


@dataclass(frozen=True)
class Respond:
    """Answer with this status instead of processing the request; `retry_after` is in seconds."""

    code: int
    retry_after: int | None = None
    message: str = "injected by the test"

    def refusal(self) -> Refused:
        details: Object = {} if self.retry_after is None else {"retryAfterSeconds": self.retry_after}
        return Refused(self.code, self.message, details=details)


@dataclass(frozen=True)
class Delay:
    """Process the request this many seconds later."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Never process and never answer; the client has to time out."""


@dataclass(frozen=True)
class CloseBefore:
    """Close the connection without processing the request.

    aiohttp's client repeats GET, PUT and DELETE once by itself when a *reused* connection closes; POST and PATCH never.
    """


@dataclass(frozen=True)
class LoseAnswer:
    """Process the request, then close the connection before answering: the lost acknowledgement. See CloseBefore."""


@dataclass(frozen=True)
class Halt:
    """Process the request, answer it never, and nothing to anyone until `resume()`: the client was just killed."""


@dataclass(frozen=True)
class StreamError:
    """Open the watch, then send an ERROR event with this code in the stream and end it."""

    code: int
    message: str = "injected by the test"

    def status(self) -> Object:
        return Refused(self.code, self.message).status


Action = Respond | Delay | Hang | CloseBefore | LoseAnswer | Halt | StreamError


class Rule:
    """One scripted fault. `seen` counts the requests that matched, `fired` those to which the action was done."""

    def __init__(
        self, description: str, matches: Callable[[Exchange], bool], nth: int, times: int | None, action: Action
    ) -> None:
        self.description = description
        self.action = action
        self.seen = 0
        self.fired = 0
        self._matches = matches
        self._nth = nth
        self._times = times
        self._has_fired = asyncio.Event()

    def is_due(self, exchange: Exchange) -> bool:
        """Count a request and say whether it is one that this rule is for."""
        if not self._matches(exchange):
            return False
        self.seen += 1
        return self.seen >= self._nth and (self._times is None or self.fired < self._times)

    def fire(self) -> Action:
        self.fired += 1
        self._has_fired.set()
        return self.action

    async def wait(self, timeout: float = 10.0) -> None:
        """Wait until the action was done at least once."""
        async with asyncio.timeout(timeout):
            await self._has_fired.wait()

    def __repr__(self) -> str:
        return f"{self.description} -> {self.action}: seen {self.seen}, fired {self.fired}"


class Faults:
    """The rules, in the order they were given. Each counts all its matches; one request suffers at most one action."""

    def __init__(self, type_called: Callable[[str], ResourceType]) -> None:
        self._type_called = type_called
        self._rules: list[Rule] = []

    def on(
        self,
        *,
        action: Action,
        verb: str | Collection[str] | None = None,
        resource: str | None = None,
        subresource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        path: str | None = None,
        when: Callable[[Exchange], bool] | None = None,
        nth: int = 1,
        times: int | None = 1,
    ) -> Rule:
        """Do `action` to the nth request that matches everything given, and to the `times` - 1 after it (None: to all).

        Verbs are get, list, watch, create, update, patch, delete. `resource` is a kind, plural or short name.
        `path` is the exact URL path, for what is no resource (/version, /apis). `when` sees the whole request.
        """
        if isinstance(action, StreamError):
            verb = "watch"
        verbs = None if verb is None else {verb} if isinstance(verb, str) else set(verb)
        wanted = {
            "resource": self._type_called(resource).plural if resource else None,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
            "path": path,
        }
        wanted = {attribute: value for attribute, value in wanted.items() if value is not None}

        def matches(exchange: Exchange) -> bool:
            return (
                (verbs is None or exchange.verb in verbs)
                and all(getattr(exchange, attribute) == value for attribute, value in wanted.items())
                and (when is None or when(exchange))
            )

        rule = Rule(f"{sorted(verbs) if verbs else 'any verb'} {wanted or ''}", matches, nth, times, action)
        self._rules.append(rule)
        return rule

    def next_action(self, exchange: Exchange) -> Action | None:
        due = [rule for rule in self._rules if rule.is_due(exchange)]
        return due[0].fire() if due else None

    def clear(self) -> None:
        self._rules.clear()

    def assert_all_used(self) -> None:
        """Fail if any fault never happened: a test whose fault does not happen proves nothing."""
        unused = [rule for rule in self._rules if not rule.fired]
        assert not unused, f"faults that never happened: {unused}"
