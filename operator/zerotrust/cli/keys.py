"""`zerotrust keys`: lists ApiKeys, rotates and revokes their keys, and tells whose a key is. No key is ever shown."""

from datetime import timedelta
from typing import NoReturn

import click

from zerotrust.apikey.key import BadKey, is_key_id
from zerotrust.apikey.resource import MAX_NAME
from zerotrust.cli import key_inspect, key_list, key_revoke, key_rotate
from zerotrust.cli.cluster import Refused
from zerotrust.cli.key_cluster import ApiKey, Cluster, in_cluster
from zerotrust.cli.keyless import LIKE_A_KEY, NO_ARGUMENT
from zerotrust.cli.options import (
    NAMESPACE,
    ShapedText,
    cluster_options,
    dry_run_option,
    emit,
    namespace_option,
    operator_option,
    options,
    output_option,
    shape,
    timeout_option,
)
from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.resource import DNS_SUBDOMAIN


class _Keys(click.Group):
    """Refuses a key among the arguments before anything can repeat it in a message."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(LIKE_A_KEY.search(text) for text in args):
            raise click.UsageError(NO_ARGUMENT, ctx)
        return super().parse_args(ctx, args)


_NAME = ShapedText(
    "name",
    shape(DNS_SUBDOMAIN, MAX_NAME),
    f"is no name of an ApiKey; write metadata.name: at most {MAX_NAME} small letters, digits, hyphens and dots",
)
KEY_ID = ShapedText(
    "id", is_key_id, "is no key's id; write the 12 letters and digits that stand in status.keyID, and no more of a key"
)

_one = options(click.argument("name", type=_NAME), namespace_option)
_wait = options(
    click.option("--wait", is_flag=True, help="Wait until it is done everywhere; progress goes to standard error."),
    timeout_option,
)
# Which keys of an ApiKey are revoked.
choice_options = options(
    click.option("--key-id", "key_ids", type=KEY_ID, multiple=True, metavar="ID", help="This key; may be repeated."),
    click.option("--current", is_flag=True, help="The key in use. A new one follows by itself."),
    click.option("--all", "everything", is_flag=True, help="Every key that is good now."),
)


@click.group("keys", cls=_Keys)
def keys() -> None:
    """List ApiKeys, rotate and revoke their keys, and tell whose a key is.

    No key is ever shown, and none is ever an argument.
    """


@keys.command("list")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="List those of every namespace.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table", show_default=True
)
@cluster_options
def list_keys(
    namespace: str | None, all_namespaces: bool, output: str, kubeconfig: str | None, kube_context: str | None
) -> NoReturn:
    """List ApiKeys: what ends first comes first, with the first thing that is wrong of each."""

    async def run(cluster: Cluster) -> int:
        found = key_list.by_end(await cluster.api_keys("" if all_namespaces else namespace or cluster.namespace))
        if output in ("table", "wide"):
            key_list.show(found, cluster.now, everywhere=all_namespaces, wide=output == "wide")
        else:
            emit(output, {"apiKeys": [key_list.document(one, cluster.now) for one in found]}, "")
        return 0

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command()
@_one
@dry_run_option
@_wait
@output_option
@cluster_options
def rotate(
    name: str,
    namespace: str | None,
    dry_run: bool,
    wait: bool,
    timeout: timedelta,
    output: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Ask for a new key now. The old one stays good for `spec.rotation.overlap`.

    Writes the present time into an annotation, which a deployment from git leaves alone. While a request is under way nothing
    is written anew.

    Exits with 0 when it is done, with 1 when --wait saw no new key in time, with 2 when it cannot be done.
    """

    async def run(cluster: Cluster) -> int:
        place = (namespace or cluster.namespace, name)
        return await key_rotate.carry_out(cluster, place, timeout if wait else None, output, dry_run=dry_run)

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command()
@_one
@choice_options
@dry_run_option
@_wait
@output_option
@operator_option
@cluster_options
def revoke(
    name: str,
    namespace: str | None,
    key_ids: tuple[str, ...],
    current: bool,
    everything: bool,
    dry_run: bool,
    wait: bool,
    timeout: timedelta,
    output: str,
    operator_namespace: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Refuse keys for good. Without a choice, say which are good now and what to write.

    Adds to `spec.revokedKeyIDs` and takes nothing off it.

    Exits with 0 when it is done, with 1 when --wait saw decision points lag, with 2 when it cannot be done.
    """
    choice = key_revoke.Choice(key_ids, current, everything)

    async def run(cluster: Cluster) -> int:
        place = (namespace or cluster.namespace, name)
        patience = timeout if wait else None
        return await key_revoke.carry_out(cluster, place, choice, operator_namespace, patience, output, dry_run=dry_run)

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command(options_metavar="[OPTIONS] < FILE")
@click.argument("given", nargs=-1, metavar="")
@click.option("-n", "--namespace", type=NAMESPACE, help="Look in this namespace only. [default: all]")
@output_option
@operator_option
@cluster_options
def inspect(
    given: tuple[str, ...],
    namespace: str | None,
    output: str,
    operator_namespace: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Tell whose a key is, and whether it is good. The key comes on standard input, or is typed without echo.

    Only its id is shown. With rights to read the records in the operator's namespace its digest is compared; without them
    only what ApiKeys tell of ids is known, which proves nothing.

    Exits with 0 when the key is good, with 1 when it is refused, unknown or could not be compared, with 2 when it is no
    key or the cluster cannot be asked.
    """
    if given:
        raise click.UsageError(NO_ARGUMENT)
    try:
        key = key_inspect.read_key()
    except BadKey as error:
        judged = key_inspect.malformed(error)
        emit(output, key_inspect.document(judged), key_inspect.in_words(judged))
        raise SystemExit(key_inspect.EXIT_CODES[judged.verdict]) from None
    except ZerotrustError as error:
        say(f"Error: {error}", err=True)
        raise SystemExit(EXIT_PROBLEM) from None

    async def run(cluster: Cluster) -> int:
        records = await cluster.records(operator_namespace, namespace or "")
        judged = key_inspect.judge(key, await _readable(cluster, namespace), records, cluster.now)
        emit(output, key_inspect.document(judged), key_inspect.in_words(judged))
        return key_inspect.EXIT_CODES[judged.verdict]

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


async def _readable(cluster: Cluster, namespace: str | None) -> list[ApiKey]:
    from zerotrust.kube.errors import Forbidden

    try:
        return await cluster.api_keys(namespace or "")
    except Forbidden as error:
        if namespace:
            raise
        raise Refused(f"{error}; to look in one namespace only, give -n NAMESPACE") from None
