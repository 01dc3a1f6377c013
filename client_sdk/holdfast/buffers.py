"""Memory for chunks, used again and again: fresh memory costs the kernel a fault for each page.

Rule of this file: memory is kept for as long as what is asked for has about its size; what does not fit goes back to
the system at once, so no more is resident than the chunks of now.
"""

import mmap
from typing import Final

STEP: Final = 1024 * 1024


class Buffers:
    """The buffers that nobody uses now. Belongs to one event loop."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []

    def take(self, size: int) -> mmap.mmap:
        """A buffer of at least `size` bytes, and at most about twice as many."""
        while self._free:
            buffer = self._free.pop()
            if size <= len(buffer) <= max(2 * size, STEP):
                return buffer
        return mmap.mmap(-1, -(-size // STEP) * STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def give_back(self, buffer: mmap.mmap) -> None:
        """It is not used any more."""
        self._free.append(buffer)
