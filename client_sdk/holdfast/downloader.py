"""Receives one file into a file beside the target.

    remote.py         where the file is: http_remote.py, ftp.py
    receiving.py      what belongs to one download, whichever way it comes
    ranged.py         its ranges, over several connections; segments.py says which one fetches what
    arrivals.py       what has come, and is safe
    verification.py   whether it is right
    targets.py        the file beside the target

Rule of this file: bytes of two versions never get into one file. The first answer fixes the version; each range is
pinned to it. Without a pin there is one stream from the start, after a failure from the start again. The target's name
appears when all is there and verified, by a rename.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from holdfast.arrivals import Arrivals, recovered
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, TargetExists, VerificationFailed
from holdfast.journal import DownloadRecord, Journal, TransferLock, download_key
from holdfast.ledger import bare
from holdfast.outcome import DownloadResult
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.ranged import RangedRoad
from holdfast.rates import Share
from holdfast.receiving import ANEW, KEPT, Download, DownloadJob, First, Source, is_final
from holdfast.remote import OtherVersion, Remote, Since, Version
from holdfast.retries import Attempts
from holdfast.segments import SLICE, Segments
from holdfast.targets import PartFile, check_room
from holdfast.verification import Proof, Said
from holdfast_protocol.client import Refusal
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet


class _Again(Exception):  # noqa: N818 - it is no error yet
    """A stream that nobody can go on with has broken; it is begun anew."""


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
        self._url = remotes[0].url
        self._download = Download(job, self._url, tracker, share, clock)
        self._failure: HoldfastError | None = None

    async def run(self) -> DownloadResult:
        """Receive the file, or what is not here of it. Raises HoldfastError; see errors.py."""
        job = self._job
        if job.path is not None:
            _check_free(job.path.absolute(), overwrite=job.overwrite)
        attempts = self._download.attempts()
        changes = self._download.attempts()
        while True:
            since = await to_thread.run_sync(self._since)
            try:
                async with self._first(attempts, since) as first:
                    return await self._locked(first, attempts)
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
        return Since(Span(*gap), record.pin) if gap is not None and Path(record.part).exists() else None

    @asynccontextmanager
    async def _first(self, attempts: Attempts, since: Since | None) -> AsyncIterator[First]:
        """The first answer of the first server that gives one."""
        remotes = list(self._remotes)
        async with AsyncExitStack() as stack:
            while True:
                remote = remotes[0]
                try:
                    async with AsyncExitStack() as trial:
                        await trial.enter_async_context(self._download.connection(remote.limiter))
                        answer = await trial.enter_async_context(remote.first(since))
                        stack.push_async_callback(trial.pop_all().aclose)
                    break
                except (HoldfastError, Refusal) as error:
                    if len(remotes) > 1 and is_final(error):
                        remotes.pop(0)
                        continue
                    await self._download.recover(error, attempts, remote.limiter)
                    remotes.append(remotes.pop(0))
            yield First(Source(remote, answer.version), answer, stack)

    async def _locked(self, first: First, attempts: Attempts) -> DownloadResult:
        job = self._job
        target = (job.path or (job.folder or Path()) / first.source.version.name).absolute()
        _check_free(target, overwrite=job.overwrite)
        key = download_key(self._url, str(target))
        lock = await to_thread.run_sync(self._journal.lock, key, str(target), job.id)
        finished = False
        try:
            result = await self._receive(first, target, key, lock, attempts)
            finished = True
            return result
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: self._journal.unlock(key, lock, forget=finished))

    async def _receive(
        self, first: First, target: Path, key: str, lock: TransferLock, attempts: Attempts
    ) -> DownloadResult:
        version = first.source.version
        part, have = await to_thread.run_sync(self._open, version, target, key, lock)
        self._download.lock = lock
        self._download.keeps = KEPT if version.pin is not None else ANEW
        self._tracker.size = version.size
        self._tracker.accepted = self._tracker.resumed = have.total
        proof = Proof(part, self._url, self._said(version))
        try:
            arrivals = Arrivals(key, part, self._journal, lock, have)
            self._tracker.enter(Stage.IN_PROGRESS)
            digest: Digest | None = None
            trouble: Exception | None = None
            async with anyio.create_task_group() as group:
                remote = first.source.remote
                turn = self._download.connection(remote.limiter)
                asking = proof.ask_beside(remote.beside, (version.name, target.name), turn)
                group.start_soon(self._beside, group, asking)
                group.start_soon(self._beside, group, proof.follow(lambda: have.prefix))
                if version.pin is not None:
                    group.start_soon(self._beside, group, arrivals.keep())
                try:
                    if version.pin is not None:
                        missing = [Span(*each) for each in have.missing(0, version.size)] if version.size else []
                        road = RangedRoad(self._download, part, arrivals, Segments(missing), proof)
                        await road.run(first, [each for each in self._remotes if each is not remote])
                    else:
                        await self._stream(first, part, have, attempts)
                    await first.release()
                    self._tracker.enter(Stage.VERIFYING)
                    await proof.heard()
                    async with self._download.connection(remote.limiter):
                        await remote.settle(version)
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
            segments=self._download.requests,
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

    async def _stream(self, first: First, part: PartFile, there: RangeSet, attempts: Attempts) -> None:
        """The whole file in one answer, from the start."""
        download, limiter, size = self._download, first.source.remote.limiter, first.source.version.size
        self._tracker.busy(1)
        at = 0
        try:
            async for count in first.answer.carry(part.write, lambda: download.share.slice or SLICE):
                there.add(at, at + count)
                at += count
                download.came(limiter, count, count)
                await limiter.held_to(download.share, count)
            if size is not None and at != size:
                raise ConnectionFailed(f"{self._url} ended after {at} of {size} bytes")
        except ConnectionFailed as error:
            await first.release()
            download.progress = max(download.progress, at)
            await download.recover(error, attempts, limiter)
            raise _Again from error
        finally:
            self._tracker.busy(0)
        await to_thread.run_sync(part.cut, at)
        self._tracker.size = at
        download.requests = 1


def _check_free(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise TargetExists(f"{target} is there already; choose another name, or say --overwrite (overwrite=True)")
