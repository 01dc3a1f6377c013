"""The body of an ASGI request as the domain's `Incoming`: the plain road, which every server has.

Rule of this file: it reads ahead of whoever stores, because some servers drop what they have buffered when the
connection is lost while the application is busy; and it reads ahead only so far, so that memory stays bounded. It
does not read before it is asked for bytes: until then the server has not answered `Expect: 100-continue`.

Where the server lends the connection itself, the body is read there instead: `lent_body`.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive, Scope

from holdfast_protocol.messages import Headers
from holdfast_server.http.answers import gone_of, trailers_of
from holdfast_server.http.lent_body import LENDING, LentBody
from holdfast_server.http.pace import LINGER, PLENTY, Pace, pace_of
from holdfast_server.http.uvicorn_cycle import with_what_is_left
from holdfast_server.settings import Settings
from holdfast_server.uploads.incoming import Ending, Incoming

RUN: Final = 1024 * 1024
READ_AHEAD: Final = 4 * 1024 * 1024
"""Bytes of one request that may wait in memory to be stored."""


class RequestBody:
    """See `Incoming`. Made by `reading`."""

    def __init__(
        self,
        receive: Receive,
        tasks: TaskGroup,
        pace: Pace,
        expected: int | None,
        trailers: Callable[[], Headers],
        gone: Callable[[], bool],
    ) -> None:
        self._trailers = trailers
        self._gone = gone
        self.ending: Ending | None = None
        self._receive = receive
        self._tasks = tasks
        self._pace = pace
        self._taken = 0  # bytes that were read since `wait` was called the last time
        self._left = expected
        self._started = self._stopped = False
        self._buffers: deque[bytes | memoryview] = deque()
        self._size = 0
        self._batch: deque[bytes | memoryview] = deque()  # what `read` gives; the task that receives adds no more to it
        self._enough = 1  # bytes that wake who waits
        self._nudged = False
        self._wake = anyio.Event()
        self._room = anyio.Event()

    @property
    def trailers(self) -> Headers:
        return self._trailers() if self.ending is Ending.WHOLE else Headers()

    @property
    def gone(self) -> bool:
        return self.ending is Ending.CUT or self._gone()

    async def wait(self, patience: float | None = None) -> bool | None:
        if self._batch:
            return True
        taken, self._taken = self._taken, 0
        await self._pace.passed(taken)
        if not self._started:
            self._started = True
            if self._stopped:
                with anyio.move_on_after(0):  # what is here counts, and nothing is waited for
                    await self._take_in()
                self.ending = self.ending or Ending.STOPPED
            else:
                self._tasks.start_soon(self._read)
        if not self._buffers and self.ending is None and not self._nudged:
            self._wake = anyio.Event()
            stall = self._pace.stall_timeout
            limit, began = stall if patience is None else min(patience, stall), time.monotonic()
            with anyio.move_on_after(limit) as waiting:
                await self._wake.wait()
            self._pace.waited(time.monotonic() - began)
            if waiting.cancelled_caught and not self._buffers and self.ending is None:
                if patience is not None and patience < stall and not self._pace.over:
                    return None
                self.ending = Ending.STALLED
        if self._buffers and self._size < RUN and self.ending is None and not self._nudged:
            self._enough, began = RUN if self._pace.linger <= LINGER else PLENTY, time.monotonic()
            self._wake = anyio.Event()
            with anyio.move_on_after(self._pace.linger):
                await self._wake.wait()
            self._enough = 1
            self._pace.waited(time.monotonic() - began)
            self._pace.gathered(self._size)
        if self._pace.over and self.ending is None:
            self.ending = Ending.STALLED
        nudged, self._nudged = self._nudged, False
        if nudged and not self._buffers and self.ending is None:
            return None
        self._batch, self._buffers, self._size = self._buffers, deque(), 0
        self._room.set()
        return bool(self._batch)

    def read(self, most: int) -> Sequence[bytes | memoryview]:
        found: list[bytes | memoryview] = []
        while self._batch and most:
            data = self._batch.popleft()
            if len(data) > most:
                self._batch.appendleft(memoryview(data)[most:])
                data = memoryview(data)[:most]
            found.append(data)
            self._taken += len(data)
            most -= len(data)
        return found

    def _ended(self) -> bool:
        return self.ending is not None

    def nudge(self) -> None:
        self._nudged = True
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        if self._started and self.ending is None:
            self.ending = Ending.STOPPED
            self._wake.set()
            self._room.set()

    async def _read(self) -> None:
        while not self._ended():
            if self._size >= READ_AHEAD:
                self._room = anyio.Event()
                await self._room.wait()
                continue
            await self._take_in()
            if self._size >= self._enough or self._ended():
                self._wake.set()

    async def _take_in(self) -> None:
        message = await self._receive()
        if self._ended():
            return  # stopped meanwhile; what came now was never taken in
        if message["type"] == "http.disconnect":
            self.ending = Ending.CUT
            return
        data = message.get("body", b"")
        if data:
            self._buffers.append(data)
            self._size += len(data)
            if self._left is not None:
                self._left -= len(data)
        if not message.get("more_body", False):
            self.ending = Ending.CUT if self._left is not None and self._left > 0 else Ending.WHOLE


@asynccontextmanager
async def reading(scope: Scope, receive: Receive, settings: Settings, expected: int | None) -> AsyncIterator[Incoming]:
    """The body, by the faster of the two roads that there are. It is read no further when the block ends.

    An exception leaves the block as it is, not in a group.
    """
    pace = pace_of(scope, settings)
    lending, gone, trailers = scope.get("extensions", {}).get(LENDING), gone_of(scope), trailers_of(scope) or Headers
    if lending is not None:
        with LentBody(lending["lend"], pace, gone) as lent:
            yield lent
        return
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield RequestBody(with_what_is_left(receive), tasks, pace, expected, trailers, gone)
        except Exception as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
