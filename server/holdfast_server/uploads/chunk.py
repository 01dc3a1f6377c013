"""A range, whole and verified or not at all: how parallel chunks are stored.

Rule of this file: a byte that is stored is never written again (P-CHUNK-5 to P-CHUNK-7). A chunk that has its range
for itself is written in its place. One whose range is held by another request, or partly stored, is written to a
scratch piece; when it is complete and verified it takes the range over, is compared with what is stored, and gives
the rest. So a chunk that never comes to its end stops nobody, and the first complete one wins.
"""

from collections.abc import Awaitable, Callable

import anyio

from holdfast_protocol import server as rules
from holdfast_protocol.digest import hasher
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import NotReceiving
from holdfast_server.storage.base import Piece, Reservation
from holdfast_server.uploads.activity import Arrival
from holdfast_server.uploads.append import Cut
from holdfast_server.uploads.core import Core, is_full, no_space
from holdfast_server.uploads.frontier import Frontier, Running
from holdfast_server.uploads.incoming import SLICE, Ending, Incoming
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import TAKEOVER, Writer, Writers

_PAUSE = 0.02
_COMPARED = 1024 * 1024


async def store(
    core: Core, writers: Writers, frontier: Frontier, upload: Upload, wanted: rules.StoreChunk, body: Incoming
) -> Upload:
    """Stores a chunk and answers the upload as it is then.

    Raises ProblemError, and Cut when the connection went away.
    """
    if await _settled(core, upload, wanted):
        return upload
    core.check_room(wanted.end - wanted.start)
    try:
        with core.activity.arrival(upload) as arrival:
            return await _Chunk(core, writers, frontier, wanted, body, upload.id, arrival).store()
    except LetGo:
        # If it was the same range, complete, then this one is as good as stored once that one is.
        await _let_pass(core, upload.id, wanted)
        fresh = await core.find(upload.id)
        rules.check_takes_bytes(fresh)
        if await _settled(core, fresh, wanted):
            return fresh
        raise ProblemError(
            "fenced",
            "Another request took over this range. Ask with HEAD what is missing.",
            headers={"Retry-After": "0"},
        ) from None


async def _let_pass(core: Core, upload_id: str, wanted: rules.StoreChunk) -> None:
    """Waits until whoever fenced this chunk has stored something of its range, for as long as a takeover may take."""
    with anyio.move_on_after(TAKEOVER):
        # Polled, because it may be another process that stores.
        while await _gaps(core, upload_id, wanted.start, wanted.end) == [(wanted.start, wanted.end)]:  # noqa: ASYNC110
            await anyio.sleep(_PAUSE)


class LetGo(Exception):  # noqa: N818
    """Another request came first: what this one would store is stored, or is about to be."""


class _Chunk:
    def __init__(
        self,
        core: Core,
        writers: Writers,
        frontier: Frontier,
        wanted: rules.StoreChunk,
        body: Incoming,
        upload_id: str,
        arrival: Arrival,
    ) -> None:
        self._core = core
        self._writers = writers
        self._frontier = frontier
        self._start, self._end = wanted.start, wanted.end
        self._digests = wanted.digests
        self._body = body
        self._upload_id = upload_id
        self._arrival = arrival

    async def store(self) -> Upload:
        reservation = await self._core.storage.reserve(self._upload_id, self._start, self._end)
        if reservation is None:
            return await self._store_aside(None)
        try:
            writer = Writer(self._upload_id, self._start, self._end, self._body.stop)
            with self._writers.registered(writer):
                standing = await self._core.catalog.standing(self._upload_id, self._start, self._end)
                upload = self._receiving(standing.upload)
                writer.since = standing.fence
                if standing.stored is not None:
                    return await self._store_aside(reservation)
                with self._frontier.joined(upload, self._start) as running:
                    await self._receive(reservation, running)
                    return await self._commit(reservation, running)
        finally:
            reservation.release()

    async def _store_aside(self, reservation: Reservation | None) -> Upload:
        scratch = await self._core.storage.scratch(self._start)
        taken = None
        try:
            await self._receive(scratch)
            if reservation is None:
                reservation = taken = await self._writers.take_over(self._upload_id, self._start, self._end)
            self._receiving(await self._core.catalog.get(self._upload_id))
            holes = await _gaps(self._core, self._upload_id, self._start, self._end)
            await self._compare(reservation, scratch, holes)
            for start, end in holes:
                await reservation.copy(scratch, start, end)
            return await self._commit(reservation)
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
        finally:
            scratch.release()
            if taken is not None:
                taken.release()

    def _receiving(self, upload: Upload | None) -> Upload:
        upload = self._core.found(upload)
        rules.check_takes_bytes(upload)
        if upload.state is not State.RECEIVING:
            raise LetGo  # completed meanwhile: every range is stored
        return upload

    async def _receive(self, piece: Piece, running: Running | None = None) -> None:
        """Writes the body to the piece, and verifies it. `running`: the digests of the whole file that take it in."""
        hashers = [hasher(digest.algorithm) for digest in self._digests]
        taking = hashers if running is None else [*hashers, *running.hashers.values()]
        position = self._start
        while await self._body.wait():
            if position == self._end:
                raise ProblemError("body-too-long", "The body is longer than its Content-Length.")
            try:
                position += await piece.write(position, self._body.read, min(SLICE, self._end - position), taking)
            except OSError as error:
                if is_full(error):
                    raise no_space(self._end - self._start, self._core.storage.room().free) from error
                raise
            self._arrival.landed(position - self._start)
        match self._body.ending:
            case Ending.CUT:
                raise Cut
            case Ending.STALLED:
                raise ProblemError(
                    "request-timeout", "No bytes came for too long, and nothing of the chunk is stored. Send it again."
                )
            case Ending.STOPPED:
                raise LetGo
            case _ if position != self._end:
                raise ProblemError(
                    "body-too-short", "The body is shorter than its Content-Length. Send the chunk again."
                )
            case _:
                pass
        for digest, computing in zip(self._digests, hashers, strict=True):
            if computing.digest() != digest.value:
                raise ProblemError(
                    "digest-mismatch",
                    f"The chunk does not have the {digest.algorithm} that came with it: it was changed on its way, "
                    "and nothing of it is stored. Send it again.",
                    {"algorithm": digest.algorithm},
                )
        if running is not None:
            running.done = position

    async def _compare(self, stored: Piece, scratch: Piece, holes: list[tuple[int, int]]) -> None:
        """Raises ProblemError if what is stored in the range already differs from the chunk."""
        position = self._start
        for gap_start, gap_end in [*holes, (self._end, self._end)]:
            while position < gap_start:
                size = min(_COMPARED, gap_start - position)
                if await stored.read(position, size) != await scratch.read(position, size):
                    raise conflict(position, position + size)
                position += size
            position = gap_end

    async def _commit(self, reservation: Reservation, running: Running | None = None) -> Upload:
        upload = await commit(self._core, self._frontier, reservation, self._upload_id, self._start, self._end, running)
        self._arrival.stored(upload)
        return upload


async def commit(
    core: Core,
    frontier: Frontier,
    reservation: Reservation,
    upload_id: str,
    start: int,
    end: int,
    running: Running | None = None,
) -> Upload:
    """What was written to `[start, end)` is stored from now on. `running`: the digests of the whole file up to `end`.
    Raises ProblemError, and LetGo if the upload ended."""
    with anyio.CancelScope(shield=True):
        try:
            await reservation.sync()
            upload = await core.catalog.commit(upload_id, [(start, end)], now=core.now(), expires=core.expiry())
        except NotReceiving:
            raise LetGo from None
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
        frontier.advance(upload, running)
        return upload
    raise AssertionError("a shielded scope is never cancelled")


async def _gaps(core: Core, upload_id: str, start: int, end: int) -> list[tuple[int, int]]:
    """What is missing of `[start, end)`, all of it: a chunk has at most some thousand granules."""
    found: list[tuple[int, int]] = []
    more = True
    while more:
        page, more = await core.catalog.missing(upload_id, start, end, 1000)
        found += page
        start = found[-1][1] if found else end
    return found


async def _settled(core: Core, upload: Upload, wanted: rules.StoreChunk) -> bool:
    """Is all of the range stored already, with these digests (P-CHUNK-5)? Raises ProblemError if with others."""

    async def prove(piece: Piece) -> None:
        hashers = [hasher(digest.algorithm) for digest in wanted.digests]
        await piece.digest(wanted.start, wanted.end, hashers)
        for digest, computed in zip(wanted.digests, hashers, strict=True):
            if computed.digest() != digest.value:
                raise conflict(wanted.start, wanted.end)

    return await settled(core, upload, wanted.start, wanted.end, prove)


async def settled(core: Core, upload: Upload, start: int, end: int, prove: Callable[[Piece], Awaitable[None]]) -> bool:
    """Is all of `[start, end)` stored already? Then `prove` looks at the bytes, and raises what it thinks of them."""
    if upload.state is State.RECEIVING:
        holes, _ = await core.catalog.missing(upload.id, start, end, 1)
        if holes:
            return False
    piece = await core.storage.view(upload.id, upload.name)
    if piece is None:
        return False
    try:
        await prove(piece)
    finally:
        piece.release()
    return True


def conflict(start: int, end: int) -> ProblemError:
    return ProblemError(
        "chunk-conflict",
        f"Other bytes are stored in [{start}, {end}), and stored bytes never change. "
        "If the file has changed, send it as a new upload.",
        {"start": start, "end": end},
    )
