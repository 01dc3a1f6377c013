"""Who writes where, and how one takes over from another.

Rule of this file: nobody is made to stop without a reservation being at stake, and nobody writes without one. To
fence a writer is to ask it to store what it has and to let go; that it has done so is known when its range can be
reserved, and from nothing else. A writer in this process is told directly, one in another process through the
catalog, which every process watches while it has writers or computes digests.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError
from holdfast_server.storage.base import Reservation
from holdfast_server.uploads.core import Core
from holdfast_server.uploads.frontier import Frontier

logger: Final = logging.getLogger(__name__)

TURN = 1 << 60
"""One byte behind the end of every upload stands for the right to write in order: who has it moves the prefix on."""
TAKEOVER = 0.9
"""Seconds that a writer has to let go, once it was asked to (T-PATCH-3)."""
ASK_INTERVAL = 0.25
WATCH_INTERVAL = 0.025


class Writer:
    """A request that writes to `[start, end)` of an upload. `stop` has it store what it has, and let go.

    One that writes `in_order` goes on from the prefix, and is also in the way of whoever wants the turn.
    """

    def __init__(
        self, upload_id: str, start: int, end: int, stop: Callable[[], None], *, in_order: bool = False
    ) -> None:
        self.upload_id = upload_id
        self.start = start
        self.end: int = end
        self.in_order = in_order
        self.fenced: bool = False
        self.since: int | None = None
        """Fences up to this number concern older writers; None until the range is reserved."""
        self.flush: Callable[[], Awaitable[None]] | None = None
        """Stores at once what has arrived, where that makes sense."""
        self.shrink: Callable[[int], bool] | None = None
        """Gives up everything from an offset on, if it has not got there yet, and goes on before it."""
        self._stop = stop

    def fence(self, start: int) -> None:
        """Somebody wants what is behind `start`."""
        if self.shrink is not None and start < TURN and self.shrink(start):
            self.end = start
        elif not self.fenced:
            self.fenced = True
            self._stop()

    def concerned(self, start: int, end: int) -> bool:
        """Is this in the way of somebody who wants `[start, end)`?"""
        return (self.start < end and start < self.end) or (self.in_order and start <= TURN < end)

    def stop(self) -> None:
        """The process ends: store what is here, without being fenced."""
        self._stop()


class Writers:
    """All writers of this process."""

    def __init__(self, core: Core, frontier: Frontier) -> None:
        self._core = core
        self._frontier = frontier
        self._writers: dict[str, set[Writer]] = {}
        self._arriving: dict[str, dict[Writer, anyio.Event]] = {}
        self._any = anyio.Event()
        self._tasks: TaskGroup | None = None
        self.stopping: bool = False

    def start(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins work that a writer waits for before it ends."""
        assert self._tasks is not None
        self._tasks.start_soon(work)

    def __len__(self) -> int:
        return sum(len(writers) for writers in self._writers.values())

    @contextmanager
    def registered(self, writer: Writer) -> Iterator[None]:
        self._writers.setdefault(writer.upload_id, set()).add(writer)
        self._any.set()
        try:
            yield
        finally:
            mine = self._writers[writer.upload_id]
            mine.discard(writer)
            if not mine:
                del self._writers[writer.upload_id]

    @contextmanager
    def arriving(self, writer: Writer) -> Iterator[None]:
        """From before a writer in order asks for its range until it has ended."""
        mine = self._arriving.setdefault(writer.upload_id, {})
        mine[writer] = anyio.Event()
        try:
            yield
        finally:
            mine.pop(writer).set()
            if not mine:
                del self._arriving[writer.upload_id]

    async def take_over(
        self,
        upload_id: str,
        start: int,
        end: int,
        *,
        fence_from: int | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> Reservation:
        """Reserves the range; whoever has any of it is fenced first. Takes less than a second.

        A writer of bytes in order that has not come as far as `start` goes on up to there, unless `fence_from` says
        that it is in the way from an earlier offset on. If `gone` says that nobody waits for this any more, nobody
        is fenced: it has its range if whoever is there ends by himself in that time.

        Raises ProblemError: `fenced` if it was gone; `range-busy` if a writer does not let go: its process is there,
        but does not react.
        """
        reserve = self._core.storage.reserve
        reservation = await reserve(upload_id, start, end)
        if reservation is not None:
            return reservation
        fence_start = start if fence_from is None else fence_from
        deadline = self._core.monotonic() + TAKEOVER
        ask_others = self._core.monotonic()
        pause = 0.002
        here = False
        while True:
            # A client that lost its connection sends again, and that is the request to go on with (T-PATCH-3). Who is
            # in the way may be gone just as this one is, and then its end is near.
            fencing = gone is None or not gone()
            if fencing and not here:
                here = True
                self._fence_here(upload_id, fence_start, end)
            await anyio.sleep(pause)
            reservation = await reserve(upload_id, start, end)
            if reservation is not None:
                return reservation
            now = self._core.monotonic()
            if now > deadline:
                raise _in_the_way() if fencing else _gone()
            if fencing and now >= ask_others:
                # Again from time to time: somebody may have taken the range just before he could be asked.
                ask_others = now + ASK_INTERVAL
                self._fence_here(upload_id, fence_start, end)
                await self._core.catalog.fence(upload_id, fence_start, end, now=self._core.now())
            pause = min(2 * pause, 0.02)

    async def take_turn(self, upload_id: str, gone: Callable[[], bool]) -> None:
        """Ends whoever writes in order, in any process, and returns when what it had brought is stored.

        Chunks go on. Takes less than a second. Raises ProblemError: `fenced`, `range-busy`; see `take_over`.

        Those of this process that have come before, and have no range yet, are ended first: what they bring would
        make the offset wrong that is told now. So what has arrived of them is stored, too.
        """
        with anyio.move_on_after(TAKEOVER):
            for writer, ended in list(self._arriving.get(upload_id, {}).items()):
                if writer not in self._writers.get(upload_id, ()) and not gone():
                    writer.fence(0)
                    await ended.wait()
        (await self.take_over(upload_id, TURN, TURN + 1, gone=gone)).release()

    async def claim_turn(self, reservation: Reservation) -> None:
        """Has a writer in order hold the turn beside its range: nobody else has it for more than a moment.

        Raises ProblemError `range-busy`.
        """
        deadline = self._core.monotonic() + TAKEOVER
        while not reservation.claim(TURN, TURN + 1):
            if self._core.monotonic() > deadline:
                raise ProblemError(
                    "range-busy",
                    "Another request is asking how far this upload is. Try again in a moment.",
                    headers={"Retry-After": "1"},
                )
            await anyio.sleep(0.002)

    def _fence_here(self, upload_id: str, start: int, end: int, number: int | None = None) -> None:
        for writer in list(self._writers.get(upload_id, ())):
            older = number is None or (writer.since is not None and writer.since < number)
            if older and writer.concerned(start, end):
                writer.fence(start)

    async def flush(self, upload_id: str) -> None:
        """Has this process's writers of an upload store what has arrived. Waits for at most 50 ms."""
        with anyio.move_on_after(0.05):
            for writer in list(self._writers.get(upload_id, ())):
                if writer.flush is not None:
                    await writer.flush()

    def stop_all(self) -> None:
        """The process ends: no new writers, and those that are here store what they have."""
        self.stopping = True
        for writers in list(self._writers.values()):
            for writer in list(writers):
                if writer.flush is not None:  # a chunk that is nearly there may finish
                    writer.stop()

    async def watch(self) -> None:
        """Follows the fences that other processes set. Runs until cancelled."""
        catalog = self._core.catalog
        seen, version = await catalog.fence_head(), None
        while True:
            if not self._writers and not self._frontier:
                self._any = anyio.Event()
                await self._any.wait()
            await anyio.sleep(WATCH_INTERVAL)
            try:
                before, version = version, catalog.version()
                fences = await catalog.fences(seen) if version != before else ()
            except (OSError, CatalogError) as error:
                logger.warning("fences of other processes cannot be read for now: %s", error)
                await anyio.sleep(1)
                continue
            for fence in fences:
                seen = fence.seq
                self._fence_here(fence.upload, fence.start, fence.end, fence.seq)
                self._frontier.nudge(fence.upload)


def _in_the_way() -> ProblemError:
    return ProblemError(
        "range-busy",
        "Another request is still writing here and does not react. Try again in a moment.",
        headers={"Retry-After": "1"},
    )


def _gone() -> ProblemError:
    return ProblemError("fenced", "Another request is writing to this upload, and the connection of this one is gone.")
