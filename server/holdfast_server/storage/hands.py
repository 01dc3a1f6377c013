"""Threads for short work on a disk.

Rule of this file: to wake a thread costs more than most jobs here take, so one thread does whatever is waiting, one
after the other, as long as it gets on. When it hangs in a job (a disk that is slow, a sync), others take what waits
behind it: a job waits for that of somebody else for about `HANGS` seconds, and the event loop never. Where jobs are
longer than that, as the bytes of a body are, several threads take them from the beginning.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import anyio

T = TypeVar("T")

HANGS: Final = 0.005
LATE: Final = 0.02
"""Seconds after which there are more threads also where the one gets on: it is many that should sync, for example."""
_IDLE: Final = 10.0
"""Seconds after which a thread that has nothing to do ends."""


class _Job(Generic[T]):
    __slots__ = ("done", "error", "given", "result", "work")

    def __init__(self, work: Callable[[], T], given: float, done: "asyncio.Future[None]") -> None:
        self.work = work
        self.given = given
        self.done = done  # a future of the loop: an event asks anew at each use which loop runs
        self.result: T
        self.error: BaseException | None = None

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result


class Hands:
    """At most `most` threads, of which `at_once` are there without anybody having to hang. Made and used on one event
    loop."""

    def __init__(self, most: int, at_once: int = 1) -> None:
        self._most = most
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waiting: deque[_Job[Any]] = deque()
        self._finished: deque[_Job[Any]] = deque()
        self._lock = threading.Lock()
        self._threads = 0
        self._taken = self._seen = 0
        self._ringing = self._looking = False

    async def run(self, work: Callable[[], T]) -> T:
        """Does the work in a thread; raises what it raises. It is waited for also if the caller is cancelled."""
        done = self._loop.create_future()
        job = self._add(work, done)
        with anyio.CancelScope(shield=True):
            await done
        return job.outcome()

    async def perform(self, work: Callable[[], T]) -> T:
        """As `run`, for a caller that is shielded itself: a shield costs as much as a small job."""
        done = self._loop.create_future()
        job = self._add(work, done)
        await done
        return job.outcome()

    def _add(self, work: Callable[[], T], done: "asyncio.Future[None]") -> _Job[T]:
        job = _Job(work, self._loop.time(), done)
        self._waiting.append(job)
        if not self._ringing:  # once for all that the loop is about to give, when it has nothing else to do
            self._ringing = True
            self._loop.call_soon(self._ring)
        return job

    def _ring(self) -> None:
        self._ringing = False
        with self._lock:
            while self._threads < self._at_once:
                self._hire(_IDLE)
        for _ in range(min(len(self._waiting), self._at_once)):
            self._bell.put(None)
        if not self._looking:
            self._looking = True
            self._seen = self._taken
            self._loop.call_later(HANGS, self._look)

    def _look(self) -> None:
        self._wake()
        try:
            oldest = self._waiting[0].given
        except IndexError:
            self._looking = False
            return
        if self._taken == self._seen or self._loop.time() - oldest > LATE:
            with self._lock:
                for _ in range(min(len(self._waiting), self._most - self._threads)):
                    self._hire(0.0)
        self._seen = self._taken
        self._loop.call_later(HANGS, self._look)

    def _hire(self, patience: float) -> None:
        self._threads += 1
        threading.Thread(target=self._work, args=(patience,), name="holdfast-disk", daemon=True).start()

    def _work(self, patience: float) -> None:
        while True:
            done = self._work_off()
            if done:
                try:
                    self._loop.call_soon_threadsafe(self._wake)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more
            try:
                self._bell.get(timeout=patience)
            except queue.Empty:
                with self._lock:
                    if not self._waiting:
                        self._threads -= 1
                        return

    def _work_off(self) -> bool:
        done = False
        while True:
            try:
                job = self._waiting.popleft()
            except IndexError:
                return done
            self._taken += 1
            try:
                job.result = job.work()
            except BaseException as error:
                job.error = error
            done = True
            self._finished.append(job)

    def _wake(self) -> None:
        while self._finished:
            done = self._finished.popleft().done
            if not done.done():  # or its task was cancelled in spite of the shield, by asyncio's own means
                done.set_result(None)
