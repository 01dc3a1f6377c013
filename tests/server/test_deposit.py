"""A small file that is stored and published at once, in sparse files of a local file system."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.support.speaker import TUS_BODY

from holdfast_server import create_app
from holdfast_server.http.answers import ARRIVED
from holdfast_server.storage.base import Piece, Reservation
from holdfast_server.storage.local import EVERYTHING, LocalStorage
from holdfast_server.uploads.writers import TURN

pytestmark = pytest.mark.anyio

ID = "0123456789abcdef" * 2
NAME = "small.bin"
DATA = b"small file " * 300


def files(folder: Path) -> dict[str, bytes]:
    """What lies in the storage, by the name of its folder."""
    found = {}
    for each in ("incoming", "files"):
        for path in (folder / each).iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[each] = path.read_bytes()
    return found


@pytest.fixture
async def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path, "ack")


async def test_it_is_its_maker_s_until_that_one_lets_go(storage: LocalStorage, tmp_path: Path) -> None:
    other = LocalStorage(tmp_path, "ack")
    piece = await storage.deposit(ID, NAME, DATA, hold=True)
    assert piece is not None
    assert await other.claim_file(ID, NAME) is None
    for whole in ((0, 1), (TURN, TURN + 1), (0, EVERYTHING)):
        assert await other.reserve(ID, *whole) is None
        assert await storage.reserve(ID, *whole) is None
    assert await other.deposit(ID, NAME, DATA, hold=True) is None
    assert files(tmp_path) == {"files": DATA}
    another = await other.reserve(ID[::-1], 0, 1)
    assert another is not None
    another.release()
    assert await piece.read(0, len(DATA)) == DATA
    piece.release()
    late = await other.reserve(ID, 0, 1)
    assert late is not None
    late.release()
    assert files(tmp_path) == {"files": DATA}


async def test_an_id_that_nobody_knows_is_not_held(storage: LocalStorage, tmp_path: Path) -> None:
    piece = await storage.deposit(ID, NAME, DATA)
    assert piece is not None
    assert files(tmp_path) == {"files": DATA}
    assert await storage.claim_file(ID, NAME) is None
    piece.release()


async def test_it_is_not_done_where_another_one_is_at_it(storage: LocalStorage, tmp_path: Path) -> None:
    writer = await LocalStorage(tmp_path, "ack").reserve(ID, 100, 200)
    assert writer is not None
    assert await storage.deposit(ID, NAME, DATA, hold=True) is None
    await writer.write(100, iter_once(b"x" * 100), 100)
    writer.release()
    assert await storage.deposit(ID, NAME, DATA, hold=True) is None
    assert files(tmp_path) == {"incoming": bytes(100) + b"x" * 100}


async def test_of_two_that_race_for_an_upload_one_at_most_has_it(storage: LocalStorage, tmp_path: Path) -> None:
    other = LocalStorage(tmp_path, "os")
    for number in range(100):
        upload_id = f"{number:032x}"
        found: dict[str, Piece | Reservation | None] = {}

        async def make(upload_id: str = upload_id, found: dict[str, Piece | Reservation | None] = found) -> None:
            found["made"] = await storage.deposit(upload_id, NAME, DATA, hold=True)

        async def take(upload_id: str = upload_id, found: dict[str, Piece | Reservation | None] = found) -> None:
            found["reserved"] = await other.reserve(upload_id, 0, 1)

        async with anyio.create_task_group() as tasks:
            for race in (make, take) if number % 2 else (take, make):
                tasks.start_soon(race)
        has = [each for each in found.values() if each is not None]
        assert len(has) < 2
        for each in has:
            each.release()


async def test_a_published_file_stays_as_it_is(storage: LocalStorage, tmp_path: Path) -> None:
    first = await storage.deposit(ID, NAME, DATA, hold=True)
    assert first is not None
    first.release()
    assert await storage.deposit(ID, NAME, DATA[::-1], hold=True) is None
    assert files(tmp_path) == {"files": DATA}


async def test_bytes_take_the_place_of_what_was_deposited_in_vain(storage: LocalStorage, tmp_path: Path) -> None:
    """Who deposited it has died before anybody was told; what is seen of the upload are its bytes."""
    piece = await storage.deposit(ID, NAME, DATA)
    assert piece is not None
    piece.release()
    writer = await storage.reserve(ID, 0, EVERYTHING)
    assert writer is not None
    await writer.write(0, iter_once(DATA[::-1]), len(DATA))
    view = await storage.view(ID, NAME)
    assert view is not None
    assert await view.read(0, len(DATA)) == DATA[::-1]
    view.release()
    for _ in range(2):
        await storage.publish(ID, NAME)
        assert files(tmp_path) == {"files": DATA[::-1]}
    writer.release()


def without_unnamed_files(patch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(path))
        return real(path, flags, *more, **named)

    patch.setattr(os, "open", refusing)


def without_proc(patch: pytest.MonkeyPatch) -> None:
    def missing(source: Any, *_: Any, **__: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    patch.setattr(os, "link", missing)


@pytest.mark.parametrize("unable", [without_unnamed_files, without_proc])
async def test_a_system_that_cannot_leaves_it_to_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unable: Callable[[pytest.MonkeyPatch], None]
) -> None:
    unable(monkeypatch)
    app = create_app(tmp_path)

    async def arrived(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {ARRIVED: {"body": lambda: DATA}}
        await app(scope, receive, send)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(arrived), base_url="http://localhost") as client,
    ):
        length = {"Upload-Length": str(len(DATA))}
        both = await client.post("/files", headers={**TUS_BODY, **length}, content=DATA)
        assert (both.status_code, both.headers["upload-offset"]) == (201, str(len(DATA)))
        one = await client.post("/files", headers={**TUS_BODY, **length, "Content-Type": ""})
        url = one.headers["location"]
        patched = await client.patch(url, headers={**TUS_BODY, "Upload-Offset": "0"}, content=DATA)
        assert (patched.status_code, patched.headers["upload-offset"]) == (204, str(len(DATA)))
        assert (await client.get(both.headers["location"])).content == DATA
        assert (await client.get(url)).content == DATA


def iter_once(data: bytes) -> Callable[[int], list[bytes]]:
    """A source that has these bytes, once."""
    left = [data]
    return lambda _: [left.pop()] if left else []
