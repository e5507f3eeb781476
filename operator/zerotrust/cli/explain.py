"""`zerotrust explain`: whether one request or connection is allowed, which row decides, and what each layer says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import click

from zerotrust.cli.policies import EXIT_PROBLEM, Intent, Moment, load, now, report, say, source_options
from zerotrust.cli.reach import Gate, gates
from zerotrust.cli.rows import client_of, conditions_of, port_of, requests_of
from zerotrust.cli.svid_files import read_input
from zerotrust.common import times
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import parse
from zerotrust.pki.conformance import UnreadableInput
from zerotrust.policy.acceptance import request_of
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.evaluate import Request, Verdict, evaluate
from zerotrust.policy.network import PortOf
from zerotrust.policy.resource import SampleRequest, SampleUser
from zerotrust.policy.table import Row, Table

EXIT_ALLOWED, EXIT_DENIED = 0, 1

REASONS = {
    "allowed": "a rule allows it and none denies it",
    "no_identity": "the client has no ServiceIdentity",
    "no_grant": "no rule allows it",
    "denied_by_rule": "a Deny overrides every Allow",
    "bad_token": "the token that a rule asks for is not presented",
    "bad_key": "the API key that a rule asks for is not presented",
    "expired_key": "the API key that is presented has expired",
    "revoked_key": "the API key that is presented is revoked or suspended",
    "outside_hours": "a rule allows it at other times",
    "missing_scope": "a scope that a rule asks for is missing",
    "mtls_required": "a rule allows it over mutual TLS only",
    "malformed_request": "a server could read the path in two ways",
}

Opinion = Literal["allow", "deny", "none"]


@dataclass(frozen=True)
class LayerSays:
    """What one layer does with the request; `none` when it does nothing about it."""

    layer: str
    opinion: Opinion
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """An answer: the table's verdict with the rows behind it, and what becomes of the request on its way."""

    client: Workload
    server: Workload
    request: Request
    at: datetime
    verdict: Verdict
    rows: tuple[tuple[Row, str], ...]
    deciding: int | None
    layers: tuple[LayerSays, ...]

    @property
    def allowed(self) -> bool:
        """Whether the table allows it and the network policies do not stop it."""
        return self.verdict.allowed and self.layers[0].opinion != "deny"


def explain_request(intent: Intent, client: Workload, server: Identity, request: Request, at: datetime) -> Explanation:
    """Answer one question."""
    table = intent.book.table(server)
    verdict = evaluate(table, request, at)
    rows = table.about(request.client) if request.client is not None else ()
    # Nothing is looked at for a client without identity and for a path that is refused before.
    told = tuple((row, step.outcome) for row, step in zip(rows, verdict.trace, strict=False))
    port = PortOf(request.port, request.protocol)
    sides = gates(intent, client, intent.book.identity(client), server, port, at)
    layers = (_network(sides), _opa(table, request, verdict), LayerSays("Gatekeeper", "none", (AT_ADMISSION,)))
    return Explanation(client, server.workload, request, at, verdict, told, _deciding(told, verdict), layers)


AT_ADMISSION = "decides about pods when they are admitted, not about requests"


def _deciding(told: tuple[tuple[Row, str], ...], verdict: Verdict) -> int | None:
    effect = "Allow" if verdict.allowed else "Deny"
    for number, (row, outcome) in enumerate(told):
        named = (row.policy, row.rule, row.effect) == (verdict.policy, verdict.rule, effect)
        if named and outcome == "match" and not row.observe:
            return number
    return None


def _network(sides: tuple[Gate, Gate]) -> LayerSays:
    opinion: Opinion = "allow" if all(gate.open for gate in sides) else "deny"
    return LayerSays("NetworkPolicy", opinion, tuple(gate.message for gate in sides))


def _opa(table: Table, request: Request, verdict: Verdict) -> LayerSays:
    if "OPA" not in table.layers:
        return LayerSays("OPA", "none", (f"no policy with this layer protects {table.server}",))
    if request.method is None:
        return LayerSays("OPA", "none", ("decides about requests: give --method and --path",))
    if table.enforcement == "Observe":
        text = f"{table.server} is in enforcement: Observe: {verdict.reason} is only logged"
        return LayerSays("OPA", "allow", (text,))
    return LayerSays("OPA", "allow" if verdict.allowed else "deny", (verdict.reason,))


class _Place(click.ParamType[Workload]):
    name = "namespace/name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Workload:
        if isinstance(value, Workload):
            return value
        namespace, _, name = str(value).partition("/")
        if not namespace or not name or "/" in name:
            self.fail(f"{str(value)[:80]!r} is no NAMESPACE/NAME; write for example shop/orders", param, ctx)
        return Workload(namespace, name)


@click.command()
@click.option("--from", "client", required=True, type=_Place(), metavar="NAMESPACE/NAME", help="Who calls.")
@click.option("--to", "server", required=True, type=_Place(), metavar="NAMESPACE/NAME", help="Who is called.")
@click.option("--port", required=True, type=click.IntRange(1, 65535), help="Port of the pod.")
@click.option("--protocol", type=click.Choice(["TCP", "UDP", "SCTP"]), default="TCP", show_default=True)
@click.option("--method", metavar="METHOD", help="HTTP method; without, it is about the connection.")
@click.option("--path", metavar="PATH", help="Path as it is sent, escapes included.")
@click.option("--at", type=Moment(), metavar="RFC3339", help="When; default: now.")
@click.option("--claims", metavar="FILE", help="JSON of a verified token: provider, audiences, claims, scopes.")
@click.option("--no-mtls", is_flag=True, help="The connection is not mutual TLS.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@source_options
@click.pass_context
def explain(
    context: click.Context,
    /,
    client: Workload,
    server: Workload,
    port: int,
    protocol: str,
    method: str | None,
    path: str | None,
    at: datetime | None,
    claims: str | None,
    no_mtls: bool,
    output: str,
    **source: Any,
) -> None:
    """Say whether a request is allowed, by which rule, and what each layer does about it.

    Policies come from files (-f) or from the cluster, which is only read. Every policy that reads and resolves counts as
    accepted, whatever its tests say; the others are warned about, and so is what a cluster's policies have not accepted.
    Namespaces and TrustDomains that files do not hold are taken for granted, with defaults.

    Exits with 0 when it is allowed, with 1 when the table denies it or a network policy stops it, with 2 when the question
    or the manifests cannot be read.
    """
    if (method is None) != (path is None):
        raise click.UsageError("Give --method and --path, or neither for a connection.")
    if claims is not None and method is None:
        raise click.UsageError("--claims belongs to a request: give --method and --path as well.")
    sample = _sample(context, client, server, port, protocol, method, path, claims, mtls=not no_mtls)
    intent = load(**source)
    report(intent.problems, "Warning")
    called = intent.book.identity(server)
    if called is None:
        say(f"Error: --to: there is no ServiceIdentity {server}", err=True)
        context.exit(EXIT_PROBLEM)
    if intent.book.identity(client) is None:
        say(f"Warning: --from: there is no ServiceIdentity {client}", err=True)
    request = request_of(sample, intent.book, called)
    answer = explain_request(intent, client, called, request, at or now())
    if output == "json":
        click.echo(json.dumps(_document(answer), indent=2))
    else:
        say(_text(answer))
    context.exit(EXIT_ALLOWED if answer.allowed else EXIT_DENIED)


def _sample(
    context: click.Context,
    client: Workload,
    server: Workload,
    port: int,
    protocol: str,
    method: str | None,
    path: str | None,
    claims: str | None,
    *,
    mtls: bool,
) -> SampleRequest:
    """The request as a policy's tests would write it, so that both are read by the same rules."""
    try:
        user = _token(claims) if claims is not None else None
        body: dict[str, Any] = {
            "from": str(client),
            "to": server.name,
            "port": port,
            "protocol": protocol,
            "mtls": mtls,
        }
        body |= {"method": method, "path": path} if method is not None else {}
        sample = parse(SampleRequest, body, "")
    except SpecError as error:
        say(f"Error: --{error.path.lstrip('.')}: {error.message}", err=True)
        context.exit(EXIT_PROBLEM)
    return sample.model_copy(update={"user": user})


def _token(path: str) -> SampleUser:
    """Read a file of claims; a single value is a list of one."""
    try:
        given = read_input(path)
        body = json.loads(given.content)
    except UnreadableInput as error:
        raise SpecError("claims", str(error)) from None
    except (ValueError, RecursionError):
        raise SpecError("claims", f"{path} is no JSON") from None
    if not isinstance(body, dict):
        raise SpecError("claims", f"{path} must be an object with provider, audiences, claims and scopes")
    claims = body.get("claims")
    if isinstance(claims, dict):
        body["claims"] = {name: [value] if isinstance(value, str) else value for name, value in claims.items()}
    try:
        return parse(SampleUser, body, given.name)
    except SpecError as error:
        raise SpecError("claims", str(error)) from None


def _what(request: Request) -> str:
    return f"{request.method} {request.path}" if request.method is not None else "connection"


def _headline(answer: Explanation) -> str:
    word = "ALLOWED" if answer.allowed else "DENIED"
    where = f"{answer.server}:{answer.request.port}/{answer.request.protocol}"
    return f"{word}: {answer.client} -> {where} {_what(answer.request)} at {times.render(answer.at)}"


def _because(answer: Explanation) -> str:
    verdict = answer.verdict
    by = f" (rule {verdict.rule} of TrustPolicy {answer.server.namespace}/{verdict.policy})" if verdict.rule else ""
    return f"{verdict.reason}: {REASONS[verdict.reason]}{by}"


def _text(answer: Explanation) -> str:
    lines = [_headline(answer), f"  by the table: {_because(answer)}"]
    if answer.verdict.allowed and not answer.allowed:
        lines.append("  but a network policy stops it; see the layers")
    lines += ["", "ROWS ABOUT THIS CLIENT" if answer.rows else "no row is about this client, or none was looked at"]
    cells = [("", "OUTCOME", "EFFECT", "POLICY", "RULE", "CLIENT", "PORT", "REQUESTS")] if answer.rows else []
    for number, (row, outcome) in enumerate(answer.rows):
        mark = "=>" if number == answer.deciding else ""
        effect = f"{row.effect} (Observe)" if row.observe else row.effect
        what = "; ".join(part for part in (requests_of(row) or "every request", *conditions_of(row)))
        cells.append((mark, outcome, effect, row.policy, row.rule, client_of(row.client), port_of(row), what))
    lines += _columns(cells)
    lines += ["", "LAYERS"]
    said = [
        (layer.layer if not number else "", _OPINIONS[layer.opinion] if not number else "", message)
        for layer in answer.layers
        for number, message in enumerate(layer.messages)
    ]
    return "\n".join(lines + _columns(said))


_OPINIONS = {"allow": "lets through", "deny": "stops", "none": "-"}


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _document(answer: Explanation) -> dict[str, Any]:
    request = answer.request
    verdict = answer.verdict
    return {
        "allowed": answer.allowed,
        "at": times.render(answer.at),
        "from": str(answer.client),
        "to": str(answer.server),
        "port": request.port,
        "protocol": request.protocol,
        "method": request.method,
        "path": request.path,
        "verdict": {
            "allowed": verdict.allowed,
            "reason": verdict.reason,
            "policy": verdict.policy,
            "rule": verdict.rule,
        },
        "rows": [
            {**row.to_document(), "outcome": outcome, "decides": number == answer.deciding}
            for number, (row, outcome) in enumerate(answer.rows)
        ],
        "layers": [
            {"layer": one.layer, "opinion": one.opinion, "messages": list(one.messages)} for one in answer.layers
        ],
    }
