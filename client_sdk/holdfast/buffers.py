"""Memory for chunks, used again and again: fresh memory costs the kernel a fault for each page.

Rule of this file: there is a bound for the chunks of all transfers to an origin, and whoever would go beyond it waits
until another chunk has landed; but a transfer that has no chunk on its way gets one. A buffer has room for what is
asked for, rounded up to a power of two, so that sizes may change a little: pages that are not touched cost nothing.
One that is of another size goes back to the system.
"""

import mmap
from typing import Final

import anyio

SMALLEST: Final = 1024 * 1024


class Buffers:
    """The memory for the chunks to one origin. Sizes in bytes. Belongs to one event loop."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._filled: dict[mmap.mmap, int] = {}
        """The most that each has held, and so the memory that it takes."""
        self._used = 0
        self._given_back = anyio.Event()

    async def room(self, size: int, most: int) -> None:
        """Wait until a buffer of `size` bytes can be taken without that more than `most` are in use."""
        while self._used and self._used + size > most:
            await self._given_back.wait()

    def take(self, size: int) -> mmap.mmap:
        """A buffer of at least `size` bytes, and less than twice as many, or 1 MiB."""
        capacity = max(SMALLEST, 1 << (size - 1).bit_length())
        found: mmap.mmap | None = None
        while self._free and found is None:
            found = self._free.pop()
            if len(found) != capacity:
                # Somebody's frame may still name it; its pages need not wait for the collector.
                found.madvise(mmap.MADV_DONTNEED)
                del self._filled[found]
                found = None
        if found is None:
            found = mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._filled[found] = max(size, self._filled.get(found, 0))
        self._used += self._filled[found]
        return found

    def give_back(self, buffer: mmap.mmap, *, again: bool = True) -> None:
        """It is not used any more; `again`: nor looked at by anybody, so that it may be written to."""
        self._used -= self._filled[buffer]
        if again:
            self._free.append(buffer)
        else:
            del self._filled[buffer]
        self._given_back.set()
        self._given_back = anyio.Event()
