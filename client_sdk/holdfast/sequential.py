"""Sends a file as plain tus 1.0.0: one PATCH after the other, for servers that know nothing else.

Rule of this file: bytes go where the server says that the prefix ends, and after any failure it is asked where that
is. A PATCH that is cut off keeps what arrived, so nothing is kept in memory here: what is needed again is read again.
A PATCH with a checksum is stored as a whole or not at all; such ones are cut into chunks, and one chunk is in memory.
"""

import time
from collections.abc import AsyncIterator
from typing import Final

from anyio import to_thread

from holdfast._transport import Body
from holdfast.errors import BrokenProtocol, ConnectionFailed, VerificationFailed
from holdfast.planner import DEFAULT_CHUNK, MIB, TUS_GRANULE
from holdfast.progress import State as Stage
from holdfast.sending import Upload
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

PIECE: Final = MIB
LONGEST_PATCH: Final = 64 * MIB
"""So that the server confirms something now and then; a round trip for each is not felt."""


class SequentialRoad:
    """Brings what is behind the prefix to the server. `state` is what the server said last.

    `checksum` is the algorithm for the checksum of each PATCH, None for none.
    """

    def __init__(self, upload: Upload, state: protocol.State, checksum: str | None = None) -> None:
        self._upload = upload
        self._state = state
        self._checksum = checksum
        self._patch = upload.job.chunk_size or LONGEST_PATCH
        if checksum is not None:
            self._patch = min(upload.job.chunk_size or DEFAULT_CHUNK, LONGEST_PATCH)
        self._buffer = bytearray(PIECE)
        self._chunk = bytearray()

    async def run(self) -> Digest:
        """Blocks until the upload is complete; the digest of the whole file. Raises HoldfastError, StartAgain."""
        upload = self._upload
        upload.tracker.busy(1)
        upload.tracker.chunk_size = self._patch
        upload.tracker.enter(Stage.IN_PROGRESS)
        state = await self.send()
        await upload.hash_up_to(upload.size, self._buffer)
        upload.check_digest(state.digests)
        return upload.digest()

    async def send(self) -> protocol.State:
        """Blocks until the server has all bytes; what it said last. Raises HoldfastError, StartAgain."""
        upload = self._upload
        attempts = upload.attempts()
        damaged = 0
        state = self._state
        while not state.complete:
            part = Span(state.offset, min(state.offset + self._patch, upload.size))
            await upload.hash_up_to(part.start, self._buffer)
            try:
                state = await self._append(part)
                damaged = 0
                upload.accepted(state.offset)
                continue
            except ConnectionFailed as error:
                await upload.recover(error, attempts)
            except Refusal as error:
                if error.reaction is Reaction.SMALLER and part.length > TUS_GRANULE:
                    self._patch = max(TUS_GRANULE, part.length // 2)
                    upload.tracker.chunk_size = self._patch
                elif self._checksum is not None and error.status == 400 and error.reaction is Reaction.FAIL:
                    # It offers checksums and refuses this one; the bytes are worth more than their checksum.
                    self._checksum = None
                else:
                    damaged += error.reaction is Reaction.REPEAT
                    if damaged > 1:
                        raise arrived_damaged(upload.source.name) from error
                    await upload.recover(error, attempts)
            state = await upload.state(attempts)
            upload.accepted(state.offset)
        return state

    async def _append(self, part: Span) -> protocol.State:
        upload = self._upload
        if part.end == upload.size:
            await to_thread.run_sync(upload.source.check)
        proof = None
        body = Body(part.length, lambda: self._content(part))
        if self._checksum is not None:
            proof, body = await read_whole(upload, part, self._view(part.length), self._checksum)
        stored = await upload.exchange(protocol.append(upload.url, part, checksum=proof, now=time.time()), body)
        offset = stored.offset
        if offset is None or not part.start <= offset <= upload.size or (offset == part.start != part.end):
            raise BrokenProtocol(f"{upload.url} answered {offset} to bytes {part.start} to {part.end}")
        upload.chunks += 1
        await upload.lives_until(stored.expires)
        return protocol.State(offset, upload.size, complete=offset == upload.size)

    def _view(self, length: int) -> memoryview:
        if len(self._chunk) < length:
            self._chunk = bytearray(length)
        return memoryview(self._chunk)[:length]

    async def _content(self, part: Span) -> AsyncIterator[memoryview]:
        at = part.start
        while at < part.end:
            view = memoryview(self._buffer)[: min(PIECE, part.end - at)]
            await self._upload.read(at, view)
            yield view
            at += len(view)


async def read_whole(upload: Upload, part: Span, view: memoryview, algorithm: str | None) -> tuple[Digest | None, Body]:
    """Read a part of the file into `view`; its digest, and the body of a request with it."""
    proof = await upload.read(part.start, view, algorithm)

    async def content() -> AsyncIterator[memoryview]:
        yield view

    return proof, Body(part.length, content)


def arrived_damaged(name: str) -> VerificationFailed:
    """The error for bytes that were refused twice because of their checksum."""
    return VerificationFailed(f"{name} arrived damaged twice; something between here and the server changes its bytes")
