"""Who may use a connection now: one limiter for each origin and direction, shared by all transfers of a client.

Rule of this file: connections are given out by priority and then by age, never more at once than the controller
allows, and none while the origin has asked to be left alone. What a transfer learns about the network goes through
here to the controller, so that whoever waits is let in as soon as there is room.
"""

import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

import anyio

from holdfast.planner import Controller, Share

Origin: TypeAlias = tuple[str, str | None, int | None]
Direction = Literal["up", "down"]

LOOK: Final = 0.25
"""Seconds after which whoever waits for a rate limit looks whether it was changed."""


class Limiter:
    """The connections to one origin in one direction. Belongs to one event loop. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], ceiling: int | None = None) -> None:
        self._clock = clock
        self.controller = Controller(clock(), ceiling=ceiling)
        self._used = 0
        self._age = itertools.count()
        self._waiting: list[tuple[int, int, int, anyio.Event]] = []

    @asynccontextmanager
    async def connection(self, priority: int, fixed: int | None = None) -> AsyncIterator[None]:
        """Wait for a connection, and have it inside the block; lower numbers go first.

        `fixed` is the number that the caller of the transfer has asked for, whatever the controller thinks.
        """
        most = fixed or 0
        if self._used < max(self.controller.connections, most) and not self._waiting:
            self._used += 1
        else:
            entry = (priority, next(self._age), most, anyio.Event())
            heapq.heappush(self._waiting, entry)
            try:
                await entry[3].wait()
            except BaseException:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    heapq.heapify(self._waiting)
                else:
                    self._leave()
                raise
        try:
            while (pause := self.controller.pause(self._clock())) > 0:  # noqa: ASYNC110 - it is a time that is awaited
                await anyio.sleep(pause)
            yield
        finally:
            self._leave()

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

    def _leave(self) -> None:
        self._used -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._used < max(self.controller.connections, self._waiting[0][2]):
            self._used += 1
            heapq.heappop(self._waiting)[3].set()


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
