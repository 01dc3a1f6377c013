"""Which bytes of a file are there: sorted, disjoint, half-open ranges of offsets.

Rule of this file: between two stored ranges there is always a gap; ranges that touch are one range. The
ranges are kept as their boundaries, start and end in turn, in ascending order, so whether an offset is
stored is told by how many boundaries lie at or before it: an odd number means yes. Boundaries lie in
leaves, packed arrays of whole ranges, under an index of the leaves' first boundaries. An operation finds
its leaves by bisection and rewrites one or two of them, so it takes O(log n) steps, a move of at most 16
KiB, and a shift in an index that is hundreds of times smaller than the set. What it removes on top of that
was once added, which is the amortised part.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

_FULL: Final = 1024
"""Boundaries at which a leaf is split: 512 ranges, 8 KiB."""
_SPARSE: Final = 128
"""Boundaries below which a leaf is joined with the one beside it."""
_LARGEST: Final = 2**63 - 1


class RangeSet:
    """A mutable set of offsets from 0 to 2**63 - 1, held as ranges `[start, end)`; about 17 bytes a range.

    Every method that takes a range raises ValueError if it is empty, reversed, or not within those bounds.
    A set may be changed while one of its iterators is in use: what the iterator yields is ascending, and as
    the set was when it came to that part of it, some hundred ranges at a time. For one thread at a time.
    """

    __slots__ = ("_firsts", "_leaves", "_total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        # There is always a leaf, and only a lone one is empty. _firsts[0] is 0 whatever the first leaf holds,
        # so that each offset has a leaf where it belongs.
        self._leaves = [array("q")]
        self._firsts = array("q", [0])
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> int:
        """Store `[start, end)`. The answer is how many bytes of it were not stored before."""
        new = end - start - self._set(start, end, True)
        self._total += new
        return new

    def subtract(self, start: int, end: int) -> int:
        """Forget `[start, end)`. The answer is how many bytes of it were stored."""
        gone = self._set(start, end, False)
        self._total -= gone
        return gone

    def covers(self, start: int, end: int) -> bool:
        """Whether all of `[start, end)` is stored."""
        _check(start, end)
        leaf = self._leaves[self._leaf_of(start)]
        place = bisect_right(leaf, start)
        return place % 2 == 1 and end <= leaf[place]

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any byte of `[start, end)` is stored."""
        return next(self.within(start, end), None) is not None

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The stored ranges, ascending, clipped to `[start, end)`."""
        _check(start, end)
        return self._clipped(start, end)

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The gaps between stored ranges, ascending, clipped to `[start, end)`."""
        _check(start, end)
        return self._gaps(start, end)

    @property
    def prefix(self) -> int:
        """How many bytes are stored without a gap from offset 0 on."""
        first = self._leaves[0]
        return first[1] if first and first[0] == 0 else 0

    @property
    def total(self) -> int:
        """How many bytes are stored; O(1)."""
        return self._total

    def copy(self) -> "RangeSet":
        """Another set of the same ranges; O(n), some milliseconds for a million ranges."""
        twin = RangeSet()
        twin._leaves = [leaf[:] for leaf in self._leaves]
        twin._firsts = self._firsts[:]
        twin._total = self._total
        return twin

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self._from(0)

    def __len__(self) -> int:
        """The number of ranges."""
        return sum(map(len, self._leaves)) // 2

    def __bool__(self) -> bool:
        return self._total > 0

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and 0 <= offset < _LARGEST and self.covers(offset, offset + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return (
            self._total == other._total
            and len(self) == len(other)
            and all(mine == theirs for mine, theirs in zip(self, other, strict=True))
        )

    def __repr__(self) -> str:
        shown = [repr(piece) for piece in islice(self, 8)]
        if len(self) > len(shown):
            return f"<RangeSet of {len(self)} ranges, {self._total} bytes: {', '.join(shown)}, ...>"
        return f"RangeSet([{', '.join(shown)}])"

    def _leaf_of(self, offset: int) -> int:
        return bisect_right(self._firsts, offset) - 1

    def _set(self, start: int, end: int, stored: bool) -> int:
        """Make `[start, end)` stored or not, and say how many bytes of it were stored before."""
        _check(start, end)
        low, high = self._leaf_of(start), self._leaf_of(end)
        left, right = self._leaves[low], self._leaves[high]
        # The boundaries from i in the left leaf to before j in the right lie in [start, end] and go. Start
        # and end become boundaries where they part what is stored from what is not.
        i, j = bisect_left(left, start), bisect_right(right, end)
        edges = array("q")
        if i % 2 != stored:
            edges.append(start)
        if j % 2 != stored:
            edges.append(end)
        before = j % 2 * end - i % 2 * start
        if low == high:
            before += _length(left, i, j)
            left[i:j] = edges
            if i == 0 or not _SPARSE <= len(left) < _FULL:
                self._put(low, high, left)
        else:
            before += _length(left, i, len(left)) + _length(right, 0, j)
            before += sum(_length(leaf, 0, len(leaf)) for leaf in self._leaves[low + 1 : high])
            self._put(low, high, left[:i] + edges + right[j:])
        return before

    def _put(self, low: int, high: int, leaf: "array[int]") -> None:
        """Let `leaf` replace the leaves `low` to `high`, joined with a neighbour or split by its size."""
        if len(leaf) < _SPARSE:
            if high + 1 < len(self._leaves):
                high += 1
                leaf = leaf + self._leaves[high]
            elif low > 0:
                low -= 1
                leaf = self._leaves[low] + leaf
        step = (len(leaf) // (len(leaf) // _FULL + 1) + 2) & ~1  # even, for ranges stay whole; at most _FULL
        pieces = [leaf[at : at + step] for at in range(0, len(leaf), step)] or [leaf]
        self._leaves[low : high + 1] = pieces
        self._firsts[low : high + 1] = array("q", [piece[0] if piece else 0 for piece in pieces])
        self._firsts[0] = 0

    def _from(self, offset: int) -> Iterator[tuple[int, int]]:
        """The stored ranges from `offset` on, ascending; what lies before it is cut off."""
        while True:
            # Look up afresh for each leaf: the set may have changed since the last one.
            place = self._leaf_of(offset)
            tail = self._tail(place, offset) or self._tail(place + 1, offset)
            if not tail:
                return
            tail[0] = max(tail[0], offset)
            offset = tail[-1]
            yield from zip(tail[::2], tail[1::2], strict=True)

    def _tail(self, place: int, offset: int) -> "array[int]":
        """A copy of the ranges of a leaf that end behind `offset`; empty if there is no such leaf."""
        if place == len(self._leaves):
            return array("q")
        leaf = self._leaves[place]
        return leaf[bisect_right(leaf, offset) & ~1 :]

    def _clipped(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for piece_start, piece_end in self._from(start):
            if piece_start >= end:
                return
            yield piece_start, min(piece_end, end)

    def _gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for piece_start, piece_end in self._clipped(start, end):
            if start < piece_start:
                yield start, piece_start
            start = piece_end
        if start < end:
            yield start, end


def _check(start: int, end: int) -> None:
    if not 0 <= start < end <= _LARGEST:
        raise ValueError(f"[{start}, {end}) is not a range of offsets")


def _length(leaf: "array[int]", low: int, high: int) -> int:
    """The ends less the starts among the boundaries from `low` to before `high`."""
    return sum(leaf[low | 1 : high : 2]) - sum(leaf[low + 1 & ~1 : high : 2])
