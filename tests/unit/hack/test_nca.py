"""Installing network-config-analyzer, with a pretended pip."""

from pathlib import Path

import pytest

from hack import nca
from hack.gotools import ToolError


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty cache, some pins, and a note of what would have been run."""
    noted: list[str] = []

    def run(*command: str | Path) -> None:
        noted.append(" ".join(map(str, command)))
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()

    monkeypatch.setattr(nca, "_run", run)
    monkeypatch.setattr(nca, "REQUIREMENTS", tmp_path / "nca.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    nca.REQUIREMENTS.write_text("network-config-analyzer==2.1.0")
    return noted


def test_it_is_installed_once_with_hashes(commands: list[str]) -> None:
    found = nca.find_or_install()
    assert nca.find_or_install() == found
    environment, install = commands
    assert environment.endswith(f"-m venv --clear {found.parent.parent}")
    assert install.endswith(f"install --quiet --require-hashes -r {nca.REQUIREMENTS}")


def test_other_pins_get_another_environment(commands: list[str]) -> None:
    before = nca.find_or_install()
    nca.REQUIREMENTS.write_text("network-config-analyzer==2.2.0")
    assert nca.find_or_install() != before
    assert len(commands) == 4


def test_an_environment_without_its_python_is_made_again(commands: list[str]) -> None:
    found = nca.find_or_install()
    found.with_name("python").unlink()
    nca.find_or_install()
    assert len(commands) == 4


def test_an_interrupted_installation_is_made_again(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = nca._run

    def interrupted(*command: str | Path) -> None:
        if "pip" in command:
            raise KeyboardInterrupt
        run(*command)

    with monkeypatch.context() as patch:
        patch.setattr(nca, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nca.find_or_install()
    nca.find_or_install()
    assert len(commands) == 3


def test_a_failure_shows_the_words_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ToolError, match=r"`/bin/sh -c echo no network >&2; exit 1` failed:\nno network"):
        nca._run("/bin/sh", "-c", "echo no network >&2; exit 1")
