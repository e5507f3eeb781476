"""kubeconfig files: what we write is what we read, and what we cannot use is named."""

from pathlib import Path

import pytest
import yaml

from hack import controlplane, kubeconfig
from hack.certificates import CertificateAuthority
from hack.kubeconfig import Access, KubeconfigError

URL = "https://127.0.0.1:6443"
NO_AUTHORITY = """
current-context: a
contexts: [{name: a, context: {cluster: b, user: c}}]
clusters: [{name: b, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: c, user: {}}]
"""


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority("test")


@pytest.fixture
def file(tmp_path: Path, authority: CertificateAuthority) -> Path:
    path = tmp_path / "config"
    path.write_text(kubeconfig.render("here", URL, authority.credential.certificate, authority.client("jane")))
    return path


def test_what_is_written_is_read(tmp_path: Path, authority: CertificateAuthority) -> None:
    jane = authority.client("jane", ["developers"])
    path = tmp_path / "config"
    path.write_text(kubeconfig.render("here", URL, authority.credential.certificate, jane))
    assert kubeconfig.read(path) == Access(URL, authority.credential.certificate, jane)
    assert kubeconfig.context(path) == "here"


def test_files_beside_the_kubeconfig_are_read(file: Path, authority: CertificateAuthority) -> None:
    document = yaml.safe_load(file.read_text())
    cluster = document["clusters"][0]["cluster"]
    del cluster["certificate-authority-data"]
    cluster["certificate-authority"] = "ca.crt"
    file.write_text(yaml.safe_dump(document))
    (file.parent / "ca.crt").write_bytes(authority.credential.certificate)
    assert kubeconfig.read(file).authority == authority.credential.certificate


def test_a_user_with_a_token_has_no_certificate(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    document["users"][0]["user"] = {"token": "secret"}
    file.write_text(yaml.safe_dump(document))
    assert kubeconfig.read(file).credential is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not a usable kubeconfig"),
        ("a: [", "not a usable kubeconfig"),
        ("{current-context: here, contexts: []}", "no context named 'here'"),
        (NO_AUTHORITY, "has no certificate authority"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(KubeconfigError, match=reason) as refusal:
        kubeconfig.read(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="absent"):
        kubeconfig.read(tmp_path / "absent")


@pytest.mark.parametrize("content", ["", "not: ours", "\x00", "{current-context: production}"])
def test_the_command_overwrites_no_foreign_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    foreign = tmp_path / "config"
    foreign.write_text(content)
    assert controlplane.main(["--kubeconfig", str(foreign)]) == 1
    assert "is not ours to overwrite" in capsys.readouterr().err
    assert foreign.read_text() == content
