"""Workloads as clusters have them, of namespaces that ask for nothing of ours: no policy may refuse any, or warn."""

from collections.abc import Iterator, Mapping
from typing import Any

Body = dict[str, Any]

ACCOUNTS = ("exporter", "controller", "builder")
_IMAGE = {"image": "quay.io/example/app:1.2.3"}


def _container(name: str = "main", **more: Any) -> Body:
    return {"name": name, **_IMAGE, **more}


def _object(version: str, kind: str, name: str, **fields: Any) -> Body:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


def _pod(name: str, labels: Mapping[str, str] | None = None, **spec: Any) -> Body:
    body = _object("v1", "Pod", name, spec={"containers": [_container()], **spec})
    if labels:
        body["metadata"]["labels"] = dict(labels)
    return body


def _template(name: str, **spec: Any) -> Body:
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [_container()], **spec}}


def _workload(kind: str, name: str, template: Body, **spec: Any) -> Body:
    return _object(
        "apps/v1", kind, name, spec={"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    )


def _service(name: str, **spec: Any) -> Body:
    return _object("v1", "Service", name, spec={"ports": [{"name": "http", "port": 80}], **spec})


def _host_paths(**paths: str) -> list[Body]:
    return [{"name": name, "hostPath": {"path": path}} for name, path in paths.items()]


def _token(audience: str) -> Body:
    return {"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 3600}}


def _claim(size: str) -> Body:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def _batch() -> Iterator[Body]:
    never = {"restartPolicy": "Never"}
    yield _object("batch/v1", "Job", "migration", spec={"template": {"spec": {"containers": [_container()], **never}}})
    yield _object(
        "batch/v1",
        "Job",
        "indexed",
        spec={
            "completions": 3,
            "completionMode": "Indexed",
            "template": {"spec": {"containers": [_container(envFrom=[{"secretRef": {"name": "queue"}}])], **never}},
        },
    )
    yield _object(
        "batch/v1",
        "CronJob",
        "backup",
        spec={
            "schedule": "0 3 * * *",
            "jobTemplate": {
                "spec": {
                    "template": {
                        "spec": {
                            "serviceAccountName": "builder",
                            "restartPolicy": "OnFailure",
                            "containers": [_container()],
                            "volumes": [{"name": "credentials", "secret": {"secretName": "s3", "defaultMode": 256}}],
                        }
                    }
                }
            },
        },
    )


def _daemons() -> Iterator[Body]:
    yield _workload(
        "DaemonSet",
        "node-exporter",
        _template(
            "node-exporter",
            serviceAccountName="exporter",
            hostNetwork=True,
            hostPID=True,
            containers=[_container(ports=[{"name": "metrics", "containerPort": 9100, "hostPort": 9100}])],
            volumes=_host_paths(proc="/proc", sys="/sys", root="/"),
            tolerations=[{"operator": "Exists"}],
        ),
    )
    yield _workload(
        "DaemonSet",
        "cni-agent",
        _template(
            "cni-agent",
            hostNetwork=True,
            priorityClassName="system-node-critical",
            initContainers=[_container("install-cni", securityContext={"privileged": True})],
            containers=[_container(securityContext={"privileged": True}, env=[{"name": "N", "valueFrom": _FIELD}])],
            volumes=_host_paths(bin="/opt/cni/bin", net="/etc/cni/net.d", run="/var/run/cni"),
        ),
    )
    yield _workload(
        "DaemonSet",
        "log-collector",
        _template("log-collector", serviceAccountName="exporter", volumes=_host_paths(log="/var/log")),
    )
    yield _workload(
        "DaemonSet",
        "ingress-nginx",
        _template(
            "ingress-nginx",
            containers=[
                _container(
                    ports=[{"containerPort": 80, "hostPort": 80}, {"containerPort": 443, "hostPort": 443}],
                    securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"]}},
                )
            ],
        ),
    )
    yield _workload(
        "DaemonSet",
        "csi-node",
        _template(
            "csi-node",
            hostIPC=True,
            containers=[_container("registrar"), _container("driver", securityContext={"privileged": True})],
            volumes=_host_paths(plugins="/var/lib/kubelet/plugins", dev="/dev"),
        ),
    )


_FIELD = {"fieldRef": {"fieldPath": "spec.nodeName"}}


def _servers() -> Iterator[Body]:
    yield _workload("Deployment", "web", _template("web"), replicas=3)
    yield _workload(
        "Deployment",
        "operator",
        _template(
            "operator",
            serviceAccountName="controller",
            automountServiceAccountToken=True,
            imagePullSecrets=[{"name": "registry"}],
            containers=[
                _container(
                    env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "operator-key", "key": "key"}}}],
                    volumeMounts=[{"name": "certificate", "mountPath": "/certificate"}],
                )
            ],
            volumes=[{"name": "certificate", "secret": {"secretName": "webhook-server-tls"}}],
        ),
    )
    yield _workload(
        "Deployment",
        "injected",
        _template(
            "injected",
            initContainers=[
                _container("istio-init", securityContext={"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}),
                _container("istio-proxy", restartPolicy="Always", ports=[{"containerPort": 15090}]),
            ],
            volumes=[
                {"name": "istio-token", "projected": {"sources": [_token("istio-ca")]}},
                {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
            ],
        ),
    )
    yield _workload(
        "Deployment", "linkerd", _template("linkerd", containers=[_container(), _container("linkerd-proxy")])
    )
    yield _workload(
        "StatefulSet",
        "postgres",
        _template(
            "postgres",
            containers=[
                _container(
                    envFrom=[{"secretRef": {"name": "postgres"}}, {"configMapRef": {"name": "postgres"}}],
                    volumeMounts=[{"name": "data", "mountPath": "/data"}],
                )
            ],
        ),
        serviceName="postgres",
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": _claim("10Gi")}],
    )
    yield _workload("StatefulSet", "kafka", _template("kafka", subdomain="kafka"), serviceName="kafka", replicas=3)
    yield _workload("ReplicaSet", "bare-set", _template("bare-set"))
    yield _object(
        "v1",
        "ReplicationController",
        "old",
        spec={"selector": {"app": "old"}, "template": _template("old")},
    )


def _pods() -> Iterator[Body]:
    yield _pod("plain")
    yield _pod("named-default", serviceAccountName="default", automountServiceAccountToken=False)
    yield _pod("older-field", serviceAccount="builder")
    yield _pod("labelled", {"app": "ledger", "app.kubernetes.io/name": "ledger", "tier": "", "version": "1.2.3"})
    yield _pod(
        "projected",
        volumes=[
            {
                "name": "all",
                "projected": {
                    "sources": [
                        _token("vault"),
                        {"secret": {"name": "one", "items": [{"key": "a", "path": "b"}]}},
                        {"configMap": {"name": "two", "optional": True}},
                        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    ]
                },
            }
        ],
    )
    csi = {"driver": "secrets-store.csi.k8s.io", "readOnly": True, "volumeAttributes": {"secretProviderClass": "vault"}}
    yield _pod("csi", volumes=[{"name": "s", "csi": csi}])
    yield _pod(
        "csi-with-secret",
        volumes=[{"name": "s", "csi": {"driver": "cifs.example.org", "nodePublishSecretRef": {"name": "share"}}}],
    )
    yield _pod("scratch", volumes=[{"name": "s", "ephemeral": {"volumeClaimTemplate": {"spec": _claim("1Gi")}}}])
    yield _pod("claims", volumes=[{"name": "s", "persistentVolumeClaim": {"claimName": "data"}}])
    nfs = {"server": "nfs.example.org", "path": "/srv"}
    yield _pod("network-volumes", volumes=[{"name": "a", "nfs": nfs}, {"name": "b", "azureFile": _AZURE}])
    yield _pod("oci-volume", volumes=[{"name": "model", "image": {"reference": "quay.io/example/model:1"}}])
    # As the scheduler and a static pod's manifest leave them.
    yield _pod("static-like", {"component": "etcd"}, hostNetwork=True, nodeName="node-1", priority=0, **_ON_HOST)
    yield _pod("by-digest", containers=[{"name": "main", "image": "ghcr.io/example/app@sha256:" + "a" * 64}])
    yield _pod("short-image", containers=[{"name": "main", "image": "busybox"}])
    yield _pod("gpu", containers=[_container(resources={"limits": {"nvidia.com/gpu": "1"}})])
    yield _pod("shares-processes", shareProcessNamespace=True, containers=[_container("a"), _container("b")])
    yield _pod("user-namespace", hostUsers=False)
    yield _pod("windows", os={"name": "windows"}, nodeSelector={"kubernetes.io/os": "windows"})
    yield _pod("gated", schedulingGates=[{"name": "example.org/quota"}])
    yield _object("v1", "PodTemplate", "kept", template=_template("kept"))


_AZURE = {"secretName": "azure", "shareName": "share"}
_ON_HOST: Mapping[str, Any] = {"volumes": _host_paths(data="/var/lib/etcd"), "tolerations": [{"operator": "Exists"}]}


def _network() -> Iterator[Body]:
    yield _service("web", selector={"app": "web"})
    yield _service("public", selector={"app": "web"}, type="LoadBalancer")
    yield _service("node-port", selector={"app": "web"}, type="NodePort")
    yield _service("postgres", selector={"app": "postgres"}, clusterIP="None", publishNotReadyAddresses=True)
    yield _service("alias", type="ExternalName", externalName="database.example.com", ports=None)
    yield _service("internal-alias", type="ExternalName", externalName="web.default.svc.cluster.local", ports=None)
    yield _service("external-addresses", selector={"app": "web"}, externalIPs=["203.0.113.7"])
    yield _service("elsewhere")
    yield _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "elsewhere-1",
        addressType="IPv4",
        ports=[{"name": "http", "port": 80}],
        endpoints=[{"addresses": ["192.0.2.10"]}],
    )
    address = {"addresses": [{"ip": "192.0.2.11"}], "ports": [{"name": "http", "port": 80}]}
    yield _object("v1", "Endpoints", "elsewhere", subsets=[address])
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    yield _object(
        "networking.k8s.io/v1",
        "Ingress",
        "web",
        spec={
            "tls": [{"hosts": ["www.example.org"], "secretName": "www-tls"}],
            "rules": [{"host": "www.example.org", "http": {"paths": [path]}}],
        },
    )
    yield _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "allow-web",
        spec={"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}], "policyTypes": ["Ingress"]},
    )
    yield _object("v1", "Secret", "operator-key", type="Opaque", stringData={"key": "value"})
    yield _object("v1", "ConfigMap", "postgres", data={"a": "b"})
    yield _object("v1", "PersistentVolumeClaim", "data", spec=_claim("1Gi"))


def workloads(namespace: str) -> list[Body]:
    """Everything, in a namespace, each under a name that is no other's of its kind."""
    found = [*_servers(), *_daemons(), *_batch(), *_pods(), *_network()]
    for body in found:
        body["metadata"]["namespace"] = namespace
        if body["kind"] == "EndpointSlice":
            body["metadata"]["labels"] = {"kubernetes.io/service-name": "elsewhere"}
    return found


def pod_of(workload: Body) -> Body | None:
    """The pod that a controller would make of a workload; None for what has no template."""
    spec = workload.get("spec", {})
    template = workload.get("template") or spec.get("template")
    if workload["kind"] == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
    if template is None:
        return None
    name = f"{workload['metadata']['name']}-{workload['kind'].lower()}-0"
    metadata = {**template.get("metadata", {}), "name": name, "namespace": workload["metadata"]["namespace"]}
    claims = [one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])]
    volumes = [{"name": one, "persistentVolumeClaim": {"claimName": f"{one}-{name}"}} for one in claims]
    inner = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": inner}
