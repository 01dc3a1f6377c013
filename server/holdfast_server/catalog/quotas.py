"""What all uploads together, and those of one owner, may come to: looked at in the transaction that adds to it.

Rule of this file: a quota holds exactly, however many requests and processes race for what is left of it, because
what there is and what is added are looked at under the one lock that writing has. What a receiving upload has still
coming counts from the beginning, as if it were here; that of an upload of unknown length counts as it comes. All of it
runs within the transaction of the caller and raises sqlite3.Error.
"""

import sqlite3
from typing import Final

from holdfast_server.catalog.base import OverQuota, Quota

_BILLION: Final = 1_000_000_000
_NOTHING: Final = (0, 0, 0)


def usage(connection: sqlite3.Connection, owner: str | None) -> tuple[int, int]:
    """How many uploads are not finished, and how many bytes all come to: of an owner, or in all."""
    if owner is None:
        found = connection.execute("SELECT open, billions, units FROM total").fetchone()
    else:
        found = connection.execute("SELECT open, billions, units FROM usage WHERE owner = ?", (owner,)).fetchone()
    count, billions, units = found or _NOTHING
    return count, billions * _BILLION + units


def check(connection: sqlite3.Connection, quota: Quota, owner: str | None, uploads: int, size: int) -> None:
    """Raises OverQuota if so many more uploads and bytes of this owner would be too many. Less is always welcome."""
    _check(connection, None, quota.uploads, quota.stored, uploads, size)
    if owner is not None:
        _check(connection, owner, quota.owner_uploads, quota.owner_stored, uploads, size)


def left(connection: sqlite3.Connection, quota: Quota, owner: str | None) -> int | None:
    """How many bytes more this owner may have; None: any number."""
    found = [
        most - usage(connection, whose)[1]
        for whose, most in ((None, quota.stored), (owner, quota.owner_stored if owner is not None else None))
        if most is not None
    ]
    return max(0, min(found)) if found else None


def _check(
    connection: sqlite3.Connection,
    owner: str | None,
    most_uploads: int | None,
    most_stored: int | None,
    uploads: int,
    size: int,
) -> None:
    counts, measures = most_uploads is not None and uploads > 0, most_stored is not None and size > 0
    if not (counts or measures):
        return
    count, stored = usage(connection, owner)
    if most_uploads is not None and counts and count + uploads > most_uploads:
        raise OverQuota("uploads", owner, most_uploads, count, uploads)
    if most_stored is not None and measures and stored + size > most_stored:
        raise OverQuota("bytes", owner, most_stored, stored, size)
