"""A clock whose waits take no time.

Rule of this file: it goes as the clock of the machine does, and a wait moves it forward instead of taking place. So
what happens over the network has its real times, and only waits on purpose are skipped.
"""

import time

import anyio.lowlevel


class VirtualClock:
    """For `clock=` of AsyncClient and Client: retries, Retry-After and rate limits wait by it. Any thread may use
    it."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.slept: list[float] = []
        """The waits that were asked for, in seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary moment."""
        return time.monotonic() + self._ahead

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass, for example until uploads expire."""
        self._ahead += max(0.0, seconds)

    async def sleep(self, seconds: float) -> None:
        """Move forward by so much; others have their turn meanwhile."""
        self.slept.append(seconds)
        until = self.monotonic() + seconds
        await anyio.lowlevel.checkpoint()
        self.advance(until - self.monotonic())
