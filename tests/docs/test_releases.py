"""The version stands in one place, and the changelog has the form of Keep a Changelog 1.1.0."""

import re

import pytest

from tests.docs.blocks import ROOT
from zerotrust import __version__

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})")


@pytest.mark.parametrize("folder", ["manifests", "docs", "examples"])
def test_images_have_this_version(folder: str) -> None:
    files = [path for kind in ("yaml", "md") for path in (ROOT / folder).rglob(f"*.{kind}")]
    tags = {tag for path in files for tag in re.findall(r"zerotrust-operator:(\d[\w.-]*)", path.read_text())}
    assert tags <= {__version__}


def test_the_version_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", __version__)


def test_the_changelog_begins_with_what_is_not_released() -> None:
    versions = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    releases = [RELEASE.fullmatch(one) for one in versions[1:]]
    assert all(releases), "a release is `## [1.2.3] - 2026-01-31`"
    dates = [one[2] for one in releases if one]
    assert dates == sorted(dates, reverse=True)
    newest = next((one[1] for one in releases if one), None)
    assert newest in (None, __version__) or f"What will be {__version__}" in CHANGELOG


def test_the_changelogs_sections_are_the_usual_ones() -> None:
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= SECTIONS
