"""How long a test waits.

Rule of this file: a test waits for a condition, never for a time; the time is only the limit after which
the condition counts as broken. Limits grow with HOLDFAST_TEST_TIMEOUT_FACTOR (1 if not set), for slow
machines.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FACTOR = float(os.environ.get("HOLDFAST_TEST_TIMEOUT_FACTOR", "1"))


def scaled(seconds: float) -> float:
    """A limit in seconds, as this machine needs it."""
    return seconds * FACTOR


def eventually(probe: Callable[[], T], *, within: float = 10.0, every: float = 0.005, what: str = "") -> T:
    """Call `probe` until it answers something true, and return that. Blocks.

    Raises AssertionError with the last answer after `within` seconds (scaled). `every` is the pause in
    seconds between two calls.
    """
    deadline = time.monotonic() + scaled(within)
    while True:
        last = probe()
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'the condition'} did not come true in {scaled(within)} s: {last!r}")
        time.sleep(every)


def median(values: list[float]) -> float:
    """The middle one of `values` (the upper one of two), which must not be empty."""
    return sorted(values)[len(values) // 2]
