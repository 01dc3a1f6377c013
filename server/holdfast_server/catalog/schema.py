"""The schema of the SQLite catalog, and how a file is brought to it.

Rule of this file: the schema is what the numbered files in `migrations/` make of an empty database, applied
in order, each once. `PRAGMA user_version` is the number of the last one. A file that has been released is
never edited: the next change is the next number.
"""

import importlib.resources
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdfast_server.catalog.base import Incompatible
from holdfast_server.catalog.connections import BUSY_SECONDS

_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_WAL_LIMIT: Final = 64 * 1024 * 1024


def migrations() -> dict[int, str]:
    """The SQL of each migration by its number, ascending from 1 without a gap."""
    folder = importlib.resources.files("holdfast_server.catalog").joinpath("migrations")
    found = {int(m[1]): f.read_text("utf-8") for f in folder.iterdir() if (m := _FILE.fullmatch(f.name))}
    if sorted(found) != list(range(1, len(found) + 1)):
        raise RuntimeError(f"the migrations are not numbered from 1 without a gap: {sorted(found)}")
    return dict(sorted(found.items()))


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database to the newest schema, in WAL mode. Several processes may do this at once.

    Blocks on the disk, and on another process for at most about ten seconds. Raises Incompatible if the
    database is newer than the migrations here, and sqlite3.Error.
    """
    _enter_wal(connection)
    # Once a burst has let the WAL grow, it is cut back to this many bytes at the next checkpoint.
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
    known = migrations()
    if _version(connection) == len(known):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(known):
            raise Incompatible(
                f"{path} has schema {version}, and this version of Holdfast knows {len(known)} at most: "
                "it was used by a newer version; install that one again"
            )
        for number in range(version + 1, len(known) + 1):
            for statement in statements(known[number]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """The statements of a script whose lines end statements. (`executescript` would commit before it
    begins.)"""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--.*", "", statement).strip():
        raise ValueError(f"the script ends within a statement: {statement!r}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _enter_wal(connection: sqlite3.Connection) -> None:
    # The change to WAL fails at once when two processes try it together: SQLite does not call the busy
    # handler there, as waiting could be a deadlock. So this waits itself.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
