"""The example starts forward-auth as it wants to be started, and mounts what NGINX and OPA read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from zerotrust.cli.forwarding import forward_auth
from zerotrust.forwardauth.question import DIALECTS
from zerotrust.opabundle.configuration import CONFIG_MAP, OPA_FILE

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "nginx"


@pytest.fixture
def pod() -> dict[str, Any]:
    (deployment,) = (
        one for one in yaml.safe_load_all((EXAMPLE / "10-sidecar.yaml").read_text()) if one["kind"] == "Deployment"
    )
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return {
        **{one["name"]: one for one in spec["containers"]},
        "volumes": {one["name"]: one for one in spec["volumes"]},
    }


def test_forward_auth_takes_its_arguments(pod: dict[str, Any]) -> None:
    command, *arguments = pod["forward-auth"]["args"]
    assert command == forward_auth.name
    given = forward_auth.make_context(command, list(arguments)).params
    nginx = (EXAMPLE / "zerotrust.conf").read_text()
    assert given["proxy"] == "nginx"
    assert f"proxy_pass http://{given['host']}:{given['port']}/auth;" in nginx
    assert given["servers"][0].endswith(f":{pod['nginx']['ports'][0]['containerPort']}")
    assert pod["forward-auth"]["ports"][0]["containerPort"] == given["metrics_port"]
    assert f"--addr={given['opa'].removeprefix('http://')}" in pod["opa"]["args"]


def test_nginx_overwrites_every_header_that_is_believed() -> None:
    asking = (EXAMPLE / "zerotrust.conf").read_text().partition("location = /_zerotrust")[2].partition("}")[0]
    dialect = DIALECTS["nginx"]
    for name, value in (
        (dialect.method, "$request_method"),
        (dialect.uri, "$request_uri"),
        (dialect.certificate, "$ssl_client_escaped_cert"),
    ):
        assert [line.split()[2] for line in asking.splitlines() if line.split()[1:2] == [name]] == [f"{value};"]


def test_opa_reads_the_operators_configuration(pod: dict[str, Any]) -> None:
    mounts = {one["name"]: one["mountPath"] for one in pod["opa"]["volumeMounts"]}
    assert pod["volumes"]["opa"]["configMap"]["name"] == CONFIG_MAP
    assert f"--config-file={mounts['opa']}/{OPA_FILE}" in pod["opa"]["args"]
