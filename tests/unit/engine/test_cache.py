"""The cache: the newest news wins, a deletion is remembered, and indexes say what the objects say."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.examples import examples
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta, meta_of
from zerotrust.engine import cache as module
from zerotrust.engine.cache import Cache, Change


@dataclass(frozen=True)
class Thing:
    """Something observed, with a colour to look it up by."""

    meta: Meta
    colours: tuple[str, ...] = ()


def a_ref(name: str = "one", kind: str = "Thing") -> Ref:
    return Ref(kind, "shop", name)


def a_thing(name: str = "one", version: int | str = 1, *colours: str, kind: str = "Thing") -> Thing:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(version)}
    return Thing(meta_of(kind, {"metadata": metadata}), colours)


class Watched(Cache):
    """A cache that remembers what it told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Change] = []
        self.index("colour", "Thing", lambda thing: thing.colours)
        self.index("paint", "Paint", lambda thing: thing.colours)
        self.listen(self.told.append)

    def colours(self) -> dict[Hashable, set[str]]:
        return {key: {one.meta.name for one in self.find("colour", key)} for key, _ in self.sizes("colour")}


@pytest.fixture
def cache() -> Watched:
    return Watched()


# --- news ---


def test_what_is_new_is_told(cache: Watched) -> None:
    first, second = a_thing(version=1), a_thing(version=2)
    assert cache.put(first) == Change(a_ref(), None, first)
    assert cache.put(second) == Change(a_ref(), first, second)
    assert cache.drop(a_ref()) == Change(a_ref(), second, None)
    assert cache.told == [
        Change(a_ref(), None, first),
        Change(a_ref(), first, second),
        Change(a_ref(), second, None),
    ]


@pytest.mark.parametrize("version", [4, 5])
def test_old_news_are_no_news(cache: Watched, version: int) -> None:
    cache.put(a_thing(version=5))
    assert cache.put(a_thing("one", version, "red")) is None
    assert cache.get(a_ref()) == a_thing(version=5)
    assert len(cache.told) == 1


def test_versions_are_compared_as_numbers(cache: Watched) -> None:
    cache.put(a_thing(version=9))
    assert cache.put(a_thing(version=10)) is not None


def test_who_wrote_it_is_told(cache: Watched) -> None:
    cache.put(a_thing(), by="me")
    cache.drop(a_ref(), by="me")
    assert [change.by for change in cache.told] == ["me", "me"]


def test_kinds_do_not_mix(cache: Watched) -> None:
    cache.put(a_thing(kind="Thing"))
    cache.put(a_thing(kind="Paint"))
    assert (cache.count("Thing"), cache.count("Paint"), cache.count("None")) == (1, 1, 0)
    assert cache.refs("Thing") == [a_ref()]
    assert list(cache.of_kind("Paint")) == [a_thing(kind="Paint")]


# --- deletions ---


def test_late_news_do_not_bring_back_what_is_gone(cache: Watched) -> None:
    cache.put(a_thing(version=5))
    cache.drop(a_ref(), "7")
    for late in (5, 6):
        assert cache.put(a_thing(version=late)) is None
    assert cache.get(a_ref()) is None


def test_what_left_the_selection_of_a_watch_may_come_back_with_the_version_of_its_leaving(cache: Watched) -> None:
    cache.put(a_thing(version=5))
    cache.drop(a_ref(), "7")
    assert cache.put(a_thing(version=7)) is not None
    assert cache.put(a_thing(version=6)) is None


def test_a_deletion_is_remembered_even_of_what_was_never_seen(cache: Watched) -> None:
    assert cache.drop(a_ref(), "7") is None
    assert cache.put(a_thing(version=6)) is None
    assert cache.told == []


def test_what_was_created_again_is_new(cache: Watched) -> None:
    cache.put(a_thing(version=5))
    cache.drop(a_ref(), "7")
    again = cache.put(a_thing(version=8))
    assert again == Change(a_ref(), None, a_thing(version=8))


def test_an_old_deletion_does_not_remove_a_successor(cache: Watched) -> None:
    cache.put(a_thing(version=8))
    assert cache.drop(a_ref(), "7") is None
    assert cache.get(a_ref()) == a_thing(version=8)


def test_a_deletion_without_a_version_is_of_what_is_there(cache: Watched) -> None:
    cache.put(a_thing(version=5))
    assert cache.drop(a_ref()) is not None
    assert cache.put(a_thing(version=5)) is None
    assert cache.put(a_thing(version=6)) is not None


def test_a_deletion_of_nothing_is_no_news_and_remembers_nothing(cache: Watched) -> None:
    assert cache.drop(a_ref()) is None
    assert cache.put(a_thing(version=1)) is not None


def test_deletions_are_remembered_to_a_limit_the_latest_first(cache: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOMBSTONES", 3)
    for name in "abcd":
        cache.drop(a_ref(name), "7")
    assert cache.put(a_thing("a", 6)) is not None
    assert [cache.put(a_thing(name, 6)) for name in "bcd"] == [None, None, None]


def test_a_repeated_deletion_is_remembered_as_the_latest(cache: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOMBSTONES", 2)
    for name in "abac":
        cache.drop(a_ref(name), "7")
    assert cache.put(a_thing("a", 6)) is None
    assert cache.put(a_thing("b", 6)) is not None


@pytest.mark.parametrize("version", ["", "abc", "-1", "1.5"])
def test_a_version_that_is_no_number_is_older_than_any_number(cache: Watched, version: str) -> None:
    assert cache.put(a_thing(version=version)) is not None
    assert cache.put(a_thing(version=1)) is not None
    assert cache.put(a_thing(version=version)) is None


# --- indexes ---


def test_an_index_follows_the_objects(cache: Watched) -> None:
    cache.put(a_thing("one", 1, "red", "blue"))
    cache.put(a_thing("two", 1, "red"))
    assert cache.colours() == {"red": {"one", "two"}, "blue": {"one"}}
    cache.put(a_thing("one", 2, "green"))
    assert cache.colours() == {"red": {"two"}, "green": {"one"}}
    cache.drop(a_ref("two"))
    assert cache.colours() == {"green": {"one"}}


def test_an_index_finds_what_is_there_now(cache: Watched) -> None:
    cache.put(a_thing("one", 1, "red"))
    cache.put(a_thing("one", 2, "red"))
    assert cache.find("colour", "red") == [a_thing("one", 2, "red")]
    assert cache.find("colour", "none") == []
    assert (cache.size("colour", "red"), cache.size("colour", "none")) == (1, 0)


def test_an_index_is_of_one_kind(cache: Watched) -> None:
    cache.put(a_thing("one", 1, "red", kind="Paint"))
    assert (cache.size("colour", "red"), cache.size("paint", "red")) == (0, 1)


def test_a_key_given_twice_counts_once(cache: Watched) -> None:
    cache.put(a_thing("one", 1, "red", "red"))
    assert cache.find("colour", "red") == [a_thing("one", 1, "red", "red")]


def test_a_listener_sees_the_cache_after_the_change() -> None:
    cache, seen = Cache(), list[Any]()
    cache.index("colour", "Thing", lambda thing: thing.colours)
    cache.listen(lambda change: seen.append((cache.get(change.ref), cache.size("colour", "red"))))
    cache.put(a_thing("one", 1, "red"))
    cache.drop(a_ref())
    assert seen == [(a_thing("one", 1, "red"), 1), (None, 0)]


names = st.sampled_from(["one", "two", "three"])
kinds = st.sampled_from(["Thing", "Paint"])
versions = st.integers(1, 12)
colours = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3)


class CacheBehaviour(RuleBasedStateMachine):
    """The cache against the words of its own description, under any order of news."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Watched()
        self.gone: dict[Ref, int] = {}
        self.there: dict[Ref, tuple[int, Thing]] = {}

    @rule(name=names, kind=kinds, version=versions, colours=colours)
    def put(self, name: str, kind: str, version: int, colours: list[str]) -> None:
        ref, thing = a_ref(name, kind), a_thing(name, version, *colours, kind=kind)
        known, old = self.there.get(ref, (0, None))
        is_news = version > known and version >= self.gone.get(ref, 0)
        if is_news:
            self.there[ref] = version, thing
            self.gone.pop(ref, None)
        self._expect(self.cache.put(thing), Change(ref, old, thing) if is_news else None)

    @rule(name=names, kind=kinds, version=versions)
    def drop(self, name: str, kind: str, version: int) -> None:
        ref = a_ref(name, kind)
        known, _ = self.there.get(ref, (0, None))
        self._drop(ref, str(version), version, is_news=version >= known)

    @rule(name=names, kind=kinds)
    def drop_what_is_there(self, name: str, kind: str) -> None:
        ref = a_ref(name, kind)
        known, old = self.there.get(ref, (0, None))
        self._drop(ref, "", known + 1 if old else 0, is_news=True)

    def _drop(self, ref: Ref, version: str, since: int, *, is_news: bool) -> None:
        old = None
        if is_news:
            _, old = self.there.pop(ref, (0, None))
            self.gone[ref] = max(since, self.gone.get(ref, 0))
        self._expect(self.cache.drop(ref, version), Change(ref, old, None) if old is not None else None)

    def _expect(self, told: Change | None, expected: Change | None) -> None:
        assert told == expected
        assert self.cache.told == ([expected] if expected is not None else [])
        self.cache.told.clear()

    @invariant()
    def objects_are_those_of_the_newest_news(self) -> None:
        for kind in ("Thing", "Paint"):
            expected = {ref: thing for ref, (_, thing) in self.there.items() if ref.kind == kind}
            assert set(self.cache.refs(kind)) == set(expected)
            assert self.cache.count(kind) == len(expected)
            assert all(self.cache.get(ref) is thing for ref, thing in expected.items())

    @invariant()
    def indexes_say_what_the_objects_say(self) -> None:
        for index, kind in (("colour", "Thing"), ("paint", "Paint")):
            for colour in ("red", "green", "blue"):
                expected = self._of(kind, colour)
                assert {one.meta.ref for one in self.cache.find(index, colour)} == expected
                assert self.cache.size(index, colour) == len(expected)
            assert dict(self.cache.sizes(index)) == {
                colour: len(found) for colour in ("red", "green", "blue") if (found := self._of(kind, colour))
            }

    def _of(self, kind: str, colour: str) -> set[Ref]:
        return {ref for ref, (_, thing) in self.there.items() if ref.kind == kind and colour in thing.colours}


TestCacheBehaviour = CacheBehaviour.TestCase
TestCacheBehaviour.settings = settings(examples(40), stateful_step_count=30)
