"""Which bytes of a file which connection fetches: decisions without any I/O.

Rule of this file: every byte that is missing is either free or in one segment. Whoever has a connection takes its share
of what is free; when nothing is free, it takes over from the one that will be the last to end. So nobody waits for a
slow connection, and no byte comes twice but those that were on their way to whoever lost them. Time is an argument, in
seconds of any monotonic clock.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from holdfast.progress import Part
from holdfast_protocol.messages import Span

GRANULE: Final = 64 * 1024
LEAST: Final = 1024 * 1024
"""Bytes that are worth a request of their own while others are free, or fast."""
SLICE: Final = 4 * 1024 * 1024
"""Bytes that a connection writes, at most, before it looks what else is wanted."""
WORTH: Final = 1.5
"""Seconds that somebody must have before them for another to take over the half of it."""
SILENCE: Final = 3.0
"""Seconds without a byte after which another takes over all of it."""


class Segment(Struct, eq=False):
    """A range that one connection fetches. It has come as far as `at`; `end` moves down if others take over."""

    start: int
    end: int
    began: float
    at: int
    last: float
    """When bytes came, or it began."""

    @property
    def left(self) -> int:
        return max(0, self.end - self.at)

    def came(self, count: int, now: float) -> None:
        """So many bytes of it are there. What was being written while others took over may reach beyond the end."""
        self.at += count
        self.last = now

    def rate(self, now: float) -> float:
        """Bytes a second since it began."""
        return (self.at - self.start) / max(now - self.began, 0.001)

    def ends_in(self, now: float) -> float:
        """Seconds until it has all, at its rate so far; at least as many as it has been silent."""
        rate = self.rate(now)
        silent = now - self.last
        return max(silent, self.left / rate if rate else 2 * silent)


class Segments:
    """The missing ranges of one file."""

    def __init__(self, missing: Iterable[Span]) -> None:
        self._free = sorted((span for span in missing if span.length > 0), key=lambda span: span.start)
        self.taken: set[Segment] = set()

    @property
    def left(self) -> int:
        """Bytes that are missing."""
        return sum(span.length for span in self._free) + sum(each.left for each in self.taken)

    @property
    def free(self) -> int:
        """Bytes that nobody fetches."""
        return sum(span.length for span in self._free)

    def parts(self) -> tuple[Part, ...]:
        """What connections have before them, in the order of the file."""
        return tuple(sorted(Part(each.start, min(each.at, each.end), each.end) for each in self.taken))

    def begins_at(self, offset: int) -> bool:
        """The first byte that nobody fetches is there."""
        return bool(self._free) and self._free[0].start == offset

    def offers(self, now: float) -> bool:
        """There is something for one more connection."""
        return bool(self._free) or self._slowest(now) is not None

    def take(self, parts: int, now: float) -> Segment | None:
        """Something for a connection to fetch, where so many are to share what is free; None if nothing is worth it."""
        if not self._free:
            return self._take_over(now)
        share = max(LEAST, -(-self.free // max(parts, 1)))
        first = self._free.pop(0)
        end = min(first.end, (first.start + share + GRANULE - 1) // GRANULE * GRANULE)
        if first.end - end < LEAST // 2:
            end = first.end
        if end < first.end:
            self._free.insert(0, Span(end, first.end))
        return self._begin(first.start, end, now)

    def give_back(self, segment: Segment) -> None:
        """A connection has done with it; what it lacks is free again."""
        self.taken.discard(segment)
        if segment.left > 0:
            self._free.append(Span(segment.at, segment.end))
            self._free.sort(key=lambda span: span.start)

    def _begin(self, start: int, end: int, now: float) -> Segment:
        segment = Segment(start, end, now, at=start, last=now)
        self.taken.add(segment)
        return segment

    def _take_over(self, now: float) -> Segment | None:
        slowest = self._slowest(now)
        if slowest is None:
            return None
        start = slowest.at
        if now - slowest.last < SILENCE:
            others = [each.rate(now) for each in self.taken if each.at > each.start]
            mine, usual = slowest.rate(now), max(others, default=0.0)
            # They come to their ends together, if the new one is as fast as the fastest.
            kept = int(slowest.left * (mine / (mine + usual) if mine + usual else 0.5))
            # And what a thread is just writing stays its own.
            kept = max(kept, min(SLICE, slowest.left // 2))
            start = max(start, (start + kept) // GRANULE * GRANULE)
        end, slowest.end = slowest.end, start
        return self._begin(start, end, now)

    def _slowest(self, now: float) -> Segment | None:
        """The one that others should help; None if nobody needs it."""
        found = max(self.taken, key=lambda each: each.ends_in(now) if each.left else 0.0, default=None)
        if found is None or not found.left:
            return None
        silent = now - found.last >= SILENCE
        return found if silent or (found.ends_in(now) >= WORTH and found.left >= 2 * GRANULE) else None
