"""Connections that are cut, servers that restart, workers that are killed: everybody who watches ends with every event.

Rule of this file: what happened is read from the catalog, at the end; each subscriber has to have been told of it, all
of it, in that order, and of nothing twice.
"""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import anyio
import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.proxy import Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import scaled
from tests.support.watching import Watching, watching
from tests.support.wire import ConnectionLostError
from websockets.exceptions import WebSocketException

import holdfast
from holdfast_server.catalog.sqlite import open_sqlite

UPLOADERS = 3
SUBSCRIBERS = 4
"""Of each kind: over WebSocket, and our client over server-sent events."""


class Events:
    """What one subscriber was told: offsets, ascending, each once, or something is wrong."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.gaps = 0
        self.failure: BaseException | None = None


def follow_by_hand(url: str, place: dict[str, object], told: Events, done: threading.Event) -> None:
    """The rules of L-RECOVER-1, with a library of others."""
    try:
        while not done.is_set():
            with contextlib.suppress(WebSocketException, OSError, AssertionError, TimeoutError), watching(url) as found:
                found.say(action="subscribe", topics=["all"], since=dict(place))
                _take(found, place, told, done)
            time.sleep(0.01)
    except BaseException as error:
        told.failure = error
        raise


def _take(found: Watching, place: dict[str, object], told: Events, done: threading.Event) -> None:
    synced = False
    while not done.is_set():
        try:
            frame = found.next(within=0.3)
        except TimeoutError:
            continue
        match frame["type"]:
            case "subscribed":
                told.gaps += frame["payload"]["recovered"] is not True
            case "status":
                told.offsets.append(frame["offset"])
                place["offset"] = frame["offset"]
            case "synced":
                synced = True
                place["offset"] = frame["payload"]["offset"]
            case "ping" if synced:
                place["offset"] = frame["payload"]["offset"]
            case _:
                pass


def follow_with_our_client(url: str, state: Path, since: holdfast.Place, told: Events, done: threading.Event) -> None:
    async def follow() -> None:
        async with holdfast.AsyncClient(state=state) as client, anyio.create_task_group() as tasks:

            async def end() -> None:
                while not done.is_set():  # noqa: ASYNC110 - it is set by another thread
                    await anyio.sleep(0.05)
                tasks.cancel_scope.cancel()

            tasks.start_soon(end)
            async for news in client.watch(url, since=since, max_attempts=None):
                told.gaps += news.kind == "gap"
                if news.kind == "status":
                    assert news.place is not None
                    told.offsets.append(news.place.offset)

    try:
        anyio.run(follow)
    except BaseException as error:
        told.failure = error
        raise


def upload(url: str, done: threading.Event, seed: int) -> None:
    """Small files, finished or removed, for as long as it lasts; what fails is not tried again."""
    choices = random.Random(seed)
    while not done.is_set():
        with contextlib.suppress(OSError, ConnectionLostError, AssertionError), Speaker(url) as speaker:
            while not done.is_set():
                path = speaker.create(100, parallel=False)
                if choices.random() < 0.7:
                    speaker.patch(path, 0, bytes(100))
                if choices.random() < 0.3:
                    speaker.delete(path)
                time.sleep(choices.random() * 0.02)
        time.sleep(0.05)


def one_worker(server: ServerProcess, choices: random.Random) -> None:
    workers = [pid for pid in server.pids() if pid != server.pid and b"spawn_main" in _words(pid)]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(choices.choice(workers), signal.SIGKILL)


def _words(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.timeout(1200)
@pytest.mark.rule("L-RECOVER-1", "L-RECOVER-2", "L-STATUS-1")
def test_everybody_ends_with_every_event_in_order_and_once(
    request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path, rng: random.Random
) -> None:
    faults = int(request.config.getoption("live_faults"))
    server = start_server("--durability", "os", workers=2)
    still, watched = threading.Event(), threading.Event()
    told = [Events() for _ in range(2 * SUBSCRIBERS)]
    with Proxy(server.url) as proxy:
        with watching(server.url) as found:
            epoch, offset = found.seen[0]["payload"]["epoch"], found.seen[0]["payload"]["offset"]
        uploaders = [
            threading.Thread(target=upload, args=(server.url, still, rng.randrange(10**9))) for _ in range(UPLOADERS)
        ]
        watchers = []
        for number, each in enumerate(told):
            if number < SUBSCRIBERS:
                place: dict[str, object] = {"epoch": epoch, "offset": offset}
                thread = threading.Thread(target=follow_by_hand, args=(proxy.url, place, each, watched))
            else:
                arguments = (proxy.url, tmp_path / f"state-{number}", holdfast.Place(epoch, offset), each, watched)
                thread = threading.Thread(target=follow_with_our_client, args=arguments)
            watchers.append(thread)
        for thread in (*uploaders, *watchers):
            thread.start()
        try:
            for number in range(faults):
                time.sleep(rng.random() * 0.2)
                match number % 20:
                    case 7:
                        one_worker(server, rng)
                    case 19:
                        server.restart()
                    case _:
                        proxy.drop_all()
            still.set()
            for thread in uploaders:
                thread.join(scaled(30))
            if not server.running:
                server.restart()
            happened = anyio.run(_log, server.data / "catalog.sqlite")
            assert len(happened) > faults
            deadline = time.monotonic() + scaled(60)
            while any(len(each.offsets) < len(happened) for each in told) and time.monotonic() < deadline:
                time.sleep(0.05)
            happened = anyio.run(_log, server.data / "catalog.sqlite")
        finally:
            still.set()
            watched.set()
            for thread in (*uploaders, *watchers):
                thread.join(scaled(60))
    assert [each.failure for each in told] == [None] * len(told)
    assert [each.gaps for each in told] == [0] * len(told)
    assert [_missing(each, happened) for each in told] == [""] * len(told), server.read_log()
    for each in told:
        assert each.offsets == happened


def _missing(told: Events, happened: list[int]) -> str:
    """What somebody was not told, as runs; whether they lie in the middle or at the end says what has gone wrong."""
    lost = sorted(set(happened) - set(told.offsets))
    begins = [seq for seq in lost if seq - 1 not in lost]
    ends = [seq for seq in lost if seq + 1 not in lost]
    runs = [f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True)]
    return f"{len(lost)} of {happened[-1]}: {', '.join(runs)}" if lost else ""


async def _log(catalog: Path) -> list[int]:
    found: list[int] = []
    async with open_sqlite(catalog, durability="os") as opened:
        while page := await opened.events(found[-1] if found else 0, 1000):
            found += [event.seq for event in page]
    return found
