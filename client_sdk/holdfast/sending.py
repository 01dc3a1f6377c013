"""One upload on its way: what the roads of all dialects share.

Rule of this file: what a failure asks for is decided in one place (`Upload.recover`), and after any failure the
server is asked what it has. Attempts count only as long as the server accepts nothing in between.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, TypeVar

from anyio import to_thread
from msgspec import Struct, field

from holdfast._transport import Session
from holdfast.bodies import Body
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, VerificationFailed
from holdfast.journal import TransferLock
from holdfast.outcome import from_refusal, from_violation, gave_up
from holdfast.planner import Sending
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.rates import Share
from holdfast.retries import RETRY_AFTER_CAP, Attempts, Backoff
from holdfast.sources import Given, Source
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Reaction, Refusal, Speech, ViolationError
from holdfast_protocol.digest import SAFE, Digest, Hasher, chunk_algorithm, hasher
from holdfast_protocol.messages import Request, Response, Span
from holdfast_protocol.size_limits import SizeLimits

Dialect = Literal["auto", "parallel", "tus", "ietf"]
OnChange = Literal["fail", "restart"]
Result = TypeVar("Result")

EXPIRY_STEP: Final = 60.0
"""Seconds by which the server's word on expiry must differ from what the journal has to be written down."""
LOOK: Final = 1
"""Seconds after which the server says how far it is with verifying and publishing."""
HASH_PIECE: Final = 1024 * 1024
CATCH_UP: Final = 4 * 1024 * 1024
"""Bytes that are read at once only to be hashed."""
HASH_RUN: Final = 64 * 1024 * 1024
ZEROS: Final = memoryview(bytes(256 * 1024))
KEPT: Final = "What the server has is kept; run the same upload again to go on."


class UploadJob(Struct, frozen=True):
    """What to send, where, and how. Sizes in bytes; None leaves a choice to the plan."""

    given: Given
    id: str | None = None
    """Of the transfer, in the journal."""
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    checksum: str | None = None
    """Algorithm of the digest of the whole file."""
    concurrency: int | None = None
    chunk_size: int | None = None
    dialect: Dialect = "auto"
    on_change: OnChange = "fail"
    resume: bool = False
    """The URL is that of an upload that somebody else began: it is gone on with, and never removed or begun anew."""
    max_attempts: int = 10
    """Failures in a row, without any byte accepted in between, after which the upload fails."""


class StartAgain(Exception):  # noqa: N818 - it is no error yet
    """This upload cannot be continued on the server; `reason` is the error if it happens a second time."""

    def __init__(self, reason: HoldfastError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Upload:
    """One upload on its way: what the roads of all dialects share."""

    def __init__(
        self,
        job: UploadJob,
        session: Session,
        tracker: Tracker,
        lock: TransferLock,
        source: Source,
        url: str,
        share: Share,
        keep_until: Callable[[float], None] = lambda expires: None,
        speech: Speech = protocol,
    ) -> None:
        self.job = job
        self.session = session
        self.tracker = tracker
        self.lock = lock
        self.source = source
        self.url = url
        self.share = share
        self.keep_until = keep_until
        """Writes down until when the server keeps the upload; blocks."""
        self.speech = speech
        """How bytes are sent in order."""
        self.limits: SizeLimits = SizeLimits()
        """What the server takes, as it said last."""
        self.expires: float | None = None
        """What was written down last."""
        self.chunks: int = 0
        self.sparse: int = 0
        """Bytes of holes that the server was told of by this call, and that were not sent."""
        self.progress: int = 0
        """Grows with each thing that the server accepted; attempts are counted against it."""
        self.sending: Sending | None = None
        """The connection that carries it, where one does."""
        self._backoff = Backoff()
        self.algorithm: str = job.checksum or SAFE
        """Of the digest of the whole file."""
        self._hasher: Hasher = hasher(self.algorithm)
        self._hashing = threading.Lock()
        self.hashed: int = 0
        """How far the digest of the whole file has come."""

    @property
    def size(self) -> int:
        return self.source.size

    def agree(self, wants: tuple[str, ...]) -> None:
        """Before anything is hashed: the server takes parallel chunks, with these digests.

        It verifies the digest of the whole, so it computes that, too: with the algorithm of the chunks that costs both
        sides the least, if the caller has asked for no other.
        """
        assert not self.hashed
        if self.job.checksum is None:
            self.algorithm = chunk_algorithm(wants)
            self._hasher = hasher(self.algorithm)

    async def exchange(
        self,
        steps: Generator[Request, Response, Result],
        body: Body | None = None,
        *,
        sending: Sending | None = None,
        patience: float = 0.0,
    ) -> Result:
        """One exchange, tried once; `sending` is told of bytes of the body that go out, `patience` is as in
        Session.exchange. Raises Refusal, HoldfastError.
        """
        sent = 0
        carrying = sending or self.sending

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            self._sent(size)
            if carrying is not None:
                carrying.advance(size, self.session.clock.monotonic())

        try:
            return await self.session.exchange(steps, body, sent=count, share=self.share, patience=patience)
        except ViolationError as error:
            self.tracker.resent += sent
            raise from_violation(error, self.url) from error
        except BaseException:
            # In vain, unless it turns out that the server has some of it all the same (`arrived`).
            self.tracker.resent += sent
            raise

    def arrived(self, size: int) -> None:
        """So many bytes of a request that failed are there: they were not sent in vain."""
        self.tracker.resent = max(0, self.tracker.resent - size)

    def connection(self) -> AbstractAsyncContextManager[None]:
        """A connection of those that all transfers to this origin share; waits for its turn."""
        return self.session.limiter.connection(self.share, self.job.concurrency)

    def attempts(self) -> Attempts:
        return Attempts(self.job.max_attempts, self.progress)

    async def state(self, attempts: Attempts | None = None) -> protocol.State:
        """What the server has, asked until it answers. Raises StartAgain, HoldfastError."""
        attempts = attempts or self.attempts()
        while True:
            try:
                state = await self.exchange(self.speech.query(self.url, now=time.time()))
            except (Refusal, ConnectionFailed) as error:
                await self.recover(error, attempts)
                continue
            return await self.believed(state)

    async def look_again(self, step: str | None, wait: float | None) -> None:
        """The server verifies and publishes, and has said at which `step` it is: sleeps until it may be asked again."""
        self.tracker.enter(Stage.VERIFYING, step=step)
        await self.session.clock.sleep(min(max(wait or 0.0, 0.2), RETRY_AFTER_CAP))

    async def believed(self, state: protocol.State) -> protocol.State:
        """What the server said of the upload, if it can be so. Raises StartAgain, HoldfastError."""
        if state.length is not None and state.length != self.size:
            raise StartAgain(VerificationFailed(f"{self.url} is an upload of {state.length} bytes, not of {self.size}"))
        if state.offset > self.size:
            # Nobody has the bytes to go on from there (IETF draft: the upload has failed, and is cancelled).
            raise StartAgain(BrokenProtocol(f"{self.url} claims {state.offset} bytes of a file of {self.size}"))
        if state.missing is not None and any(span.end > self.size for span in state.missing.spans):
            raise BrokenProtocol(f"{self.url} asks for bytes beyond the {self.size} of the file")
        if state.failed:
            raise StartAgain(VerificationFailed(f"{self.url} did not pass its verification on the server"))
        await self.heard(state.limits, state.expires)
        return state

    async def heard(self, limits: SizeLimits | None, expires: float | None) -> None:
        """What came with an answer: what the server takes, and until when it keeps the upload."""
        self.limits = self.limits.then(limits)
        await self.lives_until(expires)

    async def lives_until(self, expires: float | None) -> None:
        """The server said until when it keeps the upload; the journal is told if that is news."""
        if expires is None or (self.expires is not None and abs(expires - self.expires) < EXPIRY_STEP):
            return
        self.expires = expires
        await to_thread.run_sync(self.keep_until, expires)

    async def recover(self, error: Refusal | ConnectionFailed, attempts: Attempts, *, connected: bool = False) -> None:
        """Wait as long as this failure asks for. Raises what ends the upload, if it does.

        `connected`: whoever asks has a connection. Where the server asked for less, others have it meanwhile.
        """
        retry_after = None
        throttled = isinstance(error, Refusal) and error.throttled
        if isinstance(error, Refusal):
            self.limits = self.limits.then(error.limits)
            if error.final:
                raise VerificationFailed(
                    f"{self.url} took all of {self.source.name} in and then turned it down"
                    f" ({error.status}: {error.detail or 'it did not say why'}); nothing can be resumed,"
                    " upload it again"
                ) from error
            if throttled:
                self.session.limiter.throttled(retry_after=error.retry_after, crowded=error.status == 429)
            if error.reaction is Reaction.RECREATE:
                raise StartAgain(from_refusal(error, self.url)) from error
            if error.reaction in (Reaction.FAIL, Reaction.SMALLER):
                raise from_refusal(error, self.url, sending=True) from error
            retry_after = error.retry_after
        final = from_refusal(error, self.url) if isinstance(error, Refusal) else error
        self.tracker.failed(final)
        if not attempts.failed(self.progress):
            raise gave_up(final, attempts.failures, KEPT) from error
        self.tracker.retries += 1
        limiter = self.session.limiter
        delay = limiter.after_failure(self._backoff, attempts.failures, retry_after, throttled=throttled)
        self.tracker.enter(Stage.IN_PROGRESS, f"{final.message}; again in {delay:.1f} s")
        leaving = throttled and connected
        async with limiter.without(self.share, self.job.concurrency) if leaving else contextlib.nullcontext():
            await self.session.clock.sleep(delay)

    def accepted(self, total: int) -> None:
        """The server has `total` bytes by now."""
        if total > self.tracker.accepted:
            self.progress += 1
            self.tracker.accepted = total
        self.tracker.go_on()
        self.tracker.tick()

    async def read(self, offset: int, view: memoryview, algorithm: str | None = None) -> Digest | None:
        """Fill `view` from the file, in a thread; hash what the whole digest has not seen yet, and the view.

        Two tasks may read at once: the whole digest goes on with whichever has the bytes that are next, and a
        run that was left out because the other one was hashing is to be read again (`hash_up_to`).
        """
        return await to_thread.run_sync(self._read, offset, view, algorithm)

    async def scan(self, span: Span, algorithm: str) -> Digest:
        """As `read`, for bytes that are sent from where they are and need not be kept: the digest of a part."""
        return await to_thread.run_sync(self._scan, span, algorithm)

    def _scan(self, span: Span, algorithm: str) -> Digest:
        own = hasher(algorithm)
        memory = memoryview(bytearray(HASH_PIECE))
        for start in range(span.start, span.end, HASH_PIECE):
            piece = memory[: span.end - start]
            self.source.read_into(start, piece)
            self._hash(start, piece)
            own.update(piece)
        return Digest(algorithm, own.digest())

    def _read(self, offset: int, view: memoryview, algorithm: str | None) -> Digest | None:
        own = hasher(algorithm) if algorithm is not None else None
        # By the piece, so that it is hashed while the processor still has it.
        for start in range(0, len(view), HASH_PIECE):
            piece = view[start : start + HASH_PIECE]
            self.source.read_into(offset + start, piece)
            self._hash(offset + start, piece)
            if own is not None:
                own.update(piece)
        return Digest(algorithm, own.digest()) if algorithm is not None and own is not None else None

    def _hash(self, offset: int, view: memoryview) -> None:
        end = offset + len(view)
        if self._hashing.acquire(blocking=False):
            try:
                if offset <= self.hashed < end:
                    self._hasher.update(view[self.hashed - offset :])
                    self.hashed = end
            finally:
                self._hashing.release()

    async def hash_up_to(self, end: int) -> None:
        """Read and hash what lies between the bytes hashed so far and `end`; holes are hashed without being read."""
        if self.hashed < end:
            view = memoryview(bytearray(min(CATCH_UP, end - self.hashed)))
            while self.hashed < end:
                await to_thread.run_sync(self._hash_on, end, view)

    def _hash_on(self, end: int, view: memoryview) -> None:
        at = self.hashed
        hole = self.source.hole(at, end) or Span(end, end)
        if at < hole.start:
            self._read(at, view[: min(len(view), hole.start - at)], None)
            return
        with self._hashing:
            stop = min(hole.end, at + HASH_RUN)
            while self.hashed < stop:
                size = min(len(ZEROS), stop - self.hashed)
                self._hasher.update(ZEROS[:size])
                self.hashed += size

    def digest(self) -> Digest:
        """Of the whole file; to be asked when all of it was read."""
        assert self.hashed == self.size
        return Digest(self.algorithm, self._hasher.digest())

    def check_digest(self, theirs: tuple[Digest, ...]) -> None:
        """Compare with what the server computed. Raises VerificationFailed."""
        ours = self.digest()
        for digest in theirs:
            if digest.algorithm == ours.algorithm and digest.value != ours.value:
                raise VerificationFailed(
                    f"{self.source.name}: the server has a file with {digest.algorithm} {digest.hex}, not {ours.hex};"
                    " upload it again"
                )

    def _sent(self, size: int) -> None:
        self.lock.count(size)
        self.tracker.moved(size)
        self.session.limiter.moved(size)
