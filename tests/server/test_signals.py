"""The signals that end `holdfast serve`."""

import os
import signal
from collections.abc import Iterator

import anyio
import pytest

from holdfast_server.cli import _also

pytestmark = pytest.mark.anyio


@pytest.fixture
def seen() -> Iterator[list[str]]:
    """What was done for SIGUSR1; before `_also` it adds `before`."""
    found: list[str] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: found.append("before"))
    yield found
    signal.signal(signal.SIGUSR1, previous)


@pytest.mark.rule("L-CLOSE-1")
async def test_a_signal_waits_for_what_the_event_loop_is_doing(seen: list[str]) -> None:
    """A frame that was being written when it came was written again by the farewell."""
    done = anyio.Event()
    _also(signal.SIGUSR1, done.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == ["before"]
    assert not done.is_set()
    with anyio.fail_after(5):
        await done.wait()
