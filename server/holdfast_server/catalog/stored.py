"""The stored ranges of an upload, kept merged in a table.

Rule of this file: the ranges of one upload are disjoint and do not touch, before and after every call. So the
one run that covers an offset, or the gaps behind it, are found by one descent into the tree, and no call
reads more rows than it answers, merges away, and two. All of it runs within the transaction of the caller and
raises sqlite3.Error.
"""

import sqlite3
from collections.abc import Iterator


def add(connection: sqlite3.Connection, upload: int, start: int, end: int) -> tuple[int, int, int]:
    """Add `[start, end)`, not empty, to the ranges of an upload, merging it with all that it overlaps or
    touches.

    Answers how many of its bytes are new, and the start and the end of the run that it is part of now.
    """
    first, last, new, merged = start, end, end - start, 0
    for have_start, have_end in connection.execute(
        "SELECT start, stop FROM stored WHERE upload = ? AND start <= ? ORDER BY start DESC", (upload, end)
    ):
        if have_end < start:
            break
        new -= min(have_end, end) - max(have_start, start)
        first, last = min(first, have_start), max(last, have_end)
        merged += 1
    if new == 0:
        return 0, first, last
    if merged > 1 or (merged == 1 and first == start):
        connection.execute("DELETE FROM stored WHERE upload = ? AND start > ? AND start <= ?", (upload, first, end))
    put(connection, upload, first, last)
    return new, first, last


def put(connection: sqlite3.Connection, upload: int, start: int, end: int) -> None:
    """As `add`, where it is known that none of the other ranges overlaps this one or touches it, but for one that
    begins where it does and ends before it.
    """
    connection.execute(
        "INSERT INTO stored VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET stop = excluded.stop", (upload, start, end)
    )


def between(connection: sqlite3.Connection, upload: int, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """The first `limit` ranges that have bytes in `[start, end)`, clipped to it, ascending."""
    rows = connection.execute(
        "SELECT max(start, :start), min(stop, :end) FROM stored"
        " WHERE upload = :upload AND start < :end AND stop > :start AND start >="
        " ifnull((SELECT max(start) FROM stored WHERE upload = :upload AND start <= :start), :start)"
        " ORDER BY start LIMIT :limit",
        {"upload": upload, "start": start, "end": end, "limit": limit},
    )
    yield from rows


def gaps(
    connection: sqlite3.Connection, upload: int, start: int, end: int, limit: int
) -> tuple[list[tuple[int, int]], bool]:
    """The first `limit` gaps in `[start, end)`, and whether there are more."""
    found: list[tuple[int, int]] = []
    position = start
    # Every range but the first ends a gap, so that this many show one gap more than asked for, if there is
    # one.
    for have_start, have_end in between(connection, upload, start, end, limit + 2):
        if have_start > position:
            found.append((position, have_start))
        position = have_end
    if position < end:
        found.append((position, end))
    return found[:limit], len(found) > limit


def drop(connection: sqlite3.Connection, upload: int) -> None:
    """Forget all ranges of an upload, and what it was to be put together from."""
    connection.execute("DELETE FROM stored WHERE upload = ?", (upload,))
    connection.execute("DELETE FROM part WHERE final = ?", (upload,))
