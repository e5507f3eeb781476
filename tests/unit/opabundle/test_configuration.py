"""What an OPA of a namespace is told, as a whole and where a mistake would open something."""

from typing import Any

import pytest
import yaml

from zerotrust.common.errors import SpecError
from zerotrust.opabundle import configuration, signing
from zerotrust.opabundle.archive import ROOTS
from zerotrust.opabundle.configuration import ClientCertificate, Service, Verification

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
    assert whole["labels"] == {"namespace": "shop", "pod": "${POD_NAME}", "pod_uid": "${POD_UID}"}


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
