"""A small file in one piece, and a process that is killed between two of the steps that make it (promises 1 and 2)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.conftest import StartServer
from tests.support.speaker import Speaker, raw_digest
from tests.support.waiting import eventually, scaled

from holdfast_protocol import server as rules
from holdfast_protocol.digest import Digest
from holdfast_server.auth import EVERYBODY
from holdfast_server.catalog.sqlite import open_sqlite
from holdfast_server.settings import Settings
from holdfast_server.storage.local import LocalStorage
from holdfast_server.uploads.service import Uploads

DATA = b"small file " * 300
APPEND = rules.Append(0, len(DATA))
EXPECTED = (Digest("sha-256", raw_digest("sha-256", DATA)),)


def killing(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and then this process is no more."""

    async def step(*args: Any, **named: Any) -> None:
        await method(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return step


async def upload_until(folder: Path, way: str, step: str) -> None:
    """What the child does: upload a file the one way or the other, and die right after the step."""
    storage = LocalStorage(folder, "ack")
    async with open_sqlite(folder / "catalog.sqlite") as catalog:
        uploads = Uploads(catalog, storage, Settings(folder))
        async with uploads.running():
            wanted = rules.Create(len(DATA), False, None, "small.bin", EXPECTED, None, APPEND)
            upload = await uploads.create(EVERYBODY, wanted.without_body(), never) if way == "append" else None
            part = storage if hasattr(storage, step) else catalog
            setattr(part, step, killing(getattr(part, step)))
            if upload is None:
                await uploads.create(EVERYBODY, wanted, never, (), DATA)
            else:
                await uploads.append_whole(upload, APPEND, DATA)


def never() -> Any:
    raise AssertionError("the body is here already")


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for each in ("incoming", "files") for path in (folder / each).iterdir()]


def killed(folder: Path, way: str, step: str) -> None:
    folder.mkdir()
    child = subprocess.run([sys.executable, "-m", __name__, folder, way, step], timeout=scaled(30), check=False)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.rule("T-CREATE-4")
@pytest.mark.parametrize("step", ["deposit", "create"])
def test_a_creation_with_its_file_is_there_whole_or_not_at_all(
    step: str, tmp_path: Path, start_server: StartServer
) -> None:
    killed(tmp_path / "data", "create", step)
    assert files(tmp_path / "data") == [DATA]
    server = start_server(data=tmp_path / "data")
    with Speaker(server.url) as speaker:
        listed = speaker.request("GET", "/api/uploads").json()["uploads"]
        if step == "deposit":  # nobody has learnt of it
            assert listed == []
            assert files(tmp_path / "data") == []
        else:
            assert [each["state"] for each in listed] == ["complete"]
            assert speaker.get(f"/files/{listed[0]['id']}").body == DATA


@pytest.mark.rule("T-PATCH-4", "C-OFFSET-1")
@pytest.mark.parametrize("step", ["deposit", "finish"])
def test_a_patch_with_a_whole_file_is_stored_or_not_and_never_half(
    step: str, tmp_path: Path, start_server: StartServer
) -> None:
    killed(tmp_path / "data", "append", step)
    assert DATA in files(tmp_path / "data")
    server = start_server(data=tmp_path / "data")
    with Speaker(server.url) as speaker:
        (listed,) = speaker.request("GET", "/api/uploads").json()["uploads"]
        url = f"/files/{listed['id']}"
        if step == "deposit":  # published, and not recorded: other bytes may come
            assert files(tmp_path / "data") == []
            assert (speaker.head(url).offset, speaker.head(url)["upload-state"]) == (0, "receiving")
            assert speaker.patch(url, 0, DATA[::-1]).verdict == (422, "upload-digest-mismatch")
            return
        eventually(lambda: speaker.head(url)["upload-state"] == "complete")
        assert EXPECTED[0].hex == speaker.status(url)["digests"]["sha-256"]
        assert speaker.get(url).body == DATA
        assert files(tmp_path / "data") == [DATA]


@pytest.mark.rule("T-PATCH-4", "C-OFFSET-1")
@pytest.mark.parametrize("restarted", [False, True], ids=["another goes on", "after a restart"])
@pytest.mark.parametrize("size", [len(DATA), len(DATA) - 1], ids=["at once", "in two"])
def test_a_file_that_nobody_was_told_of_gives_way(
    tmp_path: Path, start_server: StartServer, size: int, *, restarted: bool
) -> None:
    """One of several processes dies when it has published a file, and the client sends other bytes to the next."""
    server = start_server(data=tmp_path / "data")
    other = DATA[::-1]
    with Speaker(server.url) as speaker:
        url = speaker.create(len(DATA), parallel=False)
        name = speaker.status(url)["name"]
        child = subprocess.run(
            [sys.executable, "-m", __name__, tmp_path / "data", "deposit", url.rsplit("/", 1)[-1], name],
            timeout=scaled(30),
            check=False,
        )
        assert child.returncode == -signal.SIGKILL
        assert files(tmp_path / "data") == [DATA]
    if restarted:
        server.restart()
        assert files(tmp_path / "data") == []
    with Speaker(server.url) as speaker:
        assert speaker.head(url).offset == 0
        assert speaker.get(url).verdict == (409, "not-finished")
        assert speaker.patch(url, 0, other[:size]).offset == size
        if size < len(other):
            assert speaker.patch(url, size, other[size:]).offset == len(other)
        assert speaker.get(url).body == other
    eventually(lambda: files(tmp_path / "data") == [other])


def test_a_file_that_is_being_made_is_no_orphan(tmp_path: Path, start_server: StartServer) -> None:
    """Another process that recovers at this moment leaves it; once its maker is gone, the next one does not."""
    upload_id = "0123456789abcdef" * 2

    async def deposit() -> None:
        piece = await LocalStorage(tmp_path / "data", "os").deposit(upload_id, "small.bin", DATA)
        assert piece is not None
        await anyio.to_thread.run_sync(lambda: start_server(data=tmp_path / "data").stop())
        assert files(tmp_path / "data") == [DATA]
        piece.release()

    (tmp_path / "data").mkdir()
    anyio.run(deposit)
    start_server(data=tmp_path / "data")
    assert files(tmp_path / "data") == []


async def deposit_only(folder: Path, upload_id: str, name: str) -> None:
    """What the other child does: it publishes the file of an upload, and dies."""
    await LocalStorage(folder, "ack").deposit(upload_id, name, DATA, hold=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[2] == "deposit":
        anyio.run(deposit_only, Path(sys.argv[1]), sys.argv[3], sys.argv[4])
    anyio.run(upload_until, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
