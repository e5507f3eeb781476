"""The record of a namespace's keys: garbage, shards, coalesced writes, and what is left of deleted ApiKeys."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, days, hours, seconds
from zerotrust.apikey import records
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Key, Memory, decode, encode
from zerotrust.apikey.records import RecordsSnapshot, adoptable, buried, has_room, read, reconcile_records
from zerotrust.common import naming
from zerotrust.common.merge import without_nulls
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.plan import Plan

START = NOW.replace(microsecond=0)


def a_key(number: int = 1, **changes: Any) -> Key:
    key = Key(
        KeyID(f"{number:012d}"),
        Digest(f"sha256:{number:064x}"),
        START,
        START + days(365),
        delivered=START + seconds(5),
    )
    return replace(key, **changes)


def a_memory(name: str = "partner-x", *keys: Key, gone: datetime | None = None) -> Memory:
    return Memory(name, keys or (a_key(),), gone)


def a_shard(data: Mapping[str, str], number: int = 0) -> ConfigMap:
    metadata = {"name": naming.api_keys_name("shop", number), "namespace": "zerotrust-system", "uid": f"shard-{number}"}
    return config_map({"metadata": metadata, "data": dict(data)})


def plan(
    wanted: Mapping[str, Memory],
    *shards: ConfigMap,
    existing: set[str] | None = None,
    adopted: Mapping[str, str] | None = None,
    now: datetime = START,
) -> Plan:
    there = set(wanted) if existing is None else existing
    return reconcile_records(
        RecordsSnapshot("zerotrust-system", "shop", shards, wanted, there, adopted or {}), now
    )  # fmt: skip


def carried_out(made: Plan, *shards: ConfigMap) -> tuple[ConfigMap, ...]:
    """The shards after the plan."""
    after = {shard.meta.name: dict(shard.data) for shard in shards}
    for apply in made.applies:
        data = after.setdefault(apply.manifest["metadata"]["name"], {})
        merged = without_nulls({**data, **apply.manifest["data"]})
        after[apply.manifest["metadata"]["name"]] = merged
    return tuple(a_shard(data, naming.api_keys_shard(name) or 0) for name, data in sorted(after.items()))


# --- one entry ---

moments = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, START.tzinfo))
keys = st.builds(
    lambda number, issued, life, delivered, retires, revoked: a_key(
        number, issued=issued, expires=issued + life, delivered=delivered, retires=retires, revoked=revoked
    ),
    st.integers(0, 10**12 - 1),
    moments,
    st.integers(0, 10**8).map(lambda count: seconds(count)),
    st.none() | moments,
    st.none() | moments,
    st.none() | moments,
)
memories = st.builds(
    Memory,
    st.from_regex(r"[a-z]{1,63}", fullmatch=True),
    st.lists(keys, max_size=5, unique_by=lambda key: key.id).map(tuple),
    st.none() | moments,
)


@given(memories)
def test_what_is_written_is_read(memory: Memory) -> None:
    text = encode(memory)
    assert decode(text) == memory
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


def test_an_entry_is_compact_and_documented() -> None:
    key = a_key(7, retires=START + days(7), revoked=START)
    second = int(START.timestamp())
    assert json.loads(encode(a_memory("partner-x", key, gone=START))) == {
        "name": "partner-x",
        "gone": second,
        "keys": [
            {
                "id": "000000000007",
                "hash": f"sha256:{7:064x}",
                "issued": second,
                "expires": second + 365 * 86400,
                "delivered": second + 5,
                "retires": second + 7 * 86400,
                "revoked": second,
            }
        ],
    }
    assert len(encode(a_memory("partner-x", key))) < 260


def broken(**changes: Any) -> str:
    entry: dict[str, Any] = json.loads(encode(a_memory()))
    entry["keys"][0].update(changes)
    return json.dumps(entry)


GARBAGE = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "deep": "[" * 100_000,
    "no keys": '{"name": "x"}',
    "keys as an object": '{"name": "x", "keys": {}}',
    "a key as text": '{"name": "x", "keys": ["a"]}',
    "no name": '{"keys": []}',
    "an empty name": '{"name": "", "keys": []}',
    "a number as name": '{"name": 1, "keys": []}',
    "a long name": json.dumps({"name": "x" * 254, "keys": []}),
    "too many keys": json.dumps({"name": "x", "keys": [None] * 1000}),
    "bad id": broken(id="0"),
    "plaintext as hash": broken(hash="sk_0123456789aB." + "A" * 51),
    "upper-case hash": broken(hash="sha256:" + "A" * 64),
    "no hash": broken(hash=None),
    "time as text": broken(issued="1"),
    "time as boolean": broken(delivered=True),
    "time as float": broken(retires=1.5),
    "before 1970": broken(issued=-1),
    "after 9999": broken(expires=10**12),
    "infinite": broken(expires=float("inf")),
    "expires before issue": broken(expires=0),
    "twice": json.dumps({"name": "x", "keys": json.loads(encode(a_memory()))["keys"] * 2}),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_counts_as_absent(name: str) -> None:
    shard = a_shard({"uid-1": GARBAGE[name], "uid-2": encode(a_memory("other"))})
    assert read([shard]) == {"uid-2": a_memory("other")}


def test_what_a_later_version_adds_is_no_garbage() -> None:
    assert decode(broken(used=1, note="x")) == a_memory()


# --- writes ---


def test_nothing_to_say_is_nothing_to_write() -> None:
    wanted = {f"uid-{number}": a_memory(f"key-{number}") for number in range(20)}
    (shard,) = carried_out(plan(wanted))
    assert plan(wanted, shard) == Plan()
    assert plan({}, shard, existing=set(wanted)) == Plan()
    assert plan({}) == Plan()


def test_many_changes_are_one_write_of_what_differs() -> None:
    wanted = {f"uid-{number}": a_memory(f"key-{number}") for number in range(20)}
    (shard,) = carried_out(plan(wanted))
    changed = wanted | {f"uid-{number}": a_memory(f"key-{number}", a_key(9)) for number in (3, 4)}
    (apply,) = plan(changed, shard).applies
    assert set(apply.manifest["data"]) == {"uid-3", "uid-4"}
    assert apply.manifest["metadata"] == {
        "name": "shop.api-keys",
        "namespace": "zerotrust-system",
        "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: "api-keys"},
    }


def test_shards_are_filled_to_their_bounds_and_entries_stay() -> None:
    wanted = {f"uid-{number:04d}": a_memory(f"key-{number}") for number in range(1201)}
    shards = carried_out(plan(wanted))
    assert [shard.meta.name for shard in shards] == ["shop.api-keys", "shop.api-keys-1", "shop.api-keys-2"]
    assert [len(shard.data) for shard in shards] == [500, 500, 201]
    assert read(shards) == wanted
    first, gone = "uid-0000", {uid: one for uid, one in wanted.items() if uid != "uid-0001"}
    grown = gone | {first: a_memory("key-0", *(a_key(number) for number in range(30)))}
    after = carried_out(plan(grown, *shards, existing=set(grown), now=START + days(400)), *shards)
    assert [len(shard.data) for shard in after] == [499, 500, 201]
    assert first in after[0].data
    again = carried_out(plan(grown | {"uid-new": a_memory("new")}, *after, existing={*grown, "uid-new"}), *after)
    assert "uid-new" in again[0].data


def test_a_shard_is_not_filled_beyond_its_bytes() -> None:
    large = a_memory("x", *(a_key(number, retires=START, revoked=START) for number in range(32)))
    wanted = {f"uid-{number:04d}": large for number in range(200)}
    shards = carried_out(plan(wanted))
    sizes = [sum(len(text) + 8 for text in shard.data.values()) for shard in shards]
    assert len(shards) == 3
    assert max(sizes) <= records.MAX_BYTES
    assert min(sizes[:-1]) > records.MAX_BYTES - 8000


def test_no_room_where_an_object_could_become_too_large() -> None:
    shard = a_shard({"uid-1": "x" * records.FULL_BYTES, "uid-2": "x"})
    assert not has_room([shard], "uid-1")
    assert has_room([shard], "uid-3")
    assert has_room([a_shard({"uid-1": "x"}), a_shard({"uid-2": "x" * records.FULL_BYTES}, 1)], "uid-1")


def test_an_entry_in_two_shards_is_believed_once_and_revoked_for_both() -> None:
    key = a_key()
    one, other = a_memory("x", key), a_memory("x", replace(key, revoked=START), a_key(2))
    shards = (a_shard({"uid": encode(one)}), a_shard({"uid": encode(other)}, 1))
    assert read(shards) == read(shards[::-1]) == {"uid": a_memory("x", replace(key, revoked=START))}
    after = carried_out(plan(read(shards), *shards), *shards)
    assert [list(shard.data) for shard in after] == [["uid"], []]


# --- deleted ApiKeys ---


def test_a_deleted_key_is_kept_until_it_has_expired() -> None:
    shards: tuple[ConfigMap, ...] = carried_out(plan({"uid": a_memory("x", a_key(), a_key(2, delivered=None))}))
    made = plan({}, *shards, existing=set(), now=START + hours(1))
    shards = carried_out(made, *shards)
    assert read(shards) == {"uid": a_memory("x", gone=START + hours(1))}
    assert adoptable(read(shards), set(), "x") == read(shards)
    assert adoptable(read(shards), set(), "y") == {}
    end = a_key().expires + records.RETENTION
    assert made.requeue_at == end
    assert plan({}, *shards, existing=set(), now=end - seconds(1)).applies == ()
    assert read(carried_out(plan({}, *shards, existing=set(), now=end), *shards)) == {}


def test_who_still_exists_is_not_adoptable() -> None:
    assert adoptable({"uid": a_memory("x")}, {"uid"}, "x") == {}


def test_a_deletion_is_never_before_the_last_issue() -> None:
    assert buried(a_memory(), START - hours(5)).gone == START
    assert buried(a_memory(gone=START), START + hours(5)).gone == START


def test_what_was_never_delivered_needs_no_memory_after_the_deletion() -> None:
    shards = carried_out(plan({"uid": a_memory("x", a_key(delivered=None))}))
    assert read(carried_out(plan({}, *shards, existing=set()), *shards)) == {}


def test_the_oldest_deleted_ones_go_first() -> None:
    gone = {f"uid-{number}": a_memory(gone=START + seconds(number % 1100)) for number in range(1100)}
    shards = tuple(
        a_shard({uid: encode(one) for uid, one in list(gone.items())[start : start + 500]}, number)
        for number, start in enumerate(range(0, 1100, 500))
    )
    left = read(carried_out(plan({}, *shards, existing=set()), *shards))
    assert set(left) == {f"uid-{number}" for number in range(100, 1100)}


def test_garbage_of_nobody_is_removed() -> None:
    shard = a_shard({"uid-1": "garbage", "uid-2": "garbage"})
    (apply,) = plan({}, shard, existing={"uid-1"}).applies
    assert apply.manifest["data"] == {"uid-2": None}


def test_an_adopted_entry_moves_in_one_write() -> None:
    full = a_shard(
        {"old": encode(a_memory(gone=START)), **{f"uid-{number}": encode(a_memory()) for number in range(499)}}
    )
    existing = {f"uid-{number}" for number in range(499)} | {"new"}
    (apply,) = plan({"new": a_memory()}, full, existing=existing, adopted={"new": "old"}).applies
    assert apply.manifest["metadata"]["name"] == "shop.api-keys"
    assert apply.manifest["data"] == {"old": None, "new": encode(a_memory())}


def test_a_namespace_that_is_gone_needs_no_record() -> None:
    shards = (a_shard({}), a_shard({}, 1))
    made = reconcile_records(
        RecordsSnapshot("zerotrust-system", "shop", shards, {}, set(), namespace_exists=False), START
    )
    assert [delete.uid for delete in made.deletes] == ["shard-0", "shard-1"]


@pytest.mark.parametrize(
    ("name", "number"),
    [("shop.api-keys", 0), ("shop.api-keys-1", 1), ("a.api-keys-12", 12), ("shop.api-keys-0", None),
     ("shop.api-keys-01", None), ("shop.api-keys-", None), ("shop.api-keys-x", None), ("shop.api-keysx", None),
     ("shop.bundles", None), ("api-keys", None), ("shop.api-keys-\u0663", None), ("shop.api-keys1", None)],
)  # fmt: skip
def test_names_of_shards(name: str, number: int | None) -> None:
    assert naming.api_keys_shard(name) == number
    if number is not None:
        assert naming.api_keys_name(name.partition(".")[0], number) == name
