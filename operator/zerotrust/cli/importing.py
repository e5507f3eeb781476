"""`zerotrust import`: ServiceIdentities and TrustPolicies from cert-manager's Certificates and from NetworkPolicies."""

import asyncio
import json
from collections.abc import Sequence

import click

from zerotrust.cli.manifests import VERSIONS, Body, Manifest, read
from zerotrust.cli.policies import CLUSTER, EXIT_PROBLEM, say
from zerotrust.common.errors import ZerotrustError
from zerotrust.importing import output
from zerotrust.importing.cert_manager import API_VERSION as CERT_MANAGER
from zerotrust.importing.objects import TEMPLATES, World, read_world
from zerotrust.importing.translate import translate

EXIT_COMPLETE, EXIT_LEFT = 0, 1
IMPORTED = {
    **{kind: VERSIONS[kind] for kind in ("Namespace", "TrustDomain", "ServiceIdentity", "TrustPolicy")},
    **TEMPLATES,
    "Service": "v1",
    "ServiceAccount": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Certificate": CERT_MANAGER,
    "Issuer": CERT_MANAGER,
    "ClusterIssuer": CERT_MANAGER,
}
_MAY_BE_MISSING = ("TrustDomain", "ServiceIdentity", "TrustPolicy", "Certificate", "Issuer", "ClusterIssuer")
_PLURALS = {"NetworkPolicy": "networkpolicies", "ServiceIdentity": "serviceidentities", "TrustPolicy": "trustpolicies"}


@click.command("import")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Manifests: file, folder or -.")
@click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NAME", help="Of the cluster; may be repeated.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Every namespace of the cluster.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="yaml: manifests, with the report on standard error; json: both in one document.",
)
@click.option(
    "--trust-domain", metavar="NAME", help="Identities are of this one. [default: the default one, or a proposal]"
)
@click.option(
    "--keep-secret-names",
    is_flag=True,
    help="Write SVIDs into the Secrets of cert-manager: switch at once, not beside.",
)
@click.option("--operator-namespace", envvar="ZEROTRUST_NAMESPACE", default="zerotrust-system", show_default=True)
@click.option("--default-namespace", default="default", help="For manifests that name no namespace.")
@click.option("--kubeconfig", metavar="FILE", help="Cluster to read from; default: KUBECONFIG.")
@click.option("--context", "kube_context", metavar="NAME", help="Context of the kubeconfig.")
@click.pass_context
def import_(
    context: click.Context,
    files: Sequence[str],
    namespaces: Sequence[str],
    everywhere: bool,
    form: str,
    trust_domain: str | None,
    keep_secret_names: bool,
    operator_namespace: str,
    default_namespace: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> None:
    """Write ServiceIdentities and TrustPolicies that say what Certificates and NetworkPolicies say today.

    Reads manifests (-f) or a cluster (-n, -A): Certificates, Issuers, NetworkPolicies, and the workloads, Services and
    ServiceAccounts that tell what they are about. Nothing is written to the cluster, and no Secret is read. What cannot
    be expressed is reported field by field, and the new objects never allow a connection that was not allowed before.

    Exits with 0 when everything is expressed, with 1 when something is left over, with 2 when an input cannot be read.
    """
    if bool(files) + bool(namespaces) + everywhere != 1:
        raise click.UsageError("Give manifests with -f, or namespaces of the cluster with -n, or all of them with -A.")
    try:
        if files:
            world = _world(read(files, default_namespace, IMPORTED))
        else:
            found = asyncio.run(_read_cluster(namespaces, kubeconfig, kube_context))
            places = [one.ref.name for one in found if one.ref.kind == "Namespace"]
            world = _world(found, namespaces or places)
        outcome = translate(
            world,
            trust_domain=trust_domain,
            operator_namespace=operator_namespace,
            keep_secret_names=keep_secret_names,
        )
    except (ZerotrustError, OSError) as error:
        say(f"Error: {error}", err=True)
        context.exit(EXIT_PROBLEM)
    if form == "json":
        click.echo(json.dumps(output.document(outcome), indent=2))
    else:
        click.echo(output.manifests(outcome), nl=False)
        say(output.text(outcome), err=True)
    context.exit(EXIT_LEFT if outcome.left else EXIT_COMPLETE)


def _world(manifests: Sequence[Manifest], complete: Sequence[str] | None = None) -> World:
    return read_world(((one.origin, one.body) for one in manifests), complete)


async def _read_cluster(namespaces: Sequence[str], kubeconfig: str | None, context: str | None) -> list[Manifest]:
    """Read everything that decides; a kind that is missing in part could make the answer wrong, so that is an error."""
    from zerotrust.kube.client import Client, load_configuration
    from zerotrust.kube.errors import NotFound
    from zerotrust.kube.resources import ResourceType
    from zerotrust.telemetry.metrics import Metrics

    found: list[Manifest] = []
    async with Client(await load_configuration(kubeconfig, context), Metrics()) as client:
        for kind, api_version in IMPORTED.items():
            group, _, version = api_version.rpartition("/")
            is_namespaced = kind not in ("Namespace", "TrustDomain", "ClusterIssuer")
            resource = ResourceType(kind, group, version, _PLURALS.get(kind, f"{kind.lower()}s"), is_namespaced)
            for place in namespaces if is_namespaced and namespaces else ("",):
                try:
                    async for items, _ in client.list(resource, namespace=place):
                        found += [Manifest(CLUSTER, _body(kind, body)) for body in items]
                except NotFound:
                    if kind not in _MAY_BE_MISSING:
                        raise
    return found


def _body(kind: str, body: Body) -> Body:
    return {**body, "kind": kind}
