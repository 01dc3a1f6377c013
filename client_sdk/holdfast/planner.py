"""How a file is cut up and how long to wait after a failure: decisions without any I/O.

Rule of this file: whoever sends asks the plan for the next chunk's size and the number of connections, and tells
it how each chunk went. What is asked may differ from one question to the next, so that a plan that learns can
take the place of this one. Time is an argument (seconds of any monotonic clock), and so is randomness.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from holdfast.errors import UsageError
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

MIB: Final = 1024 * 1024
DEFAULT_CHUNK: Final = 8 * MIB
DEFAULT_CONCURRENCY: Final = 4
MAX_CONCURRENCY: Final = 64
TUS_GRANULE: Final = 256 * 1024
"""Sizes of a tus PATCH are halved down to this after 413; tus itself knows no granule."""

RETRY_AFTER_CAP: Final = 600.0


@dataclass(frozen=True, slots=True)
class Backoff:
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
        self.failures = 0

    def failed(self, progress: int) -> bool:
        """Count one failure; False when the limit is reached. The count begins anew if there was progress."""
        if progress != self._progress:
            self._progress = progress
            self.failures = 0
        self.failures += 1
        return self.failures < self._limit


class Plan:
    """Chunk size and number of connections for one upload.

    `granule` and `max_chunk` are what the server announced, in bytes. `chunk_size` and `concurrency` are what
    the caller fixed, or None to leave them to the plan. Raises UsageError if a fixed value makes no sense.
    """

    def __init__(
        self,
        length: int,
        *,
        granule: int,
        max_chunk: int | None = None,
        chunk_size: int | None = None,
        concurrency: int | None = None,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"a chunk size of {chunk_size} bytes makes no sense; give at least 1")
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise UsageError(f"concurrency must be 1 to {MAX_CONCURRENCY}, not {concurrency}")
        self._granule = granule
        self._ceiling = max(granule, max_chunk) if max_chunk is not None else None
        wanted = concurrency if concurrency is not None else DEFAULT_CONCURRENCY
        # Two chunks for each connection at least: else a slow one alone decides when a small file is done.
        size = chunk_size if chunk_size is not None else min(DEFAULT_CHUNK, -(-length // (2 * wanted)))
        self._size = self._fit(size)
        self._concurrency = max(1, min(wanted, -(-length // self._size)))

    @property
    def chunk_size(self) -> int:
        """Bytes of the next chunk: a multiple of the granule, at least one granule."""
        return self._size

    @property
    def concurrency(self) -> int:
        """Connections to use at once, 1 to 64."""
        return self._concurrency

    def accepted(self, size: int, seconds: float, now: float) -> None:
        """A chunk of `size` bytes was accepted, `seconds` after its first byte was sent."""

    def failed(self, size: int, now: float, *, throttled: bool = False) -> None:
        """A chunk of `size` bytes failed; `throttled` if the server asked for less (429, 503)."""

    def too_large(self, size: int) -> bool:
        """A chunk of `size` bytes was refused as too large. False if there is no smaller size to go to."""
        half = size // 2 // self._granule * self._granule
        if half < self._granule:
            return False
        self._ceiling = half if self._ceiling is None else min(self._ceiling, half)
        self._size = self._fit(self._size)
        return True

    def _fit(self, size: int) -> int:
        """Clipped to what the server takes, and rounded up to the granule where that still fits."""
        size = -(-max(size, 1) // self._granule) * self._granule
        if self._ceiling is not None:
            size = min(size, self._ceiling // self._granule * self._granule)
        return size


def aligned(spans: Iterable[Span], granule: int, length: int) -> RangeSet:
    """Spans widened to the granule; the end of the file needs no widening.

    A prefix that a sequential client left need not end on the granule (C-MIX-3); a chunk may overlap it.
    """
    return RangeSet((span.start // granule * granule, min(-(-span.end // granule) * granule, length)) for span in spans)


def pieces(span: Span, size: int) -> tuple[Span, ...]:
    """A span in parts of `size` bytes, the last one shorter if it does not come out even."""
    return tuple(Span(at, min(at + size, span.end)) for at in range(span.start, span.end, size))


class TokenBucket:
    """A limit of `rate` bytes a second on average, with bursts of at most a quarter of a second.

    Whoever takes from it waits as long as it is told. Takers are served in the order in which they ask.
    """

    __slots__ = ("_burst", "_clock", "_free", "_rate", "_then")

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        if rate <= 0:
            raise UsageError("a rate limit must be more than 0 bytes a second")
        self._rate = rate
        self._burst = min(max(64 * 1024.0, rate / 4), 4.0 * MIB)
        self._clock = clock
        self._free = self._burst
        self._then = clock()

    @property
    def slice(self) -> int:
        """The bytes to take at once: 16 to 64 KiB, so that a slow limit is not one burst a minute."""
        return int(min(max(self._rate / 8, 16 * 1024), 64 * 1024))

    def take(self, size: int) -> float:
        """Take `size` bytes; the seconds to wait before they may go."""
        now = self._clock()
        self._free = min(self._burst, self._free + (now - self._then) * self._rate) - size
        self._then = now
        return max(0.0, -self._free / self._rate)
