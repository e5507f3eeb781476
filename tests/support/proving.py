"""What only `make prove` runs, because the tools it needs build too slowly for `make test`."""

import os

import pytest

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
only_in_prove = pytest.mark.skipif(
    not PROVING,
    reason="only `make prove` (ZEROTRUST_PROVE=1) has the tools or the time that this needs",
)
