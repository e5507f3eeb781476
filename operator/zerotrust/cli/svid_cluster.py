"""SVIDs of a cluster, as `zerotrust verify` reads them: Secrets by name, identities by name, or all of a namespace."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zerotrust.cli.kinds import kind_called
from zerotrust.common import naming
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.pki.conformance import UnreadableInput

if TYPE_CHECKING:
    from zerotrust.cli.cluster import Cluster

Secret = Mapping[str, object]


@dataclass(frozen=True)
class Asked:
    """Which SVIDs: names of Secrets, names of ServiceIdentities, or with `all` every one of the namespace or cluster."""

    secrets: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    all: bool = False
    everywhere: bool = False

    def __bool__(self) -> bool:
        return bool(self.secrets or self.identities or self.all or self.everywhere)


def asked_of(files: Sequence[str]) -> tuple[Asked, list[str]]:
    """Divide arguments into objects of the cluster and files; a file of such a name is given as ./svid/NAME."""
    secrets, identities, rest = list[str](), list[str](), list[str]()
    for text in files:
        word, slash, name = text.partition("/")
        if slash and name and word == "secret":
            secrets.append(name)
        elif slash and name and kind_called(word) is SERVICE_IDENTITY:
            identities.append(name)
        else:
            rest.append(text)
    return Asked(tuple(secrets), tuple(identities)), rest


def read(asked: Asked, namespace: str | None, kubeconfig: str | None, context: str | None) -> list[Secret]:
    """Read them; UnreadableInput says what could not be read and why."""
    from zerotrust.cli.cluster import Cluster, context_namespace, in_words
    from zerotrust.kube.client import Client, load_configuration
    from zerotrust.kube.errors import KubeError
    from zerotrust.telemetry.metrics import Metrics

    async def run() -> list[Secret]:
        place = namespace or context_namespace(kubeconfig, context)
        async with Client(await load_configuration(kubeconfig, context), Metrics()) as client:
            return await _read(Cluster(client), asked, place)

    try:
        return asyncio.run(run())
    except KubeError as error:
        raise UnreadableInput("the cluster", in_words(error)) from None
    except (ZerotrustError, OSError) as error:
        raise UnreadableInput("the cluster", str(error)) from None


async def _read(cluster: "Cluster", asked: Asked, namespace: str) -> list[Secret]:
    from zerotrust.kube.resources import SECRETS

    if asked.all or asked.everywhere:
        component = f"{naming.MANAGED_SELECTOR},{naming.COMPONENT}={naming.COMPONENT_SVID}"
        svids = replace(SECRETS, selector=component)
        return await cluster.every(
            svids, lambda body: {**body, "kind": "Secret"}, "" if asked.everywhere else namespace
        )
    names = list(asked.secrets)
    for name in asked.identities:
        body = await cluster.read(Ref("ServiceIdentity", namespace, name))
        secret = (body.get("status") or {}).get("secretName")
        if secret is None:
            raise UnreadableInput(
                "the cluster", f"ServiceIdentity {namespace}/{name} has no Secret yet; `zerotrust why` says more"
            )
        names.append(str(secret))
    return [await cluster.read(Ref("Secret", namespace, name)) for name in names]
