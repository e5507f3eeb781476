"""Every bound of the server in one place."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Limits:
    """Bounds; sizes in bytes, times in seconds. What exceeds one is refused or cut, never queued without end."""

    connections: int = 10_000
    connections_per_address: int = 512
    handshake_seconds: float = 10.0
    header_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_seconds: float = 15.0
    write_seconds: float = 20.0
    waiters: int = 8_000
    waiters_per_client: int = 8
    intakes: int = 32
    status_compressed: int = 256 * KIB
    status_plain: int = 1 * MIB
    logs_compressed: int = 1 * MIB
    logs_plain: int = 4 * MIB
    nesting: int = 64
    log_entries: int = 10_000
    label_sets: int = 1_000
    denials: int = 100
    reported_bundles: int = 64
    verdicts: int = 20_000
    reviews_at_once: int = 32
    reviews_waiting: int = 2_000
    review_seconds: float = 5.0
    drain_spread_seconds: float = 5.0
    drain_grace_seconds: float = 10.0
