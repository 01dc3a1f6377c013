"""Parts put together to one file: tus concatenation.

Rule of this file: a part is whole when its last byte is stored, and is never published; a final upload comes into
being when the last of its parts is whole, whoever notices: the request that stored the last byte, one that asks for
the final, or the next start. Bytes go from file to file within the storage, in pieces, in a task that outlives the
request; each run of them is committed, so that a restart goes on where the last one ended. Parts stay as they are:
they may belong to several finals (T-CONCAT-2 to T-CONCAT-6).
"""

import logging
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from holdfast_protocol import headers
from holdfast_protocol import server as rules
from holdfast_protocol.problem import FieldError, ProblemError
from holdfast_server.auth.principal import Principal
from holdfast_server.catalog.base import CatalogError, NotReceiving, OverQuota, WrongState
from holdfast_server.uploads.completion import EVERYTHING, Completion
from holdfast_server.uploads.core import Core, no_room
from holdfast_server.uploads.frontier import Frontier
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import Writer, Writers

logger: Final = logging.getLogger(__name__)

PIECE = 16 * 1024 * 1024
"""Bytes that are copied in one go in a thread."""
CHECKPOINT_BYTES = 256 * 1024 * 1024
AT_ONCE = 2
"""Pieces that one process copies at once, whatever the number of finals: others want the disk too."""
BRIEFLY = 1.0
"""Seconds that a creation waits for a file that may well be there by then (T-CONCAT-4)."""


class Concatenation:
    """The finals of one data folder."""

    def __init__(self, core: Core, writers: Writers, frontier: Frontier, completion: Completion, max_size: int) -> None:
        self._core = core
        self._writers = writers
        self._frontier = frontier
        self._completion = completion
        self._max_size = max_size
        self._tasks: TaskGroup | None = None
        self._running: dict[str, anyio.Event] = {}
        self._copying = anyio.Semaphore(AT_ONCE)

    def start(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    async def length(self, part_ids: Sequence[str], who: Principal) -> int | None:
        """The length of a final over these parts, None if it cannot be told yet.

        Raises ProblemError: 400 if one of them is no part (any more) that `who` sees, 413 if the sum is too large.
        """
        lengths: dict[str, int | None] = {}
        for part_id in dict.fromkeys(part_ids):
            part = await self._core.get(part_id, who)
            if part is None or not part.partial or part.state is not State.RECEIVING:
                raise FieldError(
                    headers.UPLOAD_CONCAT, f"{part_id} is no partial upload; send it with Upload-Concat: partial"
                ).as_problem()
            lengths[part_id] = part.length
        total = 0
        for part_id in part_ids:
            total += lengths[part_id] or 0
        if total > self._max_size:
            raise rules.too_large(self._max_size)
        return None if None in lengths.values() else total

    async def begin(self, final: Upload) -> Upload:
        """Has a new final put together, and waits for it briefly."""
        await self.settle(final)
        if final.id in self._running:
            with anyio.move_on_after(BRIEFLY):
                await self._running[final.id].wait()
        return await self._core.find(final.id)

    async def part_changed(self, part_id: str) -> None:
        """Looks after the finals that wait for a part that has grown or is gone."""
        try:
            for final_id in await self._core.catalog.finals(part_id):
                await self.settle(await self._core.find(final_id))
        except (OSError, CatalogError, ProblemError) as error:
            logger.warning("the uploads that part %s belongs to are looked after later: %s", part_id, error)

    async def settle(self, final: Upload) -> Upload:
        """What can be said of a final at this moment, and its bytes are put together if all of its parts are whole."""
        if final.state is not State.RECEIVING or final.id in self._running:
            return final  # who puts it together sees for himself whether a part is gone
        catalog = self._core.catalog
        parts = await catalog.parts(final.id)
        try:
            if final.whole:
                self._resume(final.id)  # also if a part is gone by now
                return final
            if any(part.state is not State.RECEIVING for part in parts):
                return await self._fail(final, "data-lost", "A part was removed before the file was put together.")
            if final.length is None:
                lengths = [part.length for part in parts if part.length is not None]
                if sum(lengths) > self._max_size:
                    return await self._fail(final, "upload-too-large", "The parts are longer than an upload may be.")
                if len(lengths) < len(parts):
                    return final
                try:
                    final = await catalog.set_length(
                        final.id,
                        sum(lengths),
                        rules.granule(sum(lengths)),
                        room=None,
                        now=self._core.now(),
                        expires=self._core.expiry(),
                    )
                except OverQuota as error:
                    problem = no_room(error)
                    return await self._fail(final, problem.code, problem.detail)
            if all(part.whole for part in parts):
                self._resume(final.id)
        except (NotReceiving, WrongState):
            return await self._core.find(final.id)  # another process was faster
        return final

    def _resume(self, final_id: str) -> None:
        if final_id not in self._running:
            assert self._tasks is not None
            self._running[final_id] = anyio.Event()
            self._tasks.start_soon(self._run, final_id)

    async def _run(self, final_id: str) -> None:
        try:
            final = await self._assemble(final_id)
            if final is not None and final.state is State.RECEIVING and final.whole:
                await self._completion.complete(final)
        except (OSError, CatalogError) as error:
            logger.error("upload %s cannot be put together for now: %s", final_id, error)
        except ProblemError as problem:
            logger.info("upload %s is not put together: %s", final_id, problem)
        finally:
            self._running.pop(final_id).set()

    async def _assemble(self, final_id: str) -> Upload | None:
        """The final with all of its bytes; None if another process is at it, or if it was told to stop."""
        reservation = await self._core.storage.reserve(final_id, 0, EVERYTHING)
        if reservation is None:
            return None
        stopped = anyio.Event()
        writer = Writer(final_id, 0, EVERYTHING, stopped.set)
        try:
            with self._writers.registered(writer):
                final = await self._core.find(final_id)
                writer.since = await self._core.catalog.fence_head()
                if final.state is not State.RECEIVING:
                    return final
                start = 0
                for part in await self._core.catalog.parts(final_id):
                    end = start + part.received
                    position = max(start, final.prefix)
                    while position < end:
                        size = await self._core.storage.size(part.id, part.name)
                        if (size or 0) < part.received:
                            return await self._fail(final, "data-lost", "Stored bytes of a part are gone.")
                        piece = await self._core.storage.view(part.id, part.name, at=start)
                        if piece is None:
                            raise FileNotFoundError(part.id)
                        try:
                            stop = min(end, position + CHECKPOINT_BYTES)
                            for first in range(position, stop, PIECE):
                                if stopped.is_set():
                                    return None
                                last = min(first + PIECE, stop)
                                self._core.check_room(last - first)
                                async with self._copying:
                                    await reservation.copy(piece, first, last)
                            await reservation.sync()
                        finally:
                            piece.release()
                        final = await self._core.catalog.commit(
                            final_id, [(position, stop)], now=self._core.now(), expires=self._core.expiry()
                        )
                        self._frontier.advance(final)
                        position = stop
                    start = end
                return final
        finally:
            reservation.release()

    async def _fail(self, final: Upload, error: str, detail: str) -> Upload:
        logger.error("upload %s has failed: %s", final.id, detail)
        return await self._core.catalog.transition(
            final.id,
            sources={State.RECEIVING},
            to=State.FAILED,
            now=self._core.now(),
            expires=self._core.expiry(),
            event="failed",
            error=error,
            error_detail=detail,
        )
