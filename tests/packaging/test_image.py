"""What can be said of the image without a Docker engine: its wheel installs and runs, and the Dockerfile fits the repository."""

import fnmatch
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.packaging import BASE, ROOT, kustomized, objects
from tests.support.proving import only_in_prove

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What the bundle server signs, what Gatekeeper gets, what reads YAML: each loads files of the package.
LOADS = """
import importlib.resources, zerotrust
from zerotrust.opabundle.modules import modules
assert "site-packages" in zerotrust.__file__, zerotrust.__file__
assert len(modules()) > 10
templates = importlib.resources.files("zerotrust.gatekeeper") / "templates"
assert len([one for one in templates.iterdir() if one.name.endswith(".yaml")]) == 6
"""


def instructions() -> Iterator[tuple[str, list[str]]]:
    """Instructions of the Dockerfile with their words."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE))
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        yield name, shlex.split(rest)


def said(name: str) -> list[list[str]]:
    return [words for one, words in instructions() if one == name]


def copied() -> list[str]:
    """What the Dockerfile copies of the repository."""
    return [source for words in said("COPY") if not words[0].startswith("--") for source in words[:-1]]


@dataclass(frozen=True)
class Installed:
    """The wheel, and a virtual environment in which it and the run-time pins are, and nothing else."""

    wheel: Path
    folder: Path

    def run(self, *command: str) -> str:
        environment = {"PATH": str(self.folder / "bin"), "HOME": "/", "LANG": "C.UTF-8"}
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def pip(*arguments: str | Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the Dockerfile copies."""
    source = tmp_path_factory.mktemp("source")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source)
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", ".", folder=source)
    (built,) = (source / "wheels").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("image") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/*/site-packages"))
    for name in pinned():
        link(name, packages)
    pip("--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    return Installed(wheel, folder)


def pinned() -> list[str]:
    """Names in requirements/runtime.txt that are meant for this machine."""
    lines = re.findall(
        r"(?m)^([\w.-]+)(?:\[[\w,]+\])?==\S+([^\\\n]*)", (ROOT / "requirements" / "runtime.txt").read_text()
    )
    return [name for name, marker in lines if not marker.strip() or is_here(name)]


def is_here(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def link(name: str, packages: Path) -> None:
    """Have a distribution of this environment in another one, too."""
    distribution = importlib.metadata.distribution(name)
    for top in sorted(
        {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
    ):
        target = packages / top
        if not target.exists():
            target.symlink_to(str(distribution.locate_file(top)))


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "operator"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name.removeprefix("operator/") for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == wanted


def test_it_runs_with_the_run_time_pins_alone(installed: Installed) -> None:
    for name in PROJECT["scripts"]:
        installed.run(name, "--version")
    assert installed.run("zerotrust", "--version").split()[-1] == importlib.metadata.version("zerotrust-operator")
    for command in ("controller", "bundle-server", "forward-auth"):
        installed.run("zerotrust", command, "--help")
    installed.run("python", "-c", LOADS)
    made = installed.run("zerotrust", "render", "-f", str(ROOT / "examples" / "quickstart"))
    assert "name: orders-svid" in made


@only_in_prove
def test_it_installs_from_the_hashed_pins(wheel: Path, tmp_path: Path) -> None:
    """As the Dockerfile does it."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = ("--python", folder / "bin" / "python", "install", "--quiet")
    pins = ("--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements" / "runtime.txt")
    pip(*python, *pins, folder=tmp_path)
    pip(*python, "--no-deps", "--no-index", wheel, folder=tmp_path)
    image = Installed(wheel, folder)
    image.run("python", "-c", LOADS)
    assert image.run("zerotrust", "--version")


def test_what_is_copied_exists_and_is_sent_to_the_engine() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {name.split("/")[0] for name in copied()} == sent
    assert all((ROOT / name).exists() for name in copied())
    ignored = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    assert not [name for name in copied() for rule in ignored if fnmatch.fnmatch(Path(name).name, rule)]


def test_the_base_is_pinned_and_named_once() -> None:
    ((argument,),) = said("ARG")
    assert re.fullmatch(r"PYTHON=python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", argument)
    assert [words[0] for words in said("FROM")] == ["${PYTHON}", "${PYTHON}"]
    version = re.search(r"python:(3\.\d+)", argument)
    assert version
    lowest = re.fullmatch(r">=(3\.\d+)", PROJECT["requires-python"])
    assert lowest
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, lowest[1].split(".")))


def test_everything_that_is_fetched_has_a_hash() -> None:
    installs = [one for words in said("RUN") for one in " ".join(words).split("&&") if "pip install" in one]
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-deps /wheels/" in one for one in installs)
    assert not said("ADD")
    assert not [words for words in said("RUN") if {"curl", "wget", "apt-get"} & set(words)]


def test_it_is_the_user_and_the_program_of_the_deployments() -> None:
    deployments = [one for one in objects(kustomized(BASE)).values() if one["kind"] == "Deployment"]
    assert len(deployments) == 2
    ((user,),) = said("USER")
    assert json.loads(re.findall(r"(?m)^ENTRYPOINT (.*)$", DOCKERFILE)[-1]) == ["zerotrust"]
    ports = set[str]()
    for deployment in deployments:
        spec = deployment["spec"]["template"]["spec"]
        assert user == f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
        (container,) = spec["containers"]
        assert "command" not in container
        ports |= {str(port["containerPort"]) for port in container["ports"]}
    ((*exposed,),) = said("EXPOSE")
    assert set(exposed) == ports


def test_it_writes_nothing_where_it_may_not() -> None:
    """The root file system is read-only, and the user has no home."""
    environment = dict(part.split("=", 1) for words in said("ENV") for part in words)
    assert (environment["HOME"], environment["PYTHONDONTWRITEBYTECODE"]) == ("/", "1")
    assert os.pathsep not in environment["HOME"]
