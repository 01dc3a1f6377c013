"""Sends a stream of which nobody knows the length: tus 1.0.0 with `creation-defer-length`, or the IETF draft.

Rule of this file: one chunk of the stream is in memory, until the server has it; then it is gone. So a failure of the
network costs nothing, but an upload that the server loses cannot be begun anew. The length is said with the last PATCH,
and only then is the upload complete.

A stream that stops in the middle can be given once more from its beginning, together with the URL of the upload
(`resume`): what the server has of it is read and hashed and not sent. What can never be whole is removed from the
server.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import NoReturn

import anyio
from anyio import to_thread

from holdfast._transport import Session
from holdfast.bodies import Body
from holdfast.discovery import DISCOVERIES
from holdfast.errors import (
    BrokenProtocol,
    ConnectionFailed,
    HoldfastError,
    ServerRefused,
    UsageError,
    VerificationFailed,
)
from holdfast.journal import TransferLock
from holdfast.outcome import UploadResult
from holdfast.planner import DEFAULT_CHUNK
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.rates import Share
from holdfast.sending import LOOK, StartAgain, Upload, UploadJob
from holdfast.sequential import LONGEST_PATCH, arrived_damaged
from holdfast.sources import Fingerprint, Source, Stream, pieces
from holdfast.transfers import Gate
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest, chunk_algorithm, digest, hasher
from holdfast_protocol.discovery import DEFER_LENGTH, Services
from holdfast_protocol.ietf_client import Guest
from holdfast_protocol.messages import Span
from holdfast_protocol.size_limits import SizeLimits


class StreamSource(Source):
    """What was read of a stream so far. It cannot be read again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.length: int = 0
        """Bytes that were read so far."""
        self.known: int | None = None
        """Bytes that there must be in the end, as the server was told before."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return self.length if self.known is None else self.known

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint("", self.length, 0, 0, 0, "")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Not possible."""
        raise NotImplementedError

    def check(self) -> None:
        """A stream is what it is."""

    def close(self) -> None:
        """It belongs to the caller."""


class StreamUploader:
    """Runs one upload of a stream, which is that of `job.given`."""

    def __init__(
        self, job: UploadJob, stream: Stream, session: Session, tracker: Tracker, share: Share, gate: Gate
    ) -> None:
        self._job = job
        self._gate = gate
        self._stream = stream
        self._skip = 0
        """Bytes of the stream that the server has already."""
        self._session = session
        self._tracker = tracker
        self._source = StreamSource(job.given.name)
        lock = TransferLock(None, -1, 0)
        self._upload = Upload(job, session, tracker, lock, self._source, session.endpoint, share)
        self._whole = hasher(self._upload.algorithm)
        self._checksum: str | None = None
        self._chunk = min(job.chunk_size or DEFAULT_CHUNK, LONGEST_PATCH)

    async def run(self) -> UploadResult:
        """Send the stream to its end. Raises HoldfastError; see errors.py."""
        try:
            return await self._run()
        except StartAgain as again:
            raise await self._lost(again.reason) from again

    async def _run(self) -> UploadResult:
        upload = self._upload
        services = await DISCOVERIES.services(self._session)
        guest = None
        if self._job.dialect == "ietf" or (self._job.dialect == "auto" and not services.tus):
            guest = DISCOVERIES.guest(self._session, services, None)
        elif not services.offers(DEFER_LENGTH) and not self._job.resume:
            raise UsageError(
                f"{self._session.endpoint} takes no uploads of unknown length; save {self._source.name} to a file first"
            )
        complete = False
        if self._job.resume:
            complete = await self._find(guest)
        else:
            await self._create(guest)
        self._tracker.url = upload.url
        if guest is None:
            upload.limits = SizeLimits(max_size=services.max_size)
            self._checksum = services.checksum
        else:
            self._checksum = chunk_algorithm(services.wants) if services.wants else None
            await self._fit(services)
        self._tracker.busy(1)
        self._tracker.chunk_size = self._chunk
        self._tracker.enter(Stage.IN_PROGRESS)
        async for part, last in self._parts():
            self._source.length += len(part)
            await self._check_size(last=last)
            await to_thread.run_sync(self._whole.update, part)
            await self._gate.passed()
            if not complete:
                await self._put(part, last=last)
        wire = upload.lock.wire
        size = self._source.length
        self._tracker.size = size
        return UploadResult(
            url=upload.url,
            path=None,
            size=size,
            digest=Digest(upload.algorithm, self._whole.digest()),
            seconds=self._tracker.elapsed,
            bytes_sent=wire,
            bytes_resent=max(0, wire - (size - self._skip)),
            bytes_resumed=self._skip,
            retries=self._tracker.retries,
            chunks=upload.chunks,
            concurrency=1,
            protocol="tus" if guest is None else "ietf",
            already_there=complete,
        )

    async def _find(self, guest: Guest | None) -> bool:
        """How much of the stream the server has; whether that is all of it."""
        upload, attempts = self._upload, self._upload.attempts()
        upload.speech = guest or protocol
        while True:
            try:
                state = await upload.exchange(upload.speech.query(upload.url, now=time.time()))
                break
            except (Refusal, ConnectionFailed) as error:
                await upload.recover(error, attempts)
        await upload.heard(state.limits, state.expires)
        self._skip = self._tracker.resumed = state.offset
        self._source.known = state.length
        upload.accepted(state.offset)
        return bool(state.complete)

    async def _fit(self, services: Services) -> None:
        """Chunks as the server takes them. Raises ServerRefused if they would not fit into memory."""
        limits = self._upload.limits = services.limits.then(self._upload.limits)
        if limits.max_append is not None:
            self._chunk = min(self._chunk, limits.max_append)
        if limits.min_append is not None:
            self._chunk = max(self._chunk, limits.min_append)
        if not 1 <= self._chunk <= LONGEST_PATCH or self._chunk > (limits.max_append or self._chunk):
            await self._outside(
                f"takes requests of {limits.min_append or 1} bytes and more, which is too much for memory"
            )

    async def _check_size(self, *, last: bool) -> None:
        """Compares what was read with what the server takes. Raises ServerRefused."""
        limits, size = self._upload.limits, self._source.length
        known = self._source.known
        if known is not None and (size > known or (last and size != known)):
            raise VerificationFailed(
                f"{self._source.name} is not what {self._upload.url} is an upload of: that has {known} bytes, and this"
                f" has {size}{'' if last else ' or more'}"
            )
        if limits.max_size is not None and size > limits.max_size:
            await self._outside(f"takes at most {limits.max_size} bytes, and {self._source.name} has more")
        if last and limits.min_size is not None and size < limits.min_size:
            await self._outside(f"takes at least {limits.min_size} bytes, and {self._source.name} has {size}")

    async def _outside(self, why: str) -> NoReturn:
        await self._remove()
        raise ServerRefused(f"{self._session.endpoint} {why}", status=413, code="upload-too-large")

    async def _remove(self) -> None:
        upload = self._upload
        if upload.url != self._session.endpoint and not self._job.resume:
            with anyio.move_on_after(10), contextlib.suppress(Refusal, HoldfastError):
                await upload.exchange(upload.speech.terminate(upload.url, now=time.time()))

    async def _create(self, guest: Guest | None) -> None:
        upload = self._upload
        attempts = upload.attempts()
        metadata = {"filename": self._source.name.encode("utf-8", "surrogateescape")} | dict(self._job.metadata)
        while True:
            if guest is None:
                steps = protocol.create(upload.url, None, metadata=metadata, parallel=False, now=time.time())
            else:
                steps = guest.create(upload.url, metadata=metadata, now=time.time())
            try:
                created = await upload.exchange(steps)
                upload.url = created.url
                if guest is not None:
                    DISCOVERIES.learn(self._session, guest)
                    upload.speech, upload.limits = guest, created.limits or SizeLimits()
                return
            except (Refusal, ConnectionFailed) as error:
                await upload.recover(error, attempts)

    async def _parts(self) -> AsyncIterator[tuple[memoryview, bool]]:
        """The stream in chunks, each valid until the next one is asked for, and whether it is the last one."""
        buffer = bytearray(self._chunk)
        filled, skip = 0, self._skip
        async for piece in pieces(self._stream, self._source.name):
            there = memoryview(piece)[:skip]
            self._whole.update(there)
            self._source.length += len(there)
            skip -= len(there)
            rest = memoryview(piece)[len(there) :]
            while rest:
                # A full chunk goes only when there is more, so that the last one is known to be the last.
                if filled == self._chunk:
                    yield memoryview(buffer), False
                    filled = 0
                count = min(len(rest), self._chunk - filled)
                buffer[filled : filled + count] = rest[:count]
                filled += count
                rest = rest[count:]
        if skip:
            raise VerificationFailed(
                f"{self._source.name} ended after {self._source.length} bytes, and {self._upload.url} has {self._skip}"
                " already: it is the upload of something else"
            )
        yield memoryview(buffer)[:filled], True

    async def _put(self, data: memoryview, *, last: bool) -> None:
        """Send a chunk, the newest bytes of the stream, until the server has all of it."""
        upload = self._upload
        end = self._source.length
        start = at = end - len(data)
        attempts = upload.attempts()
        damaged = 0
        while True:
            part = Span(at, end)
            view = data[at - start :]
            proof = None
            if self._checksum is not None:
                proof = await to_thread.run_sync(digest, self._checksum, view)
            length = end if last and self._source.known is None else None
            wait = LOOK if last else None
            steps = upload.speech.append(upload.url, part, checksum=proof, length=length, wait=wait, now=time.time())
            state: protocol.State | None = None
            try:
                stored = await upload.exchange(steps, _body(view))
                offset = stored.offset
                if offset is not None and (not at <= offset <= end or (offset == at != end)):
                    raise BrokenProtocol(f"{upload.url} answered {offset} to bytes {at} to {end}")
                upload.chunks += 1
                if offset is not None:
                    upload.accepted(offset)
                    at = offset
                    if at == end and (not last or stored.complete is not False):
                        return
                    if stored.retry_after is not None:
                        await upload.look_again(stored.step, stored.retry_after)
                    continue
            except (Refusal, ConnectionFailed) as error:
                damaged += isinstance(error, Refusal) and error.reaction is Reaction.REPEAT
                if damaged > 1:
                    raise arrived_damaged(self._source.name) from error
                await upload.recover(error, attempts)
                if isinstance(error, Refusal) and error.state is not None:
                    state = await upload.believed(error.state)
            state = state or await upload.state(attempts)
            upload.arrived(max(0, state.offset - at))
            if state.offset < start:
                raise await self._lost(BrokenProtocol(f"{upload.url} went back to {state.offset} from {start} bytes"))
            upload.accepted(state.offset)
            at = state.offset
            if at == end and (not last or state.complete):
                return

    async def _lost(self, reason: HoldfastError) -> HoldfastError:
        await self._remove()
        reason.add("; a stream cannot be sent again from its beginning")
        return reason


def _body(view: memoryview) -> Body:
    async def content() -> AsyncIterator[memoryview]:
        yield view

    return Body(len(view), content)
