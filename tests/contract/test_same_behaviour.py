"""The fake API server against the real one: the same exchanges, the same answers.

Every scenario is sent to both, and everything that was answered is compared, but for what is different each time
(versions, times, uids) and the wording of messages.
"""

import asyncio
import json
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hack.controlplane import ControlPlane
from tests.support.fakeapi import NETWORK_POLICIES, FakeApi, ResourceType, definition_of
from tests.support.fakeapi.raw import Answer, RawClient, WatchReader

pytestmark = pytest.mark.cluster

Body = dict[str, Any]

WIDGETS = ResourceType("fake.zerotrust.dev", "v1", "widgets", "widget", "Widget", True, True, ("wdg",))
GADGETS = ResourceType("fake.zerotrust.dev", "v1", "gadgets", "gadget", "Gadget", True)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JSON_PATCH = "application/json-patch+json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
LATER = "2026-11-22T10:00:00.000000Z"

_VOLATILE = {
    "uid": "<uid>",
    "resourceVersion": "<version>",
    "creationTimestamp": "<time>",
    "deletionTimestamp": "<time>",
    "lastTransitionTime": "<time>",
    "continue": "<token>",
}
# managedFields are not in the fake; messages are for people.
_IGNORED = {"managedFields", "message"}


def comparable(value: Any) -> Any:
    """An answer without what is different each time."""
    if isinstance(value, dict):
        known = {field: content for field, content in sorted(value.items()) if field not in _IGNORED}
        if "causes" in known:
            # Custom resources are validated twice, so each cause appears twice.
            known["causes"] = list({json.dumps(comparable(it)): it for it in known["causes"]}.values())
        return {
            field: _VOLATILE[field] if field in _VOLATILE and content else comparable(content)
            for field, content in known.items()
        }
    return [comparable(item) for item in value] if isinstance(value, list) else value


class Stage:
    """One API server with a namespace of its own, and the record of everything it answered there."""

    def __init__(self, api: RawClient, namespace: str, forget: Callable[[], None] = lambda: None) -> None:
        self.api = api
        self.namespace = namespace
        self.forget = forget
        self.answers: list[Any] = []
        self.secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self.config_maps = f"/api/v1/namespaces/{namespace}/configmaps"
        self.events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        self.widgets = f"/apis/fake.zerotrust.dev/v1/namespaces/{namespace}/widgets"

    def _note(self, what: str, answer: Answer) -> Answer:
        self.answers.append((what, answer.code, comparable(answer.body)))
        return answer

    async def get(self, path: str, *, accept: str = "application/json", **query: str) -> Answer:
        return self._note(f"GET {path} {sorted(query)} {accept}", await self.api.get(path, accept=accept, **query))

    async def post(self, path: str, body: Any) -> Answer:
        return self._note(f"POST {path} {comparable(body)}", await self.api.post(path, body))

    async def put(self, path: str, body: Any) -> Answer:
        return self._note(f"PUT {path} {comparable(body)}", await self.api.put(path, body))

    async def patch(self, path: str, body: Any) -> Answer:
        return self._note(f"PATCH {path} {comparable(body)}", await self.api.patch(path, body))

    async def delete(self, path: str, body: Any = None) -> Answer:
        return self._note(f"DELETE {path} {comparable(body)}", await self.api.delete(path, body))

    def note(self, *facts: Any) -> None:
        self.answers.append(facts)

    async def event(self, events: WatchReader) -> None:
        self.answers.append(comparable(await events.next()))

    async def end(self, events: WatchReader) -> None:
        try:
            self.note("more instead of an end", comparable(await events.next()))
        except EOFError as end:
            self.note(str(end))

    async def eventually(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(100):  # the garbage collector looks for new kinds every 30 s
            while not await condition():  # noqa: ASYNC110 - an API server has no better way to be asked
                await asyncio.sleep(0.1)

    async def version(self, path: str) -> str:
        return str((await self.api.get(path)).body["metadata"]["resourceVersion"])


def secret(name: str | None = "one", data: Body | None = None, **metadata: Any) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**({"name": name} if name is not None else {}), **metadata},
        "data": {"key": "dmFsdWU="} if data is None else data,
    }


def widget(name: str = "one", **metadata: Any) -> Body:
    return {
        "apiVersion": "fake.zerotrust.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name, **metadata},
        "spec": {"size": 1},
    }


def event(**fields: Any) -> Body:
    return {
        "metadata": {"name": "one"},
        "eventTime": LATER,
        "reportingController": "zerotrust.dev/operator",
        "reportingInstance": "pod-1",
        "action": "Issue",
        "reason": "Issued",
        "type": "Normal",
        "note": "a certificate",
        **fields,
    }


def owner(answer: Answer, **fields: Any) -> Body:
    body = answer.body
    identity = {field: body["metadata"][field] for field in ("name", "uid")}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], **identity, **fields}


async def creating_secrets(on: Stage) -> None:
    await on.post(on.secrets, secret())
    await on.post(on.secrets, secret())
    await on.post(on.secrets, secret("text", {}) | {"stringData": {"key": "value"}})
    await on.post(on.secrets, secret("empty", {}, labels={}, annotations={}))
    await on.post(on.secrets, secret("immutable") | {"immutable": True})
    await on.patch(f"{on.secrets}/immutable", {"data": {"key": None}})
    await on.patch(f"{on.secrets}/immutable", {"immutable": None})
    generated = await on.api.post(on.secrets, secret(None, generateName="some-"))
    on.note(generated.code, re.fullmatch(r"some-[a-z0-9]{5}", generated.body["metadata"]["name"]) is not None)


async def creating_what_is_wrong(on: Stage) -> None:
    await on.post("/api/v1/namespaces/does-not-exist/secrets", secret())
    await on.post(on.secrets, secret(None))
    await on.post(on.secrets, secret(""))
    await on.post(on.secrets, secret("Upper_case"))
    await on.post(on.secrets, secret("x" * 254))
    await on.post(on.secrets, secret(namespace="other"))
    await on.post(on.secrets, secret(labels={"key": "x" * 64}))
    await on.post(on.secrets, secret(labels={"-key": "x"}))
    await on.post(on.secrets, secret(labels={"key": 1}))
    await on.post(on.secrets, secret(annotations={"a b": "x"}))
    await on.post(on.secrets, secret(annotations={"a": "x" * 256 * 1024}))
    for missing in ("apiVersion", "kind", "name", "uid"):
        reference = {"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "x"}
        await on.post(on.secrets, secret(ownerReferences=[reference | {missing: ""}]))
    await on.post(on.secrets, secret(resourceVersion="1"))
    await on.post(on.secrets, secret(data={"key": "no base64"}))
    await on.post(on.secrets, secret(data={"a/b": ""}))
    await on.post(on.secrets, secret() | {"type": "kubernetes.io/tls"})
    await on.post(on.secrets, secret() | {"kind": "ConfigMap"})
    await on.post(on.secrets, secret() | {"apiVersion": "v2"})
    await on.post(on.secrets, ["no", "object"])
    await on.post(on.widgets, widget("Upper_case"))
    await on.post(on.widgets, {"metadata": {"name": "typeless"}})
    await on.post(on.widgets, widget(resourceVersion="1"))
    await on.post(on.config_maps, {"metadata": {"name": "number"}, "data": {"key": 1}})


async def creating_without_a_type(on: Stage) -> None:
    await on.post(on.secrets, {"metadata": {"name": "one"}, "data": {"key": None}})


async def creating_custom_resources(on: Stage) -> None:
    await on.post(on.widgets, widget() | {"status": {"dropped": True}})
    await on.post(on.widgets, widget())
    await on.post(
        on.widgets, widget("owned-by-client", uid="mine", generation=7, creationTimestamp="2020-01-01T00:00:00Z")
    )


async def missing_objects(on: Stage) -> None:
    await on.get(f"{on.secrets}/none")
    await on.get(f"{on.widgets}/none")
    await on.put(f"{on.secrets}/none", secret("none"))
    await on.patch(f"{on.secrets}/none", {"data": {}})
    await on.patch(f"{on.widgets}/none/status", {"status": {}})
    await on.delete(f"{on.widgets}/none")
    await on.delete(f"{on.secrets}/none", {"preconditions": {"uid": "x"}})


async def missing_urls_and_methods(on: Stage) -> None:
    await on.get("/apis/fake.zerotrust.dev/v1/nothing")
    await on.get("/apis/fake.zerotrust.dev/v7/widgets")
    await on.get("/api/v1/nothing")
    await on.get(f"{on.secrets}/one/status")
    await on.get(f"{on.secrets}/one/status/more")
    await on.get(f"{on.widgets}/one/nothing")
    await on.get(f"{on.widgets}/one/status/more")
    await on.get("/api/v1/secrets/one")
    await on.get("/apis/fake.zerotrust.dev/v1/widgets/one")
    await on.get(f"/api/v1/namespaces/{on.namespace}/namespaces/one")
    await on.get(f"/api/v1/namespaces/{on.namespace}/nothing")
    await on.get("/apis/nothing.zerotrust.dev/v1/widgets")
    await on.get("/nothing")
    await on.post("/api/v1/secrets", secret())
    await on.post("/apis/fake.zerotrust.dev/v1/widgets", widget())
    await on.put(on.secrets, secret())
    await on.post(f"{on.secrets}/one", secret())


async def discovery(on: Stage) -> None:
    for path, names in (
        ("/api/v1", {"secrets", "configmaps", "serviceaccounts", "namespaces", "namespaces/status"}),
        ("/apis/events.k8s.io/v1", {"events"}),
        ("/apis/coordination.k8s.io/v1", {"leases"}),
        ("/apis/networking.k8s.io/v1", {"networkpolicies"}),
        ("/apis/apiextensions.k8s.io/v1", {"customresourcedefinitions", "customresourcedefinitions/status"}),
        ("/apis/fake.zerotrust.dev/v1", {"widgets", "widgets/status"}),
    ):
        document = (await on.api.get(path)).body
        on.note(document["kind"], document["groupVersion"])
        listed = {entry["name"]: entry for entry in document["resources"]}
        for name in sorted(names):
            entry = listed[name]
            on.note(*(entry.get(field) for field in ("name", "singularName", "namespaced", "kind", "shortNames")))
            on.note(set(entry["verbs"]) - {"deletecollection"})
    groups = (await on.api.get("/apis")).body
    on.note(groups["kind"], [group for group in groups["groups"] if group["name"] == "fake.zerotrust.dev"])
    await on.get("/apis/fake.zerotrust.dev")
    await on.get("/apis/nothing.zerotrust.dev")
    on.note((await on.api.get("/api")).body["versions"])
    for health in ("/healthz", "/livez", "/readyz"):
        await on.get(health)
    version = (await on.api.get("/version")).body
    on.note(version["major"], version["minor"])


async def media_types(on: Stage) -> None:
    await on.post(on.secrets, secret())
    await on.post(on.widgets, widget())
    for path in (on.secrets, on.widgets):
        for content_type in ("text/plain", "application/merge-patch+json"):
            answer = await on.api.send("POST", path, secret(), content_type=content_type)
            on.note("POST", path, content_type, answer.code)
        for content_type in ("application/json", "text/plain"):
            answer = await on.api.patch(f"{path}/one", {}, content_type)
            on.note("PATCH", path, content_type, answer.code)
        for accept in ("text/plain", METADATA_ONLY):
            answer = await on.api.get(path, accept=accept)
            on.note("LIST", path, accept, answer.code)
    on.note(
        (
            await on.api.send("PATCH", f"{on.secrets}/one", ["no object"], content_type="application/merge-patch+json")
        ).code
    )


async def replacing(on: Stage) -> None:
    created = await on.post(on.secrets, secret(labels={"a": "b"}))
    await on.put(f"{on.secrets}/one", secret(data={"other": ""}))
    await on.put(f"{on.secrets}/one", created.body)
    await on.put(f"{on.secrets}/one", secret("two"))
    await on.put(f"{on.secrets}/one", secret(namespace="other"))
    await on.put(f"{on.secrets}/one", secret(uid="somebody-else"))
    await on.put(f"{on.secrets}/one", secret(creationTimestamp="2020-01-01T00:00:00Z"))
    await on.put(f"{on.secrets}/one", secret(generation=9))
    await on.put(f"{on.secrets}/one", secret() | {"type": "other"})
    custom = (await on.post(on.widgets, widget())).body
    await on.put(f"{on.widgets}/one", widget())
    await on.put(f"{on.widgets}/one", custom | {"spec": {"size": 2}})
    await on.put(f"{on.widgets}/one", custom | {"spec": {"size": 3}})
    await on.put(f"{on.widgets}/one/status", custom | {"status": {"size": 3}})


async def merge_patches(on: Stage) -> None:
    path = f"{on.secrets}/one"
    first = await on.post(on.secrets, secret(labels={"a": "1", "b": "2"}, annotations={"c": "3"}))
    version = first.body["metadata"]["resourceVersion"]
    await on.patch(
        path, {"metadata": {"resourceVersion": version, "labels": {"a": None, "d": "4"}}, "data": {"more": ""}}
    )
    await on.patch(path, {"metadata": {"resourceVersion": version}, "data": {"stale": ""}})
    await on.patch(path, {"metadata": {"resourceVersion": "1"}})
    await on.patch(path, {"metadata": {"resourceVersion": None}, "data": {"unconditional": ""}})
    await on.patch(path, {"metadata": {"annotations": None, "labels": {}}, "data": None})
    await on.patch(path, {"metadata": {"labels": None}})
    await on.patch(path, {"metadata": {"uid": "somebody-else"}})
    await on.patch(path, {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}})
    await on.patch(path, {"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}})
    await on.patch(path, {"metadata": {"generation": 9}})
    await on.patch(path, {"metadata": {"name": "two"}})
    await on.patch(path, {"metadata": {"namespace": "other"}})
    await on.patch(path, {"kind": "ConfigMap"})
    await on.patch(path, {"type": "other"})
    await on.patch(path, {"stringData": {"text": "value"}})
    await on.patch(path, {"metadata": {"labels": {"bad": "x y"}}})


async def merge_patches_of_custom_resources(on: Stage) -> None:
    path = f"{on.widgets}/one"
    version = (await on.post(on.widgets, widget(labels={"a": "1"}))).body["metadata"]["resourceVersion"]
    await on.patch(path, {"spec": {"deep": {"a": 1, "b": None, "list": [1, 2]}}})
    await on.patch(path, {"spec": {"deep": {"a": None, "list": [3]}}})
    await on.patch(path, {"spec": {"deep": None, "size": None}})
    await on.patch(path, {"metadata": {"resourceVersion": version}, "spec": {"size": 5}})
    await on.patch(path, {"metadata": {"resourceVersion": None}, "spec": {"size": 6}})
    await on.patch(path, {"metadata": {"labels": {"a": None}}})
    await on.patch(path, {"metadata": {"uid": "somebody-else"}})
    await on.patch(path, {"metadata": {"name": "two"}})
    await on.patch(path, {"metadata": {"namespace": "other"}})
    await on.patch(path, {"kind": "Gadget"})
    await on.patch(path, {"metadata": {"generation": 9}})


async def status_and_generation(on: Stage) -> None:
    path = f"{on.widgets}/one"
    await on.post(on.widgets, widget())
    await on.patch(
        f"{path}/status", {"status": {"ready": True}, "spec": {"ignored": True}, "metadata": {"labels": {"x": "y"}}}
    )
    await on.patch(path, {"status": {"ready": False}, "spec": {"size": 2}})
    await on.patch(path, {"metadata": {"annotations": {"a": "b"}}})
    await on.get(f"{path}/status")
    await on.patch(f"{path}/status", {"metadata": {"resourceVersion": "1"}, "status": {"ready": False}})
    await on.patch(f"{path}/status", {"status": None})
    await on.post(on.policies, {"metadata": {"name": "one"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}})
    await on.patch(f"{on.policies}/one", {"metadata": {"labels": {"a": "b"}}})
    await on.patch(f"{on.policies}/one", {"spec": {"policyTypes": ["Ingress", "Egress"]}})


async def what_changes_nothing(on: Stage) -> None:
    for path, body in ((on.secrets, secret(labels={"a": "1"})), (on.widgets, widget(labels={"a": "1"}))):
        versions = [(await on.api.post(path, body)).body["metadata"]["resourceVersion"]]
        status = {"status": {"x": 1}} if path == on.widgets else {"data": {"none": None}}
        for changes in ({"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": {"no": None}}}, {}, status):
            answer = await on.api.patch(f"{path}/one", changes)
            versions.append(answer.body["metadata"]["resourceVersion"])
        current = (await on.api.get(f"{path}/one")).body
        versions.append((await on.api.put(f"{path}/one", current)).body["metadata"]["resourceVersion"])
        on.note(path, [version == versions[0] for version in versions])


async def paged_lists(on: Stage) -> None:
    for name in "abcde":
        await on.api.post(on.secrets, secret(name, labels={"vowel": str(name in "ae").lower()}))
        await on.api.post(on.widgets, widget(name))
    for path in (on.secrets, on.widgets):
        token, versions = "", []
        while True:
            page = await on.get(path, limit="2", **({"continue_": token} if token else {}))
            versions.append(page.body["metadata"]["resourceVersion"])
            await on.api.post(path, (secret if path == on.secrets else widget)(f"d{len(versions)}"))
            if not (token := page.body["metadata"].get("continue", "")):
                break
        on.note("the same version on every page", len(versions), len(set(versions)))
    await on.get(on.secrets, limit="1", labelSelector="vowel=true")
    await on.get(on.secrets, limit="2", labelSelector="vowel=true")
    await on.get(on.secrets, continue_="nonsense", limit="1")
    await on.get(on.secrets, limit="500", resourceVersion="0")
    await on.get(on.secrets, resourceVersion="nonsense")
    await on.get(on.secrets, limit="many")


async def selected_lists(on: Stage) -> None:
    for name, labels in (("a", {"tier": "web"}), ("b", {"tier": "db"}), ("c", {"other": ""})):
        await on.api.post(on.secrets, secret(name, labels=labels))
    for selector in (
        "tier=web", "tier==web", "tier!=web", "tier in (web,db)", "tier notin (web, cache)", "tier", "!tier",
        "tier,tier!=db", "other=", "tier in (web,db),!other", "tier=web,",  "a=b=c", "in (x)", "tier in ()", "x y",
    ):  # fmt: skip
        await on.get(on.secrets, labelSelector=selector)
    for selector in ("metadata.name=a", "metadata.name!=a", f"metadata.namespace={on.namespace}", "metadata.name=none"):
        await on.get(on.secrets, fieldSelector=selector)
        await on.get(on.widgets, fieldSelector=selector)
    await on.get(on.secrets, fieldSelector="data.key=x")
    await on.get(on.widgets, fieldSelector="spec.size=1")
    await on.get(on.secrets, labelSelector="tier=web", fieldSelector="metadata.name=b")


async def metadata_only(on: Stage) -> None:
    for path, body in ((on.secrets, secret(labels={"a": "1"})), (on.widgets, widget(labels={"a": "1"}))):
        await on.api.post(path, body)
        await on.get(path, accept=METADATA_LIST)
        await on.get(path, accept=METADATA_LIST, limit="1")
        await on.get(f"{path}/one", accept=METADATA_ONLY)
        await on.get(path, accept=f"application/json;as=Table;v=v9;g=meta.k8s.io,{METADATA_LIST}")
        async with on.api.watch(path, accept=METADATA_ONLY) as events:
            await on.event(events)


async def watching_a_selection(on: Stage) -> None:
    for path, body in ((on.secrets, secret), (on.widgets, widget)):
        async with on.api.watch(path, labelSelector="ours=yes", resourceVersion=await on.version(path)) as events:
            await on.api.post(path, body("other"))
            await on.api.post(path, body("one", labels={"ours": "yes", "step": "1"}))
            await on.event(events)
            await on.api.patch(f"{path}/one", {"metadata": {"labels": {"step": "2"}}})
            await on.event(events)
            left = await on.api.patch(f"{path}/one", {"metadata": {"labels": {"ours": None}}})
            gone = await events.next()
            on.note(comparable(gone))
            on.note(gone["object"]["metadata"]["resourceVersion"] == left.body["metadata"]["resourceVersion"])
            await on.api.patch(f"{path}/one", {"metadata": {"labels": {"ours": "yes"}}})
            await on.event(events)
            await on.api.delete(f"{path}/one")
            await on.event(events)


async def watching_from_somewhere(on: Stage) -> None:
    for path, body in ((on.secrets, secret), (on.widgets, widget)):
        before = await on.version(path)
        await on.api.post(path, body("one"))
        await on.api.post(path, body("two"))
        await on.api.delete(f"{path}/one")
        async with on.api.watch(path, resourceVersion=before) as events:
            for _ in range(3):
                await on.event(events)
        for start in ({}, {"resourceVersion": ""}, {"resourceVersion": "0"}):
            async with on.api.watch(path, **start) as events:
                await on.event(events)
        async with on.api.watch(path, fieldSelector="metadata.name=two") as events:
            await on.event(events)
        async with on.api.watch(path, resourceVersion=await on.version(path), timeoutSeconds="1") as events:
            await on.end(events)
        await on.get(path, watch="true", resourceVersion="nonsense")


async def bookmarks(on: Stage) -> None:
    """The real server sends them when it sees fit: usually one before the end."""
    secrets = (on.secrets, {"kind": "Secret", "apiVersion": "v1"})
    widgets = (on.widgets, {"kind": "Widget", "apiVersion": "fake.zerotrust.dev/v1"})
    for path, bookmark in (secrets, widgets):
        query = {"timeoutSeconds": "4", "allowWatchBookmarks": "true", "resourceVersion": await on.version(path)}
        async with on.api.watch(path, **query) as events:
            expected = {"type": "BOOKMARK", "object": {**bookmark, "metadata": {"resourceVersion": "<version>"}}}
            assert all(comparable(event) == expected for event in await events.rest())


async def watching_from_too_long_ago(on: Stage) -> None:
    on.forget()
    # Of Secrets the real server may still know everything; that it serves widgets began later than version 1.
    async with on.api.watch(on.widgets, resourceVersion="1") as events:
        await on.event(events)
        await on.end(events)


async def conditional_deletion(on: Stage) -> None:
    for path, body in ((on.secrets, secret()), (on.widgets, widget())):
        metadata = (await on.post(path, body)).body["metadata"]
        await on.delete(f"{path}/one", {"preconditions": {"uid": "another"}})
        await on.delete(f"{path}/one", {"preconditions": {"resourceVersion": "1"}})
        await on.delete(f"{path}/one", {"preconditions": {it: metadata[it] for it in ("uid", "resourceVersion")}})
        await on.delete(f"{path}/one")
    account = f"/api/v1/namespaces/{on.namespace}/serviceaccounts"
    await on.post(account, {"metadata": {"name": "one"}})
    await on.delete(f"{account}/one")


async def finalizers(on: Stage) -> None:
    for path, body in ((on.secrets, secret), (on.widgets, widget)):
        before = await on.version(path)
        await on.post(path, body(finalizers=["zerotrust.dev/a", "zerotrust.dev/b"]))
        await on.delete(f"{path}/one")
        await on.delete(f"{path}/one")
        await on.patch(f"{path}/one", {"metadata": {"finalizers": ["zerotrust.dev/a", "zerotrust.dev/c"]}})
        await on.patch(f"{path}/one", {"metadata": {"finalizers": ["zerotrust.dev/a"]}})
        await on.patch(f"{path}/one", {"metadata": {"deletionTimestamp": None}})
        await on.post(path, body())
        await on.patch(f"{path}/one", {"metadata": {"finalizers": None}})
        await on.get(f"{path}/one")
        async with on.api.watch(path, resourceVersion=before) as events:
            for _ in range(4):
                await on.event(events)


async def garbage_collection(on: Stage) -> None:
    one, two = await on.post(on.widgets, widget("one")), await on.post(on.widgets, widget("two"))
    await on.post(on.secrets, secret("of-one", ownerReferences=[owner(one, controller=True)]))
    await on.post(on.secrets, secret("of-both", ownerReferences=[owner(one), owner(two)]))
    await on.post(
        on.secrets, secret("two-controllers", ownerReferences=[owner(it, controller=True) for it in (one, two)])
    )
    late = secret("late", ownerReferences=[owner(one)])
    await on.delete(f"{on.widgets}/one")

    async def only_one_is_left_with_one_owner() -> bool:
        items = (await on.api.get(on.secrets)).body["items"]
        return [len(it["metadata"]["ownerReferences"]) for it in items] == [1]

    await on.eventually(only_one_is_left_with_one_owner)
    await on.get(on.secrets)
    await on.post(on.secrets, late)
    await on.eventually(only_one_is_left_with_one_owner)
    # Answered with the object, or when there is nothing left to wait for, with a Status.
    on.note((await on.api.delete(f"{on.widgets}/two", {"propagationPolicy": "Orphan"})).code)

    async def none_has_an_owner() -> bool:
        items = (await on.api.get(on.secrets)).body["items"]
        return not any("ownerReferences" in it["metadata"] for it in items)

    await on.eventually(none_has_an_owner)
    await on.get(on.secrets)


async def leases(on: Stage) -> None:
    path = f"{on.leases}/leader"
    lease = {
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": LATER},
    }
    await on.put(path, lease)
    await on.put(path, lease)
    await on.put(path, lease | {"metadata": {"name": "leader", "resourceVersion": "1"}})
    await on.patch(path, {"spec": {"holderIdentity": "b", "leaseTransitions": 1}})
    await on.patch(path, {"spec": {"leaseDurationSeconds": 0}})
    await on.patch(path, {"spec": {"leaseTransitions": -1}})
    await on.patch(path, {"spec": {"renewTime": "2026-11-22T10:00:00Z"}})
    await on.patch(path, {"spec": {"renewTime": "2026-11-22T10:00:00.123Z"}})
    await on.patch(path, {"spec": {"renewTime": "2026-11-22T10:00:00.123456+00:00"}})
    await on.patch(path, {"spec": {"renewTime": "yesterday"}})


async def events_of_the_new_api(on: Stage) -> None:
    regarding = {"kind": "Secret", "namespace": on.namespace, "name": "one"}
    await on.post(on.events, event(regarding=regarding))

    async def refused(method: str, path: str, body: Body) -> None:
        """What is wrong, without the details about the kind: the real server validates the old kind of Event."""
        content_type = "application/json" if method == "POST" else "application/merge-patch+json"
        answer = await on.api.send(method, path, body, content_type=content_type)
        on.note(method, comparable(body), answer.code, comparable(answer.body)["details"]["causes"])

    await on.post(on.events, event(metadata={"name": "two"}, regarding={**regarding, "namespace": "other"}))
    await refused("POST", on.events, event(metadata={"name": "three"}))
    for elsewhere in ("default", "kube-system"):
        collection = on.events.replace(on.namespace, elsewhere)
        await on.post(collection, event(metadata={"name": on.namespace}))
        await on.delete(f"{collection}/{on.namespace}")
    for field in ("eventTime", "reportingController", "reportingInstance", "action", "reason", "type"):
        await refused("POST", on.events, event(metadata={"name": "three"}, regarding=regarding, **{field: None}))
    await refused("POST", on.events, event(metadata={"name": "three"}, regarding=regarding, note="x" * 1025))
    await refused("POST", on.events, event(metadata={"name": "three"}, regarding=regarding, type="Error"))
    await refused("POST", on.events, event(metadata={"name": "three"}, regarding=regarding, action="x" * 129))
    await refused("POST", on.events, event(metadata={"name": "three"}, regarding=regarding, reportingController="a b"))
    await refused("PATCH", f"{on.events}/one", {"series": {"count": 1, "lastObservedTime": LATER}})
    await on.patch(f"{on.events}/one", {"series": {"count": 2, "lastObservedTime": LATER}})
    await refused("PATCH", f"{on.events}/one", {"note": "another"})


async def size_limits(on: Stage) -> None:
    mebibyte = 1024 * 1024
    for size in (mebibyte, mebibyte + 1):
        body = {"metadata": {"name": f"size-{size}"}, "data": {"key": "x" * size}}
        on.note(size, (await on.api.post(on.config_maps, body)).code)
    on.note((await on.api.post(on.widgets, widget(annotations={"a": "x" * 3 * mebibyte}))).code)


async def ending_a_namespace(on: Stage) -> None:
    await on.post(on.widgets, widget(finalizers=["zerotrust.dev/a"]))
    await on.post(on.secrets, secret())
    namespace = f"/api/v1/namespaces/{on.namespace}"
    on.note((await on.api.delete(namespace)).code)
    on.note((await on.api.get(namespace)).body["status"]["phase"])
    await on.post(on.secrets, secret("too-late"))

    async def the_secret_is_gone() -> bool:
        return (await on.api.get(f"{on.secrets}/one")).code == 404

    async def the_widget_is_marked() -> bool:
        return "deletionTimestamp" in (await on.api.get(f"{on.widgets}/one")).body["metadata"]

    async def the_namespace_is_gone() -> bool:
        return (await on.api.get(namespace)).code == 404

    await on.eventually(the_secret_is_gone)
    await on.eventually(the_widget_is_marked)
    await on.patch(f"{on.widgets}/one", {"metadata": {"finalizers": None}})
    await on.eventually(the_namespace_is_gone)


async def a_definition_comes_and_goes(on: Stage) -> None:
    path, definition = (
        f"/apis/fake.zerotrust.dev/v1/namespaces/{on.namespace}/gadgets",
        f"{DEFINITIONS}/gadgets.fake.zerotrust.dev",
    )
    await on.get(path)
    on.note((await on.api.post(DEFINITIONS, definition_of(GADGETS))).code)

    async def it_is_served() -> bool:
        return (await on.api.get(path)).code == 200

    await on.eventually(it_is_served)
    conditions = (await on.api.get(definition)).body["status"]["conditions"]
    on.note(comparable(conditions))
    gadget = widget() | {"kind": "Gadget", "status": {"kept": "there is no subresource"}}
    await on.post(path, gadget)
    await on.patch(f"{path}/one", {"status": {"generation": "counts it"}})
    await on.patch(f"{path}/one/status", {})
    async with on.api.watch(path, resourceVersion=await on.version(path)) as events:
        on.note((await on.api.delete(definition)).code)
        await on.event(events)
        await on.end(events)

    async def it_is_gone() -> bool:
        return (await on.api.get(path)).code == 404 and (await on.api.get(definition)).code == 404

    await on.eventually(it_is_gone)


SCENARIOS = [
    creating_secrets,
    creating_what_is_wrong,
    creating_without_a_type,
    creating_custom_resources,
    missing_objects,
    missing_urls_and_methods,
    discovery,
    media_types,
    replacing,
    merge_patches,
    merge_patches_of_custom_resources,
    status_and_generation,
    what_changes_nothing,
    paged_lists,
    selected_lists,
    metadata_only,
    watching_a_selection,
    watching_from_somewhere,
    bookmarks,
    watching_from_too_long_ago,
    conditional_deletion,
    finalizers,
    garbage_collection,
    leases,
    events_of_the_new_api,
    size_limits,
    ending_a_namespace,
    a_definition_comes_and_goes,
]


@pytest.fixture(scope="module")
def real_server(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The real API server, which serves our test resource as well."""
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps(definition_of(WIDGETS)))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/widgets.fake.zerotrust.dev")
    yield control_plane
    control_plane.kubectl("delete", "crd", "widgets.fake.zerotrust.dev", "--wait=false")


@asynccontextmanager
async def on_the_real_server(server: ControlPlane, namespace: str) -> AsyncIterator[Stage]:
    tls = ssl.create_default_context(cafile=server.authority)
    tls.load_cert_chain(server.admin_certificate, server.admin_key)
    async with RawClient(server.url, tls) as api:
        body = {"metadata": {"name": namespace}}
        assert (await api.post("/api/v1/namespaces", body)).code == 201
        stage = Stage(api, namespace)

        async def widgets_are_served() -> bool:
            return (await api.get(stage.widgets)).code == 200

        await stage.eventually(widgets_are_served)
        try:
            yield stage
        finally:
            await api.delete(f"/api/v1/namespaces/{namespace}")


@asynccontextmanager
async def on_the_fake_server(namespace: str) -> AsyncIterator[Stage]:
    async with (
        FakeApi([NETWORK_POLICIES, WIDGETS], namespaces=[namespace]) as server,
        RawClient(server.url) as api,
    ):
        yield Stage(api, namespace, forget=server.compact)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_fake_and_real_answer_the_same(
    real_server: ControlPlane, scenario: Callable[[Stage], Awaitable[None]]
) -> None:
    namespace = f"same-{uuid.uuid4().hex[:8]}"
    async with on_the_real_server(real_server, namespace) as real, on_the_fake_server(namespace) as fake:
        await asyncio.gather(scenario(real), scenario(fake))
        for expected, given in zip(real.answers, fake.answers, strict=True):
            assert given == expected
