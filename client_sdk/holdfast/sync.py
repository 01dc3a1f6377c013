"""The blocking client: the same driver as the asynchronous one, behind one event loop in a thread.

Rule of this file: it holds no logic of transfers. Whatever is called here is done over there, in the client's event
loop, through one portal; who calls is blocked meanwhile, and no longer. An exception that arrives in the waiting
thread, Ctrl-C among them, ends the waiting and not the transfer; leaving the client by an exception cancels what still
runs, and the same call later goes on with it. Callbacks are called in worker threads, so that they may block, and use
the client.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from holdfast._transport import Timeouts, Verify
from holdfast.client import AsyncClient, IfBusy, Metadata, PathLike
from holdfast.clock import SYSTEM, Clock
from holdfast.credentials import Token
from holdfast.errors import HoldfastError
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.progress import Progress, State
from holdfast.queue import Statistics, TransferQueue
from holdfast.sending import Dialect, OnChange
from holdfast.sources import UploadSource
from holdfast.transfers import Kind, RetryPolicy, Transfer, Watcher
from holdfast.watching import News
from holdfast_protocol.digest import Digest
from holdfast_protocol.live import Place

Result = TypeVar("Result")
Found = TypeVar("Found")
AnySyncTransfer: TypeAlias = "SyncTransfer[Any]"


class _Loop:
    """The event loop of one client, seen from other threads. When that is `closed`, all has ended, and what there still
    is to ask is answered here.
    """

    def __init__(self, call: Callable[..., Any], start: "Callable[..., Future[Any]]") -> None:
        self._call = call
        self._start = start
        self.closed: bool = False

    def ask(self, function: Callable[..., Found], *said: Any) -> Found:
        """Have a function called there; what it returns."""
        found: Found = function(*said) if self.closed else self._call(function, *said)
        return found

    def wait(self, function: Callable[..., Awaitable[Found]], *said: Any) -> Found:
        """Have an `async def` carried out there; an exception that arrives here meanwhile cancels it."""
        if self.closed:
            return anyio.run(function, *said)
        future = self._start(function, *said)
        try:
            found: Found = future.result()
            return found
        except BaseException:
            future.cancel()
            raise


class SyncTransfer(Generic[Result]):
    """One file on its way, for callers that block; as Transfer otherwise. Any thread may use it.

    `result()` waits for it; iterating over it, with `for`, gives its progress until it ends.
    """

    def __init__(self, transfer: Transfer[Result], loop: _Loop) -> None:
        self._transfer = transfer
        self._loop = loop

    @property
    def kind(self) -> Kind:
        """`upload` or `download`."""
        return self._transfer.kind

    @property
    def name(self) -> str:
        """What is sent, or where it is received from."""
        return self._transfer.name

    @property
    def id(self) -> str:
        """What it is called in the journal, and by `holdfast transfers`."""
        return self._transfer.id

    @property
    def progress(self) -> Progress:
        """The newest snapshot."""
        return self._loop.ask(lambda: self._transfer.progress)

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self._transfer.state

    @property
    def size(self) -> int | None:
        """In bytes; None as long as it is not known: that of a stream, and that of a download before its turn."""
        return self._transfer.size

    @property
    def paused(self) -> bool:
        """`pause()` was called, and not `resume()` since."""
        return self._transfer.paused

    @property
    def done(self) -> bool:
        """It has ended, in whatever way."""
        return self._transfer.done

    @property
    def error(self) -> HoldfastError | None:
        """Why it failed or was cancelled; None if it did not, or has not ended."""
        return self._transfer.error

    @property
    def verdict(self) -> str | None:
        """Why it is not tried again, of one that failed; part of a sentence."""
        return self._transfer.verdict

    @property
    def url(self) -> str | None:
        """Of an upload: where it is on the server, as soon as it is there. None for a download."""
        return self._transfer.url

    @property
    def outcome(self) -> Result | None:
        """The result; None as long as there is none."""
        return self._transfer.outcome

    @property
    def priority(self) -> int:
        """Lower numbers go first. A change counts for as long as it waits, and for its next chunks."""
        return self._transfer.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._loop.ask(setattr, self._transfer, "priority", priority)

    @property
    def limit_rate(self) -> float | None:
        """Bytes of content a second for this transfer alone, None for no limit; may be changed at any time.

        Raises UsageError for a rate that makes no sense.
        """
        return self._transfer.limit_rate

    @limit_rate.setter
    def limit_rate(self, rate: float | None) -> None:
        self._loop.ask(setattr, self._transfer, "limit_rate", rate)

    def pause(self) -> None:
        """As Transfer.pause."""
        self._loop.ask(self._transfer.pause)

    def resume(self) -> None:
        """As Transfer.resume."""
        self._loop.ask(self._transfer.resume)

    def cancel(self) -> None:
        """As Transfer.cancel."""
        self._loop.ask(self._transfer.cancel)

    def on_progress(self, callback: Watcher) -> None:
        """As Transfer.on_progress; a plain function is called in a worker thread."""
        self._loop.ask(self._transfer.on_progress, _elsewhere(callback))

    def on_end(self, callback: "Callable[[SyncTransfer[Result]], object]") -> None:
        """As Transfer.on_end; a plain function is called in a worker thread."""

        async def ended(transfer: Transfer[Result]) -> None:
            await _elsewhere(callback)(self)

        self._loop.ask(self._transfer.on_end, ended)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SyncTransfer) and self._transfer is other._transfer

    def __hash__(self) -> int:
        return hash(self._transfer)

    def __iter__(self) -> Iterator[Progress]:
        return _each(aiter(self._transfer), self._loop)

    def result(self) -> Result:
        """Wait for the end; the result. Raises HoldfastError, TransferCancelled after `cancel()`."""
        return self._loop.wait(self._transfer.result)

    def wait(self) -> State:
        """Wait for the end, whatever it is: `COMPLETED`, `FAILED` or `CANCELLED`. Raises nothing of the transfer's."""
        return self._loop.wait(self._transfer.wait)


class SyncTransferQueue:
    """All transfers of one Client, for callers that block; as TransferQueue otherwise. Any thread may use it."""

    def __init__(self, queue: TransferQueue, loop: _Loop) -> None:
        self._queue = queue
        self._loop = loop

    @property
    def active(self) -> int:
        """How many are on their way at once, 1 or more; may be changed at any time. Raises UsageError below 1."""
        return self._queue.active

    @active.setter
    def active(self, active: int) -> None:
        self._loop.ask(setattr, self._queue, "active", active)

    @property
    def connections(self) -> int | None:
        """Connections for all transfers together, None for as many as pay; may be changed at any time."""
        return self._queue.connections

    @connections.setter
    def connections(self, most: int | None) -> None:
        self._loop.ask(setattr, self._queue, "connections", most)

    @property
    def limit_rate(self) -> float | None:
        """Bytes of content a second for all transfers together, None for no limit; may be changed at any time."""
        return self._queue.limit_rate

    @limit_rate.setter
    def limit_rate(self, rate: float | None) -> None:
        self._loop.ask(setattr, self._queue, "limit_rate", rate)

    @property
    def transfers(self) -> Sequence[AnySyncTransfer]:
        """All that have not ended, in the order in which they came."""
        return tuple(SyncTransfer(each, self._loop) for each in self._loop.ask(lambda: self._queue.transfers))

    @property
    def waiting(self) -> Sequence[AnySyncTransfer]:
        """Those that wait, the next one first."""
        return tuple(SyncTransfer(each, self._loop) for each in self._loop.ask(lambda: self._queue.waiting))

    @property
    def statistics(self) -> Statistics:
        """One look at all of them."""
        return self._loop.ask(lambda: self._queue.statistics)

    def on_progress(self, callback: Callable[[AnySyncTransfer, Progress], object]) -> None:
        """As TransferQueue.on_progress; a plain function is called in a worker thread."""

        async def seen(transfer: Transfer[Any], progress: Progress) -> None:
            await _elsewhere(callback)(SyncTransfer(transfer, self._loop), progress)

        self._loop.ask(self._queue.on_progress, seen)

    def on_end(self, callback: Callable[[AnySyncTransfer], object]) -> None:
        """As TransferQueue.on_end; a plain function is called in a worker thread."""

        async def ended(transfer: Transfer[Any]) -> None:
            await _elsewhere(callback)(SyncTransfer(transfer, self._loop))

        self._loop.ask(self._queue.on_end, ended)

    def put_before(self, transfer: AnySyncTransfer, other: AnySyncTransfer) -> None:
        """As TransferQueue.put_before."""
        self._loop.ask(self._queue.put_before, transfer._transfer, other._transfer)

    def pause(self) -> None:
        """Pause all that have not ended."""
        self._loop.ask(self._queue.pause)

    def resume(self) -> None:
        """Resume all that are paused."""
        self._loop.ask(self._queue.resume)

    def join(self) -> Statistics:
        """Wait until all have ended that are in the queue now, or come in meanwhile; the last look at them."""
        return self._loop.wait(self._queue.join)

    def shutdown(self, *, wait: bool = True) -> Statistics:
        """As TransferQueue.shutdown."""

        async def end() -> Statistics:
            return await self._queue.shutdown(wait=wait)

        return self._loop.wait(end)


class Client:
    """Uploads and downloads for callers that block. As AsyncClient otherwise; several threads may use it."""

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
        self._client = AsyncClient(
            headers=headers,
            token=token,
            transfers=transfers,
            connections=connections,
            limit_rate=limit_rate,
            timeouts=timeouts,
            verify=verify,
            proxy=proxy,
            state=state,
            override_method=override_method,
            retry=retry,
            if_busy=if_busy,
            clock=clock,
        )
        self._stack = ExitStack()
        self._loop: _Loop | None = None

    def __enter__(self) -> "Client":
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._loop = _Loop(portal.call, portal.start_task_soon)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = self._ready()
        try:
            self._stack.__exit__(kind, error, trace)
        finally:
            loop.closed = True
            self._loop = None

    @property
    def queue(self) -> SyncTransferQueue:
        """All transfers of this client: their order, limits and statistics."""
        return SyncTransferQueue(self._client.queue, self._ready())

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
    ) -> SyncTransfer[UploadResult]:
        """Start sending something, as AsyncClient.upload does. Returns at once; `result()` of it waits."""
        return self._started(
            lambda: self._client.upload(
                source,
                to,
                name=name,
                metadata=metadata,
                checksum=checksum,
                concurrency=concurrency,
                chunk_size=chunk_size,
                protocol=protocol,
                priority=priority,
                limit_rate=limit_rate,
                on_change=on_change,
                resume=resume,
                max_attempts=max_attempts,
            )
        )

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
    ) -> SyncTransfer[DownloadResult]:
        """Start receiving a file, as AsyncClient.download does. Returns at once; `result()` of it waits."""
        return self._started(
            lambda: self._client.download(
                url,
                path,
                folder=folder,
                mirrors=mirrors,
                segments=segments,
                checksum=checksum,
                overwrite=overwrite,
                priority=priority,
                limit_rate=limit_rate,
                max_attempts=max_attempts,
            )
        )

    def watch(
        self,
        server: str,
        *uploads: str,
        projects: Sequence[str] = (),
        owners: Sequence[str] = (),
        everything: bool = False,
        since: Place | None = None,
        max_attempts: int | None = 10,
        lost: Callable[[HoldfastError, float], None] | None = None,
    ) -> Iterator[News]:
        """Follow uploads, as AsyncClient.watch does; each step blocks until there is news. Raises HoldfastError.

        `lost` is called in another thread, and must not block.
        """
        loop = self._ready()
        news = self._client.watch(
            server,
            *uploads,
            projects=projects,
            owners=owners,
            everything=everything,
            since=since,
            max_attempts=max_attempts,
            lost=lost,
        )
        return _each(news, loop)

    def _ready(self) -> _Loop:
        if self._loop is None:
            raise RuntimeError("use the client inside `with Client() as client:`")
        return self._loop

    def _started(self, start: Callable[[], Transfer[Result]]) -> SyncTransfer[Result]:
        loop = self._ready()
        # A transfer can be awaited, and a portal awaits what can be: it must not see it.
        (transfer,) = loop.ask(lambda: (start(),))
        return SyncTransfer(transfer, loop)


def _each(there: AsyncIterator[Found], loop: _Loop) -> Iterator[Found]:
    """What an asynchronous iterator gives, one by one, for callers that block."""

    async def following() -> Found | None:
        return await anext(there, None)

    while (found := loop.wait(following)) is not None:
        yield found


def _elsewhere(callback: Callable[..., object]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A callback that is called in a worker thread, and awaited here if there is something to await."""

    async def call(*said: object) -> None:
        answer = await to_thread.run_sync(callback, *said)
        if isinstance(answer, Awaitable):
            await answer

    return call


def upload(
    source: UploadSource,
    to: str,
    *,
    name: str | None = None,
    metadata: Metadata | None = None,
    checksum: str | None = None,
    concurrency: int | None = None,
    chunk_size: int | None = None,
    protocol: Dialect = "auto",
    on_change: OnChange = "fail",
    resume: bool = False,
    max_attempts: int = 10,
    progress: Watcher | None = None,
    headers: Mapping[str, str] | None = None,
    token: Token | None = None,
    limit_rate: float | None = None,
    verify: Verify = True,
    proxy: str | None = None,
    state: PathLike | None = None,
    override_method: bool = False,
) -> UploadResult:
    """Send something and wait until the server has published it; goes on with what was begun before.

    The arguments are those of AsyncClient and AsyncClient.upload; `progress` is called with the newest snapshot, in
    another thread, at most ten times a second. Raises HoldfastError; see holdfast.errors.
    """
    with Client(
        headers=headers,
        token=token,
        limit_rate=limit_rate,
        verify=verify,
        proxy=proxy,
        state=state,
        override_method=override_method,
    ) as client:
        transfer = client.upload(
            source,
            to,
            name=name,
            metadata=metadata,
            checksum=checksum,
            concurrency=concurrency,
            chunk_size=chunk_size,
            protocol=protocol,
            on_change=on_change,
            resume=resume,
            max_attempts=max_attempts,
        )
        if progress is not None:
            transfer.on_progress(progress)
        return transfer.result()


def download(
    url: str,
    path: PathLike | None = None,
    *,
    folder: PathLike | None = None,
    mirrors: Sequence[str] = (),
    segments: int | None = None,
    checksum: Digest | None = None,
    overwrite: bool = False,
    max_attempts: int = 10,
    progress: Watcher | None = None,
    headers: Mapping[str, str] | None = None,
    token: Token | None = None,
    limit_rate: float | None = None,
    verify: Verify = True,
    proxy: str | None = None,
    state: PathLike | None = None,
) -> DownloadResult:
    """Receive a file and wait until it is there, whole and verified; goes on with what was begun before.

    The arguments are those of AsyncClient and AsyncClient.download; `progress` as in `upload`. Raises HoldfastError;
    see holdfast.errors.
    """
    with Client(headers=headers, token=token, limit_rate=limit_rate, verify=verify, proxy=proxy, state=state) as client:
        transfer = client.download(
            url,
            path,
            folder=folder,
            mirrors=mirrors,
            segments=segments,
            checksum=checksum,
            overwrite=overwrite,
            max_attempts=max_attempts,
        )
        if progress is not None:
            transfer.on_progress(progress)
        return transfer.result()
