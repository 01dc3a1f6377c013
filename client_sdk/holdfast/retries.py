"""When something that failed is tried again, and when it is given up: decisions without any I/O.

Rule of this file: time is an argument (seconds of any monotonic clock), and so is randomness.
"""

from typing import ClassVar, Final

from msgspec import Struct

RETRY_AFTER_CAP: Final = 600.0
"""Seconds of a server's Retry-After that are believed at most."""


class Backoff(Struct, frozen=True):
    """Full jitter: a random part of `base * 2^i` seconds, of at most `cap`.

    A server's Retry-After is honoured as a lower bound, up to ten minutes.
    """

    base: float = 0.3
    cap: float = 30.0

    def delay(self, failures: int, rand: float, retry_after: float | None = None) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1); `rand` is uniform in [0, 1)."""
        window = min(self.base * 2.0 ** min(failures - 1, 30), self.cap)
        jitter = rand * window
        if retry_after is None:
            return jitter
        # Some jitter on top: everybody who was told the same moment must not come back at that moment.
        return min(max(retry_after, 0.0), RETRY_AFTER_CAP) + min(jitter, 0.2 * retry_after + self.base)


class Attempts:
    """Counts failures in a row. What counts is progress: `progress` is any number that grows with it."""

    __slots__ = ("_limit", "_progress", "failures")

    def __init__(self, limit: int, progress: int) -> None:
        self._limit = limit
        self._progress = progress
        self.failures: int = 0

    def failed(self, progress: int) -> bool:
        """Count one failure; False when the limit is reached. The count begins anew if there was progress."""
        if progress != self._progress:
            self._progress = progress
            self.failures = 0
        self.failures += 1
        return self.failures < self._limit


class Budget:
    """How many retries all transfers of a process may make together, so that many that fail do not become a storm.

    It holds 500 tokens. A retry takes 14, one after 429 or 503 takes 5, and what succeeds gives one back, as botocore
    has it. Where that gives up, here whoever finds it empty waits: a retry a second is always paid for, and nobody has
    to wait for more than `LONGEST` seconds.
    """

    CAPACITY: ClassVar[int] = 500
    RETRY: ClassVar[int] = 14
    THROTTLED: ClassVar[int] = 5
    LONGEST: ClassVar[float] = 30.0

    __slots__ = ("_then", "tokens")

    def __init__(self, now: float) -> None:
        self._then = now
        self.tokens: float = float(self.CAPACITY)
        """Below zero: retries that wait for their turn."""

    def succeeded(self) -> None:
        """Something was accepted."""
        self.tokens = min(self.tokens + 1, float(self.CAPACITY))

    def spend(self, now: float, *, throttled: bool = False) -> float:
        """Take what a retry costs; the seconds to wait before it."""
        self.tokens = min(self.tokens + max(0.0, now - self._then) * self.RETRY, float(self.CAPACITY))
        self._then = now
        least = -self.LONGEST * self.RETRY
        self.tokens = max(self.tokens - (self.THROTTLED if throttled else self.RETRY), least)
        return max(0.0, -self.tokens / self.RETRY)
