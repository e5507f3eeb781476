"""`zerotrust forward-auth`: between NGINX or Traefik and OPA."""

import asyncio
import ipaddress
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import get_args

import click

from zerotrust.common.errors import ZerotrustError
from zerotrust.forwardauth.question import DIALECTS
from zerotrust.telemetry.logs import LogFormat, configure

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        loopback = ipaddress.ip_address(value).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise click.BadParameter(
            "must be a loopback address: whoever reaches this port says what a request is and who sends it; "
            "put the service into the proxy's pod"
        )
    return value


def _header(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _HEADER.fullmatch(value):
        raise click.BadParameter("must be a header's name: letters, digits and dashes")
    return value


@click.command("forward-auth")
@click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    metavar="[NAME=]SPIFFE_ID:PORT",
    help="A server that the proxy asks for at /auth, or at /auth/NAME, and the port of its pod. Repeat it for more.",
)
@click.option("--from", "proxy", type=click.Choice(tuple(DIALECTS)), required=True, help="Whose headers are read.")
@click.option(
    "--client-certificate-header",
    metavar="NAME",
    callback=_header,
    help="Where the proxy puts the client's certificate. [default: X-Client-Cert, or X-Forwarded-Tls-Client-Cert]",
)
@click.option("--opa", default="http://127.0.0.1:8181", show_default=True, metavar="URL", help="OPA, on loopback.")
@click.option("--host", default="127.0.0.1", show_default=True, callback=_address, help="Loopback address to serve on.")
@click.option("--port", default=9292, show_default=True, type=click.IntRange(0, 65535), help="Its port; 0: any.")
@click.option("--metrics-host", default="0.0.0.0", show_default=True, help="Address of /metrics, /healthz and /readyz.")  # noqa: S104
@click.option(
    "--metrics-port", default=9293, show_default=True, type=click.IntRange(0, 65535), help="Their port; 0: any."
)
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def forward_auth(
    servers: tuple[str, ...],
    proxy: str,
    client_certificate_header: str | None,
    opa: str,
    host: str,
    port: int,
    metrics_host: str,
    metrics_port: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Answer NGINX's auth_request or Traefik's ForwardAuth with what OPA decides; 204 allows, and nothing else does."""
    from zerotrust.forwardauth.decision_point import checked
    from zerotrust.forwardauth.service import ForwardAuth, ForwardAuthOptions
    from zerotrust.forwardauth.upstream import Upstream, by_name

    configure(log_format, log_level)
    dialect = DIALECTS[proxy]
    if client_certificate_header:
        dialect = replace(dialect, certificate=client_certificate_header)
    try:
        options = ForwardAuthOptions(
            upstreams=by_name(map(Upstream.parse, servers)),
            dialect=dialect,
            opa=checked(opa),
            host=host,
            port=port,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
        asyncio.run(_until_signal(ForwardAuth(options).run))
    except (ZerotrustError, OSError) as error:
        raise click.ClickException(str(error)) from None


async def _until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)
