"""`zerotrust verify`: judges an SVID by every SPIFFE rule and says which ones it breaks."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.text import Text

from zerotrust.cli.options import cluster_options, namespace_option
from zerotrust.cli.svid_cluster import Asked, asked_of
from zerotrust.cli.svid_cluster import read as read_svids
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
from zerotrust.cli.tables import show, table
from zerotrust.common import times
from zerotrust.pki.conformance import Outcome, Result, UnreadableInput, check_svid, passes, quote, uri_names

EXIT_PASS, EXIT_FAIL, EXIT_UNREADABLE = 0, 1, 2

_VERDICTS = {
    Outcome.PASS: Text("pass", style="green"),
    Outcome.FAIL: Text("FAIL", style="bold red"),
    Outcome.NOT_APPLICABLE: Text("n/a", style="dim"),
}


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
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Every SVID of the cluster.")
@cluster_options
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
    namespace: str | None,
    all_namespaces: bool,
    kubeconfig: str | None,
    kube_context: str | None,
    trust_domain: str | None,
    at: datetime | None,
    output: str,
) -> None:
    """Check X.509-SVIDs against the SPIFFE rules.

    Give identities or Secrets of the cluster (`zerotrust verify svid/NAME`, `secret/NAME`), manifests of Secrets
    (`kubectl get secret NAME -o yaml | zerotrust verify -`), or the files of one SVID
    (`zerotrust verify tls.crt tls.key ca.crt`); what each FILE is, is recognised. With nothing every SVID of the namespace is
    judged, with -A of the cluster: one line for each.

    Exits with 0 when every rule passes, 1 when one fails, 2 when an input cannot be read. Keys are never printed.
    """
    asked, paths = asked_of(files)
    if not (files or manifests or cert):
        asked = Asked(all=True, everywhere=all_namespaces)
    elif all_namespaces:
        raise click.UsageError("-A is for every SVID of the cluster; leave it out, or name none.")
    question = Question(at or datetime.now(UTC), trust_domain)
    try:
        found, recognised = recognise(read_input(path) for path in paths)
        given = _overridden(recognised, cert, bundle, key, spiffe_bundle)
        secrets = [*found, *(read_input(path) for path in manifests)]
        known = read_svids(asked, namespace, kubeconfig, kube_context) if asked else []
        reports = [question.about_secret(secret, given) for secret in known]
        if secrets or not asked:
            reports += _judge(question, secrets, given)
    except UnreadableInput as error:
        reports = [Report(error.source, error=str(error))]
    if asked.all and not reports:
        click.echo("There is no SVID.", err=True)
    context.exit(conclude(reports, question.at, output, brief=asked.all))


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


def conclude(reports: Sequence[Report], at: datetime, output: str, *, brief: bool = False) -> int:
    """Print the reports in the wanted form, a line for each if it is `brief`, errors on standard error; return the exit code."""
    if output == "json":
        click.echo(json.dumps(_as_json(reports, at), indent=2))
    else:
        for report in reports:
            if brief and report.verdict == "pass":
                _print_summary(report)
            else:
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
    rows = table("RULE", "VERDICT", "SECTION", "REQUIREMENT OR FINDING", folding=("REQUIREMENT OR FINDING",))
    for result in report.results:
        said = Text(result.message or result.rule.requirement)
        rows.add_row(result.rule.id, _VERDICTS[result.outcome], result.rule.section, said)
    show(rows)
    _print_summary(report)
    click.echo()


def _print_summary(report: Report) -> None:
    style = "bold green" if report.verdict == "pass" else "bold red"
    Console(highlight=False).print(Text(_summary(report), style=style), soft_wrap=True)


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
