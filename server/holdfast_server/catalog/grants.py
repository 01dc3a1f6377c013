"""Which uploads were made by which grant, so that none makes more than it may.

Rule of this file: a use counts for as long as the grant is good, whatever becomes of the upload, unless that was
removed before it had received a byte: then the answer that told of it was probably never heard. All of it runs within
the transaction of the caller and raises sqlite3.Error.
"""

import sqlite3

from holdfast_server.catalog.base import Spent, Use


def used(connection: sqlite3.Connection, grant: str) -> int:
    """How many uploads a grant has made for good: the next one would take the place of none of them."""
    (count,) = connection.execute(
        "SELECT count(*) FROM use LEFT JOIN upload ON upload.id = use.upload WHERE use.name = ?"
        " AND NOT (ifnull(upload.received, 1) = 0 AND upload.state IN ('receiving', 'expired', 'terminated'))",
        (grant,),
    ).fetchone()
    return int(count)


def use(connection: sqlite3.Connection, wanted: Use, upload_id: str) -> None:
    """Write down a use. Raises Spent."""
    (count,) = connection.execute(
        "SELECT count(*) FROM use LEFT JOIN upload ON upload.id = use.upload WHERE use.name = ?"
        " AND NOT (ifnull(upload.received, 1) = 0 AND upload.state IN ('expired', 'terminated'))",
        (wanted.grant,),
    ).fetchone()
    if count >= wanted.most:
        empty = connection.execute(
            "SELECT upload.id FROM use JOIN upload ON upload.id = use.upload"
            " WHERE use.name = ? AND upload.received = 0 AND upload.state = 'receiving'"
            " ORDER BY upload.created LIMIT 1",
            (wanted.grant,),
        ).fetchone()
        raise Spent(None if empty is None else empty[0])
    connection.execute(
        "INSERT INTO use (name, upload, until) VALUES (?, ?, ?)", (wanted.grant, upload_id, wanted.until)
    )


def release(connection: sqlite3.Connection, upload_id: str) -> None:
    """Forget the use that an upload was."""
    connection.execute("DELETE FROM use WHERE upload = ?", (upload_id,))


def purge(connection: sqlite3.Connection, before: float) -> None:
    """Forget the uses of grants that were over by then."""
    connection.execute("DELETE FROM use WHERE until < ?", (before,))
