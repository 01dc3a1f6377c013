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

BLOCK: Final = bytes(4096)


class PartFile:
    """A file that is being received. Methods block; they are called in worker threads, `write` in several at once."""

    def __init__(self, path: Path, descriptor: int, *, fresh: bool) -> None:
        self.path = path
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

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`. Raises TargetUnwritable, for a full disk among others.

        In a fresh file an offset is written once, or with the same bytes again, or the file is emptied before by `cut`.
        """
        view = memoryview(data)
        with _unwritable(self.path):
            for start, end in _filled(view, offset) if self._fresh else ((0, len(view)),):
                while start < end:
                    start += os.pwrite(self._descriptor, view[start:end], offset + start)

    def read_into(self, buffer: bytearray, offset: int) -> int:
        """Fill `buffer` with what is at `offset`; how many bytes it was, 0 at the end."""
        with _unwritable(self.path):
            return os.preadv(self._descriptor, [buffer], offset)

    def cut(self, length: int) -> None:
        """It has `length` bytes and no more."""
        with _unwritable(self.path):
            os.ftruncate(self._descriptor, length)

    def sync(self) -> None:
        """What was written is on the disk when this returns."""
        with _unwritable(self.path):
            os.fdatasync(self._descriptor)

    def publish(self, target: Path, *, overwrite: bool) -> None:
        """Give it its name. Raises TargetExists, TargetUnwritable."""
        with _unwritable(target):
            os.fsync(self._descriptor)
            if overwrite:
                self.path.replace(target)
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
            target.hardlink_to(self.path)
        except FileExistsError:
            raise TargetExists(f"{target} appeared in the meantime; the file is in {self.path}") from None
        except OSError:
            # A file system without hard links: a small gap between the look and the rename remains.
            if target.exists():
                raise TargetExists(f"{target} appeared in the meantime; the file is in {self.path}") from None
            self.path.rename(target)
        else:
            self.path.unlink()

    def close(self) -> None:
        """Let go of it. May be called more than once."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _filled(data: memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """The runs of `data`, which goes to `offset`, without its blocks of zeros, or parts of such at its edges."""
    size = len(BLOCK)
    first = min(-offset % size, len(data))
    begin = first if data[:first] == BLOCK[:first] else 0
    # One byte of each block tells of nearly all that they are no zeros.
    looks = bytes(data[first + size - 1 :: size])
    last = first + len(looks) * size
    index = looks.find(0)
    while index >= 0:
        at = first + index * size
        if data[at : at + size] == BLOCK:
            if begin < at:
                yield begin, at
            begin = at + size
        index = looks.find(0, index + 1)
    end = last if data[last:] == BLOCK[: len(data) - last] else len(data)
    if begin < end:
        yield begin, end


def check_room(folder: Path, needed: int) -> None:
    """Raises TargetUnwritable if the disk of `folder`, or of where it will be, has not so many bytes left. Blocks."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with _unwritable(folder):
        status = os.statvfs(folder)
    if (there := status.f_bavail * status.f_frsize) < needed:
        raise TargetUnwritable(
            f"{folder} has room for {there} bytes, and {needed} are to come; make room or choose another place"
        )


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetUnwritable(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error
