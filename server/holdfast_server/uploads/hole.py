"""A range that is zeros and was not sent: how holes are stored.

Rule of this file: a hole is a chunk whose body is known before it comes (P-HOLE-3). So it is complete at once, takes
its range over from whoever is on the way there, is compared with what is stored, and makes the rest zeros. It takes
no room, whatever its length.
"""

from holdfast_protocol import server as rules
from holdfast_server.storage.base import Piece, Reservation
from holdfast_server.uploads.chunk import LetGo, commit, conflict, settled
from holdfast_server.uploads.core import Core, is_full, no_space
from holdfast_server.uploads.frontier import Frontier
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import Writers

_PAGE = 1000


async def store(core: Core, writers: Writers, frontier: Frontier, upload: Upload, wanted: rules.StoreHole) -> Upload:
    """Stores a hole and answers the upload as it is then. Raises ProblemError."""
    if not await _settled(core, upload, wanted):
        reservation = await writers.take_over(upload.id, wanted.start, wanted.end)
        try:
            upload = await core.find(upload.id)
            rules.check_takes_bytes(upload)
            if upload.state is State.RECEIVING:
                await _fill(core, reservation, upload.id, wanted)
                upload = await commit(core, frontier, reservation, upload.id, wanted.start, wanted.end)
                core.activity.stored(upload)
                return upload
        except LetGo:
            pass
        finally:
            reservation.release()
        # It was completed or ended meanwhile.
        upload = await core.find(upload.id)
        rules.check_takes_bytes(upload)
        await _settled(core, upload, wanted)
    return upload


async def _settled(core: Core, upload: Upload, wanted: rules.StoreHole) -> bool:
    """Is all of the range stored already, as zeros? Raises ProblemError if as other bytes."""

    async def prove(piece: Piece) -> None:
        await _compare(piece, wanted.start, wanted.end)

    return await settled(core, upload, wanted.start, wanted.end, prove)


async def _fill(core: Core, reservation: Reservation, upload_id: str, wanted: rules.StoreHole) -> None:
    """Makes zeros of what is missing in the range, and compares what is not. Raises ProblemError."""
    position, more = wanted.start, True
    try:
        while more:
            gaps, more = await core.catalog.missing(upload_id, position, wanted.end, _PAGE)
            for start, end in gaps:
                await _compare(reservation, position, start)
                await reservation.punch(start, end)
                position = end
        await _compare(reservation, position, wanted.end)
    except OSError as error:
        if is_full(error):
            raise no_space() from error
        raise


async def _compare(piece: Piece, start: int, end: int) -> None:
    """Raises ProblemError if `[start, end)` is not zeros."""
    while start < end:
        reached = await piece.zeros(start, end)
        if reached == start:
            raise conflict(start, end)
        start = reached
