"""What has arrived of a download, and is safe.

Rule of this file: the journal hears of bytes only after they are on the disk, once a second for all connections
together. In between, each range is marked in the transfer's lock file, which the kernel keeps when the process is
killed as it keeps the bytes themselves; so `kill -9` costs no more than what was in the air. Marks count only until the
machine is started anew: then bytes may be gone that were not on the disk.
"""

from typing import Final

import anyio
from anyio import to_thread

from holdfast.journal import Journal, TransferLock
from holdfast.targets import PartFile
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

EVERY: Final = 1.0
"""Seconds between two looks at what has arrived."""
ENOUGH: Final = 4 * 1024 * 1024
"""Bytes that are worth a sync by themselves;"""
LATEST: Final = 5.0
"""fewer wait so many seconds for more."""


class Arrivals:
    """Of one download. `safe` is what the journal has. Belongs to one event loop."""

    def __init__(self, key: str, part: PartFile, journal: Journal, lock: TransferLock, safe: RangeSet) -> None:
        self._key = key
        self._part = part
        self._journal = journal
        self._lock = lock
        self.there = safe
        """All that has arrived."""
        self._new = 0
        self._marks: dict[object, tuple[int, Span]] = {}
        self._slots = 0
        self._free: list[int] = []
        self._done: list[object] = []

    def came(self, who: object, start: int, end: int) -> int:
        """The range from where `who` has begun to `end` has been written, the last bytes of it from `start` on.

        How many of these are new.
        """
        count = self.there.add(start, end)
        self._new += count
        slot, span = self._marks.get(who) or (self._slot(), Span(start, start))
        self._marks[who] = slot, Span(span.start, end)
        self._lock.mark(slot, Span(span.start, end))
        return count

    def ended(self, who: object) -> None:
        """`who` brings no more."""
        self._done.append(who)

    async def keep(self) -> None:
        """Goes on until it is cancelled."""
        waited = 0.0
        while True:
            await anyio.sleep(EVERY)
            waited += EVERY
            if self._new and (self._new >= ENOUGH or waited >= LATEST):
                await self.commit()
                waited = 0.0

    async def commit(self) -> None:
        """All that has arrived until now is on the disk and in the journal when this returns."""
        spans = [Span(start, end) for start, end in self.there]
        new, self._new = self._new, 0
        done, self._done = self._done, []

        def write_down() -> None:
            self._part.sync()
            self._journal.keep_spans(self._key, spans)

        if new:
            await to_thread.run_sync(write_down)
        for who in done:
            if (mark := self._marks.pop(who, None)) is not None:
                self._free.append(mark[0])

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._slots += 1
        return self._slots - 1


def recovered(journal: Journal, lock: TransferLock, key: str, part: PartFile, have: RangeSet) -> None:
    """Bring into the journal, and into `have`, what a process that was killed had marked. Blocks."""
    marked = [span for span in lock.marks() if span.length > 0]
    if marked:
        part.sync()
        for span in marked:
            have.add(span.start, span.end)
        journal.keep_spans(key, [Span(start, end) for start, end in have])
    lock.unmark()
