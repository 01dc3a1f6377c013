"""The order in which things reach the disk before an answer is given, seen from inside the process.

Rule of this file: nothing is replaced. The calls that write and sync, and the commits of the catalog, are carried out
as ever and written down with their place in the order; what is looked at is who ended before whom began.
"""

import itertools
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.support.drafts import append
from tests.support.speaker import CHUNK, GRANULE, TUS, TUS_BODY, b64, chunk_fields, raw_digest

from holdfast_server import create_app
from holdfast_server.settings import Settings
from holdfast_server.storage.local import Durability, LocalStorage

pytestmark = pytest.mark.anyio

FULL, NORMAL = 2, 1
"""SQLite, PRAGMA synchronous: in WAL mode FULL syncs the log at each commit, NORMAL does not."""


@dataclass
class Step:
    """One call: what was done to what (relative to the data folder), and when, on a clock that counts calls."""

    what: str
    where: str
    began: int
    ended: int = 0
    synchronous: int = 0
    """Of a commit."""
    received: int = 0
    """Of a commit: the bytes that the upload has by it."""
    state: str = ""
    """Of a commit: that of the upload."""


class Recorder:
    """Everything that went to the disk or to the client since `forget`."""

    def __init__(self, data: Path, patch: pytest.MonkeyPatch) -> None:
        self._data = data
        self._clock = itertools.count()
        self.steps: list[Step] = []
        for name in ("fsync", "fdatasync", "pwrite", "pwritev"):
            patch.setattr(os, name, self.recording(name, getattr(os, name), self._of_descriptor))
        patch.setattr(os, "copy_file_range", self.recording("copy", os.copy_file_range, self._of_descriptor, at=1))
        patch.setattr(os, "rename", self.recording("rename", os.rename, self._of_path))
        recorder, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                if sql != "COMMIT":
                    return super().execute(sql, *parameters)
                (synchronous,) = super().execute("PRAGMA synchronous").fetchone()
                (journal,) = super().execute("PRAGMA journal_mode").fetchone()
                rows = super().execute("SELECT received, state FROM upload").fetchall()
                step = recorder.begin("commit", journal)
                found = super().execute(sql)
                recorder.end(step)
                step.synchronous = synchronous
                step.received, step.state = rows[0] if rows else (0, "")
                return found

        patch.setattr(sqlite3, "connect", lambda *args, **named: connect(*args, **named, factory=Connection))

    def begin(self, what: str, where: str) -> Step:
        return Step(what, where, next(self._clock))

    def end(self, step: Step) -> None:
        step.ended = next(self._clock)
        self.steps.append(step)

    def forget(self) -> None:
        self.steps.clear()

    def one(self, what: str, where: str) -> Step:
        """The only call of its kind."""
        (step,) = (step for step in self.steps if (step.what, step.where) == (what, where))
        return step

    def commit(self, received: int, state: str = "receiving") -> Step:
        """The first commit by which the upload has so many bytes and is in that state."""
        found = (s for s in self.steps if s.what == "commit" and (s.received, s.state) == (received, state))
        return min(found, key=lambda step: step.began)

    def answer(self) -> Step:
        (step,) = (step for step in self.steps if step.what == "answer")
        return step

    def written(self, where: str) -> Step:
        """All writes to a file, as one."""
        found = [s for s in self.steps if s.what in ("pwrite", "pwritev", "copy") and s.where == where]
        return Step("written", where, min(s.began for s in found), max(s.ended for s in found))

    def recording(
        self, what: str, real: Callable[..., Any], place: Callable[[Any], str], at: int = 0
    ) -> Callable[..., Any]:
        def recorded(*args: Any, **named: Any) -> Any:
            step = self.begin(what, place(args[at]))
            result = real(*args, **named)
            self.end(step)
            return result

        return recorded

    def _of_descriptor(self, fd: int) -> str:
        return self._of_path(Path(f"/proc/self/fd/{fd}").readlink())

    def _of_path(self, path: str | os.PathLike[str]) -> str:
        return os.path.relpath(path, self._data)


def assert_order(*steps: Step) -> None:
    """Each had ended before the next one began."""
    for former, latter in itertools.pairwise(steps):
        assert former.ended < latter.began, f"{latter} did not wait for {former}"


def syncs(recorder: Recorder) -> Sequence[Step]:
    return [step for step in recorder.steps if step.what in ("fsync", "fdatasync")]


@asynccontextmanager
async def running(settings: Settings, recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                recorder.end(recorder.begin("answer", str(message["status"])))
            await send(message)

        await app(scope, receive, tell)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(telling), base_url="http://localhost") as client,
    ):
        yield client


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(tmp_path / "data", monkeypatch)


async def created(client: httpx.AsyncClient, length: int, **other: str) -> str:
    fields = {**TUS, "Upload-Length": str(length), **{name.replace("_", "-"): value for name, value in other.items()}}
    answer = await client.post("/files", headers=fields)
    assert answer.status_code == 201
    return str(answer.headers["location"])


def file_of(url: str) -> str:
    return "incoming/" + url.rsplit("/", 1)[-1]


@pytest.mark.rule("P-CHUNK-4")
async def test_an_acknowledged_creation_is_on_the_disk(tmp_path: Path, recorder: Recorder) -> None:
    async with running(Settings(tmp_path / "data"), recorder) as client:
        recorder.forget()
        await created(client, 10)
        commit = recorder.commit(0)
        assert (commit.synchronous, commit.where) == (FULL, "wal")
        assert_order(commit, recorder.answer())


@pytest.mark.parametrize("dialect", ["tus", "tus with a checksum", "draft", "chunk"])
@pytest.mark.rule("P-CHUNK-4", "T-PATCH-4")
async def test_acknowledged_bytes_are_on_the_disk(tmp_path: Path, recorder: Recorder, dialect: str) -> None:
    """Folder, bytes, file, catalog, answer; the folder only for the first bytes, which make the file."""
    data = os.urandom(GRANULE)
    async with running(Settings(tmp_path / "data"), recorder) as client:
        url = await created(client, 3 * GRANULE)
        for offset in (0, GRANULE):
            fields = {
                "tus": {**TUS_BODY, "Upload-Offset": str(offset)},
                "draft": append(offset, False),
                "chunk": chunk_fields(offset, data),
            }.get(dialect) or {**TUS_BODY, "Upload-Offset": str(offset), "Upload-Checksum": _sha1(data)}
            recorder.forget()
            assert (await client.patch(url, headers=fields, content=data)).status_code == 204
            written, synced = recorder.written(file_of(url)), recorder.one("fdatasync", file_of(url))
            commit = recorder.commit(offset + GRANULE)
            assert (commit.synchronous, commit.where) == (FULL, "wal")
            assert_order(written, synced, commit, recorder.answer())
            if offset == 0:
                assert_order(recorder.one("fsync", "incoming"), synced)
            else:
                assert syncs(recorder) == [synced]


@pytest.mark.rule("P-CHUNK-4", "P-CHUNK-6")
async def test_bytes_that_come_around_stored_ones_are_on_the_disk(tmp_path: Path, recorder: Recorder) -> None:
    """They are copied from a scratch file; what counts is the sync of the file that they are copied to."""
    data = os.urandom(3 * GRANULE)
    async with running(Settings(tmp_path / "data"), recorder) as client:
        url = await created(client, len(data))
        middle = data[GRANULE : 2 * GRANULE]
        assert (await client.patch(url, headers=chunk_fields(GRANULE, middle), content=middle)).status_code == 204
        recorder.forget()
        assert (await client.patch(url, headers=chunk_fields(0, data), content=data)).status_code == 204
        synced, commit = recorder.one("fdatasync", file_of(url)), recorder.commit(len(data))
        assert commit.synchronous == FULL
        assert_order(recorder.written(file_of(url)), synced, commit, recorder.answer())


@pytest.mark.parametrize("durability", ["ack", "finish"])
@pytest.mark.rule("P-COMPLETE-1")
async def test_a_published_file_is_on_the_disk(tmp_path: Path, recorder: Recorder, durability: Durability) -> None:
    """The file before its name, its name before the catalog says so, and that before the answer."""
    data = os.urandom(GRANULE)
    settings = Settings(tmp_path / "data", durability)
    async with running(settings, recorder) as client:
        url = await created(client, len(data), Upload_Parallel="?1")
        assert (await client.patch(url, headers=chunk_fields(0, data), content=data)).status_code == 204
        recorder.forget()
        answer = await client.patch(url, headers={"Content-Type": CHUNK, "Upload-Complete": "?1"})
        assert answer.status_code == 204
        commit = recorder.commit(len(data), "complete")
        assert commit.synchronous == FULL
        renamed = recorder.one("rename", file_of(url))
        assert_order(recorder.one("fsync", file_of(url)), renamed)
        for folder in ("files", "incoming"):
            assert_order(renamed, recorder.one("fsync", folder), commit)
        assert_order(commit, recorder.answer())


@pytest.mark.parametrize("durability", ["ack", "finish", "os"])
@pytest.mark.rule("P-CHUNK-4", "T-CREATE-4")
async def test_a_small_file_is_on_the_disk_before_its_name(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    """As a large one: the bytes, the name, the folder. Whoever has deposited it commits after that."""
    monkeypatch.setattr(os, "link", recorder.recording("link", os.link, lambda _: "the name"))
    storage = LocalStorage(tmp_path / "data", durability)
    recorder.forget()
    piece = await storage.deposit("0123456789abcdef" * 2, "small.bin", b"small", hold=True)
    assert piece is not None
    named = recorder.one("link", "the name")
    written = next(step for step in recorder.steps if step.what == "pwritev")
    assert_order(written, named)
    if durability == "os":
        assert syncs(recorder) == []
    else:
        synced, folder = syncs(recorder)
        assert (synced.what, synced.where, folder.where) == ("fdatasync", written.where, "files")
        assert_order(written, synced, named, folder)
    piece.release()


@pytest.mark.parametrize("durability", ["finish", "os"])
@pytest.mark.rule("P-CHUNK-4")
async def test_who_asks_for_less_gets_no_syncs(tmp_path: Path, recorder: Recorder, durability: Durability) -> None:
    data = os.urandom(GRANULE)
    settings = Settings(tmp_path / "data", durability)
    async with running(settings, recorder) as client:
        recorder.forget()
        url = await created(client, 2 * GRANULE)
        recorder.forget()
        assert (await client.patch(url, headers=chunk_fields(0, data), content=data)).status_code == 204
        commit = recorder.commit(GRANULE)
        assert commit.synchronous == NORMAL
        assert_order(recorder.written(file_of(url)), commit, recorder.answer())
        assert syncs(recorder) == []
        if durability == "os":
            recorder.forget()
            fields = {**TUS_BODY, "Upload-Offset": str(GRANULE)}
            assert (await client.patch(url, headers=fields, content=data)).status_code == 204
            assert recorder.commit(2 * GRANULE, "complete").synchronous == NORMAL
            assert syncs(recorder) == []


def _sha1(data: bytes) -> str:
    return f"sha1 {b64(raw_digest('sha', data))}"
