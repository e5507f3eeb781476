"""Shell completion: for `zerotrust` in three shells, and for `kubectl zerotrust` as kubectl asks its plugins."""

import asyncio
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from zerotrust.cli.cluster import Cluster, Refused, context_namespace
from zerotrust.common.errors import ZerotrustError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_ZEROTRUST_COMPLETE"
PATIENCE = 2.0  # seconds for names from a cluster: who waits at a prompt wants none rather than late ones
MOST = 200
# What kubectl does after our answer (cobra's ShellCompDirective): offer files, or nothing more.
FILES, NOTHING_MORE = ":0", ":4"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell; load it with `source <(zerotrust completion bash)`.

    `kubectl zerotrust` completes by itself where the program kubectl_complete-zerotrust, which comes with this one, is on PATH.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "zerotrust", VARIABLE).source())


def for_kubectl(program: click.Command, words: Sequence[str]) -> str:
    """Answer kubectl: `words` follow `kubectl zerotrust`, the last is incomplete. Source: Kubernetes docs, "kubectl plugins"."""
    *done, incomplete = words or ("",)
    found = ShellComplete(program, {}, "zerotrust", VARIABLE).get_completions(list(done), incomplete)
    lines = [f"{one.value}\t{one.help}" if one.help else str(one.value) for one in found if one.type == "plain"]
    files = any(one.type in ("file", "dir") for one in found)
    return "\n".join([*lines, FILES if files else NOTHING_MORE])


def main() -> None:
    """Entry point of `kubectl_complete-zerotrust`."""
    from zerotrust.cli.main import zerotrust

    click.echo(for_kubectl(zerotrust, sys.argv[1:]))


def names(context: click.Context, kind: str, namespaced: bool, prefix: str, incomplete: str) -> list[CompletionItem]:
    """Names of objects that begin with `incomplete`, each after `prefix`; none where the cluster does not tell at once."""
    kubeconfig, where = (context.params.get(name) for name in ("kubeconfig", "kube_context"))
    namespace = str(context.params.get("namespace") or "")

    async def read() -> list[str]:
        from zerotrust.kube.client import Client, load_configuration
        from zerotrust.kube.resources import BY_KIND
        from zerotrust.telemetry.metrics import Metrics

        place = (namespace or context_namespace(kubeconfig, where)) if namespaced else ""
        async with asyncio.timeout(PATIENCE), Client(await load_configuration(kubeconfig, where), Metrics()) as client:
            found = Cluster(client).every(
                BY_KIND[kind], lambda body: str(body["metadata"]["name"]), place, metadata_only=True
            )
            return await found

    try:
        found = asyncio.run(read())
    except (ZerotrustError, OSError, TimeoutError, Refused):
        return []
    return [CompletionItem(f"{prefix}{name}") for name in sorted(found) if name.startswith(incomplete)][:MOST]
