"""Receives one file: parallel ranges into a sparse file beside the target.

Rule of this file: bytes of two versions never get into one file. The first answer fixes the version by its strong
ETag and its length; each range is asked for with If-Range, and taken only if the answer is a 206 with exactly the
range, the length and the ETag. Without ranges or without a strong ETag there is one stream from the start. A span
counts as received when its bytes are on the disk, not before. The target's name appears when all is there and
verified, by a rename.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
from anyio import to_thread

from holdfast._transport import Incoming, Session
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, TargetExists, VerificationFailed
from holdfast.journal import DownloadRecord, Journal, TransferLock, download_key
from holdfast.ledger import bare
from holdfast.outcome import DownloadResult, from_refusal, from_violation, gave_up
from holdfast.planner import MIB, MOST_CONNECTIONS, Attempts, Backoff, Plan, Share
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.targets import PartFile
from holdfast_protocol import client as protocol
from holdfast_protocol import fields
from holdfast_protocol import headers as names
from holdfast_protocol.client import Reaction, Refusal, ViolationError
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Request, Span
from holdfast_protocol.names import safe_name
from holdfast_protocol.problem import FieldError

COMMIT_BYTES: Final = 16 * MIB
RANGE_GRANULE: Final = 64 * 1024
KEPT: Final = "What was received is kept; run the same download again to go on."


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """What to receive and where to put it. `path` goes before `folder`; with neither it is the current folder."""

    url: str
    id: str | None = None
    """Of the transfer, in the journal."""
    path: Path | None = None
    folder: Path | None = None
    segments: int | None = None
    """Connections to use at once."""
    checksum: Digest | None = None
    """What the file must have, beside what the server says."""
    overwrite: bool = False
    max_attempts: int = 10


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a file, as the first answer described it."""

    size: int | None
    etag: str | None
    """Strong, or None."""
    ranges: bool
    digests: tuple[Digest, ...]
    name: str


class _OtherVersion(Exception):  # noqa: N818 - it is no error yet
    """The server has another version now, or no ranges any more."""


@dataclass
class _Run:
    """What belongs to one attempt at one version."""

    version: Version
    part: PartFile
    key: str
    missing: list[Span] = field(default_factory=list)
    """What nobody has asked for yet, the first range last."""
    busy: int = 0
    """Connections that receive a range."""
    failure: HoldfastError | _OtherVersion | None = None

    def cut(self, plan: Plan) -> Span | None:
        """The range to ask for next, of the size that the plan wants."""
        if not self.missing:
            return None
        size = plan.chunk_size(sum(span.length for span in self.missing))
        first = self.missing.pop()
        if first.length > size:
            self.missing.append(Span(first.start + size, first.end))
        return Span(first.start, min(first.start + size, first.end))


class Downloader:
    """Runs one DownloadJob. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        job: DownloadJob,
        session: Session,
        journal: Journal,
        tracker: Tracker,
        share: Share,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._session = session
        self._journal = journal
        self._tracker = tracker
        self._share = share
        self._clock = clock
        self._backoff = Backoff()
        self._url = session.endpoint
        self._segments = 0
        self._progress = 0

    async def run(self) -> DownloadResult:
        """Receive the file, or what is not here of it. Raises HoldfastError; see errors.py."""
        attempts = self._attempts()
        while True:
            try:
                version = await self._probe(attempts)
                return await self._locked(version)
            except _OtherVersion:
                change = BrokenProtocol(f"{self._url} changes all the time; try again when it is left alone")
                if not attempts.failed(0):
                    raise change from None
                self._tracker.retries += 1
                self._tracker.accepted = 0
                self._tracker.enter(Stage.STARTING, f"{self._url} changed; it is received anew")

    async def _probe(self, attempts: Attempts) -> Version:
        """Ask for one byte: what version is there, how long, and are ranges spoken?

        An empty file has no byte to ask for; its name and digest need not be in the refusal, so all of it is asked
        for then.
        """
        asked: Span | None = Span(0, 1)
        while True:
            try:
                async with self._session.open(self._request(asked), stream=True) as incoming:
                    if asked is not None and _is_empty(incoming):
                        asked = None
                        continue
                    return await self._version(incoming)
            except (ConnectionFailed, Refusal) as error:
                await self._recover(error, attempts)

    async def _version(self, incoming: Incoming) -> Version:
        head = incoming.headers
        try:
            said = head.get(names.REPR_DIGEST)
            digests = fields.parse_digests(names.REPR_DIGEST, said) if said is not None else ()
            etag = _strong(head.get(names.ETAG))
            name = self._name(head.get(names.CONTENT_DISPOSITION))
            if incoming.status == 206:
                _, _, total = fields.parse_content_range(head.one(names.CONTENT_RANGE) or "")
                return Version(total, etag, etag is not None and total is not None, digests, name)
            if incoming.status == 200:
                length = head.one(names.CONTENT_LENGTH)
                size = fields.parse_integer(names.CONTENT_LENGTH, length) if length is not None else None
                return Version(size, etag, False, digests, name)
        except FieldError as error:
            raise BrokenProtocol(f"{self._url}: a field of the answer is malformed: {error}") from error
        raise await self._refused(incoming)

    async def _locked(self, version: Version) -> DownloadResult:
        job = self._job
        target = (job.path or (job.folder or Path()) / version.name).absolute()
        if target.exists() and not job.overwrite:
            raise TargetExists(f"{target} is there already; choose another name, or say that it may be replaced")
        key = download_key(self._url, str(target))
        lock = await to_thread.run_sync(self._journal.lock, key, str(target), job.id)
        finished = False
        try:
            result = await self._receive(version, target, key, lock)
            finished = True
            return result
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: self._journal.unlock(key, lock, forget=finished))

    async def _receive(self, version: Version, target: Path, key: str, lock: TransferLock) -> DownloadResult:
        part_path = target.with_name(target.name + ".part")
        record = await to_thread.run_sync(self._journal.find_download, key)
        same = (
            record is not None
            and version.ranges
            and (record.etag, record.size) == (version.etag, version.size)
            and part_path.exists()
        )
        part = await to_thread.run_sync(lambda: PartFile.open(part_path, version.size, fresh=not same))
        try:
            run = _Run(version, part, key)
            spans = record.spans if record is not None and same else ()
            if not same and version.ranges:
                fresh = DownloadRecord(
                    key, self._url, str(target), str(part_path), version.size or 0, version.etag or ""
                )
                await to_thread.run_sync(self._journal.begin_download, fresh)
            self._tracker.size = version.size
            self._tracker.accepted = self._tracker.resumed = sum(span.length for span in spans)
            self._lock = lock
            if version.size != 0:
                await (self._ranges(run, spans) if version.ranges else self._stream(run))
            digest = await self._verify(run)
            await to_thread.run_sync(lambda: part.publish(target, overwrite=self._job.overwrite))
            await to_thread.run_sync(self._journal.forget_download, key)
        except _OtherVersion:
            await to_thread.run_sync(self._journal.forget_download, key)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(part.close)
        return DownloadResult(
            url=bare(self._url),
            path=target,
            size=self._tracker.accepted,
            digest=digest,
            seconds=self._tracker.elapsed,
            bytes_received=lock.wire,
            bytes_resumed=self._tracker.resumed,
            retries=self._tracker.retries,
            segments=self._segments,
            concurrency=self._tracker.peak,
        )

    async def _ranges(self, run: _Run, have: tuple[Span, ...]) -> None:
        assert run.version.size is not None
        limiter = self._session.limiter
        plan = Plan(limiter.controller, granule=RANGE_GRANULE, concurrency=self._job.segments)
        at = 0
        for span in (*have, Span(run.version.size, run.version.size)):
            run.missing += (Span(at, span.start),) if at < span.start else ()
            at = max(at, span.end)
        run.missing.reverse()
        left = sum(span.length for span in run.missing)
        workers = min(self._job.segments or MOST_CONNECTIONS, -(-left // plan.chunk_size(1)))
        self._tracker.enter(Stage.IN_PROGRESS)
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(self._worker, run, plan, group.cancel_scope)
        if run.failure is not None:
            raise run.failure

    async def _worker(self, run: _Run, plan: Plan, scope: anyio.CancelScope) -> None:
        attempts = self._attempts()
        try:
            while run.missing:
                async with self._session.limiter.connection(self._share, self._job.segments):
                    span = run.cut(plan)
                    if span is not None:
                        run.busy += 1
                        self._tracker.busy(run.busy)
                        await self._bring(run, span, attempts)
                        run.busy -= 1
                        self._tracker.busy(run.busy)
        except (HoldfastError, _OtherVersion) as error:
            run.failure = run.failure or error
            scope.cancel()

    async def _bring(self, run: _Run, span: Span, attempts: Attempts) -> None:
        at = span.start
        self._tracker.chunk_size = span.length
        while at < span.end:
            try:
                async with self._session.limiter.sending():
                    at = await self._segment(run, Span(at, span.end))
            except (ConnectionFailed, Refusal) as error:
                await self._recover(error, attempts)

    async def _segment(self, run: _Run, span: Span) -> int:
        """Receive a range; how far it got. What came before a connection broke counts."""
        at = committed = span.start
        began, overhead = time.monotonic(), 0.0
        try:
            async with self._session.open(self._request(span, run.version.etag), stream=True) as incoming:
                await self._check_answer(incoming, run.version, span)
                overhead = time.monotonic() - began
                async for piece in incoming.pieces():
                    if at + len(piece) > span.end:
                        raise BrokenProtocol(f"{self._url} sent more than the range that was asked for")
                    await self._take(run.part, at, piece)
                    at += len(piece)
                    if at - committed >= COMMIT_BYTES:
                        committed = await self._commit(run, Span(committed, at))
        except ConnectionFailed:
            if at == span.start:
                raise
        with anyio.CancelScope(shield=True):
            if at > committed:
                await self._commit(run, Span(committed, at))
        if at == span.end:
            self._segments += 1
            self._session.limiter.accepted(span.length, time.monotonic() - began, overhead)
        elif at == span.start:
            raise ConnectionFailed(f"{self._url} ended the range without a byte of it")
        return at

    async def _commit(self, run: _Run, span: Span) -> int:
        def write_down() -> None:
            run.part.sync()
            self._journal.commit_spans(run.key, [span])

        await to_thread.run_sync(write_down)
        self._progress += 1
        return span.end

    async def _stream(self, run: _Run) -> None:
        """The whole file in one answer, from the start; after a failure from the start again."""
        attempts = self._attempts()
        self._tracker.busy(1)
        self._tracker.enter(Stage.IN_PROGRESS)
        while True:
            self._tracker.accepted = 0
            try:
                async with self._session.open(self._request(None), stream=True) as incoming:
                    if incoming.status != 200:
                        raise await self._refused(incoming)
                    await to_thread.run_sync(run.part.cut, 0)
                    at = 0
                    async for piece in incoming.pieces():
                        await self._take(run.part, at, piece)
                        at += len(piece)
                if run.version.size is not None and at != run.version.size:
                    raise ConnectionFailed(f"{self._url} ended after {at} of {run.version.size} bytes")
                await to_thread.run_sync(lambda length=at: run.part.cut(length))  # type: ignore[misc]
                self._tracker.size = at
                self._segments = 1
                return
            except (ConnectionFailed, Refusal) as error:
                await self._recover(error, attempts)

    async def _take(self, part: PartFile, at: int, piece: bytes) -> None:
        await self._session.limiter.held_to(self._share, len(piece))
        await to_thread.run_sync(part.write, at, piece)
        self._lock.count(len(piece))
        self._tracker.accepted += len(piece)
        self._tracker.moved(len(piece))
        self._session.limiter.moved(len(piece))
        self._tracker.go_on()

    async def _verify(self, run: _Run) -> Digest | None:
        """Read all of it back and compare with every digest that is known of it."""
        wanted = {digest.algorithm: digest for digest in run.version.digests}
        given = self._job.checksum
        if given is not None:
            wanted[given.algorithm] = given
        await to_thread.run_sync(run.part.sync)
        if not wanted:
            return None
        self._tracker.enter(Stage.VERIFYING)
        computed = await to_thread.run_sync(run.part.digests, tuple(wanted))
        for digest in computed:
            if digest != wanted[digest.algorithm]:
                await to_thread.run_sync(self._journal.forget_download, run.key)
                await to_thread.run_sync(run.part.discard)
                raise VerificationFailed(
                    f"{self._url}: what arrived has {digest.algorithm} {digest.hex}, and not"
                    f" {wanted[digest.algorithm].hex}; it was thrown away, download it again"
                )
        return given or computed[0]

    async def _check_answer(self, incoming: Incoming, version: Version, span: Span) -> None:
        if incoming.status in (200, 412, 416):
            raise _OtherVersion
        if incoming.status != 206:
            raise await self._refused(incoming)
        said = incoming.headers.one(names.CONTENT_RANGE) or ""
        try:
            exact = fields.parse_content_range(said) == (span.start, span.end, version.size)
        except FieldError:
            exact = False
        if not exact:
            raise BrokenProtocol(f"{self._url} answered {said!r} to the range {span.start} to {span.end}")
        if _strong(incoming.headers.get(names.ETAG)) != version.etag:
            raise _OtherVersion

    async def _refused(self, incoming: Incoming) -> Refusal:
        try:
            refusal = protocol.refused(await incoming.answer(), time.time())
        except ViolationError as error:
            raise from_violation(error, self._url) from error
        if refusal.reaction is not Reaction.RETRY:
            refusal.reaction = Reaction.FAIL
        return refusal

    async def _recover(self, error: ConnectionFailed | Refusal, attempts: Attempts) -> None:
        final = from_refusal(error, self._url) if isinstance(error, Refusal) else error
        if isinstance(error, Refusal) and error.reaction is Reaction.FAIL:
            raise final from error
        self._tracker.failed(final)
        if not attempts.failed(self._progress):
            raise gave_up(final, attempts.failures, KEPT) from error
        self._tracker.retries += 1
        told = error.retry_after if isinstance(error, Refusal) else None
        throttled = isinstance(error, Refusal) and error.throttled
        if isinstance(error, Refusal) and throttled:
            self._session.limiter.throttled(retry_after=told, crowded=error.status == 429)
        delay = self._session.limiter.after_failure(self._backoff, attempts.failures, told, throttled=throttled)
        self._tracker.enter(Stage.IN_PROGRESS, f"{final.message}; again in {delay:.1f} s")
        await self._session.clock.sleep(delay)

    def _attempts(self) -> Attempts:
        return Attempts(self._job.max_attempts, self._progress)

    def _request(self, span: Span | None, etag: str | None = None) -> Request:
        sent: dict[str, str] = {}
        if span is not None:
            sent[names.RANGE] = f"bytes={span.start}-{span.end - 1}"
        if etag is not None:
            sent[names.IF_RANGE] = etag
        return Request("GET", self._url, sent)

    def _name(self, disposition: str | None) -> str:
        said = fields.parse_disposition(disposition) if disposition is not None else None
        return safe_name(said or unquote(urlsplit(self._url).path.rstrip("/").rpartition("/")[2]), "download")


def _is_empty(incoming: Incoming) -> bool:
    """The answer says that there is no first byte, as the file has none (RFC 9110, section 15.5.17)."""
    said = incoming.headers.get(names.CONTENT_RANGE)
    return incoming.status == 416 and said == fields.format_unsatisfied_range(0)


def _strong(etag: str | None) -> str | None:
    """The ETag as it came, if it is one and a strong one (RFC 9110, section 13.1.5)."""
    if etag is None:
        return None
    with contextlib.suppress(FieldError):
        tags = fields.parse_entity_tags(etag)
        if tags != "*" and len(tags) == 1 and not tags[0].weak:
            return etag
    return None
