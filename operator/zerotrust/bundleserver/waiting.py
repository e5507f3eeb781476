"""Back-pressure: how many requests may be held, in all and for each client."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from zerotrust.bundleserver.refusals import busy


class Turnstile:
    """Lets a bounded number in, in all and by name; whoever comes too many is refused at once and never queued."""

    def __init__(self, what: str, total: int, each: int) -> None:
        self._what, self._total, self._each = what, total, each
        self._inside: Counter[str] = Counter()
        self.count = 0

    @contextmanager
    def admit(self, name: str) -> Iterator[None]:
        """Be inside for the time of the block; Refused with 503 when there is no room."""
        if self.count >= self._total:
            raise busy(f"too many {self._what} are open; try another replica or later")
        if self._inside[name] >= self._each:
            raise busy(f"this client has {self._each} {self._what} open, which is the most allowed")
        self._inside[name] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._inside[name] -= 1
            if not self._inside[name]:
                del self._inside[name]
