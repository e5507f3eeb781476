"""Code blocks of the documentation, as a Markdown parser finds them.

Conventions, which the tests in this folder hold every page to:

- a block names its language: `yaml`, `console`, `json`, `text` or another one of `LANGUAGES`;
- YAML that is a whole resource stands as it is; a part of one of our resources names the kind after the language
  (```` ```yaml ServiceIdentity ````) and begins with `spec:` or with fields of the spec; other parts say `fragment`;
- in `console`, a command begins with `$ `; what follows is its output. In `sh`, every line is a command.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from zerotrust.cli.manifests import Loader

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", "manifests/**/*.md")
LANGUAGES = {"console", "dockerfile", "json", "lua", "nginx", "promql", "python", "rego", "sh", "text", "toml", "yaml"}
OURS = "zerotrust.dev/v1alpha1"
# What a part of a resource is completed with.
WHOLE: dict[str, dict[str, Any]] = {
    "TrustDomain": {},
    "ServiceIdentity": {},
    "TrustPolicy": {"target": {"all": True}},
    "ApiKey": {"holder": {"name": "x"}, "audience": ["orders"]},
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `words` are what follows the language, `line` is that of its first line of text."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_fragment(self) -> bool:
        return "fragment" in self.words

    def documents(self) -> list[dict[str, Any]]:
        """What a YAML block says, as whole resources; parts of ours are completed."""
        loaded = [one for one in yaml.load_all(self.text, Loader=Loader) if one is not None]
        kind = next((word for word in self.words if word in WHOLE), None)
        return loaded if kind is None else [_completed(kind, part) for part in loaded]


def _completed(kind: str, part: dict[str, Any]) -> dict[str, Any]:
    place = {} if kind == "TrustDomain" else {"namespace": "shop"}
    name = "example.org" if kind == "TrustDomain" else "orders"
    spec = part.get("spec", part)
    return {
        "apiVersion": OURS,
        "kind": kind,
        "metadata": {"name": name, **place} | part.get("metadata", {}),
        "spec": WHOLE[kind] | spec,
    }


@cache
def blocks(*languages: str) -> tuple[Block, ...]:
    """Every block of the documentation, or those of some languages, in the order of pages and lines."""
    found = []
    for page in sorted({path for pattern in PAGES for path in ROOT.glob(pattern)}):
        name = page.relative_to(ROOT).as_posix()
        if name.startswith("docs/_build/"):
            continue
        for token in MarkdownIt().parse(page.read_text()):
            if token.type == "fence" and token.map is not None:
                language, *words = token.info.split() or [""]
                found.append(Block(name, token.map[0] + 2, language, tuple(words), token.content))
    return tuple(block for block in found if not languages or block.language in languages)
