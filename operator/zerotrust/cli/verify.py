"""`zerotrust verify`: judges an SVID by every SPIFFE rule and says which ones it breaks."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerotrust.cli.svid_files import (
    Given,
    NamedBytes,
    SvidParts,
    parts_of_secret,
    read_input,
    recognise,
    secret_name,
    secrets_in,
)
from zerotrust.common import times
from zerotrust.common.errors import ZerotrustError
from zerotrust.pki.conformance import Outcome, Result, UnreadableInput, check_svid, passes, quote, uri_names

EXIT_PASS, EXIT_FAIL, EXIT_UNREADABLE = 0, 1, 2

_VERDICTS = {
    Outcome.PASS: Text("pass", style="green"),
    Outcome.FAIL: Text("FAIL", style="bold red"),
    Outcome.NOT_APPLICABLE: Text("n/a", style="dim"),
}
# Without a terminal there is no width to keep: one rule is one line, for grep and for logs.
_UNLIMITED = 10_000


@dataclass(frozen=True)
class Report:
    """What became of one SVID: its results, or the error why there are none."""

    name: str
    spiffe_id: str = ""
    results: tuple[Result, ...] = ()
    error: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `unreadable`."""
        if self.error:
            return "unreadable"
        return "pass" if passes(self.results) else "fail"


@dataclass(frozen=True)
class Question:
    """When, and for which trust domain, SVIDs are judged."""

    at: datetime
    trust_domain: str | None = None

    def about(self, parts: SvidParts) -> Report:
        """Judge one SVID."""
        try:
            results = check_svid(
                parts.chain,
                parts.bundle,
                self.at,
                trust_domain=self.trust_domain,
                spiffe_bundle=parts.spiffe_bundle,
                private_key=parts.private_key,
            )
        except UnreadableInput as error:
            return Report(parts.name, error=f"{parts.name}: {error}")
        names = [name.decode(errors="replace") for name in uri_names(parts.chain[0])]
        return Report(parts.name, _plain(names[0]) if len(names) == 1 else "", tuple(results))

    def about_secret(self, secret: Mapping[str, object], given: Given | None = None) -> Report:
        """Judge the SVID in a Secret, wherever the Secret comes from; what cannot be read becomes a report, too."""
        try:
            return self.about(parts_of_secret(secret, given))
        except UnreadableInput as error:
            return Report(secret_name(secret), error=str(error))


def _plain(text: str) -> str:
    return text if text.isascii() and text.isprintable() else quote(text)


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return times.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--secret", "manifests", multiple=True, metavar="FILE", help="Manifest of Secrets to check; - is stdin.")
@click.option("--cert", metavar="FILE", help="PEM chain, leaf first.")
@click.option("--bundle", metavar="FILE", help="PEM trust bundle; with a Secret, in place of its ca.crt.")
@click.option("--key", metavar="FILE", help="PEM private key, to check that it belongs to the leaf.")
@click.option("--spiffe-bundle", metavar="FILE", help="bundle.spiffe.json, to check it as well.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of secret/NAME.")
@click.option("--kubeconfig", metavar="FILE", help="Cluster to read secret/NAME from; default: KUBECONFIG.")
@click.option("--trust-domain", metavar="NAME", help="Trust domain that the bundle is for; the ID must be in it.")
@click.option("--at", type=_Moment(), metavar="RFC3339", help="Time to judge at (default: now).")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def verify(
    context: click.Context,
    files: tuple[str, ...],
    manifests: tuple[str, ...],
    cert: str | None,
    bundle: str | None,
    key: str | None,
    spiffe_bundle: str | None,
    namespace: str,
    kubeconfig: str | None,
    trust_domain: str | None,
    at: datetime | None,
    output: str,
) -> None:
    """Check X.509-SVIDs against the SPIFFE rules.

    Give a Secret of the cluster (`zerotrust verify secret/NAME -n NAMESPACE`), manifests of Secrets
    (`kubectl get secret NAME -o yaml | zerotrust verify -`), or the files of one SVID
    (`zerotrust verify tls.crt tls.key ca.crt`); what each FILE is, is recognised.

    Exits with 0 when every rule passes, 1 when one fails, 2 when an input cannot be read. Keys are never printed.
    """
    if not (files or manifests or cert):
        raise click.UsageError("Give a Secret's manifest (FILE, or - for standard input), or --cert and --bundle.")
    question = Question(at or datetime.now(UTC), trust_domain)
    try:
        names = [path.removeprefix("secret/") for path in files if path.startswith("secret/")]
        found, recognised = recognise(read_input(path) for path in files if not path.startswith("secret/"))
        given = _overridden(recognised, cert, bundle, key, spiffe_bundle)
        secrets = [*found, *(read_input(path) for path in manifests)]
        reports = [question.about_secret(secret, given) for secret in _from_cluster(names, namespace, kubeconfig)]
        if secrets or not names:
            reports += _judge(question, secrets, given)
    except UnreadableInput as error:
        reports = [Report(error.source, error=str(error))]
    context.exit(conclude(reports, question.at, output))


def _from_cluster(names: Sequence[str], namespace: str, kubeconfig: str | None) -> list[Mapping[str, object]]:
    """Read Secrets from the cluster; UnreadableInput says which one could not be read and why."""
    if not names:
        return []
    from zerotrust.common.naming import Ref
    from zerotrust.kube.client import Client, load_configuration
    from zerotrust.telemetry.metrics import Metrics

    async def read() -> list[Mapping[str, object]]:
        async with Client(await load_configuration(kubeconfig), Metrics()) as client:
            return [await client.get(Ref("Secret", namespace, name)) for name in names]

    try:
        return asyncio.run(read())
    except ZerotrustError as error:
        raise UnreadableInput("the cluster", str(error)) from None


def _overridden(
    recognised: Given, cert: str | None, bundle: str | None, key: str | None, spiffe_bundle: str | None
) -> Given:
    def of(path: str | None, otherwise: NamedBytes | None) -> NamedBytes | None:
        return otherwise if path is None else read_input(path)

    return Given(
        of(cert, recognised.certificate),
        of(bundle, recognised.bundle),
        of(key, recognised.private_key),
        of(spiffe_bundle, recognised.spiffe_bundle),
    )


def _judge(question: Question, manifests: Sequence[NamedBytes], given: Given) -> list[Report]:
    """Judge each Secret by itself, so that one that cannot be read hides no other; without any, the given parts."""
    if not manifests:
        name = given.certificate.name if given.certificate else "input"
        return [question.about(given.assemble(name))]
    for file in (given.certificate, given.private_key):
        if file is not None:
            raise UnreadableInput(file.name, "is given beside a Secret, which has its own; give one or the other")
    reports: list[Report] = []
    for manifest in manifests:
        try:
            reports += [question.about_secret(secret, given) for secret in secrets_in(manifest)]
        except UnreadableInput as error:
            reports.append(Report(manifest.name, error=str(error)))
    return reports


def conclude(reports: Sequence[Report], at: datetime, output: str) -> int:
    """Print the reports in the wanted form, errors on standard error, and return the exit code."""
    if output == "json":
        click.echo(json.dumps(_as_json(reports, at), indent=2))
    else:
        for report in reports:
            _print_table(report)
    for report in reports:
        if report.error:
            click.echo(f"Error: {report.error}", err=True)
    verdicts = {report.verdict for report in reports}
    if "unreadable" in verdicts:
        return EXIT_UNREADABLE
    return EXIT_FAIL if "fail" in verdicts else EXIT_PASS


def _as_json(reports: Sequence[Report], at: datetime) -> dict[str, object]:
    return {
        "at": times.render(at),
        "svids": [
            {
                "name": report.name,
                "spiffeID": report.spiffe_id,
                "verdict": report.verdict,
                "error": report.error,
                "results": [
                    {
                        "rule": result.rule.id,
                        "section": result.rule.section,
                        "requirement": result.rule.requirement,
                        "outcome": result.outcome,
                        "message": result.message,
                    }
                    for result in report.results
                ],
            }
            for report in reports
        ],
    }


def _print_table(report: Report) -> None:
    if report.error:
        return
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=_UNLIMITED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("RULE", "VERDICT", "SECTION"):
        table.add_column(heading, no_wrap=True)
    table.add_column("REQUIREMENT OR FINDING", overflow="fold")
    for result in report.results:
        said = Text(result.message or result.rule.requirement)
        table.add_row(result.rule.id, _VERDICTS[result.outcome], result.rule.section, said)
    if console.is_terminal:
        console.print(table)
    else:
        with console.capture() as printed:
            console.print(table)
        click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))
    console.print(
        Text(_summary(report), style="bold green" if report.verdict == "pass" else "bold red"), soft_wrap=True
    )
    console.print()


def _summary(report: Report) -> str:
    counts = Counter(result.outcome for result in report.results)
    failed = [result.rule.id for result in report.results if result.outcome is Outcome.FAIL]
    advised = sum(1 for result in report.results if result.outcome is Outcome.PASS and result.message)
    tail = [
        f"{counts[Outcome.PASS]} pass" + (f" ({advised} with advice)" if advised else ""),
        f"{counts[Outcome.FAIL]} fail" + (f" ({', '.join(failed)})" if failed else ""),
        f"{counts[Outcome.NOT_APPLICABLE]} not applicable",
    ]
    whose = f" {report.spiffe_id}" if report.spiffe_id else ""
    return f"{report.verdict.upper()}: {report.name}{whose}: {', '.join(tail)}"
