"""Commands of the documentation's console blocks, and what is done with each."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from tests.docs.blocks import Block, blocks
from tests.docs.exceptions import CHECKED_ONLY, FIRST_STEPS, NOT_RUN, OFFLINE

Treatment = Literal["without a cluster", "from nothing", "on a cluster", "checked"]
SEPARATORS = {"|", "||", "&&", ";", "&", "|&", "(", ")", "{", "}"}
REDIRECTS = {"<", ">", ">>", "2>", "<<<", ">&"}
KEYWORDS = {"while", "do", "done", "if", "then", "else", "fi", "for", "!"}


@dataclass(frozen=True)
class Command:
    """A command as it stands on the page, and the output that is shown for it."""

    block: Block
    number: int
    text: str
    output: str

    def __str__(self) -> str:
        return f"{self.block}+{self.number}"

    @property
    def calls(self) -> tuple[tuple[str, ...], ...]:
        """The programs that it starts, each with its arguments; redirections and what they name are left out."""
        return tuple(_calls(self.text))

    @property
    def reason(self) -> str | None:
        """Why it is only checked; None if it is run."""
        if self.calls[0][0] in NOT_RUN:
            return NOT_RUN[self.calls[0][0]]
        return self.exception[2] if self.exception is not None else None

    @property
    def exception(self) -> tuple[str, str, str] | None:
        """The first entry of `CHECKED_ONLY` that is about it; pages that begin from nothing have none."""
        places = () if self.block.page in FIRST_STEPS else ("*", self.block.page)
        return next((one for one in CHECKED_ONLY if one[0] in places and re.search(one[1], self.text)), None)

    @property
    def treatment(self) -> Treatment:
        if self.reason is not None:
            return "checked"
        if self.block.page in FIRST_STEPS:
            return "from nothing"
        program, *rest = self.calls[0]
        if program.endswith("zerotrust") and rest and rest[0] in OFFLINE and "-f" in rest:
            return "without a cluster"
        return "on a cluster"


@cache
def commands() -> tuple[Command, ...]:
    return tuple(one for block in blocks("console", "sh") for one in _commands(block))


def _commands(block: Block) -> Iterator[Command]:
    text, output, number = "", "", 0
    prompt = "$ " if block.language == "sh" else ""
    lines = [prompt + line for line in block.text.splitlines(keepends=True)]
    while lines:
        assert lines[0].startswith("$ "), f"{block}: a console block begins with a command: {lines[0]!r}"
        text, output = lines.pop(0)[2:], ""
        while lines and not _is_complete(text):
            text += lines.pop(0)
        assert _is_complete(text), f"{block}: bash cannot read {text!r}; a placeholder is written without < and >"
        while lines and not lines[0].startswith("$ "):
            output += lines.pop(0)
        number += 1
        yield Command(block, number, text.rstrip("\n"), output)


@cache
def _is_complete(text: str) -> bool:
    if text.endswith("\\\n"):
        return False
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0


def _calls(text: str) -> Iterator[tuple[str, ...]]:
    line = re.sub(r"\$\([^()]*\)", "substituted", text.replace("\\\n", " ")).replace("\n", " ; ")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words, skip = list[str](), False
    for word in [*_without_comments(lexer), ";"]:
        if skip:
            skip = False
        elif word in SEPARATORS:
            if words and not words[0].startswith("read"):
                yield tuple(words)
            words = []
        elif word in REDIRECTS:
            skip = True
            if words and words[-1].isdigit():
                words.pop()
        elif words or (word not in KEYWORDS and not re.fullmatch(r"\w+=.*", word)):
            words.append(word)
        elif word in KEYWORDS:
            continue


def _without_comments(lexer: shlex.shlex) -> Iterator[str]:
    for word in lexer:
        if word.startswith("#"):
            return
        yield word
