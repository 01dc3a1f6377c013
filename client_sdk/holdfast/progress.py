"""How far a transfer is: snapshots that replace each other.

Rule of this file: a snapshot is never queued. Whoever looks gets the newest one, and those in between are gone;
so a slow reader costs nothing. Bytes that the other side has accepted and bytes that were put on the wire are two
numbers and are never mixed: the first never goes back, the second counts what was sent again, too. The speed is that of
the wire, so what a resumed transfer had before does not count in it; the time to go follows it slowly.
"""

import math
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Final, NamedTuple

import anyio
from msgspec import Struct

from holdfast.errors import HoldfastError

HALF_LIFE: Final = 3.0
"""Seconds after which a measured speed counts half."""
ETA_HALF_LIFE: Final = 4.0
"""Seconds in which the time to go comes half the way to what the speed of now would make of it."""
ETA_EARLIEST: Final = 1.0
"""Seconds before which nothing is said of it: what first goes into buffers looks like a speed that nothing has."""


class State(StrEnum):
    """What a transfer is doing. `COMPLETED`, `FAILED` and `CANCELLED` are final."""

    PENDING = "pending"
    """In the queue, before its turn."""
    STARTING = "starting"
    IN_PROGRESS = "in_progress"
    """`Progress.note` says so if it waits for the next attempt after a failure."""
    PAUSED = "paused"
    VERIFYING = "verifying"
    """All bytes are there: the server verifies and publishes them, or what was received is compared here."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED)


class Part(NamedTuple):
    """A range `[start, end)` that one connection receives, as far as `at`."""

    start: int
    at: int
    end: int


class Progress(Struct, frozen=True):
    """One look at a transfer. Sizes in bytes, times in seconds."""

    state: State
    size: int | None
    """None as long as it is not known (a download before the first answer)."""
    accepted: int
    """Stored at the other end, or safely here for a download. Never goes back for one version of a file."""
    resumed: int
    """The part of `accepted` that was there before this call."""
    wire: int
    """Bytes of content that this call put on the wire, or received; what was sent twice counts twice."""
    speed: float
    """Bytes on the wire per second, smoothed; 0 if nothing moves."""
    elapsed: float
    resent: int
    """Bytes that this call put on the wire in vain, so that they went, or have to go, once more."""
    errors: int
    """Failures, whatever came of them."""
    retries: int
    """Failures after which something was tried again."""
    concurrency: int
    """Connections that carry bytes now."""
    chunk_size: int
    """Bytes of the chunk that was cut last; 0 before the first one."""
    eta: float | None = None
    """Seconds until all bytes are there; None if nothing can be said. It follows the speed without jumping."""
    step: str | None = None
    """What the server is at while it has an upload `VERIFYING`, as it said last: `verifying` or `publishing`. None as
    long as it has not said anything."""
    note: str | None = None
    """A sentence about the last failure while it matters."""
    last_error: HoldfastError | None = None
    """The last failure, if there was one, also after it was got over."""
    parts: tuple[Part, ...] = ()
    """What the connections of a download have before them, in the order of the file."""

    @property
    def moved(self) -> int:
        """`accepted`, and what is on its way."""
        return max(self.accepted, self.resumed + self.wire - self.resent)

    @property
    def fraction(self) -> float:
        """Accepted part of the whole, 0.0 to 1.0; 0.0 while the size is not known."""
        if self.size is None:
            return 0.0
        return 1.0 if self.size == 0 else min(1.0, self.accepted / self.size)


class Meter:
    """A speed, smoothed over time with a half-life. `now` is in seconds of any monotonic clock."""

    __slots__ = ("_pending", "_rate", "_since", "_weight")

    def __init__(self, now: float) -> None:
        self._since = now
        self._pending = 0
        self._rate = 0.0
        self._weight = 0.0

    def add(self, size: int) -> None:
        self._pending += size

    def rate(self, now: float) -> float:
        """Bytes per second. Samples are taken not more often than ten times a second."""
        span = now - self._since
        if span >= 0.1:
            keep = math.pow(0.5, span / HALF_LIFE)
            self._rate = self._rate * keep + (self._pending / span) * (1 - keep)
            self._weight = self._weight * keep + (1 - keep)
            self._pending = 0
            self._since = now
        return self._rate / self._weight if self._weight > 0 else 0.0


class Countdown:
    """The time to go: it counts down by itself, and comes to what the speed would make of it little by little."""

    __slots__ = ("_began", "_left", "_then")

    def __init__(self, now: float = -math.inf) -> None:
        self._began = now
        self._left: float | None = None
        self._then = 0.0

    def left(self, now: float, bytes_left: float, speed: float) -> float | None:
        """Seconds; None as long as nothing has moved, and in the first second.

        While nothing moves any more it stands still.
        """
        span, self._then = max(0.0, now - self._then), now
        if speed <= 0 or now - self._began < ETA_EARLIEST:
            return self._left
        aim = bytes_left / speed
        if self._left is None:
            self._left = aim
        else:
            left = max(0.0, self._left - span)
            self._left = aim + (left - aim) * math.pow(0.5, span / ETA_HALF_LIFE)
        return self._left

    def reset(self, now: float) -> None:
        """What was said so far is of no use; it begins anew."""
        self._began = now
        self._left = None


class Latest:
    """The newest snapshot, for any number of readers. Belongs to one event loop.

    `look` takes a snapshot. A reader gets one at once, and then one after each change, but not more often than every
    `interval` seconds; so the last change before a pause is always seen.
    """

    def __init__(self, look: Callable[[], Progress], *, interval: float = 0.1) -> None:
        self._look = look
        self._interval = interval
        self._version = 0
        self._changed: anyio.Event | None = None
        self._closed: anyio.Event | None = None
        self._last: Progress | None = None

    @property
    def progress(self) -> Progress:
        return self._last or self._look()

    def changed(self) -> None:
        """There is something new to see. Cheap if nobody waits for it."""
        self._version += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def close(self) -> None:
        """There will be no more changes: readers get the last snapshot, if they have not seen it, and end."""
        self._last = self._look()
        if self._closed is not None:
            self._closed.set()
        self.changed()

    async def follow(self) -> AsyncIterator[Progress]:
        """The newest snapshot at once, then the newest one each time that there is a newer one."""
        while True:
            seen, last = self._version, self._last is not None
            yield self.progress
            if last:
                return
            if self._closed is None:
                self._closed = anyio.Event()
            with anyio.move_on_after(self._interval):
                await self._closed.wait()
            if self._version == seen:
                if self._changed is None:
                    self._changed = anyio.Event()
                await self._changed.wait()


class Tracker:
    """Collects what a driver reports. `clock` is monotonic, in seconds; `most` tells the rate limit of the moment."""

    def __init__(self, clock: Callable[[], float], most: Callable[[], float] = lambda: math.inf) -> None:
        self._clock = clock
        self._most = most
        self._began = clock()
        self.begun: bool = False
        self._meter = Meter(self._began)
        self.state: State = State.PENDING
        self.size: int | None = None
        self.accepted: int = 0
        self.resumed: int = 0
        self.wire: int = 0
        self.resent: int = 0
        self.errors: int = 0
        self.retries: int = 0
        self.last_error: HoldfastError | None = None
        self._countdown = Countdown(self._began)
        self.concurrency: int = 0
        self.peak: int = 0
        """The most connections that were busy at once."""
        self.chunk_size: int = 0
        self.step: str | None = None
        self.note: str | None = None
        self.url: str | None = None
        """Of the upload, as soon as there is one."""
        self.parts: Callable[[], tuple[Part, ...]] = tuple
        self.latest: Latest = Latest(self.snapshot)

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    def begin(self) -> None:
        """The transfer has left the queue: time counts from here, the first time that it does."""
        now = self._clock()
        if not self.begun:
            self.begun = True
            self._began = now
        self._meter = Meter(now)
        self._countdown.reset(now)
        self.enter(State.STARTING)

    def go_on(self) -> None:
        """Bytes move (again), whatever went wrong before."""
        if self.state is not State.IN_PROGRESS or self.note is not None:
            self.enter(State.IN_PROGRESS)

    def enter(self, state: State, note: str | None = None, step: str | None = None) -> None:
        """Another state, or another step of the server's in the same."""
        self.state = state
        self.step = step
        self.note = note
        self.latest.changed()

    def failed(self, error: HoldfastError) -> None:
        """Something went wrong; what comes of it is said elsewhere. The same error counts once."""
        if error is not self.last_error:
            self.errors += 1
            self.last_error = error

    def moved(self, size: int) -> None:
        """`size` bytes went over the wire."""
        self.wire += size
        self._meter.add(size)
        self.latest.changed()

    def busy(self, connections: int) -> None:
        """So many connections carry bytes of this transfer now."""
        self.concurrency = connections
        self.peak = max(self.peak, connections)
        self.latest.changed()

    def tick(self) -> None:
        """A number changed."""
        self.latest.changed()

    def snapshot(self) -> Progress:
        now = self._clock()
        speed = self._meter.rate(now)
        return Progress(
            state=self.state,
            size=self.size,
            accepted=self.accepted,
            resumed=self.resumed,
            wire=self.wire,
            speed=speed,
            elapsed=now - self._began,
            resent=self.resent,
            errors=self.errors,
            retries=self.retries,
            concurrency=self.concurrency,
            chunk_size=self.chunk_size,
            eta=self._eta(now, speed),
            step=self.step,
            note=self.note,
            last_error=self.last_error,
            parts=self.parts(),
        )

    def _eta(self, now: float, speed: float) -> float | None:
        if self.size is None or self.state is not State.IN_PROGRESS:
            return None
        # What is on its way counts as moved: a chunk that is accepted would be a leap else.
        there = max(self.accepted, self.resumed + self.wire - self.resent)
        # What a limit lets go at once in the beginning is faster than what comes.
        return self._countdown.left(now, max(0, self.size - there), min(speed, self._most()))
