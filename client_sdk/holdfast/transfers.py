"""Transfers as their callers see them, and the queue in which they wait for their turn.

Rule of this file: a transfer runs in the client's task group and not in the caller's task, so it goes on while nobody
looks. Its error belongs to whoever awaits it; if nobody does, the client raises it when it is closed.
"""

import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio

from holdfast.errors import HoldfastError, TransferCancelled
from holdfast.progress import Progress, State, Tracker

Result = TypeVar("Result")


class Queue:
    """At most `running` transfers at once; of those that wait, the one with the lowest priority number is next."""

    def __init__(self, running: int) -> None:
        self._free = running
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, anyio.Event]] = []

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place, and have it inside the block."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
        else:
            entry = (priority, next(self._order), anyio.Event())
            heapq.heappush(self._waiting, entry)
            try:
                await entry[2].wait()
            except BaseException:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    heapq.heapify(self._waiting)
                else:
                    self._next()
                raise
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._free += 1


class Transfer(Generic[Result]):
    """One file on its way. `await` it for the result; iterate over it, with `async for`, for its progress.

    Iterating gives the newest snapshot each time and ends with the transfer; it raises nothing of the transfer's.
    Awaiting raises HoldfastError. Both may be done by several tasks of the client's event loop.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self._tracker = tracker
        self._scope = anyio.CancelScope()
        self._cancelled = False
        self._ended = anyio.Event()
        self._result: Result | None = None
        self._error: HoldfastError | None = None
        self._seen = False

    @property
    def progress(self) -> Progress:
        """The newest snapshot."""
        return self._tracker.latest.progress

    @property
    def done(self) -> bool:
        """It has ended, in whatever way."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Stop as soon as possible. What is done is kept: the same call later goes on from there."""
        self._cancelled = True
        self._scope.cancel()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self._tracker.latest.follow()

    def __await__(self) -> Generator[None, None, Result]:
        return self.result().__await__()

    async def result(self) -> Result:
        """Wait for the end; the result. Raises HoldfastError, TransferCancelled after `cancel()`."""
        await self._ended.wait()
        self._seen = True
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    async def ended(self) -> None:
        """Wait for the end, whatever it is."""
        await self._ended.wait()

    @property
    def unseen_error(self) -> HoldfastError | None:
        """The error that nobody has been told of."""
        return None if self._seen or self._cancelled else self._error

    async def run(self, work: Callable[[], Awaitable[Result]], queue: Queue, priority: int) -> None:
        """Carry it out; the client's part. Raises only what is a mistake in this package, and cancellation."""
        try:
            with self._scope:
                async with queue.turn(priority):
                    self._tracker.begin()
                    self._result = await work()
        except HoldfastError as error:
            self._error = error
        finally:
            if self._result is None and self._error is None:
                self._error = TransferCancelled(
                    f"{self.name} was stopped; what is done is kept, and the same call goes on from there"
                )
            self._tracker.enter(self._final())
            self._tracker.latest.close()
            self._ended.set()

    def _final(self) -> State:
        if self._error is None:
            return State.DONE
        return State.CANCELLED if isinstance(self._error, TransferCancelled) else State.FAILED
