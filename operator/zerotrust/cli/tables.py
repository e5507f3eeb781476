"""Tables for people: as wide as the terminal, or, without one, a line for each row, for grep and for logs."""

from collections.abc import Sequence
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerotrust.cli.policies import printable, say

UNLIMITED = 10_000


def table(*headings: str, folding: Sequence[str] = ()) -> Table:
    """Return an empty table; the cells of `folding` columns take several lines where the terminal is narrow."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold", no_wrap=heading not in folding)
    return made


def cell(text: str, style: str = "") -> Text:
    """A cell that does nothing to a terminal; an absent value is a hyphen. Style never carries meaning of its own."""
    return Text(printable(text) or "-", style=style)


def show(made: Table) -> None:
    """Print a table on standard output."""
    terminal = Console(highlight=False)
    if terminal.is_terminal:
        terminal.print(made)
        return
    console = Console(highlight=False, width=UNLIMITED)
    with console.capture() as printed:
        console.print(made)
    say("\n".join(line.rstrip() for line in printed.get().splitlines()))


def paragraph(text: str, indent: int = 0) -> str:
    """Break a text into lines where the terminal ends; without one it stays on a line."""
    terminal, space = Console(highlight=False), " " * indent
    width = terminal.width if terminal.is_terminal else UNLIMITED
    lines = wrap(printable(text), max(width, 40), initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
    return "\n".join(lines)
