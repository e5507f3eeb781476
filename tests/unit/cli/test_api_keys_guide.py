"""The guide's numbers and names are those of the code."""

from pathlib import Path

from zerotrust.apikey.key import LENGTH
from zerotrust.apikey.memory import MAX_KEYS
from zerotrust.apikey.resource import MAX_NAME, MAX_REVOKED
from zerotrust.apikey.secret import FORMATS

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "api-keys.md").read_text()


def test_numbers_and_names_are_those_of_the_code() -> None:
    assert f"| {LENGTH} characters: `sk_`" in GUIDE
    assert f"| {MAX_KEYS}; more rotations" in GUIDE
    assert f"| {MAX_REVOKED:,}; old ones" in GUIDE
    assert f"| the name | {MAX_NAME} characters |" in GUIDE
    for plain, variable in zip(FORMATS["Opaque"], FORMATS["Env"], strict=True):
        assert f"| `{plain}` | `{variable}` |" in GUIDE
