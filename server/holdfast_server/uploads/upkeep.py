"""Recovery at start, expiry while the server runs.

Rule of this file: the catalog says what is stored, the storage has the bytes. Committed ranges stand; bytes that
were never committed are holes; bytes that the catalog knows nothing of, or no longer, are removed; an upload whose
committed bytes are gone has failed, and says so. Only unfinished uploads expire unless it is asked for.
"""

import logging
from collections.abc import Sequence
from typing import Final

import anyio

from holdfast_protocol.problem import ProblemError
from holdfast_server.catalog.base import TOMBSTONES, CatalogError, WrongState
from holdfast_server.uploads.completion import EVERYTHING, Completion
from holdfast_server.uploads.concatenation import Concatenation
from holdfast_server.uploads.core import Core, given_up
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import Writers

logger: Final = logging.getLogger(__name__)

REMEMBERED = 30 * 86400.0
"""Seconds for which an expired or terminated upload is remembered."""
_AT_ONCE = 100
_TOGETHER = 32
_LEFT_TO_OTHERS = 0.2


class Upkeep:
    """What nobody asks for and has to be done all the same."""

    def __init__(self, core: Core, writers: Writers, completion: Completion, concatenation: Concatenation) -> None:
        self._core = core
        self._writers = writers
        self._completion = completion
        self._concatenation = concatenation

    async def recover(self) -> None:
        """Brings catalog and storage together. Safe while other processes work on the same data."""
        # The listings come first: an upload is in the catalog before its first byte is in the storage, or its file is
        # held until it is.
        storage, catalog = self._core.storage, self._core.catalog
        incoming, published = await storage.incoming(), await storage.published()
        states = await catalog.states([*incoming, *(upload_id for upload_id, _ in published)])
        for upload_id in incoming:
            if states.get(upload_id) in (None, State.COMPLETE, *TOMBSTONES):
                await self._discard(upload_id)
        for upload_id, name in published:
            match states.get(upload_id):
                case None | State.EXPIRED | State.TERMINATED:
                    await self._remove(upload_id, name)
                case State.RECEIVING | State.FAILED:
                    await self._withdraw(upload_id, name)
                case _:
                    pass
        for upload in await self._core.catalog.unfinished():
            if upload.state is State.VERIFYING:
                self._completion.resume(upload.id)
            elif upload.received:
                await self._check(upload)
        for upload in await self._core.catalog.unfinished():
            if upload.final:
                await self._concatenation.settle(upload)

    async def _discard(self, upload_id: str) -> None:
        reservation = await self._core.storage.reserve(upload_id, 0, EVERYTHING)
        if reservation is None:
            return  # of an upload that is being made
        try:
            upload = await self._core.catalog.get(upload_id)
            if upload is None or upload.state in (State.COMPLETE, *TOMBSTONES):
                logger.info("removing bytes of %s, which has none on their way", upload_id)
                await self._core.storage.discard(upload_id)
        finally:
            reservation.release()

    async def _remove(self, upload_id: str, name: str) -> None:
        piece = await self._core.storage.claim_file(upload_id, name)
        if piece is None:
            return  # of an upload that is being made
        try:
            upload = await self._core.catalog.get(upload_id)
            if upload is None or upload.state in TOMBSTONES:
                logger.info("removing the file of %s, which is no upload any more", upload_id)
                await self._core.storage.remove(upload_id, name)
        finally:
            piece.release()

    async def _withdraw(self, upload_id: str, name: str) -> None:
        reservation = await self._core.storage.reserve(upload_id, 0, EVERYTHING)
        if reservation is None:
            return  # somebody writes or publishes: what comes of that takes the place of this file
        try:
            upload = await self._core.catalog.get(upload_id)
            if upload is not None and upload.state in (State.RECEIVING, State.FAILED):
                logger.info("removing the file of %s, of which nobody has been told", upload_id)
                await self._core.storage.withdraw(upload_id, name)
        finally:
            reservation.release()

    async def _check(self, upload: Upload) -> None:
        size = await self._core.storage.size(upload.id, upload.name) or 0
        gone = await self._core.catalog.stored(upload.id, size, upload.reach, 1)
        if gone:
            logger.error("upload %s has lost bytes that were stored: its file ends at %d", upload.id, size)
            fresh = await self._core.catalog.get(upload.id)
            if fresh is None or fresh.state is not State.RECEIVING:
                return  # completed or removed by another process meanwhile
            await self._core.catalog.transition(
                upload.id,
                sources={State.RECEIVING},
                to=State.FAILED,
                now=self._core.now(),
                expires=self._core.expiry(),
                event="failed",
                error="data-lost",
                error_detail="Bytes that were stored are gone from the disk.",
            )

    async def sweep_forever(self) -> None:
        """Removes what has expired, until cancelled."""
        after = [t for t in (self._core.settings.expire_after, self._core.settings.expire_finished) if t is not None]
        interval = min([60.0, *(max(0.2, t / 4) for t in after)])
        while True:
            try:
                await self.sweep()
            except (OSError, CatalogError) as error:
                logger.error("expired uploads could not be removed for now: %s", error)
            await anyio.sleep(interval)

    async def sweep(self) -> int:
        """Removes what has expired now; how many there were."""
        removed, held = 0, list[str]()
        while uploads := await self._core.catalog.expired(self._core.now(), _AT_ONCE):
            # Another process sweeps too: what it holds is left to it, and nobody waits for the other, unless nothing
            # happens to them.
            some = await self._expire_all(uploads, idle=True)
            if not some and held == [upload.id for upload in uploads]:
                some = await self._expire_all(uploads, idle=False)
                if not some:
                    break  # all of them are busy: another time
            elif not some:
                held = [upload.id for upload in uploads]
                await anyio.sleep(_LEFT_TO_OTHERS)
            removed += some
        await self._core.catalog.purge(self._core.now() - REMEMBERED)
        return removed

    async def _expire_all(self, uploads: Sequence[Upload], *, idle: bool) -> int:
        """How many of these were removed; with `idle` only such that nobody holds. Several at once share commits."""
        limiter, removed = anyio.CapacityLimiter(_TOGETHER), 0
        failures: list[OSError | CatalogError] = []

        async def expire(upload: Upload) -> None:
            nonlocal removed
            try:
                async with limiter:
                    await end(self._core, self._writers, upload.id, State.EXPIRED, only_expired=True, only_idle=idle)
                    removed += 1
            except ProblemError:
                return
            except (OSError, CatalogError) as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            for upload in uploads:
                tasks.start_soon(expire, upload)
        if failures:
            raise failures[0]
        return removed


async def end(
    core: Core,
    writers: Writers,
    upload_id: str,
    state: State,
    *,
    only_expired: bool = False,
    gives_up: bool = False,
    only_idle: bool = False,
) -> None:
    """Ends an upload: its writers, its bytes, and its place in the catalog but for a tombstone, which says so if it is
    given up for another one (A-SIGN-4): that is for one without bytes.

    Raises ProblemError: `not-found`, `gone`; `range-busy` if a writer does not let go; `fenced` if it has not
    expired, or has bytes, or somebody holds it, and that was asked for.
    """
    if only_idle:
        held = await core.storage.reserve(upload_id, 0, EVERYTHING)
        if held is None:
            raise ProblemError("fenced", "Somebody is at it.")
        reservation = held
    else:
        reservation = await writers.take_over(upload_id, 0, EVERYTHING)
    try:
        upload = await core.find(upload_id)
        if only_expired and (upload.expires is None or upload.expires > core.now()):
            raise ProblemError("fenced", "The upload was touched meanwhile.")
        if gives_up and (upload.received or upload.state is not State.RECEIVING):
            raise ProblemError("fenced", "The upload has bytes by now.")
        reason = given_up() if gives_up else None
        try:
            await core.catalog.transition(
                upload_id,
                sources=set(State) - TOMBSTONES,
                to=state,
                now=core.now(),
                expires=None,
                event=state.value,
                error=None if reason is None else reason.code,
                error_detail=None if reason is None else reason.detail,
            )
        except WrongState:
            raise ProblemError("not-found", "There is no upload with this id.") from None
        await core.storage.remove(upload_id, upload.name)
    finally:
        reservation.release()
