"""A file that comes in one piece, and is small enough to be held in memory.

Rule of this file: nothing is begun before all of the bytes are here and their digests are verified, and what is begun
is finished whether or not somebody still waits for it. A new upload is stored and published before the catalog
hears of it, in one transaction: nobody knows its id, and whoever recovers sees that its file is held. One that is
known to others goes the way of every upload, in as few steps as there can be: stored, `verifying`, published,
`complete`.
"""

from dataclasses import replace
from typing import Final

import anyio

from holdfast_protocol import server as rules
from holdfast_protocol.digest import Digest, hasher
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError, NoRoom
from holdfast_server.uploads import types
from holdfast_server.uploads.completion import mismatch, publish, verified
from holdfast_server.uploads.core import Core, is_full, no_room, no_space
from holdfast_server.uploads.frontier import algorithms
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import TURN

MOST: Final = 64 * 1024
"""Bytes: to hash so many on the event loop takes less than to wake a thread."""


def is_whole(upload: Upload, wanted: rules.Append, data: bytes) -> bool:
    """Is this body all of the file, and small?"""
    return (
        0 < len(data) <= MOST
        and len(data) == upload.length == wanted.content_length
        and wanted.offset == 0 == upload.received
        and wanted.completes is not False
        and not (wanted.trailer or upload.partial)
    )


async def create(core: Core, upload: Upload, wanted: rules.Append, data: bytes) -> Upload:
    """Adds a complete upload; `upload` is what it would be without its bytes.

    Raises ProblemError: `checksum-mismatch`, `digest-mismatch`, `upload-digest-mismatch`, `type-not-allowed`,
    `insufficient-storage`.
    """
    _check_body(upload, wanted, data)
    types.check_bytes(core.settings, upload.name, data)
    found = _stored(upload, data)
    if not verified(found):
        raise mismatch(found)
    made = replace(found, state=State.COMPLETE, expires=core.kept_until())
    free = core.free()
    core.check_room(made.received)
    with anyio.CancelScope(shield=True):
        try:
            piece = await core.storage.deposit(made.id, made.name, data)
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
        try:
            await core.catalog.create(made, room=None if core.settings.overcommit else free)
        except NoRoom as error:
            await core.storage.remove(made.id, made.name)
            raise no_room(error) from None
        except (OSError, CatalogError):
            await core.storage.remove(made.id, made.name)
            raise
        finally:
            piece.release()
    return made


async def append(core: Core, upload: Upload, wanted: rules.Append, data: bytes) -> Upload | None:
    """Completes an upload that has no bytes yet. None if somebody else is at it, or was: nothing has changed then."""
    _check_body(upload, wanted, data)
    core.check_room(len(data))
    done = None
    with anyio.CancelScope(shield=True):
        try:
            done = await _append(core, upload.id, wanted, data)
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
    return done


async def _append(core: Core, upload_id: str, wanted: rules.Append, data: bytes) -> Upload | None:
    reservation = await core.storage.fill(upload_id, TURN + 1, data)
    if reservation is None:
        return None
    try:
        upload = core.receiving(await core.catalog.get(upload_id))
        found = _stored(upload, data)
        taken = types.takes(core.settings, upload.name, data)
        if not (is_whole(upload, wanted, data) and verified(found) and taken):
            reservation.clear()
            return None
        upload = await core.catalog.commit(
            upload.id,
            [(0, len(data))],
            now=core.now(),
            expires=core.expiry(),
            verify=True,
            computed=found.computed,
        )
        return await publish(core, upload)
    finally:
        reservation.release()


def _check_body(upload: Upload, wanted: rules.Append, data: bytes) -> None:
    """T-CHECKSUM-1, I-DIGEST-1."""
    digests = wanted.digests if wanted.checksum is None else (wanted.checksum, *wanted.digests)
    if any(_digest(digest.algorithm, data) != digest for digest in digests):
        raise ProblemError(
            "digest-mismatch" if wanted.checksum is None else "checksum-mismatch",
            "The body was changed on its way: nothing of it is stored. Send it again.",
            headers=rules.progress_fields(upload),
        )


def _stored(upload: Upload, data: bytes) -> Upload:
    """The upload with these bytes, and its digests computed."""
    size = len(data)
    computed = tuple(_digest(name, data) for name in sorted(algorithms(upload)))
    return replace(upload, prefix=size, received=size, computed=(*upload.computed, *computed))


def _digest(algorithm: str, data: bytes) -> Digest:
    computing = hasher(algorithm)
    computing.update(data)
    return Digest(algorithm, computing.digest())
