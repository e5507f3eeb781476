"""The shipped Rego modules in a real OPA: many questions in one evaluation, each at its own time."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from hack.gotools import find_or_build
from tests.support.certificates import NOW
from zerotrust.opabundle.modules import modules

BATCH = Path(__file__).resolve().parents[1] / "opa" / "batch.rego"
NEVER = 10**11  # seconds since 1970
META = {"schema": 1, "serial": 1, "revision": "r", "issued_at": 0, "not_after": NEVER, "namespace": "shop"}
SERVER = "spiffe://example.org/ns/shop/sa/orders"
CLIENT = "spiffe://example.org/ns/web/sa/frontend"
ROW = {"policy": "p", "rule": "r", "effect": "Allow", "port": 8443, "protocol": "TCP"}


def nanoseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def written_modules(folder: Path) -> Path:
    """Write the modules as a bundle has them."""
    for name, text in modules().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def answers(
    folder: Path,
    data: Mapping[str, Any],
    asked: Sequence[tuple[Any, int]],
    what: Literal["decision", "envoy", "mask"] = "decision",
    program: str = "opa",
) -> list[Any]:
    """What OPA says to each input at its time, in nanoseconds since 1970."""
    given = {"cases": [{"input": one, "now_ns": now_ns} for one, now_ns in asked]}
    (folder / "input.json").write_text(json.dumps(given))
    (folder / "data.json").write_text(json.dumps(data))
    loaded = ["--data", written_modules(folder / "modules"), "--data", folder / "data.json", "--data", BATCH]
    command = [find_or_build(program), "eval", "--format", "raw", "--input", folder / "input.json", *loaded]
    ran = subprocess.run([*command, f"data.differential.{what}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: list[Any] = json.loads(ran.stdout)
    assert len(found) == len(asked), "some answers are undefined"
    return found


def a_server(*rows: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The document of a server that CLIENT may call."""
    return {
        "name": "orders",
        "trust_domain": "example.org",
        "enforcement": "Enforce",
        "on_stale_revocations": "Deny",
        "grants": {CLIENT: list(rows or (ROW,))},
        **changes,
    }


def a_policy(**changes: Any) -> dict[str, Any]:
    """The data of a policy and a revocations bundle with that one server; `revocations` changes the latter."""
    revocations = {"meta": META, "identities": {}, "keys": {}, **changes.pop("revocations", {})}
    policy = {"meta": META, "authorities": {}, "providers": {}, "servers": {SERVER: a_server()}, "api_keys": {}}
    return {"zerotrust_data": {"policy": {**policy, **changes}, "revocations": revocations}}


def a_request(source: Mapping[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    """What an HTTP enforcement point asks; the request is allowed unless a change says otherwise."""
    asked = {"method": "GET", "path": "/a", "port": 8443, "headers": {}, **request}
    return {"server": SERVER, "source": {"principal": CLIENT, "mtls": True} if source is None else dict(source),
            "request": asked}  # fmt: skip


def an_envoy_request(
    source: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None, **attributes: Any
) -> dict[str, Any]:
    """What Envoy asks through opa-envoy-plugin; the request is allowed unless a change says otherwise."""
    http = {"method": "GET", "path": "/a", "headers": dict(headers or {})}
    destination = {"principal": SERVER, "address": {"socketAddress": {"portValue": 8443}}}
    source = {"principal": CLIENT} if source is None else dict(source)
    return {"attributes": {"source": source, "destination": destination, "request": {"http": http}, **attributes}}


def ask(folder: Path, data: Mapping[str, Any], *asked: Any, at: datetime = NOW) -> list[Any]:
    """What is decided about each of these at one time."""
    return answers(folder, data, [(one, nanoseconds(at)) for one in asked])
