"""How each component of the local control plane is told to run."""

from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Pods never run here, so what would only serve nodes, volumes and workloads is left out.
CONTROLLERS = (
    "certificatesigningrequest-signing-controller",
    "clusterrole-aggregation-controller",  # without it the roles view, edit and admin are empty
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "validatingadmissionpolicy-status-controller",
)
# Whoever waits for readiness has no certificate to show; nobody else gets in without one.
AUTHENTICATION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthenticationConfiguration",
    "anonymous": {"enabled": True, "conditions": [{"path": path} for path in ("/healthz", "/livez", "/readyz")]},
}


# Every write with its body, and of reads those of ServiceAccounts: what the operator asks for, a test compares with its rights.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "verbs": ["get", "list", "watch"]},
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {
            "level": "Metadata",
            "userGroups": ["system:serviceaccounts"],
            "resources": [{"group": "coordination.k8s.io"}],
        },
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},  # leases, the most frequent writes of all
        {"level": "Request"},
    ],
}


def etcd_flags(directory: Path, port: int) -> Mapping[str, object]:
    """etcd with its data below `directory`."""
    return {
        "data-dir": directory / "etcd",
        "listen-client-urls": f"http://{LOOPBACK}:{port}",
        "advertise-client-urls": f"http://{LOOPBACK}:{port}",
        "listen-peer-urls": f"http://{LOOPBACK}:0",
        "log-level": "warn",
        "unsafe-no-fsync": "true",  # the data are removed at the end anyway
        # It has no peers to hear from, so it need not wait a second before it elects itself.
        "heartbeat-interval": 20,
        "election-timeout": 100,
    }


def api_server_flags(directory: Path, etcd_port: int, port: int) -> Mapping[str, object]:
    """kube-apiserver with the certificates and keys in `directory`."""
    return {
        "etcd-servers": f"http://{LOOPBACK}:{etcd_port}",
        "bind-address": LOOPBACK,
        "advertise-address": LOOPBACK,
        "secure-port": port,
        # It would publish itself as the Service `kubernetes`, whose Endpoints may not be loopback.
        "endpoint-reconciler-type": "none",
        "cert-dir": directory,
        "tls-cert-file": directory / "apiserver.crt",
        "tls-private-key-file": directory / "apiserver.key",
        "client-ca-file": directory / "ca.crt",
        "authentication-config": directory / "authentication.json",
        "authorization-mode": "RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": directory / "service-accounts.key",
        "service-account-signing-key-file": directory / "service-accounts.key",
        "service-cluster-ip-range": "10.0.0.0/16",
        "allow-privileged": "true",
    }


def audit_flags(directory: Path, log: Path) -> Mapping[str, object]:
    """kube-apiserver with the policy in `directory` writes each write into `log`, before it answers."""
    return {"audit-policy-file": directory / "audit.json", "audit-log-path": log, "audit-log-mode": "blocking"}


def controller_manager_flags(directory: Path) -> Mapping[str, object]:
    """kube-controller-manager with the kubeconfig in `directory`."""
    return {
        "kubeconfig": directory / "manager.kubeconfig",
        "controllers": ",".join(CONTROLLERS),
        "leader-elect": "false",
        "root-ca-file": directory / "ca.crt",
        "cluster-signing-cert-file": directory / "ca.crt",
        "cluster-signing-key-file": directory / "ca.key",
        "secure-port": 0,  # it serves nothing that anybody asks here
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
    }
