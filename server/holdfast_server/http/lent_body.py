"""The body of a request, read out of the connection's own socket: the fast road.

A server that has the extension `LENDING` in a scope lends the connection to the application, for as long as this
request's body lasts: `lend()` answers a `Loan`. The thread that writes the bytes then reads them itself, into memory
of its own that stays in its cache, and the event loop has nothing to do with them.

Rule of this file: not a byte is read beyond the end of the body, because what comes there is the server's. What has
arrived waits in the kernel, which keeps it when the connection is lost. A thread waits for bytes only while they come
fast, and then for some milliseconds; for all others the event loop waits.
"""

import fcntl
import mmap
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol

import anyio

from holdfast_protocol.messages import Headers
from holdfast_server.http.pace import LINGER, PLENTY, Pace
from holdfast_server.storage.base import RUN
from holdfast_server.uploads.incoming import Ending

LENDING: Final = "holdfast.request.socket"
"""The extension of a scope by which a server says that it lends the connection: `lend`, to be called once at most."""

FAST: Final = 128 * 1024
"""So many bytes within `LINGER` make it worth a thread's while to wait for more..."""
ENOUGH: Final = 512 * 1024
"""...and so many are worth waking it before that: each time costs a switch of threads and three calls."""

PROCESSORS: Final = os.cpu_count() or 1
"""While more bodies arrive than this, no thread waits: another one has something to do."""

_own = threading.local()


class Loan(Protocol):
    """A connection that was lent. `received` are the bytes of the body that the server had read already, `left` is
    how many are still to come, through `socket`, which does not block. There is none if nothing can come any more.
    """

    @property
    def received(self) -> bytes | bytearray: ...
    @property
    def left(self) -> int: ...
    @property
    def socket(self) -> socket.socket | None: ...

    def give_back(self, left: int, *, cut: bool) -> None:
        """To be called once, with how many bytes of the body were not read, and whether they can still come."""
        ...


def own_memory() -> memoryview:
    """`RUN` bytes of memory that this thread reads into, again and again: a large page where there are such, and whole
    pages elsewhere. What malloc gives begins inside a page, and the kernel took half as long again to copy into it."""
    view: memoryview | None = getattr(_own, "view", None)
    if view is None:
        # Of memory that is shared, as it would be by default, few kernels make large pages.
        pages = mmap.mmap(-1, RUN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel need not have them
            pages.madvise(mmap.MADV_HUGEPAGE)
        view = _own.view = memoryview(pages)
    return view


class LentBody:
    """See `Incoming`. Gives the connection back at the end of a `with` block."""

    trailers: Headers = Headers()  # there are none behind a body with a length
    _lent = 0  # bodies of this process that are being read, but for those of which nothing comes

    def __init__(self, lend: Callable[[], Loan], pace: Pace, gone: Callable[[], bool]) -> None:
        self.ending: Ending | None = None
        self._lend = lend
        self._gone = gone
        self._pace = pace
        self._taken = 0  # bytes that were read since `wait` was called the last time
        self._loan: Loan | None = None
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._received = memoryview(b"")
        self._left = 0  # bytes of the body that are still to be read from the socket
        self._last: int | None = None  # once it was stopped: how many of them may be
        self._fast = True  # a thread may wait for more
        self._nudged = False
        self._ends: Ending | None = None  # it takes in no more than what has arrived, and how it ends then
        self._waiting: anyio.CancelScope | None = None

    def __enter__(self) -> "LentBody":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loan is not None:
            LentBody._lent -= 1
            self._loan.give_back(self._left, cut=self.ending is Ending.CUT)

    @property
    def gone(self) -> bool:
        return self.ending is Ending.CUT or self._gone()

    async def wait(self, patience: float | None = None) -> bool | None:
        if self._loan is None and self.ending is None:
            self._begin()
        taken, self._taken = self._taken, 0
        await self._pace.passed(taken)
        if not self._received and self.ending is None and not self._fast and not self._ends and not self._nudged:
            stall = self._pace.stall_timeout
            limit = stall if patience is None else min(patience, stall)
            if patience is not None and self._pace.trickles:
                return None  # what came is stored at once: the next of it is long in coming
            if not await self._arrival(limit) and not self._ends and not self._nudged:
                if patience is not None and patience < stall and not self._pace.over:
                    return None
                self.ending = Ending.STALLED
        if self._ends is None and self._pace.over:
            self._ends = Ending.STALLED
        if not self._received and self.ending is None:
            self._look_for_end()
        nudged, self._nudged = self._nudged, False
        if self._received or self.ending is None:
            return True if not nudged or self._received or self._there() else None
        return False

    def read(self, most: int) -> Sequence[memoryview]:
        memory = own_memory()[:most]
        size = self._take_received(memory)
        self._look_for_end()
        if self._socket is not None and self.ending is None and not self._nudged:
            size += self._receive(self._socket, memory[size:])
        self._taken += size
        return (memory[:size],) if size else ()

    def _take_received(self, memory: memoryview) -> int:
        size = min(len(memory), len(self._received))
        memory[:size], self._received = self._received[:size], self._received[size:]
        return size

    def _receive(self, source: socket.socket, memory: memoryview) -> int:
        size, want = 0, min(len(memory), self._left if self._last is None else self._last)
        while size < want:
            try:
                count = source.recv_into(memory[size:want])
            except BlockingIOError:
                if not self._more_soon(want - size):
                    break
                continue
            except OSError:
                count = 0  # reset by the client: what had arrived before, was read before
            if not count:
                self.ending = Ending.CUT
                break
            size += count
        self._left -= size
        if self._last is not None:
            self._last -= size
        self._look_for_end()
        return size

    def nudge(self) -> None:
        self._nudged = True
        self._wake()

    def stop(self) -> None:
        self._ends = Ending.STOPPED
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _begin(self) -> None:
        loan = self._loan = self._lend()
        LentBody._lent += 1
        self._received = memoryview(loan.received)
        self._left = loan.left
        self._socket = loan.socket
        self._fast = LentBody._lent <= PROCESSORS or self._there() >= FAST
        if self._socket is not None:
            self._poll.register(self._socket, select.POLLIN)
        elif self._left:
            self.ending = Ending.CUT
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self.ending is not None:
            return
        if not self._left:
            self.ending = Ending.WHOLE
        elif self._ends is not None:
            if self._last is None:
                self._last = min(self._left, self._there())
            if not self._last:
                self.ending = self._ends

    def _there(self) -> int:
        """How many bytes have arrived and were not read."""
        if self._socket is None:
            return 0
        (size,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, b"\0\0\0\0"))
        return int(size)

    async def _arrival(self, limit: float) -> bool:
        """Waits until something has come, and then a little more; False if nothing came, or if it was woken."""
        source, pace = self._socket, self._pace
        assert source is not None
        came, began = False, time.monotonic()
        LentBody._lent -= 1  # while nothing arrives it takes no thread's time, however many of such there are
        try:
            if pace.trickles:
                with anyio.move_on_after(min(limit, pace.linger)) as self._waiting:
                    await self._several(source)
                    came = True
                came = came or self._there() > 0
            if not came and not self._nudged and not self._ends:
                with anyio.move_on_after(limit - (time.monotonic() - began)) as self._waiting:
                    await anyio.wait_readable(source)
                    came = True
                    if not pace.trickles and 0 < self._there() < min(FAST, self._left):
                        await anyio.sleep(LINGER)
        finally:
            LentBody._lent += 1
        self._waiting = None
        there = self._there()
        pace.waited(time.monotonic() - began)
        if there:
            pace.gathered(there if there < self._left else FAST)
        self._fast = there >= min(FAST, self._left)
        return came

    async def _several(self, source: socket.socket) -> None:
        """Waits for what is worth to be taken: the kernel is asked to wake nobody for a few bytes. The end of the body,
        or of the connection, is told at once."""
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(PLENTY, self._left))
        try:
            await anyio.wait_readable(source)
        finally:
            source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _more_soon(self, want: int) -> bool:
        """Nothing is there at the moment: is it worth this thread's while to look again?"""
        assert self._socket is not None
        if not self._fast or self._nudged or self._ends or LentBody._lent > PROCESSORS:
            self._fast = False
            return False
        # poll(2) comes back when so many bytes are there, or the end: not for every packet.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(ENOUGH, want))
        self._fast = bool(self._poll.poll(LINGER * 1000)) or self._there() >= FAST
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return True
