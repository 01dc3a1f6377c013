"""What can be asked of uploads. Everything else in this folder stands behind it."""

import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

import anyio
from msgspec import Struct

from holdfast_protocol import fields, live
from holdfast_protocol import server as rules
from holdfast_protocol.names import safe_name
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import Grant, Principal
from holdfast_server.catalog.base import Asked, Catalog, CatalogError, NoRoom, Spent, Use, WrongState
from holdfast_server.settings import Settings
from holdfast_server.storage.base import Reader, Storage
from holdfast_server.uploads import append, chunk, hole, types, upkeep, whole
from holdfast_server.uploads.activity import Activity
from holdfast_server.uploads.append import Cut
from holdfast_server.uploads.completion import Completion
from holdfast_server.uploads.concatenation import Concatenation
from holdfast_server.uploads.core import Core, no_room
from holdfast_server.uploads.frontier import Frontier
from holdfast_server.uploads.incoming import Ending, Incoming
from holdfast_server.uploads.upload import State, Upload
from holdfast_server.uploads.writers import Writers

__all__ = ["Cut", "Missing", "Uploads"]

Ranges = Sequence[tuple[int, int]]

_INTERRUPTED: Final = frozenset({"fenced", "request-timeout", "shutting-down"})
"""Problems that end a request and not its upload."""

_FAILURES: Final = frozenset(
    {
        "body-too-long",
        "body-too-short",
        "checksum-mismatch",
        "chunk-conflict",
        "digest-mismatch",
        "fenced",
        "insufficient-storage",
        "length-exceeded",
        "request-timeout",
        "shutting-down",
    }
)
"""Problems of requests whose body had begun."""
_MOST_MADE: Final = 128
"""Uploads that are remembered for `Uploads.made`; each may have some KiB of metadata."""


class Missing(Struct, frozen=True):
    """What an upload is missing, ascending; `more` says that there are others behind."""

    ranges: list[tuple[int, int]]
    more: bool


class Uploads:
    """The uploads of one data folder. Other processes may work on the same one.

    Every method raises ProblemError for what cannot be done, and OSError when the disk fails. `who` is the one who
    asks: for whoever does not see an upload there is none (A-OWNER-1). Scopes are looked at before, on the head.
    """

    def __init__(
        self,
        catalog: Catalog,
        storage: Storage,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._core = Core(catalog, storage, settings, now, monotonic)
        self._frontier = Frontier(self._core)
        self._writers = Writers(self._core, self._frontier)
        self._completion = Completion(self._core, self._writers, self._frontier)
        self.limits: rules.Limits = rules.Limits(
            min(settings.max_size or rules.LONGEST, rules.LONGEST),
            settings.max_chunk,
            settings.expire_after,
            max_metadata=settings.limits.max_metadata,
        )
        self._concatenation = Concatenation(
            self._core, self._writers, self._frontier, self._completion, self.limits.max_size
        )
        self._made: dict[str, Upload] = {}  # in the order in which they were made
        self._upkeep = upkeep.Upkeep(self._core, self._writers, self._completion, self._concatenation)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recovers, then keeps the background work going: digests, completions, expiry, fences of others."""
        async with anyio.create_task_group() as tasks:
            self._frontier.start(tasks)
            self._writers.start(tasks)
            self._completion.start(tasks)
            self._concatenation.start(tasks)
            await self._upkeep.recover()
            tasks.start_soon(self._upkeep.sweep_forever)
            tasks.start_soon(self._writers.watch)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """The process is about to end: nothing new is begun, and what runs stores what it has. Does not block."""
        self._writers.stop_all()

    async def create(
        self,
        who: Principal,
        wanted: rules.Create,
        body: Callable[[], AbstractAsyncContextManager[Incoming]],
        parts: Sequence[str] = (),
        data: bytes = b"",
        project: str | None = None,
    ) -> Upload:
        """Makes an upload, with the body that came with it, if one did. `body` is called only in that case, and not if
        `data`, the whole body where it is here already, will do.

        `parts` are the ids of those that a final is put together from. `project` is one that `who` may make uploads in.
        """
        self._check_open()
        core, now = self._core, self._core.now()
        name = safe_name(wanted.filename or "")
        if wanted.concat is None or parts:  # parts are never published
            types.check_name(core.settings, name)
        length = await self._concatenation.length(parts, who) if parts else wanted.length
        upload = Upload(
            id=secrets.token_hex(16),
            state=State.RECEIVING,
            length=length,
            parallel=wanted.parallel,
            granule=rules.granule(length or 0),
            concat=None if wanted.concat is None else wanted.concat.raw,
            metadata=wanted.metadata,
            name=name,
            created=now,
            updated=now,
            expires=core.expiry(),
            expected=wanted.expected,
            wanted=wanted.wanted,
            owner=who.owner,
            project=project if project is not None or who.owner is not None else _project_of(wanted.metadata),
        )
        asked = None if wanted.key is None else _asked(who, wanted.key)
        try:
            if wanted.body is not None and who.grant is None and whole.is_whole(upload, wanted.body, data):
                made = await whole.create(core, upload, wanted.body, data, asked)
                if made is not None:
                    return made
            room = None if core.settings.overcommit else core.free()
            await self._add(upload, room, parts, who, asked)
        except NoRoom as error:
            raise no_room(error) from None
        except Asked as known:
            return _same(known.upload, upload)
        if upload.final:
            return await self._concatenation.begin(upload)
        if wanted.body is not None:
            try:
                async with body() as incoming:
                    return await self._append(who, upload, wanted.body, incoming)
            except (ProblemError, Cut) as error:
                # Nobody has learnt its URL, so nobody could go on with it (T-CREATE-4), but for whoever has the key.
                with anyio.CancelScope(shield=True):
                    if asked is not None and await self._goes_on(upload.id, error):
                        raise
                    try:
                        await self._terminate(upload.id)
                    except ProblemError as problem:
                        if who.grant is not None and problem.code == "not-found":  # given up for another one
                            raise spent() from error
                        raise
                    if who.grant is not None:
                        await core.catalog.release(upload.id)
                if who.grant is not None and isinstance(error, ProblemError) and error.code == "fenced":
                    raise spent() from error  # by the one that it is given up for: nobody else knows of it
                raise
        if upload.length == 0 and not upload.parallel and not upload.partial:
            return await self._completion.complete(upload)
        if upload.length and not upload.partial:
            self._made[upload.id] = upload
            if len(self._made) > _MOST_MADE:
                del self._made[next(iter(self._made))]
        return upload

    def made(self, who: Principal, upload_id: str) -> Upload | None:
        """An upload as it was made here a short while ago, where that is known; to be asked once. To be given to
        `append_whole` and to nobody else: the transaction that finishes it finds out whether it is still so.
        """
        upload = self._made.get(upload_id)
        return self._made.pop(upload_id) if upload is not None and who.sees(upload) else None

    async def _goes_on(self, upload_id: str, error: ProblemError | Cut) -> bool:
        """K-KEY-2: the body of a creation was cut off, or another request has taken over, and the upload is there."""
        if isinstance(error, ProblemError) and error.code not in _INTERRUPTED:
            return False
        found = await self._core.catalog.get(upload_id)
        return found is not None and found.state in (State.RECEIVING, State.VERIFYING, State.COMPLETE)

    async def _add(
        self, upload: Upload, room: int | None, parts: Sequence[str], who: Principal, asked: str | None
    ) -> None:
        """Writes a new upload down, and that it was made by a grant, if it was (A-SIGN-4)."""
        use = None if who.grant is None else Use(who.grant.id, who.grant.uses, who.grant.expires)
        try:
            await self._core.catalog.create(upload, room=room, parts=parts, use=use, asked=asked)
        except Spent as error:
            if error.empty is None:
                raise spent() from None
            # The answer that told of that one may have been lost: whoever asks again gets another in its place.
            with suppress(ProblemError):  # it has a byte by now, or somebody else has given it up
                await upkeep.end(self._core, self._writers, error.empty, State.TERMINATED, gives_up=True)
                await self._concatenation.part_changed(error.empty)
            try:
                await self._core.catalog.create(upload, room=room, parts=parts, use=use, asked=asked)
            except Spent:
                raise spent() from None

    async def left(self, grant: Grant) -> int:
        """How many uploads can still be made by this grant (A-SIGN-4)."""
        return max(0, grant.uses - await self._core.catalog.used(grant.id))

    async def find(self, who: Principal, upload_id: str) -> Upload:
        """The upload as it is now. Raises ProblemError 404, 410."""
        return await self._core.find(upload_id, who)

    async def state(self, who: Principal, upload_id: str, limit: int) -> tuple[Upload, Missing]:
        """The upload, what has arrived in stalled requests included, and the first `limit` ranges that it misses."""
        if not who.sees_all:
            await self._core.find(upload_id, who)
        await self._writers.flush(upload_id)
        upload = await self._core.find(upload_id)
        if upload.final:
            upload = await self._concatenation.settle(upload)
        return upload, await self.missing(upload, 0, limit)

    async def settled(self, who: Principal, upload_id: str, gone: Callable[[], bool]) -> Upload:
        """The upload, after whoever was writing to it in order was ended, and what had arrived stored (I-HEAD-2).

        `gone` says whether the one who asks is not there any more: then nobody is ended.
        Raises ProblemError 404, 410, and 503 `range-busy`.
        """
        upload = await self._core.find(upload_id, who)
        if upload.final:
            return await self._concatenation.settle(upload)
        if upload.state is State.RECEIVING:
            await self._writers.take_turn(upload_id, gone)
            upload = await self._core.find(upload_id)
        return upload

    @property
    def activity(self) -> Activity:
        """What is going on in this process."""
        return self._core.activity

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return self._core.monotonic()

    def now(self) -> float:
        """Seconds since the epoch, by the clock that `expires` is told by."""
        return self._core.now()

    async def missing(self, upload: Upload, after: int, limit: int) -> Missing:
        """What is missing from `after` on; nothing that could be told while the length is not known."""
        if upload.length is None or upload.whole or after >= upload.length:
            return Missing([], False)
        return Missing(*await self._core.catalog.missing(upload.id, after, upload.length, limit))

    async def stored(self, upload: Upload, after: int, limit: int) -> Ranges:
        """The first `limit` stored ranges from `after` on."""
        if after >= upload.reach:
            return []
        return await self._core.catalog.stored(upload.id, after, upload.reach, limit)

    async def list(
        self, who: Principal, state: State | None, before: tuple[float, str] | None, limit: int
    ) -> Sequence[Upload]:
        """Those that `who` sees, newest first; keyset paging by (created, id)."""
        catalog = self._core.catalog
        if who.sees_all:
            return await catalog.list(state=state, before=before, limit=limit)
        if who.only is not None:
            return []
        return await catalog.list(
            state=state, before=before, limit=limit, owner=who.owner, projects=tuple(who.projects)
        )

    async def append(self, who: Principal, upload: Upload, wanted: rules.Append, body: Incoming) -> Upload:
        """Bytes in order. Completes the upload when the prefix reaches its length (C-MIX-2)."""
        self._check_open()
        return await self._append(who, upload, wanted, body)

    async def append_whole(self, upload: Upload, wanted: rules.Append, data: bytes) -> Upload | None:
        """As `append`, with the whole body, where that is all of a small file. None if it is not: nothing was done."""
        self._check_open()
        if not whole.is_whole(upload, wanted, data):
            return None
        return await whole.append(self._core, upload, wanted, data)

    async def _append(self, who: Principal, upload: Upload, wanted: rules.Append, body: Incoming) -> Upload:
        if upload.partial:
            async with self._changing(upload), self._counting(upload):
                return await append.append(self._core, self._writers, self._frontier, upload, wanted, body)
        try:
            async with self._counting(upload):
                upload = await append.append(self._core, self._writers, self._frontier, upload, wanted, body)
        except ProblemError as problem:
            if problem.code == "length-exceeded" and wanted.fails_beyond:
                with anyio.CancelScope(shield=True):
                    await self._invalidate(upload.id)
            raise
        if wanted.completes is False or body.ending not in (None, Ending.WHOLE):
            return upload
        if upload.prefix == upload.length:
            await _confirm(who)
            return await self._completion.complete(upload, wait=wanted.wait)
        if wanted.completes:
            assert upload.length is not None  # a body that completes says it by its end, if nothing else does
            raise rules.inconsistent_length(upload.length, upload.prefix)
        return upload

    async def _invalidate(self, upload_id: str) -> None:
        """I-LENGTH-3."""
        with suppress(WrongState, ProblemError):  # it was completed or removed meanwhile
            if (await self._core.find(upload_id)).length is None:
                return  # only the request contradicts itself
            await self._core.catalog.transition(
                upload_id,
                sources={State.RECEIVING},
                to=State.FAILED,
                now=self._core.now(),
                expires=self._core.expiry(),
                event="failed",
                error="length-exceeded",
                error_detail="More bytes came than the upload has.",
            )

    async def store_chunk(self, upload: Upload, wanted: rules.StoreChunk, body: Incoming) -> Upload:
        """A range, whole and verified or not at all."""
        self._check_open()
        async with self._changing(upload), self._counting(upload):
            return await chunk.store(self._core, self._writers, self._frontier, upload, wanted, body)

    async def store_hole(self, upload: Upload, wanted: rules.StoreHole) -> Upload:
        """A range of zeros, as whole as a chunk."""
        self._check_open()
        async with self._changing(upload):
            return await hole.store(self._core, self._writers, self._frontier, upload, wanted)

    @asynccontextmanager
    async def _counting(self, upload: Upload) -> AsyncIterator[None]:
        """A request whose body fails in the block is counted (L-PAYLOAD-1)."""
        try:
            yield
        except (ProblemError, Cut) as error:
            if isinstance(error, Cut) or error.code in _FAILURES:
                with anyio.CancelScope(shield=True), suppress(CatalogError, OSError):
                    self._core.activity.stored(await self._core.catalog.record_failure(upload.id, now=self._core.now()))
            raise

    @asynccontextmanager
    async def _changing(self, upload: Upload) -> AsyncIterator[None]:
        """Bytes of a part may be stored in the block, also if the request is cut off then."""
        try:
            yield
        finally:
            if upload.partial:
                with anyio.CancelScope(shield=True):
                    await self._concatenation.part_changed(upload.id)

    async def complete(self, who: Principal, upload: Upload, wanted: rules.Complete) -> Upload:
        """Verifies and publishes; the upload may still be `verifying` when that takes long (P-COMPLETE-4)."""
        self._check_open()
        await _confirm(who)
        return await self._completion.complete(upload, wanted.digests, wanted.wait)

    async def terminate(self, who: Principal, upload_id: str) -> None:
        """Ends an upload, its running requests first (T-DELETE-1)."""
        await self._core.find(upload_id, who)
        await self._terminate(upload_id)

    async def _terminate(self, upload_id: str) -> None:
        await upkeep.end(self._core, self._writers, upload_id, State.TERMINATED)
        await self._concatenation.part_changed(upload_id)

    def open(self, upload: Upload) -> AbstractAsyncContextManager[Reader]:
        """The published file. Raises ProblemError 409 if there is none yet."""
        if upload.partial:
            raise ProblemError("not-finished", "This is a part of a file. Download the upload that it was put into.")
        if upload.state is not State.COMPLETE:
            length = "as yet unknown" if upload.length is None else upload.length
            raise ProblemError(
                "not-finished",
                f"This upload is {upload.state}: {upload.received} of {length} bytes are here.",
            )
        return self._core.storage.open(upload.id, upload.name)

    def _check_open(self) -> None:
        if self._writers.stopping:
            raise ProblemError(
                "shutting-down", "The server is shutting down. Try again in a moment.", headers={"Retry-After": "1"}
            )


async def _confirm(who: Principal) -> None:
    """Before a file is published (A-AGAIN-1). Raises ProblemError 401."""
    if who.confirm is not None:
        await who.confirm()


def spent() -> ProblemError:
    """A-SIGN-4."""
    return ProblemError("not-permitted", "This URL has made as many uploads as it may. Ask for a new one.")


def _asked(who: Principal, key: str) -> str:
    """A key counts for whoever has sent it, and for nobody else (K-KEY-3)."""
    said = [who.owner, None if who.grant is None else who.grant.id, key]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _same(known: Upload, wanted: Upload) -> Upload:
    """An upload that was asked for again. Raises ProblemError 422 if it is another one that is asked for (K-KEY-4)."""
    lengths = () if wanted.final or wanted.length is None else (known.length, wanted.length)
    said = [fields.parse_metadata(each.metadata or "") for each in (known, wanted)]
    if len(set(lengths)) > 1 or said[0] != said[1] or known.concat != wanted.concat:
        raise rules.key_reused()
    return known


def _project_of(metadata: str | None) -> str | None:
    """What the metadata call the project, where no credential says it (L-TOPIC-2)."""
    named = fields.parse_metadata(metadata).get("project", b"") if metadata else b""
    name = named.decode("utf-8", "replace")
    return name if 0 < len(name) <= live.LONGEST_NAME and name.isprintable() else None
