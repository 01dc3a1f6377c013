"""Sends a file as parallel chunks: one reader, N senders (protocol.md, section 3).

Rule of this file: the source is read in order, by one reader, which hashes it; N senders put chunks on the wire. What
is in a file that is open goes from there, past this process: the kernel has it in memory since it was hashed, and if
somebody has written to it in between, the server finds another digest than that of the chunk and stores nothing. What
cannot be read again so stays in a buffer until the server has it: memory is at most the chunk size times (N + 1), and
what buffers.py allows, whatever the size and whatever fails. A chunk is sent again only after the server was asked
(P-RETRY-1), and only as far as it is missing there. A hole of the file goes its way among the chunks where the server
takes holes (P-HOLE-1): it is told of in one request, whatever its length.
"""

import contextlib
import math
import mmap
import time
from collections.abc import AsyncIterator
from typing import Final

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from holdfast import stragglers
from holdfast.bodies import Body, Stored
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, VerificationFailed
from holdfast.planner import MOST_CONNECTIONS, SMALLEST_CHUNK, Plan, Sending, aligned, pieces
from holdfast.progress import State as Stage
from holdfast.retries import Attempts
from holdfast.sending import LOOK, StartAgain, Upload
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest, chunk_algorithm, digest
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

FAILURES_BEFORE_HALVES: Final = 2
"""Failures in a row after which a chunk is sent in halves: a connection may break before so much is through."""
IDLE_PASSES: Final = 3
"""Passes over the missing ranges that may change nothing, before the server is taken to be broken."""


class Hole(Struct, frozen=True):
    """A run of zeros that is not read and not sent, until the server has heard of it."""

    span: Span


class Chunk(Struct, frozen=True):
    """Bytes of the source, in their buffer until the server has them; or in the file, if there is none."""

    span: Span
    buffer: mmap.mmap | None
    digest: Digest

    def view(self, span: Span) -> memoryview:
        """The bytes of a part of it, if there is a buffer."""
        assert self.buffer is not None
        return memoryview(self.buffer)[span.start - self.span.start : span.end - self.span.start]


class _Flight:
    """A chunk on its way. `scope` is that of whoever sends it, to be cancelled when somebody else was faster."""

    def __init__(self, chunk: Chunk | Hole, began: float) -> None:
        self.chunk = chunk
        self.began = began
        self.sending: Sending | None = None
        """What has gone out since it was begun, or begun again."""
        self.scope = anyio.CancelScope()
        self.landed = False
        self.helped = False


class ParallelRoad:
    """Brings what is missing to the server, and completes the upload. `state` is what the server said last."""

    def __init__(self, upload: Upload, state: protocol.State) -> None:
        assert state.offer is not None
        self._upload = upload
        self._state = state
        self._clock = upload.session.clock.monotonic
        self._granule = state.offer.granule
        self._holes = state.offer.holes
        self._limiter = upload.session.limiter
        self.plan: Plan = Plan(
            self._limiter.controller,
            granule=state.offer.granule,
            max_chunk=state.offer.max_chunk,
            chunk_size=upload.job.chunk_size,
            concurrency=upload.job.concurrency,
            kept=upload.source.descriptor is None,
        )
        self._algorithm = chunk_algorithm(state.wants)
        self._buffers = self._limiter.buffers
        self._missing = RangeSet()
        """What the server lacked when it was last asked, less what it has taken since."""
        self._failure: HoldfastError | StartAgain | None = None
        self._read_to = 0
        """How far the file was read to be sent."""
        self._read_on = anyio.Event()
        self._handed = 0
        """Chunks that a sender was given and has not begun: the last one may be, when another finds nothing to send."""
        self._flights: set[_Flight] = set()
        self._change = anyio.Event()
        """A chunk was begun, or has landed."""
        self._spare = stragglers.allowance(upload.size)
        """Bytes that may yet be sent twice to help slow connections out."""

    async def run(self) -> Digest:
        """Blocks until the upload is complete; the digest of the whole file. Raises HoldfastError, StartAgain."""
        upload = self._upload
        upload.tracker.enter(Stage.IN_PROGRESS)
        await self._fill(self._state)
        upload.tracker.enter(Stage.VERIFYING)
        await upload.hash_up_to(upload.size)
        await to_thread.run_sync(upload.source.check)
        async with upload.connection():
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
            await self._pass(spans)
            if not more:
                return
            state = await self._upload.state()

    async def _pass(self, missing: tuple[Span, ...]) -> None:
        """Read what is missing, send it, and wait until the server has it."""
        self._missing = RangeSet((span.start, span.end) for span in missing)
        self._failure = None
        self._handed = 0
        wanted = aligned(missing, self._granule, self._upload.size)
        left = sum(end - start for start, end in wanted)
        senders = min(self._upload.job.concurrency or MOST_CONNECTIONS, -(-left // self.plan.chunk_size(1)))
        async with anyio.create_task_group() as group:
            into, out_of = anyio.create_memory_object_stream[Chunk | Hole](0)
            async with into, out_of:
                for _ in range(senders):
                    group.start_soon(self._send, out_of.clone(), group.cancel_scope)
                catching_up = anyio.CancelScope()
                group.start_soon(self._catch_up, catching_up, group.cancel_scope)
                try:
                    with self._limiter.controller.reading():
                        await self._read(into, wanted, left)
                except (HoldfastError, StartAgain) as error:
                    self._fail(error, group.cancel_scope)
                finally:
                    catching_up.cancel()
        if self._failure is not None:
            raise self._failure

    async def _read(self, into: MemoryObjectSendStream[Chunk | Hole], wanted: RangeSet, left: int) -> None:
        upload = self._upload
        for start, end in wanted:
            at = start
            while at < end:
                hole = await to_thread.run_sync(self._next_hole, at, end)
                while at < hole.start:
                    self._advance(at)
                    part = Span(at, min(at + self.plan.chunk_size(left), hole.start))
                    upload.tracker.chunk_size = part.length
                    chunk = await self._chunk(part)
                    at = part.end
                    left -= part.length
                    self._advance(at)
                    self._handed += 1
                    await into.send(chunk)
                if hole.length:
                    at = hole.end
                    left -= hole.length
                    self._advance(at)
                    self._handed += 1
                    await into.send(Hole(hole))

    async def _chunk(self, part: Span) -> Chunk:
        """Read and hash it."""
        if self._upload.source.descriptor is not None:
            return Chunk(part, None, await self._upload.scan(part, self._algorithm))
        if self._flights:
            await self._buffers.room(part.length, self.plan.memory)
        buffer = self._buffers.take(part.length)
        found = await self._upload.read(part.start, memoryview(buffer)[: part.length], self._algorithm)
        assert found is not None
        return Chunk(part, buffer, found)

    def _next_hole(self, start: int, end: int) -> Span:
        """The first hole in `[start, end)` that is worth a request, in whole granules; else an empty span at `end`."""
        source, granule = self._upload.source, self._granule
        while self._holes and (found := source.hole(start, end)) is not None:
            first = -(-found.start // granule) * granule
            last = found.end if found.end == source.size else found.end // granule * granule
            if last - first >= SMALLEST_CHUNK:
                return Span(first, last)
            start = found.end
        return Span(end, end)

    def _advance(self, at: int) -> None:
        self._read_to = at
        self._read_on.set()

    async def _catch_up(self, scope: anyio.CancelScope, group: anyio.CancelScope) -> None:
        """Hash what the server has already, and what the reader has left out, beside the sending."""
        upload = self._upload
        with scope:
            while True:
                self._read_on = anyio.Event()
                try:
                    await upload.hash_up_to(self._read_to)
                except HoldfastError as error:
                    self._fail(error, group)
                    return
                if upload.hashed >= self._read_to:
                    await self._read_on.wait()

    async def _send(self, out_of: MemoryObjectReceiveStream[Chunk | Hole], scope: anyio.CancelScope) -> None:
        pace = math.inf
        try:
            async with out_of:
                while True:
                    async with self._upload.connection():
                        try:
                            with self._limiter.hungry():
                                chunk = await out_of.receive()
                        except anyio.EndOfStream:
                            break
                        flight = _Flight(chunk, self._clock())
                        await self._fly(flight)
                        if isinstance(chunk, Chunk):
                            pace = min(pace, (self._clock() - flight.began) / chunk.span.length)
            if pace < math.inf:
                await self._help(pace)
        except (HoldfastError, StartAgain) as error:
            self._fail(error, scope)

    async def _fly(self, flight: _Flight) -> None:
        """Send a chunk until the server has it, from here or from a connection that came to help."""
        self._handed -= 1
        self._flights.add(flight)
        self._changed()
        try:
            with flight.scope:
                await self._deliver(flight)
                flight.landed = True
        finally:
            self._flights.discard(flight)
            self._changed()
            if isinstance(flight.chunk, Chunk) and flight.chunk.buffer is not None:
                # A copy may still be reading from it.
                self._buffers.give_back(flight.chunk.buffer, again=flight.landed and not flight.helped)
        if isinstance(flight.chunk, Hole):
            self._upload.sparse += flight.chunk.span.length

    async def _help(self, pace: float) -> None:
        """All is read, and this connection has nothing to do: send a chunk that takes much longer than it should.

        `pace` is what this connection took at its best, in seconds a byte; how it is now the controller knows better.
        The first of the two that is stored counts; the server takes the other as what it has already (P-CHUNK-5).
        """
        while self._flights or self._handed:
            change = self._change
            soonest = stragglers.LOOK
            late: _Flight | None = None
            for flight in self._flights:
                if flight.helped or flight.chunk.span.length > self._spare or isinstance(flight.chunk, Hole):
                    continue
                due = self._due(flight, pace)
                soonest = min(soonest, max(due, 0.01))
                if due <= 0 and (late is None or flight.began < late.began):
                    late = flight
            if late is None:
                with anyio.move_on_after(soonest):
                    await change.wait()
                continue
            late.helped = True
            self._spare -= late.chunk.span.length
            async with self._upload.connection():
                await self._copy(late)

    def _due(self, flight: _Flight, pace: float) -> float:
        now = self._clock()
        age = silent = now - flight.began
        moved = 0
        if flight.sending is not None:
            moved, silent = flight.sending.moved, now - flight.sending.moved_at
        return stragglers.due(flight.chunk.span.length, moved, age, silent, pace, self._limiter.controller.expected)

    async def _copy(self, flight: _Flight) -> None:
        """Send a chunk of another connection once; a failure is that one's to deal with."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_with, flight, group.cancel_scope)
            with contextlib.suppress(HoldfastError, Refusal):
                await self._put(flight.chunk, flight.chunk.span)
                if not flight.landed:
                    flight.landed = True
                    self._has(flight.chunk.span)
                    flight.scope.cancel()
            group.cancel_scope.cancel()

    async def _end_with(self, flight: _Flight, scope: anyio.CancelScope) -> None:
        """Ends the copy when the chunk has landed, or was given up."""
        while flight in self._flights and not flight.landed:
            await self._change.wait()
        scope.cancel()

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()
        self._upload.tracker.busy(len(self._flights))

    async def _deliver(self, flight: _Flight) -> None:
        """Send a chunk until the server has all of it."""
        chunk = flight.chunk
        attempts = self._upload.attempts()
        damaged = 0
        todo = [chunk.span]
        while todo:
            part = todo[0]
            try:
                await self._put(chunk, part, flight)
                todo.pop(0)
                self._has(part)
                continue
            except ConnectionFailed as error:
                await self._check(chunk)
                self._limiter.controller.broken()
                await self._upload.recover(error, attempts, connected=True)
            except Refusal as error:
                sent = part.length if isinstance(chunk, Chunk) else 0
                if error.reaction is Reaction.SMALLER and self.plan.too_large(sent):
                    todo[:1] = pieces(part, self.plan.chunk_size(part.length))
                    continue
                if error.reaction is Reaction.REPEAT:
                    await self._check(chunk)
                    damaged += 1
                if damaged > 1:
                    raise VerificationFailed(
                        f"bytes {part.start} to {part.end} of {self._upload.source.name} arrived damaged twice;"
                        " something writes to the file, or changes them between here and the server, or this machine's"
                        " memory is bad"
                    ) from error
                await self._upload.recover(error, attempts, connected=True)
            todo = await self._still_missing(todo, attempts)
            if attempts.failures >= FAILURES_BEFORE_HALVES:
                todo = [half for part in todo for half in pieces(part, self.plan.half(part.length))]

    async def _put(self, chunk: Chunk | Hole, part: Span, flight: _Flight | None = None) -> None:
        """Send a part of a chunk once; `flight` is told how far it is."""
        if isinstance(chunk, Hole):
            heard = await self._upload.exchange(protocol.hole(self._upload.url, part, now=time.time()))
            await self._upload.lives_until(heard.expires)
            return
        proof, bytes_of = await self._proven(chunk, part)
        began = gone = self._clock()

        async def content() -> AsyncIterator[memoryview | Stored]:
            nonlocal gone
            yield bytes_of
            gone = self._clock()

        async with self._limiter.sending(part.length) as sending:
            if flight is not None:
                flight.sending = sending
            steps = protocol.chunk(self._upload.url, part, proof, now=time.time())
            stored = await self._upload.exchange(steps, Body(part.length, content), sending=sending)
        now = self._clock()
        self._limiter.accepted(part.length, now - began, sending.around(began, gone, now))
        await self._upload.lives_until(stored.expires)
        self._upload.chunks += 1

    async def _proven(self, chunk: Chunk, part: Span) -> tuple[Digest, memoryview | Stored]:
        """A part of a chunk, and its digest."""
        source, whole = self._upload.source, part == chunk.span
        if source.descriptor is not None:
            proof = chunk.digest if whole else await self._upload.scan(part, self._algorithm)
            return proof, Stored(source, source.descriptor, part)
        view = chunk.view(part)
        return chunk.digest if whole else await to_thread.run_sync(digest, self._algorithm, view), view

    async def _check(self, chunk: Chunk | Hole) -> None:
        """After a failure: bytes that went from the file may not be those any more that were hashed."""
        if isinstance(chunk, Chunk) and chunk.buffer is None:
            await to_thread.run_sync(self._upload.source.check)

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
                self._upload.arrived(end - start)
                self._has(Span(start, end))
        self._upload.tracker.go_on()
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
                steps = protocol.complete(upload.url, claims, wait=LOOK, now=time.time())
                done = await upload.exchange(steps)
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
            await upload.look_again(done.step, done.retry_after)

    def _wrong(self) -> VerificationFailed:
        return VerificationFailed(
            f"{self._upload.source.name}: what arrived at the server does not have the digest of the file"
            f" ({self._upload.digest().algorithm} {self._upload.digest().hex}); nothing was published, upload it again"
        )

    def _fail(self, error: HoldfastError | StartAgain, scope: anyio.CancelScope) -> None:
        if self._failure is None:
            self._failure = error
        scope.cancel()
