"""What an OPA of a namespace is told, as a whole and where a mistake would open something."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from zerotrust.common.errors import SpecError
from zerotrust.opabundle import configuration, signing
from zerotrust.opabundle.archive import ROOTS
from zerotrust.opabundle.configuration import ClientCertificate, Service, Verification

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "opa"
KEY = signing.create()
SERVICE = Service("https://zerotrust-bundle-server.zerotrust-system.svc:8443")
VERIFICATION = Verification(KEY.id, signing.public_pem(KEY.public), "zerotrust-system")


def document(**changes: Any) -> dict[str, Any]:
    return configuration.document("shop", SERVICE, VERIFICATION, **changes)


def test_each_kind_of_bundle_is_fetched_by_key_id_and_must_be_signed_for_it() -> None:
    bundles = document()["bundles"]
    assert set(bundles) == set(ROOTS)
    for kind, bundle in bundles.items():
        assert bundle["resource"] == f"/bundles/{KEY.id}/shop/{kind}"
        assert bundle["signing"] == {"keyid": KEY.id, "scope": f"zerotrust-system/shop/{kind}"}
        assert bundle["persist"] is True  # what makes OPA refuse unsigned deltas


def test_the_key_verifies_what_we_sign() -> None:
    assert document()["keys"] == {KEY.id: {"algorithm": "ES256", "key": signing.public_pem(KEY.public)}}
    assert "PRIVATE" not in configuration.to_yaml(document())


def test_requests_are_held_and_failures_are_repeated_soon() -> None:
    for bundle in document()["bundles"].values():
        assert 20 <= bundle["polling"]["long_polling_timeout_seconds"] <= 60
        assert bundle["polling"]["min_delay_seconds"] <= bundle["polling"]["max_delay_seconds"] <= 5


def test_reports_and_logs_go_to_the_same_service() -> None:
    whole = document()
    assert whole["status"] == {"service": "zerotrust"}
    assert whole["decision_logs"]["service"] == "zerotrust"
    assert whole["decision_logs"]["mask_decision"] == "/system/log/mask"
    assert whole["decision_logs"]["reporting"]["buffer_size_limit_events"] == 10_000
    assert whole["labels"] == {
        "namespace": "shop",
        "pod": "${POD_NAME}",
        "pod_uid": "${POD_UID}",
        "signing_key": KEY.id,
    }


def test_what_is_asked_by_default_is_the_decision() -> None:
    assert document()["default_decision"] == "/zerotrust/authz/decision"


def test_verified_tokens_are_remembered_within_a_bound() -> None:
    cache = document()["caching"]["inter_query_builtin_value_cache"]
    assert cache == {"named": {"io_jwt": {"max_num_entries": 10_000}}}


def test_only_the_operators_authorities_vouch_for_the_server() -> None:
    service = document()["services"]["zerotrust"]
    assert service["tls"] == {"ca_cert": "/etc/zerotrust/trust-bundle/bundle.pem", "system_ca_required": False}
    assert "allow_insecure_tls" not in service
    assert service["credentials"] == {"bearer": {"token_path": "/var/run/secrets/zerotrust/token"}}


def test_a_client_certificate_is_read_again_before_it_ends() -> None:
    service = Service(SERVICE.url, credentials=ClientCertificate())
    found = configuration.document("shop", service, VERIFICATION)["services"]["zerotrust"]["credentials"]
    assert found == {
        "client_tls": {
            "cert": "/var/run/secrets/zerotrust/svid/tls.crt",
            "private_key": "/var/run/secrets/zerotrust/svid/tls.key",
            "cert_reread_interval_seconds": 60,
        }
    }


def test_envoys_plugin_gets_the_same_and_an_address_that_only_its_pod_reaches() -> None:
    envoy = configuration.envoy_document("shop", SERVICE, VERIFICATION)
    plugin = envoy.pop("plugins")["envoy_ext_authz_grpc"]
    assert envoy == document()
    assert plugin["addr"] == "127.0.0.1:9191"
    assert plugin["path"] == "zerotrust/authz/envoy"
    assert plugin["dry-run"] is False


@pytest.mark.parametrize("url", ["http://server", "https://server/", "https://server/path", "server", "https:/server"])
def test_a_service_that_is_not_https_is_refused_by_field(url: str) -> None:
    with pytest.raises(SpecError, match=r"service\.url: must be https://<host>"):
        configuration.document("shop", Service(url), VERIFICATION)


def test_a_key_id_that_is_none_is_refused_by_field() -> None:
    with pytest.raises(SpecError, match=r"verification\.key_id: must be a signing key's id"):
        configuration.document("shop", SERVICE, Verification("../secrets", "", "zerotrust-system"))


def test_both_files_are_yaml_of_the_two_documents() -> None:
    files = configuration.files("shop", SERVICE, VERIFICATION)
    assert set(files) == {"opa.yaml", "opa-envoy.yaml"}
    assert yaml.safe_load(files["opa.yaml"]) == document()
    assert yaml.safe_load(files["opa-envoy.yaml"])["plugins"]
    assert configuration.files("shop", SERVICE, VERIFICATION) == files


@pytest.mark.parametrize("text", ["12e4567890123456", "0899", "1_000", "${POD_NAME}", "0x12", "1e3", "12:30:45"])
def test_what_another_reader_could_take_for_a_number_is_quoted(text: str) -> None:
    written = configuration.to_yaml({"keys": {text: text}})
    assert written == f'keys:\n  "{text}": "{text}"\n'


def test_pem_is_a_block() -> None:
    assert "key: |\n" in configuration.to_yaml(document())


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def test_the_example_mounts_what_the_configuration_reads() -> None:
    role, _, deployment = manifests("10-sidecar.yaml")
    assert role["rules"] == [{"apiGroups": ["zerotrust.dev"], "resources": ["policybundles"], "verbs": ["get"]}]
    pod = deployment["spec"]["template"]["spec"]
    (opa,) = [container for container in pod["containers"] if container["name"] == "opa"]
    mounts = {mount["name"]: mount["mountPath"] for mount in opa["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    projected = volumes["token"]["projected"]["sources"][0]["serviceAccountToken"]
    whole = document()
    service = whole["services"]["zerotrust"]
    assert f"{mounts['token']}/{projected['path']}" == service["credentials"]["bearer"]["token_path"]
    assert projected["audience"] == "zerotrust-bundles"
    assert f"{mounts['trust-bundle']}/bundle.pem" == service["tls"]["ca_cert"]
    assert mounts["bundles"] == whole["persistence_directory"]
    assert volumes["opa"]["configMap"]["name"] == configuration.CONFIG_MAP
    assert f"--config-file={mounts['opa']}/{configuration.ENVOY_FILE}" in opa["args"]
    assert {variable["name"] for variable in opa["env"]} == {"POD_NAME", "POD_UID", "GOGC"}


def test_the_examples_envoy_asks_the_plugin_and_never_lets_in_without_an_answer() -> None:
    (envoy,) = manifests("envoy.yaml")
    (chain,) = envoy["static_resources"]["listeners"][0]["filter_chains"]
    http = chain["filters"][0]["typed_config"]
    asked = http["http_filters"][0]["typed_config"]
    clusters = {cluster["name"]: cluster for cluster in envoy["static_resources"]["clusters"]}
    cluster = clusters[asked["grpc_service"]["envoy_grpc"]["cluster_name"]]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert f"{address['address']}:{address['port_value']}" == configuration.ENVOY_ADDRESS
    assert asked["failure_mode_allow"] is False
    assert http["forward_client_cert_details"] == "SANITIZE_SET"
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
