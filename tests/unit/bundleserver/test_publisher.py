"""Replicas publish what is recorded and nothing else, whatever news they have heard, and never let time stretch."""

from datetime import timedelta

import pytest

from tests.support.replicas import KEY, OPERATOR, RECORD, Cluster
from zerotrust.opabundle import archive, record, signing

SCOPE = archive.scope_of(OPERATOR, "shop", "policy")


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    cluster.populate()
    cluster.allow("frontend")
    cluster.record()
    await cluster.publish()
    return cluster


def clients(body: bytes) -> set[str]:
    contents = archive.read(body, {KEY.id: KEY.public}, SCOPE)
    (server,) = contents.document["zerotrust_data"]["policy"]["servers"].values()
    return {name.rpartition("/")[2] for name in server["grants"]}


def recorded(cluster: Cluster) -> record.Entry:
    return record.read(cluster.leader.cache.get(RECORD))["policy"]


async def test_replicas_serve_the_same_bytes_under_the_recorded_order(cluster: Cluster) -> None:
    first, second = (replica.policy() for replica in cluster.replicas)
    assert first is not None
    assert first == second
    assert (first.serial, first.content_hash) == recorded(cluster)
    assert clients(first.body) == {"frontend"}


async def test_what_is_not_recorded_yet_is_not_served(cluster: Cluster) -> None:
    before = cluster.replicas[0].policy()
    cluster.allow("batch")
    await cluster.publish()
    assert [replica.policy() for replica in cluster.replicas] == [before, before]
    assert cluster.replicas[0].held() == "", "it serves what is recorded"
    cluster.later(1)
    cluster.record()
    await cluster.publish()
    after = cluster.replicas[0].policy()
    assert after is not None
    assert before is not None
    assert after.serial > before.serial
    assert clients(after.body) == {"batch"}
    assert cluster.replicas[0].held() == ""


async def test_a_replica_whose_watch_of_policies_is_stuck_holds_what_it_has(cluster: Cluster) -> None:
    stuck, well = cluster.replicas
    before = stuck.policy()
    cluster.allow("batch", stuck)
    cluster.later(1)
    cluster.record()
    await cluster.publish()
    assert stuck.policy() == before
    assert "does not have what is recorded" in stuck.held()
    newest = well.policy()
    assert newest is not None
    assert clients(newest.body) == {"batch"}


async def test_a_replica_that_hears_nothing_cannot_stretch_the_life_of_what_it_serves(cluster: Cluster) -> None:
    stuck, well = cluster.replicas
    before = stuck.policy()
    assert before is not None
    cluster.later(timedelta(hours=23).total_seconds())
    well.confirmed = cluster.clock.now()
    for replica in cluster.replicas:
        replica.publisher.everything_is_due()
    await cluster.publish()
    assert stuck.policy() == before
    assert before.not_after <= cluster.clock.now() + timedelta(hours=1)
    fresh = well.policy()
    assert fresh is not None
    assert fresh.not_after > cluster.clock.now() + timedelta(hours=20)
    assert (fresh.serial, fresh.content_hash) == (before.serial, before.content_hash)
    assert fresh.epoch > before.epoch


async def test_nothing_is_served_before_the_cache_is_confirmed() -> None:
    cluster = Cluster()
    cluster.replicas[0].confirmed = None
    cluster.populate()
    cluster.allow("frontend")
    cluster.record()
    await cluster.publish()
    assert cluster.replicas[0].policy() is None
    assert cluster.replicas[1].policy() is not None


async def test_times_are_whole_steps_of_the_validity() -> None:
    cluster = Cluster()
    cluster.populate(validity="80s")
    cluster.allow("frontend")
    cluster.record()
    seen = set()
    for _ in range(30):
        cluster.later(1)
        for replica in cluster.replicas:
            replica.confirmed = cluster.clock.now()
            replica.publisher.everything_is_due()
        await cluster.publish()
        first, second = (replica.policy() for replica in cluster.replicas)
        assert first == second
        assert first is not None
        assert timedelta(seconds=70) <= first.not_after - cluster.clock.now() <= timedelta(seconds=80)
        seen.add(first.epoch)
    assert len(seen) in (3, 4)


async def test_a_second_key_gets_places_of_its_own_and_a_retired_one_loses_them(cluster: Cluster) -> None:
    replica, other = cluster.replicas[0], signing.create()
    replica.keys[other.id] = other
    replica.publisher.everything_is_due()
    await replica.publish()
    first, second = replica.policy(), replica.policy(other)
    assert first is not None
    assert second is not None
    assert (first.serial, first.content_hash) == (second.serial, second.content_hash)
    assert archive.read(second.body, {other.id: other.public}, SCOPE).key_id == other.id
    del replica.keys[KEY.id]
    await replica.publish()
    assert replica.policy() is None
    assert replica.policy(other) == second


async def test_serials_grow_even_when_the_record_was_lost(cluster: Cluster) -> None:
    before = recorded(cluster)
    for replica in (cluster.leader, *cluster.replicas):
        replica.cache.drop(RECORD)
    await cluster.publish()
    assert cluster.replicas[0].policy() is None
    cluster.later(5)
    cluster.record()
    await cluster.publish()
    assert recorded(cluster).serial > before.serial
    assert cluster.replicas[0].policy() is not None


async def test_a_withdrawal_of_everything_is_published_too(cluster: Cluster) -> None:
    policy = next(iter(cluster.leader.cache.of_kind("TrustPolicy"))).meta.ref
    for replica in (cluster.leader, *cluster.replicas):
        replica.cache.drop(policy)
    cluster.later(1)
    cluster.record()
    await cluster.publish()
    empty = cluster.replicas[0].policy()
    assert empty is not None
    assert clients(empty.body) == set()
    assert cluster.replicas[0].publisher.serial_of("shop", "policy", empty.content_hash) == empty.serial
