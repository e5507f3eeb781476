"""Child processes that never outlive this one: the kernel stops them if this process dies."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_WRAPPER = Path(__file__).with_name("die_with_parent.py")


class Child:
    """A running command whose output goes to a log file.

    It gets a session of its own, so that Ctrl-C in a terminal reaches only us and we choose the order of stopping.
    The kernel kills it when the *thread* that started it ends: start children from a thread that stays.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        wrapped = [sys.executable, "-I", "-S", str(_WRAPPER), str(os.getpid())]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*wrapped, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """True when it ended within `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace: float) -> None:
        """Ask it and its own children to end, and force those that have not `grace` seconds later."""
        if self.exit_code is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self.wait(grace)
            # Its own children may ignore the signal, and as long as one lives, the group's id is given to no other.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
