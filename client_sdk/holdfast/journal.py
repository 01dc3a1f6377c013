"""What the client remembers across restarts: which transfer has which URL, and which bytes are safely here.

    journal.py       what transfers need to go on, and the locks
    ledger.py        the list of transfers that people see and give orders to
    journal_file.py  the database of both

Rule of this file: the journal is a map and never the truth. The server's word about what is stored goes before it,
and a row that is lost costs time and nothing else. A span of a download is recorded only after its bytes are on the
disk. One process at a time runs a transfer: it holds an operating system lock on a small file, which also carries
what shall survive `kill -9` without a commit for each: the count of bytes that were put on the wire, and of a download
the ranges that were written since the last commit.

Secrets are not stored: no header field, no user name or password, no query of a URL that the caller gave (it may be a
signature). The URL of an upload is what the server gave it, whole: it is what resuming needs.

Methods block for a disk access (milliseconds); drivers call them in worker threads. Any thread may call.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import platformdirs
from msgspec import Struct

from holdfast.errors import HoldfastError, TransferBusy
from holdfast.journal_file import STATE_VARIABLE, JournalFile
from holdfast.ledger import Ledger, bare
from holdfast.sources import Fingerprint
from holdfast.splitting import Part
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

KEEP_DONE: Final = 30 * 86400.0
"""Seconds for which a finished transfer is remembered."""
KEEP_CEILING: Final = 7 * 86400.0
"""Seconds for which it is believed that an origin takes no larger chunks."""
BOOT: Final = 64
"""Where in a lock file stands which start of the machine the marks are of,"""
MARKS: Final = 128
"""and where they begin."""
MARK: Final = 42
"""Bytes of a mark."""

_log = logging.getLogger("holdfast")


class UploadRecord(Struct, frozen=True):
    """An upload that was begun: where it is, what file it is of, and how it ended if it did."""

    key: str
    path: str
    endpoint: str
    url: str
    """Empty as long as it is sent in parts (`Journal.find_parts`), and until the server has said it."""
    size: int
    done: bool = False
    digest: Digest | None = None
    wire: int = 0
    """Bytes of content that were put on the wire for it, in all processes, when it was last recorded."""
    expires: float | None = None
    """When the server will have removed it, seconds since the epoch; None if it did not say so."""
    asked: str | None = None
    """The key that it was asked for by (K-KEY-1): where there is no URL yet, the same is asked for again."""


class DownloadRecord(Struct, frozen=True):
    """A download that was begun: of which version of what, and which bytes of it are on the disk."""

    key: str
    url: str
    path: str
    part: str
    size: int
    pin: str
    """The validator of that version."""
    digest: str | None = None
    """`ALG=HEX` of that version, if it was known."""
    spans: tuple[Span, ...] = ()


def upload_key(endpoint: str, fingerprint: Fingerprint, metadata: Mapping[str, bytes]) -> str:
    """What one and the same upload is recognized by: 64 hexadecimal digits."""
    said = [
        "upload",
        endpoint,
        fingerprint.path,
        fingerprint.size,
        fingerprint.mtime_ns,
        fingerprint.edge,
        sorted((name, value.hex()) for name, value in metadata.items()),
    ]
    return hashlib.sha256(json.dumps(said).encode("utf-8", "surrogateescape")).hexdigest()


def download_key(url: str, path: str) -> str:
    """What one and the same download is recognized by: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(["download", url, path]).encode()).hexdigest()


class TransferLock:
    """Held by the one process that runs a transfer; ends with the process, however that ends.

    `wire` counts bytes put on the wire for this transfer by all processes that held the lock. Marks are ranges of a
    download that were written and are not in the journal yet; they hold until the machine is started anew, which is
    known by the kernel's name for this start.
    """

    def __init__(self, path: Path | None, descriptor: int, wire: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._marked = False
        self.wire: int = wire

    def count(self, size: int) -> None:
        """`size` bytes were put on the wire. Cheap: one small write into the page cache."""
        self.wire += size
        self._write(b"%020d %010d\n" % (self.wire, os.getpid()), 0)

    def mark(self, slot: int, span: Span) -> None:
        """The bytes of a range were written; in place of what was marked in that slot (from 0). As cheap as `count`."""
        if not self._marked:
            self._marked = True
            self._write(_boot()[: MARKS - BOOT].ljust(MARKS - BOOT), BOOT)
        self._write(b"%020d %020d\n" % (span.start, span.end), MARKS + slot * MARK)

    def marks(self) -> tuple[Span, ...]:
        """What earlier processes have marked since the machine was started."""
        if self._descriptor < 0 or not _boot():
            return ()
        said = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        if said[BOOT:MARKS].rstrip() != _boot()[: MARKS - BOOT]:
            return ()
        found = []
        for line in said[MARKS:].split(b"\n"):
            words = line.split()
            if len(line) == MARK - 1 and len(words) == 2 and all(word.isdigit() for word in words):
                start, end = map(int, words)
                if start < end:
                    found.append(Span(start, end))
        return tuple(found)

    def unmark(self) -> None:
        """Forget all marks."""
        if self._descriptor >= 0:
            self._marked = False
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, min(BOOT, os.fstat(self._descriptor).st_size))

    def close(self, *, forget: bool = False) -> None:
        """Let go; with `forget` the count and the marks go, too. May be called more than once."""
        if self._descriptor < 0:
            return
        if forget and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _write(self, said: bytes, offset: int) -> None:
        # What is lost of this (a full disk) is no reason to stop.
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, said, offset)


def _boot() -> bytes:
    """What the kernel calls the time since the machine was started; empty where it does not say so."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return b""


class Journal:
    """One SQLite file in a folder of its own. `folder` None keeps everything in memory, for this object alone."""

    def __init__(self, folder: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._folder = folder
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._file = JournalFile(folder)
        self.ledger: Ledger = Ledger(self._file, clock)
        """The transfers of all processes, for people."""
        self._collect()

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None, *, needed: bool = False) -> "Journal":
        """The journal in `folder`, else in $HOLDFAST_STATE, else in the user's state folder.

        Where the folder cannot be written the journal is kept in memory, and a warning is logged: transfers work,
        but another process cannot go on with them. To whoever has `needed` what is in it that is no help, and
        HoldfastError is raised.
        """
        chosen = folder or os.environ.get(STATE_VARIABLE)
        where: object = chosen or "the user's state folder"
        try:
            where = path = Path(chosen or platformdirs.user_state_dir("holdfast")).expanduser()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(path)
        # RuntimeError: nobody knows where this user is at home.
        except (OSError, RuntimeError, sqlite3.OperationalError) as error:
            if needed:
                raise HoldfastError(
                    f"the journal in {where} cannot be used ({error}), so nobody can say what is in it; it has to be"
                    f" writable, with some room left on its disk ({STATE_VARIABLE} names another folder)",
                    code="journal-unusable",
                ) from error
            _log.warning(
                "the journal in %s cannot be used (%s); transfers of this run cannot be resumed later", where, error
            )
            return cls(None)

    def close(self) -> None:
        self._file.close()

    @property
    def unread(self) -> bool:
        """Something could not be read; a warning was logged, and nothing was found."""
        return self._file.unread

    # Uploads

    def find_upload(self, key: str) -> UploadRecord | None:
        row = self._file.row(
            "SELECT key, path, endpoint, url, size, state, digest_algorithm, digest_value, wire, expires, asked"
            " FROM upload WHERE key = ?",
            key,
        )
        if row is None:
            return None
        key, path, endpoint, url, size, state, algorithm, value, wire, expires, asked = row
        digest = Digest(algorithm, value) if algorithm is not None else None
        return UploadRecord(key, path, endpoint, url, size, state == "done", digest, wire, expires, asked)

    def begin_upload(
        self,
        key: str,
        fingerprint: Fingerprint,
        *,
        endpoint: str,
        url: str,
        expires: float | None = None,
        parts: Iterable[Part] = (),
        asked: str | None = None,
    ) -> None:
        """Remember the URL of a new upload, or, with no URL yet, how a file is cut up, or by which key the upload is
        asked for. On the disk when this returns.
        """
        now = self._clock()
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO upload (key, state, path, endpoint, url, size, mtime_ns, inode, device, edge,"
                " wire, created, updated, expires, asked)"
                " VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
                (
                    key,
                    fingerprint.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
                    bare(endpoint),
                    url,
                    fingerprint.size,
                    fingerprint.mtime_ns,
                    _signed(fingerprint.inode),
                    _signed(fingerprint.device),
                    fingerprint.edge,
                    now,
                    now,
                    expires,
                    asked,
                ),
            )
            db.executemany(
                "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
                [(key, part.span.start, part.span.end, part.url, part.expires) for part in parts],
            )

    def place_upload(self, key: str, url: str, expires: float | None) -> None:
        """The server has said where an upload is that it was asked for. A loss of power undoes it; then the same is
        asked for again.
        """
        with self._file.transaction(durable=False) as db:
            db.execute("UPDATE upload SET url = ?, expires = ? WHERE key = ?", (url, expires, key))

    def keep_upload_until(self, key: str, expires: float) -> None:
        """The server said until when it keeps this upload: seconds since the epoch."""
        self._file.write("UPDATE upload SET expires = ? WHERE key = ?", expires, key)

    def pause_upload(self, key: str, *, wire: int) -> None:
        """The run of an upload has ended before the upload did."""
        self._file.write(
            "UPDATE upload SET state = 'paused', wire = ?, updated = ? WHERE key = ? AND state <> 'done'",
            wire,
            self._clock(),
            key,
        )

    def finish_upload(self, key: str, *, url: str, digest: Digest | None, wire: int) -> None:
        """The upload is complete on the server. A loss of power undoes it; then the server is asked again."""
        algorithm, value = (digest.algorithm, digest.value) if digest is not None else (None, None)
        with self._file.transaction(durable=False) as db:
            db.execute(
                "UPDATE upload SET state = 'done', url = ?, digest_algorithm = ?, digest_value = ?, wire = ?,"
                " updated = ?, expires = NULL WHERE key = ?",
                (url, algorithm, value, wire, self._clock(), key),
            )

    def forget_upload(self, key: str) -> None:
        """The URL is of no use any more."""
        self._file.write("DELETE FROM upload WHERE key = ?", key)

    # Uploads in parts

    def find_parts(self, key: str) -> tuple[Part, ...]:
        """The parts of an upload in their order; none if it has none."""
        rows = self._file.rows('SELECT start, "end", url, expires FROM part WHERE key = ? ORDER BY start', (key,))
        return tuple(Part(Span(start, end), url, expires) for start, end, url, expires in rows)

    def keep_part(self, key: str, part: Part) -> None:
        """A part has an upload now, or is kept longer by the server. On the disk when this returns."""
        self._file.write(
            "UPDATE part SET url = ?, expires = ? WHERE key = ? AND start = ?",
            part.url,
            part.expires,
            key,
            part.span.start,
        )

    def join_parts(self, key: str, url: str) -> None:
        """The parts were put together at `url`."""
        with self._file.transaction() as db:
            db.execute("UPDATE upload SET url = ? WHERE key = ?", (url, key))
            db.execute("DELETE FROM part WHERE key = ?", (key,))

    # Downloads

    def find_download(self, key: str) -> DownloadRecord | None:
        row = self._file.row("SELECT key, url, path, part, size, etag, digest FROM download WHERE key = ?", key)
        if row is None:
            return None
        spans = self._file.rows('SELECT start, "end" FROM span WHERE key = ? ORDER BY start', (key,))
        have = tuple(Span(start, end) for start, end in spans)
        key, url, path, part, size, pin, digest = row
        return DownloadRecord(key, url, path, part, size, pin, digest, have)

    def left_of(self, url: str, folder: str, path: str | None) -> tuple[DownloadRecord, tuple[Span, ...]] | None:
        """What an earlier call has left of a URL in a folder, or at a path: the record, and what it has marked since.

        None if there is nothing, or more than one in that folder. Who goes on with it has to get the lock yet.
        """
        rows = self._file.rows("SELECT key, path FROM download WHERE url = ?", (bare(url),))
        keys = [key for key, at in rows if at == path or (path is None and os.path.dirname(at) == folder)]  # noqa: PTH120
        record = self.find_download(keys[0]) if len(keys) == 1 else None
        if record is None:
            return None
        try:
            descriptor = os.open(self._lock_path(record.key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return record, ()
        reader = TransferLock(None, descriptor, 0)
        try:
            return record, reader.marks()
        finally:
            reader.close()

    def _lock_path(self, key: str) -> Path:
        return (self._folder or Path("/nonexistent")) / "locks" / f"{key[:32]}.lock"

    def begin_download(self, record: DownloadRecord) -> None:
        """Remember a new download; spans of an older one with the same key are dropped."""
        now = self._clock()
        with self._file.transaction() as db:
            db.execute("DELETE FROM download WHERE key = ?", (record.key,))
            db.execute(
                "INSERT INTO download (key, state, url, path, part, size, etag, digest, wire, created, updated)"
                " VALUES (?, 'running', ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (
                    record.key,
                    bare(record.url),
                    record.path,
                    record.part,
                    record.size,
                    record.pin,
                    record.digest,
                    now,
                    now,
                ),
            )

    def keep_spans(self, key: str, spans: Iterable[Span]) -> None:
        """All that is there of a download; the caller has synced the file. On the disk when this returns."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM span WHERE key = ?", (key,))
            db.executemany("INSERT INTO span VALUES (?, ?, ?)", [(key, span.start, span.end) for span in spans])

    def forget_download(self, key: str) -> None:
        """It is finished, or cannot be continued."""
        self._file.write("DELETE FROM download WHERE key = ?", key)

    # What was learnt of origins

    def find_ceilings(self) -> dict[str, int]:
        """The largest chunk, in bytes, that an origin takes, of those that have refused larger ones lately."""
        since = self._clock() - KEEP_CEILING
        return dict(self._file.rows("SELECT origin, size FROM ceiling WHERE learnt > ?", (since,)))

    def keep_ceiling(self, origin: str, size: int) -> None:
        """An origin has refused chunks of more than `size` bytes."""
        self._file.write("INSERT OR REPLACE INTO ceiling VALUES (?, ?, ?)", origin, size, self._clock())

    # Locks

    def lock(self, key: str, what: str, transfer: str | None = None) -> TransferLock:
        """Become the one process that runs this transfer. `what` names it for people. Raises TransferBusy.

        `transfer` is its id in the ledger, where it belongs to this process from now on.
        """
        try:
            lock = self._lock(key, what)
        except OSError as error:
            _log.warning("%s cannot be kept from other processes: no lock in the journal (%s)", what, error)
            lock = self._hold(key, TransferLock(None, -1, 0))
        if transfer is not None:
            self.ledger.claim(transfer, key)
        return lock

    def _lock(self, key: str, what: str) -> TransferLock:
        with self._guard:
            if key in self._held:
                raise TransferBusy(f"{what} is being transferred already, by another call of this process")
        if self._folder is None:
            return self._hold(key, TransferLock(None, -1, 0))
        path = self._lock_path(key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                said = os.pread(descriptor, 64, 0).split()
                # The one who held it may have removed the file between our open() and our lock.
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    wire = int(said[0]) if said and said[0].isdigit() else 0
                    return self._hold(key, TransferLock(path, descriptor, wire))
            except BlockingIOError:
                said = os.pread(descriptor, 64, 0).split()
                os.close(descriptor)
                who = f" (process {int(said[1])})" if len(said) == 2 and said[1].isdigit() else ""
                raise TransferBusy(
                    f"{what} is being transferred already, by another process{who}; wait for it or end it",
                    key=key,
                ) from None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _hold(self, key: str, lock: TransferLock) -> TransferLock:
        lock.count(0)
        with self._guard:
            self._held.add(key)
        return lock

    def unlock(self, key: str, lock: TransferLock, *, forget: bool = False) -> None:
        """Give back what `lock()` gave."""
        lock.close(forget=forget)
        with self._guard:
            self._held.discard(key)

    def _collect(self) -> None:
        old = self._clock() - KEEP_DONE
        self._file.write("DELETE FROM upload WHERE state = 'done' AND updated < ?", old)
        self._file.write("DELETE FROM transfer WHERE state = 'completed' AND updated < ?", old)
        self._file.write("DELETE FROM ceiling WHERE learnt < ?", self._clock() - KEEP_CEILING)


def _signed(number: int) -> int:
    """SQLite's integers are signed 64 bits, inode numbers are unsigned."""
    return number - (1 << 64) if number >= 1 << 63 else number
