"""Uploads in sparse files of a local file system.

    DATA/incoming/<id>           bytes on their way, each where it belongs
    DATA/files/<id>-<name>       complete files
    DATA/holds                   empty, and there for its locks: a byte for each upload

Rule of this file: a range is held by an open-file-description lock on the file itself (fcntl(2), F_OFD_SETLK).
The kernel keeps such locks apart between all processes and drops them when a process dies, so nobody has to
guess whether a writer is still alive. A file is created before its lock is asked for and renamed or removed only
by whoever holds all of it; what a latecomer does to a file that is no longer the upload's, the catalog's state,
which it looks at once it has its lock, tells it.

A small file is written without a name, and gets its final one by a link, while whoever makes it holds all of its upload
by a byte of `holds`: a process that dies leaves at most a file with a final name, and no other one makes it, or writes,
at the same time.
"""

import errno
import fcntl
import itertools
import os
import socket
import struct
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import anyio
from anyio import to_thread

from holdfast_protocol.digest import Hasher
from holdfast_server.storage import descriptors, holes
from holdfast_server.storage.base import Room, Source
from holdfast_server.storage.hands import Hands

Durability = Literal["ack", "finish", "os"]

EVERYTHING = 1 << 60
"""An end beyond every upload: `reserve(id, 0, EVERYTHING)` keeps all writers out."""
_DIGEST_LOCK = 1 << 61  # one byte far behind the last one stands for the right to compute the digest
_ID_LENGTH = 32
_PIECE = 1 << 20
_SENT = 64 << 20
"""Bytes that are sent at most before the event loop is asked again."""
_MOST_KNOWN = 1024
"""Uploads whose file is opened on the event loop: the kernel had its name in memory a short while ago, so no disk is
waited for, and waking a thread takes longer than that."""

T = TypeVar("T")


def _lock(fd: int, start: int, length: int, kind: int = fcntl.F_WRLCK) -> bool:
    """Locks a range for this open file, or answers False if another one has any of it. Does not block."""
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_locked(fd: int, at: int) -> bool:
    """Has another open file locked this byte to write?"""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, at, 1, 0))
    return bool(struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK)


def _hold_of(upload_id: str) -> int:
    """The byte that stands for an upload; where two have the same, one of them is not held, and goes another way."""
    return zlib.crc32(upload_id.encode())


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))  # noqa: PTH116  # see `_place`
    except FileNotFoundError:
        return False


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Names:
    """The names in a folder, put on the disk: one sync at a time, for all who have asked before it began."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._asked = itertools.count(1)
        self._last = self._synced = 0

    def sync(self) -> None:
        """Blocks until every name that was made or changed before this call is on the disk."""
        mine = self._last = next(self._asked)
        with self._lock:
            if self._synced < mine:
                covered = self._last
                _sync_directory(self._folder)
                self._synced = covered


class _SharedSync:
    """One sync at a time for a file; all who wait while one runs share the next.

    A sync that began before a write was made need not cover it, so nobody ever joins one that is running.
    """

    def __init__(self) -> None:
        self.users = 0
        self._running = anyio.Lock()
        self._next: _SyncRound | None = None

    async def run(self, sync: Callable[[], None], hands: Hands) -> None:
        if self._next is not None:
            await self._next.wait()
            return
        mine = self._next = _SyncRound()
        with anyio.CancelScope(shield=True):  # others wait for this one
            async with self._running:
                self._next = None
                try:
                    await hands.run(sync)
                except OSError as error:
                    mine.error = error
                mine.done.set()
        await mine.wait()


class _SyncRound:
    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: OSError | None = None

    async def wait(self) -> None:
        await self.done.wait()
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror)


class LocalPiece:
    """An open file; `shift` is the upload's offset of its first byte (not 0 only for scratch)."""

    def __init__(self, storage: "LocalStorage", fd: int, shift: int = 0) -> None:
        self._storage = storage
        self.fd = fd
        self.shift = shift
        self._busy = 0  # threads at work on the descriptor: it is closed when the last one is done
        self._released = False

    @contextmanager
    def in_use(self) -> Iterator[int]:
        """The descriptor, which stays open for so long. Shielded from cancellation, because a thread cannot be
        stopped: a lock must not be given up while one still writes."""
        if self._released:
            raise OSError(errno.EBADF, "the piece was released")
        self._busy += 1
        try:
            with anyio.CancelScope(shield=True):
                yield self.fd
        finally:
            self._busy -= 1
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._released and not self._busy:
            os.close(self.fd)

    async def run(self, work: Callable[[int], T], limiter: anyio.CapacityLimiter) -> T:
        with self.in_use() as fd:
            result: T = await to_thread.run_sync(work, fd, limiter=limiter)
        return result

    async def write(self, offset: int, source: Source, most: int, hashers: Sequence[Hasher] = ()) -> int:
        with self.in_use() as fd:
            return await self._storage.body_hands.perform(
                lambda: descriptors.write_from(fd, offset - self.shift, source, most, hashers)
            )

    async def read(self, offset: int, size: int) -> bytes:
        with self.in_use() as fd:
            return await self._storage.read_hands.perform(lambda: descriptors.read_all(fd, offset - self.shift, size))

    async def send(self, connection: socket.socket, start: int, end: int) -> int:
        with self.in_use() as fd:
            return await self._storage.read_hands.perform(
                lambda: descriptors.send(fd, start - self.shift, end - start, connection)
            )

    async def digest(self, start: int, end: int, hashers: Sequence[Hasher]) -> int:
        return await self.run(
            lambda fd: holes.feed(fd, start - self.shift, end - start, hashers), self._storage.digest_limiter
        )

    async def zeros(self, start: int, end: int) -> int:
        shift = self.shift
        return shift + await self.run(
            lambda fd: holes.zeros(fd, start - shift, end - shift), self._storage.digest_limiter
        )

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._close_if_unused()


class LocalReservation(LocalPiece):
    """`[start, end)` of an upload, held by a lock of this open file."""

    def __init__(self, storage: "LocalStorage", fd: int, upload_id: str, start: int, end: int) -> None:
        super().__init__(storage, fd)
        self.start = start
        self.end: int = end
        self._upload_id = upload_id
        self._sync: _SharedSync | None = None  # from the first one on

    def shrink(self, end: int) -> None:
        _lock(self.fd, end, self.end - end, fcntl.F_UNLCK)
        self.end = end

    def claim(self, start: int, end: int) -> bool:
        return _lock(self.fd, start, end - start)

    async def copy(self, scratch: object, start: int, end: int) -> None:
        if not isinstance(scratch, LocalPiece):
            raise TypeError("a piece of this storage is needed")
        with self.in_use() as target:
            await scratch.run(
                lambda source: descriptors.copy_all(source, start - scratch.shift, target, start, end - start),
                self._storage.write_limiter,
            )

    async def punch(self, start: int, end: int) -> None:
        await self.run(lambda fd: holes.punch(fd, start, end), self._storage.write_limiter)

    async def sync(self) -> None:
        if self._storage.durability == "ack":
            if self._sync is None:
                self._sync = self._storage.shared_sync(self._upload_id)
            with self.in_use() as fd:
                await self._sync.run(lambda: os.fdatasync(fd), self._storage.hands)

    def release(self) -> None:
        if not self._released:
            if self._sync is not None:
                self._storage.forget_sync(self._upload_id)
            self._storage.leave(self._upload_id, self.fd)
        super().release()


class LocalDeposit(LocalPiece):
    """A file that was published at once; `held` is the open file by which its upload is held, if it is."""

    def __init__(self, storage: "LocalStorage", fd: int, held: int | None) -> None:
        super().__init__(storage, fd)
        self._held = held

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held)
        super().release()


class LocalReader:
    def __init__(self, piece: LocalPiece, size: int) -> None:
        self._piece = piece
        self.size = size

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        while start < end:
            data = await self._piece.read(start, min(_PIECE, end - start))
            if not data:
                raise OSError(errno.EIO, "the file is shorter than it was")
            start += len(data)
            yield data

    async def send(self, connection: socket.socket, start: int, end: int) -> int:
        return await self._piece.send(connection, start, min(end, start + _SENT))

    def close(self) -> None:
        self._piece.release()


class LocalStorage:
    """The `Storage` port over one folder. To be made inside an event loop."""

    def __init__(self, root: Path, durability: Durability) -> None:
        self.durability = durability
        self._root = root
        self._incoming = root / "incoming"
        self._files = root / "files"
        self._holds = f"{root}/holds"
        for folder in (self._incoming, self._files):
            folder.mkdir(parents=True, exist_ok=True)
        if durability != "os":
            _sync_directory(root)
        # Apart from each other, so that a disk that is slow to write does not hold up who reads.
        processors = max(2, os.cpu_count() or 1)
        self.write_limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(32)
        self.digest_limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        self.hands: Hands = Hands(32)
        self.read_hands: Hands = Hands(32, at_once=processors)
        # Bodies are copied as fast as the processors can: more threads than these only keep all others from their turn.
        self.body_hands: Hands = Hands(processors, at_once=processors)
        self._incoming_names, self._file_names = _Names(self._incoming), _Names(self._files)
        self._syncs: dict[str, _SharedSync] = {}
        self._known: dict[str, None] = {}  # uploads that had a reservation and bytes a short while ago

    def shared_sync(self, upload_id: str) -> _SharedSync:
        sync = self._syncs.setdefault(upload_id, _SharedSync())
        sync.users += 1
        return sync

    def forget_sync(self, upload_id: str) -> None:
        sync = self._syncs[upload_id]
        sync.users -= 1
        if not sync.users:
            del self._syncs[upload_id]

    async def reserve(self, upload_id: str, start: int, end: int) -> LocalReservation | None:
        if upload_id in self._known:
            with suppress(FileNotFoundError):
                fd = self._open_and_lock(upload_id, start, end, os.O_RDWR, sync_name=False)
                return None if fd is None else LocalReservation(self, fd, upload_id, start, end)
        # Its name must be on the disk before its first byte is acknowledged, whichever process made it.
        sync_name = self.durability == "ack"
        fd = await self.hands.run(
            lambda: self._open_and_lock(upload_id, start, end, os.O_RDWR | os.O_CREAT, sync_name=sync_name)
        )
        return None if fd is None else LocalReservation(self, fd, upload_id, start, end)

    def _open_and_lock(self, upload_id: str, start: int, end: int, flags: int, *, sync_name: bool) -> int | None:
        path = self._place(upload_id)
        while True:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
            mine = False
            try:
                if sync_name and os.fstat(fd).st_size == 0:
                    self._incoming_names.sync()
                if not _lock(fd, start, end - start):
                    return None
                if os.fstat(fd).st_size == 0 and self._is_held(upload_id):
                    self.leave(upload_id, fd)
                    return None
                # Published or removed between the opening and the lock, the file is not the upload any more.
                mine = _is_at(fd, path)
            finally:
                if not mine:
                    os.close(fd)
            if mine:
                return fd

    def leave(self, upload_id: str, fd: int) -> None:
        """A reservation that ends without a byte leaves no file behind, unless somebody else is about to write."""
        path = self._place(upload_id)
        if os.fstat(fd).st_size:
            self._known.pop(upload_id, None)
            self._known[upload_id] = None
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        elif _lock(fd, 0, EVERYTHING) and _is_at(fd, path):
            os.unlink(path)  # noqa: PTH108

    async def scratch(self, start: int) -> LocalPiece:
        return LocalPiece(self, await self.hands.run(self._open_scratch), start)

    def _open_scratch(self) -> int:
        try:
            return os.open(self._incoming, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            fd, path = tempfile.mkstemp(dir=self._incoming, prefix="scratch-")
            Path(path).unlink()
            return fd

    async def view(self, upload_id: str, name: str, *, at: int = 0) -> LocalPiece | None:
        fd = await self.hands.run(lambda: self._open_view(upload_id, name))
        return None if fd is None else LocalPiece(self, fd, at)

    def _open_view(self, upload_id: str, name: str) -> int | None:
        incoming = _open_to_read(self._place(upload_id))
        if incoming is not None and os.fstat(incoming).st_size:
            return incoming
        # Whoever was late for its lock may have made an empty file where the published one was before.
        published = _open_to_read(self._published(upload_id, name))
        if published is None:
            return incoming
        if incoming is not None:
            os.close(incoming)
        return published

    async def claim_digest(self, upload_id: str) -> LocalPiece | None:
        fd = await self.hands.run(lambda: self._open_and_claim(upload_id))
        return None if fd is None else LocalPiece(self, fd)

    def _open_and_claim(self, upload_id: str) -> int | None:
        try:
            fd = os.open(self._place(upload_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if _lock(fd, _DIGEST_LOCK, 1):
            return fd
        os.close(fd)
        return None

    async def size(self, upload_id: str, name: str) -> int | None:
        piece = await self.view(upload_id, name)
        if piece is None:
            return None
        try:
            return os.fstat(piece.fd).st_size
        finally:
            piece.release()

    async def deposit(self, upload_id: str, name: str, data: bytes, *, hold: bool = False) -> LocalDeposit | None:
        target = self._published(upload_id, name)
        if not hold:
            fd = await self.hands.perform(lambda: self._make(target, data))
            return None if fd is None else LocalDeposit(self, fd, None)
        made = await self.hands.perform(lambda: self._hold_and_make(upload_id, target, data))
        return None if made is None else LocalDeposit(self, *made)

    def _hold_and_make(self, upload_id: str, target: str, data: bytes) -> tuple[int, int] | None:
        """The file, and the open file by which its upload is held: by one byte of a file that there is for that alone.

        Who reserves makes the file of the upload, and looks for a hold then; who holds looks for that file then: so one
        of them sees the other. Where the file has bytes nobody needs to look, for they were there before any hold.
        """
        held, fd = os.open(self._holds, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), None
        try:
            if _lock(held, _hold_of(upload_id), 1) and not os.path.lexists(self._place(upload_id)):
                fd = self._make(target, data)
        finally:
            if fd is None:
                os.close(held)
        return None if fd is None else (fd, held)

    def _is_held(self, upload_id: str) -> bool:
        try:
            fd = os.open(self._holds, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return _is_locked(fd, _hold_of(upload_id))
        finally:
            os.close(fd)

    def _make(self, target: str, data: bytes) -> int | None:
        """A whole file under its final name, locked; None if one is there, or the file system has no such files."""
        try:
            fd = os.open(self._files, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
                return None
            raise
        named = whole = False
        try:
            _lock(fd, 0, EVERYTHING)
            descriptors.write_batch(fd, 0, [memoryview(data)])
            if self.durability != "os":
                os.fdatasync(fd)
            # With a descriptor, any, Python calls linkat(2), which follows the link, and not link(2), which does not.
            os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd)
            named = True
            if self.durability != "os":
                self._file_names.sync()
            whole = True
        except (FileExistsError, FileNotFoundError):  # the latter where there is no /proc
            return None
        finally:
            if not whole:
                os.close(fd)
                if named:
                    Path(target).unlink(missing_ok=True)
        return fd

    async def claim_file(self, upload_id: str, name: str) -> LocalPiece | None:
        fd = await self.hands.run(lambda: _open_and_hold(self._published(upload_id, name)))
        return None if fd is None else LocalPiece(self, fd)

    async def publish(self, upload_id: str, name: str) -> None:
        await self.hands.run(lambda: self._publish(upload_id, name))

    def _publish(self, upload_id: str, name: str) -> None:
        source, target = self._incoming / upload_id, Path(self._published(upload_id, name))
        size = _size(source)
        if size or not target.exists():
            if self.durability != "os" or size is None:
                fd = os.open(source, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    if self.durability != "os":
                        os.fsync(fd)
                finally:
                    os.close(fd)
            source.rename(target)
        if self.durability != "os":
            self._file_names.sync()
            self._incoming_names.sync()

    def _place(self, upload_id: str) -> str:
        """Where the bytes of an upload are on their way. No `Path`: of what a small file costs that is seen."""
        return f"{self._incoming}/{upload_id}"

    def _published(self, upload_id: str, name: str) -> str:
        return f"{self._files}/{upload_id}-{name}"

    @asynccontextmanager
    async def open(self, upload_id: str, name: str) -> AsyncIterator[LocalReader]:
        fd = await self.hands.run(lambda: _open_to_read(self._published(upload_id, name)))
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, "the file is not there", upload_id)
        reader = LocalReader(LocalPiece(self, fd), os.fstat(fd).st_size)
        try:
            yield reader
        finally:
            reader.close()

    async def remove(self, upload_id: str, name: str) -> None:
        await self.discard(upload_id)
        await self.withdraw(upload_id, name)

    async def discard(self, upload_id: str) -> None:
        source = self._incoming / upload_id
        await self.hands.run(lambda: source.unlink(missing_ok=True))

    async def withdraw(self, upload_id: str, name: str) -> None:
        target = Path(self._published(upload_id, name))
        await self.hands.run(lambda: target.unlink(missing_ok=True))

    async def incoming(self) -> Sequence[str]:
        names = await self.read_hands.run(lambda: [path.name for path in self._incoming.iterdir()])
        return [name for name in names if len(name) == _ID_LENGTH]

    async def published(self) -> Sequence[tuple[str, str]]:
        names = await self.read_hands.run(lambda: [path.name for path in self._files.iterdir()])
        # What is not named like an upload's file is not ours to touch.
        parts = [(name[:_ID_LENGTH], name[_ID_LENGTH:]) for name in names]
        return [(upload_id, rest[1:]) for upload_id, rest in parts if rest.startswith("-")]

    def room(self) -> Room:
        stat = os.statvfs(self._root)
        return Room(stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _open_and_hold(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if _lock(fd, 0, EVERYTHING):
        return fd
    os.close(fd)
    return None


def _open_to_read(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
