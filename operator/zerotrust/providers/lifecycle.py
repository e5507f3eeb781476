"""What a provider's keys go through: fetched, kept, retired, and at last too old. Pure: what happens and when comes in.

The caller fetches when `next_fetch` has come and tells `after` what came of it. Times are aware.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from zerotrust.providers.jwks import Jwk, KeySet, join

SHORTEST, LONGEST = timedelta(seconds=60), timedelta(hours=24)
USUAL = timedelta(minutes=15)  # where the answer does not say how long it is fresh
REPORT_INTERVAL = timedelta(minutes=1)
_FIRST_RETRY, _DOUBLINGS = timedelta(seconds=5), 6


@dataclass(frozen=True)
class Validators:
    """What makes the next request conditional (RFC 9110 §13.1): ETag and Last-Modified as they came, for keys at `uri` only."""

    etag: str = ""
    last_modified: str = ""
    uri: str = ""


@dataclass(frozen=True)
class Fetched:
    """The provider answered with keys; `fresh_for` is None where it did not say (RFC 9111 §5.2.2.1)."""

    keys: KeySet
    fresh_for: timedelta | None = None
    validators: Validators = Validators()


@dataclass(frozen=True)
class Unchanged:
    """The provider answered that nothing changed (304)."""

    fresh_for: timedelta | None = None


@dataclass(frozen=True)
class Failed:
    """There was no usable answer; `message` is for a condition and names no secret."""

    message: str


Outcome = Fetched | Unchanged | Failed


@dataclass(frozen=True)
class Retired:
    """A key that the provider no longer publishes, and until when it is still accepted."""

    key: Jwk
    until: datetime


@dataclass(frozen=True)
class State:
    """A provider's keys and when to look again; `next_fetch` None means at once.

    `confirmed` is when the provider last vouched for `keys`; `failures` counts since then; `asked` is when an unknown kid
    last brought a fetch forward.
    """

    keys: KeySet = field(default_factory=lambda: KeySet({}))
    retired: Mapping[str, Retired] = field(default_factory=dict)
    validators: Validators = Validators()
    confirmed: datetime | None = None
    fresh_for: timedelta = USUAL
    next_fetch: datetime | None = None
    failures: int = 0
    message: str = ""
    asked: datetime | None = None


def after(state: State, now: datetime, outcome: Outcome) -> State:
    """The state after a fetch that ended at `now`. A failure changes no key: the last good ones stay until `not_after`."""
    match outcome:
        case Fetched(keys, fresh_for, validators):
            confirmed = _confirmed(state, now, fresh_for)
            return replace(confirmed, keys=keys, retired=_retired(state, keys, now), validators=validators)
        case Unchanged(fresh_for) if state.confirmed is not None:
            return _confirmed(state, now, fresh_for)
        case Unchanged():
            return _failed(replace(state, validators=Validators()), now, "the answer was 304 to the first request")
        case Failed(message):
            return _failed(state, now, message)


def unknown_kid(state: State, now: datetime) -> State:
    """The state after a decision point saw a token of this provider with a key ID that is not known.

    Anybody can write such a token, so at most one fetch a minute is brought forward, and never one nearer than a minute to
    the last answer.
    """
    if state.asked is not None and now < state.asked + REPORT_INTERVAL:
        return state
    last = max((moment for moment in (state.confirmed, state.asked) if moment is not None), default=None)
    earliest = now if last is None else max(now, last + REPORT_INTERVAL)
    if state.next_fetch is None or state.next_fetch <= earliest or state.failures:
        return state
    return replace(state, asked=now, next_fetch=earliest)


def accepted(state: State, now: datetime) -> KeySet:
    """The keys that tokens are verified with: those published and those retired less than one max-age ago."""
    return join(state.keys, {kid: one.key for kid, one in state.retired.items() if now < one.until})


def changes_at(state: State, now: datetime) -> datetime | None:
    """When `accepted` next becomes smaller by itself; None when it does not."""
    return min((one.until for one in state.retired.values() if now < one.until), default=None)


def not_after(state: State, max_stale: timedelta) -> datetime | None:
    """Until when the keys may be used without news: stale for `max_stale` (RFC 9111 §5.2.1.2); None without any keys."""
    return None if state.confirmed is None else state.confirmed + state.fresh_for + max_stale


def bounded(fresh_for: timedelta | None) -> timedelta:
    """How long an answer counts as fresh: as it says, but at least a minute and at most a day."""
    return USUAL if fresh_for is None else min(max(fresh_for, SHORTEST), LONGEST)


def _confirmed(state: State, now: datetime, fresh_for: timedelta | None) -> State:
    period = bounded(fresh_for)
    live = {kid: one for kid, one in state.retired.items() if now < one.until}
    return replace(
        state, retired=live, confirmed=now, fresh_for=period, next_fetch=now + period, failures=0, message=""
    )


def _retired(state: State, keys: KeySet, now: datetime) -> Mapping[str, Retired]:
    """What was published and no longer is stays for the max-age that others may have cached it for."""
    live = {kid: one for kid, one in state.retired.items() if now < one.until}
    gone = {kid: Retired(key, now + state.fresh_for) for kid, key in state.keys.keys.items()}
    return {kid: one for kid, one in (live | gone).items() if kid not in keys.keys}


def _failed(state: State, now: datetime, message: str) -> State:
    wait = min(_FIRST_RETRY * 2 ** min(state.failures, _DOUBLINGS), SHORTEST * 5)
    return replace(state, failures=state.failures + 1, message=message, next_fetch=now + wait)
