"""Connections to a worker process of one's choice.

Rule of this file: a keep-alive connection stays with the worker that accepted it, and `/health/live` tells
that worker's pid; nothing else is known of how the kernel spreads connections.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

from tests.support.process import ServerProcess
from tests.support.speaker import Speaker

TRIES = 64


def worker_of(speaker: Speaker) -> int:
    """The pid of the worker that this speaker's connection ends in."""
    pid = speaker.request("GET", "/health/live").json()["pid"]
    assert isinstance(pid, int)
    return pid


@contextlib.contextmanager
def speakers_by_worker(server: ServerProcess, count: int = 2) -> Iterator[list[Speaker]]:
    """One speaker for each of `count` workers, in no order.

    When the kernel gives one worker every connection, that one is held (SIGSTOP) for the moment of
    connecting.
    """
    found: dict[int, Speaker] = {}
    with contextlib.ExitStack() as stack:
        for _ in range(TRIES):
            speaker = stack.enter_context(Speaker(server.url))
            found.setdefault(worker_of(speaker), speaker)
            if len(found) == count:
                break
        while len(found) < count:
            found.update([_connect_past(server, set(found), stack)])
        yield list(found.values())


def _connect_past(server: ServerProcess, held: set[int], stack: contextlib.ExitStack) -> tuple[int, Speaker]:
    assert held < set(server.pids())
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        speaker = stack.enter_context(Speaker(server.url))
        return worker_of(speaker), speaker
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
