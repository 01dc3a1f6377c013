"""Rows of the SQLite catalog: how an upload and an event are written into one and read back.

Rule of this file: the order of the columns and the shape of a digest in the file are known here and in the migrations,
and nowhere else. All of it runs within the transaction of the caller and raises sqlite3.Error.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, Literal

from holdfast_protocol.digest import Digest
from holdfast_server.catalog.base import Duplicate, UnknownUpload, Whose
from holdfast_server.uploads.upload import State, Upload

_SNAPSHOT: Final = (
    "SELECT key, id, state, length, parallel, granule, concat, metadata, name, created, updated, expires,"
    " expected, wanted, computed, prefix, received, error, error_detail, owner, project, errors, retries FROM upload "
)


_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def find(connection: sqlite3.Connection, upload_id: str) -> tuple[int, Upload] | None:
    """The key and the snapshot of an upload."""
    row = connection.execute(_SNAPSHOT + "WHERE id = ?", (upload_id,)).fetchone()
    return None if row is None else (row[0], _upload(row))


def whose(connection: sqlite3.Connection, upload_id: str) -> Whose | None:
    """For an upload that is not there another row is read, and not answered: so both take as long."""
    row = connection.execute(
        "SELECT id, owner, project FROM upload"
        " WHERE key = ifnull((SELECT key FROM upload WHERE id = ?), (SELECT max(key) FROM upload))",
        (upload_id,),
    ).fetchone()
    return Whose(*row) if row is not None and row[0] == upload_id else None


def known(connection: sqlite3.Connection, upload_id: str) -> tuple[int, Upload]:
    """As `find`, for an upload that is there; raises UnknownUpload."""
    found = find(connection, upload_id)
    if found is None:
        raise UnknownUpload(upload_id)
    return found


def select(connection: sqlite3.Connection, clause: str, values: Mapping[str, object]) -> list[Upload]:
    """The uploads that a clause (WHERE, ORDER BY, LIMIT) picks."""
    return [_upload(row) for row in connection.execute(_SNAPSHOT + clause, values)]


def find_empty(connection: sqlite3.Connection, upload: Upload) -> tuple[int, int] | None:
    """The key of an upload and how many errors it has had, if it has no byte yet and is still the one that is meant."""
    row: tuple[int, int] | None = connection.execute(
        "SELECT key, errors FROM upload WHERE id = ? AND state = 'receiving' AND received = 0 AND length = ?"
        " AND expected IS ? AND wanted IS ?",
        (upload.id, upload.length, digests_text(upload.expected), upload.wanted),
    ).fetchone()
    return row


def find_asked(connection: sqlite3.Connection, asked: str) -> Upload | None:
    """The upload that was asked for by that key, if it has not failed, expired or been removed."""
    row = connection.execute(
        _SNAPSHOT + "WHERE asked = ? AND (state IN ('receiving', 'verifying') OR state = 'complete')", (asked,)
    ).fetchone()
    return None if row is None else _upload(row)


def insert(connection: sqlite3.Connection, upload: Upload, asked: str | None = None) -> int:
    """Add an upload, and the key that it was asked for by; its key in the table. Raises Duplicate."""
    try:
        row = connection.execute(
            "INSERT INTO upload (id, state, length, parallel, granule, concat, metadata, name, created, updated,"
            " expires, expected, wanted, computed, prefix, received, error, error_detail, owner, project, asked)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                upload.id,
                upload.state,
                upload.length,
                upload.parallel,
                upload.granule,
                upload.concat,
                upload.metadata,
                upload.name,
                upload.created,
                upload.updated,
                upload.expires,
                digests_text(upload.expected),
                upload.wanted,
                digests_text(upload.computed),
                upload.prefix,
                upload.received,
                upload.error,
                upload.error_detail,
                upload.owner,
                upload.project,
                asked,
            ),
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            raise Duplicate(upload.id) from error
        raise
    assert row.lastrowid is not None
    return row.lastrowid


def update(connection: sqlite3.Connection, key: int, upload: Upload) -> None:
    """Write everything of an upload that may change, but for its bytes."""
    connection.execute(
        "UPDATE upload SET state = ?, updated = ?, expires = ?, error = ?, error_detail = ?, expected = ?,"
        " computed = ? WHERE key = ?",
        (
            upload.state,
            upload.updated,
            upload.expires,
            upload.error,
            upload.error_detail,
            digests_text(upload.expected),
            digests_text(upload.computed),
            key,
        ),
    )


def advance(connection: sqlite3.Connection, key: int, upload: Upload) -> None:
    """Write what changes of an upload when it gets bytes. All failures before it count as tried again."""
    connection.execute(
        "UPDATE upload SET state = ?, prefix = ?, received = ?, updated = ?, expires = ?, computed = ?,"
        " retries = errors WHERE key = ?",
        (
            upload.state,
            upload.prefix,
            upload.received,
            upload.updated,
            upload.expires,
            digests_text(upload.computed),
            key,
        ),
    )


def append(
    connection: sqlite3.Connection,
    upload: Upload,
    event: str,
    at: float,
    previous: State | None,
    *,
    state: State | None = None,
    received: int | None = None,
    prefix: int | None = None,
) -> None:
    """Append to the event log what an upload is now; the named values are those that were others at that time."""
    # Put together here, because `json` makes an encoder anew for each: nobody else can write as long as this takes.
    # States need no escapes, and JSON has finite floats as `repr` does.
    data = (
        f'{{"state": "{state or upload.state}", "previous": {_quoted(previous)}, "name": {_quoted(upload.name)},'
        f' "length": {"null" if upload.length is None else upload.length},'
        f' "received": {upload.received if received is None else received},'
        f' "prefix": {upload.prefix if prefix is None else prefix}, "created": {upload.created!r},'
        f' "errors": {upload.errors}, "retries": {upload.retries}'
    )
    if upload.error is not None:
        data += f', "error": {_quoted(upload.error)}, "error_detail": {_quoted(upload.error_detail)}'
    connection.execute(
        "INSERT INTO event (upload, type, at, data, owner, project) VALUES (?, ?, ?, ?, ?, ?)",
        (upload.id, event, at, data + "}", upload.owner, upload.project),
    )


def head(connection: sqlite3.Connection, table: Literal["event", "fence"]) -> int:
    """The highest number that was ever given in a numbered table, 0 if none was."""
    # Not max(seq): that falls when rows are purged.
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])


def _upload(row: tuple[Any, ...]) -> Upload:
    _, upload_id, state, length, parallel, granule, concat, metadata, name, created, updated, *rest = row
    expires, expected, wanted, computed, prefix, received, error, error_detail, owner, project, errors, retries = rest
    return Upload(
        id=upload_id,
        state=State(state),
        length=length,
        parallel=bool(parallel),
        granule=granule,
        concat=concat,
        metadata=metadata,
        name=name,
        created=created,
        updated=updated,
        expires=expires,
        expected=_digests(expected),
        wanted=wanted,
        computed=_digests(computed),
        prefix=prefix,
        received=received,
        error=error,
        error_detail=error_detail,
        owner=owner,
        project=project,
        errors=errors,
        retries=retries,
    )


def _quoted(text: str | None) -> str:
    return "null" if text is None else _encode(text)


def digests_text(digests: tuple[Digest, ...]) -> str | None:
    """How digests are written down; None if there is none."""
    if not digests:
        return None
    return "[" + ", ".join([f'["{digest.algorithm}", "{digest.hex}"]' for digest in digests]) + "]"


def _digests(text: str | None) -> tuple[Digest, ...]:
    if text is None:
        return ()
    return tuple(Digest(algorithm, bytes.fromhex(value)) for algorithm, value in json.loads(text))
