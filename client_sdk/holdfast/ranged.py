"""Receives a file as ranges, over several connections and from several servers.

Rule of this file: each connection has a range of its own, and who has done with it takes over from the slowest. Servers
are used together only where they have the same file, and one that fails is left. It ends when all has come or no server
is left.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup

from holdfast.arrivals import Arrivals
from holdfast.errors import ConnectionFailed, HoldfastError
from holdfast.outcome import from_refusal
from holdfast.planner import MOST_CONNECTIONS, Sending
from holdfast.progress import State as Stage
from holdfast.receiving import Download, First, Source
from holdfast.remote import Answer, OtherVersion, Remote, Version, same_file
from holdfast.retries import Attempts
from holdfast.segments import LEAST, SLICE, Segment, Segments
from holdfast.targets import PartFile
from holdfast.verification import Proof
from holdfast_protocol.client import Refusal
from holdfast_protocol.messages import Span

LOOK: Final = 0.25
"""Seconds after which a connection without work looks whether somebody is slow."""
HOLD: Final = 2.0
"""Seconds for which a connection is kept although others wait for it."""


class RangedRoad:
    """Brings what is missing of one version into one file. Belongs to one event loop."""

    def __init__(
        self, download: Download, part: PartFile, arrivals: Arrivals, segments: Segments, proof: Proof
    ) -> None:
        self._download = download
        self._part = part
        self._arrivals = arrivals
        self._segments = segments
        self._proof = proof
        self._sources: list[Source] = []
        self._scopes: dict[Segment, anyio.CancelScope] = {}
        self._joining = 0
        """Servers that may come to be among the sources."""
        self._scope = anyio.CancelScope()
        """Of all connections."""
        self._news = anyio.Event()

    async def run(self, first: First, mirrors: Sequence[Remote]) -> None:
        """Receive it from the server of the first answer, and from `mirrors`.

        When no server is left: raises OtherVersion if that is what ended one, else what ended the first.
        """
        if not self._segments.left:
            return
        self._sources = [first.source]
        given: First | None = first
        if not self._segments.begins_at(first.answer.start):
            await first.release()
            given = None
        tracker = self._download.tracker
        tracker.parts = self._segments.parts
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            self._staff(first.source, group, given)
            for remote in mirrors:
                self._joining += 1
                group.start_soon(self._join, remote, group)
        tracker.parts = tuple
        if self._segments.left:
            troubles = [each.trouble for each in self._sources if each.trouble is not None]
            # That the file has changed is what there is an answer to: to begin anew.
            raise next((each for each in troubles if isinstance(each, OtherVersion)), troubles[0])

    @property
    def _live(self) -> list[Source]:
        return [each for each in self._sources if each.trouble is None]

    def _tell(self) -> None:
        """Something is free, or all has come, or no server is left."""
        if not self._segments.left or not (self._live or self._joining):
            self._scope.cancel()
        self._news.set()
        self._news = anyio.Event()

    def _staff(self, source: Source, group: TaskGroup, first: First | None = None) -> None:
        """Have a server worked at by as many as may be of use."""
        most = min(self._download.job.segments or MOST_CONNECTIONS, -(-self._segments.left // LEAST))
        for index in range(most):
            group.start_soon(self._work, source, None if index else first)

    async def _join(self, remote: Remote, group: TaskGroup) -> None:
        """Use another server, too, if it has the same file."""
        base, version, why = self._sources[0].version, None, f"{remote.url} may have another file"
        try:
            async with self._download.connection(remote.limiter), remote.first() as answer:
                version = answer.version
        except HoldfastError as error:
            why = error.message
        except Refusal as refusal:
            why = from_refusal(refusal, remote.url).message
        if version is not None and version.pin is not None and self._is_same(base, version):
            source = Source(remote, version)
            self._sources.append(source)
            self._staff(source, group)
        else:
            self._download.tracker.enter(Stage.IN_PROGRESS, f"a mirror is left out: {why}")
        self._joining -= 1
        self._tell()

    def _is_same(self, base: Version, other: Version) -> bool:
        # Where a digest will be compared in the end, the length is enough to begin with.
        return same_file(base, other) or (self._proof.wanted and base.size == other.size)

    async def _work(self, source: Source, first: First | None) -> None:
        """One connection to a server, as long as there is something for it."""
        attempts = self._download.attempts()
        limiter = source.remote.limiter
        try:
            if first is not None:
                await self._take(source, attempts, first.answer)
                await first.release()
            while self._segments.left and source.trouble is None:
                if not self._segments.offers(self._download.clock()):
                    news = self._news
                    with anyio.move_on_after(LOOK):
                        await news.wait()
                    continue
                async with self._download.connection(limiter):
                    await self._take(source, attempts)
        except (HoldfastError, OtherVersion) as error:
            source.trouble = source.trouble or error
            if self._live:
                why = error.message if isinstance(error, HoldfastError) else f"{source.remote.url} has another file now"
                self._download.tracker.enter(Stage.IN_PROGRESS, f"a mirror is left: {why}")
            self._tell()

    async def _take(self, source: Source, attempts: Attempts, answer: Answer | None = None) -> None:
        """Fetch something, if there is anything left that is worth it."""
        segment = self._segments.take(self._parts(), self._download.clock())
        if segment is not None:
            for lost in [each for each in self._scopes if not each.left]:
                self._scopes[lost].cancel()
            await self._bring(source, segment, answer, attempts)

    def _parts(self) -> int:
        """Among how many connections what is free is to be shared."""
        most = sum(self._download.job.segments or each.remote.limiter.controller.connections for each in self._live)
        return most - len(self._segments.taken)

    async def _bring(self, source: Source, segment: Segment, answer: Answer | None, attempts: Attempts) -> None:
        download, limiter = self._download, source.remote.limiter
        began, overhead = download.clock(), 0.0
        download.tracker.busy(len(self._segments.taken))
        scope = anyio.CancelScope()
        self._scopes[segment] = scope
        trouble: ConnectionFailed | Refusal | None = None
        try:
            with scope:
                async with limiter.sending() as sending, self._answer(source, segment, answer) as given:
                    overhead = download.clock() - began
                    await self._carry(source, segment, given, sending)
        except (ConnectionFailed, Refusal) as error:
            trouble = error
        finally:
            del self._scopes[segment]
            self._arrivals.ended(segment)
            self._segments.give_back(segment)
            download.tracker.busy(len(self._segments.taken))
            self._tell()
        came = segment.at - segment.start
        if came:
            download.requests += 1
            limiter.accepted(came, download.clock() - began, overhead)
        if isinstance(trouble, Refusal) or (trouble is not None and not came):
            await download.recover(trouble, attempts, limiter)
        elif trouble is not None:
            download.tracker.failed(trouble)
            download.tracker.retries += 1

    @asynccontextmanager
    async def _answer(self, source: Source, segment: Segment, answer: Answer | None) -> AsyncIterator[Answer]:
        """The answer that is there already, if it is to this segment, or a new one."""
        if answer is not None and answer.start == segment.start:
            yield answer
            return
        async with source.remote.range(source.version, Span(segment.start, segment.end)) as new:
            yield new

    async def _carry(self, source: Source, segment: Segment, answer: Answer, sending: Sending) -> None:
        download, limiter = self._download, source.remote.limiter
        start = answer.start
        until = download.clock() + HOLD

        def write(at: int, data: memoryview) -> None:
            self._part.write(start + at, data)

        def wanted() -> int:
            return min(segment.left, download.share.slice or SLICE)

        async for count in answer.carry(write, wanted):
            now = download.clock()
            new = self._arrivals.came(segment, segment.at, segment.at + count)
            segment.came(count, now)
            sending.advance(count, limiter.clock.monotonic())
            download.progress += new
            download.came(limiter, count, new)
            await limiter.held_to(download.share, count)
            if now >= until and segment.left > SLICE and download.surplus(limiter):
                return
        if segment.left:
            raise ConnectionFailed(f"{download.url} ended the answer {segment.left} bytes too early")
