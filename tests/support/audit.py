"""What API servers of tests were asked, from the audit logs that they keep (`hack.controlplane.AUDIT_LOGS`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AUDIT_LOG = "audit.log"
READS = ("get", "list", "watch")


def events(log: Path) -> Iterator[dict[str, Any]]:
    """The events of an audit log; the last line is cut off where an API server was killed."""
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def writes(log: Path) -> Iterator[dict[str, Any]]:
    """The writes of an audit log; of reads it has those of ServiceAccounts, without bodies."""
    return (event for event in events(log) if event["verb"] not in READS)
