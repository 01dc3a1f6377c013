"""Sends a file as parallel chunks: one reader, N senders (protocol.md, section 3).

Rule of this file: the file is read once, in order, by one reader, which also hashes it; N senders put chunks on the
wire, and a chunk stays in its buffer until the server has it. So memory is at most the chunk size times (N + 1),
whatever the file's size and whatever fails. A chunk is sent again only after the server was asked (P-RETRY-1), and
only as far as it is missing there.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from holdfast._transport import Body
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, VerificationFailed
from holdfast.planner import RETRY_AFTER_CAP, Attempts, Plan, aligned, pieces
from holdfast.progress import State as Stage
from holdfast.sending import StartAgain, Upload
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest, digest
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

IDLE_PASSES: Final = 3
"""Passes over the missing ranges that may change nothing, before the server is taken to be broken."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of the file in their buffer, until the server has them."""

    span: Span
    buffer: bytearray
    digest: Digest

    def view(self, span: Span) -> memoryview:
        """The bytes of a part of it."""
        return memoryview(self.buffer)[span.start - self.span.start : span.end - self.span.start]


class ParallelRoad:
    """Brings what is missing to the server, and completes the upload. `state` is what the server said last."""

    def __init__(self, upload: Upload, state: protocol.State, clock: Callable[[], float]) -> None:
        assert state.offer is not None
        self._upload = upload
        self._state = state
        self._clock = clock
        self._granule = state.offer.granule
        self.plan = Plan(
            upload.size,
            granule=state.offer.granule,
            max_chunk=state.offer.max_chunk,
            chunk_size=upload.job.chunk_size,
            concurrency=upload.job.concurrency,
        )
        self._algorithm = protocol.chunk_algorithm(state.wants)
        self._buffers: list[bytearray] = []
        self._missing = RangeSet()
        """What the server lacked when it was last asked, less what it has taken since."""
        self._failure: HoldfastError | StartAgain | None = None

    async def run(self) -> Digest:
        """Blocks until the upload is complete; the digest of the whole file. Raises HoldfastError, StartAgain."""
        upload = self._upload
        upload.tracker.concurrency = self.plan.concurrency
        upload.tracker.chunk_size = self.plan.chunk_size
        upload.tracker.enter(Stage.RUNNING)
        await self._fill(self._state)
        upload.tracker.enter(Stage.VERIFYING)
        await self._hash_up_to(upload.size)
        await to_thread.run_sync(upload.source.check)
        upload.check_digest(await self._complete())
        return upload.digest()

    async def _fill(self, state: protocol.State) -> None:
        """Send what is missing; where the server could not name all of it at once, ask again and go on."""
        idle, left = 0, None
        while not state.complete and state.missing is not None and state.missing.spans:
            spans, more = state.missing.spans, state.missing.more
            if left == spans:
                idle += 1
                if idle == IDLE_PASSES:
                    raise BrokenProtocol(f"{self._upload.url} accepts chunks, but they stay missing there")
            left = spans
            await self._pass(spans, spans[-1].end if more else self._upload.size)
            if not more:
                return
            state = await self._upload.state()

    async def _pass(self, missing: tuple[Span, ...], horizon: int) -> None:
        """Read the file up to `horizon` once, send what is missing of it, and wait until the server has that."""
        self._missing = RangeSet((span.start, span.end) for span in missing)
        self._failure = None
        async with anyio.create_task_group() as group:
            into, out_of = anyio.create_memory_object_stream[Chunk](0)
            async with into, out_of:
                for _ in range(self.plan.concurrency):
                    group.start_soon(self._send, out_of.clone(), group.cancel_scope)
                try:
                    await self._read(into, aligned(missing, self._granule, self._upload.size), horizon)
                except (HoldfastError, StartAgain) as error:
                    self._fail(error, group.cancel_scope)
        if self._failure is not None:
            raise self._failure

    async def _read(self, into: MemoryObjectSendStream[Chunk], wanted: RangeSet, horizon: int) -> None:
        upload = self._upload
        for start, end in wanted:
            await self._hash_up_to(start)
            at = start
            while at < end:
                part = Span(at, min(at + self.plan.chunk_size, end))
                buffer = self._take(part.length)
                found = await upload.read(part.start, memoryview(buffer)[: part.length], self._algorithm)
                assert found is not None
                await into.send(Chunk(part, buffer, found))
                at = part.end
        await self._hash_up_to(horizon)

    async def _hash_up_to(self, end: int) -> None:
        buffer = self._take(self.plan.chunk_size)
        await self._upload.hash_up_to(end, buffer)
        self._buffers.append(buffer)

    async def _send(self, out_of: MemoryObjectReceiveStream[Chunk], scope: anyio.CancelScope) -> None:
        async with out_of:
            async for chunk in out_of:
                try:
                    await self._deliver(chunk)
                except (HoldfastError, StartAgain) as error:
                    self._fail(error, scope)
                    return
                self._buffers.append(chunk.buffer)

    async def _deliver(self, chunk: Chunk) -> None:
        """Send a chunk until the server has all of it."""
        attempts = self._upload.attempts()
        damaged = 0
        todo = [chunk.span]
        while todo:
            part = todo[0]
            try:
                await self._put(chunk, part)
                todo.pop(0)
                self._has(part)
                continue
            except ConnectionFailed as error:
                self.plan.failed(part.length, self._clock())
                await self._upload.recover(error, attempts)
            except Refusal as error:
                if error.reaction is Reaction.SMALLER and self.plan.too_large(part.length):
                    self._upload.tracker.chunk_size = self.plan.chunk_size
                    todo[:1] = pieces(part, self.plan.chunk_size)
                    continue
                damaged += error.reaction is Reaction.REPEAT
                if damaged > 1:
                    raise VerificationFailed(
                        f"bytes {part.start} to {part.end} of {self._upload.source.name} arrived damaged twice;"
                        " something between here and the server changes them, or this machine's memory is bad"
                    ) from error
                self.plan.failed(part.length, self._clock(), throttled=error.throttled)
                await self._upload.recover(error, attempts)
            todo = await self._still_missing(todo, attempts)

    async def _put(self, chunk: Chunk, part: Span) -> None:
        view = chunk.view(part)
        whole = part == chunk.span
        proof = chunk.digest if whole else await to_thread.run_sync(digest, self._algorithm, view)

        async def content() -> AsyncIterator[memoryview]:
            yield view

        began = self._clock()
        stored = await self._upload.exchange(
            protocol.chunk(self._upload.url, part, proof, now=time.time()), Body(part.length, content)
        )
        now = self._clock()
        await self._upload.lives_until(stored.expires)
        self._upload.chunks += 1
        self.plan.accepted(part.length, now - began, now)

    async def _still_missing(self, todo: list[Span], attempts: Attempts) -> list[Span]:
        """What the server lacks of these parts of one chunk."""
        state = await self._upload.state(attempts)
        if state.missing is None and not state.complete:
            return todo
        spans: tuple[Span, ...] = state.missing.spans if state.missing is not None else ()
        lacking = aligned(spans, self._granule, self._upload.size)
        if spans and state.missing is not None and state.missing.more and spans[-1].end < self._upload.size:
            # It did not name what lies behind; that may be missing or not, and sending it again is harmless.
            lacking.add(spans[-1].end, self._upload.size)
        left: list[Span] = []
        for part in todo:
            left += (Span(start, end) for start, end in lacking.within(part.start, part.end))
            for start, end in lacking.missing(part.start, part.end):
                self._has(Span(start, end))
        if self._upload.tracker.state is Stage.WAITING:
            self._upload.tracker.enter(Stage.RUNNING)
        return left

    def _has(self, part: Span) -> None:
        """The server has these bytes now."""
        new = self._missing.subtract(part.start, part.end)
        self._upload.accepted(self._upload.tracker.accepted + new)

    async def _complete(self) -> tuple[Digest, ...]:
        """Have it verified and published; the digests that the server computed."""
        upload = self._upload
        attempts = upload.attempts()
        claims: tuple[Digest, ...] = (upload.digest(),)
        while True:
            try:
                done = await upload.exchange(protocol.complete(upload.url, claims, now=time.time()))
            except ConnectionFailed as error:
                await upload.recover(error, attempts)
                continue
            except Refusal as error:
                if error.code in ("upload-digest-mismatch", "upload-failed"):
                    raise self._wrong() from error
                if error.code == "unknown-algorithm" and claims:
                    # Each chunk was verified by its own digest; the whole can still be compared here.
                    claims = ()
                    continue
                await upload.recover(error, attempts)
                if error.code == "missing-ranges":
                    await self._fill(await upload.state(attempts))
                    upload.tracker.enter(Stage.VERIFYING)
                continue
            if done.done:
                return done.digests
            state = await self._verified(done.retry_after)
            if state.complete:
                return state.digests

    async def _verified(self, wait: float | None) -> protocol.State:
        """Ask until verifying has come to an end (P-COMPLETE-4)."""
        while True:
            await anyio.sleep(min(max(wait or 1.0, 0.2), RETRY_AFTER_CAP))
            try:
                state = await self._upload.state()
            except StartAgain as error:
                if isinstance(error.reason, VerificationFailed):
                    raise self._wrong() from error
                raise
            if not state.verifying:
                return state
            wait = 1.0

    def _wrong(self) -> VerificationFailed:
        return VerificationFailed(
            f"{self._upload.source.name}: what arrived at the server does not have the digest of the file"
            f" ({self._upload.digest().algorithm} {self._upload.digest().hex}); nothing was published, upload it again"
        )

    def _fail(self, error: HoldfastError | StartAgain, scope: anyio.CancelScope) -> None:
        if self._failure is None:
            self._failure = error
        scope.cancel()

    def _take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes; used ones go round, fresh ones cost a page fault for each 4 KiB."""
        while self._buffers:
            buffer = self._buffers.pop()
            if len(buffer) >= size:
                return buffer
        return bytearray(size)
