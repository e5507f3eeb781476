"""`zerotrust keys` on a real API server with the controller, a bundle server and a real OPA; and with a user's rights alone."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import ROOT, Running, deployed
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

PROGRAM = Path(sys.executable).with_name("zerotrust")
USER = "system:serviceaccount:shop:developer"
# A user of the namespace: what `edit` for ApiKeys would give, and nothing in the operator's namespace.
RIGHTS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "keys", "namespace": "shop"},
    "rules": [{"apiGroups": ["zerotrust.dev"], "resources": ["apikeys"], "verbs": ["get", "list", "patch"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "keys", "namespace": "shop"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keys"},
    "subjects": [{"kind": "ServiceAccount", "name": "developer", "namespace": "shop"}],
}
PARTNER = {
    "apiVersion": API_VERSION,
    "kind": "ApiKey",
    "metadata": {"name": "partner", "namespace": "shop"},
    "spec": {"holder": {"name": "Partner X"}, "audience": ["orders"], "scopes": ["orders:read"]},
}


class Said(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str


class Keys:
    """Runs the program as a user does: another process, without a terminal."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.printed = ""

    async def __call__(self, *arguments: str, stdin: str = "") -> Said:
        command = [str(PROGRAM), "keys", *arguments, "--kubeconfig", str(self._kubeconfig)]
        done = await asyncio.to_thread(_run, command, stdin)
        self.printed += done.stdout + done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


def _run(command: Sequence[str], stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("keys-cli")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        running.apply(ROOT / "examples" / "api-keys" / "20-policy.yaml")
        yield running


def get(cluster: Running, kind: str, name: str) -> dict[str, Any]:
    found = cluster.plane.kubectl("get", kind, name, "-n", "shop", "-o", "json", "--ignore-not-found")
    body: dict[str, Any] = json.loads(found) if found else {}
    return body


def key_in_secret(cluster: Running) -> str:
    encoded = get(cluster, "secret", "partner-api-key").get("data", {}).get("api-key", "")
    return base64.b64decode(encoded).decode()


async def test_a_key_is_listed_rotated_inspected_and_revoked(cluster: Running, tmp_path: Path) -> None:
    admin, user = Keys(cluster.plane.kubeconfig), Keys(cluster.plane.kubeconfig_for(USER))
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving(), points.opa("shop", "orders", "orders-0") as opa:
        await opa.ready()
        cluster.apply(RIGHTS, BINDING, PARTNER)
        await points.until(
            lambda: cluster.conditions("zkey", "partner", "shop").get("Ready", " ")[0] == "True", "the key is there"
        )
        first, old = key_in_secret(cluster), get(cluster, "zkey", "partner")["status"]["keyID"]

        listed = json.loads((await user("list", "-n", "shop", "-o", "json")).out)["apiKeys"]
        assert [(one["name"], one["keyID"], one["holder"]) for one in listed] == [
            ("partner", old, {"name": "Partner X"})
        ]
        refused = await user("list", "-A")
        assert refused.code == 2
        assert "403" in refused.err

        assert (await admin("inspect", stdin=first + "\n")).code == 0
        seen = await user("inspect", "-n", "shop", stdin=first)
        assert (seen.code, seen.out.partition(":")[0]) == (1, "UNVERIFIED")
        assert "may not be read with these rights" in seen.out
        assert "give -n NAMESPACE" in (await user("inspect", stdin=first)).err

        rotated = await user("rotate", "partner", "-n", "shop", "--wait", "--timeout", "90s")
        assert rotated.code == 0, rotated
        new = get(cluster, "zkey", "partner")["status"]["keyID"]
        assert f"key {new} is in Secret shop/partner-api-key after" in rotated.out
        second = key_in_secret(cluster)
        assert second != first

        revoked = await user("revoke", "partner", "-n", "shop", "--key-id", old, "--wait", "--timeout", "90s")
        assert revoked.code == 0, revoked
        assert "every decision point refuses what is revoked, after" in revoked.out
        assert get(cluster, "zkey", "partner")["spec"]["revokedKeyIDs"] == [old]
        gone = await admin("inspect", "-o", "json", stdin=first)
        assert (gone.code, json.loads(gone.out)["phase"]) == (1, "Revoked")

        git = {"metadata": {"name": "from-git", "namespace": "shop"}}
        spec = {**PARTNER["spec"], "rotation": {"requestedAt": "2026-01-01T00:00:00Z"}}
        body = json.dumps({**PARTNER, **git, "spec": spec})
        cluster.plane.kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", stdin=body)
        await points.until(
            lambda: cluster.conditions("zkey", "from-git", "shop").get("Ready", " ")[0] == "True",
            "another key is there",
        )
        asked = await user("rotate", "from-git", "-n", "shop")
        assert asked.code == 0, asked
        cluster.plane.kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", stdin=body)
        assert naming.ROTATE_REQUESTED in get(cluster, "zkey", "from-git")["metadata"]["annotations"], (
            "git takes nothing back"
        )

        opa.stop(grace=0)
        late = await user("revoke", "partner", "-n", "shop", "--current", "--wait", "--timeout", "8s")
        assert late.code == 1, late
        assert "orders-0" in late.out, "who lags is named"
        assert get(cluster, "zkey", "partner")["spec"]["revokedKeyIDs"] == [old, new]
    for text in (first, second):
        assert text[20:40] not in admin.printed + user.printed
