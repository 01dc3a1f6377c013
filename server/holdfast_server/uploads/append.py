"""Bytes in order, at the prefix: how tus sends.

Rule of this file: what arrived is stored, whatever happens to the request (T-PATCH-3, T-PATCH-4), unless it came
with a checksum: then all of it is, once it was verified, or nothing (T-CHECKSUM-1). A long request is committed as
it goes, beside the receiving and not in its way, and soon when it stalls, so that HEAD tells the truth, a crash costs
little, and little is left to be synced at the end.
"""

from collections.abc import Sequence
from functools import partial

import anyio
from msgspec.structs import replace

from holdfast_protocol import server as rules
from holdfast_protocol.dialects import decide_trailer
from holdfast_protocol.digest import Hasher, hasher
from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import NoRoom
from holdfast_server.storage.base import Reservation
from holdfast_server.uploads.activity import Arrival
from holdfast_server.uploads.core import Core, is_full, no_room, no_space, quota_exceeded
from holdfast_server.uploads.frontier import RUN, Frontier, Running
from holdfast_server.uploads.incoming import SLICE, Ending, Incoming
from holdfast_server.uploads.upload import Upload
from holdfast_server.uploads.writers import Writer, Writers

CHECKPOINT_BYTES = 32 * 1024 * 1024
"""Bytes of a stream that come without a pause: its next commit is due..."""
CHECKPOINT_SECONDS = 1.0
"""...or after so long, if fewer have come by then."""
MARGIN = 1024 * 1024
"""Bytes of the room that are left free where nothing was set aside: files take whole blocks, and the catalog grows."""
IDLE_SECONDS = 0.02
"""A stream of which nothing came for so long is committed..."""
IDLE_INTERVAL = 0.05
"""...but not more often than this, for the sake of links that trickle."""


class Cut(Exception):  # noqa: N818
    """The connection went away; what had arrived was dealt with, and nobody is there to be answered."""


async def append(
    core: Core, writers: Writers, frontier: Frontier, upload: Upload, wanted: rules.Append, body: Incoming
) -> Upload:
    """Stores the body at the prefix and answers the upload as it is then.

    Raises ProblemError, and Cut when the connection went away.
    """
    if wanted.offset < upload.prefix:
        rules.admit(wanted, upload)  # a prefix never shrinks: no need to disturb whoever is writing
    core.check_room(1)
    reach = rules.reach(wanted, upload)
    most = reach if wanted.content_length is None else wanted.offset + wanted.content_length
    writer = Writer(upload.id, wanted.offset, max(most, wanted.offset + 1), body.stop, in_order=True)
    with writers.arriving(writer):
        return await _append(core, writers, frontier, upload, wanted, body, writer)


async def _append(
    core: Core,
    writers: Writers,
    frontier: Frontier,
    upload: Upload,
    wanted: rules.Append,
    body: Incoming,
    writer: Writer,
) -> Upload:
    reservation = await writers.take_over(upload.id, writer.start, writer.end, fence_from=0, gone=lambda: body.gone)
    try:
        with writers.registered(writer):
            standing = await core.catalog.standing(upload.id, writer.start, writer.end)
            fresh = core.receiving(standing.upload)
            writer.since = standing.fence
            rules.admit(wanted, fresh)
            await writers.claim_turn(reservation)
            stop = rules.reach(wanted, fresh) if standing.stored is None else standing.stored[0]
            with core.activity.arrival(fresh) as arrival, frontier.joined(fresh, wanted.offset) as running:
                stream = _Stream(
                    core, writers, frontier, fresh, wanted, body, reservation, writer, stop, arrival, running
                )
                await stream.count_room()
                return await (stream.atomic() if wanted.atomic else stream.keep())
    finally:
        reservation.release()


class _Stream:
    def __init__(
        self,
        core: Core,
        writers: Writers,
        frontier: Frontier,
        upload: Upload,
        wanted: rules.Append,
        body: Incoming,
        reservation: Reservation,
        writer: Writer,
        stop: int,
        arrival: Arrival,
        running: Running | None,
    ) -> None:
        self._core = core
        self._writers = writers
        self._frontier = frontier
        self._upload = upload
        self._wanted = wanted
        self._body = body
        self._reservation = reservation
        self._writer = writer
        self._arrival = arrival
        self._stop = stop  # where the body may go to: the next stored range, or the end
        self._position = self._committed = wanted.offset
        self._reach = wanted.offset  # how far bytes are written, or being written
        self._over = False  # the body goes beyond `stop`
        self._room: int | None = None  # while the length is not known: bytes that may be stored before the next commit
        self._left: int | None = None  # the same, by the quota
        self._last = core.monotonic()
        self._flushed: anyio.Event | None = None
        self._running = running  # the digests of the whole file, up to `_position`
        self._checkpoint: anyio.Event | None = None  # set when the commit that runs beside has ended
        self._failure: Exception | None = None  # what it ended with

    async def keep(self) -> Upload:
        """Without a checksum: every byte counts."""
        await self._settle_length(self._wanted.length)
        self._writer.flush = self._flush
        self._writer.shrink = self._shrink
        try:
            while True:
                idle = IDLE_SECONDS if self._position > self._committed else None
                if idle is not None:
                    idle = max(idle, self._last + IDLE_INTERVAL - self._core.monotonic())
                more = await self._body.wait(idle)
                if more is None:
                    await self._commit()
                    continue
                if not more:
                    break
                pending = self._position - self._committed
                if pending >= CHECKPOINT_BYTES or (
                    pending and self._core.monotonic() - self._last >= CHECKPOINT_SECONDS
                ):
                    self._commit_beside()
                await self._store(())
                if self._over:
                    break
                if self._flushed is not None:
                    await self._commit()
        finally:
            with anyio.CancelScope(shield=True):
                await self._commit()
        if self._body.ending is Ending.WHOLE and not self._over:
            await self._settle_length(self._told_by_the_end())
        return self._outcome()

    async def atomic(self) -> Upload:
        """With a checksum or digests: all or nothing."""
        checksum = self._wanted.checksum
        digests = self._wanted.digests if checksum is None else (checksum, *self._wanted.digests)
        hashers = [hasher(digest.algorithm) for digest in digests]
        while await self._body.wait():
            await self._store(hashers)
            if self._over:
                raise self._too_far()
        if self._body.ending is Ending.WHOLE:
            if self._wanted.trailer:
                checksum = decide_trailer(self._body.trailers)
                computing = hasher(checksum.algorithm)
                await self._read_back(computing)
                digests, hashers = (*digests, checksum), [*hashers, computing]
            if any(computing.digest() != digest.value for digest, computing in zip(digests, hashers, strict=True)):
                raise ProblemError(
                    "digest-mismatch" if checksum is None else "checksum-mismatch",
                    "The body was changed on its way: nothing of it is stored. Send it again.",
                    headers=rules.progress_fields(self._upload),
                )
            with anyio.CancelScope(shield=True):
                await self._settle_length(self._wanted.length)
                await self._commit()
                await self._settle_length(self._told_by_the_end())
        return self._outcome()

    async def _read_back(self, computing: Hasher) -> None:
        """What the algorithm is, a trailer says when the bytes are written already (T-TRAILER-2)."""
        for start in range(self._wanted.offset, self._position, RUN):
            await self._reservation.digest(start, min(start + RUN, self._position), (computing,))

    def _told_by_the_end(self) -> int | None:
        """The length, if this body completes the upload and has come whole (I-LENGTH-4)."""
        return self._position if self._wanted.completes else None

    async def _settle_length(self, length: int | None) -> None:
        """Writes the length down that came with this request (T-DEFER-2)."""
        if length is None or self._upload.length is not None:
            return
        core = self._core
        free = core.free()
        try:
            self._upload = await core.catalog.set_length(
                self._upload.id,
                length,
                rules.granule(length),
                room=None if core.settings.overcommit else free,
                now=core.now(),
                expires=core.expiry(),
            )
        except NoRoom as error:
            raise no_room(error) from None
        self._room = self._left = None

    async def count_room(self) -> None:
        """Nothing was set aside for an upload of unknown length, and it must not take what others were promised
        (T-DEFER-3), nor more than its owner may have (Q-BYTES-1)."""
        core = self._core
        if self._upload.length is not None:
            return
        if not core.settings.overcommit:
            free = core.free()
            room = free - MARGIN - await core.catalog.coming()
            self._room = max(0, room - (self._position - self._committed))
        left = await core.catalog.left(self._upload.owner)
        self._left = None if left is None else left - (self._position - self._committed)

    async def _store(self, hashers: Sequence[Hasher]) -> None:
        """Writes what has arrived, as far as it goes in one slice."""
        most = min(SLICE, self._stop - self._position)
        if not most:
            self._over = True
            return
        free = self._core.free()
        if self._room is not None:
            free = min(free, self._room)
        if free <= 0:
            raise no_space()
        if self._left is not None and self._left <= 0:
            raise quota_exceeded()
        free = free if self._left is None else min(free, self._left)
        most = min(most, free)
        self._reach = self._position + most
        running, self._running = self._running, None  # what it has taken in of a write that failed, nobody knows
        if running is not None:
            hashers = (*hashers, *running.hashers.values())
        try:
            size = await self._reservation.write(self._position, self._body.read, most, hashers)
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
        self._position = self._reach = self._position + size
        self._arrival.landed(self._position - self._committed)
        if running is not None:
            running.done, self._running = self._position, running
        if self._room is not None:
            self._room -= size
        if self._left is not None:
            self._left -= size

    async def _commit(self) -> None:
        """Commits all that is written."""
        if self._checkpoint is not None:
            await self._checkpoint.wait()
        self._raise_failure()
        await self._commit_up_to(self._position, self._digests())
        if self._flushed is not None and self._body.ending is None:
            self._flushed.set()
            self._flushed = None

    def _commit_beside(self) -> None:
        """Has what is written so far committed while more is received; one at a time. Raises what the last one did."""
        self._raise_failure()
        if self._checkpoint is None:
            self._checkpoint = anyio.Event()
            work = partial(self._commit_checkpoint, self._checkpoint, self._position, self._digests())
            self._writers.beside(work)

    def _digests(self) -> Running | None:
        """The digests of the whole file up to here; they stay as they are."""
        return None if self._running is None else self._running.copy()

    async def _commit_checkpoint(self, done: anyio.Event, position: int, running: Running | None) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._commit_up_to(position, running)
        except Exception as error:
            self._failure = error
        finally:
            self._checkpoint = None
            done.set()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _commit_up_to(self, position: int, running: Running | None) -> None:
        """Commits what is written before `position`, which `running` are the digests of."""
        if position == self._committed:
            return
        upload, computed = self._upload, None
        if running is not None and position == upload.length:
            computed = (*upload.computed, *running.digests())
        try:
            await self._reservation.sync()
            self._upload = await self._core.catalog.commit(
                upload.id,
                [(self._committed, position)],
                now=self._core.now(),
                expires=self._core.expiry(),
                computed=computed,
            )
        except NoRoom as error:
            raise no_room(error) from None  # others were faster to take what was left
        except OSError as error:
            if is_full(error):
                raise no_space() from error
            raise
        self._committed = position
        self._arrival.stored(self._upload, self._position - position)
        self._last = self._core.monotonic()
        self._frontier.advance(self._upload, running)
        if self._body.ending is None:
            await self.count_room()

    def _shrink(self, end: int) -> bool:
        """A chunk is complete ahead of here: let it have its place, and go on up to there (T-PATCH-5)."""
        if end <= self._reach or end <= self._wanted.offset:
            return False
        if end < self._stop:
            self._stop = end
            self._reservation.shrink(end)
        return True

    async def _flush(self) -> None:
        if self._flushed is None:
            self._flushed = anyio.Event()
        flushed = self._flushed
        self._body.nudge()
        await flushed.wait()

    def _too_far(self) -> ProblemError:
        if self._stop < rules.reach(self._wanted, self._upload):
            problem = ProblemError(
                "chunk-conflict",
                f"From {self._stop} on bytes are stored already. Send the ones before, or ask with HEAD.",
                {"start": self._stop},
            )
        else:
            problem = rules.length_exceeded(self._wanted, self._upload)
        problem.headers = {**problem.headers, **rules.progress_fields(self._upload)}
        return problem

    def _outcome(self) -> Upload:
        if self._over and self._stop == rules.reach(self._wanted, self._upload):
            raise self._too_far()
        if self._over and self._wanted.completes is not None:
            raise rules.offset_mismatch(self._wanted, self._upload)  # go on behind what is stored (I-MIX-2)
        match self._body.ending:
            case Ending.CUT:
                raise Cut
            case Ending.STALLED:
                raise ProblemError(
                    "request-timeout",
                    "No bytes came for too long. Ask with HEAD and go on from there.",
                    headers=rules.progress_fields(self._upload),
                )
            case Ending.STOPPED if self._writer.fenced:
                raise ProblemError(
                    "fenced",
                    "Another request took over this upload. What had arrived is stored; ask with HEAD.",
                    headers=rules.progress_fields(self._upload),
                )
            case Ending.STOPPED:
                raise ProblemError(
                    "shutting-down",
                    "The server is shutting down. What had arrived is stored; ask with HEAD in a moment.",
                    headers={**rules.progress_fields(self._upload), "Retry-After": "1"},
                )
            case _:
                # Stopped at a range that is stored already: say how far these bytes reached (T-PATCH-5).
                return replace(self._upload, prefix=self._position) if self._over else self._upload
