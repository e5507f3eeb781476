"""Pods from the smallest to those with every optional field that the ConstraintTemplates read, from a seed."""

from random import Random
from typing import Any

Body = dict[str, Any]

ACCOUNTS = ("orders", "billing", "reports", "web", "default")
SECRETS = ("orders-svid", "partner-x-api-key", "archived", "web-svid", "registry")
IMAGES = (
    "nginx",
    "example.org/team/app:1",
    "example.org/team/app@sha256:" + "0" * 64,
    "docker.io/nginx:1.27",
    "localhost:5000/x/y:z",
    "not an image",
    "EXAMPLE.ORG/x",
    ":",
    "/",
    "@",
    "a@b@c",
    "a/b:c/d:e",
    "[::1]:5000/x",
)
LABELS = ("app", "tier", "legacy", "stage", "zerotrust.dev/service-account")
VALUES = ("orders", "billing", "reports", "dev", "", "web")


def a_random_pod(seed: int) -> Body:
    """Return the pod of this seed, always the same; each seed leaves out another share of what is optional."""
    return _Maker(seed).pod()


class _Maker:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._seed = seed
        self._share = (seed % 11) / 10

    def pod(self) -> Body:
        metadata = {"name": f"pod-{self._seed}", "namespace": "shop"}
        pod: Body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["metadata"] |= self._some(labels=self._labels(), annotations={"a": "b"}, generateName="pod-")
        if self._share > 0 or self._seed % 2:
            pod["spec"] = self._spec()
        return pod

    def _some(self, **fields: Any) -> Body:
        return {name: value for name, value in fields.items() if self._random.random() < self._share}

    def _one(self, values: tuple[str, ...]) -> str:
        return self._random.choice(values)

    def _labels(self) -> Body:
        return self._some(**{name: self._one(VALUES) for name in LABELS})

    def _spec(self) -> Body:
        spec: Body = {"containers": [self._container(f"c{index}") for index in range(self._random.randint(0, 3))]}
        return spec | self._some(
            serviceAccountName=self._one((*ACCOUNTS, "")),
            serviceAccount=self._one(ACCOUNTS),
            hostNetwork=self._random.random() < 0.5,
            hostPID=self._random.random() < 0.5,
            hostIPC=self._random.random() < 0.5,
            imagePullSecrets=[self._some(name=self._one(SECRETS)) for _ in range(self._random.randint(0, 2))],
            initContainers=[self._container("i0")],
            ephemeralContainers=[self._container("e0")],
            volumes=[self._volume(f"v{index}") for index in range(self._random.randint(0, 6))],
        )

    def _container(self, name: str) -> Body:
        ports = [
            self._some(name="https", containerPort=8443, hostPort=self._random.choice((0, 443)), protocol="TCP")
            for _ in range(self._random.randint(0, 2))
        ]
        env = [
            {"name": "E", **self._some(value="v", valueFrom=self._value_from())}
            for _ in range(self._random.randint(0, 3))
        ]
        env_from = [
            self._some(prefix="P", configMapRef={"name": "c"}, secretRef=self._reference())
            for _ in range(self._random.randint(0, 2))
        ]
        return {"name": name, **self._some(image=self._one(IMAGES), ports=ports, env=env, envFrom=env_from)}

    def _value_from(self) -> Body:
        return self._some(
            secretKeyRef=self._reference() | {"key": "k"}, fieldRef={"fieldPath": "metadata.name"}, configMapKeyRef={}
        )

    def _reference(self) -> Body:
        return self._some(name=self._one(SECRETS))

    def _volume(self, name: str) -> Body:
        sources = [
            self._some(secret=self._reference(), serviceAccountToken={"path": "t"}, configMap={})
            for _ in range(self._random.randint(0, 3))
        ]
        kinds: dict[str, Body] = {
            "emptyDir": {},
            "secret": self._some(secretName=self._one(SECRETS)),
            "projected": self._some(sources=sources),
            "csi": {"driver": "x", **self._some(nodePublishSecretRef=self._reference(), volumeAttributes={"a": "b"})},
            "azureFile": self._some(secretName=self._one(SECRETS)),
            "image": self._some(reference=self._one(IMAGES), pullPolicy="Always"),
            "persistentVolumeClaim": {"claimName": "c"},
            "ephemeral": {"volumeClaimTemplate": {"spec": {}}},
        }
        for kind in ("flexVolume", "iscsi", "rbd", "cephfs", "cinder", "scaleIO", "storageos"):
            kinds[kind] = self._some(secretRef=self._reference())
        kind = self._one(tuple(kinds))
        return {"name": name, kind: kinds[kind]}
