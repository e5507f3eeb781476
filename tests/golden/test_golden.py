"""What the controller makes of a manifest, compared with a file that was read by a person."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from zerotrust.cli.render import Offline, documents, printable

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ANY = "<ANY>"

_CHANGING = re.compile(
    r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?"  # PEM, also as it stands escaped in JSON
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # uids
    r"|\b[0-9a-f]{16}\b|\b[0-9a-f]{38,64}\b"  # authority ids, serial numbers, key ids, hashes
    r'|(?<="x":")[^"]+|(?<="y":")[^"]+|(?<="x5c":\[")[^"]+'
)


def normal(value: Any) -> Any:
    match value:
        case dict():
            return {_CHANGING.sub(ANY, key): normal(part) for key, part in value.items()}
        case list():
            return [normal(part) for part in value]
        case str():
            return _CHANGING.sub(ANY, value)
        case _:
            return value


def rendered(text: str) -> str:
    offline = Offline("zerotrust-system", NOW)
    for body in documents("input", text):
        offline.put(body)
    offline.assume()
    offline.run()
    made = [printable(manifest) for _, manifest in sorted(offline.made.items())]
    told = [
        {"kind": one.meta.ref.kind, "metadata": {"name": one.meta.name}, "status": dict(one.status)}
        for one in offline.resources()
    ]
    for one in told:
        one["status"].pop("renewalTime", None)  # its jitter depends on the uid
    return yaml.safe_dump_all(normal([*made, *told]), sort_keys=True, width=200)


@pytest.mark.parametrize("name", sorted(path.stem for path in (HERE / "input").glob("*.yaml")))
def test_golden(name: str) -> None:
    output = HERE / "output" / f"{name}.yaml"
    result = rendered((HERE / "input" / f"{name}.yaml").read_text())
    if os.environ.get("UPDATE_GOLDEN"):
        output.write_text(result)
    assert result == output.read_text()
