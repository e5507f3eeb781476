# How Sphinx makes the documentation site: `make docs`. What is ours about it is in hack/docsite.py.

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zerotrust import __version__

project = html_title = "zerotrust-operator"
version = release = __version__
extensions = ["myst_parser", "hack.docsite"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
# Anchors as code hosts make them, so that links work in both places.
myst_heading_anchors = 4
