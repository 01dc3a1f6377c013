"""The asynchronous client: starts transfers and owns what they share.

Rule of this file: what belongs to one event loop (connections, task group, queue, rate limit) begins and ends with
the `async with` of an AsyncClient, and whatever was started in it has ended when it is left. What only downloads or
only watchers need is imported when one begins: who sends a file should not wait for it.
"""

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from holdfast._transport import Timeouts, Transport, Verify
from holdfast.books import Books
from holdfast.clock import SYSTEM, Clock
from holdfast.credentials import Keyring, Token
from holdfast.errors import HoldfastError, UsageError
from holdfast.journal import Journal
from holdfast.ledger import Asked, Row, bare, shown
from holdfast.limiter import Crowd
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.planner import MAX_CONCURRENCY
from holdfast.progress import Tracker
from holdfast.queue import TransferQueue
from holdfast.rates import RateLimit, Share
from holdfast.repeating import Manner, digest_of, download_asked, upload_asked
from holdfast.sending import Dialect, OnChange, UploadJob
from holdfast.sources import UploadSource, checked_path, recognize
from holdfast.streaming import StreamUploader
from holdfast.transfers import Gate, RetryPolicy, Transfer
from holdfast.uploader import Uploader
from holdfast_protocol import headers as names
from holdfast_protocol.digest import Digest, available, computable, size

if TYPE_CHECKING:
    from holdfast.watching import News
    from holdfast_protocol.live import Place

Result = TypeVar("Result")
IfBusy = Literal["follow", "fail"]
PathLike: TypeAlias = str | os.PathLike[str]
Metadata: TypeAlias = Mapping[str, str | bytes]


class AsyncClient:
    """Uploads and downloads in an event loop (asyncio, by anyio).

    Used with `async with`: leaving it waits for the transfers that still run, or cancels them if it is left by an
    exception, and then raises the errors that nobody awaited.

    `transfers` is how many files are on their way at once, `connections` how many connections they have together (None:
    as many as pay, at most 16 for each origin), `limit_rate` bytes a second of content for all of them together; all
    three can be changed later (`queue`).

    `headers` are sent to the origin of each transfer's URL, and to no other. So is `token`, as Bearer: a string, or a
    function, perhaps an `async def`, that gives one for an origin, and is asked again when a server refuses what it
    gave. Without these there are $HOLDFAST_TOKEN and netrc (holdfast/credentials.py). `verify` is how servers prove who
    they are: True, a file of certificate authorities in PEM, an SSLContext, or False. `proxy` is a URL; else the
    environment names it.

    `state` is the folder of the journal (else $HOLDFAST_STATE, else the user's state folder). `override_method` sends
    PATCH and DELETE as POST with X-HTTP-Method-Override, for networks that block them. `if_busy` is what a transfer
    does that another process is at already: it follows that one to its end, and takes over if its process ends before,
    or it fails with TransferBusy. `clock` is what waits go by. Raises UsageError for what makes no sense, here or when
    it is entered.
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        transfers: int = 4,
        connections: int | None = None,
        limit_rate: float | None = None,
        timeouts: Timeouts | None = None,
        verify: Verify = True,
        proxy: str | None = None,
        state: PathLike | None = None,
        override_method: bool = False,
        retry: RetryPolicy | None = None,
        if_busy: IfBusy = "follow",
        clock: Clock = SYSTEM,
    ) -> None:
        self._headers = dict(headers or {})
        self._token = token
        self._clock = clock
        self._limit = RateLimit(limit_rate, clock.monotonic)
        self._crowd = Crowd(connections)
        self.queue: TransferQueue = TransferQueue(transfers, self._limit, retry or RetryPolicy(), self._crowd, clock)
        """All transfers of this client: their order, limits and statistics."""
        self._timeouts = timeouts
        self._verify: Verify = verify
        self._proxy = proxy
        self._state = state
        self._override_method = override_method
        self._if_busy = if_busy
        self._books: Books | None = None
        self._bookkeeping: TaskGroup | None = None
        self._transport: Transport | None = None
        self._journal: Journal | None = None
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> "AsyncClient":
        keyring = Keyring(self._token)
        if keyring.explicit and any(name.lower() == names.AUTHORIZATION.lower() for name in self._headers):
            raise UsageError("give a token or the header Authorization, not both")
        self._journal = await to_thread.run_sync(Journal.open, self._state)
        try:
            self._transport = Transport(
                timeouts=self._timeouts,
                verify=self._verify,
                proxy=self._proxy,
                keyring=keyring,
                override_method=self._override_method,
                ceilings=await to_thread.run_sync(self._journal.find_ceilings),
                crowd=self._crowd,
                clock=self._clock,
            )
        except BaseException:
            self._journal.close()
            raise
        self._books = Books(self._journal, self._transport.limiters)
        self._bookkeeping = anyio.create_task_group()
        await self._bookkeeping.__aenter__()
        self._bookkeeping.start_soon(self._books.keep)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.queue.open(self._group.start_soon)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transport, journal = self._ready()
        group, self._group = self._group, None
        books, bookkeeping = self._books, self._bookkeeping
        assert group is not None
        assert books is not None
        assert bookkeeping is not None
        try:
            if error is not None:
                group.cancel_scope.cancel()
            try:
                await group.__aexit__(None, None, None)
            finally:
                bookkeeping.cancel_scope.cancel()
                await bookkeeping.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await books.settle()
                await transport.aclose()
                await to_thread.run_sync(journal.close)
        unseen = self.queue.unseen_errors
        if error is None and unseen:
            raise unseen[0] if len(unseen) == 1 else ExceptionGroup("transfers failed", unseen)

    def upload(
        self,
        source: UploadSource,
        to: str,
        *,
        name: str | None = None,
        metadata: Metadata | None = None,
        checksum: str | None = None,
        concurrency: int | None = None,
        chunk_size: int | None = None,
        protocol: Dialect = "auto",
        priority: int = 0,
        limit_rate: float | None = None,
        on_change: OnChange = "fail",
        resume: bool = False,
        max_attempts: int = 10,
    ) -> Transfer[UploadResult]:
        """Start sending something to the collection `to`, or go on with it if it was begun before.

        `source` is the path of a file, bytes, a file object that is open for reading bytes, or an iterable of bytes,
        asynchronous or not. A file object is read from where it stands, and stays open. Files and bytes are recognized:
        the same call in a later process goes on where this one stopped. What has no length beforehand (an iterable, a
        pipe) is a stream: one chunk of 8 MiB (`chunk_size`, at most 64 MiB) of it is in memory, until the server has
        it. It needs a server with `creation-defer-length` of tus or with the IETF draft, and goes over one connection.

        With `resume`, `to` is the URL of one upload that was begun already, by whatever client: what it lacks is sent,
        in any dialect, and `metadata` are not. A stream must come from its beginning again; what the server has of it
        is read and not sent. Whether the bytes that are there are the right ones is known only where the server
        verifies a digest of the whole: with parallel chunks. It is never begun anew: if it is gone, or has another
        length, UploadGone or VerificationFailed is raised, and it stays as it is.

        `name` is what the file is called at the server, if not as the path or the file object. `metadata` is added to
        the file's name and type. `checksum` is the algorithm of the digest of the whole file; None is that of
        parallel chunks where the server takes these (xxh3-128 if it knows it), and else sha-256. `protocol` is the
        dialect: parallel, tus, ietf (the IETF draft, in the newest version that the server understands), or auto: the
        first of these that the server names. `concurrency` is 1 to 64 connections, `chunk_size` in bytes is rounded up
        to what the server can take; None leaves both to the client. `priority`: lower numbers go first. `limit_rate` is
        in bytes a second. `on_change="restart"` begins anew when the file changes while it is sent, instead of
        SourceChanged. `max_attempts` are failures in a row without progress. Returns at once. Raises UsageError for
        arguments that make no sense; the transfer raises it if the server takes no streams.
        """
        _check_dialect(protocol)
        if checksum is not None and not computable(checksum):
            raise UsageError(f"the checksum {checksum!r} is not known; use one of {', '.join(available())}")
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise UsageError(f"concurrency must be 1 to {MAX_CONCURRENCY}, not {concurrency}")
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"a chunk size of {chunk_size} bytes makes no sense; give at least 1")
        _check_attempts(max_attempts)
        given = recognize(source, name)
        if given.stream is not None and protocol == "parallel":
            raise UsageError("a stream of unknown length cannot go in parallel chunks; use auto, tus or ietf")
        transport, journal = self._ready()
        session = transport.session(to, self._headers)
        job = UploadJob(
            given=given,
            metadata=_encoded(metadata or {}),
            checksum=checksum,
            concurrency=concurrency,
            chunk_size=chunk_size,
            dialect=protocol,
            on_change=on_change,
            resume=resume,
            max_attempts=max_attempts,
        )
        asked = upload_asked(job, to, self._manner(priority, limit_rate))
        job = replace(job, id=asked.id)
        tracker, limit, share = self._shared(priority, limit_rate)
        tracker.size = given.size
        gate: Gate | None = None
        work: Callable[[], Awaitable[UploadResult]]
        if given.stream is not None:
            gate = Gate()
            work = StreamUploader(job, given.stream, session, tracker, share, gate).run
        else:
            # What another process has finished is found there, complete.
            work = self._followed(tracker, Uploader(job, session, journal, tracker, share).run, lambda row: None)
        called = shown(given.path or given.name)
        transfer = Transfer(
            "upload", called, tracker, work, share=share, limit=limit, gate=gate, id=asked.id, clock=self._clock
        )
        return self._begun(transfer, asked)

    def download(
        self,
        url: str,
        path: PathLike | None = None,
        *,
        folder: PathLike | None = None,
        segments: int | None = None,
        checksum: Digest | None = None,
        mirrors: Sequence[str] = (),
        overwrite: bool = False,
        priority: int = 0,
        limit_rate: float | None = None,
        max_attempts: int = 10,
    ) -> Transfer[DownloadResult]:
        """Start receiving a file into `path`, or into `folder` under the name that the server gives.

        URLs are those of HTTP, and of FTP with the extra `ftp`. `segments` is how many connections to use, 1 to 64, to
        each server; None leaves it to the client. `checksum` is what the file must have, beside what the server says.
        `mirrors` are further URLs of the same file, which are used at the same time. Returns at once. Raises UsageError
        for arguments that make no sense.
        """
        from holdfast.downloader import Downloader
        from holdfast.receiving import DownloadJob
        from holdfast.remotes import remote_of

        if segments is not None and not 1 <= segments <= MAX_CONCURRENCY:
            raise UsageError(f"segments must be 1 to {MAX_CONCURRENCY}, not {segments}")
        if checksum is not None:
            if not computable(checksum.algorithm):
                raise UsageError(
                    f"the checksum {checksum.algorithm!r} is not known; use one of {', '.join(available())}"
                )
            if len(checksum.value) != size(checksum.algorithm):
                raise UsageError(f"a {checksum.algorithm} checksum has {2 * size(checksum.algorithm)} digits")
        _check_attempts(max_attempts)
        job = DownloadJob(
            url=url,
            path=checked_path(path) if path is not None else None,
            folder=checked_path(folder) if folder is not None else None,
            segments=segments,
            checksum=checksum,
            overwrite=overwrite,
            max_attempts=max_attempts,
            mirrors=tuple(mirrors),
        )
        transport, journal = self._ready()
        remotes = [remote_of(each, transport, self._headers) for each in (url, *mirrors)]
        asked = download_asked(job, self._manner(priority, limit_rate))
        tracker, limit, share = self._shared(priority, limit_rate)
        downloader = Downloader(replace(job, id=asked.id), remotes, journal, tracker, share)

        def received(row: Row) -> DownloadResult:
            tracker.accepted = row.size or 0
            return DownloadResult(
                url=bare(remotes[0].url),
                path=Path(row.result or row.target),
                size=row.size or 0,
                digest=digest_of(row.digest) if row.digest is not None else None,
                seconds=tracker.elapsed,
                bytes_received=0,
                bytes_resumed=0,
                retries=tracker.retries,
                segments=0,
                concurrency=0,
            )

        work = self._followed(tracker, downloader.run, received)
        transfer = Transfer(
            "download",
            bare(remotes[0].url),
            tracker,
            work,
            share=share,
            limit=limit,
            id=asked.id,
            clock=self._clock,
        )
        return self._begun(transfer, asked)

    def watch(
        self,
        server: str,
        *uploads: str,
        projects: Sequence[str] = (),
        owners: Sequence[str] = (),
        everything: bool = False,
        since: "Place | None" = None,
        max_attempts: int | None = 10,
        lost: Callable[[HoldfastError, float], None] | None = None,
    ) -> "AsyncIterator[News]":
        """Follow uploads on a Holdfast server while they happen: `async for news in client.watch(url): ...`.

        `server` is its URL, `uploads` are ids or URLs; with nothing named it is what the credential may watch: all for
        an operator or where nobody has to say who he is, else one's own and that of one's projects.
        `everything` insists on all. If only uploads are watched, it ends when all of them have. Every change of
        a state comes once and in order, over any number of lost connections. `since` goes on behind the `place`
        of earlier news. `max_attempts` is how many connections in a row may fail, None any number; `lost` is
        told of each failure and of the seconds until the next attempt. Raises UsageError at once, and HoldfastError.
        """
        from holdfast.watching import Watch, place, topics_for

        url, ids = place(server, uploads)
        topics = topics_for(ids, owners, projects, everything=everything)
        transport, _ = self._ready()
        session = transport.session(url, self._headers, "down")
        return Watch(session, topics, since, max_attempts, lost=lost, clock=self._clock).follow()

    def _ready(self) -> tuple[Transport, Journal]:
        if self._group is None or self._transport is None or self._journal is None:
            raise RuntimeError("use the client inside `async with AsyncClient() as client:`")
        return self._transport, self._journal

    def _begun(self, transfer: Transfer[Result], asked: Asked) -> Transfer[Result]:
        assert self._books is not None
        self.queue.start(transfer)
        self._books.open(transfer, asked)
        return transfer

    def _followed(
        self, tracker: Tracker, work: Callable[[], Awaitable[Result]], result_of: Callable[[Row], Result | None]
    ) -> Callable[[], Awaitable[Result]]:
        assert self._books is not None
        return work if self._if_busy == "fail" else self._books.following(tracker, work, result_of)

    def _manner(self, priority: int, limit_rate: float | None) -> Manner:
        secret = [names.AUTHORIZATION] if self._token is not None else []
        return Manner((*self._headers, *secret), self._override_method, priority, limit_rate)

    def _shared(self, priority: int, limit_rate: float | None) -> tuple[Tracker, RateLimit, Share]:
        """What a transfer is seen and held by: its progress, its own rate limit, and its share of what is common."""
        limit = RateLimit(limit_rate, self._clock.monotonic)
        limits = limit, self._limit

        def most() -> float:
            return min((each.rate for each in limits if each.rate is not None), default=math.inf)

        return Tracker(self._clock.monotonic, most), limit, Share(priority, *limits)


def _encoded(metadata: Metadata) -> dict[str, bytes]:
    found = {}
    for key, value in metadata.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise UsageError(f"{key!r} cannot be a metadata key; use visible ASCII without blank and comma")
        found[key] = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return found


def _check_dialect(name: str) -> None:
    if name not in get_args(Dialect):
        raise UsageError(f"the protocol {name!r} is not spoken by this client; use {', '.join(get_args(Dialect))}")


def _check_attempts(number: int) -> None:
    if number < 1:
        raise UsageError("max_attempts must be at least 1")
