"""`zerotrust keys`: lists ApiKeys, rotates and revokes their keys, and tells whose a key is. No key is ever shown."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import click
import yaml

from zerotrust.apikey.key import BadKey, is_key_id
from zerotrust.apikey.resource import MAX_NAME
from zerotrust.cli import key_inspect, key_list, key_revoke, key_rotate
from zerotrust.cli.key_cluster import ApiKey, Cluster, Refused, in_cluster
from zerotrust.cli.keyless import LIKE_A_KEY, NO_ARGUMENT
from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.common import durations
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.resource import DNS_LABEL, DNS_SUBDOMAIN

EXIT_DONE, EXIT_NOT_YET = 0, 1
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(hours=24)

Command = TypeVar("Command", bound=Callable[..., Any])


class _Keys(click.Group):
    """Refuses a key among the arguments before anything can repeat it in a message."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(LIKE_A_KEY.search(text) for text in args):
            raise click.UsageError(NO_ARGUMENT, ctx)
        return super().parse_args(ctx, args)


class _Text(click.ParamType[str]):
    """A text of a known shape. A wrong one is never repeated: it may be a key that was pasted in the wrong place."""

    def __init__(self, name: str, fits: Callable[[str], bool], advice: str) -> None:
        self.name, self._fits, self._advice = name, fits, advice

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not self._fits(text):
            self.fail(self._advice, param, ctx)
        return text


class _Wait(click.ParamType[timedelta]):
    """A duration in Go syntax."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            found = durations.parse(str(value))
        except ValueError:
            self.fail("is no duration; write for example 90s, 5m or 1h30m", param, ctx)
        if not SHORTEST <= found <= LONGEST:
            self.fail("must be between 1s and 24h", param, ctx)
        return found


def _shape(pattern: str, longest: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= longest and re.fullmatch(pattern, text) is not None


_NAME = _Text(
    "name",
    _shape(DNS_SUBDOMAIN, MAX_NAME),
    f"is no name of an ApiKey; write metadata.name: at most {MAX_NAME} small letters, digits, hyphens and dots",
)
_NAMESPACE = _Text(
    "namespace",
    _shape(DNS_LABEL, 63),
    "is no name of a namespace; write at most 63 small letters, digits and hyphens",
)
_KEY_ID = _Text(
    "id", is_key_id, "is no key's id; write the 12 letters and digits that stand in status.keyID, and no more of a key"
)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_cluster = _options(
    click.option("--kubeconfig", metavar="FILE", help="Cluster; default: KUBECONFIG."),
    click.option("--context", "kube_context", metavar="NAME", help="Context of the kubeconfig."),
)
_one = _options(
    click.argument("name", type=_NAME),
    click.option(
        "-n", "--namespace", type=_NAMESPACE, default="default", show_default=True, help="Namespace of the ApiKey."
    ),
)
_operator = click.option(
    "--operator-namespace",
    type=_NAMESPACE,
    envvar="ZEROTRUST_NAMESPACE",
    default="zerotrust-system",
    show_default=True,
    help="The operator's namespace, where the records of keys are.",
)
_output = click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
_wait = _options(
    click.option("--wait", is_flag=True, help="Wait until it is done everywhere; progress goes to standard error."),
    click.option(
        "--timeout", type=_Wait(), default="5m", show_default=True, metavar="DURATION", help="With --wait: how long."
    ),
)


@click.group("keys", cls=_Keys)
def keys() -> None:
    """List ApiKeys, rotate and revoke their keys, and tell whose a key is.

    No key is ever shown, and none is ever an argument.
    """


@keys.command("list")
@click.option("-n", "--namespace", type=_NAMESPACE, default="default", show_default=True, help="Namespace to list.")
@click.option("-A", "--all-namespaces", is_flag=True, help="List those of every namespace.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table", show_default=True
)
@_cluster
def list_keys(
    namespace: str, all_namespaces: bool, output: str, kubeconfig: str | None, kube_context: str | None
) -> NoReturn:
    """List ApiKeys: what ends first comes first, with the first thing that is wrong of each."""

    async def run(cluster: Cluster) -> int:
        found = key_list.by_end(await cluster.api_keys("" if all_namespaces else namespace))
        if output in ("table", "wide"):
            key_list.show(found, cluster.now, everywhere=all_namespaces, wide=output == "wide")
        else:
            _emit(output, {"apiKeys": [key_list.document(one, cluster.now) for one in found]}, "")
        return EXIT_DONE

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command()
@_one
@_dry_run
@_wait
@_output
@_cluster
def rotate(
    name: str,
    namespace: str,
    dry_run: bool,
    wait: bool,
    timeout: timedelta,
    output: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Ask for a new key now. The old one stays good for `spec.rotation.overlap`.

    Writes the present time into `spec.rotation.requestedAt`. While a request is under way nothing is written anew.

    Exits with 0 when it is done, with 1 when --wait saw no new key in time, with 2 when it cannot be done.
    """

    async def run(cluster: Cluster) -> int:
        asked = await key_rotate.request(cluster, namespace, name, dry_run=dry_run)
        words = key_rotate.in_words(asked, dry_run=dry_run)
        if not wait or dry_run:
            _emit(output, key_rotate.document(asked, None, dry_run=dry_run), words)
            return EXIT_DONE
        _emit_first(output, words)
        followed = await key_rotate.wait(cluster, asked, timeout)
        _emit(output, key_rotate.document(asked, followed, dry_run=False), key_rotate.outcome(followed, asked))
        return EXIT_DONE if followed.ending == "done" else EXIT_NOT_YET

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command()
@_one
@click.option("--key-id", "key_ids", type=_KEY_ID, multiple=True, metavar="ID", help="This key; may be repeated.")
@click.option("--current", is_flag=True, help="The key in use. A new one follows by itself.")
@click.option("--all", "everything", is_flag=True, help="Every key that is good now.")
@_dry_run
@_wait
@_output
@_operator
@_cluster
def revoke(
    name: str,
    namespace: str,
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
    if sum((bool(key_ids), current, everything)) > 1:
        raise click.UsageError("Give one of --key-id, --current and --all.")
    choice = key_revoke.Choice(key_ids, current, everything)

    async def run(cluster: Cluster) -> int:
        made = await key_revoke.revoke(cluster, namespace, name, choice, operator_namespace, dry_run=dry_run)
        if made.unsure:
            say(f"Warning: {made.unsure}", err=True)
        words = key_revoke.in_words(made, dry_run=dry_run)
        if not wait or dry_run:
            _emit(output, key_revoke.document(made, None, dry_run=dry_run), words)
            return EXIT_DONE
        _emit_first(output, words)
        followed = await key_revoke.wait(cluster, made, timeout)
        _emit(output, key_revoke.document(made, followed, dry_run=False), key_revoke.outcome(followed, made))
        return EXIT_DONE if followed.ending == "done" else EXIT_NOT_YET

    raise SystemExit(in_cluster(kubeconfig, kube_context, run))


@keys.command(options_metavar="[OPTIONS] < FILE")
@click.argument("given", nargs=-1, metavar="")
@click.option("-n", "--namespace", type=_NAMESPACE, help="Look in this namespace only. [default: all]")
@_output
@_operator
@_cluster
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
        _emit(output, key_inspect.document(judged), key_inspect.in_words(judged))
        raise SystemExit(key_inspect.EXIT_CODES[judged.verdict]) from None
    except ZerotrustError as error:
        say(f"Error: {error}", err=True)
        raise SystemExit(EXIT_PROBLEM) from None

    async def run(cluster: Cluster) -> int:
        records = await cluster.records(operator_namespace, namespace or "")
        judged = key_inspect.judge(key, await _readable(cluster, namespace), records, cluster.now)
        _emit(output, key_inspect.document(judged), key_inspect.in_words(judged))
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


def _emit(output: str, document: Mapping[str, Any], words: str) -> None:
    match output:
        case "json":
            click.echo(json.dumps(document, indent=2))
        case "yaml":
            click.echo(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=False).removesuffix("\n"))
        case _:
            say(words)


def _emit_first(output: str, words: str) -> None:
    """Before the wait: part of the answer for people, and kept out of the one document for scripts."""
    say(words, err=output != "text")
    sys.stdout.flush()
