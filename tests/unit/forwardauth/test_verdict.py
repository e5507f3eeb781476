"""What OPA may answer, and what is made of it."""

import json
from typing import Any

import pytest

from zerotrust.forwardauth.verdict import Unknown, Verdict, read

ALLOWED = {"allowed": True, "status": 200, "reason": "allowed"}
DENIED = {"allowed": False, "status": 403, "reason": "no_grant"}


def said(**result: Any) -> bytes:
    return json.dumps({"result": result}).encode()


def test_only_an_allow_allows() -> None:
    assert read(said(**ALLOWED, client="spiffe://a/b")) == Verdict(204, "allowed")
    assert read(said(**ALLOWED)).headers == {}


@pytest.mark.parametrize(
    ("status", "reason", "challenge"),
    [
        (403, "no_grant", None),
        (400, "malformed_request", None),
        (503, "stale_bundle", None),
        (401, "no_identity", 'Bearer realm="zerotrust"'),
        (401, "bad_token", 'Bearer realm="zerotrust", error="invalid_token"'),
    ],
)
def test_a_denial_has_opas_status_and_reason(status: int, reason: str, challenge: str | None) -> None:
    verdict = read(said(allowed=False, status=status, reason=reason))
    assert (verdict.status, verdict.headers["x-zerotrust-reason"]) == (status, reason)
    assert verdict.headers.get("WWW-Authenticate") == challenge


@pytest.mark.parametrize("allowed", [1, 1.0, "true", "yes", [True], {"allowed": True}, None, 0, "", []])
@pytest.mark.parametrize("rest", [ALLOWED, DENIED])
def test_what_is_only_like_true_is_unknown(allowed: Any, rest: dict[str, Any]) -> None:
    with pytest.raises(Unknown, match="malformed_answer"):
        read(said(**{**rest, "allowed": allowed}))


@pytest.mark.parametrize(
    "result",
    [
        {**ALLOWED, "status": 403},
        {**ALLOWED, "status": True},
        {**ALLOWED, "status": "200"},
        {**DENIED, "status": 200},
        {**DENIED, "status": 204},
        {**DENIED, "status": 302},
        {**DENIED, "status": 403.0},
        {**DENIED, "reason": "no grant\r\nx: y"},
        {**DENIED, "reason": ""},
        {**DENIED, "reason": 7},
        {key: value for key, value in ALLOWED.items() if key != "reason"},
        {key: value for key, value in ALLOWED.items() if key != "status"},
        {key: value for key, value in ALLOWED.items() if key != "allowed"},
        {},
    ],
)
def test_what_contradicts_itself_is_unknown(result: dict[str, Any]) -> None:
    with pytest.raises(Unknown, match="malformed_answer"):
        read(said(**result))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "malformed_answer"),
        (b"true", "malformed_answer"),
        (b"[]", "malformed_answer"),
        (b'{"result": true}', "malformed_answer"),
        (b'{"result": [true]}', "malformed_answer"),
        (b'{"allowed": true, "status": 200, "reason": "allowed"}', "no_result"),
        (b'{"result": null}', "no_result"),
        (b"{}", "no_result"),
        (b'{"result": {"allowed": true, "status": 200, "reason": "allowed"', "malformed_answer"),
        (b"[" * 60_000, "malformed_answer"),
        (b"\xff\xfe", "malformed_answer"),
    ],
)
def test_what_is_no_answer_is_unknown(body: bytes, why: str) -> None:
    with pytest.raises(Unknown, match=why):
        read(body)
