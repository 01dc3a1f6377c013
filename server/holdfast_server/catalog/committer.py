"""Group commit: one thread, one connection, one transaction for all that is waiting.

Rule of this file: everything that changes the database goes through the one `Committer` of the process. It
takes all operations that are queued (the event loop hands them over when it has nothing else to do) by the time that
it has the lock, runs them so that one that raises leaves the others untouched, commits once, and only then answers, all
at once. If the transaction as a whole fails, none of its operations has happened and every one of them is answered with
the error: an operation may have been refused because of what another one of the same transaction did.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import anyio

from holdfast_server.catalog.base import Durability
from holdfast_server.catalog.connections import BUSY_SECONDS, fault

T = TypeVar("T")

_BATCH: Final = 1000
"""When there are so many operations in a transaction no more are added, so that the first of them does not wait for an
endless row of others."""


class _Job(Generic[T]):
    __slots__ = ("done", "error", "final", "operation", "result")

    def __init__(self, operation: Callable[[sqlite3.Connection], T], final: bool, done: "asyncio.Future[None]") -> None:
        self.operation = operation
        self.final = final
        self.done = done  # a future of the loop, as in `storage.hands`
        self.result: T
        self.error: Exception | None = None


class Committer:
    """Runs operations on the one connection that writes. Made and used on one event loop."""

    def __init__(self, connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
        """Take over `connection`, in autocommit, whose schema is in place. `path` goes into messages."""
        connection.execute("PRAGMA busy_timeout = 0")  # see _begin
        self._connection = connection
        self._path = path
        self._always_sync = durability == "ack"
        self._sync_final = durability == "finish"
        self._synced: bool | None = None
        self._queue: queue.SimpleQueue[list[_Job[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._ended = False  # for the thread: the queue has come to its end
        self._given: list[_Job[Any]] = []  # of this turn of the loop
        self._thread = threading.Thread(target=self._run, name="holdfast-catalog", daemon=True)
        self._thread.start()

    async def submit(self, operation: Callable[[sqlite3.Connection], T], *, final: bool = False) -> T:
        """Run `operation` in the next transaction and answer when that is committed.

        `final` asks for it to be on the disk by then also when the durability is `finish`. Raises what the
        operation raised, or what `fault` makes of the error that the transaction failed with. If the caller
        is cancelled, the operation is carried out all the same.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        job = _Job(operation, final, self._loop.create_future())
        self._given.append(job)
        if len(self._given) == 1:
            self._loop.call_soon(self._hand_over)
        await job.done
        if job.error is None:
            return job.result
        if isinstance(job.error, sqlite3.Error):
            raise fault(job.error, self._path) from job.error
        raise job.error

    def _hand_over(self) -> None:
        # At the end of the turn: a thread that is woken before gets in the way of the loop, at a cost beyond its work.
        given, self._given = self._given, []
        if given:
            self._queue.put(given)

    def refuse(self) -> None:
        """Take no more operations; those that are queued are still carried out. Call it on the event loop."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)

    def join(self) -> None:
        """After `refuse`: wait until the last operation is committed and the connection closed. Blocks."""
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            batch = list[_Job[Any]]()
            self._take(batch, wait=True)
            if batch:
                self._commit(batch)
                self._answer(batch)
        self._connection.close()

    def _take(self, batch: list[_Job[Any]], *, wait: bool = False) -> None:
        """Adds what is queued."""
        while not self._ended and len(batch) < _BATCH:
            try:
                given = self._queue.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if given is None:
                self._ended = True
            else:
                batch += given

    def _commit(self, batch: list[_Job[Any]]) -> None:
        try:
            self._sync(self._always_sync or (self._sync_final and any(job.final for job in batch)))
            if not self._all_together(batch):
                self._begin()
                for job in batch:
                    self._perform(job)
                self._connection.execute("COMMIT")
        except Exception as error:
            for job in batch:
                job.error = error
            self._roll_back()

    def _all_together(self, batch: list[_Job[Any]]) -> bool:
        """Without savepoints, as most go well: they cost as much as an operation. False if one raised, and none has
        happened: so operations have to be such that they can be run again."""
        self._begin()
        if self._synced or not self._sync_final:  # within a transaction that cannot be changed any more
            self._take(batch)  # what has come while the lock was waited for
        try:
            for job in batch:
                job.result = job.operation(self._connection)
        except Exception:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return False
        self._connection.execute("COMMIT")
        return True

    def _sync(self, wanted: bool) -> None:
        # In WAL mode FULL is a sync of the log at each commit, and with it of all that was committed before.
        if wanted != self._synced:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synced = wanted

    def _begin(self) -> None:
        # SQLite's own busy handler soon sleeps for 100 ms at a time, and a process that commits without a
        # pause takes the lock again within some microseconds: the other one then waits for half a second.
        # Short, growing, uneven pauses find the gaps.
        deadline = time.monotonic() + BUSY_SECONDS
        attempt = 0
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(min(0.0002 + 0.00002 * attempt, 0.002) * (1 + attempt % 3 / 3))
            attempt += 1

    def _perform(self, job: _Job[Any]) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite has rolled the whole transaction back, as it may when the disk is full
            connection.execute("ROLLBACK TO operation")
            job.error = error
        connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The next BEGIN fails then, and its waiters are told; nothing is lost that was answered.
            return

    def _answer(self, batch: Sequence[_Job[Any]]) -> None:
        try:
            self._loop.call_soon_threadsafe(_wake, batch)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more, and the work is done


def _wake(batch: Sequence[_Job[Any]]) -> None:
    for job in batch:
        if not job.done.done():  # or the caller was cancelled
            job.done.set_result(None)
