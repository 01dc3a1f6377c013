"""Time, as the client sees it: what is measured with, and what waits go by.

Rule of this file: whoever waits on purpose (after a failure, for a rate limit, as a server has asked) waits by the
clock that it was given, so that a test need not wait for it. How long a connection may keep silent is not such a wait:
that is the network's time.
"""

import time
from typing import Final, Protocol

import anyio


class Clock(Protocol):
    """What tells the time. `holdfast.testing.VirtualClock` is one whose waits take no time."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary moment; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


SYSTEM: Final = SystemClock()
