"""The file of the journal: one SQLite database that several processes write to, and who of them is alive.

Rule of this file: a journal that cannot be read is set aside under another name, with a message, and a new one is
begun; one that cannot be written is kept in memory, or left as it is, with a message; no transfer fails for it. A
process that uses a journal holds an operating system lock as long as it lives, so that others need not guess from
process numbers whether it does.

Methods block for a disk access (milliseconds). Any thread may call.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from holdfast.errors import HoldfastError

STATE_VARIABLE: Final = "HOLDFAST_STATE"

MIGRATIONS: Final = (
    """
    CREATE TABLE upload (
        key TEXT PRIMARY KEY, state TEXT NOT NULL, path TEXT NOT NULL, endpoint TEXT NOT NULL, url TEXT NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL,
        edge TEXT NOT NULL, digest_algorithm TEXT, digest_value BLOB, wire INTEGER NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL
    ) STRICT;
    CREATE TABLE download (
        key TEXT PRIMARY KEY, state TEXT NOT NULL, url TEXT NOT NULL, path TEXT NOT NULL, part TEXT NOT NULL,
        size INTEGER NOT NULL, etag TEXT NOT NULL, wire INTEGER NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL
    ) STRICT;
    CREATE TABLE span (
        key TEXT NOT NULL REFERENCES download (key) ON DELETE CASCADE, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
        PRIMARY KEY (key, start)
    ) STRICT, WITHOUT ROWID;
    """,
    "ALTER TABLE upload ADD COLUMN expires REAL",
    """
    CREATE TABLE part (
        key TEXT NOT NULL REFERENCES upload (key) ON DELETE CASCADE, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
        url TEXT NOT NULL, expires REAL,
        PRIMARY KEY (key, start)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE transfer (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, options TEXT,
        key TEXT, owner TEXT NOT NULL, state TEXT NOT NULL, wanted TEXT NOT NULL, priority INTEGER NOT NULL,
        size INTEGER, accepted INTEGER NOT NULL, failure TEXT, result TEXT, digest TEXT,
        created REAL NOT NULL, updated REAL NOT NULL
    ) STRICT;
    CREATE INDEX transfer_key ON transfer (key);
    CREATE INDEX transfer_owner ON transfer (owner);
    CREATE TABLE ceiling (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, learnt REAL NOT NULL) STRICT, WITHOUT ROWID;
    """,
    "ALTER TABLE download ADD COLUMN digest TEXT",
    "ALTER TABLE upload ADD COLUMN asked TEXT",
)

_log = logging.getLogger("holdfast")


class JournalFile:
    """The database in `folder`, opened; None keeps it in memory, for this object alone.

    `owner` is what this process, and no other, is called in it. Raises OSError or sqlite3.OperationalError where the
    folder cannot be used.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._troubled = False
        self.unread: bool = False
        """Something could not be read, and was answered with nothing."""
        with _alone(folder):
            self._db = self._open()
            try:
                self._migrate()
                self.owner: str
                self.owner, self._life = _life(folder)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Let go of it; the process counts as ended. May be called more than once."""
        with self._guard:
            self._db.close()
        if self._life >= 0:
            with contextlib.suppress(OSError):
                self._place(self.owner).unlink()
            descriptor, self._life = self._life, -1
            os.close(descriptor)

    def alive(self, owner: str) -> int | None:
        """The number of the process that has the name `owner`, as long as it has the journal open; else None."""
        if owner == self.owner:
            return os.getpid() if self.folder is None or self._life >= 0 else None
        return None if self.folder is None else _holder(self._place(owner))

    def version(self) -> int:
        """A number that changes when another process, and not this one, has written. Cheap."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def rows(self, statement: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """What the database answers; nothing, and a logged warning, if it cannot be read."""
        with self._guard:
            try:
                return self._db.execute(statement, tuple(values)).fetchall()
            except sqlite3.DatabaseError as error:
                self._excuse(error, "read")
                self.unread = True
                return []

    def row(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """The first of the rows, if there is one."""
        return next(iter(self.rows(statement, values)), None)

    def write(self, statement: str, *values: object) -> None:
        """One change. On the disk when this returns; that it could not be written is logged, and stops nobody."""
        with self.transaction() as db:
            db.execute(statement, values)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Inside it all is written or nothing, and on the disk afterwards; if not `durable`, a loss of power undoes it.

        That nothing could be written is logged, and stops nobody.
        """
        try:
            with self._atomic(durable=durable) as db:
                yield db
            self._troubled = False
        except sqlite3.DatabaseError as error:
            self._excuse(error, "written")

    def _excuse(self, error: sqlite3.DatabaseError, what: str) -> None:
        if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
            raise error  # a mistake in this package
        if not self._troubled:  # once is enough: there may be a write every second
            self._troubled = True
            _log.warning("the journal could not be %s (%s); a later run may not know of this one", what, error)

    def _place(self, owner: str) -> Path:
        assert self.folder is not None
        return self.folder / "locks" / f"{owner}.alive"

    def _open(self) -> sqlite3.Connection:
        if self.folder is None:
            return _connect(":memory:")
        path = self.folder / "journal.db"
        # So that the file is nobody else's from its first moment on; SQLite gives its side files the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        try:
            return _checked(path)
        # Also for a message with damaged bytes in it, and for a damaged length: SQLite asks for as much memory.
        except (sqlite3.DatabaseError, UnicodeDecodeError, MemoryError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = path.with_suffix(".db.corrupt")
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            why = str(error) or type(error).__name__
            _log.warning("the journal was damaged (%s); it is set aside as %s and a new one is begun", why, aside)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return _checked(path)

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version:
            self._db.execute("PRAGMA synchronous = FULL")
        if version > len(MIGRATIONS):
            raise HoldfastError(
                f"the journal in {self.folder} was written by a newer version of holdfast; install that one,"
                f" or choose another folder with {STATE_VARIABLE}",
                code="journal-too-new",
            )
        if version == len(MIGRATIONS):
            return
        with self._atomic(durable=True) as db:
            # Another process may have been faster; under the write lock the number is the true one.
            (version,) = db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in script.split(";"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {number:d}")
        if not version:
            # What is new had nothing to lose, and is brought to the disk as a whole.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA wal_checkpoint").fetchall()

    @contextlib.contextmanager
    def _atomic(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with self._guard:
            if not durable:
                self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            finally:
                if not durable:
                    self._db.execute("PRAGMA synchronous = FULL")


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Inside it no other process opens the journal: a change of SQLite's mode does not wait for others by itself.

    Waits for at most ten seconds and then goes on: a process that was stopped in there must not stop all others.
    """
    if folder is None:
        yield
        return
    descriptor = os.open(folder / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = OFF")  # until `_migrate` knows whether it is new
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        db.close()
        raise
    return db


def _checked(path: Path) -> sqlite3.Connection:
    db = _connect(str(path))
    try:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        db.close()
        raise
    return db


def _life(folder: Path | None) -> tuple[str, int]:
    """A name for this process and the lock that lives as long as it does. Removes those of processes that are gone."""
    name = secrets.token_hex(8)
    if folder is None:
        return name, -1
    locks = folder / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    for path in (*locks.glob("*.alive"), *locks.glob("*.new")):
        if _holder(path) is None:
            path.unlink(missing_ok=True)
    # It gets its name when it is locked, so that nobody takes it for that of a process that is gone.
    path = locks / f"{name}.new"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, b"%d" % os.getpid())
        path.rename(path.with_suffix(".alive"))
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return name, descriptor


def _holder(path: Path) -> int | None:
    """The process that holds a lock of `_life`, None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(descriptor, 20, 0)
        return int(said) if said.isdigit() else 0
    finally:
        os.close(descriptor)
    return None
