"""Network namespaces without a name: the kernel removes them, and all that is in them, with this process."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000


class NetnsError(Exception):
    """A command failed inside; the message has its words."""


class Netns:
    """A new network namespace, kept by an open file."""

    def __init__(self) -> None:
        self._descriptor = _in_thread(_new)

    @property
    def path(self) -> str:
        """A file that stands for it as long as this process runs."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def call(self, function: Callable[[], Result]) -> Result:
        """The function's result, called inside; a socket that it makes stays inside."""

        def entered() -> Result:
            _libc("setns", self._descriptor, _CLONE_NEWNET)
            return function()

        return _in_thread(entered)

    def command(self, *command: str | Path) -> list[str]:
        """The command that runs this command inside."""
        return [shutil.which("nsenter") or "nsenter", f"--net={self.path}", *map(str, command)]

    def run(self, *command: str, stdin: str = "") -> None:
        """Run a command inside. Raises NetnsError."""
        done = subprocess.run(self.command(*command), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NetnsError(f"`{' '.join(command)}` failed:\n{stdin}{done.stdout}{done.stderr}")

    def close(self) -> None:
        """Let go of it; it ends when nothing uses it any more."""
        os.close(self._descriptor)


def _new() -> int:
    _libc("unshare", _CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(function: Callable[[], Result]) -> Result:
    """Each thread has a network namespace of its own, so one that changes it must end with the call."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def _libc(function: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
