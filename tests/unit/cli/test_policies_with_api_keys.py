"""Policies that name ApiKeys, judged from files."""

from pathlib import Path

import yaml
from click.testing import CliRunner

from zerotrust.cli.main import zerotrust

API = "zerotrust.dev/v1alpha1"


def written(folder: Path, *, with_key: bool) -> str:
    place = {"namespace": "shop"}
    peer = {"anyWorkload": {}, "apiKey": {"name": "partner"}}
    rule = {"name": "partners", "from": [peer], "to": [{"port": 8443, "methods": ["GET"]}]}
    request = {"from": "shop/orders", "apiKey": "partner", "method": "GET", "path": "/", "port": 8443}
    policy = {
        "target": {"identities": ["orders"]},
        "rules": [rule],
        "tests": [{"name": "partner", "request": request, "expect": "Allow"}],
    }
    documents = [
        {"apiVersion": API, "kind": "ServiceIdentity", "metadata": {"name": "orders", **place}, "spec": {}},
        {"apiVersion": API, "kind": "TrustPolicy", "metadata": {"name": "orders", **place}, "spec": policy},
    ]
    key = {"holder": {"name": "Partner"}, "audience": ["orders"], "scopes": ["orders:read"]}
    if with_key:
        documents.append({"apiVersion": API, "kind": "ApiKey", "metadata": {"name": "partner", **place}, "spec": key})
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def test_a_key_of_the_manifests_is_found(tmp_path: Path) -> None:
    result = CliRunner().invoke(zerotrust, ["test", "-f", written(tmp_path, with_key=True)])
    assert result.exit_code == 0, result.output
    assert "1 passed" in result.output


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(zerotrust, ["test", "-f", written(tmp_path, with_key=False)])
    assert result.exit_code == 2
    assert "ApiKey shop/partner does not exist" in result.output
