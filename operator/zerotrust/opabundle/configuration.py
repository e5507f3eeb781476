"""What an OPA of a namespace is told: which bundles to fetch from where, whose signature counts, where to report.

Source: OPA v1/config (validate.rego lists every option), v1/download, v1/plugins; opa-envoy-plugin internal/internal.go.
OPA puts environment variables in place of `${NAME}` before it reads the YAML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from zerotrust.common.errors import SpecError
from zerotrust.opabundle.archive import MAX_CONTENT, Kind, scope_of
from zerotrust.opabundle.signing import ALGORITHM, is_key_id

CONFIG_MAP = "zerotrust-opa-config"
OPA_FILE = "opa.yaml"
ENVOY_FILE = "opa-envoy.yaml"

SERVICE = "zerotrust"
KEY_LABEL = "signing_key"
DECISION = "zerotrust/authz/decision"
ENVOY_DECISION = "zerotrust/authz/envoy"
ENVOY_ADDRESS = "127.0.0.1:9191"  # Envoy stands in the same pod; nobody else has anything to ask here

# Held requests tell the server that a decision point lives, and a status report follows each.
HOLD_SECONDS = 30
# After a failure OPA backs off from 0.1 s to MAX_DELAY_SECONDS, so a revocation is never later than that.
MIN_DELAY_SECONDS = 1
MAX_DELAY_SECONDS = 5
LOG_DELAY_SECONDS = (5, 10)
LOG_EVENTS = 10_000
REQUEST_BYTES = 1024 * 1024
VERIFIED_TOKENS = 10_000
CERTIFICATE_REREAD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A projected ServiceAccount token, audience `zerotrust-bundles`; OPA reads the file for every request."""

    path: str = "/var/run/secrets/zerotrust/token"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """An SVID's files; OPA reads them again once a minute."""

    certificate: str = "/var/run/secrets/zerotrust/svid/tls.crt"
    private_key: str = "/var/run/secrets/zerotrust/svid/tls.key"


@dataclass(frozen=True, slots=True)
class Service:
    """How an OPA reaches the bundle server: `url` without a path, `authorities` is a PEM file in OPA's container."""

    url: str
    authorities: str = "/etc/zerotrust/trust-bundle/bundle.pem"
    credentials: TokenFile | ClientCertificate = TokenFile()


@dataclass(frozen=True, slots=True)
class Verification:
    """The one key whose signature counts, and the operator's namespace, with which every scope begins."""

    key_id: str
    public_pem: str
    instance: str


def document(
    namespace: str, service: Service, verification: Verification, persistence: str = "/var/lib/opa"
) -> dict[str, Any]:
    """The configuration of an OPA that answers over HTTP; SpecError names an argument that cannot be used."""
    if not service.url.startswith("https://") or service.url.count("/") != 2:
        raise SpecError("service.url", f"must be https://<host>[:<port>], got {service.url!r}")
    if not is_key_id(verification.key_id):
        raise SpecError("verification.key_id", f"must be a signing key's id, got {verification.key_id!r}")
    return {
        "services": {SERVICE: _service(service)},
        "keys": {verification.key_id: {"algorithm": ALGORITHM, "key": verification.public_pem}},
        "bundles": {kind: _bundle(namespace, kind, verification) for kind in get_args(Kind)},
        "persistence_directory": persistence,
        "labels": {
            "namespace": namespace,
            "pod": "${POD_NAME}",
            "pod_uid": "${POD_UID}",
            KEY_LABEL: verification.key_id,  # a status report says which bundles are active, but not from which path
        },
        "default_decision": f"/{DECISION}",
        "status": {"service": SERVICE},
        "decision_logs": _decision_logs(),
        "caching": {"inter_query_builtin_value_cache": {"named": {"io_jwt": {"max_num_entries": VERIFIED_TOKENS}}}},
        "server": {"decoding": {"max_length": REQUEST_BYTES, "gzip": {"max_length": REQUEST_BYTES}}},
    }


def envoy_document(
    namespace: str, service: Service, verification: Verification, persistence: str = "/var/lib/opa"
) -> dict[str, Any]:
    """The same for opa-envoy-plugin, which also answers Envoy's ext_authz over gRPC on loopback."""
    plugin = {
        "addr": ENVOY_ADDRESS,
        "path": ENVOY_DECISION,
        "dry-run": False,
        "enable-reflection": False,
        "grpc-max-recv-msg-size": REQUEST_BYTES,
        "skip-request-body-parse": True,
    }
    return {**document(namespace, service, verification, persistence), "plugins": {"envoy_ext_authz_grpc": plugin}}


def files(namespace: str, service: Service, verification: Verification) -> dict[str, str]:
    """What the namespace's ConfigMap holds: one file for each of the two programs."""
    return {
        OPA_FILE: to_yaml(document(namespace, service, verification)),
        ENVOY_FILE: to_yaml(envoy_document(namespace, service, verification)),
    }


def to_yaml(configuration: Mapping[str, Any]) -> str:
    """Write a configuration with PEM as blocks, and with quotes wherever a reader might see a number.

    A key id like 12e4567890123456 is text to PyYAML and a number to Go; a pod's name may be one, too.
    """
    return yaml.dump(dict(configuration), Dumper=_Dumper, sort_keys=True, width=4096)


def _service(service: Service) -> dict[str, Any]:
    match service.credentials:
        case TokenFile(path):
            credentials: dict[str, Any] = {"bearer": {"token_path": path}}
        case ClientCertificate(certificate, private_key):
            credentials = {
                "client_tls": {
                    "cert": certificate,
                    "private_key": private_key,
                    "cert_reread_interval_seconds": CERTIFICATE_REREAD_SECONDS,
                }
            }
    return {
        "url": service.url,
        "response_header_timeout_seconds": 10,
        "tls": {"ca_cert": service.authorities, "system_ca_required": False},
        "credentials": credentials,
    }


def _bundle(namespace: str, kind: Kind, verification: Verification) -> dict[str, Any]:
    scope = scope_of(verification.instance, namespace, kind)
    return {
        "service": SERVICE,
        "resource": f"/bundles/{verification.key_id}/{namespace}/{kind}",
        # Without a key id OPA would take the key that the bundle names, or none (policy.md 2.8).
        "signing": {"keyid": verification.key_id, "scope": scope},
        # Also what makes OPA refuse delta bundles, which nobody can sign.
        "persist": True,
        "size_limit_bytes": MAX_CONTENT,
        "polling": {
            "min_delay_seconds": MIN_DELAY_SECONDS,
            "max_delay_seconds": MAX_DELAY_SECONDS,
            "long_polling_timeout_seconds": HOLD_SECONDS,
        },
    }


def _decision_logs() -> dict[str, Any]:
    least, most = LOG_DELAY_SECONDS
    return {
        "service": SERVICE,
        "mask_decision": "/system/log/mask",
        "reporting": {
            "buffer_type": "event",  # bounded: without a server the oldest events go, not the memory
            "buffer_size_limit_events": LOG_EVENTS,
            "min_delay_seconds": least,
            "max_delay_seconds": most,
        },
    }


class _Dumper(yaml.SafeDumper):
    """YAML without aliases and with a style for each kind of text."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    numeric = "${" in text or any(character.isdigit() for character in text)
    style = "|" if "\n" in text else '"' if numeric else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
