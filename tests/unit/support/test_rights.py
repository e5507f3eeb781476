"""Requests of audit logs against the rights of the manifests: what is missing and what nobody needs is found."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import audit, rights
from tests.support.rights import Request, Right, Usage

OWN = "zerotrust-system"
GET = Right(
    "zerotrust-controller", "Role zerotrust-controller", "coordination.k8s.io", "leases", "get", ("ours",), "own"
)
ASKED = Request("zerotrust-controller", OWN, "get", "coordination.k8s.io", "leases", "ours", OWN, allowed=True)

LIST_SECRETS, WATCH_SECRETS, WATCH_PODS = (
    Right("zerotrust-controller", "ClusterRole zerotrust-controller-namespaces", "", resource, verb, (), "anywhere")
    for resource, verb in (("secrets", "list"), ("secrets", "watch"), ("pods", "watch"))
)


@pytest.fixture(autouse=True)
def few_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of those of the manifests, which kubectl would have to render."""
    monkeypatch.setattr(rights, "given", lambda _: (LIST_SECRETS, WATCH_SECRETS, WATCH_PODS))


def event(verb: str, resource: str, *, decision: str = "allow", agent: str = "kopf/1", **more: Any) -> dict[str, Any]:
    reference = {"resource": resource, "apiVersion": "v1", "namespace": more.pop("namespace", "shop"), **more}
    user = {"username": f"system:serviceaccount:{OWN}:zerotrust-controller"}
    annotations = {"authorization.k8s.io/decision": decision}
    return {"verb": verb, "user": user, "userAgent": agent, "objectRef": reference, "annotations": annotations}


def seen(folder: Path, *events: dict[str, Any]) -> Usage:
    (folder / audit.AUDIT_LOG).write_text("".join(json.dumps(one) + "\n" for one in events))
    return rights.usage(folder)


def test_a_right_covers_what_it_names() -> None:
    assert GET.covers(ASKED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", "zerotrust-bundle-server"),
        ("verb", "update"),
        ("group", ""),
        ("resource", "leases/status"),
        ("name", "theirs"),
        ("namespace", "kube-system"),
    ],
)
def test_and_nothing_else(field: str, value: str) -> None:
    assert not GET.covers(Request(**{**vars(ASKED), field: value}))


def test_what_is_used_and_what_is_refused(tmp_path: Path) -> None:
    found = seen(
        tmp_path,
        event("list", "secrets"),
        event("list", "secrets"),
        event("create", "pods", decision="forbid"),
        event("create", "pods", decision="forbid", agent="kubectl/v1.36"),
        event("list", "secrets", decision="forbid", namespace=rights.UNREADABLE),
    )
    assert found.requests == 4
    assert found.used == {str(LIST_SECRETS)} == {"ClusterRole zerotrust-controller-namespaces: list secrets"}
    assert found.refused == ["zerotrust-controller: create pods shop/"]
    assert found.unused == sorted([str(WATCH_SECRETS), str(WATCH_PODS)])


def test_workers_hand_on_what_they_have_seen(tmp_path: Path) -> None:
    both = seen(tmp_path, event("list", "secrets"))
    both.add(
        Usage.from_json(seen(tmp_path, event("watch", "pods"), event("get", "nodes", decision="forbid")).to_json())
    )
    assert (len(both.used), len(both.refused), both.requests) == (2, 1, 3)
