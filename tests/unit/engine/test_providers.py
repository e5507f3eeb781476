"""Identity providers in the engine: who is due, what is fetched side by side, and what gets into the bundles."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import NOW, OPERATOR_NAMESPACE, a_trust_domain, an_identity, hours, minutes, seconds
from tests.support.clock import FakeClock
from tests.support.replicas import Cluster
from tests.support.tokens import jwk, jwks
from tests.support.waiting import eventually, quiet
from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.plan import Delete
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.keyfetching import AT_ONCE, KeyFetching
from zerotrust.engine.providers import KIND, ProviderMemoryController, Providers, fetched_of
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import NamespaceReport, UnknownKid
from zerotrust.providers import memory
from zerotrust.providers.fetch import Source
from zerotrust.providers.jwks import KeySet
from zerotrust.providers.lifecycle import Failed, Fetched, Outcome, State, Validators, after
from zerotrust.trustdomain.resource import IdentityProvider

TD = Ref("TrustDomain", "", "example.org")
ISSUER = "https://login.example.org"


def provider(name: str = "corp", **changes: Any) -> dict[str, Any]:
    whole = {"name": name, "issuer": f"{ISSUER}/{name}", "algorithms": ["ES256"], **changes}
    return {key: value for key, value in whole.items() if value is not None}


def inline(name: str = "corp") -> dict[str, Any]:
    return provider(name, jwks=jwks(jwk("ES256", "one")))


def at(name: str = "corp") -> Ref:
    return Ref(KIND, "example.org", name)


def keys(*kids: str) -> KeySet:
    return KeySet({kid: {**jwk("ES256", kid), "use": "sig"} for kid in kids})


def remembered(entry: dict[str, Any], *kids: str) -> ConfigMap:
    """The ConfigMap of a provider whose keys have been fetched."""
    spec = IdentityProvider.model_validate(entry)
    place = memory.place(OPERATOR_NAMESPACE, "example.org", spec.name)
    state = after(State(), NOW, Fetched(keys(*kids), hours(1)))
    (apply,) = memory.reconcile_memory(place, "example.org", spec, state, None, NOW).applies
    body = without_nulls(apply.manifest)
    return config_map({**body, "metadata": {**body["metadata"], "uid": "uid", "resourceVersion": "1"}})


class Issuers:
    """Answers as the test says, when it says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now = self.most = 0
        self.open = asyncio.Event()
        self.answers: dict[str, Callable[[], Outcome]] = {}

    async def fetch(self, source: Source, known: Validators) -> Outcome:
        self.asked.append(source.issuer)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
        finally:
            self.now -= 1
        return self.answers.get(source.issuer, lambda: Fetched(keys("one"), minutes(10)))()


class Rig:
    """A cache with everything about providers on it."""

    def __init__(self) -> None:
        self.cache, self.clock, self.issuers = Cache(), FakeClock(), Issuers()
        self.domains = TrustDomains(self.cache, OPERATOR_NAMESPACE)
        self.providers = Providers(self.cache, self.domains)
        self.controller = ProviderMemoryController(self.cache, self.providers)
        self.fetching = KeyFetching(self.cache, self.providers, self.clock, fetcher=self.issuers)
        self._version = 1

    def put(self, one: Any) -> Change:
        self._version += 1
        meta = replace(one.meta, resource_version=str(self._version), generation=self._version)
        change = self.cache.put(replace(one, meta=meta))
        assert change is not None
        return change

    def domain(self, *providers: dict[str, Any], **spec: Any) -> Change:
        return self.put(a_trust_domain(default=True, identityProviders=list(providers), **spec))

    def state(self, name: str = "corp") -> State:
        spec = self.providers.get(at(name))
        assert spec is not None
        return self.providers.state(at(name), spec)

    def touched(self, change: Change) -> set[str]:
        return {touched.ref.name.partition(".")[0] for touched in self.controller.touched_by(change)}


@pytest.fixture
def rig() -> Rig:
    return Rig()


@contextlib.asynccontextmanager
async def leading(rig: Rig) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.fetching.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_providers_that_hang_hold_up_no_more_than_their_share(rig: Rig) -> None:
    rig.put(a_trust_domain("other.example.org", identityProviders=[provider(f"q{n}") for n in range(16)]))
    rig.put(a_trust_domain("third.example.org", identityProviders=[provider(f"r{n}") for n in range(16)]))
    rig.domain(*(provider(f"p{number}") for number in range(16)))
    async with leading(rig):
        await eventually(lambda: rig.issuers.now == AT_ONCE)
        await quiet()
        assert (rig.issuers.most, len(rig.issuers.asked)) == (AT_ONCE, AT_ONCE)
        rig.issuers.open.set()
        await eventually(lambda: len(rig.issuers.asked) == 48 and not rig.fetching.busy)
        assert rig.issuers.most == AT_ONCE


async def test_a_provider_is_asked_once_at_a_time_and_again_when_it_is_time(rig: Rig) -> None:
    rig.domain(provider())
    async with leading(rig):
        await eventually(lambda: rig.issuers.now == 1)
        rig.domain(provider(leeway="30s"))
        rig.clock.advance(hours(1))
        await quiet()
        assert len(rig.issuers.asked) == 1
        rig.issuers.open.set()
        await eventually(lambda: not rig.fetching.busy)
        rig.clock.advance(minutes(10) - seconds(2))
        await quiet()
        assert len(rig.issuers.asked) == 1
        rig.clock.advance(seconds(2))
        await eventually(lambda: len(rig.issuers.asked) == 2)


async def test_an_answer_of_a_source_that_is_no_longer_meant_is_thrown_away(rig: Rig) -> None:
    rig.domain(provider())
    rig.issuers.answers[f"{ISSUER}/corp"] = lambda: Fetched(keys("old"), minutes(10))
    async with leading(rig):
        await eventually(lambda: rig.issuers.now == 1)
        rig.domain(provider(issuer="https://new.example.org"))
        rig.issuers.open.set()
        await eventually(lambda: not rig.fetching.busy and rig.state().confirmed)
    assert rig.issuers.asked == [f"{ISSUER}/corp", "https://new.example.org"]
    assert list(rig.state().keys.keys) == ["one"]


async def test_keys_are_not_taken_for_those_of_another_source(rig: Rig) -> None:
    rig.issuers.open.set()
    rig.domain(provider())
    async with leading(rig):
        await eventually(lambda: rig.state().confirmed)
        rig.issuers.open.clear()
        for moved in (provider(issuer="https://new.example.org"), provider(caBundle="PEM"), provider(jwksURI=ISSUER)):
            domain = rig.domain(moved).new
            assert rig.state() == State()
            assert rig.providers.keys_of(domain)[0].until is None
        rig.domain(provider(leeway="30s"))
        assert rig.state().confirmed


async def test_a_surprise_with_one_provider_does_not_end_the_others(rig: Rig) -> None:
    def surprise() -> Outcome:
        raise RuntimeError("s3cret")

    rig.domain(provider("bad"), provider("good"))
    rig.issuers.answers[f"{ISSUER}/bad"] = surprise
    rig.issuers.open.set()
    async with leading(rig):
        await eventually(lambda: rig.state("good").confirmed and rig.state("bad").failures)
        assert rig.state("bad").message == "internal error RuntimeError"
        rig.clock.advance(minutes(1))
        await eventually(lambda: rig.issuers.asked.count(f"{ISSUER}/bad") == 2)


async def test_failures_are_retried_ever_more_rarely_and_told_after_the_third(rig: Rig) -> None:
    rig.issuers.answers[f"{ISSUER}/corp"] = lambda: Fetched(keys("one"), minutes(10))
    rig.issuers.open.set()
    domain = rig.domain(provider()).new
    async with leading(rig):
        await eventually(lambda: rig.state().confirmed)
        rig.issuers.answers[f"{ISSUER}/corp"] = lambda: Failed("down")
        rig.clock.advance(minutes(10))
        for number, wait in enumerate((5, 10, 20), start=1):
            await eventually(lambda n=number: rig.state().failures == n)
            assert rig.providers.keys_of(domain)[0].problem == ("down" if number == 3 else "")
            rig.clock.advance(seconds(wait - 1))
            await quiet()
            assert rig.state().failures == number
            rig.clock.advance(seconds(1))


async def test_what_was_remembered_is_not_fetched_before_its_time(rig: Rig) -> None:
    rig.put(remembered(provider(), "kept"))
    rig.domain(provider())
    rig.issuers.open.set()
    async with leading(rig):
        await quiet()
        assert rig.issuers.asked == []
        assert list(rig.state().keys.keys) == ["kept"]
        rig.clock.advance(NOW + hours(1) - rig.clock.now())
        await eventually(lambda: list(rig.state().keys.keys) == ["one"])


async def test_a_provider_that_is_gone_is_forgotten(rig: Rig) -> None:
    rig.domain(provider())
    rig.issuers.open.set()
    async with leading(rig):
        await eventually(lambda: rig.cache.get(at()))
        rig.domain(inline())
        assert rig.cache.get(at()) is None
        rig.clock.advance(hours(24))
        await quiet()
        assert len(rig.issuers.asked) == 1


async def test_nothing_is_fetched_without_leading(rig: Rig) -> None:
    rig.domain(provider())
    rig.put(report(rig, UnknownKid("corp", "two", rig.clock.now())))
    await quiet()
    assert rig.issuers.asked == []


def report(rig: Rig, *unknown: UnknownKid, namespace: str = OPERATOR_NAMESPACE) -> ConfigMap:
    body = reports.manifest("zt-reports-one", namespace, {"shop": NamespaceReport(unknown=unknown)})
    return config_map({**body, "metadata": {**body["metadata"], "uid": "uid", "resourceVersion": "1"}})


@pytest.mark.parametrize(
    ("unknown", "fetches"),
    [
        ({}, 2),
        ({"kid": "one"}, 1),
        ({"provider": "other"}, 1),
        ({"at": NOW - hours(1)}, 1),
    ],
    ids=["unknown", "known by now", "no such provider", "from before the keys were fetched"],
)
async def test_an_unknown_key_brings_the_fetch_forward(rig: Rig, unknown: dict[str, Any], fetches: int) -> None:
    rig.put(an_identity())
    rig.domain(provider())
    rig.issuers.open.set()
    async with leading(rig):
        await eventually(lambda: rig.state().confirmed)
        rig.clock.advance(minutes(2))
        seen = UnknownKid("corp", "two", rig.clock.now())._replace(**unknown)
        rig.put(report(rig, seen, namespace="shop"))  # anybody could write that
        await quiet()
        assert len(rig.issuers.asked) == 1
        rig.put(report(rig, seen))
        await eventually(lambda: len(rig.issuers.asked) == fetches)
        await quiet()
        assert len(rig.issuers.asked) == fetches


def test_a_change_makes_its_providers_configmaps_due(rig: Rig) -> None:
    created = rig.domain(provider("a"), provider("b"), inline("c"))
    assert rig.touched(created) == {"a", "b"}
    assert rig.touched(rig.domain(provider("b"))) == {"a", "b"}
    status = replace(created.new, status_json="{}")
    assert rig.touched(Change(TD, created.new, status)) == set()
    assert rig.touched(rig.put(remembered(provider("a"), "one"))) == {"a"}
    foreign = remembered(provider("a"), "one")
    assert rig.touched(rig.put(replace(foreign, meta=replace(foreign.meta, labels={})))) == {"a"}
    assert rig.touched(Change(at("b"), None, None)) == {"b"}


def test_the_configmap_of_a_provider_that_is_gone_is_deleted_but_not_while_nobody_knows(rig: Rig) -> None:
    rig.put(remembered(provider(), "one"))
    place = memory.place(OPERATOR_NAMESPACE, "example.org", "corp")
    rig.domain(provider(), clusterName="NOT VALID")
    assert rig.controller.snapshot(place) is None
    rig.domain(inline())
    snapshot = rig.controller.snapshot(place)
    assert snapshot is not None
    assert rig.controller.reconcile(snapshot, NOW).deletes == (Delete(place, "uid"),)
    rig.cache.drop(TD)
    assert rig.controller.snapshot(place) is not None
    assert list(fetched_of(None)) == []


# --- bundles ---


def published(cluster: Cluster) -> dict[str, Any]:
    document = cluster.leader.contents.content("shop", "policy").document
    found: dict[str, Any] = document["providers"]["example.org"]
    return found


def asking_for_users(*providers: dict[str, Any]) -> Cluster:
    cluster = Cluster(replicas=0)
    cluster.populate()
    cluster.allow("frontend")
    cluster.record()
    spec = {"default": True, "identityProviders": list(providers)}
    cluster.tell(cluster.body("TrustDomain", "example.org", spec=spec))
    return cluster


def tell(cluster: Cluster, observed: ConfigMap) -> None:
    labels, annotations = dict(observed.meta.labels), dict(observed.meta.annotations)
    metadata = {"labels": labels, "annotations": annotations}
    body = cluster.body(
        "ConfigMap", observed.meta.name, observed.meta.namespace, "v1", data=dict(observed.data), metadata=metadata
    )
    cluster.tell(body)


def test_fetched_and_inline_keys_are_in_the_bundle() -> None:
    cluster = asking_for_users(provider("a"), inline("b"), provider("unfetched"))
    assert sorted(published(cluster)) == ["b"]
    tell(cluster, remembered(provider("a"), "one", "two"))
    entries = published(cluster)
    assert sorted(entries) == ["a", "b"]
    assert [key["kid"] for key in json.loads(entries["a"]["jwks"])["keys"]] == ["one", "two"]
    assert NOW.timestamp() < entries["a"]["not_after"] <= (NOW + hours(25)).timestamp()


def test_news_about_failures_alone_makes_no_new_bundle() -> None:
    cluster = asking_for_users(provider("a"))
    told = remembered(provider("a"), "one")
    tell(cluster, told)
    before = cluster.leader.contents.content("shop", "policy").revision
    state = json.loads(told.data[memory.STATE]) | {"message": "down", "failures": 3, "etag": "new"}
    tell(cluster, replace(told, data={**told.data, memory.STATE: json.dumps(state)}))
    assert cluster.leader.contents.content("shop", "policy").revision == before
    tell(cluster, remembered(provider("a"), "two"))
    assert cluster.leader.contents.content("shop", "policy").revision != before


def test_keys_of_the_issuer_before_and_keys_that_cannot_be_used_are_not_in_the_bundle() -> None:
    cluster = asking_for_users(provider("a"), provider("bad", jwks="{}"))
    tell(cluster, remembered(provider("a", issuer="https://before.example.org"), "one"))
    assert published(cluster) == {}
