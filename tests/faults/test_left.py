"""Uploads that are created and left, 400 of them or with `--uploads-left 10000` as many as somebody might try.

Rule of this file: they count against the quota until they expire, they go without anybody asking, and while they go
everybody else is served.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker
from tests.support.waiting import eventually, scaled

CLIENTS = 8
STALL = 3.0
"""Seconds (scaled) in which small requests are answered, whatever is being removed..."""
SYNCS = 2
"""...and what the disk itself takes for so many syncs: of the file, and of the catalog."""


def leave(server: ServerProcess, count: int) -> list[str]:
    """Creates uploads of 1 MiB over several connections; a few of them get some bytes."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def create_some() -> list[str]:
        made: list[str] = []
        with Speaker(server.url) as speaker:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return made
                answer = speaker.post(1 << 20)
                assert answer.status == 201, answer
                made.append(speaker.url + answer["location"])
                if number % 20 == 0:
                    assert speaker.patch(made[-1], 0, b"begun").status == 204

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [url for some in [pool.submit(create_some) for _ in range(CLIENTS)] for url in some.result()]


def slowest_answer(server: ServerProcess, upload: str, complete: str, until: threading.Event) -> tuple[float, float]:
    """The longest that it took to send bytes, ask for them and fetch a file, all the while; and to sync a file of our
    own.
    """
    longest, disk, offset = 0.0, 0.0, 0
    with Speaker(server.url) as speaker, (server.data.parent / "own").open("wb", buffering=0) as own:
        while not until.is_set():
            begun = time.monotonic()
            assert speaker.patch(upload, offset, b"12345").status == 204
            offset += 5
            assert speaker.head(upload).offset == offset
            assert speaker.get(complete).status == 200
            ended = time.monotonic()
            longest = max(longest, ended - begun)
            own.write(b"12345")
            os.fsync(own)
            disk = max(disk, time.monotonic() - ended)
            time.sleep(0.02)
    return longest, disk


@pytest.mark.rule("Q-UPLOADS-1", "T-EXPIRE-2")
@pytest.mark.timeout(400)
def test_uploads_that_are_left_count_and_go(
    start_server: StartServer, pytestconfig: pytest.Config, workers: int
) -> None:
    count = int(pytestconfig.getoption("uploads_left"))
    life = scaled(max(3.0, count / 100))
    server = start_server("--max-uploads", str(count), "--overcommit", expire_after=life, workers=workers)
    with Speaker(server.url) as speaker:
        complete = speaker.url + speaker.post(0)["location"]
        used = speaker.url + speaker.post(1 << 20)["location"]  # somebody goes on with this one
    left = leave(server, count - 1)
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(slowest_answer, server, used, complete, done)
        try:
            with Speaker(server.url) as speaker:
                full = speaker.post(10)
                assert full.verdict == (429, "too-many-uploads")
                assert full.json()["used"] == count
                listed = speaker.request("GET", "/api/uploads?state=receiving&limit=1").json()["uploads"]
                assert len(listed) == 1
                others = "/api/uploads?state=receiving&limit=2"

                def gone() -> bool:
                    if asked.done():
                        asked.result()  # raises what went wrong for the one who is served
                    return len(speaker.request("GET", others).json()["uploads"]) == 1

                eventually(
                    gone,
                    within=life + 60 + count / 100,
                    every=0.1,
                    what="the end of all that was left",
                )
        finally:
            done.set()
        longest, disk = asked.result()
        assert longest < scaled(STALL) + SYNCS * disk
    with Speaker(server.url) as speaker:
        assert {speaker.head(url).status for url in left[:: max(1, count // 50)]} == {410}
        assert [path.name for path in (server.data / "incoming").iterdir()] == [used.rpartition("/")[2]]
        assert speaker.post(10).status == 201
