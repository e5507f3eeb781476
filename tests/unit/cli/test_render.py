"""`zerotrust render` reads YAML as kubectl does."""

from pathlib import Path

from click.testing import CliRunner

from zerotrust.cli.main import zerotrust


def test_a_time_without_quotes_is_text(tmp_path: Path) -> None:
    file = tmp_path / "identity.yaml"
    file.write_text(
        "apiVersion: zerotrust.dev/v1alpha1\nkind: TrustDomain\nmetadata: {name: example.org}\nspec: {default: true}\n---\n"
        "apiVersion: zerotrust.dev/v1alpha1\nkind: ServiceIdentity\nmetadata: {name: orders, namespace: shop}\n"
        "spec: {rotation: {requestedAt: 2026-01-01T00:00:00Z}}\n"
    )
    answer = CliRunner().invoke(zerotrust, ["render", "-f", str(file)])
    assert answer.exit_code == 0, answer.output
    assert "name: orders-svid" in answer.output
