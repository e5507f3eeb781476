"""The fake API server keeps its own promises; whether the real one makes the same ones is in test_same_behaviour.py."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
import kopf
import pytest
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api
from kubernetes.aio.config import load_kube_config

from tests.support.fakeapi import (
    MUTATING,
    NETWORK_POLICIES,
    Action,
    CloseBefore,
    Delay,
    FakeApi,
    Halt,
    Hang,
    LoseAnswer,
    Refused,
    ResourceType,
    Respond,
)
from tests.support.fakeapi.raw import RawClient
from tests.support.fakeapi.store import Store

SECRETS = "/api/v1/namespaces/shop/secrets"
IDENTITIES = "/apis/zerotrust.dev/v1alpha1/namespaces/shop/serviceidentities"
TRUST_DOMAINS = "/apis/zerotrust.dev/v1alpha1/trustdomains"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

Lose = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


def a_secret(name: str = "one", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "data": {"key": "dmFsdWU="},
    }


def an_identity(name: str = "orders", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": "ServiceIdentity",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"serviceAccountName": "orders"},
    }


def owned_by(*owners: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "apiVersion": it["apiVersion"],
            "kind": it["kind"],
            "name": it["metadata"]["name"],
            "uid": it["metadata"]["uid"],
        }
        for it in owners
    ]


@pytest.fixture
async def server() -> AsyncIterator[FakeApi]:
    async with FakeApi(namespaces=["shop", "web"]) as running:
        yield running


@pytest.fixture
async def api(server: FakeApi) -> AsyncIterator[RawClient]:
    async with RawClient(server.url) as client:
        yield client


class TestCreate:
    async def test_fills_in_what_the_server_owns(self, api: RawClient) -> None:
        created = await api.post(IDENTITIES, an_identity() | {"status": {"dropped": True}})
        metadata = created.body["metadata"]
        assert created.code == 201
        assert metadata["uid"]
        assert int(metadata["resourceVersion"]) > 0
        assert metadata["generation"] == 1
        assert metadata["creationTimestamp"].endswith("Z")
        assert "status" not in created.body

    async def test_secrets_have_no_generation(self, api: RawClient) -> None:
        assert "generation" not in (await api.post(SECRETS, a_secret())).body["metadata"]

    async def test_a_duplicate_is_a_conflict_called_already_exists(self, api: RawClient) -> None:
        await api.post(SECRETS, a_secret())
        again = await api.post(SECRETS, a_secret())
        assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
        assert again.body["details"] == {"name": "one", "kind": "secrets"}

    async def test_generates_a_name(self, server: FakeApi, api: RawClient) -> None:
        body = a_secret()
        body["metadata"] = {"generateName": "key-"}
        name = (await api.post(SECRETS, body)).body["metadata"]["name"]
        assert name.startswith("key-")
        assert len(name) == len("key-") + 5
        assert server.writes[-1].name == name

    async def test_needs_the_namespace(self, api: RawClient) -> None:
        answer = await api.post("/api/v1/namespaces/nowhere/secrets", a_secret(namespace="nowhere"))
        assert (answer.code, answer.body["details"]["kind"]) == (404, "namespaces")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (a_secret(name="Upper_case"), "metadata.name"),
            (a_secret(name=""), "metadata.name"),
            (a_secret(labels={"a": "x" * 64}), "metadata.labels"),
            (a_secret(labels={"-bad": "x"}), "metadata.labels"),
            (a_secret(ownerReferences=[{"kind": "Secret"}]), "metadata.ownerReferences[0].apiVersion"),
            (a_secret() | {"type": "kubernetes.io/tls"}, "data[tls.crt]"),
        ],
    )
    async def test_names_the_wrong_field(self, api: RawClient, body: dict[str, Any], field: str) -> None:
        answer = await api.post(SECRETS, body)
        assert (answer.code, answer.body["reason"]) == (422, "Invalid")
        assert answer.body["details"]["causes"][0]["field"] == field

    @pytest.mark.parametrize(
        "body",
        [
            a_secret(namespace="web"),
            a_secret() | {"kind": "ConfigMap"},
            a_secret() | {"data": {"key": "not base64!"}},
            ["not an object"],
        ],
    )
    async def test_refuses_what_does_not_fit_the_url_or_type(self, api: RawClient, body: Any) -> None:
        assert (await api.post(SECRETS, body)).code == 400

    async def test_an_event_needs_what_the_new_events_api_needs(self, api: RawClient) -> None:
        answer = await api.post("/apis/events.k8s.io/v1/namespaces/shop/events", {"metadata": {"name": "e"}})
        fields = {cause["field"] for cause in answer.body["details"]["causes"]}
        assert answer.code == 422
        assert {"eventTime", "reportingController", "action", "reason", "type"} <= fields

    async def test_a_body_over_three_mebibytes_is_refused(self, api: RawClient) -> None:
        answer = await api.post(IDENTITIES, an_identity(annotations={"a": "x" * 3 * 1024 * 1024}))
        assert answer.code == 413


class TestRead:
    async def test_a_missing_object_is_a_status(self, api: RawClient) -> None:
        answer = await api.get(f"{IDENTITIES}/none")
        assert answer.code == 404
        assert answer.body == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'serviceidentities.zerotrust.dev "none" not found',
            "reason": "NotFound",
            "details": {"name": "none", "group": "zerotrust.dev", "kind": "serviceidentities"},
            "code": 404,
        }

    @pytest.mark.parametrize(
        "path",
        [
            "/apis/zerotrust.dev/v2/trustdomains",
            "/apis/zerotrust.dev/v1alpha1/namespaces/shop/trustdomains",
            "/nothing",
        ],
    )
    async def test_what_is_not_served_is_not_even_a_status(self, api: RawClient, path: str) -> None:
        answer = await api.get(path)
        assert (answer.code, answer.body) == (404, "404 page not found\n")

    @pytest.mark.parametrize("path", ["/api/v1/nodes", f"{SECRETS}/x/status", "/api/v1/secrets/x"])
    async def test_but_it_is_in_a_native_group(self, api: RawClient, path: str) -> None:
        answer = await api.get(path)
        assert (answer.code, answer.body["reason"], answer.body["details"]) == (404, "NotFound", {})

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/api/v1/secrets"), ("DELETE", SECRETS), ("POST", f"{SECRETS}/x"), ("PUT", SECRETS)],
    )
    async def test_methods_that_do_not_exist(self, api: RawClient, method: str, path: str) -> None:
        assert (await api.send(method, path, a_secret())).code == 405

    @pytest.mark.parametrize("parameter", ["dryRun", "sendInitialEvents", "shardSelector"])
    async def test_what_is_not_implemented_is_said_to_be(self, api: RawClient, parameter: str) -> None:
        assert (await api.get(SECRETS, **{parameter: "x"})).code == 501

    async def test_only_items_of_custom_resources_say_what_they_are(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret())
        server.create(an_identity())
        [secret] = (await api.get(SECRETS)).body["items"]
        [identity] = (await api.get(IDENTITIES)).body["items"]
        assert "kind" not in secret
        assert identity["kind"] == "ServiceIdentity"

    async def test_lists_across_namespaces_in_order(self, server: FakeApi, api: RawClient) -> None:
        for namespace, name in [("web", "a"), ("shop", "b"), ("shop", "a")]:
            server.create(a_secret(name, namespace=namespace))
        listed = (await api.get("/api/v1/secrets")).body
        assert [(it["metadata"]["namespace"], it["metadata"]["name"]) for it in listed["items"]] == [
            ("shop", "a"),
            ("shop", "b"),
            ("web", "a"),
        ]
        assert listed["metadata"] == {"resourceVersion": str(server.revision)}

    @pytest.mark.parametrize(
        ("selector", "names"),
        [
            ("tier=web", ["a"]),
            ("tier==web", ["a"]),
            ("tier!=web", ["b", "c"]),
            ("tier in (web,db)", ["a", "b"]),
            ("tier notin (web)", ["b", "c"]),
            ("tier", ["a", "b"]),
            ("!tier", ["c"]),
            ("tier,tier!=db", ["a"]),
            ("tier in (web,db),!other", ["a", "b"]),
        ],
    )
    async def test_label_selectors(self, server: FakeApi, api: RawClient, selector: str, names: list[str]) -> None:
        for name, labels in [("a", {"tier": "web"}), ("b", {"tier": "db"}), ("c", {})]:
            server.create(a_secret(name, labels=labels))
        found = (await api.get(SECRETS, labelSelector=selector)).body
        assert [it["metadata"]["name"] for it in found["items"]] == names

    async def test_a_selector_that_makes_no_sense(self, api: RawClient) -> None:
        assert (await api.get(SECRETS, labelSelector="a=b=c")).code == 400
        assert (await api.get(SECRETS, fieldSelector="spec.x=y")).code == 400

    async def test_field_selectors(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret("a"))
        server.create(a_secret("b"))
        server.create(a_secret("a", namespace="web"))
        selector = "metadata.name=a,metadata.namespace!=web"
        [found] = (await api.get("/api/v1/secrets", fieldSelector=selector)).body["items"]
        assert (found["metadata"]["namespace"], found["metadata"]["name"]) == ("shop", "a")

    async def test_metadata_only(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret(labels={"a": "b"}))
        listed = (await api.get(SECRETS, accept=METADATA_LIST)).body
        assert (listed["kind"], listed["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
        assert listed["items"][0].keys() == {"kind", "apiVersion", "metadata"}
        single = (await api.get(f"{SECRETS}/one", accept=METADATA_ONLY)).body
        assert single == listed["items"][0]

    async def test_accepts_what_kubectl_and_the_metadata_client_send(self, api: RawClient) -> None:
        table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        assert (await api.get(SECRETS, accept=table)).body["kind"] == "SecretList"
        protobuf = (
            f"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{METADATA_LIST}"
        )
        assert (await api.get(SECRETS, accept=protobuf)).body["kind"] == "PartialObjectMetadataList"
        assert (await api.get(SECRETS, accept="application/vnd.kubernetes.protobuf")).code == 406


class TestPages:
    async def test_pages_show_the_state_of_the_first(self, server: FakeApi, api: RawClient) -> None:
        for name in "abcde":
            server.create(a_secret(name))
        first = (await api.get(SECRETS, limit="2")).body
        server.delete("Secret", "d", "shop")
        server.create(a_secret("bb"))
        second = (await api.get(SECRETS, limit="2", continue_=first["metadata"]["continue"])).body
        third = (await api.get(SECRETS, limit="2", continue_=second["metadata"]["continue"])).body
        pages = [first, second, third]
        assert ["".join(it["metadata"]["name"] for it in page["items"]) for page in pages] == ["ab", "cd", "e"]
        assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
        assert [page["metadata"].get("remainingItemCount") for page in pages] == [3, 1, None]
        assert "continue" not in third["metadata"]

    async def test_pages_of_a_selection_do_not_count_the_rest(self, server: FakeApi, api: RawClient) -> None:
        for name in "abcd":
            server.create(a_secret(name, labels={"even": str(name in "bd")}))
        first = (await api.get(SECRETS, limit="1", labelSelector="even=True")).body
        token = first["metadata"]["continue"]
        second = (await api.get(SECRETS, limit="1", labelSelector="even=True", continue_=token)).body
        assert [it["metadata"]["name"] for page in (first, second) for it in page["items"]] == ["b", "d"]
        assert "remainingItemCount" not in first["metadata"]
        assert "continue" not in second["metadata"]

    async def test_a_token_expires(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret("a"))
        server.create(a_secret("b"))
        token = (await api.get(SECRETS, limit="1")).body["metadata"]["continue"]
        server.compact()
        answer = await api.get(SECRETS, limit="1", continue_=token)
        assert (answer.code, answer.body["reason"]) == (410, "Expired")

    async def test_a_token_that_is_none(self, api: RawClient) -> None:
        assert (await api.get(SECRETS, limit="1", continue_="x")).code == 400


class TestUpdate:
    async def test_put_replaces_and_keeps_what_the_server_owns(self, server: FakeApi, api: RawClient) -> None:
        before = server.create(a_secret(labels={"a": "b"}))
        after = (await api.put(f"{SECRETS}/one", a_secret() | {"data": {"other": ""}})).body
        assert after["data"] == {"other": ""}
        assert "labels" not in after["metadata"]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])

    async def test_put_of_an_old_version_is_a_conflict(self, server: FakeApi, api: RawClient) -> None:
        seen = server.create(a_secret())
        server.patch("Secret", "one", {"data": {"key": "b3RoZXI="}}, "shop")
        answer = await api.put(f"{SECRETS}/one", seen)
        assert (answer.code, answer.body["reason"]) == (409, "Conflict")

    async def test_put_of_a_custom_resource_must_say_what_it_has_seen(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        assert (await api.put(f"{IDENTITIES}/orders", an_identity())).code == 422

    async def test_put_of_another_object_is_refused(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret())
        assert (await api.put(f"{SECRETS}/one", a_secret("two"))).code == 400
        assert (await api.put(f"{SECRETS}/one", a_secret(uid="other"))).code == 409
        assert (await api.put(f"{SECRETS}/none", a_secret("none"))).code == 404

    async def test_patch_merges_and_null_deletes(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret(labels={"a": "1", "b": "2"}))
        changes = {"metadata": {"labels": {"a": None, "c": "3"}}, "data": {"more": "eA=="}}
        patched = (await api.patch(f"{SECRETS}/one", changes)).body
        assert patched["metadata"]["labels"] == {"b": "2", "c": "3"}
        assert patched["data"] == {"key": "dmFsdWU=", "more": "eA=="}

    async def test_patch_with_a_version_is_conditional(self, server: FakeApi, api: RawClient) -> None:
        version = server.create(a_secret())["metadata"]["resourceVersion"]
        changes = {"metadata": {"resourceVersion": version}, "data": {"a": "eA=="}}
        assert (await api.patch(f"{SECRETS}/one", changes)).code == 200
        assert (await api.patch(f"{SECRETS}/one", changes)).code == 409

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "application/json-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ],
    )
    async def test_only_merge_patches_are_taken(self, server: FakeApi, api: RawClient, content_type: str) -> None:
        server.create(a_secret())
        assert (await api.patch(f"{SECRETS}/one", {"data": {}}, content_type)).code == 415

    async def test_what_changes_nothing_is_no_write(self, server: FakeApi, api: RawClient) -> None:
        before = server.create(a_secret(labels={"a": "1"}))
        async with api.watch(SECRETS, resourceVersion=str(server.revision)) as events:
            patched = await api.patch(f"{SECRETS}/one", {"metadata": {"labels": {"a": "1"}}, "data": {"none": None}})
            replaced = await api.put(f"{SECRETS}/one", before)
            assert patched.body == replaced.body == before
            server.patch("Secret", "one", {"data": {"real": "eA=="}}, "shop")
            assert (await events.next())["object"]["data"]["real"] == "eA=="

    async def test_true_is_not_one(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity() | {"spec": {"flag": 1}})
        assert (await api.patch(f"{IDENTITIES}/orders", {"spec": {"flag": True}})).body["spec"] == {"flag": True}

    async def test_status_and_the_rest_are_written_apart(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        both = {"spec": {"issuance": "Paused"}, "status": {"revision": 3}}
        first = (await api.patch(f"{IDENTITIES}/orders/status", both)).body
        assert (first["spec"], first["status"]) == ({"serviceAccountName": "orders"}, {"revision": 3})
        assert first["metadata"]["generation"] == 1
        second = (await api.patch(f"{IDENTITIES}/orders", both | {"status": {"revision": 4}})).body
        assert (second["spec"]["issuance"], second["status"]) == ("Paused", {"revision": 3})
        assert second["metadata"]["generation"] == 2
        only_status = (await api.patch(f"{IDENTITIES}/orders", {"status": {"revision": 9}})).body
        assert only_status["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]

    async def test_a_label_makes_no_generation(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        patched = await api.patch(f"{IDENTITIES}/orders", {"metadata": {"labels": {"a": "b"}, "generation": 9}})
        assert patched.body["metadata"]["generation"] == 1

    async def test_status_writes_are_conditional_too(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        stale = {"metadata": {"resourceVersion": "1"}, "status": {"a": 1}}
        assert (await api.patch(f"{IDENTITIES}/orders/status", stale)).code == 409

    async def test_identity_is_immutable(self, server: FakeApi, api: RawClient) -> None:
        before = server.create(a_secret())
        answer = await api.patch(f"{SECRETS}/one", {"metadata": {"uid": "another"}})
        assert (answer.code, answer.body["details"]["causes"][0]["field"]) == (422, "metadata.uid")
        assert (await api.patch(f"{SECRETS}/one", {"metadata": {"name": "two"}})).code == 400
        ignored = await api.patch(f"{SECRETS}/one", {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}})
        assert ignored.body == before

    async def test_the_type_of_a_secret_is_immutable(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret())
        assert (await api.patch(f"{SECRETS}/one", {"type": "other"})).code == 422

    async def test_a_lease_can_be_created_by_put(self, api: RawClient) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/leader"
        lease = {"metadata": {"name": "leader"}, "spec": {"renewTime": "2026-11-22T10:00:00.000000Z"}}
        created = await api.put(path, lease)
        assert created.code == 201
        assert (await api.put(path, lease)).code == 422
        assert (await api.patch(path, {"spec": {"renewTime": "yesterday"}})).code == 422


class TestDelete:
    async def test_answers_with_a_status(self, server: FakeApi, api: RawClient) -> None:
        uid = server.create(an_identity())["metadata"]["uid"]
        answer = await api.delete(f"{IDENTITIES}/orders")
        assert (answer.code, answer.body["kind"], answer.body["status"]) == (200, "Status", "Success")
        assert answer.body["details"]["uid"] == uid
        assert (await api.get(f"{IDENTITIES}/orders")).code == 404
        assert (await api.delete(f"{IDENTITIES}/orders")).code == 404

    async def test_preconditions(self, server: FakeApi, api: RawClient) -> None:
        metadata = server.create(a_secret())["metadata"]
        for field, wrong in [("uid", "another"), ("resourceVersion", "1")]:
            answer = await api.delete(f"{SECRETS}/one", {"preconditions": {field: wrong}})
            assert (answer.code, answer.body["reason"]) == (409, "Conflict")
        right = {field: metadata[field] for field in ("uid", "resourceVersion")}
        assert (await api.delete(f"{SECRETS}/one", {"preconditions": right})).code == 200

    async def test_finalizers_hold_an_object(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity(finalizers=["zerotrust.dev/x"]))
        async with api.watch(IDENTITIES, resourceVersion=str(server.revision)) as events:
            marked = (await api.delete(f"{IDENTITIES}/orders")).body
            assert marked["metadata"]["deletionTimestamp"]
            assert marked["metadata"]["generation"] == 2
            assert (await api.delete(f"{IDENTITIES}/orders")).body == marked
            more = {"metadata": {"finalizers": ["zerotrust.dev/x", "zerotrust.dev/y"]}}
            assert (await api.patch(f"{IDENTITIES}/orders", more)).code == 422
            assert (await api.patch(f"{IDENTITIES}/orders", {"metadata": {"finalizers": None}})).code == 200
            assert server.get("ServiceIdentity", "orders", "shop") is None
            assert await events.take(2) == [("MODIFIED", "orders"), ("DELETED", "orders")]

    async def test_dependents_go_with_their_last_owner(self, server: FakeApi, api: RawClient) -> None:
        one, two = server.create(an_identity("one")), server.create(an_identity("two"))
        server.create(a_secret("ofone", ownerReferences=owned_by(one)))
        server.create(a_secret("ofboth", ownerReferences=owned_by(one, two)))
        await api.delete(f"{IDENTITIES}/one")
        [left] = server.list("Secret")
        assert (left["metadata"]["name"], left["metadata"]["ownerReferences"]) == ("ofboth", owned_by(two))
        await api.delete(f"{IDENTITIES}/two")
        assert server.list("Secret") == []
        assert server.count_writes() == 2

    async def test_a_dependent_that_comes_too_late_goes_too(self, server: FakeApi, api: RawClient) -> None:
        owner = server.create(an_identity())
        server.delete("ServiceIdentity", "orders", "shop")
        assert (await api.post(SECRETS, a_secret(ownerReferences=owned_by(owner)))).code == 201
        assert server.list("Secret") == []

    async def test_an_owner_in_another_namespace_is_none(self, server: FakeApi) -> None:
        owner = server.create(an_identity(namespace="web"))
        server.create(a_secret(ownerReferences=owned_by(owner)))
        assert server.list("Secret") == []

    @pytest.mark.parametrize(("policy", "left"), [("Orphan", 1), ("Background", 0), ("Foreground", 0)])
    async def test_propagation(self, server: FakeApi, api: RawClient, policy: str, left: int) -> None:
        owner = server.create(an_identity())
        server.create(a_secret(ownerReferences=owned_by(owner)))
        await api.delete(f"{IDENTITIES}/orders", {"propagationPolicy": policy})
        assert len(server.list("Secret")) == left
        assert server.list("ServiceIdentity") == []

    async def test_without_a_garbage_collector_dependents_stay(self) -> None:
        server = FakeApi(namespaces=["shop"], garbage_collection=False)
        owner = server.create(an_identity())
        server.create(a_secret(ownerReferences=owned_by(owner)))
        server.delete("ServiceIdentity", "orders", "shop")
        assert len(server.list("Secret")) == 1
        server.delete("Namespace", "shop")
        assert server.get("Namespace", "shop")["status"] == {"phase": "Terminating"}  # type: ignore[index]

    async def test_a_namespace_ends_after_its_contents(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret())
        server.create(an_identity(finalizers=["zerotrust.dev/x"]))
        await api.delete("/api/v1/namespaces/shop")
        assert server.list("Secret") == []
        assert (await api.post(SECRETS, a_secret("two"))).code == 403
        await api.patch(f"{IDENTITIES}/orders", {"metadata": {"finalizers": []}})
        assert server.get("Namespace", "shop") is None

    async def test_a_definition_takes_its_objects_and_its_url_with_it(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceidentities.zerotrust.dev"
        body = (await api.get(definition)).body
        async with api.watch(IDENTITIES, resourceVersion=str(server.revision)) as events:
            await api.delete(definition)
            assert await events.take(1) == [("DELETED", "orders")]
            with pytest.raises(EOFError):
                await events.next()
        assert (await api.get(IDENTITIES)).code == 404
        for field in ("resourceVersion", "uid", "creationTimestamp"):
            del body["metadata"][field]
        await api.post(definition.rpartition("/")[0], body)
        assert (await api.get(IDENTITIES)).body["items"] == []


class TestWatch:
    async def test_tells_what_happened_since(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret("before"))
        revision = str(server.revision)
        server.create(a_secret("one"))
        server.patch("Secret", "one", {"data": {"key": "eA=="}}, "shop")
        async with api.watch("/api/v1/secrets", resourceVersion=revision) as events:
            assert await events.take(2) == [("ADDED", "one"), ("MODIFIED", "one")]
            server.delete("Secret", "one", "shop")
            deleted = await events.next()
        assert (deleted["type"], deleted["object"]["kind"]) == ("DELETED", "Secret")
        assert deleted["object"]["data"] == {"key": "eA=="}
        assert deleted["object"]["metadata"]["resourceVersion"] == str(server.revision)

    @pytest.mark.parametrize("start", [{}, {"resourceVersion": "0"}])
    async def test_without_a_version_starts_with_what_is_there(
        self, server: FakeApi, api: RawClient, start: dict[str, str]
    ) -> None:
        server.create(a_secret("one"))
        async with api.watch(SECRETS, **start) as events:
            assert await events.take(1) == [("ADDED", "one")]

    async def test_leaving_the_selector_is_a_deletion(self, server: FakeApi, api: RawClient) -> None:
        async with api.watch(SECRETS, labelSelector="ours=yes", resourceVersion=str(server.revision)) as events:
            server.create(a_secret("other"))
            server.create(a_secret("one", labels={"ours": "yes"}))
            server.patch("Secret", "one", {"metadata": {"labels": {"ours": "no"}}}, "shop")
            server.patch("Secret", "one", {"metadata": {"labels": {"ours": "yes"}}}, "shop")
            assert (await events.next())["type"] == "ADDED"
            left = await events.next()
            assert (left["type"], left["object"]["metadata"]["labels"]) == ("DELETED", {"ours": "yes"})
            assert (await events.next())["type"] == "ADDED"

    async def test_only_of_the_namespace_and_name_asked_for(self, server: FakeApi, api: RawClient) -> None:
        selector = {"fieldSelector": "metadata.name=b", "resourceVersion": str(server.revision)}
        async with api.watch(SECRETS, **selector) as events:
            for namespace, name in [("web", "b"), ("shop", "a"), ("shop", "b")]:
                server.create(a_secret(name, namespace=namespace))
            assert (await events.next())["object"]["metadata"]["namespace"] == "shop"

    async def test_ends_at_its_timeout_with_a_bookmark(self, server: FakeApi, api: RawClient) -> None:
        query = {"timeoutSeconds": "1", "allowWatchBookmarks": "true", "resourceVersion": str(server.revision)}
        async with api.watch(SECRETS, **query) as events:
            mark = await events.next()
            assert mark["type"] == "BOOKMARK"
            assert mark["object"] == {
                "kind": "Secret",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(server.revision)},
            }
            with pytest.raises(EOFError, match="ended"):
                await events.next()

    async def test_bookmarks_come_by_themselves_to_who_asked(self) -> None:
        async with FakeApi(bookmark_interval=0.05) as server, RawClient(server.url) as api:
            async with api.watch("/api/v1/secrets", resourceVersion="1", allowWatchBookmarks="1") as events:
                assert (await events.next())["type"] == "BOOKMARK"
            async with api.watch("/api/v1/secrets", resourceVersion="1", timeoutSeconds="1") as events:
                with pytest.raises(EOFError, match="ended"):
                    await events.next()

    async def test_metadata_only(self, server: FakeApi, api: RawClient) -> None:
        server.create(a_secret())
        async with api.watch(SECRETS, accept=METADATA_ONLY) as events:
            assert (await events.next())["object"].keys() == {"kind", "apiVersion", "metadata"}

    async def test_a_compacted_version_is_gone_in_the_stream(self, server: FakeApi, api: RawClient) -> None:
        revision = str(server.revision)
        server.compact()
        async with api.watch(SECRETS, resourceVersion=revision) as events:
            error = await events.next()
            assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
            with pytest.raises(EOFError):
                await events.next()
        listed = (await api.get(SECRETS)).body["metadata"]["resourceVersion"]
        async with api.watch(SECRETS, resourceVersion=listed) as events:
            server.create(a_secret())
            assert await events.take(1) == [("ADDED", "one")]

    async def test_history_is_bounded(self) -> None:
        async with FakeApi(namespaces=["shop"], history_limit=2) as server, RawClient(server.url) as api:
            revisions = [server.create(a_secret(f"s{n}"))["metadata"]["resourceVersion"] for n in range(4)]
            async with api.watch(SECRETS, resourceVersion=revisions[0]) as events:
                assert (await events.next())["type"] == "ERROR"
            async with api.watch(SECRETS, resourceVersion=revisions[1]) as events:
                assert await events.take(2) == [("ADDED", "s2"), ("ADDED", "s3")]


class TestDiscovery:
    async def test_version_and_health(self, api: RawClient) -> None:
        assert (await api.get("/version")).body["gitVersion"] == "v1.37.0"
        assert (await api.get("/readyz")).body == "ok"

    async def test_groups_versions_and_resources(self, api: RawClient) -> None:
        assert (await api.get("/api")).body["versions"] == ["v1"]
        groups = {it["name"]: it["preferredVersion"]["version"] for it in (await api.get("/apis")).body["groups"]}
        assert groups["zerotrust.dev"] == "v1alpha1"
        assert (await api.get("/apis/zerotrust.dev")).body["kind"] == "APIGroup"
        listed = (await api.get("/apis/zerotrust.dev/v1alpha1")).body["resources"]
        assert {(it["name"], it["namespaced"]) for it in listed} == {
            ("trustdomains", False),
            ("trustdomains/status", False),
            ("serviceidentities", True),
            ("serviceidentities/status", True),
            ("trustpolicies", True),
            ("trustpolicies/status", True),
            ("apikeys", True),
            ("apikeys/status", True),
        }
        core = (await api.get("/api/v1")).body["resources"]
        assert {"secrets", "configmaps", "serviceaccounts", "namespaces"} <= {it["name"] for it in core}

    async def test_definitions_of_our_kinds_are_established(self, api: RawClient) -> None:
        listed = (await api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")).body["items"]
        assert [it["metadata"]["name"] for it in listed] == [
            "apikeys.zerotrust.dev",
            "serviceidentities.zerotrust.dev",
            "trustdomains.zerotrust.dev",
            "trustpolicies.zerotrust.dev",
        ]
        for definition in listed:
            conditions = {it["type"]: it["status"] for it in definition["status"]["conditions"]}
            assert conditions["Established"] == "True"

    async def test_more_resources_on_request(self) -> None:
        widgets = ResourceType("example.org", "v2", "widgets", "widget", "Widget", namespaced=False)
        async with FakeApi([NETWORK_POLICIES, widgets]) as server, RawClient(server.url) as api:
            assert (await api.get("/apis/networking.k8s.io/v1/networkpolicies")).code == 200
            created = await api.post("/apis/example.org/v2/widgets", {"apiVersion": "example.org/v2", "kind": "Widget"})
            assert created.code == 422
            assert server.get("CustomResourceDefinition", "widgets.example.org")


class TestDirectly:
    async def test_state_without_http(self, server: FakeApi) -> None:
        server.create(an_identity() | {"status": {"revision": 1}})
        server.patch("svid", "orders", {"status": {"revision": 2}}, "shop", "status")
        found = server.get("ServiceIdentity", "orders", "shop")
        assert found is not None
        assert found["status"] == {"revision": 2}
        found["status"]["revision"] = 3
        assert server.list("serviceidentities")[0]["status"] == {"revision": 2}
        assert server.list("ServiceIdentity", "web") == []
        with pytest.raises(Refused) as refused:
            server.delete("ServiceIdentity", "none", "shop")
        assert refused.value.code == 404
        with pytest.raises(LookupError):
            server.get("Node", "x")
        assert not server.requests

    async def test_requests_are_recorded(self, server: FakeApi, api: RawClient) -> None:
        await api.post(SECRETS, a_secret())
        await api.post(SECRETS, a_secret())
        await api.patch(f"{IDENTITIES}/none/status", {"status": {}})
        await api.get(SECRETS)
        async with api.watch(SECRETS):
            pass
        assert [(it.verb, it.resource, it.subresource, it.namespace, it.name, it.code) for it in server.requests] == [
            ("create", "secrets", "", "shop", "one", 201),
            ("create", "secrets", "", "shop", "one", 409),
            ("patch", "serviceidentities", "status", "shop", "none", 404),
            ("list", "secrets", "", "shop", "", 200),
            ("watch", "secrets", "", "shop", "", 200),
        ]
        assert server.writes == server.requests[:3]
        assert server.writes[0].body == a_secret()
        assert [it.was_applied for it in server.writes] == [True, False, False]
        assert server.count_writes() == 3
        assert server.count_writes(resource="secrets", verb="create", code=201) == 1
        server.reset_counts()
        assert not server.requests
        assert not server.writes

    async def test_the_time_is_the_tests(self) -> None:
        then = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
        async with FakeApi(namespaces=["shop"], clock=lambda: then) as server, RawClient(server.url) as api:
            answer = await api.post(SECRETS, a_secret())
        assert answer.body["metadata"]["creationTimestamp"] == "2031-02-03T04:05:06Z"
        assert parsedate_to_datetime(answer.headers["Date"]) == then

    async def test_kubeconfig_is_good_for_the_official_client(self, server: FakeApi, tmp_path: Path) -> None:
        server.create(a_secret())
        configuration = Configuration()
        await load_kube_config(str(server.kubeconfig(tmp_path / "config")), client_configuration=configuration)  # type: ignore[no-untyped-call]
        async with ApiClient(configuration) as client:
            listed = await CoreV1Api(client).list_namespaced_secret("shop")
        assert [it.metadata.name for it in listed.items if it.metadata] == ["one"]

    async def test_latency(self, server: FakeApi, api: RawClient) -> None:
        server.set_latency(0.1)
        started = time.monotonic()
        await api.get(SECRETS)
        assert time.monotonic() - started >= 0.1

    async def test_is_fast_enough(self, server: FakeApi, api: RawClient) -> None:
        names = itertools.count()

        async def create_some() -> None:
            for _ in range(50):
                await api.post(SECRETS, a_secret(f"s{next(names)}"))

        started = time.process_time()
        await asyncio.gather(*(create_some() for _ in range(20)))
        assert server.count_writes(code=201) == 1000
        # Processor time of both sides, because the machine may be busy with something else.
        assert time.process_time() - started < 3


class TestFaults:
    async def test_a_status_instead_of_an_answer(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", resource="Secret", action=Respond(429, retry_after=7))
        refused = await api.post(SECRETS, a_secret())
        assert (refused.code, refused.headers["Retry-After"]) == (429, "7")
        assert (refused.body["reason"], refused.body["details"]) == ("TooManyRequests", {"retryAfterSeconds": 7})
        assert server.list("Secret") == []
        assert (await api.post(SECRETS, a_secret())).code == 201
        assert [it.code for it in server.writes] == [429, 201]
        server.faults.assert_all_used()

    @pytest.mark.parametrize("code", [403, 409, 500, 503])
    async def test_any_code(self, server: FakeApi, api: RawClient, code: int) -> None:
        server.faults.on(verb={"get", "list"}, action=Respond(code))
        assert (await api.get(SECRETS)).code == code

    async def test_the_nth_and_how_often(self, server: FakeApi, api: RawClient) -> None:
        rule = server.faults.on(verb="get", name="one", nth=2, times=2, action=Respond(500))
        server.create(a_secret())
        assert [(await api.get(f"{SECRETS}/one")).code for _ in range(4)] == [200, 500, 500, 200]
        assert (rule.seen, rule.fired) == (4, 2)

    async def test_forever(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(resource="secrets", times=None, action=Respond(503))
        assert {(await api.get(SECRETS)).code for _ in range(3)} == {503}
        server.faults.clear()
        assert (await api.get(SECRETS)).code == 200

    async def test_what_is_no_resource(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(path="/version", action=Respond(503))
        assert (await api.get("/version")).code == 503

    async def test_subresources_and_conditions(self, server: FakeApi, api: RawClient) -> None:
        server.create(an_identity())
        server.faults.on(
            subresource="status", when=lambda it: (it.body or {}).get("status") == {"a": 1}, action=Respond(409)
        )
        assert (await api.patch(f"{IDENTITIES}/orders", {"status": {"a": 1}})).code == 200
        assert (await api.patch(f"{IDENTITIES}/orders/status", {"status": {"a": 2}})).code == 200
        assert (await api.patch(f"{IDENTITIES}/orders/status", {"status": {"a": 1}})).code == 409

    async def test_delay(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", action=Delay(0.2))
        slow = asyncio.create_task(api.post(SECRETS, a_secret("slow")))
        await server.until(lambda: server.writes)
        assert (await api.post(SECRETS, a_secret("quick"))).code == 201
        assert server.get("Secret", "slow", "shop") is None
        assert (await slow).code == 201

    async def test_hang(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", action=Hang())
        with pytest.raises(TimeoutError):
            await api.send("POST", SECRETS, a_secret(), timeout=0.1)
        assert server.writes[0].code == 0
        assert server.list("Secret") == []

    async def test_close_before_processing(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", action=CloseBefore())
        with pytest.raises(Lose):
            await api.post(SECRETS, a_secret())
        assert server.list("Secret") == []
        assert (await api.post(SECRETS, a_secret())).code == 201

    async def test_the_lost_acknowledgement(self, server: FakeApi, api: RawClient) -> None:
        rule = server.faults.on(verb="create", action=LoseAnswer())
        with pytest.raises(Lose):
            await api.post(SECRETS, a_secret())
        assert rule.fired == 1
        assert server.writes[0].code == 201
        assert (await api.post(SECRETS, a_secret())).code == 409

    async def test_the_end_of_a_client_between_any_two_writes(self, server: FakeApi, api: RawClient) -> None:
        """How a test kills a controller at its nth write."""

        async def controller() -> None:
            for name in "abc":
                await api.post(SECRETS, a_secret(name))

        for nth in (1, 2, 3):
            server.faults.on(verb=MUTATING, nth=nth, action=Halt())
            running = asyncio.create_task(controller())
            await server.wait_halted()
            running.cancel()
            server.resume()
            assert [it["metadata"]["name"] for it in server.list("Secret")] == list("abc"[:nth])
            for name in "abc"[:nth]:
                server.delete("Secret", name, "shop")
            server.faults.assert_all_used()
            server.faults.clear()

    @pytest.mark.parametrize("action", [LoseAnswer(), CloseBefore()])
    async def test_a_watch_that_never_opens(self, server: FakeApi, api: RawClient, action: Action) -> None:
        server.faults.on(verb="watch", times=2, action=action)
        with pytest.raises(Lose):
            await api.get(SECRETS, watch="true")
        assert not server.open_watches()

    async def test_halt_lets_nothing_more_through(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", resource="secrets", nth=2, action=Halt())
        server.faults.on(verb="update", action=Delay(0.1))
        server.create(a_secret("zero"))
        await api.post(SECRETS, a_secret("one"))
        async with api.watch(SECRETS, resourceVersion=str(server.revision)) as events:
            replacing = asyncio.create_task(api.put(f"{SECRETS}/zero", a_secret("zero") | {"data": {}}))
            await server.until(lambda: server.count_writes(verb="update"))
            lost = asyncio.create_task(api.post(SECRETS, a_secret("two")))
            await server.wait_halted()
            late = asyncio.create_task(api.post(SECRETS, a_secret("three")))
            await server.until(lambda: server.count_writes(verb="create") == 3)
            server.create(a_secret("direct"))
            await asyncio.sleep(0.15)
            assert not any(task.done() for task in (replacing, lost, late))
            server.resume()
            for task in (lost, late):
                with pytest.raises(Lose):
                    await task
            with pytest.raises(EOFError):
                await events.next()
        # aiohttp repeats a PUT that lost its connection: that one comes from a client that is alive after the resume.
        await asyncio.gather(replacing, return_exceptions=True)
        assert [it["metadata"]["name"] for it in server.list("Secret")] == ["direct", "one", "two", "zero"]
        assert (await api.post(SECRETS, a_secret("four"))).code == 201

    async def test_what_was_on_its_way_at_a_halt_never_arrives(self, server: FakeApi, api: RawClient) -> None:
        server.faults.on(verb="create", action=Delay(0.2))
        dead = asyncio.create_task(api.post(SECRETS, a_secret()))
        await server.until(lambda: server.writes)
        server.halt()
        server.resume()
        with pytest.raises(Lose):
            await dead
        assert server.list("Secret") == []

    async def test_stopping_while_halted_is_quick(self) -> None:
        async with FakeApi() as server, RawClient(server.url) as api:
            server.halt()
            hanging = asyncio.create_task(api.get("/version"))
            await server.until(lambda: server.requests)
            started = time.monotonic()
            hanging.cancel()
        assert time.monotonic() - started < 2

    async def test_unused_faults_are_told(self, server: FakeApi) -> None:
        server.faults.on(verb="create", resource="secrets", action=Halt())
        with pytest.raises(AssertionError, match=r"create.*secrets.*Halt"):
            server.faults.assert_all_used()

    async def test_a_defect_of_the_fake_cannot_pass_for_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Store, "get", lambda *_: 1 / 0)
        with pytest.RaisesGroup(ZeroDivisionError):
            async with FakeApi() as server, RawClient(server.url) as api:
                assert (await api.get(f"{SECRETS}/one")).code == 500

    async def test_a_fault_for_what_is_not_served_is_a_mistake(self, server: FakeApi) -> None:
        with pytest.raises(LookupError):
            server.faults.on(resource="nodes", action=Hang())


class TestBrokenWatches:
    async def test_cut(self, server: FakeApi, api: RawClient) -> None:
        async with api.watch(SECRETS) as secrets, api.watch(IDENTITIES, resourceVersion="1") as identities:
            assert (server.open_watches(), server.open_watches("secrets")) == (2, 1)
            assert server.cut_watches("secrets") == 1
            with pytest.raises(EOFError, match="broken off"):
                await secrets.next()
            server.create(an_identity())
            assert await identities.take(1) == [("ADDED", "orders")]

    async def test_hold_and_release(self, server: FakeApi, api: RawClient) -> None:
        async with api.watch(SECRETS, resourceVersion=str(server.revision)) as events:
            server.hold_watches("secrets")
            server.create(a_secret("one"))
            async with api.watch(SECRETS) as another:
                for stream in (events, another):
                    with pytest.raises(TimeoutError):
                        await stream.next(timeout=0.1)
                server.release_watches("secrets")
                assert await another.take(1) == [("ADDED", "one")]
            assert await events.take(1) == [("ADDED", "one")]

    async def test_gone_as_a_status(self, server: FakeApi, api: RawClient) -> None:
        server.gone_as_status("secrets")
        assert (await api.get(SECRETS)).code == 200
        answer = await api.get(SECRETS, watch="true")
        assert (answer.code, answer.body["reason"]) == (410, "Expired")
        server.gone_as_status("secrets")
        assert (await api.get(SECRETS, limit="1", continue_="x")).code == 410
        server.faults.assert_all_used()

    @pytest.mark.parametrize("code", [410, 500])
    async def test_errors_in_the_stream(self, server: FakeApi, api: RawClient, code: int) -> None:
        async def error(prepare: Callable[[], None], then: Callable[[], None]) -> int:
            prepare()
            async with api.watch(SECRETS, resourceVersion=str(server.revision)) as events:
                then()
                event = await events.next()
                assert event["type"] == "ERROR"
                with pytest.raises(EOFError):
                    await events.next()
            return int(event["object"]["code"])

        def inject() -> None:
            server.error_in_stream("secrets", code)

        assert await error(lambda: None, inject) == code
        assert await error(inject, lambda: None) == code
        server.faults.assert_all_used()

    async def test_a_bookmark_now(self, server: FakeApi, api: RawClient) -> None:
        async with api.watch(SECRETS, allowWatchBookmarks="true", resourceVersion=str(server.revision)) as events:
            server.create(a_secret())
            server.send_bookmarks("secrets")
            assert (await events.next())["type"] == "ADDED"
            assert (await events.next())["object"]["metadata"]["resourceVersion"] == str(server.revision)


class Kopf:
    """A real kopf operator, which only notes the events that its handlers are given."""

    def __init__(self, *plurals: str) -> None:
        self.seen: list[tuple[str | None, str]] = []
        self._registry = kopf.OperatorRegistry()
        self._settings = kopf.OperatorSettings()
        self._settings.posting.enabled = False
        self._settings.watching.chunk_size = 2
        self._settings.watching.reconnect_backoff = 0.01
        self._settings.networking.error_backoffs = [0.01]
        kopf.on.login(registry=self._registry)(kopf.login_with_kubeconfig)
        for plural in plurals:
            kopf.on.event(plural, registry=self._registry)(self._note)

    async def _note(self, type: str | None, name: str, **_: object) -> None:  # noqa: A002 - kopf passes it by name
        self.seen.append((type, name))

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(
            kopf.operator(
                registry=self._registry,
                settings=self._settings,
                standalone=True,
                clusterwide=True,
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task], timeout=10)
        assert self.task.done()


@asynccontextmanager
async def watched_by_kopf(server: FakeApi, *plurals: str) -> AsyncIterator[Kopf]:
    """A running operator that has already seen the three identities which were there before it.

    Not a fixture: when kopf ends, it cancels every task of the loop that is younger than itself.
    """
    for name in ("one", "two", "three"):
        server.create(an_identity(name))
    async with Kopf(*plurals) as operator:
        await server.until(lambda: len(operator.seen) == 3)
        assert sorted(operator.seen, key=str) == [(None, "one"), (None, "three"), (None, "two")]
        await server.until(lambda: all(map(server.open_watches, plurals)))
        operator.seen.clear()
        yield operator


class TestWithKopf:
    @pytest.fixture(autouse=True)
    def kubeconfig(self, server: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))

    async def test_sees_what_changes_and_writes_nothing(self, server: FakeApi) -> None:
        async with watched_by_kopf(server, "serviceidentities", "secrets") as operator:
            server.create(an_identity("four"))
            server.patch("ServiceIdentity", "four", {"status": {"revision": 1}}, "shop", "status")
            server.delete("ServiceIdentity", "four", "shop")
            server.create(a_secret())
            await server.until(lambda: len(operator.seen) == 4)
            assert [it for it in operator.seen if it[1] == "four"] == [
                ("ADDED", "four"),
                ("MODIFIED", "four"),
                ("DELETED", "four"),
            ]
            assert ("ADDED", "one") in operator.seen
            assert not server.writes

    async def test_resumes_a_watch_that_was_cut(self, server: FakeApi) -> None:
        async with watched_by_kopf(server, "serviceidentities", "secrets") as operator:
            server.hold_watches("serviceidentities")
            server.create(an_identity("while-away"))
            assert server.cut_watches("serviceidentities") == 1
            server.release_watches("serviceidentities")
            server.delete("ServiceIdentity", "one", "shop")
            await server.until(lambda: len(operator.seen) == 2)
            assert sorted(operator.seen, key=str) == [("ADDED", "while-away"), ("DELETED", "one")]

    async def test_lists_again_after_410_and_misses_the_deletion(self, server: FakeApi) -> None:
        """The reason for our own list: kopf never tells of what disappeared while it was not watching."""
        async with watched_by_kopf(server, "serviceidentities", "secrets") as operator:
            server.hold_watches("serviceidentities")
            server.delete("ServiceIdentity", "one", "shop")
            server.compact()
            server.cut_watches("serviceidentities")
            server.release_watches("serviceidentities")
            await server.until(lambda: len(operator.seen) == 2)
            assert sorted(operator.seen, key=str) == [(None, "three"), (None, "two")]
            await server.until(lambda: server.open_watches("serviceidentities"))
            server.create(an_identity("four"))
            await server.until(lambda: ("ADDED", "four") in operator.seen)

    @pytest.mark.parametrize("how", ["status", "stream"])
    async def test_other_errors_end_it(self, server: FakeApi, how: str) -> None:
        # With a second resource, or a stop flag, kopf would take 5 s to end.
        async with watched_by_kopf(server, "serviceidentities") as operator:
            if how == "stream":
                server.error_in_stream("serviceidentities", 500)
            else:
                server.gone_as_status("serviceidentities")
                server.cut_watches("serviceidentities")
            await server.until(operator.task.done)
            assert operator.task.exception() is not None
            server.faults.assert_all_used()

    async def test_survives_a_throttled_request(self, server: FakeApi) -> None:
        async with watched_by_kopf(server, "serviceidentities", "secrets") as operator:
            server.faults.on(verb="watch", resource="secrets", action=Respond(429, retry_after=0))
            server.faults.on(verb="watch", resource="serviceidentities", action=CloseBefore())
            server.cut_watches()
            server.create(a_secret("late"))
            await server.until(lambda: ("ADDED", "late") in operator.seen)
            server.create(an_identity("late"))
            await server.until(lambda: operator.seen.count(("ADDED", "late")) == 2)
            server.faults.assert_all_used()
