"""The digest frontier: the digest of the whole file follows the prefix as it grows.

Rule of this file: an upload's digest is computed by one process at a time, the one that holds the claim in the
storage. Others learn the result from the catalog; if the holder dies, the claim is free and somebody begins anew.
Who writes in order takes the hashers along and hashes what it writes, before it leaves the processor's cache; nothing
is read as long as somebody does. What has arrived out of order is read back, most likely from the page cache, once the
prefix has passed it; when the last chunk lands there is almost nothing left to read.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup

from holdfast_protocol.digest import Digest, Hasher, hasher
from holdfast_server.catalog.base import CatalogError
from holdfast_server.storage.base import Piece
from holdfast_server.uploads.core import Core
from holdfast_server.uploads.upload import State, Upload

logger: Final = logging.getLogger(__name__)

MOST_FOLLOWED = 256
"""Uploads whose digest one process follows at once; further ones are computed when they are completed."""
RUN = 32 * 1024 * 1024
"""Bytes that are hashed in one go in a thread."""
PATIENCE = 60.0
"""Seconds without progress after which an upload is let go; its digest is then computed at the end."""


def algorithms(upload: Upload) -> set[str]:
    """Which digests of the whole file are still to be computed."""
    known = {digest.algorithm for digest in upload.computed}
    wanted = {digest.algorithm for digest in upload.expected}
    if upload.wanted is not None:
        wanted.add(upload.wanted)
    return wanted - known


class Running:
    """The digests of the first `done` bytes of an upload."""

    def __init__(self, hashers: dict[str, Hasher], done: int = 0) -> None:
        self.hashers = hashers
        self.done = done

    @classmethod
    def of(cls, upload: Upload) -> "Running":
        """Of none of its bytes yet, by the algorithms that are asked for."""
        return cls({name: hasher(name) for name in algorithms(upload)})

    def copy(self) -> "Running":
        return Running({name: each.copy() for name, each in self.hashers.items()}, self.done)

    def digests(self) -> tuple[Digest, ...]:
        return tuple(Digest(name, self.hashers[name].digest()) for name in sorted(self.hashers))


class _Followed:
    def __init__(self, running: Running) -> None:
        self.running = running
        self.reading = False  # what was written out of order: nobody else goes on from `running` meanwhile
        self.held = False  # there may be something to read once nobody writes in order
        self.moved = anyio.Event()


class Frontier:
    """Follows the uploads of which this process stores bytes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._followed: dict[str, _Followed] = {}
        self._joined: Counter[str] = Counter()  # by upload: who hashes what he writes, and has yet to tell of it
        self._tasks: TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._followed)

    def start(self, tasks: TaskGroup) -> None:
        """Where the work is to run; until then nothing is followed."""
        self._tasks = tasks

    @contextmanager
    def joined(self, upload: Upload, offset: int) -> Iterator[Running | None]:
        """For who writes in order from `offset` on, until all of it is told: what to hash with. None if that is not
        known here, or if no digest is asked for. Does not block.
        """
        running = self._from(upload, offset)
        if running is None:
            yield None
            return
        self._joined[upload.id] += 1
        try:
            yield running
        finally:
            self._joined[upload.id] -= 1
            if not self._joined[upload.id]:
                del self._joined[upload.id]
                followed = self._followed.get(upload.id)
                if followed is not None and followed.held:
                    followed.held = False
                    followed.moved.set()

    def _from(self, upload: Upload, offset: int) -> Running | None:
        wanted = algorithms(upload)
        if not wanted:
            return None
        followed = self._followed.get(upload.id)
        if followed is not None and not followed.reading:
            running = followed.running
            if running.done == offset and wanted == set(running.hashers):
                return running.copy()
        return Running.of(upload) if offset == 0 else None

    def advance(self, upload: Upload, running: Running | None = None) -> None:
        """Tells that more of an upload is stored, and which digests that gave. Does not block."""
        followed = self._followed.get(upload.id)
        if followed is not None:
            if running is not None and not followed.reading and running.done > followed.running.done:
                followed.running = running
            if followed.running.done < upload.prefix or not algorithms(upload):  # else there is nothing to do
                followed.moved.set()
        elif upload.prefix and self._tasks and len(self._followed) < MOST_FOLLOWED and algorithms(upload):
            self._followed[upload.id] = _Followed(running or Running.of(upload))
            self._tasks.start_soon(self._follow, upload.id)

    def nudge(self, upload_id: str) -> None:
        """Has the prefix looked at again, if the upload is followed here."""
        followed = self._followed.get(upload_id)
        if followed is not None:
            followed.moved.set()

    async def digests(self, upload_id: str) -> Upload:
        """The upload with all its digests computed, here or by whoever is at it. Every byte must be stored."""
        asked = False
        while True:
            upload = await self._core.catalog.get(upload_id)
            assert upload is not None
            if not algorithms(upload):
                return upload
            if upload.length == 0:
                await self._record(upload_id, Running.of(upload))
            elif upload_id in self._followed:
                self.nudge(upload_id)
            else:
                claim = await self._core.storage.claim_digest(upload_id)
                if claim is not None:
                    try:
                        await self._compute(upload_id, claim, None)
                    finally:
                        claim.release()
                    continue
                if not asked:  # another process follows it: it looks at the prefix when there is a fence
                    asked = True
                    await self._core.catalog.fence(upload_id, upload.reach, upload.reach + 1, now=self._core.now())
            await anyio.sleep(0.01)

    async def _follow(self, upload_id: str) -> None:
        followed = self._followed[upload_id]
        try:
            claim = await self._core.storage.claim_digest(upload_id)
            if claim is None:
                # Another process is at it. To be asked again with every chunk would be for nothing.
                await anyio.sleep(5)
                return
            try:
                await self._compute(upload_id, claim, followed)
            finally:
                claim.release()
        except (OSError, CatalogError) as error:
            logger.warning("the digest of %s is not followed for now: %s", upload_id, error)
        finally:
            del self._followed[upload_id]

    async def _compute(self, upload_id: str, claim: Piece, followed: _Followed | None) -> None:
        """Hashes up to the end. With `followed`, waits for more where the prefix ends; without, all is there."""
        catalog = self._core.catalog
        upload = await catalog.get(upload_id)
        if upload is None:
            return
        running = Running.of(upload) if followed is None else followed.running
        while running.done < upload.reach:
            behind = running.done < upload.prefix
            if not behind or (followed is not None and upload_id in self._joined):
                if followed is None:
                    raise OSError(f"upload {upload_id} has a hole at {running.done}")
                followed.held = behind  # it is committed, and perhaps not told yet by who has hashed it on the way
                with anyio.move_on_after(PATIENCE) as waiting:
                    await followed.moved.wait()
                if waiting.cancelled_caught and followed.running.done == running.done:
                    return
                followed.moved = anyio.Event()
                fresh = await catalog.get(upload_id)
                if fresh is None or fresh.state not in (State.RECEIVING, State.VERIFYING):
                    return
                wanted = algorithms(fresh)
                if not wanted or wanted - set(followed.running.hashers):
                    return  # they are known, or another one is asked for now: whoever completes begins anew
                upload, running = fresh, followed.running
                continue
            end = min(upload.prefix, running.done + RUN)
            if followed is not None:
                followed.reading = True
            if await claim.digest(running.done, end, list(running.hashers.values())) != end - running.done:
                raise OSError(f"upload {upload_id} has fewer bytes than were stored")
            running.done = end
            if followed is not None:
                followed.reading = False
        await self._record(upload_id, running)

    async def _record(self, upload_id: str, running: Running) -> None:
        for digest in running.digests():
            await self._core.catalog.record_digest(upload_id, digest, now=self._core.now())
