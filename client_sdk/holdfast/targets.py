"""Where the bytes of a download go.

Rule of this file: nothing is at the target's name before the file is whole. Bytes go into a `.part` file beside it,
at their offsets, and get their name by a rename, with file and folder synced. A target that is there is replaced only
if that was asked for, also if it appeared in the meantime. Blocks of zeros are left out of a fresh file, so that a
sparse file arrives sparse; a file that was there may have other bytes in their place.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdfast.errors import TargetExists, TargetUnwritable
from holdfast_protocol.digest import Digest, hasher

READ: Final = 1024 * 1024
BLOCK: Final = bytes(4096)


class PartFile:
    """A file that is being received. Methods block; they are called in worker threads, `write` in several at once."""

    def __init__(self, path: Path, descriptor: int, *, fresh: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._fresh = fresh

    @classmethod
    def open(cls, path: Path, size: int | None, *, fresh: bool) -> "PartFile":
        """Open it, empty if `fresh`, sparse up to `size` bytes. Raises TargetUnwritable."""
        with _unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
            descriptor = os.open(path, flags, 0o666)
            try:
                os.ftruncate(descriptor, size or 0)
            except BaseException:
                os.close(descriptor)
                raise
            return cls(path, descriptor, fresh=fresh)

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Raises TargetUnwritable, for a full disk among others.

        In a fresh file an offset is written once, or the file is emptied before by `cut`.
        """
        view = memoryview(data)
        with _unwritable(self._path):
            for start, end in _filled(data, offset) if self._fresh else ((0, len(data)),):
                while start < end:
                    start += os.pwrite(self._descriptor, view[start:end], offset + start)

    def cut(self, length: int) -> None:
        """It has `length` bytes and no more."""
        with _unwritable(self._path):
            os.ftruncate(self._descriptor, length)

    def sync(self) -> None:
        """What was written is on the disk when this returns."""
        with _unwritable(self._path):
            os.fdatasync(self._descriptor)

    def digests(self, algorithms: tuple[str, ...]) -> tuple[Digest, ...]:
        """Read all of it and hash it."""
        running = [(name, hasher(name)) for name in algorithms]
        buffer = bytearray(READ)
        offset = 0
        with _unwritable(self._path):
            while count := os.preadv(self._descriptor, [buffer], offset):
                for _, each in running:
                    each.update(memoryview(buffer)[:count])
                offset += count
        return tuple(Digest(name, each.digest()) for name, each in running)

    def publish(self, target: Path, *, overwrite: bool) -> None:
        """Give it its name. Raises TargetExists, TargetUnwritable."""
        with _unwritable(target):
            os.fsync(self._descriptor)
            if overwrite:
                self._path.replace(target)
            else:
                self._claim(target)
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _claim(self, target: Path) -> None:
        # A rename replaces in silence what is there; a hard link does not.
        try:
            target.hardlink_to(self._path)
        except FileExistsError:
            raise TargetExists(f"{target} appeared in the meantime; the file is in {self._path}") from None
        except OSError:
            # A file system without hard links: a small gap between the look and the rename remains.
            if target.exists():
                raise TargetExists(f"{target} appeared in the meantime; the file is in {self._path}") from None
            self._path.rename(target)
        else:
            self._path.unlink()

    def discard(self) -> None:
        """Remove it."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it. May be called more than once."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _filled(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """The runs of `data`, which goes to `offset`, without its blocks of zeros, or parts of such at its edges."""
    begin = at = 0
    end = -offset % len(BLOCK)
    while at < len(data):
        end = min(end, len(data))
        if data.startswith(BLOCK[: end - at], at):
            if begin < at:
                yield begin, at
            begin = end
        at, end = end, end + len(BLOCK)
    if begin < len(data):
        yield begin, len(data)


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetUnwritable(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error
