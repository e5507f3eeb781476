"""The commands that look at a cluster as a whole, and `kubectl zerotrust`: the same program under kubectl's name for plugins."""

import click

from zerotrust.cli.asking import renew, revoke, rotate
from zerotrust.cli.completion import completion
from zerotrust.cli.doctor import doctor
from zerotrust.cli.status import status
from zerotrust.cli.why import why


def add_to(program: click.Group) -> None:
    """Register the commands."""
    for command in (completion, doctor, renew, revoke, rotate, status, why):
        program.add_command(command)
