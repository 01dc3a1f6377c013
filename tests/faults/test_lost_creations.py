"""A creation whose answer is lost, wherever the connection breaks or the client dies: the file is stored once."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.process import ServerProcess, environment
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import scaled

import holdfast
from holdfast.discovery import DISCOVERIES

SMALL, MIDDLE, LARGE = 10_000, 200_000, 3_000_000
"""One that is stored in one piece, one that goes with its creation all the same, and one that does not."""
POINTS = 12

KILLED = """
import os, signal, sys
import holdfast
from holdfast.journal import Journal

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

path, url, state, step, when = sys.argv[1:]
method = getattr(Journal, step)

def dies_after(*arguments, **named):
    method(*arguments, **named)
    die()

setattr(Journal, step, die if when == "before" else dies_after)
with holdfast.Client(state=state) as client:
    client.upload(path, url).result()
"""


@pytest.fixture(autouse=True)
def strangers() -> None:
    """The port of a proxy may have been another server's."""
    DISCOVERIES.forget()


@pytest.fixture(params=[False, True], ids=["closed", "reset"])
def reset(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def named(server: ServerProcess, path: Path) -> list[dict[str, Any]]:
    """What the server has under the name of a file, in whatever state."""
    with Speaker(server.url) as speaker:
        found = speaker.get("/api/uploads?limit=1000").json()["uploads"]
        return [each for each in found if each["name"] == path.name]


def is_there_once(server: ServerProcess, path: Path, url: str) -> bool:
    (only,) = named(server, path)
    with Speaker(server.url) as speaker:
        return only["state"] == "complete" and only["id"] in url and speaker.get(only["url"]).body == path.read_bytes()


@pytest.mark.anyio
@pytest.mark.rule("G-KEY-1", "G-KEY-2", "K-KEY-1", "K-KEY-2")
@pytest.mark.parametrize("size", [SMALL, MIDDLE])
async def test_a_connection_that_breaks_anywhere_makes_no_second_upload(
    two_workers: ServerProcess, tmp_path: Path, rng: random.Random, size: int, reset: bool
) -> None:
    """Before the first byte, in the head, in the body, and when all was stored and only the answer is missing."""
    name = rng.randbytes(6).hex()
    path = tmp_path / f"{name}.bin"
    path.write_bytes(rng.randbytes(size))
    with Proxy(two_workers.url) as whole:
        async with holdfast.AsyncClient(state=tmp_path / "whole") as client:
            result = await client.upload(path, f"{whole.url}/files")
        total, told = whole.up, whole.down
        assert whole.connections == 1
        assert (result.chunks, result.bytes_sent, result.retries) == (1, size, 0)
        assert is_there_once(two_workers, path, result.url)
    head = total - size
    points = [0, head, head + 1, total - 1]
    points += [rng.randrange(head) for _ in range(3)]
    points += [rng.randrange(head, total) for _ in range(POINTS - len(points))]
    faults = [Fault(cut_after=point, reset=reset) for point in points]
    faults += [Fault(cut_answer_after=told - left) for left in (10, 200)]

    async def broken(fault: Fault, number: int) -> None:
        path = tmp_path / f"{name}-{number}.bin"
        path.write_bytes(rng.randbytes(size))
        with Proxy(two_workers.url) as proxy:
            proxy.once = fault
            async with holdfast.AsyncClient(state=tmp_path / str(number)) as client:
                result = await client.upload(path, f"{proxy.url}/files")
            assert proxy.connections > 1
        assert is_there_once(two_workers, path, result.url), fault

    async with anyio.create_task_group() as group:
        for number, fault in enumerate(faults):
            group.start_soon(broken, fault, number)


@pytest.mark.rule("G-KEY-1", "K-KEY-1")
@pytest.mark.parametrize(
    ("size", "step", "when"),
    [
        (SMALL, "begin_upload", "after"),
        (SMALL, "finish_upload", "before"),
        (MIDDLE, "finish_upload", "before"),
        (LARGE, "begin_upload", "after"),
        (LARGE, "place_upload", "before"),
        (LARGE, "place_upload", "after"),
    ],
)
def test_a_client_that_is_killed_finds_what_it_has_asked_for(
    two_workers: ServerProcess, tmp_path: Path, rng: random.Random, size: int, step: str, when: str
) -> None:
    """Before the creation is sent, and when it was answered and the journal does not know it yet."""
    path = tmp_path / f"{rng.randbytes(6).hex()}.bin"
    path.write_bytes(rng.randbytes(size))
    url, state = f"{two_workers.url}/files", tmp_path / "state"
    words = [sys.executable, "-c", KILLED, str(path), url, str(state), step, when]
    killed = subprocess.run(words, env=environment(tmp_path), timeout=scaled(60), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(named(two_workers, path)) == (0 if step == "begin_upload" else 1)
    with holdfast.Client(state=state) as client:
        result = client.upload(path, url).result()
    assert is_there_once(two_workers, path, result.url)
    assert result.bytes_sent == size
    assert result.bytes_resumed == (size if step == "finish_upload" else 0)


@pytest.mark.anyio
@pytest.mark.rule("G-KEY-1")
async def test_a_file_that_is_begun_anew_has_another_key(
    two_workers: ServerProcess, tmp_path: Path, rng: random.Random
) -> None:
    """What was removed at the server, or is another file by now, is not asked for again."""
    path = tmp_path / f"{rng.randbytes(6).hex()}.bin"
    path.write_bytes(rng.randbytes(SMALL))
    urls = []
    async with holdfast.AsyncClient(state=tmp_path / "state") as client:
        for number in range(2):
            urls.append((await client.upload(path, f"{two_workers.url}/files")).url)
            os.utime(path, (number, number))
        with Speaker(two_workers.url) as speaker:
            assert speaker.delete(urls[1].removeprefix(two_workers.url)).status == 204
        os.utime(path, (0, 0))
        urls.append((await client.upload(path, f"{two_workers.url}/files")).url)
    assert len(set(urls)) == 3
