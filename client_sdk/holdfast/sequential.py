"""Sends a file in order, one PATCH after the other: plain tus 1.0.0, or the IETF draft.

Rule of this file: bytes go where the server says that the prefix ends, and after any failure it is asked where that
is. A PATCH that is cut off keeps what arrived, so nothing is kept in memory here: what is needed again is read again.
The next piece is read and hashed while the one before is on its way. A PATCH with a checksum is stored as a whole or
not at all; such ones are cut into chunks, and one chunk is in memory.
No PATCH is longer or shorter than what the server said that it takes.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from holdfast.bodies import Body
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, VerificationFailed
from holdfast.planner import DEFAULT_CHUNK, MIB, TUS_GRANULE
from holdfast.progress import State as Stage
from holdfast.sending import LOOK, Upload
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

PIECE: Final = 4 * MIB
"""Bytes that are read and sent at once; with 1 MiB a file took a quarter longer: two threads took turns too often."""
LONGEST_PATCH: Final = 64 * MIB
"""So that the server confirms something now and then; a round trip for each is not felt."""


class SequentialRoad:
    """Brings what is behind the prefix to the server. `state` is what the server said last.

    `checksum` is the algorithm for the checksum of each PATCH, None for none. At most `in_memory` bytes are in memory:
    a PATCH with a checksum, or two pieces of one without.
    """

    def __init__(
        self, upload: Upload, state: protocol.State, checksum: str | None = None, in_memory: int = LONGEST_PATCH
    ) -> None:
        self._upload = upload
        self._state = state
        self._checksum = checksum
        self._piece = min(PIECE, in_memory // 2)
        self._patch = upload.job.chunk_size or LONGEST_PATCH
        if checksum is not None:
            self._patch = min(upload.job.chunk_size or DEFAULT_CHUNK, in_memory)
        if (ceiling := upload.session.limiter.controller.proven_ceiling) is not None:
            self._patch = max(TUS_GRANULE, min(self._patch, ceiling))
        self._says_length = state.length is None
        """The server was not told yet how long the file is."""
        self._buffer = bytearray()

    async def run(self) -> Digest:
        """Blocks until the upload is complete; the digest of the whole file. Raises HoldfastError, StartAgain."""
        upload = self._upload
        upload.tracker.busy(1)
        upload.tracker.chunk_size = self._patch
        upload.tracker.enter(Stage.IN_PROGRESS)
        state = await self.send()
        await upload.hash_up_to(upload.size)
        upload.check_digest(state.digests)
        return upload.digest()

    async def send(self) -> protocol.State:
        """Blocks until the server has all bytes; what it said last. Raises HoldfastError, StartAgain."""
        upload = self._upload
        attempts = upload.attempts()
        damaged = 0
        state = self._state
        while not state.complete:
            if state.retry_after is not None and state.offset == upload.size:
                # All is there and is being verified; an empty PATCH asks again.
                await upload.look_again(state.step, state.retry_after)
            part = self._part(state.offset)
            await upload.hash_up_to(part.start)
            try:
                state = await self._append(part)
                damaged = 0
                upload.session.limiter.controller.fitted()
                upload.accepted(state.offset)
                continue
            except ConnectionFailed as error:
                await upload.recover(error, attempts)
            except Refusal as error:
                if error.reaction is Reaction.SMALLER and part.length > self._least:
                    upload.limits = upload.limits.then(error.limits)
                    self._patch = max(self._least, part.length // 2)
                    if upload.limits.max_append is None:  # else the server says it each time
                        upload.session.limiter.controller.too_large(part.length)
                    upload.tracker.chunk_size = self._patch
                elif self._checksum is not None and error.status == 400 and error.reaction is Reaction.FAIL:
                    # It offers checksums and refuses this one; the bytes are worth more than their checksum.
                    self._checksum = None
                else:
                    damaged += error.reaction is Reaction.REPEAT
                    if damaged > 1:
                        raise arrived_damaged(upload.source.name) from error
                    await upload.recover(error, attempts)
                if error.state is not None:
                    state = await upload.believed(error.state)
                    upload.arrived(state.offset - part.start)
                    upload.accepted(state.offset)
                    continue
            state = await upload.state(attempts)
            upload.arrived(state.offset - part.start)
            upload.accepted(state.offset)
        return state

    @property
    def _least(self) -> int:
        """The shortest PATCH that makes sense, but for the last one."""
        return max(TUS_GRANULE, self._upload.limits.min_append or 0)

    def _part(self, start: int) -> Span:
        """What to send next."""
        limits = self._upload.limits
        length = max(self._patch, limits.min_append or 0)
        if limits.max_append is not None:
            length = min(length, limits.max_append)
        if length > LONGEST_PATCH:
            self._checksum = None  # the server wants more at once than may be in memory
        return Span(start, min(start + length, self._upload.size))

    async def _append(self, part: Span) -> protocol.State:
        upload = self._upload
        if part.end == upload.size:
            await to_thread.run_sync(upload.source.check)
        if self._checksum is not None:
            proof, body = await read_whole(upload, part, self._view(part.length), self._checksum)
            stored = await self._put(part, body, proof)
        else:
            async with _read_ahead(upload, part, self._piece) as body:
                stored = await self._put(part, body)
        offset = stored.offset
        if offset is None:
            upload.chunks += 1
            return await upload.state()
        if not part.start <= offset <= upload.size or (offset == part.start != part.end):
            raise BrokenProtocol(f"{upload.url} answered {offset} to bytes {part.start} to {part.end}")
        upload.chunks += 1
        self._says_length = False
        await upload.heard(stored.limits, stored.expires)
        complete = offset == upload.size if stored.complete is None else stored.complete
        if complete and offset != upload.size:
            raise BrokenProtocol(f"{upload.url} says that it is complete with {offset} of {upload.size} bytes")
        return protocol.State(offset, upload.size, complete, retry_after=stored.retry_after, step=stored.step)

    async def _put(self, part: Span, body: Body, proof: Digest | None = None) -> protocol.Stored:
        upload = self._upload
        length = upload.size if self._says_length else None
        wait = LOOK if part.end == upload.size else None
        steps = upload.speech.append(upload.url, part, checksum=proof, length=length, wait=wait, now=time.time())
        return await upload.exchange(steps, body)

    def _view(self, length: int) -> memoryview:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        return memoryview(self._buffer)[:length]


@contextlib.asynccontextmanager
async def _read_ahead(upload: Upload, part: Span, piece: int) -> AsyncIterator[Body]:
    """The body of a request with a part of the file, of which two pieces are in memory, of `piece` bytes each."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            yield Body(part.length, partial(_pieces, upload, part, piece, group))
        except Exception as error:  # as it is: the group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _pieces(upload: Upload, part: Span, size: int, group: TaskGroup) -> AsyncIterator[memoryview]:
    """Each is valid until the next one is asked for."""
    into, out_of = anyio.create_memory_object_stream[memoryview | HoldfastError](0)
    group.start_soon(_read, upload, part, size, into)
    with out_of:
        async for piece in out_of:
            if isinstance(piece, HoldfastError):
                raise piece
            yield piece


async def _read(
    upload: Upload, part: Span, size: int, into: MemoryObjectSendStream[memoryview | HoldfastError]
) -> None:
    """Nobody takes a piece before the one before it is sent: so the memory of that one is free then."""
    pair = [memoryview(bytearray(min(size, part.length))) for _ in range(2)]
    # Whoever takes them goes away when the request is sent anew.
    with into, contextlib.suppress(anyio.BrokenResourceError):
        try:
            for at in range(part.start, part.end, size):
                pair.reverse()
                view = pair[0][: part.end - at]
                await upload.read(at, view)
                await into.send(view)
        except HoldfastError as error:
            await into.send(error)


async def read_whole(upload: Upload, part: Span, view: memoryview, algorithm: str | None) -> tuple[Digest | None, Body]:
    """Read a part of the file into `view`; its digest, and the body of a request with it."""
    proof = await upload.read(part.start, view, algorithm)

    async def content() -> AsyncIterator[memoryview]:
        yield view

    return proof, Body(part.length, content)


def arrived_damaged(name: str) -> VerificationFailed:
    """The error for bytes that were refused twice because of their checksum."""
    return VerificationFailed(f"{name} arrived damaged twice; something between here and the server changes its bytes")
