"""A file that comes in one piece, and is small enough to be held in memory.

Rule of this file: nothing is begun before all of the bytes are here and their digests are verified, and what is begun
is finished whether or not somebody still waits for it. The file is stored and published before the catalog hears of
it, in one transaction: whoever recovers sees that it is held, and nobody else can write to its upload. If its process
dies in between, the catalog is right: the upload has no bytes, and whoever recovers takes the file away.
"""

from typing import Any, Final

import anyio
from msgspec.structs import replace

from holdfast_protocol import server as rules
from holdfast_protocol.digest import Digest, hasher
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import CatalogError, NoRoom, NotReceiving
from holdfast_server.storage.base import Piece
from holdfast_server.uploads import types
from holdfast_server.uploads.completion import mismatch, verified
from holdfast_server.uploads.core import Core, is_full, no_room, no_space
from holdfast_server.uploads.frontier import algorithms
from holdfast_server.uploads.upload import State, Upload

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


async def create(
    core: Core, upload: Upload, wanted: rules.Append, data: bytes, asked: str | None = None
) -> Upload | None:
    """Adds a complete upload; `upload` is what it would be without its bytes. None if this is not the way to do it:
    nothing has changed then.

    Raises Asked (see Catalog.create), and ProblemError: `checksum-mismatch`, `digest-mismatch`,
    `upload-digest-mismatch`, `type-not-allowed`, `insufficient-storage`.
    """
    _check_body(upload, wanted, data)
    types.check_bytes(core.settings, upload.name, data)
    made = _stored(upload, data, state=State.COMPLETE, expires=core.kept_until())
    if not verified(made):
        raise mismatch(made)
    free = core.free()
    core.check_room(made.received)
    with anyio.CancelScope(shield=True):
        piece = await _deposit(core, made, data)
        if piece is None:
            return None
        try:
            await core.catalog.create(made, room=None if core.settings.overcommit else free, asked=asked)
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
    """Completes an upload that has no bytes yet. None if this is not the way to do it: nothing has changed then."""
    _check_body(upload, wanted, data)
    found = _stored(upload, data)
    if not (verified(found) and types.takes(core.settings, upload.name, data)):
        return None
    core.check_room(len(data))
    with anyio.CancelScope(shield=True):
        piece = await _deposit(core, found, data, hold=True)
        if piece is None:
            return None
        try:
            return await core.catalog.finish(found, now=core.now(), expires=core.kept_until())
        except NotReceiving:
            await core.storage.remove(upload.id, upload.name)
        except (OSError, CatalogError):
            await core.storage.remove(upload.id, upload.name)
            raise
        finally:
            piece.release()
    return None


async def _deposit(core: Core, upload: Upload, data: bytes, *, hold: bool = False) -> Piece | None:
    try:
        return await core.storage.deposit(upload.id, upload.name, data, hold=hold)
    except OSError as error:
        if is_full(error):
            raise no_space() from error
        raise


def _check_body(upload: Upload, wanted: rules.Append, data: bytes) -> None:
    """T-CHECKSUM-1, I-DIGEST-1."""
    digests = wanted.digests if wanted.checksum is None else (wanted.checksum, *wanted.digests)
    if any(_digest(digest.algorithm, data) != digest for digest in digests):
        raise ProblemError(
            "digest-mismatch" if wanted.checksum is None else "checksum-mismatch",
            "The body was changed on its way: nothing of it is stored. Send it again.",
            headers=rules.progress_fields(upload),
        )


def _stored(upload: Upload, data: bytes, **changes: Any) -> Upload:
    """The upload with these bytes, its digests computed, and with these changes."""
    size = len(data)
    computed = tuple(_digest(name, data) for name in sorted(algorithms(upload)))
    return replace(upload, prefix=size, received=size, computed=(*upload.computed, *computed), **changes)


def _digest(algorithm: str, data: bytes) -> Digest:
    computing = hasher(algorithm)
    computing.update(data)
    return Digest(algorithm, computing.digest())
