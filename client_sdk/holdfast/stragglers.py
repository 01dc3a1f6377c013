"""When a chunk on a slow connection is sent on another one too: a decision without any I/O.

Rule of this file: what is sent twice costs the user, so it has to be worth it. A chunk is helped out if it stands
still, or if it takes much longer than chunks do and has more before it, at its own pace, than a copy would take from
its beginning. Where all connections are slow that is never so. Sizes are in bytes, times in seconds.
"""

from collections.abc import Callable
from typing import Final

from holdfast.planner import PIECE, SMALLEST_CHUNK, still_after

FACTOR: Final = 2.0
LEAST: Final = 0.5
"""A chunk is late when it takes twice what one of its size takes, and half a second more."""
LOOK: Final = 1.0
SHARE: Final = 20
"""At most this part of a file is sent twice, or as much as the smallest chunk."""


def allowance(size: int) -> int:
    """Bytes of a file of `size` that may be sent twice."""
    return max(size // SHARE, SMALLEST_CHUNK)


def due(
    size: int, moved: int, age: float, silent: float, pace: float, expected: Callable[[int], float | None]
) -> float:
    """Seconds until a chunk should be helped out, or looked at again; 0 or less: now, by whoever asks.

    Of `size` bytes `moved` have gone out in `age` seconds, the last of them `silent` seconds ago. `pace` is what the
    connection that would help took for a chunk at its best, in seconds a byte, and `expected` what any of them takes
    for so many bytes, or None as long as nobody knows.
    """
    usual, piece = expected(size), expected(PIECE)
    if usual is None or piece is None:
        return LOOK
    still = still_after(piece) - silent
    if still <= 0:
        return still
    copy = max(usual, pace * size)
    late = FACTOR * copy + LEAST - age
    if late > 0:
        return min(late, still)
    left = (size - moved) * age / max(moved, 1)
    return 0.0 if left > copy else min(still, LOOK)
