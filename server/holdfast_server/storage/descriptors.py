"""Bytes in and out of open files, as much as there is at a time: written, read, sent and copied.

Rule of this file: a call goes on until all is done that can be done, whatever the kernel leaves over of a call. They
block, and are for threads. Positions of descriptors are not used.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from holdfast_protocol.digest import Hasher
from holdfast_server.storage.base import RUN, Source

TURN = 0.05
"""Seconds after which a body gives its thread up to those that wait for one, where the disk or the client is slow."""
_FICLONERANGE = 0x4020940D
_BLOCK = 4096
_PIECE = 1 << 20
_FAST = 1 << 18
_LINGER = 2  # milliseconds
_MOST_BUFFERS = 1024  # IOV_MAX on Linux
_WRITTEN = 256 * 1024
"""Bytes that are written in one call, which ends at a multiple of them, so that the kernel needs few pages for its
cache. More of them saves nothing, and it then takes larger pages: in a virtual machine whose host has yet to give it
that memory, these have cost several times as much."""
_SENT = 256 * 1024
"""Bytes that leave in one call. With more of them a single reader who is fast has got a tenth to a fifth less."""


def write_from(fd: int, offset: int, source: Source, most: int, hashers: Sequence[Hasher]) -> int:
    start, stop, end = offset, offset + most, time.monotonic() + TURN
    while offset < stop and (buffers := source(min(stop - offset, RUN - offset % RUN))):
        offset += write_all(fd, offset, buffers, hashers)
        if time.monotonic() >= end:
            break
    return offset - start


def write_all(fd: int, offset: int, buffers: Sequence[bytes | memoryview], hashers: Sequence[Hasher]) -> int:
    start, batch, size = offset, list[memoryview](), 0
    for buffer in buffers:
        rest = memoryview(buffer)
        while rest:
            room = _WRITTEN - (offset + size) % _WRITTEN
            piece, rest = rest[:room], rest[room:]
            for hasher in hashers:
                hasher.update(piece)
            batch.append(piece)
            size += len(piece)
            if len(piece) == room or len(batch) == _MOST_BUFFERS:
                write_batch(fd, offset, batch)
                offset, batch, size = offset + size, [], 0
    write_batch(fd, offset, batch)
    return offset + size - start


def write_batch(fd: int, offset: int, batch: list[memoryview]) -> None:
    while batch:
        written = os.pwritev(fd, batch, offset)
        offset += written
        while batch and written >= len(batch[0]):
            written -= len(batch.pop(0))
        if written:
            batch[0] = batch[0][written:]


def read_all(fd: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.pread(fd, size, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def send(fd: int, offset: int, size: int, connection: socket.socket) -> int:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    sent, fresh, end = 0, 0, time.monotonic() + TURN
    while sent < size:
        try:
            count = os.sendfile(connection.fileno(), fd, offset + sent, min(size - sent, _SENT))
        except BlockingIOError:
            # Only for who reads fast it is worth this thread's while to wait.
            if fresh < _FAST or time.monotonic() >= end or not poll.poll(_LINGER):
                break
            fresh = 0
            continue
        if not count:
            raise OSError(errno.EIO, "the file is shorter than it was")
        sent += count
        fresh += count
    return sent


def copy_all(source: int, source_offset: int, target: int, offset: int, size: int) -> None:
    # A reflink first: on Btrfs and XFS no byte is moved then. It needs ranges that fall on blocks of the file system.
    if _clone(source, source_offset, target, offset, size):
        return
    while size:
        try:
            copied = os.copy_file_range(source, target, size, source_offset, offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            data = read_all(source, source_offset, min(size, _PIECE))
            write_all(target, offset, [data], ())
            copied = len(data)
        if not copied:
            raise OSError(errno.EIO, "the piece is shorter than what is to be copied from it")
        source_offset += copied
        offset += copied
        size -= copied


def _clone(source: int, source_offset: int, target: int, offset: int, size: int) -> bool:
    """Has the target share the source's blocks (ioctl_ficlonerange(2)); False if the file system cannot."""
    if (source_offset | offset | size) % _BLOCK:
        return False
    request = struct.pack("qQQQ", source, source_offset, size, offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, request)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.ENOSYS):
            return False
        raise
    return True
