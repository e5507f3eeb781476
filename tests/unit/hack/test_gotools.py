"""Finding and building the pinned Go tools, with a pretended Go."""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack import gotools
from hack.gotools import Module, Toolchain, ToolError, cache_key, find_or_build

GO = Toolchain("/usr/bin/go", (1, 26), "linux", "amd64")
# Notes each build, and writes what `go build -o` would.
BUILDS = """
    echo "$@" >> "$BUILDS"
    while [ "$1" != -o ]; do shift; done
    case "$2" in
        */) for name in alpha beta; do echo built > "$2$name"; done;;
        *) echo built > "$2";;
    esac
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, a module with two tools, and no Go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(gotools, "MODULES", (a_module(tmp_path / "tools" / "letters"),))


def a_module(folder: Path, *, sums: str = "letters v1.0.0 h1:abc") -> Module:
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module example.org/letters\n")
    (folder / "go.sum").write_text(sums)
    packages = {"alpha": "example.org/letters/alpha", "beta": "example.org/letters/beta"}
    return Module(folder, packages, "-s -w", "takes no time")


def a_go(tmp_path: Path, build: str = BUILDS, version: str = "go1.26.8") -> None:
    """Puts a `go` on PATH that is of this version and builds by this shell script."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    answer = f'{{"GOVERSION": "{version}", "GOOS": "linux", "GOARCH": "amd64"}}'
    go.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\ncase $1 in\nenv) echo '{answer}';;\nbuild) {build};;\nesac\n")
    go.chmod(0o755)


def builds(tmp_path: Path) -> list[str]:
    log = tmp_path / "builds"
    return log.read_text().splitlines() if log.exists() else []


def test_the_key_is_the_same_for_equal_content_elsewhere(tmp_path: Path) -> None:
    assert cache_key(a_module(tmp_path / "one"), GO) == cache_key(a_module(tmp_path / "two"), GO)


def test_the_key_is_sixteen_hexadecimal_digits(tmp_path: Path) -> None:
    key = cache_key(a_module(tmp_path / "one"), GO)
    assert len(key) == 16
    assert int(key, 16) >= 0


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go", "inner/inner.go"])
def test_the_key_changes_with_every_source(tmp_path: Path, name: str) -> None:
    module = a_module(tmp_path / "one")
    before = cache_key(module, GO)
    source = module.folder / name
    source.parent.mkdir(exist_ok=True)
    source.write_text("something else")
    assert cache_key(module, GO) != before


def test_the_key_changes_with_flags_and_platform_but_not_with_where_go_is(tmp_path: Path) -> None:
    module = a_module(tmp_path / "one")
    key = cache_key(module, GO)
    assert cache_key(dataclasses.replace(module, ldflags="-s"), GO) != key
    assert cache_key(module, dataclasses.replace(GO, version=(1, 27))) != key
    assert cache_key(module, dataclasses.replace(GO, system="darwin")) != key
    assert cache_key(module, dataclasses.replace(GO, architecture="arm64")) != key
    assert cache_key(module, dataclasses.replace(GO, program="/opt/go/bin/go")) == key


def test_the_real_table_names_every_tool_once() -> None:
    control_plane = {"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}
    quick = {*control_plane, "opa", "regal", "gatekeeper", "gator", "helm", "kubeconform", "spiffe-verify"}
    expected = {*quick, "/", "netpolicy", "kube-network-policies", "opa-envoy-plugin", "promtool", "argocd-lua"}
    # The fixture replaced the table of this process.
    script = "from hack import gotools; print(*gotools.all_tools(), '/', *gotools.prove_tools())"
    root = Path(gotools.__file__).parent.parent
    listed = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    names = listed.stdout.split()
    assert sorted(names) == sorted(expected)
    assert set(names[: names.index("/")]) == quick


def test_without_go_the_error_says_what_to_install() -> None:
    with pytest.raises(ToolError, match=r"^Go is missing: install Go 1\.26 or newer \(https://go\.dev/dl/\)"):
        find_or_build("alpha")


@pytest.mark.parametrize("version", ["go1.25.9", "go1.9"])
def test_an_old_go_is_refused(tmp_path: Path, version: str) -> None:
    a_go(tmp_path, version=version)
    with pytest.raises(ToolError, match=rf"bin/go is Go {version[2:6].rstrip('.')}, but .* need 1\.26: install Go"):
        find_or_build("alpha")


@pytest.mark.parametrize("version", ["go1.26rc1", "go1.27.0", "go2.0", "devel go1.28-abcdef Sun Nov 22"])
def test_a_new_go_is_accepted(tmp_path: Path, version: str) -> None:
    a_go(tmp_path, version=version)
    assert find_or_build("alpha").is_file()


def test_the_command_prints_no_traceback_without_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert gotools.main(["alpha"]) == 1
    assert capsys.readouterr().err.startswith("error: Go is missing")


def test_slow_tools_are_built_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_go(tmp_path)
    (slow,) = (dataclasses.replace(module, only_for_prove=True) for module in gotools.MODULES)
    monkeypatch.setattr(gotools, "MODULES", (slow,))
    assert gotools.main([]) == 0
    assert builds(tmp_path) == []
    assert gotools.main(["--prove"]) == 0
    assert len(builds(tmp_path)) == 1


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(ToolError, match="unknown tool 'gamma'; known are alpha, beta"):
        find_or_build("gamma")


def test_one_build_makes_all_tools_of_a_module_once(tmp_path: Path) -> None:
    a_go(tmp_path)
    alpha, beta = find_or_build("alpha"), find_or_build("beta")
    assert (alpha.name, beta.name) == ("alpha", "beta")
    assert find_or_build("alpha") == alpha
    (command,) = builds(tmp_path)
    assert command.endswith("/ example.org/letters/alpha example.org/letters/beta")
    assert "-trimpath -mod=readonly -buildvcs=false -ldflags=-s -w" in command


def test_only_what_is_missing_is_built(tmp_path: Path) -> None:
    a_go(tmp_path)
    find_or_build("alpha").unlink()
    assert find_or_build("alpha").is_file()
    assert builds(tmp_path)[1].endswith("/alpha example.org/letters/alpha")


def test_a_failed_build_shows_the_compilers_words_and_leaves_nothing(tmp_path: Path) -> None:
    a_go(tmp_path, "echo main.go:1: syntax error; exit 1")
    with pytest.raises(ToolError, match=r"(?s)`go build` of alpha, beta in .*letters failed:\nmain.go:1: syntax error"):
        find_or_build("alpha")
    assert [path.name for path in gotools.cache_directory().iterdir()] == ["letters.lock"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    a_go(tmp_path)
    abandoned = gotools.cache_directory() / ".build-letters-killed"
    abandoned.mkdir(parents=True)
    find_or_build("alpha")
    assert not abandoned.exists()


def test_a_long_build_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gotools, "PROGRESS_SECONDS", 0.4)
    a_go(tmp_path, f"sleep 1.2; {BUILDS}")
    find_or_build("alpha")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "building alpha, beta: 0 s (takes no time)"
    assert "building alpha, beta: 1 s (takes no time)" in lines


def test_a_second_builder_waits_and_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_go(tmp_path)
    alpha = find_or_build("alpha")
    built = alpha.read_text()
    alpha.unlink()
    with (gotools.cache_directory() / "letters.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=find_or_build, args=["alpha"])
        waiting.start()
        wait_until(lambda: "waiting for another process" in capsys.readouterr().err)
        alpha.write_text(built)
    waiting.join(10)
    assert len(builds(tmp_path)) == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: what a shell has put into the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_the_build_and_what_it_started(tmp_path: Path) -> None:
    a_go(tmp_path, f"sh -c 'echo $$ > {tmp_path}/compiler; exec sleep 60' & wait")
    compiler = tmp_path / "compiler"
    main = threading.get_ident()

    def press_ctrl_c() -> None:
        wait_until(lambda: compiler.exists() and compiler.read_text().strip())
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press_ctrl_c)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        find_or_build("alpha")
    presser.join()
    wait_until(lambda: not is_running(int(compiler.read_text())))
    assert [path.name for path in gotools.cache_directory().iterdir()] == ["letters.lock"]


class TestKubebuilderAssets:
    @pytest.fixture(autouse=True)
    def assets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "assets"
        folder.mkdir()
        tools = dict.fromkeys(["etcd", "kube-controller-manager", "alpha"], "example.org/tool")
        monkeypatch.setattr(gotools, "MODULES", (dataclasses.replace(gotools.MODULES[0], packages=tools),))
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
        return folder

    def test_they_win_and_need_no_go(self, assets: Path) -> None:
        (assets / "etcd").touch()
        assert find_or_build("etcd") == assets / "etcd"

    def test_an_incomplete_folder_is_an_error(self) -> None:
        with pytest.raises(ToolError, match=r"KUBEBUILDER_ASSETS is .*/assets, which has no etcd"):
            find_or_build("etcd")

    @pytest.mark.parametrize("tool", ["kube-controller-manager", "alpha"])
    def test_what_they_never_hold_comes_from_the_cache(self, tool: str) -> None:
        with pytest.raises(ToolError, match="Go is missing"):
            find_or_build(tool)


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie answers too, where nobody reaps orphans.
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
