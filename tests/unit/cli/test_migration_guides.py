"""The commands of the migration guides run one after the other, and their examples are what they say."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from zerotrust.cli.main import zerotrust

ROOT = Path(__file__).resolve().parents[3]
GUIDES = {
    name: (ROOT / "docs" / "guides" / f"migrate-{name}.md").read_text()
    for name in ("from-cert-manager", "network-policies")
}
IMPORTED = ROOT / "examples" / "migration" / "imported"


def commands(guide: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", GUIDES[guide], re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize(("guide", "codes"), [("from-cert-manager", [1, 0]), ("network-policies", [1, 0, 0, 1])])
def test_commands(guide: str, codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = (IMPORTED / "resources.yaml").read_text()
    (tmp_path / "edited.yaml").write_text(text.replace("port: 9090", "port: 9091"))
    monkeypatch.chdir(tmp_path)
    found = []
    for command in commands(guide):
        words, _, target = command.partition(" > ")
        result = CliRunner().invoke(zerotrust, shlex.split(words)[1:])
        if target:
            (tmp_path / target).write_text(result.stdout)
        found.append(result.exit_code)
        assert result.exit_code < 2, result.output
    assert found == codes
    assert (tmp_path / "imported.yaml").read_text() == text


def test_a_change_of_what_was_imported_is_compared(tmp_path: Path) -> None:
    text = (IMPORTED / "resources.yaml").read_text()
    (tmp_path / "edited.yaml").write_text(text.replace("port: 9090", "port: 9091"))
    result = CliRunner().invoke(
        zerotrust, ["diff", "-f", str(IMPORTED / "resources.yaml"), "-f", str(tmp_path / "edited.yaml")]
    )
    assert "+! allow pods in monitoring -> shop/orders:9091/TCP" in result.stdout


def test_what_the_guides_name_is_what_is_replaced() -> None:
    report = (IMPORTED / "report.txt").read_text().partition("REPLACED")[2]
    (deleted,) = re.findall(r"^kubectl delete networkpolicy -n shop (.*)$", GUIDES["network-policies"], re.MULTILINE)
    assert {f"NetworkPolicy shop/{name}" for name in deleted.split()} <= set(map(str.strip, report.splitlines()))
    assert "Certificate shop/orders" in report


def test_the_volume_is_the_one_of_the_report() -> None:
    (block,) = re.findall(r"^```yaml[^\n]*\n(.*?)^```", GUIDES["from-cert-manager"], re.MULTILINE | re.DOTALL)
    assert yaml.safe_load(block)["volumes"] == [{"name": "tls", "secret": {"secretName": "orders-svid"}}]
    report = " ".join((IMPORTED / "report.txt").read_text().split())
    assert "Deployment shop/orders: mount Secret orders-svid in volume tls" in report
