"""`zerotrust test`: runs the tests that TrustPolicies carry, as the controller does before it accepts a change."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from zerotrust.cli.policies import EXIT_PROBLEM, Intent, load, now, printable, report, say, source_options
from zerotrust.policy.acceptance import run_tests
from zerotrust.policy.reading import Policy

EXIT_PASSED, EXIT_FAILED = 0, 1


@dataclass(frozen=True)
class Outcome:
    """How one test went; `problem` says what was expected and what came, and is empty when it passed."""

    name: str
    problem: str = ""


@dataclass(frozen=True)
class Suite:
    """One policy's tests, and the `problems` that keep the policy as it stands from being accepted."""

    policy: Policy
    origin: str
    outcomes: tuple[Outcome, ...]
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The policy's place."""
        return f"{self.policy.meta.namespace}/{self.policy.meta.name}"

    @property
    def failed(self) -> list[Outcome]:
        """Those that did not get what they expect."""
        return [one for one in self.outcomes if one.problem]


def run(intent: Intent, at: datetime) -> list[Suite]:
    """Run every policy's tests, each as if its policy were in force beside the others that are."""
    return [_suite(intent, policy, at) for policy in intent.policies]


def _suite(intent: Intent, policy: Policy, at: datetime) -> Suite:
    spec, ref = policy.spec.spec, policy.meta.ref
    problems = tuple(one.text for one in intent.problems if one.ref == ref)
    if spec is None or policy.spec.problem is not None:
        return Suite(policy, intent.origin(ref), (), problems)
    table_of = intent.candidate(policy)
    outcomes = []
    for test in spec.tests:
        alone = spec.model_copy(update={"tests": [test]})
        result = run_tests(policy, alone, intent.book, table_of, at)
        # Its sentence begins with the place among the tests, which is another one here.
        outcomes.append(Outcome(test.name, result.first.partition("): ")[2] if result.failed else ""))
    return Suite(policy, intent.origin(ref), tuple(outcomes), problems)


@click.command("test")
@source_options
@click.option("--junit", metavar="FILE", help="Also write the results as JUnit XML.")
@click.pass_context
def test(context: click.Context, /, junit: str | None, **source: Any) -> None:
    """Run the tests of TrustPolicies.

    Policies come from files (-f) or from the cluster, which is only read. Namespaces and TrustDomains that files do not
    hold are taken for granted, with defaults.

    Exits with 0 when every test passes, with 1 when one fails, with 2 when a policy cannot be read or names something
    that does not exist; its tests are run as far as it can be read.
    """
    intent = load(**source)
    suites = run(intent, now())
    if not suites:
        say("Error: there is no TrustPolicy to test", err=True)
        context.exit(EXIT_PROBLEM)
    for suite in suites:
        _tell(suite)
    say(_summary(suites))
    if junit is not None:
        try:
            with click.open_file(junit, "w", encoding="utf-8") as file:
                file.write(to_junit(suites))
        except OSError as error:
            say(f"Error: {junit}: {error.strerror}", err=True)
            context.exit(EXIT_PROBLEM)
    if report(intent.problems):
        context.exit(EXIT_PROBLEM)
    context.exit(EXIT_FAILED if any(suite.failed for suite in suites) else EXIT_PASSED)


def _tell(suite: Suite) -> None:
    passed = len(suite.outcomes) - len(suite.failed)
    said = [f"{passed} passed"] if passed else []
    said += [f"{len(suite.failed)} failed"] if suite.failed else []
    said += ["not accepted as it stands"] if suite.problems else []
    say(f"{suite.name}: {', '.join(said) or 'has no tests'}")
    for one in suite.failed:
        say(f"  FAIL {one.name}: {one.problem}")


def _summary(suites: Sequence[Suite]) -> str:
    failed = sum(len(suite.failed) for suite in suites)
    total = sum(len(suite.outcomes) for suite in suites)
    policies = f"{len(suites)} policies" if len(suites) > 1 else "one policy"
    return f"{total} tests of {policies}: {total - failed} passed, {failed} failed"


def to_junit(suites: Sequence[Suite]) -> str:
    """Return the results as JUnit XML: a suite for each policy, with an error for each problem of its spec."""
    root = ElementTree.Element(
        "testsuites",
        tests=str(sum(len(suite.outcomes) + len(suite.problems) for suite in suites)),
        failures=str(sum(len(suite.failed) for suite in suites)),
        errors=str(sum(len(suite.problems) for suite in suites)),
    )
    for suite in suites:
        element = ElementTree.SubElement(
            root,
            "testsuite",
            name=suite.name,
            tests=str(len(suite.outcomes) + len(suite.problems)),
            failures=str(len(suite.failed)),
            errors=str(len(suite.problems)),
            skipped="0",
        )
        for one in suite.outcomes:
            case = ElementTree.SubElement(element, "testcase", classname=suite.name, name=one.name)
            case.set("file", printable(suite.origin))
            if one.problem:
                ElementTree.SubElement(case, "failure", message=printable(one.problem))
        for problem in suite.problems:
            case = ElementTree.SubElement(element, "testcase", classname=suite.name, name="spec")
            ElementTree.SubElement(case, "error", message=printable(problem))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
