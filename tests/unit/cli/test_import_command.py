"""`zerotrust import` as a user runs it: what goes where, exit codes, and the example word for word."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.old_objects import a_deployment, a_network_policy
from zerotrust.cli.importing import IMPORTED
from zerotrust.cli.main import zerotrust
from zerotrust.cli.manifests import documents

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "migration"
SIMPLE = [a_deployment("orders"), a_network_policy("orders", app="orders", policyTypes=["Ingress"])]


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(zerotrust, ["import", *arguments], input=given)


def as_yaml(*bodies: dict) -> str:
    return yaml.safe_dump_all([{"apiVersion": IMPORTED.get(body["kind"], "v1"), **body} for body in bodies])


def test_the_example_is_imported_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = run("-f", "examples/migration", "--trust-domain", "example.org")
    assert result.exit_code == 1
    assert result.stdout == (EXAMPLE / "imported" / "resources.yaml").read_text()
    assert result.stderr == (EXAMPLE / "imported" / "report.txt").read_text()


def test_what_is_printed_is_accepted_and_fits_a_terminal() -> None:
    text = (EXAMPLE / "imported" / "resources.yaml").read_text()
    report = (EXAMPLE / "imported" / "report.txt").read_text()
    bodies = list(documents("example", text.encode(), "default"))
    assert {body["kind"] for body in bodies} == {"TrustDomain", "ServiceIdentity", "TrustPolicy"}
    result = CliRunner().invoke(zerotrust, ["graph", "-f", "-"], input=text)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(len(line) <= 80 for line in report.splitlines())


def test_everything_expressed_exits_with_0() -> None:
    result = run("-f", "-", given=as_yaml(*SIMPLE))
    assert result.exit_code == 0, result.stderr
    assert "LEFT OVER" not in result.stderr
    assert "REPLACED (1)" in result.stderr
    assert "1 TrustDomain, 1 ServiceIdentity, 1 TrustPolicy; left over: 0; replaced: 1" in result.stderr


def test_json_is_one_document() -> None:
    result = run("-f", str(EXAMPLE), "-o", "json")
    assert (result.exit_code, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert list(document) == ["resources", "left", "notes", "replaced"]
    assert document["left"][0] == {
        "object": {"kind": "Certificate", "namespace": "shop", "name": "payments"},
        "path": "spec.dnsNames[1]",
        "why": "payments is not <service>.shop.svc or <service>.shop.svc.cluster.local",
        "instead": "let clients call <service>.shop.svc, or verify the SPIFFE ID",
        "opens": False,
    }


def test_kinds_of_others_with_the_same_name_are_passed_over() -> None:
    foreign = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": 1},
    }
    assert run("-f", "-", given=as_yaml(foreign, *SIMPLE)).exit_code == 0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{", "is no YAML"),
        (
            "apiVersion: cert-manager.io/v1alpha2\nkind: Certificate\nmetadata: {name: x}",
            "apiVersion must be cert-manager.io/v1",
        ),
        (as_yaml(a_network_policy("old", ingress=5)), "NetworkPolicy shop/old: spec.ingress"),
        (
            as_yaml({**a_deployment("x"), "spec": {"template": {"spec": {"containers": 5}}}}),
            "spec.template.spec.containers",
        ),
    ],
    ids=["yaml", "version", "policy", "pod"],
)
def test_what_cannot_be_read_exits_with_2(given: str, why: str) -> None:
    result = run("-f", "-", given=given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


@pytest.mark.parametrize("arguments", [(), ("-f", "-", "-A"), ("-n", "shop", "-A")], ids=["none", "file-all", "both"])
def test_one_source_is_given(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Give manifests with -f" in result.stderr


def test_text_of_others_does_nothing_to_a_terminal() -> None:
    policy = a_network_policy("old", app="orders", ingress=[{"from": [{"ipBlock": {"cidr": "\x1b[31m\nx"}}]}])
    result = run("-f", "-", given=as_yaml(a_deployment("orders"), policy))
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout + result.stderr
    assert [one["kind"] for one in yaml.safe_load_all(result.stdout)] == [
        "TrustDomain",
        "ServiceIdentity",
        "TrustPolicy",
    ]
