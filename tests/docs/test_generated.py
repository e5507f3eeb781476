"""What is generated is what is committed, and the catalogue of conditions fails where code and guide do not fit."""

import pytest

from hack.generate import COPIES, GUIDE, ROOT, generated
from hack.reference.conditions import DoesNotFit, page, rows_of


def test_generated_files_are_current() -> None:
    stale = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    assert not [path.relative_to(ROOT).as_posix() for path in stale], "run `make generate`"


def test_nothing_else_stands_among_the_generated_files() -> None:
    wanted = generated()
    for folder in (ROOT / "crds", *COPIES):
        assert {path for path in folder.glob("*.yaml") if path not in wanted} == set()


def test_a_reason_that_the_guide_does_not_explain_is_named() -> None:
    without = GUIDE.read_text().replace(
        "| `RenewalOverdue` | True | `AuthorityEnds` |", "| `Removed` | True | `AuthorityEnds` |"
    )
    with pytest.raises(DoesNotFit) as refused:
        page(without)
    assert str(refused.value).splitlines() == [
        "ServiceIdentity: the guide does not explain RenewalOverdue=True, reason AuthorityEnds",
        "ServiceIdentity: no code says Removed=True, reason AuthorityEnds, which the guide explains",
    ]


def test_a_row_about_what_no_code_says_is_named() -> None:
    stale = GUIDE.read_text().replace("| True | `Operational` |", "| True | `Operational`, `Splendid` |")
    with pytest.raises(
        DoesNotFit, match=r"^TrustDomain: no code says Ready=True, reason Splendid, which the guide explains$"
    ):
        page(stale)


def test_every_kind_has_ready_and_links_lead_on() -> None:
    rows = rows_of(GUIDE.read_text())
    assert {row.kind for row in rows if "Ready" in row.types} == {
        "TrustDomain",
        "ServiceIdentity",
        "TrustPolicy",
        "ApiKey",
    }
    links = [part for row in rows for part in (row.meaning + row.remedy).split("](")[1:]]
    assert links
    assert all(link.startswith(("../guides/", "https:")) for link in links)
