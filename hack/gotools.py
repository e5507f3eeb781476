"""Finds the Go tools that tests and the demo run, and builds those that are missing from the modules in hack/tools.

`python hack/gotools.py kubectl …` prints where each named tool is; `--prove` names those that only `make prove` runs.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.children import Child

MODULES_FOLDER = Path(__file__).resolve().parent / "tools"
MINIMUM_GO = (1, 26)
PROGRESS_SECONDS = 10.0
STOP_SECONDS = 10.0


class ToolError(Exception):
    """A tool can neither be found nor built; the message says what to do."""


@dataclass(frozen=True)
class Module:
    """A pinned Go module and the tools that one `go build` of it makes."""

    folder: Path
    packages: Mapping[str, str]  # tool -> Go package
    ldflags: str
    patience: str  # what a person is told to expect of the first build
    only_for_prove: bool = False  # builds too slowly for what `make test` waits for


_STRIP = "-s -w"
# Built from the module cache, kubernetes knows no version, and then no version-gated API or feature.
_KUBERNETES_VERSION = {"gitVersion": "v1.37.0", "gitMajor": "1", "gitMinor": "37"}
_STAMP = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in _KUBERNETES_VERSION.items())
# `helm template` asks no cluster, so it is told which Kubernetes to render for.
_HELM_VERSION = " ".join(
    f"-X helm.sh/helm/v3/{name}={value}"
    for name, value in {
        "internal/version.version": "v3.22.0",
        "pkg/chartutil.k8sVersionMajor": "1",
        "pkg/chartutil.k8sVersionMinor": "37",
        "pkg/lint/rules.k8sVersionMajor": "1",
        "pkg/lint/rules.k8sVersionMinor": "37",
    }.items()
)

MODULES = (
    Module(
        MODULES_FOLDER / "etcd",
        {"etcd": "go.etcd.io/etcd/server/v3"},
        _STRIP,
        "the first build takes about 2 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "kubernetes",
        {
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        },
        f"{_STRIP} {_STAMP}",
        "the first build takes about 15 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "spiffe-verify",
        {"spiffe-verify": "."},
        _STRIP,
        "the first build takes a few seconds",
    ),
    Module(
        MODULES_FOLDER / "opa",
        {"opa": "github.com/open-policy-agent/opa"},
        _STRIP,
        "the first build takes about 4 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "regal",
        {"regal": "github.com/open-policy-agent/regal"},
        _STRIP,
        "the first build takes about 8 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "gatekeeper",
        {
            "gatekeeper": "github.com/open-policy-agent/gatekeeper/v3",
            "gator": "github.com/open-policy-agent/gatekeeper/v3/cmd/gator",
        },
        _STRIP,
        "the first build takes about 7 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "helm",
        {"helm": "helm.sh/helm/v3/cmd/helm"},
        f"{_STRIP} {_HELM_VERSION}",
        "the first build takes about 2 minutes on 2 cores",
    ),
    Module(
        MODULES_FOLDER / "kubeconform",
        {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
        _STRIP,
        "the first build takes a few seconds",
    ),
    Module(
        MODULES_FOLDER / "opa-envoy-plugin",
        {"opa-envoy-plugin": "github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin"},
        _STRIP,
        "the first build takes about 2 minutes on 2 cores",
        only_for_prove=True,
    ),
    Module(
        MODULES_FOLDER / "netpol-analyzer",
        {"netpolicy": "github.com/np-guard/netpol-analyzer/cmd/netpolicy"},
        _STRIP,
        "the first build takes about 5 minutes on 2 cores",
        only_for_prove=True,
    ),
    Module(
        MODULES_FOLDER / "kube-network-policies",
        {"kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard"},
        _STRIP,
        "the first build takes about 9 minutes on 2 cores",
        only_for_prove=True,
    ),
    Module(
        MODULES_FOLDER / "argocd-lua",
        {"argocd-lua": "."},
        _STRIP,
        "the first build takes about 5 minutes on 2 cores",
        only_for_prove=True,
    ),
    Module(
        MODULES_FOLDER / "prometheus",
        {"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
        _STRIP,
        "the first build takes about 16 minutes on 2 cores",
        only_for_prove=True,
    ),
)
# What a KUBEBUILDER_ASSETS folder holds, as setup-envtest fills it; False: not in every such folder.
_ASSETS = {"etcd": True, "kube-apiserver": True, "kubectl": True, "kube-controller-manager": False}


@dataclass(frozen=True)
class Toolchain:
    """The Go that builds, as far as a binary depends on it."""

    program: str
    version: tuple[int, int]
    system: str
    architecture: str


def find_or_build(tool: str) -> Path:
    """The tool's executable: from KUBEBUILDER_ASSETS, else from the cache, else built with its module's other tools.

    Raises ToolError when it is unknown, or when Go is missing, too old or fails.
    """
    module = _module_of(tool)
    if asset := _asset(tool):
        return asset
    go = toolchain()
    binary = _cached(tool, module, go)
    if not binary.is_file():
        with only_builder(module.folder.name, ", ".join(module.packages)):
            missing = [name for name in module.packages if not _cached(name, module, go).is_file()]
            if missing:
                _build(module, missing, go)
    return binary


def module_files(folder: str, module: str) -> Path:
    """Where Go keeps the files of a module that hack/tools/`folder` pins; fetched when they are not there. Raises ToolError."""
    done = subprocess.run(
        [toolchain().program, "mod", "download", "-json", module],
        cwd=MODULES_FOLDER / folder,
        env={**os.environ, "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if done.returncode != 0 or "Dir" not in answer:
        reason = answer.get("Error") or done.stderr.strip()
        raise ToolError(f"the files of {module} cannot be had: `go mod download` failed: {reason}")
    return Path(answer["Dir"])


def all_tools() -> list[str]:
    """What the tests and the demo run."""
    return [tool for module in MODULES if not module.only_for_prove for tool in module.packages]


def prove_tools() -> list[str]:
    """What `make prove` runs besides."""
    return [tool for module in MODULES if module.only_for_prove for tool in module.packages]


def cache_directory() -> Path:
    """Shared by all checkouts of this user: a clean clone does not build again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zerotrust-operator"


def cache_key(module: Module, go: Toolchain) -> str:
    """Names a build by everything it is made from, and by nothing else (not by where the checkout is)."""
    sources = [module.folder / "go.mod", module.folder / "go.sum", *sorted(module.folder.rglob("*.go"))]
    files = [
        (source.relative_to(module.folder).as_posix(), hashlib.sha256(source.read_bytes()).hexdigest())
        for source in sources
        if source.is_file()
    ]
    inputs = [files, module.ldflags, go.version, go.system, go.architecture]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def toolchain() -> Toolchain:
    """The Go on PATH. Raises ToolError when there is none or it is too old."""
    wanted = ".".join(map(str, MINIMUM_GO))
    advice = f"install Go {wanted} or newer (https://go.dev/dl/) and put its bin folder on PATH"
    program = shutil.which("go")
    if program is None:
        raise ToolError(f"Go is missing: {advice}")
    go = _inspect(program)
    if go.version < MINIMUM_GO:
        found = ".".join(map(str, go.version))
        raise ToolError(f"{program} is Go {found}, but the pinned modules need {wanted}: {advice}")
    return go


@functools.cache
def _inspect(program: str) -> Toolchain:
    # Outside any module and without switching: the version that is installed, not one that Go would download.
    answer = subprocess.run(
        [program, "env", "-json", "GOVERSION", "GOOS", "GOARCH"],
        cwd="/",
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise ToolError(f"`{program} env` failed: {answer.stderr.strip()}")
    values = json.loads(answer.stdout)
    version = re.search(r"go(\d+)\.(\d+)", values["GOVERSION"])
    if version is None:
        raise ToolError(f"{program} reports an unknown version: {values['GOVERSION']!r}")
    return Toolchain(program, (int(version[1]), int(version[2])), values["GOOS"], values["GOARCH"])


def _module_of(tool: str) -> Module:
    for module in MODULES:
        if tool in module.packages:
            return module
    raise ToolError(f"unknown tool {tool!r}; known are {', '.join([*all_tools(), *prove_tools()])}")


def _asset(tool: str) -> Path | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder or tool not in _ASSETS:
        return None
    binary = Path(folder) / tool
    if binary.is_file():
        return binary
    if _ASSETS[tool]:
        raise ToolError(f"KUBEBUILDER_ASSETS is {folder}, which has no {tool}: complete it or unset the variable")
    return None


def _cached(tool: str, module: Module, go: Toolchain) -> Path:
    return cache_directory() / f"{tool}-{cache_key(module, go)}" / tool


@contextlib.contextmanager
def only_builder(name: str, tools: str) -> Iterator[None]:
    """Two processes that miss the same tools must not both make them: the second waits and finds them."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / f"{name}.lock").open("w") as lock, _Progress() as progress:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress.say(f"waiting for another process that builds {tools}")
                time.sleep(0.5)
        progress.close()
        yield


def _build(module: Module, tools: list[str], go: Toolchain) -> None:
    prefix = f".build-{module.folder.name}-"
    # We hold the module's lock, so these are left by builds that were killed.
    for abandoned in cache_directory().glob(f"{prefix}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache_directory(), ignore_cleanup_errors=True) as folder:
        staging = Path(folder)
        output = staging / tools[0] if len(tools) == 1 else f"{staging}/"
        # -buildvcs=false: the binaries are named by their inputs, and stamping fails in a checkout of another user.
        flags = ["-trimpath", "-mod=readonly", "-buildvcs=false", f"-ldflags={module.ldflags}"]
        child = Child(
            "go build",
            [go.program, "build", *flags, "-o", output, *(module.packages[tool] for tool in tools)],
            staging / "build.log",
            directory=module.folder,
            # Interrupted, `go build` leaves its work directory behind, so that is put where we remove it.
            environment={**os.environ, "GOWORK": "off", "GOTMPDIR": folder},
        )
        _wait_for_build(child, f"building {', '.join(tools)}", module.patience)
        if child.exit_code != 0:
            raise ToolError(f"`go build` of {', '.join(tools)} in {module.folder} failed:\n{child.tail()}")
        for tool in tools:
            final = _cached(tool, module, go)
            final.parent.mkdir(exist_ok=True)
            (staging / tool).rename(final)


def _wait_for_build(child: Child, what: str, patience: str) -> None:
    started = time.monotonic()
    try:
        with _Progress() as progress:
            while True:
                progress.say(f"{what}: {time.monotonic() - started:.0f} s ({patience})")
                if child.wait(0.5):
                    break
    except BaseException:
        child.stop(STOP_SECONDS)
        raise


class _Progress:
    """Says the latest message every ten seconds; on a terminal on one line, which it keeps up to date."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = 0.0
        self._open_line = False

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, message: str) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (1.0 if self._terminal else PROGRESS_SECONDS)
        sys.stderr.write(f"\r\x1b[K{message}" if self._terminal else f"{message}\n")
        sys.stderr.flush()
        self._open_line = self._terminal

    def close(self) -> None:
        if self._open_line:
            sys.stderr.write("\n")
            self._open_line = False


def main(arguments: list[str]) -> int:
    try:
        named = prove_tools() if arguments == ["--prove"] else arguments
        for tool in named or all_tools():
            print(find_or_build(tool))
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
