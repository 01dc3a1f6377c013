"""The asynchronous client: starts transfers and owns what they share.

Rule of this file: what belongs to one event loop (connections, task group, queue, rate limit) begins and ends with
the `async with` of an AsyncClient, and whatever was started in it has ended when it is left.
"""

import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, TypeVar

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from holdfast._transport import Timeouts, Transport
from holdfast.downloader import Downloader, DownloadJob
from holdfast.errors import UsageError
from holdfast.journal import Journal
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.planner import MAX_CONCURRENCY, TokenBucket
from holdfast.progress import Tracker
from holdfast.sending import Dialect, OnChange, UploadJob
from holdfast.streaming import Stream, StreamUploader
from holdfast.transfers import Queue, Transfer
from holdfast.uploader import Uploader
from holdfast_protocol.digest import Digest, available, size

Result = TypeVar("Result")
PathLike: TypeAlias = str | os.PathLike[str]
Metadata: TypeAlias = Mapping[str, str | bytes]


class AsyncClient:
    """Uploads and downloads in an event loop (asyncio, by anyio).

    Used with `async with`: leaving it waits for the transfers that still run, or cancels them if it is left by an
    exception, and then raises the errors that nobody awaited.

    `transfers` is how many files are on their way at once, `limit_rate` bytes a second of content for all of them
    together. `headers` are sent to the origin of each transfer's URL, and to no other. `state` is the folder of the
    journal (else $HOLDFAST_STATE, else the user's state folder). `override_method` sends PATCH and DELETE as POST with
    X-HTTP-Method-Override, for networks that block them.
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        limit_rate: float | None = None,
        transfers: int = 4,
        timeouts: Timeouts | None = None,
        verify: ssl.SSLContext | bool = True,
        state: PathLike | None = None,
        override_method: bool = False,
    ) -> None:
        if transfers < 1:
            raise UsageError("at least one transfer must be allowed at once")
        self._headers = dict(headers or {})
        self._limit = TokenBucket(limit_rate, time.monotonic) if limit_rate is not None else None
        self._queue = Queue(transfers)
        self._timeouts = timeouts
        self._verify = verify
        self._state = state
        self._override_method = override_method
        self._transport: Transport | None = None
        self._journal: Journal | None = None
        self._group: TaskGroup | None = None
        self._transfers: list[Transfer[UploadResult] | Transfer[DownloadResult]] = []

    async def __aenter__(self) -> "AsyncClient":
        self._journal = await to_thread.run_sync(Journal.open, self._state)
        self._transport = Transport(timeouts=self._timeouts, verify=self._verify, override_method=self._override_method)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transport, journal = self._ready()
        group, self._group = self._group, None
        assert group is not None
        try:
            if error is not None:
                group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()
                await to_thread.run_sync(journal.close)
        unseen = [each for transfer in self._transfers if (each := transfer.unseen_error) is not None]
        if error is None and unseen:
            raise unseen[0] if len(unseen) == 1 else ExceptionGroup("transfers failed", unseen)

    def upload(
        self,
        path: PathLike,
        to: str,
        *,
        metadata: Metadata | None = None,
        checksum: str = "sha-256",
        concurrency: int | None = None,
        chunk_size: int | None = None,
        protocol: Dialect = "auto",
        priority: int = 0,
        on_change: OnChange = "fail",
        max_attempts: int = 10,
    ) -> Transfer[UploadResult]:
        """Start sending a file to the collection `to`, or go on with it if it was begun before.

        `metadata` is added to the file's name and type. `checksum` is the algorithm of the digest of the whole file.
        `concurrency` is 1 to 64 connections, `chunk_size` in bytes is rounded up to what the server can take; None
        leaves both to the client. `priority`: lower numbers go first. `on_change="restart"` begins anew when the
        file changes while it is sent, instead of SourceChanged. `max_attempts` are failures in a row without
        progress. Returns at once. Raises UsageError for arguments that make no sense.
        """
        if protocol not in ("auto", "parallel", "tus"):
            raise UsageError(f"the protocol {protocol!r} is not spoken by this client; use auto, parallel or tus")
        if checksum not in available():
            raise UsageError(f"the checksum {checksum!r} is not known; use one of {', '.join(available())}")
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise UsageError(f"concurrency must be 1 to {MAX_CONCURRENCY}, not {concurrency}")
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"a chunk size of {chunk_size} bytes makes no sense; give at least 1")
        _check_attempts(max_attempts)
        job = UploadJob(
            path=Path(path),
            metadata=_encoded(metadata or {}),
            checksum=checksum,
            concurrency=concurrency,
            chunk_size=chunk_size,
            dialect=protocol,
            on_change=on_change,
            max_attempts=max_attempts,
            priority=priority,
        )
        transport, journal = self._ready()
        session = transport.session(to, self._headers)
        tracker = Tracker(time.monotonic)
        uploader = Uploader(job, session, journal, tracker, self._limit)
        return self._start(str(job.path), tracker, uploader.run, priority)

    def upload_stream(
        self,
        stream: Stream,
        to: str,
        *,
        name: str = "stream",
        metadata: Metadata | None = None,
        checksum: str = "sha-256",
        chunk_size: int | None = None,
        priority: int = 0,
        max_attempts: int = 10,
    ) -> Transfer[UploadResult]:
        """Start sending bytes of which nobody knows how many will come, from an iterable or an asynchronous one.

        For servers with `creation-defer-length` of tus; one chunk of 8 MiB (`chunk_size`, at most 64 MiB) is in memory.
        `name` is that of the file at the server. A later process cannot go on with it. The other arguments are those of
        `upload`. Returns at once. Raises UsageError for arguments that make no sense; the transfer raises it if the
        server takes no such uploads.
        """
        if checksum not in available():
            raise UsageError(f"the checksum {checksum!r} is not known; use one of {', '.join(available())}")
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"a chunk size of {chunk_size} bytes makes no sense; give at least 1")
        _check_attempts(max_attempts)
        job = UploadJob(
            path=Path(name),
            metadata=_encoded(metadata or {}),
            checksum=checksum,
            chunk_size=chunk_size,
            max_attempts=max_attempts,
            priority=priority,
        )
        transport, _ = self._ready()
        tracker = Tracker(time.monotonic)
        uploader = StreamUploader(job, stream, transport.session(to, self._headers), tracker, self._limit)
        return self._start(name, tracker, uploader.run, priority)

    def download(
        self,
        url: str,
        path: PathLike | None = None,
        *,
        folder: PathLike | None = None,
        segments: int | None = None,
        checksum: Digest | None = None,
        overwrite: bool = False,
        priority: int = 0,
        max_attempts: int = 10,
    ) -> Transfer[DownloadResult]:
        """Start receiving a file into `path`, or into `folder` under the name that the server gives.

        `segments` is how many connections to use, 1 to 64. `checksum` is what the file must have, beside what the
        server says. Returns at once. Raises UsageError for arguments that make no sense.
        """
        if segments is not None and not 1 <= segments <= MAX_CONCURRENCY:
            raise UsageError(f"segments must be 1 to {MAX_CONCURRENCY}, not {segments}")
        if checksum is not None:
            if checksum.algorithm not in available():
                raise UsageError(
                    f"the checksum {checksum.algorithm!r} is not known; use one of {', '.join(available())}"
                )
            if len(checksum.value) != size(checksum.algorithm):
                raise UsageError(f"a {checksum.algorithm} checksum has {2 * size(checksum.algorithm)} digits")
        _check_attempts(max_attempts)
        job = DownloadJob(
            url=url,
            path=Path(path) if path is not None else None,
            folder=Path(folder) if folder is not None else None,
            segments=segments,
            checksum=checksum,
            overwrite=overwrite,
            max_attempts=max_attempts,
            priority=priority,
        )
        transport, journal = self._ready()
        session = transport.session(url, self._headers, "down")
        tracker = Tracker(time.monotonic)
        downloader = Downloader(job, session, journal, tracker, self._limit)
        return self._start(session.endpoint, tracker, downloader.run, priority)

    def _ready(self) -> tuple[Transport, Journal]:
        if self._group is None or self._transport is None or self._journal is None:
            raise RuntimeError("use the client inside `async with AsyncClient() as client:`")
        return self._transport, self._journal

    def _start(
        self, name: str, tracker: Tracker, work: Callable[[], Awaitable[Result]], priority: int
    ) -> Transfer[Result]:
        assert self._group is not None
        transfer: Transfer[Result] = Transfer(name, tracker)
        self._transfers = [each for each in self._transfers if not each.done or each.unseen_error is not None]
        self._transfers.append(transfer)  # type: ignore[arg-type]  # both kinds, and only those
        self._group.start_soon(transfer.run, work, self._queue, priority)
        return transfer


def _encoded(metadata: Metadata) -> dict[str, bytes]:
    found = {}
    for key, value in metadata.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise UsageError(f"{key!r} cannot be a metadata key; use visible ASCII without blank and comma")
        found[key] = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return found


def _check_attempts(number: int) -> None:
    if number < 1:
        raise UsageError("max_attempts must be at least 1")
