"""Holes of a file of the local file system: where they are, and how they are made.

Rule of this file: what lies in a hole reads as zeros, takes no room, and is never read from the disk to learn that.
A file system that cannot tell its holes has none, and one that cannot make them gets zeros where other bytes are.
Neither the position of a descriptor nor the size of a file is relied on: others use them at the same time.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

from holdfast_protocol.digest import Hasher

ZEROS = bytes(256 * 1024)
_LOOK = 64 * 1024 * 1024
_FS_IOC_UNRESVSP64 = 0x4030582B
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of fallocate(2), as the ioctl that every file system of Linux has since
5.6: Python has no call for it."""
_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


class Run(Struct, frozen=True):
    """`[start, end)` of a file, either stored or a hole."""

    start: int
    end: int
    stored: bool


def runs(fd: int, start: int, end: int) -> Iterator[Run]:
    """`[start, end)` in runs, up to the end of the file."""
    end = min(end, os.fstat(fd).st_size)
    while start < end:
        data = min(_seek(fd, start, os.SEEK_DATA, end), end)
        if start < data:
            yield Run(start, data, stored=False)
        if data < end:
            stop = min(_seek(fd, data, os.SEEK_HOLE, end), end)
            yield Run(data, stop, stored=True)
            data = stop
        start = data


def _seek(fd: int, start: int, what: int, end: int) -> int:
    try:
        return os.lseek(fd, start, what)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
            return end
        if error.errno == errno.EINVAL:  # this file system knows of no holes
            return start if what == os.SEEK_DATA else end
        raise


def feed(fd: int, offset: int, size: int, hashers: Sequence[Hasher]) -> int:
    """Feeds bytes to the hashers; see `storage.base.Piece.digest`."""
    fed = 0
    for run in runs(fd, offset, offset + size):
        for at in range(run.start, run.end, len(ZEROS)):
            most = min(run.end - at, len(ZEROS))
            part = os.pread(fd, most, at) if run.stored else memoryview(ZEROS)[:most]
            for hasher in hashers:
                hasher.update(part)
            fed += len(part)
            if len(part) < most:
                return fed
    return fed


def zeros(fd: int, start: int, end: int) -> int:
    """How far bytes are zeros from `start` on; see `storage.base.Piece.zeros`."""
    left = _LOOK
    at = start
    for run in runs(fd, start, end):
        at = run.start
        while run.stored and at < run.end:
            if left <= 0:
                return at
            piece = os.pread(fd, min(len(ZEROS), run.end - at), at)
            if not ZEROS.startswith(piece):
                return at + len(piece) - len(piece.lstrip(b"\0"))
            if not piece:
                return at
            at += len(piece)
            left -= len(piece)
        at = run.end
    return at


def punch(fd: int, start: int, end: int) -> None:
    """Makes `[start, end)` a hole, and the file at least that long."""
    if os.fstat(fd).st_size < end:
        # Not ftruncate: whoever writes behind it at this moment would lose what it has written.
        os.pwrite(fd, b"\0", end - 1)
    if not _deallocate(fd, start, end):
        for run in runs(fd, start, end):
            if run.stored:
                _overwrite(fd, run.start, run.end)


def _deallocate(fd: int, start: int, end: int) -> bool:
    # struct space_resv: whence, start and length count.
    request = struct.pack("hh4xqqiI16x", 0, os.SEEK_SET, start, end - start, 0, 0)
    try:
        fcntl.ioctl(fd, _FS_IOC_UNRESVSP64, request)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _overwrite(fd: int, start: int, end: int) -> None:
    for at in range(start, end, len(ZEROS)):
        size = min(len(ZEROS), end - at)
        if not ZEROS.startswith(os.pread(fd, size, at)):
            written = 0
            while written < size:
                written += os.pwrite(fd, memoryview(ZEROS)[written:size], at + written)
