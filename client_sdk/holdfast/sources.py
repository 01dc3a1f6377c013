"""Where the bytes of an upload come from, and how a change of them is noticed.

    FileSource      a file on a disk, by its path or already open: a later process finds it again
    BytesSource     bytes in memory: the same bytes are found again
    SeekableSource  any other file object that can be read again; only as long as it is open

Rule of this file: bytes of two versions of a file never go into one upload. A source is described once, when it
is opened; before each read and before completion it is compared with that description, and the reader gets
SourceChanged rather than bytes of which nobody knows the version. A write that keeps size and modification time
is not seen here; the digest of the whole file, computed from what was read, is there for that.

What a caller gave is looked at in one place (`recognize`). What has no end that is known beforehand is no Source but a
Stream, which is read once.
"""

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from anyio import to_thread
from msgspec import Struct

from holdfast.errors import HoldfastError, SourceChanged, SourceUnreadable, UsageError
from holdfast_protocol.messages import Span

EDGE: Final = 64 * 1024
STREAM_PIECE: Final = 256 * 1024


@runtime_checkable
class Readable(Protocol):
    """A file object, open for reading bytes: `open(path, "rb")`, `sys.stdin.buffer`, an answer of an HTTP library."""

    def read(self, size: int, /) -> bytes | None:
        """At most so many bytes; none at the end."""
        ...


Stream: TypeAlias = AsyncIterable[bytes] | Iterable[bytes]
"""Bytes of which nobody knows how many will come."""
UploadSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Stream
"""What can be sent: the path of a file, bytes, a file object, or an iterable of bytes, asynchronous or not."""


class Fingerprint(Struct, frozen=True):
    """What a file is recognized by. `inode` and `device` are hints: they change on a copy or a new mount."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    device: int
    edge: str
    """SHA-256, in hex, of the first and the last 64 KiB."""


class Source(Protocol):
    """Bytes of a known size that can be read again. Calls block; they are made in worker threads."""

    @property
    def name(self) -> str:
        """What the file is called, without folders."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What the source was when it was opened."""
        ...

    @property
    def descriptor(self) -> int | None:
        """An open file that has these bytes at these offsets, so that the kernel can send them; None: there is none."""
        return None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` from `offset`. Raises SourceChanged or SourceUnreadable."""
        ...

    def hole(self, start: int, end: int) -> Span | None:
        """The first run of bytes in `[start, end)` that are known to be zeros without being read; None: there is none.

        Raises SourceChanged or SourceUnreadable.
        """
        return None

    def check(self) -> None:
        """Raise SourceChanged if the source is not what it was when it was opened."""
        ...

    def close(self) -> None:
        """Let go of it. May be called more than once."""
        ...


class Given(Struct, frozen=True):
    """What a caller gave to be sent: something that can be opened and read again, or else a stream."""

    name: str
    open: Callable[[], Source] | None = None
    stream: Stream | None = None
    path: Path | None = None
    """Where a later process finds it."""
    size: int | None = None
    """In bytes, as far as it can be said before it is opened."""


class FileSource(Source):
    """A regular file on a disk, open for reading until `close()`."""

    def __init__(self, path: Path, descriptor: int, fingerprint: Fingerprint, name: str | None = None) -> None:
        self._path = path
        self._name = name or path.name
        self._descriptor = descriptor
        self._fingerprint = fingerprint

    @classmethod
    def open(cls, path: str | os.PathLike[str], name: str | None = None, descriptor: int | None = None) -> "FileSource":
        """Open and describe a file: blocks for two reads of 64 KiB. Raises SourceUnreadable.

        With `descriptor` it is the file that is open there already, whatever is at the path now.
        """
        given = Path(path)
        try:
            # Non-blocking only for the opening: a pipe must be refused, not waited for.
            place = given if descriptor is None else f"/proc/self/fd/{descriptor}"
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceUnreadable(f"{given} cannot be opened ({reason}); check the path and its rights") from error
        try:
            facts = os.fstat(descriptor)
            if stat.S_ISDIR(facts.st_mode):
                raise SourceUnreadable(f"{given} is a folder; give the files in it (holdfast upload --recursive)")
            if not stat.S_ISREG(facts.st_mode):
                raise SourceUnreadable(
                    f"{given} is not a regular file; what is not can be sent as a stream (holdfast upload - < FILE, or"
                    " the file object of open)"
                )
            os.set_blocking(descriptor, True)
            source = cls(given, descriptor, _describe(given, facts, edge=""), name)
            edge = source._edge()
            source._fingerprint = _describe(given, facts, edge)
            source.check()
        except OSError as error:
            os.close(descriptor)
            raise SourceUnreadable(f"{given} cannot be read ({error.strerror or error})") from error
        except BaseException:
            os.close(descriptor)
            raise
        return source

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return self._fingerprint.size

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

    @property
    def descriptor(self) -> int | None:
        return self._descriptor

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.check()
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
            except OSError as error:
                raise SourceUnreadable(f"{self._path} cannot be read ({error.strerror or error})") from error
            if count == 0:
                raise self._changed("it got shorter")
            filled += count
        # A change during the read: what is in the buffer may be of both versions.
        self.check()

    def hole(self, start: int, end: int) -> Span | None:
        self.check()
        try:
            facts = os.fstat(self._descriptor)
            if start >= end or facts.st_blocks * 512 >= facts.st_size:
                return None
            first = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            if first >= end:
                return None
            try:
                return Span(first, min(os.lseek(self._descriptor, first, os.SEEK_DATA), end))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return Span(first, end)  # a hole up to the end of the file
        except OSError as error:
            if error.errno == errno.EINVAL:  # this file system knows of no holes
                return None
            raise SourceUnreadable(f"{self._path} cannot be read ({error.strerror or error})") from error

    def check(self) -> None:
        try:
            facts = os.fstat(self._descriptor)
        except OSError as error:
            raise SourceUnreadable(f"{self._path} cannot be read ({error.strerror or error})") from error
        if facts.st_size != self._fingerprint.size:
            raise self._changed(f"its size went from {self._fingerprint.size} to {facts.st_size} bytes")
        if facts.st_mtime_ns != self._fingerprint.mtime_ns:
            raise self._changed("it was written to")

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _changed(self, how: str) -> SourceChanged:
        return SourceChanged(
            f"{self._path} changed while it was read: {how}; send it again when nobody writes to it any more"
        )

    def _edge(self) -> str:
        size = self._fingerprint.size
        digest = hashlib.sha256()
        for start in (0, max(EDGE, size - EDGE)):
            piece = bytearray(max(0, min(EDGE, size - start)))
            self.read_into(start, memoryview(piece))
            digest.update(piece)
        return digest.hexdigest()


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._view = data
        self._name = name
        whole = hashlib.sha256(self._view).hexdigest()
        self._fingerprint = Fingerprint("", self._view.nbytes, 0, 0, 0, whole)

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return self._view.nbytes

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._view[offset : offset + len(buffer)]

    def check(self) -> None:
        """They are not looked at again; that they stay the same is the caller's part."""

    def close(self) -> None:
        """They belong to the caller."""


class SeekableSource(Source):
    """A file object that can seek, from where it stands to its end; nobody else may use it meanwhile.

    It has no place where it could be found again, so no later call goes on with it.
    """

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._guard = threading.Lock()
        try:
            self._start = int(file.tell())
            self._size = int(file.seek(0, os.SEEK_END)) - self._start
            file.seek(self._start)
        except (OSError, ValueError) as error:
            raise SourceUnreadable(f"{name} cannot be read ({error})") from error
        self._fingerprint = Fingerprint(f"object {secrets.token_hex(16)}", self._size, 0, 0, 0, "")

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return self._size

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

    def read_into(self, offset: int, buffer: memoryview) -> None:
        filled = 0
        with self._guard:
            try:
                self._file.seek(self._start + offset)
                while filled < len(buffer):
                    piece = self._file.read(min(len(buffer) - filled, STREAM_PIECE))
                    if not piece:
                        raise SourceChanged(f"{self._name} changed while it was read: it got shorter; send it again")
                    buffer[filled : filled + len(piece)] = piece
                    filled += len(piece)
            except SourceChanged:
                raise
            except Exception as error:
                raise SourceUnreadable(f"{self._name} cannot be read ({type(error).__name__}: {error})") from error

    def check(self) -> None:
        """What it is now is not to be seen from outside."""

    def close(self) -> None:
        """It belongs to the caller."""


def recognize(given: UploadSource, name: str | None = None) -> Given:
    """What a caller gave, and what it is called. Raises UsageError if it is nothing that can be sent."""
    if isinstance(given, str | os.PathLike):
        path = checked_path(given)
        return Given(name or path.name, lambda: FileSource.open(path, name), path=path, size=_size_of(path))
    if isinstance(given, bytes | bytearray | memoryview):
        data = memoryview(given).cast("B")
        called = name or "bytes"
        return Given(called, lambda: BytesSource(data, called), size=data.nbytes)
    if isinstance(given, io.TextIOBase):
        raise UsageError("a file object must give bytes: open it with mode 'rb', or take its .buffer")
    if isinstance(given, Readable) and not isinstance(given, AsyncIterable):
        return _of_file(given, name)
    if isinstance(given, AsyncIterable | Iterable):
        stream: Stream = given  # type: ignore[assignment]  # no str any more
        return Given(name or "stream", stream=stream)
    raise UsageError(
        f"{type(given).__name__} is nothing that can be sent; give a path, bytes, a file object or an iterable of bytes"
    )


def checked_path(given: str | os.PathLike[str]) -> Path:
    """The path of a file. Raises UsageError for what cannot be one."""
    said = os.fspath(given)
    if not said or "\0" in said:
        raise UsageError(f"{said!r} cannot be the path of a file")
    return Path(said)


def _of_file(file: Any, name: str | None) -> Given:
    if getattr(file, "closed", False) is True:
        raise UsageError("the file object is closed; it has to be open until the transfer ends")
    readable = getattr(file, "readable", None)
    if callable(readable) and not readable():
        raise UsageError("the file object is open for writing only; open it with mode 'rb'")
    said = getattr(file, "name", None)
    called = name or (os.path.basename(said) if isinstance(said, str) and not said.startswith("<") else None)  # noqa: PTH119
    if isinstance(file, io.BytesIO):
        rest = memoryview(file.getvalue())[file.tell() :]  # it shares the bytes until one of the two is changed
        return Given(called or "bytes", lambda: BytesSource(rest, called or "bytes"), size=rest.nbytes)
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        return Given(called or "stream", stream=_read(file))
    # Objects that unpack something have the descriptor of what is packed.
    if isinstance(getattr(file, "raw", file), io.FileIO) and file.tell() == 0:
        if file.writable():
            file.flush()
        facts = os.fstat(file.fileno())
        if stat.S_ISREG(facts.st_mode):
            return Given(called or "file", lambda: _reopened(file, called or "file"), size=facts.st_size)
    return Given(called or "file", lambda: SeekableSource(file, called or "file"))


def _size_of(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        facts = path.stat()
        if stat.S_ISREG(facts.st_mode):
            return facts.st_size
    return None


def _reopened(file: Any, name: str) -> FileSource:
    try:
        descriptor = file.fileno()
    except ValueError as error:
        raise SourceUnreadable(f"{name} was closed before it was sent; keep it open until the transfer ends") from error
    said = file.name if isinstance(file.name, str) else os.path.realpath(f"/proc/self/fd/{descriptor}")
    return FileSource.open(said, name, descriptor)


async def _read(file: Any) -> AsyncIterator[bytes]:
    """A file object that is read once."""
    read = getattr(file, "read1", file.read)
    while True:
        # Waiting for a pipe must not keep anybody from leaving.
        piece = await to_thread.run_sync(read, STREAM_PIECE, abandon_on_cancel=True)
        if not piece:
            return
        yield piece


async def pieces(stream: Stream, name: str) -> AsyncIterator[bytes]:
    """What comes of a stream, as it comes. Raises SourceUnreadable for what it raises, UsageError for what is not
    bytes."""
    each = stream.__aiter__() if isinstance(stream, AsyncIterable) else iter(stream)
    while True:
        try:
            if isinstance(each, AsyncIterator):
                piece: object = await anext(each, None)
            else:
                piece = await to_thread.run_sync(next, each, None, abandon_on_cancel=True)
        except HoldfastError:
            raise
        except Exception as error:
            raise SourceUnreadable(f"{name} cannot be read ({type(error).__name__}: {error})") from error
        if piece is None:
            return
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise UsageError(f"{name} gave {type(piece).__name__} and not bytes")
        yield bytes(piece)


def _describe(path: Path, facts: os.stat_result, edge: str) -> Fingerprint:
    where = os.path.realpath(path)
    return Fingerprint(where, facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev, edge)
