"""The list of the transfers of all processes: what they are, how far they are, and what is wanted of them.

Rule of this file: a transfer has one row, whatever process runs it, and only the process that owns the row writes how
far it is. Orders are given by writing what is wanted; the owner looks several times a second. An owner that is gone is
known by its lock (journal_file.py): then the row is of a transfer that anybody may go on with.

The row has what is needed to run the transfer again, and nothing secret: of headers the names, of URLs neither query
nor user name nor password. Methods block for a disk access; any thread may call.
"""

import base64
import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from holdfast import errors
from holdfast.errors import HoldfastError, ServerRefused
from holdfast.journal_file import JournalFile
from holdfast.progress import State

Kind = Literal["upload", "download"]
Wanted = Literal["run", "pause", "cancel"]
Condition: TypeAlias = State | Literal["interrupted"]

INTERRUPTED: Final = "interrupted"
"""Seen of a transfer that had not ended when its process did."""
ID_LENGTH: Final = 10

_COLUMNS: Final = (
    "id, kind, source, target, options, key, owner, state, wanted, priority, size, accepted, failure, result, digest,"
    " created, updated"
)


class Asked(Struct, frozen=True):
    """What the caller asked for: a new row. `options` is what the call needs beside it; None: it cannot be repeated."""

    id: str
    kind: Kind
    source: str
    target: str
    priority: int = 0
    options: Mapping[str, Any] | None = None


class Step(Struct, frozen=True):
    """How far a transfer is, for its row."""

    id: str
    state: State
    size: int | None
    accepted: int
    priority: int
    known: Wanted
    """What was wanted of it, as far as its process knew."""
    wanted: Wanted
    """What is wanted of it now, by this process."""
    failure: HoldfastError | None = None
    result: str | None = None
    digest: str | None = None


class Row(Struct, frozen=True):
    """One transfer as the journal has it. Sizes in bytes, times in seconds since the epoch."""

    id: str
    kind: Kind
    source: str
    target: str
    options: Mapping[str, Any] | None
    key: str | None
    """Of the record that it goes on from (`Journal.find_upload`, `find_download`)."""
    state: State
    wanted: Wanted
    priority: int
    size: int | None
    accepted: int
    failure: Mapping[str, Any] | None
    """`type`, `code`, `message` and perhaps `status` of its error."""
    result: str | None
    """The URL of an upload, the path of a download, when it is complete."""
    digest: str | None
    """`ALG=HEX` of the whole file, when it is complete."""
    created: float
    updated: float
    mine: bool
    """It is a transfer of this process."""
    process: int | None
    """The number of the process that has it, None if that is gone."""

    @property
    def running(self) -> bool:
        """A living process has it, and it has not ended; it may be paused, or wait for its turn."""
        return self.process is not None and not self.state.final

    @property
    def condition(self) -> Condition:
        """Its state, or INTERRUPTED."""
        if self.process is None and not self.state.final and self.state is not State.PAUSED:
            return INTERRUPTED
        return self.state

    @property
    def error(self) -> HoldfastError | None:
        """The error that it failed with, as it was raised there."""
        if self.failure is None:
            return None
        kind: type[Any] = getattr(errors, str(self.failure.get("type")), HoldfastError)
        message, code = str(self.failure.get("message")), str(self.failure.get("code"))
        found: HoldfastError
        if issubclass(kind, ServerRefused):
            found = kind(message, status=int(self.failure.get("status") or 0))
        else:
            found = kind(message) if issubclass(kind, HoldfastError) else HoldfastError(message)
        found.code = code
        return found


def transfer_id(*said: object) -> str:
    """A short name that is always the same for the same words: ten letters and digits that are not mixed up."""
    digest = hashlib.sha256(json.dumps(said, default=repr).encode()).digest()
    return base64.b32encode(digest).decode()[:ID_LENGTH].lower()


def nobodys(url: str) -> str:
    """A URL without user name and password: who asks for it makes it no other, and a password can be guessed from what
    was made of it.
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def bare(url: str) -> str:
    """A URL without what may be secret: user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shown(name: str | os.PathLike[str]) -> str:
    """A path, or another name, as text that can be written anywhere."""
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Ledger:
    """The rows of one journal. `clock` tells the seconds since the epoch."""

    def __init__(self, file: JournalFile, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._guard = threading.Lock()
        self._noted: dict[str, Asked] = {}

    # The owner's part

    def note(self, asked: Asked) -> None:
        """A transfer of this process begins. Returns at once; it is written down with the next change."""
        with self._guard:
            self._noted[asked.id] = asked

    def keep(self, steps: Iterable[Step]) -> None:
        """Write down how far transfers of this process are. A loss of power undoes it, and harms nobody."""
        now = self._clock()
        with self._file.transaction(durable=False) as db:
            self._write_noted(db, now)
            db.executemany(
                "UPDATE transfer SET state = ?, size = coalesce(?, size), accepted = ?, priority = ?, failure = ?,"
                " result = coalesce(?, result), digest = coalesce(?, digest), updated = ?,"
                " wanted = CASE WHEN wanted = ? THEN ? ELSE wanted END WHERE id = ? AND owner = ?",
                [
                    (
                        step.state,
                        step.size,
                        step.accepted,
                        step.priority,
                        _said(step.failure),
                        step.result,
                        step.digest,
                        now,
                        step.known,
                        step.wanted,
                        step.id,
                        self._file.owner,
                    )
                    for step in steps
                ],
            )

    def claim(self, id_: str, key: str) -> None:
        """This process holds the lock of a transfer: its row is this one's, whoever had it before."""
        now = self._clock()
        with self._file.transaction(durable=False) as db:
            self._write_noted(db, now)
            db.execute(
                "UPDATE transfer SET wanted = CASE WHEN owner = ? THEN wanted ELSE 'run' END, owner = ?, key = ?,"
                " state = ?, failure = NULL, updated = ? WHERE id = ?",
                (self._file.owner, self._file.owner, key, State.STARTING, now, id_),
            )

    def version(self) -> int:
        """A number that changes when another process has written."""
        return self._file.version()

    def wishes(self) -> dict[str, Wanted]:
        """What is wanted of the transfers of this process that have not ended, by id."""
        mine = "SELECT id, wanted FROM transfer WHERE owner = ? AND state NOT IN (?, ?, ?)"
        return dict(self._file.rows(mine, (self._file.owner, *_FINAL)))

    # Everybody's part

    def rows(self) -> Sequence[Row]:
        """All of them, the oldest first."""
        return self._rows("ORDER BY created, id")

    def find(self, start: str) -> Sequence[Row]:
        """Those whose id begins with `start`: one, if it is long enough."""
        return self._rows("WHERE substr(id, 1, ?) = ? ORDER BY created, id", len(start), start.lower())

    def find_key(self, key: str) -> Row | None:
        """The newest one with that key that another process has."""
        rows = self._rows("WHERE key = ? AND owner <> ? ORDER BY updated DESC LIMIT 1", key, self._file.owner)
        return rows[0] if rows else None

    def want(self, id_: str, wanted: Wanted) -> None:
        """Tell the process that has a transfer what to do with it. On the disk when this returns."""
        self._file.write("UPDATE transfer SET wanted = ? WHERE id = ?", wanted, id_)

    def call_off(self, id_: str) -> None:
        """A transfer that no process has is cancelled."""
        self._file.write(
            "UPDATE transfer SET state = ?, wanted = 'cancel', updated = ? WHERE id = ?",
            State.CANCELLED,
            self._clock(),
            id_,
        )

    def forget(self, id_: str) -> None:
        """Remove a row."""
        self._file.write("DELETE FROM transfer WHERE id = ?", id_)

    def _rows(self, rest: str, *values: object) -> list[Row]:
        found = self._look(rest, *values)
        if any(row.process is None and not row.state.final for row in found):
            # A process may have ended between the look at its row and that at itself: now its last word is there.
            found = self._look(rest, *values)
        return found

    def _look(self, rest: str, *values: object) -> list[Row]:
        processes: dict[str, int | None] = {}
        found = []
        for row in self._file.rows(f"SELECT {_COLUMNS} FROM transfer {rest}", values):  # noqa: S608 - `rest` is ours
            owner = row[6]
            if owner not in processes:
                processes[owner] = self._file.alive(owner)
            # A row that makes no sense (a damaged page) is one that nobody knows.
            with contextlib.suppress(ValueError):
                found.append(self._row(row, processes[owner]))
        return found

    def _row(self, row: tuple[Any, ...], process: int | None) -> Row:
        id_, kind, source, target, options, key, owner, state, wanted, priority, size, accepted, failure = row[:13]
        result, digest, created, updated = row[13:]
        return Row(
            id=id_,
            kind=kind,
            source=source,
            target=target,
            options=None if options is None else json.loads(options),
            key=key,
            state=State(state),
            wanted=wanted,
            priority=priority,
            size=size,
            accepted=accepted,
            failure=None if failure is None else json.loads(failure),
            result=result,
            digest=digest,
            created=created,
            updated=updated,
            mine=owner == self._file.owner,
            process=process,
        )

    def _write_noted(self, db: sqlite3.Connection, now: float) -> None:
        """Inside a transaction: the rows of transfers that have begun. One that another living process has stays so."""
        with self._guard:
            noted, self._noted = self._noted, {}
        owner = self._file.owner
        for each in noted.values():
            found = db.execute("SELECT owner, state FROM transfer WHERE id = ?", (each.id,)).fetchone()
            if found is not None and found[0] != owner and found[1] not in _FINAL and self._file.alive(found[0]):
                continue
            options = None if each.options is None else json.dumps(each.options)
            values = (each.kind, each.source, each.target, options, owner, State.PENDING, each.priority, now)
            db.execute(
                "INSERT INTO transfer (kind, source, target, options, owner, state, priority, updated, id, created,"
                " wanted, accepted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'run', 0) ON CONFLICT (id) DO UPDATE SET"
                " kind = excluded.kind, source = excluded.source, target = excluded.target, options = excluded.options,"
                " owner = excluded.owner, state = excluded.state, priority = excluded.priority, wanted = 'run',"
                " updated = excluded.updated, failure = NULL, result = NULL, digest = NULL",
                (*values, each.id, now),
            )


_FINAL: Final = tuple(str(state) for state in State if state.final)


def _said(error: HoldfastError | None) -> str | None:
    """An error for the journal."""
    if error is None:
        return None
    said = {"type": type(error).__name__, "code": error.code, "message": error.message}
    if isinstance(error, ServerRefused):
        said["status"] = str(error.status)
    return json.dumps(said)
