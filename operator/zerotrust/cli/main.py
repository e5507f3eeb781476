"""The command line: `zerotrust …`."""

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

import click

from zerotrust import __version__
from zerotrust.cli import plugin
from zerotrust.cli.diff import diff
from zerotrust.cli.explain import explain
from zerotrust.cli.forwarding import forward_auth
from zerotrust.cli.graph import graph
from zerotrust.cli.importing import import_
from zerotrust.cli.keyless import Keyless
from zerotrust.cli.keys import keys
from zerotrust.cli.policy_tests import test
from zerotrust.cli.render import render
from zerotrust.cli.verify import verify
from zerotrust.common.errors import ZerotrustError
from zerotrust.telemetry.logs import LogFormat, configure

if TYPE_CHECKING:  # imported where they are needed: `zerotrust explain` starts in a tenth of the time without them
    from kubernetes.aio.client import Configuration

    from zerotrust.cli.app import Process


def _address_ranges(
    _: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write for example 10.20.0.0/16 or fd00:10::/64", param=parameter) from None


_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 label


def _namespaces(_: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise click.BadParameter(f"{name!r} is no name of a namespace; write for example shop", param=parameter)
    return names


watch_namespace = click.option(
    "--watch-namespace",
    "watch_namespaces",
    envvar="ZEROTRUST_WATCH_NAMESPACES",
    multiple=True,
    metavar="NAME",
    callback=_namespaces,
    help="Work in this namespace and the operator's own only, so that Roles are enough; may be repeated, in the variable"
    " divided by spaces. [default: the whole cluster]",
)


@click.group(cls=Keyless, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zerotrust")
def zerotrust() -> None:
    """Zero trust on Kubernetes from one source of intent."""


@zerotrust.command()
@click.option(
    "--namespace",
    envvar="ZEROTRUST_NAMESPACE",
    default="zerotrust-system",
    show_default=True,
    help="The operator's own namespace: authority keys and the Lease live there.",
)
@watch_namespace
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Default: KUBECONFIG, or in-cluster.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--metrics-host", default="0.0.0.0", show_default=True, help="Address of /metrics, /healthz and /readyz.")  # noqa: S104
@click.option(
    "--metrics-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Their port; 0: any."
)
@click.option(
    "--bundle-server",
    default="",
    metavar="URL",
    help="Where decision points find the bundle server. [default: its Service, https://…svc:8443]",
)
@click.option(
    "--allow-private-issuers",
    "private_issuers",
    multiple=True,
    metavar="CIDR",
    callback=_address_ranges,
    help="Fetch identity providers' keys from this address range although it is not public; may be repeated.",
)
@click.option(
    "--watch-pods/--no-watch-pods",
    default=True,
    show_default=True,
    help="Watch pods (labels and ServiceAccount are kept) for the condition PodsMatch.",
)
@click.option(
    "--native-policies-after",
    default=45,
    show_default=True,
    type=click.IntRange(0, 3600),
    metavar="SECONDS",
    help="Wait so long after Gatekeeper has made the kinds of constraints, before the API server is asked to enforce them"
    " by itself. Below 30 it may refuse all writes for a moment.",
)
@click.option("--workers", default=48, show_default=True, type=click.IntRange(1, 256), help="Concurrent reconciles.")
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def controller(
    namespace: str,
    watch_namespaces: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    metrics_host: str,
    metrics_port: int,
    bundle_server: str,
    private_issuers: tuple[IPv4Network | IPv6Network, ...],
    watch_pods: bool,
    native_policies_after: int,
    workers: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Run the controller: watch, reconcile, write. Stops on SIGTERM and Ctrl-C and gives its Lease back."""
    from zerotrust.cli.app import Controller, Options
    from zerotrust.kube.client import load_configuration

    configure(log_format, log_level)
    options = Options(
        namespace=namespace,
        watch_namespaces=watch_namespaces,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        workers=workers,
        bundle_server=bundle_server,
        private_issuers=private_issuers,
        watch_pods=watch_pods,
        native_policies_after=timedelta(seconds=native_policies_after),
    )

    _run_forever(lambda: load_configuration(kubeconfig, context), lambda found: Controller(found, options))


@zerotrust.command("bundle-server")
@click.option(
    "--namespace",
    envvar="ZEROTRUST_NAMESPACE",
    default="zerotrust-system",
    show_default=True,
    help="The operator's own namespace.",
)
@watch_namespace
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Default: KUBECONFIG, or in-cluster.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to serve on.")  # noqa: S104
@click.option("--port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="Its port; 0: any.")
@click.option(
    "--svid",
    default="/var/run/secrets/zerotrust/svid",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the server's own SVID: tls.crt, tls.key and ca.crt, read again when they change.",
)
@click.option("--pod", envvar="POD_NAME", help="This replica's name. [default: the host's]")
@click.option("--pod-uid", envvar="POD_UID", default="", help="Owner of the replica's report.")
@click.option("--metrics-host", default="0.0.0.0", show_default=True, help="Address of /metrics, /healthz and /readyz.")  # noqa: S104
@click.option(
    "--metrics-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Their port; 0: any."
)
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def bundle_server(
    namespace: str,
    watch_namespaces: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    host: str,
    port: int,
    svid: Path,
    pod: str | None,
    pod_uid: str,
    metrics_host: str,
    metrics_port: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Serve signed policy bundles to decision points, and take their reports. Stops on SIGTERM and Ctrl-C."""
    from zerotrust.bundleserver.tls import TlsFiles
    from zerotrust.cli.serving import BundleServing, ServingOptions
    from zerotrust.kube.client import load_configuration

    configure(log_format, log_level)
    options = ServingOptions(
        tls=TlsFiles(svid / "tls.crt", svid / "tls.key", svid / "ca.crt"),
        namespace=namespace,
        watch_namespaces=watch_namespaces,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        pod=pod or socket.gethostname(),
        pod_uid=pod_uid,
    )
    _run_forever(lambda: load_configuration(kubeconfig, context), lambda found: BundleServing(found, options))


def _run_forever(
    configured: Callable[[], Awaitable["Configuration"]], process: Callable[["Configuration"], "Process"]
) -> NoReturn:
    """Run a process until a signal comes, and exit with its code."""
    from zerotrust.cli.app import run_until_signal

    async def run() -> int:
        try:
            await run_until_signal(process(await configured()))
        except (ZerotrustError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
        except ExceptionGroup as group:
            click.echo(f"Error: {'; '.join(_leaves(group))}", err=True)
        else:
            return 0
        return 1

    # Not asyncio.run(): at its end that waits for every task, and kopf has some that do not let themselves be cancelled.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(run())
    # Nothing is left to say about tasks that end with the process.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    raise SystemExit(code)


zerotrust.add_command(diff)
zerotrust.add_command(explain)
zerotrust.add_command(forward_auth)
zerotrust.add_command(graph)
zerotrust.add_command(import_)
zerotrust.add_command(keys)
zerotrust.add_command(render)
zerotrust.add_command(test)
zerotrust.add_command(verify)
plugin.add_to(zerotrust)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return [
        text
        for error in group.exceptions
        for text in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error) or type(error).__name__])
    ]


def main() -> None:
    """Entry point of the `zerotrust` script."""
    zerotrust(prog_name="zerotrust")


def as_kubectl_plugin() -> None:
    """Entry point of `kubectl-zerotrust`, which kubectl runs as `kubectl zerotrust`."""
    zerotrust(prog_name="kubectl zerotrust")
