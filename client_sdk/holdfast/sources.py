"""Where the bytes of an upload come from, and how a change of them is noticed.

Rule of this file: bytes of two versions of a file never go into one upload. A source is described once, when it
is opened; before each read and before completion it is compared with that description, and the reader gets
SourceChanged rather than bytes of which nobody knows the version. A write that keeps size and modification time
is not seen here; the digest of the whole file, computed from what was read, is there for that.
"""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from holdfast.errors import SourceChanged, SourceUnreadable
from holdfast_protocol.messages import Span

EDGE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fingerprint:
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


class FileSource:
    """A regular file on a disk, open for reading until `close()`."""

    def __init__(self, path: Path, descriptor: int, fingerprint: Fingerprint) -> None:
        self._path = path
        self._descriptor = descriptor
        self._fingerprint = fingerprint

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "FileSource":
        """Open and describe a file: blocks for two reads of 64 KiB. Raises SourceUnreadable."""
        given = Path(path)
        try:
            # Non-blocking only for the opening: a pipe must be refused, not waited for.
            descriptor = os.open(given, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceUnreadable(f"{given} cannot be opened ({reason}); check the path and its rights") from error
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise SourceUnreadable(f"{given} is not a regular file; save its content to a file first")
            os.set_blocking(descriptor, True)
            source = cls(given, descriptor, _describe(given, facts, edge=""))
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
        return self._path.name

    @property
    def size(self) -> int:
        return self._fingerprint.size

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint

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


def _describe(path: Path, facts: os.stat_result, edge: str) -> Fingerprint:
    where = os.path.realpath(path)
    return Fingerprint(where, facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev, edge)
