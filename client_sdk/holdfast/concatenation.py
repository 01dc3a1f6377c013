"""Sends a file as parts that the server puts together: tus 1.0.0, extension `concatenation`.

Rule of this file: a part is an upload of its own, sent as any tus upload is (sequential.py), and its URL is in the
journal before its first byte goes. Connections take parts from one queue, so a slow one holds up no more than its own
part. Beside them the file is read once, in order, for the digest of the whole. A part that the server has lost is begun
anew, and the others stay. The parts are left to the server afterwards: it may need them for the whole.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from anyio import to_thread

from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, VerificationFailed
from holdfast.outcome import from_refusal
from holdfast.planner import MEMORY, MIB, MOST_CONNECTIONS, Sending
from holdfast.progress import State as Stage
from holdfast.sending import StartAgain, Upload
from holdfast.sequential import SequentialRoad
from holdfast.sources import Fingerprint, Source
from holdfast.splitting import Part
from holdfast_protocol import client as protocol
from holdfast_protocol.client import Created, Reaction, Refusal
from holdfast_protocol.digest import Digest, digest
from holdfast_protocol.messages import Span

JOINING: Final = 20 * MIB
"""Bytes a second that a server puts together, at least; a copy on a slow disk."""


class PartSource(Source):
    """A run of the bytes of another source, as a source of its own."""

    def __init__(self, whole: Source, span: Span) -> None:
        self._whole = whole
        self._span = span

    @property
    def name(self) -> str:
        return self._whole.name

    @property
    def size(self) -> int:
        return self._span.length

    @property
    def fingerprint(self) -> Fingerprint:
        return self._whole.fingerprint

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._whole.read_into(self._span.start + offset, buffer)

    def check(self) -> None:
        self._whole.check()

    def close(self) -> None:
        """The whole belongs to somebody else."""


class PartUpload(Upload):
    """The upload of one part. `grew` is told how many bytes of it the server has."""

    expires: float | None
    progress: int

    def __init__(self, whole: Upload, part: Part, keep: Callable[[float], None], grew: Callable[[int], None]) -> None:
        source = PartSource(whole.source, part.span)
        super().__init__(
            whole.job, whole.session, whole.tracker, whole.lock, source, part.url, whole.share, keep_until=keep
        )
        self.span: Span = part.span
        self.expires = part.expires
        self._grew = grew
        self._have = 0

    def accepted(self, total: int) -> None:
        if total > self._have:
            self.progress += 1
            self._have = total
        self._grew(total)

    async def hash_up_to(self, end: int) -> None:
        """The digest of the whole file is made elsewhere."""

    def _read(self, offset: int, view: memoryview, algorithm: str | None) -> Digest | None:
        self.source.read_into(offset, view)
        return None if algorithm is None else digest(algorithm, view)


class ConcatenationRoad:
    """Brings all parts to the server and has them put together.

    `keep` writes a part's URL and expiry down, and blocks. `checksum` is the algorithm for each PATCH, or None.
    """

    def __init__(
        self,
        upload: Upload,
        parts: tuple[Part, ...],
        metadata: Mapping[str, bytes],
        keep: Callable[[Part], None],
        checksum: str | None = None,
    ) -> None:
        self._upload = upload
        self._parts = {part.span.start: part for part in parts}
        self._metadata = metadata
        self._keep = keep
        self._checksum = checksum
        self._endpoint = upload.session.endpoint
        self._stored = dict.fromkeys(self._parts, 0)
        self._failure: HoldfastError | StartAgain | None = None
        self._working = 0
        self._workers = min(upload.job.concurrency or MOST_CONNECTIONS, len(parts))

    async def send(self) -> None:
        """Blocks until the server has every part. Raises HoldfastError, StartAgain."""
        self._upload.tracker.chunk_size = max(part.span.length for part in self._parts.values())
        self._upload.tracker.enter(Stage.IN_PROGRESS)
        self._failure = None
        queue = deque(sorted(self._parts))
        async with anyio.create_task_group() as group:
            for _ in range(self._workers):
                group.start_soon(self._work, queue, group.cancel_scope)
            try:
                await self._upload.hash_up_to(self._upload.size)
            except HoldfastError as error:
                self._fail(error, group.cancel_scope)
        if self._failure is not None:
            raise self._failure

    async def join(self) -> str:
        """Have the parts put together; the URL of the whole. Raises HoldfastError, StartAgain.

        If the answer is lost the parts are put together once more: the first whole has no URL that anybody knows.
        """
        upload = self._upload
        await to_thread.run_sync(upload.source.check)
        upload.tracker.enter(Stage.VERIFYING)
        attempts = upload.attempts()
        looked = False
        while True:
            steps = protocol.create(
                self._endpoint,
                None,
                metadata=self._metadata,
                parallel=False,
                final_of=[part.url for _, part in sorted(self._parts.items())],
                now=time.time(),
            )
            try:
                return (await upload.exchange(steps, patience=upload.size / JOINING)).url
            except ConnectionFailed as error:
                await upload.recover(error, attempts)
            except Refusal as error:
                if error.reaction is Reaction.RETRY or error.status in (401, 403, 413, 507):
                    await upload.recover(error, attempts)
                    continue
                if looked:
                    raise StartAgain(from_refusal(error, self._endpoint)) from error
                # A part is gone or not whole, though it was: what is missing of it is sent again.
                looked = True
                await self.send()
                upload.tracker.enter(Stage.VERIFYING)

    async def check(self, url: str) -> None:
        """Wait until the whole at `url` is ready, and see that it has the length of the file.

        Raises VerificationFailed, BrokenProtocol and other HoldfastError, StartAgain.
        """
        upload = self._upload
        attempts = upload.attempts()
        patience = 60.0 + upload.size / JOINING
        with anyio.move_on_after(patience):
            while True:
                try:
                    length, done = await upload.exchange(protocol.query_final(url, now=time.time()))
                except (Refusal, ConnectionFailed) as error:
                    await upload.recover(error, attempts)
                    continue
                if length is not None and length != upload.size:
                    raise VerificationFailed(
                        f"{url} was put together to {length} bytes, and {upload.source.name} has {upload.size}"
                    )
                if done:
                    return
                await anyio.sleep(0.5)
        raise BrokenProtocol(f"{url} was not ready {patience:.0f} s after its parts were put together")

    async def _work(self, queue: deque[int], scope: anyio.CancelScope) -> None:
        upload = self._upload
        try:
            while queue:
                async with upload.connection(), upload.session.limiter.sending() as sending:
                    if queue:
                        self._count(1)
                        await self._deliver(queue.popleft(), sending)
                        self._count(-1)
        except (HoldfastError, StartAgain) as error:
            self._fail(error, scope)

    def _count(self, change: int) -> None:
        self._working += change
        self._upload.tracker.busy(self._working)

    async def _deliver(self, start: int, sending: Sending) -> None:
        """Bring one part to the server; begun anew once if it cannot be continued."""
        for last in (False, True):
            part = self._parts[start]
            upload = self._part_upload(part)
            upload.sending = sending
            try:
                if part.url and (part.expires is None or part.expires > time.time()):
                    state = await upload.state()
                    if not self._stored[start]:
                        self._upload.tracker.resumed += state.offset
                else:
                    created = await self._begin(upload)
                    state = protocol.State(created.offset, upload.size, complete=created.offset == upload.size)
                upload.accepted(state.offset)
                await SequentialRoad(upload, state, self._checksum, MEMORY // self._workers).send()
            except StartAgain as again:
                if last:
                    raise
                upload.tracker.retries += 1
                upload.tracker.enter(Stage.IN_PROGRESS, f"{again.reason.message}; this part is begun anew")
                self._stored[start] = 0
                self._parts[start] = Part(part.span)
            else:
                self._upload.chunks += upload.chunks
                return

    def _part_upload(self, part: Part) -> PartUpload:
        start = part.span.start

        def keep(expires: float) -> None:
            self._keep(Part(part.span, self._parts[start].url, expires))

        def grew(total: int) -> None:
            self._stored[start] = max(total, self._stored[start])
            self._upload.accepted(sum(self._stored.values()))

        return PartUpload(self._upload, part, keep, grew)

    async def _begin(self, upload: PartUpload) -> Created:
        """A new upload for a part, written down."""
        attempts = upload.attempts()
        span = upload.span
        upload.url = self._endpoint
        while True:
            steps = protocol.create(self._endpoint, upload.size, parallel=False, partial=True, now=time.time())
            try:
                created = await upload.exchange(steps)
                break
            except (Refusal, ConnectionFailed) as error:
                await upload.recover(error, attempts)
        upload.url = created.url
        upload.expires = created.expires
        self._parts[span.start] = Part(span, created.url, created.expires)
        await to_thread.run_sync(self._keep, self._parts[span.start])
        return created

    def _fail(self, error: HoldfastError | StartAgain, scope: anyio.CancelScope) -> None:
        if self._failure is None:
            self._failure = error
        scope.cancel()
