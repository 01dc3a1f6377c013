"""The queue in which transfers of both directions wait for their turn, and what can be said of all of them.

Rule of this file: of those that wait, the one with the lowest priority number is next, and of these the oldest; who is
paused or waits for another try takes no place. Nothing that was taken in is forgotten before its end was told.
"""

import bisect
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
from msgspec import Struct

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import UsageError
from holdfast.limiter import Crowd
from holdfast.progress import Countdown, Progress, State
from holdfast.rates import RateLimit
from holdfast.transfers import RetryPolicy, Transfer, tell

AnyTransfer: TypeAlias = Transfer[Any]


class Statistics(Struct, frozen=True):
    """One look at all transfers of a queue. Sizes in bytes, times in seconds."""

    pending: int
    active: int
    paused: int
    completed: int
    failed: int
    cancelled: int
    size: int
    """Of all whose size is known: that of files and bytes is from the beginning, that of a download with its turn."""
    accepted: int
    """Of these, as Progress.accepted."""
    speed: float
    """Of all that are active together, bytes a second."""
    errors: int
    retries: int
    resent: int
    connections: int
    """In use now, of all transfers together."""
    eta: float | None = None
    """Seconds until all is done, as far as sizes are known; None if nothing can be said. It does not jump."""

    @property
    def done(self) -> int:
        """Those that have ended, in whatever way."""
        return self.completed + self.failed + self.cancelled

    @property
    def total(self) -> int:
        """All transfers that the queue ever took."""
        return self.pending + self.active + self.paused + self.completed + self.failed + self.cancelled

    @property
    def fraction(self) -> float:
        """Accepted part of the whole, 0.0 to 1.0."""
        if self.size == 0:
            return 1.0 if self.done == self.total else 0.0
        return min(1.0, self.accepted / self.size)


class TransferQueue:
    """All transfers of one client (`AsyncClient.queue`): at most `active` of them at once, the others wait.

    Belongs to the client's event loop. Methods return at once but for `join` and `shutdown`.
    """

    def __init__(
        self,
        active: int,
        limit: RateLimit,
        policy: RetryPolicy,
        crowd: Crowd | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._active = _checked_active(active)
        self._limit = limit
        self._policy = policy
        self._crowd = crowd or Crowd()
        self._clock = clock
        self._countdown = Countdown()
        self._begin: Callable[..., object] | None = None
        self._running: set[AnyTransfer] = set()
        self._waiting: list[tuple[AnyTransfer, anyio.Event]] = []
        self._transfers: dict[AnyTransfer, None] = {}
        self._failed: list[AnyTransfer] = []
        self._gone = {State.COMPLETED: 0, State.FAILED: 0, State.CANCELLED: 0}
        self._gone_bytes = self._gone_errors = self._gone_retries = self._gone_resent = 0
        self._age = 0
        self._closed = False
        self._on_progress: list[Callable[[AnyTransfer, Progress], object]] = []
        self._on_end: list[Callable[[AnyTransfer], object]] = []

    @property
    def active(self) -> int:
        """How many are on their way at once, 1 or more; may be changed at any time. Raises UsageError below 1.

        With a lower number those that are on their way go on to their end.
        """
        return self._active

    @active.setter
    def active(self, active: int) -> None:
        self._active = _checked_active(active)
        self._admit()

    @property
    def limit_rate(self) -> float | None:
        """Bytes of content a second for all transfers together, None for no limit; may be changed at any time."""
        return self._limit.rate

    @limit_rate.setter
    def limit_rate(self, rate: float | None) -> None:
        self._limit.rate = rate

    @property
    def connections(self) -> int | None:
        """Connections for all transfers together, to whatever servers; None for as many as pay. May be changed at any
        time.

        With a lower number those that carry a chunk bring it to its end. Raises UsageError below 1.
        """
        return self._crowd.most

    @connections.setter
    def connections(self, most: int | None) -> None:
        self._crowd.most = most

    @property
    def transfers(self) -> Sequence[AnyTransfer]:
        """All that have not ended, in the order in which they came."""
        return tuple(self._transfers)

    @property
    def waiting(self) -> Sequence[AnyTransfer]:
        """Those that wait, the next one first."""
        return tuple(transfer for transfer, _ in self._waiting)

    @property
    def statistics(self) -> Statistics:
        """One look at all of them."""
        begun = [each for each in self._transfers if each.begun]
        looks = [each.progress for each in begun]
        states = [each.state for each in self._transfers]
        pending, paused = states.count(State.PENDING), states.count(State.PAUSED)
        size = self._gone_bytes + sum(each.size or 0 for each in self._transfers)
        accepted = self._gone_bytes + sum(look.accepted for look in looks if look.size is not None)
        moved = sum(look.moved for look in looks if look.size is not None)
        speed = sum(look.speed for look in looks)
        able = sum(min(look.speed, each.limit_rate or math.inf) for each, look in zip(begun, looks, strict=True))
        left = max(0, size - self._gone_bytes - moved)
        now = self._clock.monotonic()
        if not self._transfers:
            self._countdown.reset(now)
        return Statistics(
            pending=pending,
            active=len(states) - pending - paused,
            paused=paused,
            completed=self._gone[State.COMPLETED],
            failed=self._gone[State.FAILED],
            cancelled=self._gone[State.CANCELLED],
            size=size,
            accepted=accepted,
            speed=speed,
            errors=self._gone_errors + sum(look.errors for look in looks),
            retries=self._gone_retries + sum(look.retries for look in looks),
            resent=self._gone_resent + sum(look.resent for look in looks),
            connections=self._crowd.used,
            eta=self._countdown.left(now, left, min(able, self.limit_rate or math.inf)) if self._transfers else 0.0,
        )

    def on_progress(self, callback: Callable[[AnyTransfer, Progress], object]) -> None:
        """Have a function, or an `async def`, called with each transfer's newest snapshot, at most ten times a second.

        For transfers that are started from now on. What it raises is logged and harms nobody.
        """
        self._on_progress.append(callback)

    def on_end(self, callback: Callable[[AnyTransfer], object]) -> None:
        """Have a function, or an `async def`, called with each transfer that has ended; its `state` says how."""
        self._on_end.append(callback)

    def put_before(self, transfer: AnyTransfer, other: AnyTransfer) -> None:
        """Have a transfer that waits go before another one that waits, with that one's priority.

        Raises UsageError if one of them does not wait.
        """
        order = self.waiting
        if transfer not in order or other not in order:
            raise UsageError("only transfers that wait can be put in another order")
        if transfer is other:
            return
        before = [each for each in order if each is not transfer]
        at = before.index(other)
        previous = before[at - 1] if at and before[at - 1].priority == other.priority else None
        transfer.age = other.age - 1 if previous is None else (previous.age + other.age) / 2
        transfer.priority = other.priority

    def pause(self) -> None:
        """Pause all that have not ended."""
        for each in self.transfers:
            each.pause()

    def resume(self) -> None:
        """Resume all that are paused."""
        for each in self.transfers:
            each.resume()

    async def join(self) -> Statistics:
        """Wait until all have ended that are in the queue now, or come in meanwhile; the last look at them."""
        while self._transfers:
            await next(iter(self._transfers)).wait()
            await anyio.lowlevel.checkpoint()
        return self.statistics

    async def shutdown(self, *, wait: bool = True) -> Statistics:
        """Take no more transfers, and wait for the end of those that are here; without `wait` they are cancelled.

        What is done is kept. Those that are paused are cancelled, too: nobody could resume them.
        """
        self._closed = True
        for each in self.transfers:
            if not wait or each.paused:
                each.interrupt()
        return await self.join()

    # The client's part

    def open(self, begin: Callable[..., object]) -> None:
        """What begins tasks where the transfers run: `start_soon` of a task group."""
        self._begin = begin

    def start(self, transfer: AnyTransfer) -> None:
        """Take a transfer in. Raises UsageError after `shutdown`."""
        assert self._begin is not None
        if self._closed:
            raise UsageError("the queue was shut down and takes no more transfers; use a new client")
        self._age += 1
        transfer.age = self._age
        self._transfers[transfer] = None
        transfer.belongs_to(self)
        self._begin(self._carry_out, transfer)
        for callback in self._on_progress:
            transfer.on_progress(partial(callback, transfer))

    async def enter(self, transfer: AnyTransfer) -> None:
        """See Turns."""
        if len(self._running) < self._active and not self._waiting:
            self._running.add(transfer)
            return
        entry = (transfer, anyio.Event())
        bisect.insort(self._waiting, entry, key=_order)
        try:
            await entry[1].wait()
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self.leave(transfer)
            raise

    def leave(self, transfer: AnyTransfer) -> None:
        """See Turns."""
        self._running.discard(transfer)
        self._admit()

    def reordered(self) -> None:
        """See Turns."""
        self._waiting.sort(key=_order)

    def call(self, callback: Callable[..., Coroutine[Any, Any, None]], *said: object) -> None:
        """See Turns."""
        assert self._begin is not None
        self._begin(callback, *said)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._active:
            transfer, turn = self._waiting.pop(0)
            self._running.add(transfer)
            turn.set()

    async def _carry_out(self, transfer: AnyTransfer) -> None:
        try:
            await transfer.run(self, self._policy)
        finally:
            look = transfer.progress
            self._gone[look.state] += 1
            self._gone_bytes += look.accepted
            self._gone_errors += look.errors
            self._gone_retries += look.retries
            self._gone_resent += look.resent
            del self._transfers[transfer]
            if transfer.unseen_error is not None:
                self._failed.append(transfer)
        for callback in self._on_end:
            await tell(callback, transfer)

    @property
    def unseen_errors(self) -> list[Exception]:
        """The errors of those that failed, of which nobody was told."""
        return [each for transfer in self._failed if (each := transfer.unseen_error) is not None]


def _order(entry: tuple[AnyTransfer, anyio.Event]) -> tuple[int, float]:
    return entry[0].priority, entry[0].age


def _checked_active(active: int) -> int:
    if active < 1:
        raise UsageError("at least one transfer must be allowed at once")
    return active
