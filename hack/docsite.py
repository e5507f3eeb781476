"""A Sphinx extension that lets docs/ be plain Markdown, which reads the same on a code host and on the site.

- The site's contents are the sections of docs/index.md and the links in them; a page that nobody has listed goes to the end of
  its folder's section.
- A link to what is outside docs/ shows the path in the repository, or leads there when DOCS_REPOSITORY_URL says where the
  repository can be read (for example `https://code.example.org/zerotrust-operator/blob/main/`).
- An image without a text for those who cannot see it is a warning, which the strict build takes for an error.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes  # type: ignore[import-untyped]
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY_URL = "DOCS_REPOSITORY_URL"
# The section of index.md in which a folder's pages go when it does not list them.
FOLDERS = {
    "concepts": "Concepts",
    "guides": "Guides",
    "reference": "Reference",
    "runbooks": "Runbooks",
    "adr": "Decisions",
}
LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the extension."""
    app.connect("source-read", _add_contents)
    # Before Sphinx collects what is to be downloaded.
    app.connect("doctree-read", _look_at_links_and_images, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def contents(index: str, pages: set[str]) -> dict[str, list[str]]:
    """Return the pages of each section of index.md, without suffix: those that it links, then the others of its folders."""
    sections: dict[str, list[str]] = {}
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        linked = re.findall(r"\]\(([\w./-]+)\.md(?:#[\w-]*)?\)", part.partition("\n")[2])
        sections[part.partition("\n")[0].strip()] = list(dict.fromkeys(one for one in linked if one in pages))
    listed = {page for section in sections.values() for page in section}
    for page in sorted(pages - listed):
        if section := FOLDERS.get(page.partition("/")[0]):
            sections.setdefault(section, []).append(page)
    return sections


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page != app.config.root_doc:
        return
    for caption, pages in contents(source[0], app.env.found_docs - {page}).items():
        if pages:
            listed = "\n".join(f"/{one}" for one in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def _look_at_links_and_images(app: Sphinx, doctree: nodes.document) -> None:
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            LOG.warning("an image needs a text for those who cannot see it", location=image)
    for link in list(_links(doctree)):
        path, _, anchor = _target(app, link).partition("#")
        where = Path(path)
        if not path or not where.exists() or (app.srcdir in where.parents and where.is_file()):
            continue  # Sphinx itself follows it, or warns
        if ROOT not in where.parents:
            LOG.warning("a link leads out of the repository: %s", path, location=link)
            continue
        shown = where.relative_to(ROOT).as_posix()
        if base := os.environ.get(REPOSITORY_URL):
            address = base.rstrip("/") + f"/{shown}" + (f"#{anchor}" if anchor else "")
            link.replace_self(nodes.reference("", "", *link.children, refuri=address))
        elif shown in link.astext():
            link.replace_self(link.children)
        else:
            link.replace_self([*link.children, nodes.Text(" ("), nodes.literal(shown, shown), nodes.Text(")")])


def _links(doctree: nodes.document) -> Iterator[nodes.Element]:
    for kind in (addnodes.pending_xref, addnodes.download_reference):
        yield from (link for link in doctree.findall(kind) if link.get("reftype") == "myst")


def _target(app: Sphinx, link: nodes.Element) -> str:
    """Where a link leads on this machine, with its anchor."""
    target: str = link["reftarget"]
    if link.get("refdomain") == "doc":  # a Markdown file; one outside the site has its full path
        place = target if target.startswith("/") else str(app.srcdir / target)
        anchor = link.get("reftargetid")
        return f"{place}.md" + (f"#{anchor}" if anchor else "")
    if not target or target.startswith("#"):
        return ""
    return os.path.normpath(app.srcdir / Path(app.env.docname).parent / target)
