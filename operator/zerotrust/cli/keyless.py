"""No API key in what the command line says of its arguments: a key that was pasted there would stand in terminals and CI logs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

LIKE_A_KEY = re.compile(r"(?<![0-9A-Za-z])sk_[0-9A-Za-z_.-]{16,}")
NO_ARGUMENT = (
    "A key is never an argument: other users of this machine can see it, and the shell keeps it."
    " Write `zerotrust keys inspect < FILE`, or type it when you are asked."
    " If what you wrote was a key in use, rotate it and revoke the old one."
)
# What is certainly a key, or most of one; names of files are not.
_KEY = re.compile(r"sk_[0-9A-Za-z]{12}\.[0-9A-Za-z_-]{16,}")


class Keyless(click.Group):
    """Refuses a key among the arguments of any command, and repeats nothing in a usage error that may be one."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments; UsageError without what may be a key."""
        with _redacted():
            return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse a key before anything can read it as something else."""
        if any(_KEY.search(text) for text in args):
            raise click.UsageError(NO_ARGUMENT, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that is named; UsageError without what may be a key."""
        with _redacted():
            return super().invoke(ctx)


@contextmanager
def _redacted() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        message = error.format_message()
        if LIKE_A_KEY.search(message) is None:
            raise
        raise click.UsageError(f"{LIKE_A_KEY.sub('sk_…', message)}\n{NO_ARGUMENT}", error.ctx) from None
