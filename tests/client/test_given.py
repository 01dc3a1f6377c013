"""One call for sources of every kind: paths, bytes, file objects, streams."""

import base64
import gzip
import hashlib
import io
import os
import random
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import holdfast
from holdfast import AsyncClient
from holdfast.sources import FileSource, SeekableSource, recognize
from tests.client.loopback import Loopback

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
SIZE = 300_000
MakeClient = Callable[..., AsyncClient]
Maker = Callable[[bytes, Path], Any]


@pytest.fixture
def both() -> Iterator[Loopback]:
    """A server that takes parallel chunks, and streams."""
    with Loopback(extensions=("creation", "creation-defer-length")) as server:
        yield server


def spooled(data: bytes, folder: Path) -> Any:
    file = tempfile.SpooledTemporaryFile(2 * len(data))  # noqa: SIM115 - it is what is tested
    file.write(data)
    file.seek(0)
    return file


def unnamed(data: bytes, folder: Path) -> Any:
    """Written a moment ago, and not flushed by anybody."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it is what is tested
    file.write(data)
    file.seek(0)
    return file


def stored(data: bytes, folder: Path) -> Path:
    path = folder / "film.mkv"
    path.write_bytes(data)
    return path


def in_the_middle(data: bytes, folder: Path) -> Any:
    path = folder / "film.mkv"
    path.write_bytes(b"something before" + data)
    file = path.open("rb")
    file.seek(16)
    return file


def packed(data: bytes, folder: Path) -> Any:
    """Its descriptor is that of the packed file."""
    path = folder / "film.gz"
    path.write_bytes(gzip.compress(data, 1))
    return gzip.open(path)


def pipe(data: bytes, folder: Path) -> Any:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as file:
            file.write(data)
        os._exit(0)
    os.close(writing)
    return os.fdopen(reading, "rb")


def pieces(data: bytes, folder: Path) -> Iterator[bytes]:
    for start in range(0, len(data), 7_777):
        yield data[start : start + 7_777]


async def coming(data: bytes, folder: Path) -> AsyncIterator[bytes]:
    for piece in pieces(data, folder):
        yield piece


KNOWN: dict[str, tuple[Maker, str]] = {
    "path": (stored, "film.mkv"),
    "text": (lambda data, folder: str(stored(data, folder)), "film.mkv"),
    "bytes": (lambda data, folder: data, "bytes"),
    "bytearray": (lambda data, folder: bytearray(data), "bytes"),
    "memoryview": (lambda data, folder: memoryview(data), "bytes"),
    "BytesIO": (lambda data, folder: io.BytesIO(data), "bytes"),
    "open file": (lambda data, folder: stored(data, folder).open("rb"), "film.mkv"),
    "unbuffered file": (lambda data, folder: stored(data, folder).open("rb", buffering=0), "film.mkv"),
    "file in the middle": (in_the_middle, "film.mkv"),
    "temporary file": (unnamed, "file"),
    "spooled file": (spooled, "file"),
    "gzip": (packed, "film.gz"),
}
STREAMS: dict[str, tuple[Maker, str]] = {
    "pipe": (pipe, "stream"),
    "iterator": (pieces, "stream"),
    "list": (lambda data, folder: list(pieces(data, folder)), "stream"),
    "asynchronous iterator": (coming, "stream"),
}


@pytest.mark.parametrize("kind", [*KNOWN, *STREAMS])
@pytest.mark.parametrize("size", [0, SIZE])
async def test_whatever_is_given_arrives(
    make_client: MakeClient, both: Loopback, tmp_path: Path, rng: random.Random, kind: str, size: int
) -> None:
    """What has a length goes in parallel chunks, what has none as a stream; both under their names."""
    make, name = (KNOWN | STREAMS)[kind]
    data = rng.randbytes(size)
    async with make_client() as client:
        given = make(data, tmp_path)
        transfer = client.upload(given, both.url)
        result = await transfer
        named = await client.upload(
            given if kind in KNOWN and "file" not in kind and kind != "gzip" else data, both.url, name="other"
        )
    first, second = both.uploads.values()
    assert bytes(first.data) == data
    assert bytes(second.data) == data
    assert result.size == size
    assert result.protocol == ("parallel" if kind in KNOWN else "tus")
    assert f"filename {holdfast_name(name)}" in str(first.metadata)
    assert f"filename {holdfast_name('other')}" in str(second.metadata)
    assert (result.path is not None) == (kind in ("path", "text"))
    assert transfer.url == result.url != named.url
    if hasattr(given, "closed"):
        assert not given.closed, "it belongs to the caller"
        given.close()


def holdfast_name(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


@pytest.mark.parametrize("kind", ["path", "bytes", "BytesIO", "open file"])
async def test_what_is_recognized_is_gone_on_with(
    make_client: MakeClient, loopback: Loopback, tmp_path: Path, rng: random.Random, kind: str
) -> None:
    """By a later client, with the same journal."""
    data = rng.randbytes(4 * MIB)
    given = KNOWN[kind][0](data, tmp_path)
    loopback.order("PATCH", "answer", status=415, when=lambda seen: seen.offset == 2 * MIB)
    async with make_client() as client:
        with pytest.raises(holdfast.ServerRefused):
            await client.upload(given, loopback.url, chunk_size=MIB, concurrency=1)
    loopback.seen.clear()
    async with make_client() as client:
        result = await client.upload(given, loopback.url, chunk_size=MIB, concurrency=1)
    assert bytes(loopback.only().data) == data
    assert (len(loopback.chunks()), result.bytes_resumed) == (2, 2 * MIB)
    if hasattr(given, "close"):
        given.close()


def test_an_open_file_is_the_file_at_its_path(tmp_path: Path) -> None:
    path = stored(bytes(100), tmp_path)
    with path.open("rb") as file:
        opened = recognize(file).open
        assert opened is not None
        source = opened()
        assert source.fingerprint == FileSource.open(path).fingerprint
        source.close()


def test_a_file_that_was_replaced_is_still_the_one_that_is_open(tmp_path: Path) -> None:
    path = stored(b"old" * 100, tmp_path)
    with path.open("rb") as file:
        path.unlink()
        path.write_bytes(b"new" * 100)
        opened = recognize(file).open
        assert opened is not None
        source = opened()
        buffer = bytearray(300)
        source.read_into(0, memoryview(buffer))
        assert bytes(buffer) == b"old" * 100
        source.close()


async def test_a_file_that_is_closed_too_early_is_named(
    make_client: MakeClient, both: Loopback, tmp_path: Path
) -> None:
    closed = threading.Event()

    def waits() -> Iterator[bytes]:
        closed.wait(10)
        yield b"one"

    async with make_client(transfers=1) as client:
        first = client.upload(waits(), both.url)
        with stored(bytes(100), tmp_path).open("rb") as file:
            transfer = client.upload(file, both.url)
        closed.set()
        with pytest.raises(holdfast.SourceUnreadable, match="keep it open"):
            await transfer
        await first


class Shrinking(io.BytesIO):
    """Says that it is longer than it is."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(offset, whence) + (10 if whence == os.SEEK_END else 0)


class Broken(Shrinking):
    def read(self, size: int | None = -1, /) -> bytes:
        raise RuntimeError("the tape is torn")


@pytest.mark.parametrize(
    ("file", "kind", "sentence"),
    [(Shrinking(b"abc"), holdfast.SourceChanged, "shorter"), (Broken(b"abc"), holdfast.SourceUnreadable, "is torn")],
)
def test_a_file_object_that_lies_is_found_out(file: IO[bytes], kind: type[Exception], sentence: str) -> None:
    source = SeekableSource(file, "tape")
    with pytest.raises(kind, match=sentence):
        source.read_into(0, memoryview(bytearray(source.size)))


def torn() -> Iterator[bytes]:
    yield b"abc"
    raise RuntimeError("the tape is torn")


@pytest.mark.parametrize(
    ("stream", "kind", "sentence"),
    [(torn, holdfast.SourceUnreadable, "is torn"), (lambda: ["text"], holdfast.UsageError, "str and not bytes")],
)
async def test_a_stream_that_fails_harms_nobody_else(
    make_client: MakeClient, both: Loopback, stream: Callable[[], Any], kind: type[Exception], sentence: str
) -> None:
    async with make_client() as client:
        failing = client.upload(stream(), both.url)
        other = client.upload(b"abc", both.url)
        with pytest.raises(kind, match=sentence):
            await failing
        assert (await other).size == 3


def shut() -> IO[bytes]:
    file = io.BytesIO(b"abc")
    file.close()
    return file


@pytest.mark.parametrize("given", [io.StringIO("abc"), 5, None, "", "a\0b", shut(), io.BufferedWriter(io.BytesIO())])
async def test_what_is_nothing_that_can_be_sent(make_client: MakeClient, loopback: Loopback, given: Any) -> None:
    """It is said at once, and harms nobody else."""
    async with make_client() as client:
        other = client.upload(b"abc", loopback.url)
        with pytest.raises(holdfast.UsageError):
            client.upload(given, loopback.url)
        if isinstance(given, str):
            with pytest.raises(holdfast.UsageError):
                client.download(loopback.url, given)
        assert (await other).size == 3


async def test_what_is_no_file_says_how_it_can_be_sent(
    make_client: MakeClient, loopback: Loopback, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with make_client() as client:
        with pytest.raises(holdfast.SourceUnreadable, match="--recursive"):
            await client.upload(tmp_path, loopback.url)
        with pytest.raises(holdfast.SourceUnreadable, match="as a stream"):
            await client.upload(tmp_path / "pipe", loopback.url)


async def test_a_stream_goes_on_from_what_the_server_has(
    make_client: MakeClient, both: Loopback, tmp_path: Path, rng: random.Random
) -> None:
    """It comes from its beginning again; what is there is read and hashed, and not sent."""
    data = rng.randbytes(SIZE)
    both.order("PATCH", "answer", status=415, when=lambda seen: seen.offset == 200_000)
    async with make_client() as client:
        broken = client.upload(pieces(data, tmp_path), both.url, chunk_size=100_000)
        with pytest.raises(holdfast.ServerRefused):
            await broken
        assert broken.url is not None
        both.seen.clear()
        result = await client.upload(pieces(data, tmp_path), broken.url, chunk_size=70_000, resume=True)
    assert bytes(both.only().data) == data
    assert result.digest.value == hashlib.sha256(data).digest()
    assert (result.bytes_resumed, result.bytes_sent, result.url) == (200_000, 100_000, broken.url)


@pytest.mark.parametrize("length", [150_000, SIZE + 1])
async def test_a_stream_that_is_another_one_is_found_out(
    make_client: MakeClient, both: Loopback, tmp_path: Path, rng: random.Random, length: int
) -> None:
    """Shorter than what is there, or longer than what the server was told; the upload stays as it is."""
    url = both.put("a", bytes(SIZE), stored=[(0, 200_000)])
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed):
            await client.upload(pieces(bytes(length), tmp_path), url, resume=True)
    assert both.only().stored.prefix == 200_000 or length > SIZE
    assert both.requests("DELETE") == []


async def test_a_stream_that_is_complete_is_only_read(make_client: MakeClient, both: Loopback, tmp_path: Path) -> None:
    url = both.put("a", bytes(SIZE), stored=[(0, SIZE)])
    both.only().complete = True
    async with make_client() as client:
        result = await client.upload(pieces(bytes(SIZE), tmp_path), url, resume=True)
    assert (result.already_there, result.bytes_sent, both.requests("PATCH")) == (True, 0, [])
