"""The log of events and the samples of progress, read, thinned out and trimmed.

Rule of this file: both are bounded. Events are taken from the log at its old end only, and where it begins then is
written down in the same transaction, so that whoever reads on from an older place can be told. All of it runs within
the transaction of the caller and raises sqlite3.Error.
"""

import json
import sqlite3
from collections.abc import Sequence

from holdfast_server.catalog import rows
from holdfast_server.catalog.base import Event, Log, Sample, Tally, Watched
from holdfast_server.uploads.upload import State, Upload

_CLOSEST = 0.9
"""Seconds between two samples of an upload, at least."""


def log(connection: sqlite3.Connection) -> Log:
    epoch, floor = connection.execute("SELECT epoch, floor FROM log").fetchone()
    return Log(epoch, floor, rows.head(connection, "event"))


def events(connection: sqlite3.Connection, after: int, limit: int, of: Watched | None) -> Sequence[Event]:
    clause, values = ("", {}) if of is None else _of(of, "upload")
    found = connection.execute(
        f"SELECT seq, upload, type, at, data, owner, project FROM event WHERE seq > :after{clause}"  # noqa: S608
        " ORDER BY seq LIMIT :limit",
        {"after": after, "limit": limit, **values},
    )
    return [
        Event(seq, upload, kind, at, json.loads(data), owner, project)
        for seq, upload, kind, at, data, owner, project in found
    ]


def trim(connection: sqlite3.Connection, before: float, most: int, limit: int) -> int:
    """Take at most `limit` events from the old end; how many."""
    floor = connection.execute("SELECT floor FROM log").fetchone()[0]
    head = rows.head(connection, "event")
    old = connection.execute("SELECT seq, at FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (floor, limit)).fetchall()
    last = floor
    for seq, at in old:
        if at >= before and seq > head - most:
            break
        last = seq
    if last == floor:
        return 0
    connection.execute("UPDATE log SET floor = ?", (last,))
    return connection.execute("DELETE FROM event WHERE seq <= ?", (last,)).rowcount


def add_samples(connection: sqlite3.Connection, samples: Sequence[Sample], most: int) -> None:
    """See `Catalog.add_samples`."""
    for sample in samples:
        found = rows.find(connection, sample.upload)
        if found is None:
            continue
        key = found[0]
        count, first, last = connection.execute(
            "SELECT count(*), min(at), max(at) FROM sample WHERE upload = ?", (key,)
        ).fetchone()
        if count and sample.at - last < max(_CLOSEST, (sample.at - first) / most):
            if sample.state == State.RECEIVING:
                continue
            connection.execute("DELETE FROM sample WHERE upload = ? AND at = ?", (key, last))  # the end is always there
        elif count >= most:
            connection.execute(
                "DELETE FROM sample WHERE upload = :key AND at IN (SELECT at FROM"
                " (SELECT at, row_number() OVER (ORDER BY at) AS place FROM sample WHERE upload = :key)"
                " WHERE place % 2 = 0)",
                {"key": key},
            )
        connection.execute(
            "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                sample.at,
                sample.state,
                sample.step,
                sample.received,
                sample.arriving,
                sample.speed,
                sample.errors,
                sample.retries,
            ),
        )


def samples(connection: sqlite3.Connection, upload_id: str, limit: int) -> Sequence[Sample]:
    """The newest `limit`, ascending."""
    found = connection.execute(
        "SELECT at, state, step, received, arriving, speed, errors, retries FROM sample"
        " WHERE upload = (SELECT key FROM upload WHERE id = ?) ORDER BY at DESC LIMIT ?",
        (upload_id, limit),
    ).fetchall()
    return [Sample(upload_id, at, State(state), *rest) for at, state, *rest in reversed(found)]


def drop_samples(connection: sqlite3.Connection, before: float, limit: int) -> int:
    return connection.execute(
        "DELETE FROM sample WHERE (upload, at) IN (SELECT upload, at FROM sample WHERE at < ? LIMIT ?)",
        (before, limit),
    ).rowcount


def moving(connection: sqlite3.Connection, of: Watched, limit: int) -> list[Upload]:
    """Unfinished uploads, those first that were touched last."""
    clause, values = _of(of, "id")
    return rows.select(
        connection,
        f"WHERE state IN ('receiving', 'verifying'){clause} ORDER BY updated DESC LIMIT :limit",
        {"limit": limit, **values},
    )


def tally(connection: sqlite3.Connection, of: Watched | None) -> Sequence[Tally]:
    clause, values = ("", {}) if of is None else _of(of, "id")
    found = connection.execute(
        # As floating-point numbers: a handful of the longest uploads would overflow an integer.
        f"SELECT state, count(*), total(received), total(length) FROM upload WHERE true{clause} GROUP BY state",  # noqa: S608
        values,
    )
    return [Tally(State(state), count, int(received), int(length)) for state, count, received, length in found]


def _of(of: Watched, upload: str) -> tuple[str, dict[str, object]]:
    """A clause that holds for what is watched, and its values."""
    if of.all:
        return "", {}
    clauses: list[str] = []
    values: dict[str, object] = {}
    for column, names in ((upload, of.uploads), ("owner", of.owners), ("project", of.projects)):
        if names:
            clauses.append(f"{column} IN (SELECT value FROM json_each(:of_{column}))")  # noqa: S608
            values[f"of_{column}"] = json.dumps(sorted(names))
    return f" AND ({' OR '.join(clauses) or 'false'})", values
