"""Connections to a SQLite file: how they are opened, pooled for reading, and how their faults are told.

Rule of this file: every connection of the catalog is opened here, with the same busy time-out and in
autocommit (so that a transaction begins where BEGIN is written and nowhere else), and no `sqlite3.Error`
leaves the package: it goes through `fault` first.
"""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from holdfast_server.catalog.base import CatalogError, Incompatible, Unavailable

T = TypeVar("T")

BUSY_SECONDS: Final = 10.0
"""How long anything waits for a lock that another process holds."""


def connect(path: Path, *, write: bool, patience: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection that any one thread at a time may use. Blocks on the disk; raises sqlite3.Error.

    `patience`: seconds that a statement waits for a lock.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rwc' if write else 'ro'}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
    )
    if not write:
        connection.execute("PRAGMA query_only = ON")
    return connection


def fault(error: sqlite3.Error, path: Path) -> Exception:
    """What an error of SQLite is to the layers above (see the tree in `base`)."""
    code = getattr(error, "sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        case sqlite3.SQLITE_IOERR:
            # The shared-memory index is grown by writing to it; that this fails means a full disk.
            number = errno.ENOSPC if code == sqlite3.SQLITE_IOERR_SHMSIZE else errno.EIO
            return OSError(number, f"{os.strerror(number)} ({error})", str(path))
        case sqlite3.SQLITE_READONLY:
            return OSError(errno.EROFS, f"{os.strerror(errno.EROFS)} ({error})", str(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(f"{path} is held by another process: {error}")
        case sqlite3.SQLITE_CANTOPEN:
            return Unavailable(f"{path} cannot be opened: {error}; look at the folder and its permissions")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return Incompatible(f"{path} is not a sound catalog: {error}; restore it from a copy")
    return CatalogError(f"{path}: {error}")


class Readers:
    """Some read-only connections, each used by one worker thread at a time, and one for the event loop.

    The threads have a limiter of their own: threads that hang in other work never hold up a read.
    """

    def __init__(self, path: Path, size: int) -> None:
        """`size` is how many reads run at once. Call it from the event loop."""
        self._path = path
        self._size = size
        self._limiter = anyio.CapacityLimiter(size)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._here: sqlite3.Connection | None = None
        self._closed = False

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` in a worker thread, within one snapshot. Raises what `fault` makes of errors."""
        if self._closed:
            raise anyio.ClosedResourceError
        # A read that hangs on a dead disk must not make its request hang as well, hence abandon_on_cancel.
        return await anyio.to_thread.run_sync(self._run, query, abandon_on_cancel=True, limiter=self._limiter)

    async def look(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query`, which finds a row or two by their key, on the event loop: waking a thread takes longer.

        One statement, if it is not to be `within` a snapshot. In WAL mode no reader waits for a writer; should it have
        to, a thread does. Raises what `fault` makes of errors.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            if self._here is None:
                self._here = connect(self._path, write=False, patience=0)
            return query(self._here)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                return await self.run(query)
            raise fault(error, self._path) from error

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = connect(self._path, write=False)
            return within(connection, query)
        except sqlite3.Error as error:
            raise fault(error, self._path) from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back. Blocks on the disk."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        if self._here is not None:
            idle.append(self._here)
        for connection in idle:
            connection.close()


def within(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    """Run `query` within one snapshot."""
    begun = connection.in_transaction
    if not begun:
        connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        if not begun and connection.in_transaction:  # an error may have ended it
            connection.execute("ROLLBACK")
