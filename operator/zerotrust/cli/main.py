"""The command line: `zerotrust …`."""

import asyncio
import logging
from typing import get_args

import click

from zerotrust import __version__
from zerotrust.cli.diff import diff
from zerotrust.cli.explain import explain
from zerotrust.cli.graph import graph
from zerotrust.cli.policy_tests import test
from zerotrust.cli.render import render
from zerotrust.cli.verify import verify
from zerotrust.common.errors import ZerotrustError
from zerotrust.telemetry.logs import LogFormat, configure


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Default: KUBECONFIG, or in-cluster.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--metrics-host", default="0.0.0.0", show_default=True, help="Address of /metrics, /healthz and /readyz.")  # noqa: S104
@click.option(
    "--metrics-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Their port; 0: any."
)
@click.option("--workers", default=48, show_default=True, type=click.IntRange(1, 256), help="Concurrent reconciles.")
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def controller(
    namespace: str,
    kubeconfig: str | None,
    context: str | None,
    metrics_host: str,
    metrics_port: int,
    workers: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Run the controller: watch, reconcile, write. Stops on SIGTERM and Ctrl-C and gives its Lease back."""
    from zerotrust.cli.app import Controller, Options, run_until_signal
    from zerotrust.kube.client import load_configuration

    configure(log_format, log_level)
    options = Options(namespace=namespace, metrics_host=metrics_host, metrics_port=metrics_port, workers=workers)

    async def run() -> int:
        try:
            await run_until_signal(Controller(await load_configuration(kubeconfig, context), options))
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
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # nothing is left to say about tasks that end with the process
    raise SystemExit(code)


zerotrust.add_command(diff)
zerotrust.add_command(explain)
zerotrust.add_command(graph)
zerotrust.add_command(render)
zerotrust.add_command(test)
zerotrust.add_command(verify)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return [
        text
        for error in group.exceptions
        for text in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error) or type(error).__name__])
    ]


def main() -> None:
    """Entry point of the `zerotrust` script."""
    zerotrust(prog_name="zerotrust")
