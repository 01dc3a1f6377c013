"""Receives one file: parallel ranges into a sparse file beside the target.

    remote.py         where the file is: http_remote.py, ftp.py
    segments.py       which connection fetches what
    arrivals.py       what has come, and is safe
    verification.py   whether it is right
    targets.py        the file beside the target

Rule of this file: bytes of two versions never get into one file. The first answer fixes the version; each range is
pinned to it. Without a pin there is one stream from the start, after a failure from the start again. Several servers
are used together only where they have the same file, and one that fails is left. The target's name appears when all is
there and verified, by a rename.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from holdfast.arrivals import Arrivals, recovered
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, TargetExists, VerificationFailed
from holdfast.journal import DownloadRecord, Journal, TransferLock, download_key
from holdfast.ledger import bare
from holdfast.limiter import Limiter
from holdfast.outcome import DownloadResult, from_refusal, gave_up
from holdfast.planner import MOST_CONNECTIONS, Attempts, Backoff, Share
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.remote import Answer, OtherVersion, Remote, Since, Version, same_file
from holdfast.segments import LEAST, SLICE, Segment, Segments
from holdfast.targets import PartFile, check_room
from holdfast.verification import Proof, Said
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

LOOK: Final = 0.25
"""Seconds after which a connection without work looks whether somebody is slow."""
HOLD: Final = 2.0
"""Seconds for which a connection is kept although others wait for it."""
KEPT: Final = "What was received is kept; run the same download again to go on."

Trouble: TypeAlias = HoldfastError | OtherVersion
"""What ends the use of a server."""


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """What to receive and where to put it. `path` goes before `folder`; with neither it is the current folder."""

    url: str
    id: str | None = None
    """Of the transfer, in the journal."""
    path: Path | None = None
    folder: Path | None = None
    segments: int | None = None
    """Connections to use at once, to each server."""
    checksum: Digest | None = None
    """What the file must have, beside what the server says."""
    overwrite: bool = False
    max_attempts: int = 10
    mirrors: tuple[str, ...] = ()
    """Further URLs of the same file."""


class _Again(Exception):  # noqa: N818 - it is no error yet
    """A stream that nobody can go on with has broken; it is begun anew."""


@dataclass(eq=False)
class _Source:
    """A server that has the version."""

    remote: Remote
    version: Version
    trouble: Trouble | None = None


@dataclass
class _Run:
    """What belongs to one attempt at one version."""

    part: PartFile
    arrivals: Arrivals
    segments: Segments
    sources: list[_Source]
    scopes: dict[Segment, anyio.CancelScope] = field(default_factory=dict)
    joining: int = 0
    """Servers that may come to be among the sources."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Of all connections."""
    news: anyio.Event = field(default_factory=anyio.Event)

    def tell(self) -> None:
        """Something is free, or all has come, or no server is left."""
        if not self.segments.left or not (self.live or self.joining):
            self.scope.cancel()
        self.news.set()
        self.news = anyio.Event()

    @property
    def live(self) -> list[_Source]:
        return [each for each in self.sources if each.trouble is None]


class Downloader:
    """Runs one DownloadJob, from one server or several. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        job: DownloadJob,
        remotes: Sequence[Remote],
        journal: Journal,
        tracker: Tracker,
        share: Share,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._remotes = list(remotes)
        self._journal = journal
        self._tracker = tracker
        self._share = share
        self._clock = clock
        self._backoff = Backoff()
        self._url = remotes[0].url
        self._requests = 0
        self._progress = 0
        """Grows with the bytes that came for the first time."""
        self._failure: HoldfastError | None = None

    async def run(self) -> DownloadResult:
        """Receive the file, or what is not here of it. Raises HoldfastError; see errors.py."""
        job = self._job
        if job.path is not None:
            _check_free(job.path.absolute(), overwrite=job.overwrite)
        attempts = self._attempts()
        changes = self._attempts()
        while True:
            since = await to_thread.run_sync(self._since)
            try:
                async with self._first(attempts, since) as (source, answer, release):
                    return await self._locked(source, answer, release, attempts)
            except _Again:
                self._tracker.accepted = 0
            except OtherVersion:
                if not changes.failed(0):
                    raise BrokenProtocol(f"{self._url} changes all the time; try again when it is left alone") from None
                self._tracker.retries += 1
                self._tracker.accepted = 0
                self._tracker.enter(Stage.STARTING, f"{self._url} changed; it is received anew")

    def _since(self) -> Since | None:
        """Where to go on, if an earlier call has left something. Blocks."""
        job = self._job
        path = None if job.path is None else str(job.path.absolute())
        found = self._journal.left_of(self._url, str((job.folder or Path()).absolute()), path)
        if found is None:
            return None
        record, marked = found
        have = RangeSet((span.start, span.end) for span in (*record.spans, *marked))
        gap = next(have.missing(0, record.size), None) if record.size else None
        return Since(gap[0], record.pin) if gap is not None and Path(record.part).exists() else None

    @asynccontextmanager
    async def _first(
        self, attempts: Attempts, since: Since | None
    ) -> AsyncIterator[tuple[_Source, Answer, AsyncExitStack]]:
        """The first answer of the first server that gives one, and what ends it."""
        remotes = list(self._remotes)
        async with AsyncExitStack() as stack:
            while True:
                remote = remotes[0]
                try:
                    async with AsyncExitStack() as trial:
                        answer = await trial.enter_async_context(remote.first(since))
                        stack.push_async_callback(trial.pop_all().aclose)
                    break
                except (HoldfastError, Refusal) as error:
                    if len(remotes) > 1 and _is_final(error):
                        remotes.pop(0)
                        continue
                    await self._recover(error, attempts, remote.limiter)
                    remotes.append(remotes.pop(0))
            yield _Source(remote, answer.version), answer, stack

    async def _locked(
        self, source: _Source, answer: Answer, release: AsyncExitStack, attempts: Attempts
    ) -> DownloadResult:
        job = self._job
        target = (job.path or (job.folder or Path()) / source.version.name).absolute()
        _check_free(target, overwrite=job.overwrite)
        key = download_key(self._url, str(target))
        lock = await to_thread.run_sync(self._journal.lock, key, str(target), job.id)
        finished = False
        try:
            result = await self._receive(source, answer, release, target, key, lock, attempts)
            finished = True
            return result
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: self._journal.unlock(key, lock, forget=finished))

    async def _receive(
        self,
        source: _Source,
        answer: Answer,
        release: AsyncExitStack,
        target: Path,
        key: str,
        lock: TransferLock,
        attempts: Attempts,
    ) -> DownloadResult:
        version = source.version
        part, have = await to_thread.run_sync(self._open, version, target, key, lock)
        self._lock = lock
        self._tracker.size = version.size
        self._tracker.accepted = self._tracker.resumed = have.total
        proof = Proof(part, self._url, self._said(version))
        try:
            missing = [Span(*each) for each in have.missing(0, version.size)] if version.size else []
            arrivals = Arrivals(key, part, self._journal, lock, have)
            run = _Run(part, arrivals, Segments(missing), [source])
            self._tracker.enter(Stage.IN_PROGRESS)
            digest: Digest | None = None
            trouble: Exception | None = None
            async with anyio.create_task_group() as group:
                names = (version.name, target.name)
                group.start_soon(self._beside, group, proof.ask_beside(source.remote.beside, names))
                group.start_soon(self._beside, group, proof.follow(lambda: have.prefix))
                if version.pin is not None:
                    group.start_soon(self._beside, group, arrivals.keep())
                try:
                    if version.pin is not None:
                        await self._ranges(run, answer, release, proof)
                    else:
                        await self._stream(run, source, answer, attempts)
                    await release.aclose()
                    await source.remote.settle(version)
                    self._tracker.enter(Stage.VERIFYING)
                    digest = await proof.check(self._tracker.accepted)
                except (HoldfastError, OtherVersion, _Again) as error:
                    trouble = error
                finally:
                    if version.pin is not None:
                        with anyio.CancelScope(shield=True):
                            await arrivals.commit()
                group.cancel_scope.cancel()
            if (trouble := trouble or self._failure) is not None:
                raise trouble
            await to_thread.run_sync(lambda: part.publish(target, overwrite=self._job.overwrite))
            await to_thread.run_sync(self._journal.forget_download, key)
        except (OtherVersion, VerificationFailed):
            await to_thread.run_sync(self._journal.forget_download, key)
            await to_thread.run_sync(lock.unmark)
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
            segments=self._requests,
            concurrency=self._tracker.peak,
        )

    async def _beside(self, group: TaskGroup, work: Awaitable[None]) -> None:
        """Something that is done while bytes come; where it fails, all has failed."""
        try:
            await work
        except HoldfastError as error:
            self._failure = self._failure or error
            group.cancel_scope.cancel()

    def _open(self, version: Version, target: Path, key: str, lock: TransferLock) -> tuple[PartFile, RangeSet]:
        """The file to receive into, and what it has of this version. Blocks."""
        path = target.with_name(target.name + ".part")
        record = self._journal.find_download(key)
        digests = {f"{each.algorithm}={each.hex}": each for each in version.digests}
        same = (
            record is not None
            and version.pin is not None
            and record.size == version.size
            and (record.pin == version.pin or record.digest in digests)
            and path.exists()
        )
        there = path.stat().st_blocks * 512 if same else 0
        check_room(target.parent, (version.size or 0) - there)
        part = PartFile.open(path, version.size, fresh=not same)
        have = RangeSet((span.start, span.end) for span in record.spans) if record is not None and same else RangeSet()
        try:
            if same:
                recovered(self._journal, lock, key, part, have)
            else:
                lock.unmark()
                self._journal.forget_download(key)
            if not same and version.pin is not None:
                fresh = DownloadRecord(
                    key,
                    self._url,
                    str(target),
                    str(path),
                    version.size or 0,
                    version.pin,
                    next(iter(digests), None),
                )
                self._journal.begin_download(fresh)
        except BaseException:
            part.close()
            raise
        return part, have

    def _said(self, version: Version) -> Iterable[Said]:
        if self._job.checksum is not None:
            yield Said(self._job.checksum, "the checksum that was given")
        for digest in version.digests:
            yield Said(digest, "its server")

    async def _ranges(self, run: _Run, answer: Answer, release: AsyncExitStack, proof: Proof) -> None:
        if not run.segments.left:
            return
        given: Answer | None = answer
        if not run.segments.begins_at(answer.start):
            await release.aclose()
            given = None
        self._tracker.parts = run.segments.parts
        async with anyio.create_task_group() as group:
            run.scope = group.cancel_scope
            self._staff(run, run.sources[0], group, given, release)
            for remote in self._remotes:
                if remote is not run.sources[0].remote:
                    run.joining += 1
                    group.start_soon(self._join, run, remote, proof, group)
        self._tracker.parts = tuple
        if run.segments.left:
            troubles = [each.trouble for each in run.sources if each.trouble is not None]
            # That the file has changed is what there is an answer to: to begin anew.
            raise next((each for each in troubles if isinstance(each, OtherVersion)), troubles[0])

    def _staff(
        self,
        run: _Run,
        source: _Source,
        group: TaskGroup,
        answer: Answer | None = None,
        release: AsyncExitStack | None = None,
    ) -> None:
        """Have a server worked at by as many as may be of use."""
        most = min(self._job.segments or MOST_CONNECTIONS, -(-run.segments.left // LEAST))
        for index in range(most):
            group.start_soon(self._work, run, source, *((answer, release) if not index else (None, None)))

    async def _join(self, run: _Run, remote: Remote, proof: Proof, group: TaskGroup) -> None:
        """Use another server, too, if it has the same file."""
        base, version, why = run.sources[0].version, None, f"{remote.url} may have another file"
        try:
            async with remote.first() as answer:
                version = answer.version
        except HoldfastError as error:
            why = error.message
        except Refusal as refusal:
            why = from_refusal(refusal, remote.url).message
        # Where a digest will be compared in the end, the length is enough to begin with.
        same = version is not None and (same_file(base, version) or (proof.wanted and base.size == version.size))
        if version is not None and version.pin is not None and same:
            source = _Source(remote, version)
            run.sources.append(source)
            self._staff(run, source, group)
        else:
            self._tracker.enter(Stage.IN_PROGRESS, f"a mirror is left out: {why}")
        run.joining -= 1
        run.tell()

    async def _work(self, run: _Run, source: _Source, answer: Answer | None, release: AsyncExitStack | None) -> None:
        """One connection to a server, as long as there is something for it."""
        attempts = self._attempts()
        limiter = source.remote.limiter
        try:
            while run.segments.left and source.trouble is None:
                if not run.segments.offers(self._clock()):
                    news = run.news
                    with anyio.move_on_after(LOOK):
                        await news.wait()
                    continue
                async with limiter.connection(self._share, self._job.segments):
                    segment = run.segments.take(self._parts(run), self._clock())
                    if segment is not None:
                        for lost in [each for each in run.scopes if not each.left]:
                            run.scopes[lost].cancel()
                        await self._bring(run, source, segment, answer, attempts)
                if answer is not None and release is not None:
                    await release.aclose()
                    answer = None
        except (HoldfastError, OtherVersion) as error:
            source.trouble = source.trouble or error
            if run.live:
                why = error.message if isinstance(error, HoldfastError) else f"{source.remote.url} has another file now"
                self._tracker.enter(Stage.IN_PROGRESS, f"a mirror is left: {why}")
            run.tell()

    def _parts(self, run: _Run) -> int:
        """Among how many connections what is free is to be shared."""
        most = sum(self._job.segments or each.remote.limiter.controller.connections for each in run.live)
        return most - len(run.segments.taken)

    async def _bring(
        self, run: _Run, source: _Source, segment: Segment, answer: Answer | None, attempts: Attempts
    ) -> None:
        limiter = source.remote.limiter
        began, overhead = self._clock(), 0.0
        self._tracker.busy(len(run.segments.taken))
        scope = anyio.CancelScope()
        run.scopes[segment] = scope
        trouble: ConnectionFailed | Refusal | None = None
        try:
            with scope:
                async with limiter.sending(), self._answer(source, segment, answer) as given:
                    overhead = self._clock() - began
                    await self._carry(run, limiter, segment, given)
        except (ConnectionFailed, Refusal) as error:
            trouble = error
        finally:
            del run.scopes[segment]
            run.arrivals.ended(segment)
            run.segments.give_back(segment)
            self._tracker.busy(len(run.segments.taken))
            run.tell()
        came = segment.at - segment.start
        if came:
            self._requests += 1
            limiter.accepted(came, self._clock() - began, overhead)
        if isinstance(trouble, Refusal) or (trouble is not None and not came):
            await self._recover(trouble, attempts, limiter)
        elif trouble is not None:
            self._tracker.failed(trouble)
            self._tracker.retries += 1

    @asynccontextmanager
    async def _answer(self, source: _Source, segment: Segment, answer: Answer | None) -> AsyncIterator[Answer]:
        """The answer that is there already, if it is to this segment, or a new one."""
        if answer is not None and answer.start == segment.start:
            yield answer
            return
        async with source.remote.range(source.version, Span(segment.start, segment.end)) as new:
            yield new

    async def _carry(self, run: _Run, limiter: Limiter, segment: Segment, answer: Answer) -> None:
        start = answer.start
        until = self._clock() + HOLD

        def write(at: int, data: memoryview) -> None:
            run.part.write(start + at, data)

        def wanted() -> int:
            return min(segment.left, self._share.slice or SLICE)

        async for count in answer.carry(write, wanted):
            now = self._clock()
            new = run.arrivals.came(segment, segment.at, segment.at + count)
            segment.came(count, now)
            self._progress += new
            self._count(limiter, count, new)
            await limiter.held_to(self._share, count)
            if now >= until and segment.left > SLICE and limiter.surplus(self._share, self._job.segments):
                return
        if segment.left:
            raise ConnectionFailed(f"{self._url} ended the answer {segment.left} bytes too early")

    async def _stream(self, run: _Run, source: _Source, answer: Answer, attempts: Attempts) -> None:
        """The whole file in one answer, from the start."""
        size, limiter = source.version.size, source.remote.limiter
        self._tracker.busy(1)
        at = 0
        try:
            async with limiter.connection(self._share, self._job.segments):
                async for count in answer.carry(run.part.write, lambda: self._share.slice or SLICE):
                    run.arrivals.there.add(at, at + count)
                    at += count
                    self._count(limiter, count, count)
                    await limiter.held_to(self._share, count)
                if size is not None and at != size:
                    raise ConnectionFailed(f"{self._url} ended after {at} of {size} bytes")
        except ConnectionFailed as error:
            self._progress = max(self._progress, at)
            await self._recover(error, attempts, limiter)
            raise _Again from error
        finally:
            self._tracker.busy(0)
        await to_thread.run_sync(run.part.cut, at)
        self._tracker.size = at
        self._requests = 1

    def _count(self, limiter: Limiter, count: int, new: int) -> None:
        """Bytes came, some of them for the first time."""
        self._lock.count(count)
        self._tracker.accepted += new
        self._tracker.resent += count - new
        self._tracker.moved(count)
        limiter.moved(count)
        self._tracker.go_on()

    async def _recover(self, error: HoldfastError | Refusal, attempts: Attempts, limiter: Limiter) -> None:
        """Wait until it may go better. Raises if it will not, or has not for too long."""
        final = from_refusal(error, self._url) if isinstance(error, Refusal) else error
        if _is_final(error):
            raise final from error
        self._tracker.failed(final)
        if not attempts.failed(self._progress):
            raise gave_up(final, attempts.failures, KEPT) from error
        self._tracker.retries += 1
        told = error.retry_after if isinstance(error, Refusal) else None
        throttled = isinstance(error, Refusal) and error.throttled
        if isinstance(error, Refusal) and throttled:
            limiter.throttled(retry_after=told, crowded=error.status == 429)
        delay = limiter.after_failure(self._backoff, attempts.failures, told, throttled=throttled)
        self._tracker.enter(Stage.IN_PROGRESS, f"{final.message}; again in {delay:.1f} s")
        await limiter.clock.sleep(delay)

    def _attempts(self) -> Attempts:
        return Attempts(self._job.max_attempts, self._progress)


def _is_final(error: HoldfastError | Refusal) -> bool:
    """Another attempt at that server will not help."""
    return error.reaction is Reaction.FAIL if isinstance(error, Refusal) else not isinstance(error, ConnectionFailed)


def _check_free(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise TargetExists(f"{target} is there already; choose another name, or say that it may be replaced")
