"""`zerotrust doctor`: what a cluster can do, and whether the operator in it works; one line for each thing that was looked at."""

import asyncio
from typing import Any, NoReturn

import click

from zerotrust.cli.checking import VERDICTS, Finding, Question, answer
from zerotrust.cli.cluster import Cluster, in_cluster
from zerotrust.cli.options import cluster_options, emit, operator_option, output_option
from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.cli.tables import cell, show, table

EXIT_WELL, EXIT_WRONG = 0, 1
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "magenta"}


def _questions(operator_namespace: str) -> list[Question]:
    from zerotrust.cli import checks_cluster, checks_workloads
    from zerotrust.cli.checks_operator import Operator

    operator = Operator(operator_namespace)
    return [
        Question("Kubernetes", checks_cluster.version),
        Question("CRDs", checks_cluster.definitions),
        Question("Clock", checks_cluster.clock),
        Question("Controller", operator.controller),
        Question("Bundle servers", operator.bundle_servers),
        Question("Rights", operator.rights),
        Question("Admission policies", checks_cluster.admission_policies),
        Question("Network plugin", checks_cluster.network_plugin),
        Question("Gatekeeper", checks_cluster.gatekeeper),
        Question("Decision points", checks_workloads.decision_points),
    ]


@click.command()
@output_option
@operator_option
@cluster_options
def doctor(output: str, operator_namespace: str, kubeconfig: str | None, kube_context: str | None) -> NoReturn:
    """Look at what the cluster can do, and whether the operator in it works. Nothing is written.

    Each line is ok, warn, fail or unknown, which is what these rights do not let it see. It needs the rights of an
    administrator to see everything; the network plugin is only guessed.

    Exits with 0 when nothing fails, with 1 when something does, with 2 when something could not be looked at.
    """

    async def run(cluster: Cluster) -> int:
        questions = _questions(operator_namespace)
        found = [one for part in await asyncio.gather(*(answer(each, cluster) for each in questions)) for one in part]
        if output == "text":
            _show(found)
        else:
            emit(output, _document(found), "")
        verdicts = {one.verdict for one in found}
        if "fail" in verdicts:
            return EXIT_WRONG
        return EXIT_PROBLEM if "unknown" in verdicts else EXIT_WELL

    raise SystemExit(in_cluster(kubeconfig, kube_context, run, Cluster))


def _show(found: list[Finding]) -> None:
    rows = table("CHECK", "VERDICT", "FOUND", folding=("FOUND",))
    for one in found:
        said = f"{one.found}; {one.remedy}" if one.remedy else one.found
        rows.add_row(cell(one.check), cell(one.verdict, _STYLES[one.verdict]), cell(said))
    show(rows)
    counts = [f"{sum(one.verdict == verdict for one in found)} {verdict}" for verdict in reversed(VERDICTS)]
    say(f"\n{', '.join(counts)}")


def _document(found: list[Finding]) -> dict[str, Any]:
    return {"checks": [vars(one) for one in found]}
