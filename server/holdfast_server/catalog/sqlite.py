"""The catalog in one SQLite file, for any number of processes on one machine.

Rule of this file: whatever changes is one operation given to the `Committer`, whatever reads is one query
given to `Readers`; between calls nothing about an upload is kept in memory. Every change of a state writes
its event in the same transaction; those are IMMEDIATE, so event numbers ascend in the order of commits over
all processes.
"""

import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from msgspec.structs import replace

from holdfast_protocol.digest import Digest
from holdfast_protocol.server import LONGEST
from holdfast_server.catalog import grants, news, quotas, rows, stored
from holdfast_server.catalog.base import (
    TOMBSTONES,
    UNBOUNDED,
    Asked,
    Durability,
    Event,
    Fence,
    Log,
    NoRoom,
    NotReceiving,
    Quota,
    Ranges,
    Sample,
    Standing,
    Tally,
    Uploads,
    Use,
    Watched,
    Whose,
    WrongState,
)
from holdfast_server.catalog.committer import Committer
from holdfast_server.catalog.connections import Readers, connect, fault, within
from holdfast_server.catalog.schema import prepare
from holdfast_server.uploads.upload import State, Upload

_READERS: Final = 4
_PURGED_AT_ONCE: Final = 500
_BILLION: Final = 1_000_000_000


@asynccontextmanager
async def open_sqlite(
    path: Path | str, durability: Durability = "ack", quota: Quota = UNBOUNDED
) -> AsyncGenerator["SqliteCatalog"]:
    """Open the catalog in the file `path`, which is made if it is not there (its folder must be).

    `quota` is held by whoever writes with it: all processes on one file should have the same.

    Raises Incompatible if the file is of a newer version or no catalog, Unavailable if it is held by another
    process for more than ten seconds, and OSError.
    """
    catalog = await SqliteCatalog.open(Path(path), durability, quota)
    try:
        yield catalog
    finally:
        await catalog.aclose()


class SqliteCatalog:
    """The port `Catalog` over SQLite; see there for what its methods promise. Made by `open_sqlite`."""

    def __init__(
        self,
        path: Path,
        writer: sqlite3.Connection,
        watch: sqlite3.Connection,
        durability: Durability,
        quota: Quota,
    ) -> None:
        self._path = path
        self._quota = quota
        self._committer = Committer(writer, path, durability)
        self._readers = Readers(path, _READERS)
        self._watch = watch
        self._closing = anyio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, durability: Durability, quota: Quota = UNBOUNDED) -> "SqliteCatalog":
        """As `open_sqlite`; whoever calls this closes it with `aclose`."""
        writer, watch = await anyio.to_thread.run_sync(_open, path)
        return cls(path, writer, watch, durability, quota)

    async def aclose(self) -> None:
        # A second caller waits for the first one. Only then is the file closed for both.
        with anyio.CancelScope(shield=True):
            async with self._closing:
                if self._closed:
                    return
                self._closed = True
                self._committer.refuse()
                await anyio.to_thread.run_sync(self._close, limiter=anyio.CapacityLimiter(1))

    def _close(self) -> None:
        self._readers.close()
        self._watch.close()
        # Last, as the last connection to close folds the log back into the file.
        self._committer.join()

    async def create(
        self,
        upload: Upload,
        *,
        room: int | None,
        parts: Sequence[str] = (),
        use: Use | None = None,
        asked: str | None = None,
    ) -> None:
        complete = upload.state is State.COMPLETE
        if upload.prefix != upload.received or upload.received != (upload.length if complete else 0):
            raise ValueError("a new upload has no bytes stored, or all of them if it is complete")

        def operation(connection: sqlite3.Connection) -> None:
            if asked is not None and (found := rows.find_asked(connection, asked)) is not None:
                raise Asked(found)
            if room is not None and upload.length:
                _check_room(connection, upload.length, room)
            if use is not None:
                grants.use(connection, use, upload.id)
            quotas.check(connection, self._quota, upload.owner, 0 if complete else 1, upload.length or 0)
            key = rows.insert(connection, upload, asked)
            if parts:
                connection.executemany(
                    "INSERT INTO part (final, place, part) VALUES (?, ?, ?)",
                    [(key, place, part) for place, part in enumerate(parts)],
                )
            if not complete:
                rows.append(connection, upload, "created", upload.created, None)
            else:
                rows.append(
                    connection, upload, "created", upload.created, None, state=State.RECEIVING, received=0, prefix=0
                )
                if upload.received:
                    stored.put(connection, key, 0, upload.received)
                rows.append(connection, upload, "complete", upload.created, State.RECEIVING)

        await self._committer.submit(operation, final=complete)

    async def used(self, grant: str) -> int:
        return await self._readers.look(lambda connection: grants.used(connection, grant))

    async def release(self, upload_id: str) -> None:
        await self._committer.submit(lambda connection: grants.release(connection, upload_id))

    async def set_length(
        self, upload_id: str, length: int, granule: int, *, room: int | None, now: float, expires: float | None
    ) -> Upload:
        def operation(connection: sqlite3.Connection) -> Upload:
            found = rows.find(connection, upload_id)
            if found is None or found[1].state is not State.RECEIVING:
                raise NotReceiving(None if found is None else found[1])
            key, old = found
            if old.length not in (None, length):
                raise ValueError(f"the length is {old.length} already, and cannot become {length}")
            if old.length is None:
                _, reach = next(stored.between(connection, key, length, LONGEST, 1), (0, 0))
                if reach > length:
                    raise ValueError(f"bytes are stored up to {reach}: the length cannot be {length}")
                if room is not None and length > old.received:
                    _check_room(connection, length - old.received, room)
                quotas.check(connection, self._quota, old.owner, 0, length - old.received)
            connection.execute(
                "UPDATE upload SET length = ?, granule = ?, updated = ?, expires = ? WHERE key = ?",
                (length, granule, now, expires, key),
            )
            return replace(old, length=length, granule=granule, updated=now, expires=expires)

        return await self._committer.submit(operation)

    async def parts(self, upload_id: str) -> Uploads:
        return await self._uploads(
            "JOIN part ON part.part = upload.id WHERE part.final = (SELECT key FROM upload WHERE id = :id)"
            " ORDER BY part.place",
            {"id": upload_id},
        )

    async def finals(self, part_id: str) -> Sequence[str]:
        def query(connection: sqlite3.Connection) -> Sequence[str]:
            found = connection.execute(
                "SELECT DISTINCT id FROM part CROSS JOIN upload ON upload.key = part.final"
                " WHERE part.part = ? AND upload.state = 'receiving'",
                (part_id,),
            )
            return [upload_id for (upload_id,) in found]

        return await self._readers.run(query)

    async def usage(self, owner: str | None) -> tuple[int, int]:
        return await self._readers.look(lambda connection: quotas.usage(connection, owner))

    async def left(self, owner: str | None) -> int | None:
        return await self._readers.look(lambda connection: quotas.left(connection, self._quota, owner))

    async def coming(self) -> int:
        return await self._readers.look(_coming)

    async def get(self, upload_id: str, /) -> Upload | None:
        found = await self._readers.look(lambda connection: rows.find(connection, upload_id))
        return None if found is None else found[1]

    async def whose(self, upload_id: str, /) -> Whose | None:
        return await self._readers.look(lambda connection: rows.whose(connection, upload_id))

    async def list(
        self,
        *,
        state: State | None = None,
        before: tuple[float, str] | None = None,
        limit: int,
        owner: str | None = None,
        projects: Sequence[str] | None = None,
    ) -> Uploads:
        # The words of the partial index, so that SQLite sees that it may use it.
        where = "state NOT IN ('expired', 'terminated')" if state is None else "state = :state"
        if before is not None:
            where += " AND (created, id) < (:created, :id)"
        created, last = before or (None, None)
        values = {"state": state, "created": created, "id": last, "limit": limit}
        order = "ORDER BY created DESC, id DESC LIMIT :limit"
        if owner is None and projects is None:
            return await self._uploads(f"WHERE {where} {order}", values)

        def query(connection: sqlite3.Connection) -> Uploads:
            # Each by its index; with OR between them SQLite would walk through the uploads of everybody.
            whose = [("owner", owner), *(("project", project) for project in projects or ())]
            found = [
                rows.select(connection, f"WHERE {column} = :whose AND {where} {order}", {**values, "whose": value})
                for column, value in whose
            ]
            distinct = {upload.id: upload for some in found for upload in some}
            return sorted(distinct.values(), key=lambda upload: (upload.created, upload.id), reverse=True)[:limit]

        return await self._readers.run(query)

    async def unfinished(self) -> Uploads:
        return await self._uploads("WHERE state IN ('receiving', 'verifying') ORDER BY created, id", {})

    async def expired(self, now: float, limit: int) -> Uploads:
        # CROSS JOIN is how SQLite is told which table to begin with: it would take every receiving upload for each.
        return await self._uploads(
            "INDEXED BY upload_by_expiry WHERE state NOT IN ('expired', 'terminated') AND state <> 'verifying'"
            " AND expires <= :now"
            " AND NOT EXISTS (SELECT 1 FROM part CROSS JOIN upload AS final ON final.key = part.final"
            " WHERE part.part = upload.id AND final.state = 'receiving')"
            " AND NOT EXISTS (SELECT 1 FROM part CROSS JOIN upload AS other ON other.id = part.part"
            " WHERE part.final = upload.key AND upload.state = 'receiving' AND other.expires > :now)"
            " ORDER BY expires LIMIT :limit",
            {"now": now, "limit": limit},
        )

    async def states(self, upload_ids: Sequence[str]) -> dict[str, State]:
        ids = json.dumps([*upload_ids])

        def query(connection: sqlite3.Connection) -> dict[str, State]:
            found = connection.execute(
                "SELECT id, state FROM upload WHERE id IN (SELECT value FROM json_each(?))", (ids,)
            )
            return {upload_id: State(state) for upload_id, state in found}

        return await self._readers.run(query)

    async def stored(self, upload_id: str, start: int, end: int, limit: int) -> Ranges:
        def query(connection: sqlite3.Connection) -> Ranges:
            found = rows.find(connection, upload_id)
            return [] if found is None else [*stored.between(connection, found[0], start, end, limit)]

        if limit == 1:
            return await self._readers.look(lambda connection: within(connection, query))
        return await self._readers.run(query)

    async def missing(self, upload_id: str, start: int, end: int, limit: int) -> tuple[Ranges, bool]:
        def query(connection: sqlite3.Connection) -> tuple[Ranges, bool]:
            key, upload = rows.known(connection, upload_id)
            return stored.gaps(connection, key, max(start, 0), min(end, upload.reach), limit)

        return await self._readers.run(query)

    async def commit(
        self,
        upload_id: str,
        ranges: Sequence[tuple[int, int]],
        *,
        now: float,
        expires: float | None,
        verify: bool = False,
        computed: tuple[Digest, ...] | None = None,
    ) -> Upload:
        ranges = tuple(ranges)

        def operation(connection: sqlite3.Connection) -> Upload:
            found = rows.find(connection, upload_id)
            if found is None or found[1].state is not State.RECEIVING:
                raise NotReceiving(None if found is None else found[1])
            key, upload = found
            prefix, received = upload.prefix, upload.received
            for start, end in ranges:
                if not 0 <= start <= end <= upload.reach:
                    raise ValueError(f"[{start}, {end}) is not a range within {upload.reach} bytes")
                if start < end:
                    new, first, last = stored.add(connection, key, start, end)
                    received += new
                    if first == 0:
                        prefix = last
            if upload.length is None:
                quotas.check(connection, self._quota, upload.owner, 0, received - upload.received)
            state = State.VERIFYING if verify and received == upload.length else upload.state
            changed = replace(
                upload,
                state=state,
                prefix=prefix,
                received=received,
                updated=now,
                expires=expires,
                computed=upload.computed if computed is None else computed,
                retries=upload.errors,
            )
            rows.advance(connection, key, changed)
            if state is State.VERIFYING:
                rows.append(connection, changed, "verifying", now, upload.state)
            return changed

        return await self._committer.submit(operation)

    async def finish(self, upload: Upload, *, now: float, expires: float | None) -> Upload:
        length = upload.length
        if not length:
            raise ValueError("an upload without bytes cannot have got all of them at once")

        def operation(connection: sqlite3.Connection) -> Upload:
            empty = rows.find_empty(connection, upload)
            if empty is None:
                found = rows.find(connection, upload.id)
                raise NotReceiving(None if found is None else found[1])
            key, errors = empty
            stored.put(connection, key, 0, length)
            new = replace(
                upload,
                state=State.COMPLETE,
                prefix=length,
                received=length,
                updated=now,
                expires=expires,
                errors=errors,
                retries=errors,
            )
            rows.advance(connection, key, new)
            rows.append(connection, new, "verifying", now, State.RECEIVING, state=State.VERIFYING)
            rows.append(connection, new, "complete", now, State.VERIFYING)
            return new

        return await self._committer.submit(operation, final=True)

    async def transition(
        self,
        upload_id: str,
        *,
        sources: Collection[State],
        to: State,
        now: float,
        expires: float | None,
        event: str,
        error: str | None = None,
        error_detail: str | None = None,
        expected: tuple[Digest, ...] | None = None,
        computed: tuple[Digest, ...] | None = None,
    ) -> Upload:
        def operation(connection: sqlite3.Connection) -> Upload:
            found = rows.find(connection, upload_id)
            if found is None or found[1].state not in sources:
                raise WrongState(None if found is None else found[1])
            key, old = found
            if to in (State.VERIFYING, State.COMPLETE) and not old.whole:
                raise ValueError(f"{old.received} of {old.length} bytes are stored: the upload cannot be {to}")
            new = replace(
                old,
                state=to,
                updated=now,
                expires=expires,
                error=old.error if error is None else error,
                error_detail=old.error_detail if error_detail is None else error_detail,
                expected=old.expected if expected is None else expected,
                computed=old.computed if computed is None else computed,
            )
            rows.update(connection, key, new)
            if to in TOMBSTONES:
                stored.drop(connection, key)
            rows.append(connection, new, event, now, old.state)
            return new

        return await self._committer.submit(operation, final=to is State.COMPLETE)

    async def record_digest(self, upload_id: str, digest: Digest, *, now: float) -> Upload:
        def operation(connection: sqlite3.Connection) -> Upload:
            key, old = rows.known(connection, upload_id)
            others = tuple(known for known in old.computed if known.algorithm != digest.algorithm)
            new = replace(old, computed=(*others, digest), updated=now)
            rows.update(connection, key, new)
            return new

        return await self._committer.submit(operation)

    async def fence(self, upload_id: str, start: int, end: int, *, now: float) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO fence (upload, start, stop, at) VALUES (?, ?, ?, ?)",
                (upload_id, start, end, now),
            )
            assert row.lastrowid is not None
            return row.lastrowid

        return await self._committer.submit(operation)

    async def fences(self, after: int) -> Sequence[Fence]:
        def query(connection: sqlite3.Connection) -> Sequence[Fence]:
            found = connection.execute(
                "SELECT seq, upload, start, stop FROM fence WHERE seq > ? ORDER BY seq", (after,)
            )
            return [Fence(seq, upload, start, end) for seq, upload, start, end in found]

        return await self._readers.look(query)

    async def standing(self, upload_id: str, start: int, end: int) -> Standing:
        def query(connection: sqlite3.Connection) -> Standing:
            found = rows.find(connection, upload_id)
            fence = rows.head(connection, "fence")
            if found is None:
                return Standing(None, fence, None)
            key, upload = found
            return Standing(upload, fence, next(stored.between(connection, key, start, end, 1), None))

        return await self._readers.look(lambda connection: within(connection, query))

    async def fence_head(self) -> int:
        return await self._readers.look(lambda connection: rows.head(connection, "fence"))

    async def record_failure(self, upload_id: str, *, now: float) -> Upload:
        def operation(connection: sqlite3.Connection) -> Upload:
            key, old = rows.known(connection, upload_id)
            connection.execute("UPDATE upload SET retries = errors, errors = errors + 1 WHERE key = ?", (key,))
            return replace(old, errors=old.errors + 1, retries=old.errors)

        return await self._committer.submit(operation)

    async def log(self) -> Log:
        return await self._readers.look(lambda connection: within(connection, news.log))

    async def events(self, after: int, limit: int, of: Watched | None = None) -> Sequence[Event]:
        return await self._readers.run(lambda connection: news.events(connection, after, limit, of))

    async def event_head(self) -> int:
        return await self._readers.look(lambda connection: rows.head(connection, "event"))

    async def trim(self, before: float, most: int) -> int:
        def trim_some(connection: sqlite3.Connection) -> int:
            return news.trim(connection, before, most, _PURGED_AT_ONCE)

        return await self._in_pieces(trim_some)

    async def add_samples(self, samples: Sequence[Sample], *, most: int) -> None:
        await self._committer.submit(lambda connection: news.add_samples(connection, samples, most))

    async def samples(self, upload_id: str, limit: int) -> Sequence[Sample]:
        return await self._readers.look(lambda connection: news.samples(connection, upload_id, limit))

    async def drop_samples(self, before: float) -> int:
        return await self._in_pieces(lambda connection: news.drop_samples(connection, before, _PURGED_AT_ONCE))

    async def moving(self, of: Watched, limit: int) -> Uploads:
        return await self._readers.run(lambda connection: news.moving(connection, of, limit))

    async def tally(self, of: Watched | None = None) -> Sequence[Tally]:
        return await self._readers.run(lambda connection: news.tally(connection, of))

    def version(self) -> int:
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise fault(error, self._path) from error

    async def purge(self, before: float) -> int:
        def forget_fences(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM fence WHERE at < ?", (before,))
            grants.purge(connection, before)

        def forget_some(connection: sqlite3.Connection) -> int:
            found = connection.execute(
                "DELETE FROM upload WHERE key IN (SELECT key FROM upload"
                " WHERE state IN ('expired', 'terminated') AND updated < ? ORDER BY updated LIMIT ?)"
                " RETURNING key",
                (before, _PURGED_AT_ONCE),
            ).fetchall()
            for (key,) in found:
                stored.drop(connection, key)
            return len(found)

        await self._committer.submit(forget_fences)
        return await self._in_pieces(forget_some)

    async def _in_pieces(self, some: Callable[[sqlite3.Connection], int]) -> int:
        """A piece at a time, so that a great many of them do not hold up the commits of others."""
        total = 0
        while (count := await self._committer.submit(some)) > 0:
            total += count
        return total

    async def _uploads(self, clause: str, values: dict[str, Any]) -> Uploads:
        return await self._readers.run(lambda connection: rows.select(connection, clause, values))


def _coming(connection: sqlite3.Connection) -> int:
    billions, units = connection.execute("SELECT billions, units FROM coming").fetchone()
    return int(billions * _BILLION + units)


def _check_room(connection: sqlite3.Connection, needed: int, room: int) -> None:
    free = max(0, room - _coming(connection))
    if needed > free:
        raise NoRoom(needed, free)


def _open(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    opened: list[sqlite3.Connection] = []
    try:
        opened.append(connect(path, write=True))
        prepare(opened[0], path)
        opened.append(connect(path, write=False))
        opened[1].execute("PRAGMA data_version")
    except BaseException as error:
        for connection in opened:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise fault(error, path) from error
        raise
    return opened[0], opened[1]
