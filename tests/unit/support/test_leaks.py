"""The search for leaked API keys finds what is planted, wherever and however it is written, and shows no key."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import audit, leaks
from tests.support.api_keys import a_key, checked
from tests.support.leaks import OPERATOR_NAMESPACE, Search, search

KEY = a_key("Partner00001", "one")
OTHER = checked("sk_Partner00002." + "jKlMnOzJo" * 4 + "kLmNoZj")  # in hex each letter has one of a to f
SECRET = KEY.partition(".")[2][:43]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(resource: str, body: Any, verb: str = "create", namespace: str = "shop", **event: Any) -> dict[str, Any]:
    """An event of an audit log."""
    resource, _, subresource = resource.partition("/")
    reference = {"resource": resource, "namespace": namespace, "name": "partner", "subresource": subresource}
    return {"verb": verb, "objectRef": reference, "requestObject": body, "userAgent": "kubectl/1.37 (linux)", **event}


ISSUE = write("secrets", {"kind": "Secret", "metadata": {"name": "partner"}, "data": {"api-key": encoded(KEY)}})
TOLD = write("apikeys/status", {"status": {"keyID": "Partner00001"}}, "patch", userAgent="zerotrust-operator/0.1.0")


def searched(folder: Path, *events: dict[str, Any]) -> Search:
    plane = folder / "control-planes" / "one"
    plane.mkdir(parents=True)
    (plane / audit.AUDIT_LOG).write_text("".join(json.dumps(event) + "\n" for event in events))
    done = search(folder)
    assert not any(secret[start : start + 9] in str(done.leaks) for secret in (SECRET,) for start in range(0, 43, 4))
    return done


def test_a_key_in_its_secret_alone_is_no_leak(tmp_path: Path) -> None:
    (tmp_path / "controller.log").write_text(f"key Partner00001 issued\n{OTHER}\n" * 100)
    record = {"data": {"uid": json.dumps({"id": "Partner00001", "hash": "sha256:" + "0" * 64})}}
    done = searched(tmp_path, ISSUE, TOLD, write("configmaps", record))
    assert (len(done.keys), done.writes, done.files, done.leaks, done.unseen) == (1, 3, 1, [], set())
    assert done.bytes > (tmp_path / "controller.log").stat().st_size
    assert done.summary().startswith("1 API keys looked for in 3 writes and 1 files, 0.0 MiB: found in 0 places")


@pytest.mark.parametrize(
    "leak",
    [
        write("configmaps", {"data": {"note": KEY}}),
        write("apikeys/status", {"status": {"conditions": [{"message": f"made {KEY}"}]}}, "patch"),
        write("events", {"note": f"key {SECRET} made"}),
        write("tokenreviews", {"spec": {"token": KEY}}),
        write("configmaps", {"data": {"record": encoded("." + KEY)}}),
        write("configmaps", {"data": {"record": encoded("ab" + SECRET[:35])}}),
        write("apikeys", None, "delete", requestURI=f"/apis?fieldSelector={KEY}"),
        write("secrets", {"metadata": {"annotations": {"last": KEY}}, "data": {"api-key": encoded(KEY)}}),
        write("secrets", [{"op": "add", "path": "/metadata/labels/key", "value": SECRET}], "patch"),
    ],
    ids=["record", "status", "event", "review", "base64", "part", "address", "annotation", "patch"],
)
def test_a_key_in_any_other_write_is_found(tmp_path: Path, leak: dict[str, Any]) -> None:
    done = searched(tmp_path, ISSUE, write("configmaps", {"data": {"harmless": "x" * 60}}), leak)
    (found,) = done.leaks
    resource = leak["objectRef"]["resource"]
    assert found.startswith(f"{leak['verb']} {resource}")
    assert found.endswith("shop/partner by kubectl/1.37: Partner00001")


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.encode(),
        lambda text: base64.b64encode(text.encode()),
        lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
        lambda text: text.encode().hex().encode(),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["plain", "base64", "base64url", "hex", "HEX", "gzip"],
)
def test_a_key_in_any_file_is_found(tmp_path: Path, spelling: Any, shift: int) -> None:
    folder = tmp_path / "pod" / "persisted"
    folder.mkdir(parents=True)
    (folder / "bundle.tar.gz").write_bytes(spelling("é" * 7 + "x" * shift + OTHER + "\n"))
    issue = write("secrets", [{"op": "add", "path": "/data/api-key", "value": encoded(OTHER)}], "patch")
    done = searched(tmp_path, ISSUE, issue)
    assert done.leaks == ["pod/persisted/bundle.tar.gz: Partner00002"]


def test_a_key_that_spans_two_blocks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "BLOCK", 300)
    (tmp_path / "opa.log").write_text("-\n" * 139 + SECRET)
    assert searched(tmp_path, ISSUE).leaks == ["opa.log: Partner00001"]


def test_a_key_in_a_secret_of_the_operator_is_a_leak(tmp_path: Path) -> None:
    planted = write("secrets", {"stringData": {"copy": KEY}}, namespace=OPERATOR_NAMESPACE)
    (found,) = searched(tmp_path, ISSUE, planted).leaks
    assert found.startswith("create secrets zerotrust-system/partner")


def test_a_search_that_saw_no_key_that_is_in_use_says_so(tmp_path: Path) -> None:
    assert searched(tmp_path, TOLD).unseen == {"Partner00001"}


def test_what_others_write_into_a_status_is_no_key_in_use(tmp_path: Path) -> None:
    assert not searched(tmp_path, {**TOLD, "userAgent": "kubectl/1.37"}).unseen


@pytest.mark.parametrize("body", [["x"], [None], [{"path": 1}], "x", 7, None, {"data": "x", "status": "x"}], ids=repr)
def test_a_body_of_any_shape_is_searched(tmp_path: Path, body: Any) -> None:
    ours = {"userAgent": "zerotrust-operator/0.1.0"}
    done = searched(tmp_path, ISSUE, write("secrets", body, "patch"), write("apikeys/status", body, "patch", **ours))
    assert (done.writes, done.leaks, done.unseen) == (3, [], set())


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / audit.AUDIT_LOG).write_text(json.dumps(ISSUE) + "\n" + json.dumps(TOLD)[:40])
    assert len(search(tmp_path).keys) == 1
