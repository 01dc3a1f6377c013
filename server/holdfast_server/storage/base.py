"""The port to the bytes.

Rule of this file: a byte is written only through a `Reservation`, and only one reservation in the world holds a
given range of an upload: in this process, in any other, also after any of them died. Whoever holds the range of
a committed byte never writes that byte again.
"""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from msgspec import Struct

from holdfast_protocol.digest import Hasher

Source = Callable[[int], Sequence[bytes | memoryview]]
"""Gives the next bytes, at most so many; none if there are none now. What it gives is valid until it is asked again."""
RUN: Final = 2 * 1024 * 1024
"""Bytes that a source is asked for at most: it needs no more memory than this. More at a time was no faster."""


class Piece(Protocol):
    """Somewhere to write to. Offsets are those of the upload."""

    async def write(self, offset: int, source: Source, most: int, hashers: Sequence[Hasher] = ()) -> int:
        """Writes what the source gives from `offset` on, until it has no more or it is `most` bytes; how many it was.
        Fewer too if that takes long: others wait for their turn.

        The hashers are fed with it on the way. Off the event loop, and the source is asked there too; not to be
        cancelled. Raises OSError; with ENOSPC when the store is full. A part may have been written then.
        """
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes that were written here, fewer only at the end of the file. Off the event loop."""
        ...

    async def digest(self, start: int, end: int, hashers: Sequence[Hasher]) -> int:
        """Feeds `[start, end)` to the hashers in order; how many bytes there were, fewer only at the end of the file.

        Off the event loop, in threads of its own. Keep the range to some 64 MiB, so that it can be cancelled between.
        """
        ...

    async def zeros(self, start: int, end: int) -> int:
        """How far the bytes from `start` on are zeros, at most to `end`; `start` itself if the first one is not.

        Holes are told without reading. At most some 64 MiB are read, so that it can be cancelled between: it may be
        less than there are. Off the event loop.
        """
        ...

    def release(self) -> None:
        """Gives the range back. Does not block; may be called twice."""
        ...


class Reservation(Piece, Protocol):
    """A range of an upload that nobody else can write to until it is released."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...

    def shrink(self, end: int) -> None:
        """Gives `[end, self.end)` back. Does not block. Nothing may be written there any more."""
        ...

    def claim(self, start: int, end: int) -> bool:
        """Reserves `[start, end)` beside the range that is held, until release; False if it is somebody's. Does
        not block.
        """
        ...

    async def copy(self, scratch: Piece, start: int, end: int) -> None:
        """Takes `[start, end)` over from another piece of the same storage, without passing it through this process
        where that can be avoided. Off the event loop, and not to be cancelled: keep the range to some 64 MiB.
        """
        ...

    async def punch(self, start: int, end: int) -> None:
        """Makes `[start, end)` zeros, whatever an earlier writer left there, and takes no room for them where that
        can be done. Off the event loop, and not to be cancelled. Raises OSError.
        """
        ...

    async def sync(self) -> None:
        """What was written before this call is on the disk after it. Concurrent calls for one upload share one sync."""
        ...


class Room(Struct, frozen=True):
    """Bytes."""

    free: int
    total: int


class Reader(Protocol):
    """A published file, open for reading."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes `[start, end)` in pieces of at most 1 MiB. Off the event loop."""
        ...

    async def send(self, connection: socket.socket, start: int, end: int) -> int:
        """Sends the first of the bytes `[start, end)`, as many as a socket that does not block takes now, but some MiB
        at most; how many it was. They do not pass through this process where that can be avoided.

        Off the event loop. Raises ConnectionError if the other side is gone, and OSError if the file fails.
        """
        ...

    def close(self) -> None: ...


class Storage(Protocol):
    """Keeps uploads on their way, and files that are complete, by id."""

    async def reserve(self, upload_id: str, start: int, end: int) -> Reservation | None:
        """Reserves `[start, end)`, or answers None at once if any byte of it is reserved by somebody else."""
        ...

    async def scratch(self, start: int) -> Piece:
        """Room for a chunk whose range is reserved by somebody else. Vanishes when released, or with the process."""
        ...

    async def view(self, upload_id: str, name: str, *, at: int = 0) -> Piece | None:
        """The bytes of an upload, on its way or published, for `read` alone; None if it has none.

        With `at`, for `Reservation.copy` into another upload: its first byte counts as that one's byte `at`.
        """
        ...

    async def claim_digest(self, upload_id: str) -> Piece | None:
        """A view that makes the caller the only one in the world to compute this upload's digest, until released.

        None if somebody else is at it, or if the upload has no bytes on their way.
        """
        ...

    async def size(self, upload_id: str, name: str) -> int | None:
        """How far the bytes of an upload reach, on its way or published, or None if it has none."""
        ...

    async def deposit(self, upload_id: str, name: str, data: bytes, *, hold: bool = False) -> Piece | None:
        """Stores and publishes a file at once, and syncs it. With `hold`, for an id that others know, all of the upload
        is reserved for that.

        The file is the caller's, and so is what is reserved, until it is released: `claim_file` and `reserve` of
        others answer None. Should the process die before, the file is there, and whoever recovers takes it away.

        None if that cannot be done: any of it is reserved by somebody else, or the upload has bytes, or a file, or
        this storage is not able to. Off the event loop, and not to be cancelled. Raises OSError. Nothing is left
        behind in either case.
        """
        ...

    async def claim_file(self, upload_id: str, name: str) -> Piece | None:
        """A published file, unless it is not there or somebody who has just deposited it has not released it yet."""
        ...

    async def publish(self, upload_id: str, name: str) -> None:
        """Moves an upload to its final name by one atomic rename; file and directories are synced.

        Does nothing if it is there already, unless the upload has bytes on their way: then they take the place of
        what somebody has deposited who died. Creates an empty file if the upload never had a byte.
        """
        ...

    def open(self, upload_id: str, name: str) -> AbstractAsyncContextManager[Reader]:
        """A published file. Raises FileNotFoundError."""
        ...

    async def remove(self, upload_id: str, name: str) -> None:
        """Removes the bytes, on their way or published. Not an error if there are none."""
        ...

    async def discard(self, upload_id: str) -> None:
        """Removes bytes on their way, and leaves what is published. Not an error if there are none."""
        ...

    async def withdraw(self, upload_id: str, name: str) -> None:
        """Removes what is published, and leaves bytes on their way. Not an error if there is none."""
        ...

    async def incoming(self) -> Sequence[str]:
        """The ids of the uploads that have bytes on their way."""
        ...

    async def published(self) -> Sequence[tuple[str, str]]:
        """The ids and names of the files that are published."""
        ...

    def room(self) -> Room:
        """How much room there is. Some microseconds."""
        ...
