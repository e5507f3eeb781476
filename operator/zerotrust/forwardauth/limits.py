"""Every bound of the service in one place."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class Limits:
    """Bounds; sizes in bytes, times in seconds. What exceeds one is refused, never queued without end."""

    connections: int = 512
    head_seconds: float = 5.0
    idle_seconds: float = 75.0
    line: int = 4 * KIB
    header: int = 64 * KIB
    headers: int = 128
    head: int = 160 * KIB
    uri: int = 16 * KIB
    certificate: int = 64 * KIB
    authorization: int = 16 * KIB
    questions_at_once: int = 64
    questions_waiting: int = 256
    connect_seconds: float = 0.5
    decide_seconds: float = 2.0
    answer: int = 64 * KIB
    health_seconds: float = 2.0
