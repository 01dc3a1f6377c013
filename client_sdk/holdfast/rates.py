"""How fast bytes may move: limits of a transfer and of all together, without any I/O.

Rule of this file: bytes are booked and wait for their turn in that order, and a rate that is changed holds for those
that wait already. Time comes from a clock that is given (seconds, monotonic).
"""

import math
from collections.abc import Callable

from holdfast.errors import UsageError
from holdfast.planner import MIB


class RateLimit:
    """At most `rate` bytes a second on average, with bursts of at most a quarter of a second; None is no limit.

    Whoever wants to move bytes books them and waits for its turn, in the order in which they were booked. The rate may
    be changed at any time and holds for those who wait already, too. `clock` is monotonic, in seconds.
    """

    __slots__ = ("_allowed", "_booked", "_clock", "_rate", "_then")

    def __init__(self, rate: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rate = _checked_rate(rate)
        self._booked = 0.0
        self._allowed = self._burst()
        self._then = clock()

    @property
    def rate(self) -> float | None:
        """Bytes a second, more than 0, or None. Raises UsageError for one that makes no sense."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        self._flow()
        self._rate = _checked_rate(rate)
        self._allowed = min(self._allowed, self._booked + self._burst())

    @property
    def slice(self) -> int | None:
        """The bytes to book at once: 16 to 64 KiB, so that a slow limit is not one burst a minute; None: any."""
        return None if self._rate is None else int(min(max(self._rate / 8, 16 * 1024), 64 * 1024))

    def book(self, size: int) -> float:
        """Book `size` bytes; the ticket for `wait`."""
        self._flow()
        self._booked += size
        return self._booked

    def wait(self, ticket: float) -> float:
        """Seconds until the bytes of a ticket may move, at the rate of now; 0 if they may."""
        self._flow()
        if self._rate is None or ticket <= self._allowed:
            return 0.0
        return (ticket - self._allowed) / self._rate

    def _burst(self) -> float:
        return 0.0 if self._rate is None else min(max(64 * 1024.0, self._rate / 4), 4.0 * MIB)

    def _flow(self) -> None:
        now = self._clock()
        if self._rate is None:
            self._allowed = self._booked
        else:
            self._allowed = min(self._allowed + (now - self._then) * self._rate, self._booked + self._burst())
        self._then = now


def _checked_rate(rate: float | None) -> float | None:
    if rate is not None and not 0 < rate < math.inf:
        raise UsageError("a rate limit must be more than 0 bytes a second, and None where there is none")
    return rate


class Share:
    """What one transfer may take of what all share: its place among those that want a connection, and its rate.

    `limits` are its own rate limit, which comes first, and that of all together. `priority` may be changed at any time;
    lower numbers go first.
    """

    __slots__ = ("_limits", "priority")

    def __init__(self, priority: int, *limits: RateLimit) -> None:
        self.priority: int = priority
        self._limits = limits

    @property
    def limited(self) -> bool:
        """A rate limit holds it back: its own, or that of all."""
        return any(each.rate is not None for each in self._limits)

    @property
    def slice(self) -> int | None:
        """As RateLimit.slice: the smallest of them."""
        return min((each.slice for each in self._limits if each.slice is not None), default=None)

    def book(self, size: int) -> tuple[float, ...]:
        """As RateLimit.book."""
        return tuple(each.book(size) for each in self._limits)

    def wait(self, tickets: tuple[float, ...]) -> float:
        """As RateLimit.wait: the longest of them."""
        return max((each.wait(ticket) for each, ticket in zip(self._limits, tickets, strict=True)), default=0.0)
