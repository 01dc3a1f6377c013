"""Who may use a connection now: one limiter for each origin and direction, shared by all transfers of a client.

Rule of this file: connections are given out by priority, then to the transfer that has the fewest, then by age; so a
large file takes what others leave, and a small one need not wait for its chunks. There are never more at once than the
controller allows, and none while the origin has asked to be left alone. What a transfer learns about the network goes
through here to the controller, so that whoever waits is let in as soon as there is room.
"""

import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import anyio

from holdfast.buffers import Buffers
from holdfast.planner import Controller, Share

Origin: TypeAlias = tuple[str, str | None, int | None]
Direction = Literal["up", "down"]

LOOK: Final = 0.25
"""Seconds after which whoever waits for a rate limit looks whether it was changed."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a connection. `most` is the number that its transfer was told to use, or 0."""

    share: Share
    age: int
    most: int
    turn: anyio.Event = field(default_factory=anyio.Event)


class Limiter:
    """The connections to one origin in one direction. Belongs to one event loop. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], ceiling: int | None = None) -> None:
        self._clock = clock
        self.controller = Controller(clock(), ceiling=ceiling)
        self.buffers = Buffers()
        """For the chunks of all transfers."""
        self._used = 0
        self._holds: dict[Share, int] = {}
        """How many connections each transfer has now, if it has any."""
        self._age = itertools.count()
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def connection(self, share: Share, fixed: int | None = None) -> AsyncIterator[None]:
        """Wait for a connection for the transfer of `share`, and have it inside the block.

        `fixed` is the number that the caller of the transfer has asked for, whatever the controller thinks.
        """
        waiter = _Waiter(share, next(self._age), fixed or 0)
        if not self._waiting and self._has_room_for(waiter):
            self._give(waiter)
        else:
            self._waiting.append(waiter)
            try:
                await waiter.turn.wait()
            except BaseException:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                else:
                    self._leave(share)
                raise
        try:
            while (pause := self.controller.pause(self._clock())) > 0:  # noqa: ASYNC110 - it is a time that is awaited
                await anyio.sleep(pause)
            yield
        finally:
            self._leave(share)

    async def held_to(self, share: Share, size: int) -> None:
        """Wait until `size` bytes may move by the rate limits of a transfer, also if those are changed meanwhile."""
        tickets = share.book(size)
        while (wait := share.wait(tickets)) > 0:
            self.controller.held()
            await anyio.sleep(min(wait, LOOK))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Bytes of a chunk are on their way in the block."""
        self.controller.began(self._clock())
        try:
            yield
        finally:
            self.controller.ended(self._clock())

    @contextmanager
    def hungry(self) -> Iterator[None]:
        """In the block a connection waits for bytes to be read that it could send."""
        self.controller.hungry(self._clock())
        try:
            yield
        finally:
            self.controller.fed(self._clock())

    def surplus(self, share: Share, fixed: int | None = None) -> bool:
        """A transfer should give up one of its connections: there are too many, or somebody waits who goes before it.

        For those who hold a connection for long.
        """
        if self._used > max(self.controller.connections, fixed or 0):
            return True
        mine = (share.priority, self._holds[share] - 1)
        return any((each.share.priority, self._holds.get(each.share, 0)) < mine for each in self._waiting)

    def moved(self, size: int) -> None:
        """See `Controller.moved`."""
        self.controller.moved(size, self._clock())
        self._admit()

    def accepted(self, size: int, seconds: float, overhead: float) -> None:
        """See `Controller.accepted`."""
        self.controller.accepted(size, seconds, overhead, self._clock())
        self._admit()

    def throttled(self, *, retry_after: float | None, crowded: bool) -> None:
        """See `Controller.throttled`."""
        jitter = random.random()  # noqa: S311
        self.controller.throttled(self._clock(), jitter, retry_after=retry_after, crowded=crowded)

    def _has_room_for(self, waiter: _Waiter) -> bool:
        return self._used < max(self.controller.connections, waiter.most)

    def _give(self, waiter: _Waiter) -> None:
        self._used += 1
        self._holds[waiter.share] = self._holds.get(waiter.share, 0) + 1
        waiter.turn.set()

    def _leave(self, share: Share) -> None:
        self._used -= 1
        self._holds[share] -= 1
        if not self._holds[share]:
            del self._holds[share]
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            first = min(self._waiting, key=lambda each: (each.share.priority, self._holds.get(each.share, 0), each.age))
            if not self._has_room_for(first):
                return
            self._waiting.remove(first)
            self._give(first)


class Limiters:
    """All limiters of a client, by origin and direction.

    `ceilings` are the largest chunks that origins (`scheme://host:port`) take, as earlier clients have learnt.
    """

    def __init__(self, clock: Callable[[], float], ceilings: Mapping[str, int] | None = None) -> None:
        self._clock = clock
        self._ceilings = ceilings or {}
        self._found: dict[tuple[Origin, Direction], Limiter] = {}

    def of(self, origin: Origin, direction: Direction) -> Limiter:
        """The limiter for `origin`: scheme, host and port."""
        key = (origin, direction)
        if key not in self._found:
            ceiling = self._ceilings.get(_named(origin)) if direction == "up" else None
            self._found[key] = Limiter(self._clock, ceiling)
        return self._found[key]

    @property
    def ceilings(self) -> dict[str, int]:
        """The largest chunks that origins take, as far as they have refused larger ones."""
        uploads = [(_named(origin), each.controller) for (origin, way), each in self._found.items() if way == "up"]
        return {name: each.proven_ceiling for name, each in uploads if each.proven_ceiling is not None}


def _named(origin: Origin) -> str:
    scheme, host, port = origin
    return f"{scheme}://{host}:{port}"
