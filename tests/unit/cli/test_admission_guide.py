"""The admission guide's names and numbers are those of the code."""

import re
from pathlib import Path

from zerotrust.common import naming
from zerotrust.gatekeeper.constraints import MAX_BYTES, name_of
from zerotrust.gatekeeper.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "guides" / "admission.md").read_text()


def test_every_kind_of_constraint_is_described() -> None:
    assert re.findall(r"^\| `(ZeroTrust\w+)` \|", GUIDE, re.MULTILINE) == [
        "ZeroTrustIdentityBinding",
        "ZeroTrustIdentityLabels",
        "ZeroTrustCredentialAccess",
        "ZeroTrustServiceCapture",
        "ZeroTrustHostAccess",
        "ZeroTrustImages",
    ]
    assert len(TEMPLATES) == 6


def test_names_and_numbers_are_those_of_the_code() -> None:
    assert f"`{name_of('shop', 'deny', 1)}`" in GUIDE
    for action in ("deny", "dryrun", "warn"):
        assert f"`<namespace>.{name_of('shop', action).partition('.')[2]}`" in GUIDE
    assert f"more than {MAX_BYTES // 1024} KiB" in GUIDE
    assert f"-l {naming.NAMESPACE}=shop" in GUIDE
    assert f"-l {naming.MANAGED_SELECTOR}\n" in GUIDE
