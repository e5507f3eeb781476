"""The site's contents follow docs/index.md, and its strict build notices what it should."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hack.docsite import contents
from tests.docs.blocks import ROOT


def test_contents_are_the_sections_and_then_what_nobody_has_listed() -> None:
    index = "# T\n\n## Start\n\n- [Q](quickstart.md#one)\n[R](../README.md)\n\n## Guides\n[B](guides/b.md), [A](guides/a.md)\n"
    pages = {"quickstart", "guides/a", "guides/b", "guides/c", "runbooks/x", "strange"}
    assert contents(index, pages) == {
        "Start": ["quickstart"],
        "Guides": ["guides/b", "guides/a", "guides/c"],
        "Runbooks": ["runbooks/x"],
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[right](index.md#home)", ""),
        ("[dead](none.md)", "none.md"),
        ("[dead anchor](index.md#none)", "none"),
        ("![](picture.svg)", "an image needs a text for those who cannot see it"),
    ],
)
def test_what_the_strict_build_refuses(text: str, complaint: str, tmp_path: Path) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    configuration = (
        (ROOT / "docs" / "conf.py").read_text().replace("Path(__file__).resolve().parent.parent", repr(str(ROOT)))
    )
    (pages / "conf.py").write_text(configuration)
    (pages / "index.md").write_text(f"# Home\n\n{text}\n")
    shutil.copy(next((ROOT / "docs").rglob("*.svg")), pages / "picture.svg")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-n",
        "--keep-going",
        "-b",
        "html",
        str(pages),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not complaint), done.stderr
    assert complaint in done.stderr
