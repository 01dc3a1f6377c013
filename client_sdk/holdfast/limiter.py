"""Who may use a connection now: one limiter for each origin and direction, shared by all transfers of a client.

Rule of this file: connections are given out by priority, then to the transfer that has the fewest, then to the one that
has had none for longest; so a large file takes what others leave, and a small one need not wait for its chunks. There
are never more at once than the controller allows, nor than the caller has set for all origins together, and none while
the origin has asked to be left alone. What a transfer learns about the network goes through here to the controller, so
that whoever waits is let in as soon as there is room.
"""

import itertools
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Literal, TypeAlias

import anyio
from msgspec import Struct, field

from holdfast.buffers import Buffers
from holdfast.clock import SYSTEM, Clock
from holdfast.errors import UsageError
from holdfast.planner import START_CONNECTIONS, Controller, Sending
from holdfast.rates import Share
from holdfast.retries import Backoff, Budget

Origin: TypeAlias = tuple[str, str | None, int | None]
Direction = Literal["up", "down"]

BUDGET: Final = Budget(SYSTEM.monotonic())
"""The retries of this process."""
FIRST: Final = -1
"""The age of who goes before all others."""
LOOK: Final = 0.25
"""Seconds after which whoever waits for a rate limit looks whether it was changed."""


class _Waiter(Struct, eq=False):
    """Somebody who waits for a connection. `most` is the number that its transfer was told to use, or 0."""

    share: Share
    age: int
    most: int
    turn: anyio.Event = field(default_factory=anyio.Event)


class Crowd:
    """All connections of a client, whatever their origin: at most `most` of them, None for any number."""

    def __init__(self, most: int | None = None) -> None:
        self._most = _checked_most(most)
        self.used: int = 0
        self.limiters: list[Limiter] = []

    @property
    def most(self) -> int | None:
        """May be changed at any time; those that are in use stay. Raises UsageError below 1."""
        return self._most

    @most.setter
    def most(self, most: int | None) -> None:
        self._most = _checked_most(most)
        self.admit()

    @property
    def has_room(self) -> bool:
        return self._most is None or self.used < self._most

    def admit(self) -> None:
        """Let in whoever is next, of all origins, as long as there is room."""
        while self.has_room:
            first = min((each for each in self.limiters if each.first is not None), key=_rank, default=None)
            if first is None:
                return
            first.admit()


class Limiter:
    """The connections to one origin in one direction, some of those of `crowd`. Belongs to one event loop."""

    def __init__(self, clock: Clock, ceiling: int | None = None, crowd: Crowd | None = None) -> None:
        self.clock = clock
        self._crowd = crowd or Crowd()
        self._crowd.limiters.append(self)
        self.controller: Controller = Controller(clock.monotonic(), ceiling=ceiling)
        self.buffers: Buffers = Buffers()
        """For the chunks of all transfers."""
        self.piece: int = 0
        """Bytes that are handed to a connection at once, as whoever sends has learnt; 0: nobody has."""
        self._used = 0
        self._holds: dict[Share, int] = {}
        """How many connections each transfer has now, if it has any."""
        self._age = itertools.count()
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def connection(self, share: Share, fixed: int | None = None) -> AsyncIterator[None]:
        """Wait for a connection for the transfer of `share`, and have it inside the block.

        `fixed` is the number that the caller of the transfer has asked for, whatever the controller thinks; it gets no
        more than these.
        """
        await self._enter(_Waiter(share, next(self._age), fixed or 0))
        try:
            await self._unpaused()
            yield
        finally:
            self._leave(share)

    @asynccontextmanager
    async def without(self, share: Share, fixed: int | None = None) -> AsyncIterator[None]:
        """Inside `connection`: others have it in this block, and after it is waited for again, before all others."""
        self._leave(share)
        try:
            yield
            await self._enter(_Waiter(share, FIRST, fixed or 0))
        except BaseException:
            self._take(share)  # the block around this one gives it back
            raise
        await self._unpaused()

    async def _enter(self, waiter: _Waiter) -> None:
        self._waiting.append(waiter)
        self._crowd.admit()
        if not waiter.turn.is_set():
            try:
                await waiter.turn.wait()
            except BaseException:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                else:
                    self._leave(waiter.share)
                raise

    async def _unpaused(self) -> None:
        while (pause := self.controller.pause(self.clock.monotonic())) > 0:
            await self.clock.sleep(pause)

    async def held_to(self, share: Share, size: int) -> None:
        """Wait until `size` bytes may move by the rate limits of a transfer, also if those are changed meanwhile."""
        tickets = share.book(size)
        while (wait := share.wait(tickets)) > 0:
            self.controller.held()
            await self.clock.sleep(min(wait, LOOK))

    @asynccontextmanager
    async def sending(self, size: int = 0) -> AsyncIterator[Sending]:
        """A chunk of `size` bytes is on its way in the block; whoever moves them says so to what it gets."""
        sending = self.controller.began(self.clock.monotonic(), size)
        try:
            yield sending
        finally:
            self.controller.ended(sending, self.clock.monotonic())

    @contextmanager
    def hungry(self) -> Iterator[None]:
        """In the block a connection waits for bytes to be read that it could send."""
        self.controller.hungry(self.clock.monotonic())
        try:
            yield
        finally:
            self.controller.fed(self.clock.monotonic())

    def surplus(self, share: Share, fixed: int | None = None) -> bool:
        """A transfer should give up one of its connections: there are too many, or somebody waits who goes before it.

        For those who hold a connection for long.
        """
        if self._used > max(self._allowed, fixed or 0):
            return True
        mine = (share.priority, self._holds[share] - 1)
        return any((each.share.priority, self._holds.get(each.share, 0)) < mine for each in self._waiting)

    def moved(self, size: int) -> None:
        """See `Controller.moved`."""
        self.controller.moved(size, self.clock.monotonic())
        if self._waiting and self._used < self._allowed:
            self._crowd.admit()

    def accepted(self, size: int, seconds: float, overhead: float) -> None:
        """See `Controller.accepted`."""
        self.controller.accepted(size, seconds, overhead, self.clock.monotonic())
        BUDGET.succeeded()
        if self._waiting:
            self._crowd.admit()

    def throttled(self, *, retry_after: float | None, crowded: bool) -> None:
        """See `Controller.throttled`."""
        jitter = random.random()  # noqa: S311
        self.controller.throttled(self.clock.monotonic(), jitter, retry_after=retry_after, crowded=crowded)

    def after_failure(self, backoff: Backoff, failures: int, retry_after: float | None, *, throttled: bool) -> float:
        """Seconds to wait before something is tried again: what the failure asks for, and what the process can
        afford."""
        delay = backoff.delay(failures, random.random(), retry_after)  # noqa: S311 - jitter
        return max(delay, BUDGET.spend(self.clock.monotonic(), throttled=throttled))

    @property
    def first(self) -> _Waiter | None:
        """Who is next here; None if nobody waits, or nobody may."""
        able = [each for each in self._waiting if not each.most or self._holds.get(each.share, 0) < each.most]
        if not able:
            return None
        first = min(able, key=self.rank)
        used = self._used
        if first.share not in self._holds and used < START_CONNECTIONS:
            # Those that are slow because a limit wants it may take minutes for a chunk: nobody waits for that.
            used -= sum(count for share, count in self._holds.items() if share.limited)
        return first if used < max(self._allowed, first.most) else None

    def rank(self, waiter: _Waiter) -> tuple[int, int, int]:
        """Who goes first has the least."""
        return waiter.share.priority, self._holds.get(waiter.share, 0), waiter.age

    def admit(self) -> None:
        """Let in whoever is next."""
        waiter = self.first
        assert waiter is not None
        self._waiting.remove(waiter)
        self._take(waiter.share)
        waiter.turn.set()

    @property
    def _allowed(self) -> int:
        return self.controller.allowed(self.clock.monotonic())

    def _take(self, share: Share) -> None:
        self._used += 1
        self._crowd.used += 1
        self._holds[share] = self._holds.get(share, 0) + 1

    def _leave(self, share: Share) -> None:
        self._used -= 1
        self._crowd.used -= 1
        self._holds[share] -= 1
        if not self._holds[share]:
            del self._holds[share]
        for each in self._waiting:
            if each.share is share and each.age != FIRST:
                each.age = next(self._age)  # it had one until now
        self._crowd.admit()


class Limiters:
    """All limiters of a client, by origin and direction.

    `ceilings` are the largest chunks that origins (`scheme://host:port`) take, as earlier clients have learnt. The
    connections of all of them are of one `crowd`.
    """

    def __init__(
        self, clock: Clock = SYSTEM, ceilings: Mapping[str, int] | None = None, crowd: Crowd | None = None
    ) -> None:
        self._clock = clock
        self._crowd = crowd or Crowd()
        self._ceilings = ceilings or {}
        self._found: dict[tuple[Origin, Direction], Limiter] = {}

    def of(self, origin: Origin, direction: Direction) -> Limiter:
        """The limiter for `origin`: scheme, host and port."""
        key = (origin, direction)
        if key not in self._found:
            ceiling = self._ceilings.get(_named(origin)) if direction == "up" else None
            self._found[key] = Limiter(self._clock, ceiling, self._crowd)
        return self._found[key]

    @property
    def ceilings(self) -> dict[str, int]:
        """The largest chunks that origins take, as far as they have refused larger ones."""
        uploads = [(_named(origin), each.controller) for (origin, way), each in self._found.items() if way == "up"]
        return {name: each.proven_ceiling for name, each in uploads if each.proven_ceiling is not None}


def _named(origin: Origin) -> str:
    scheme, host, port = origin
    return f"{scheme}://{host}:{port}"


def _rank(limiter: Limiter) -> tuple[int, int, int]:
    first = limiter.first
    assert first is not None
    return limiter.rank(first)


def _checked_most(most: int | None) -> int | None:
    if most is not None and most < 1:
        raise UsageError("at least one connection must be allowed")
    return most
