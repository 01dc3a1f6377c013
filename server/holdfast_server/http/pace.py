"""How long a client may keep a request open: whoever sends, or reads, too slowly is let go.

Rule of this file: only the time in which the server waited for the client is held against it, never that in which the
disk was slow. What a request brought is kept when it ends so (T-PATCH-4).
"""

import fcntl
import random
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Final

import anyio
from starlette.types import Scope

from holdfast_server.settings import Settings

WINDOW: Final = 30.0
"""Seconds of waiting over which the speed is looked at; less if the stall timeout is shorter."""
TRICKLE: Final = 4 * 1024
"""Who sends less than this at a time is looked after less and less often..."""
LINGER: Final = 0.002
"""...from so many seconds, in which there may be more to be taken at once: threads and calls are dear..."""
LONGEST_LINGER: Final = 1.25 * WINDOW
"""...to so many or a fifth less, so that those that came together are not looked after together: by then it is known
whether they are too slow. What has arrived meanwhile is in the kernel, and stays there when the connection is lost."""
GROWTH: Final = 1000
"""Each time so much longer: in two steps, since a step of thousands of clients takes the time of others."""
PLENTY: Final = 4 * TRICKLE
"""Bytes that are worth to be taken at once, however long there would still be time."""
CHARGE: Final = "holdfast.charge"
"""In a scope: how to say that so many bytes were sent or fetched; answers the seconds to wait for that."""


class Pace:
    """One request that sends or fetches. `clock` gives seconds that never jump, `chance` is uniform in [0, 1)."""

    def __init__(
        self,
        settings: Settings,
        charge: Callable[[int], float] | None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        limits = settings.limits
        self.stall_timeout: float = settings.stall_timeout
        """Seconds for which nothing at all may come."""
        self.linger: float = LINGER
        """Seconds for which it is worth to wait for more, once there is something."""
        self._least = limits.min_speed
        self._window = min(WINDOW, settings.stall_timeout)
        self._charge = charge
        self._clock = clock
        self._chance = chance
        self._end = None if limits.max_request_time is None else clock() + limits.max_request_time
        self._waited = 0.0
        self._bytes = 0

    def waited(self, seconds: float) -> None:
        """So long the client was waited for."""
        self._waited += seconds

    def gathered(self, size: int) -> None:
        """So many bytes had come when they were about to be read."""
        if size >= TRICKLE:
            self.linger = LINGER
        else:
            left = max(self._window - self._waited, LINGER)
            self.linger = min(self.linger * GROWTH, LONGEST_LINGER / WINDOW * (1 - self._chance() / 5) * left)

    @property
    def trickles(self) -> bool:
        """So little comes at a time that it is worth to wait for more."""
        return self.linger > LINGER

    @property
    def over(self) -> bool:
        """The request has to end: it was too slow, or takes too long in all."""
        if self._end is not None and self._clock() > self._end:
            return True
        if self._waited < self._window:
            return False
        slow = self._bytes < self._least * self._waited
        self._waited, self._bytes = 0.0, 0
        return slow

    async def passed(self, size: int) -> None:
        """So many bytes came or went. Waits if the client is to have no more of them a second."""
        self._bytes += size
        if self._charge is not None and size:
            pause = self._charge(size)
            if pause > 0:
                await anyio.sleep(pause)

    async def writable(self, connection: socket.socket) -> None:
        """Waits until more can be written. Raises ConnectionError if the client does not read for too long.

        A socket is writable again when a third of its memory is free, which a slow client may take minutes for.
        """
        before = unread(connection)
        began = self._clock()
        with anyio.move_on_after(self.stall_timeout) as waiting:
            await anyio.wait_writable(connection)
        left = unread(connection)
        self.waited(self._clock() - began)
        if self.over or (waiting.cancelled_caught and left >= before):
            leave_unread(connection)
            raise ConnectionAbortedError("the client does not read")


def pace_of(scope: Scope, settings: Settings) -> Pace:
    """The pace of a request, with what bounds the rate of its client, if something does."""
    return Pace(settings, scope.get(CHARGE))


def unread(connection: socket.socket) -> int:
    """Bytes that were written to a connection and have not reached the other side."""
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    return int(size)


def leave_unread(connection: socket.socket) -> None:
    """Has the kernel drop what the other side has not read when the connection is closed, which it would keep."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
