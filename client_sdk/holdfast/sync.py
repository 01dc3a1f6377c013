"""The blocking client: the same driver as the asynchronous one, behind one event loop in a thread.

Rule of this file: it holds no logic of transfers. A call blocks its thread until the transfer has ended; an exception
that arrives meanwhile, Ctrl-C among them, cancels the transfer, which can be continued later.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from holdfast.client import AsyncClient, IfBusy, Metadata, PathLike
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.progress import Progress
from holdfast.sending import Dialect, OnChange
from holdfast.transfers import Transfer
from holdfast.watching import News
from holdfast_protocol.digest import Digest
from holdfast_protocol.live import Place

Result = TypeVar("Result")
Watcher = Callable[[Progress], object]


class Client:
    """Uploads and downloads that block. The arguments are those of AsyncClient; several threads may use it."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        limit_rate: float | None = None,
        transfers: int = 4,
        state: PathLike | None = None,
        override_method: bool = False,
        if_busy: IfBusy = "follow",
    ) -> None:
        self._client = AsyncClient(
            headers=headers,
            limit_rate=limit_rate,
            transfers=transfers,
            state=state,
            override_method=override_method,
            if_busy=if_busy,
        )
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> "Client":
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(self._portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal = None
        self._stack.__exit__(kind, error, trace)

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
        resume: bool = False,
        max_attempts: int = 10,
        progress: Watcher | None = None,
    ) -> UploadResult:
        """Send a file, as AsyncClient.upload does; blocks until it is complete. Raises HoldfastError.

        `progress` is called with the newest snapshot, in another thread; calls never pile up.
        """
        return self._run(
            lambda: self._client.upload(
                path,
                to,
                metadata=metadata,
                checksum=checksum,
                concurrency=concurrency,
                chunk_size=chunk_size,
                protocol=protocol,
                priority=priority,
                on_change=on_change,
                resume=resume,
                max_attempts=max_attempts,
            ),
            progress,
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
        max_attempts: int = 10,
        progress: Watcher | None = None,
    ) -> DownloadResult:
        """Receive a file, as AsyncClient.download does; blocks until it is there. Raises HoldfastError."""
        return self._run(
            lambda: self._client.download(
                url,
                path,
                folder=folder,
                segments=segments,
                checksum=checksum,
                mirrors=mirrors,
                overwrite=overwrite,
                priority=priority,
                max_attempts=max_attempts,
            ),
            progress,
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
    ) -> Iterator[News]:
        """Follow uploads, as AsyncClient.watch does; each step blocks until there is news. Raises HoldfastError."""
        news = aiter(
            self._client.watch(
                server,
                *uploads,
                projects=projects,
                owners=owners,
                everything=everything,
                since=since,
                max_attempts=max_attempts,
            )
        )

        async def following() -> News | None:
            return await anext(news, None)

        while (each := self._wait_for(following)) is not None:
            yield each

    def _run(self, start: Callable[[], Transfer[Result]], progress: Watcher | None) -> Result:
        return self._wait_for(lambda: _watched(start, progress))

    def _wait_for(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        if self._portal is None:
            raise RuntimeError("use the client inside `with Client() as client:`")
        future = self._portal.start_task_soon(work)
        try:
            result: Result = future.result()
        except BaseException:
            future.cancel()
            raise
        return result


async def _watched(start: Callable[[], Transfer[Result]], progress: Watcher | None) -> Result:
    transfer = start()
    try:
        if progress is not None:
            async for snapshot in transfer:
                progress(snapshot)
        return await transfer
    finally:
        # Without effect on a transfer that has ended; else the caller has gone away, and may come again.
        transfer.interrupt()
        with anyio.CancelScope(shield=True):
            await transfer.wait()


def upload(
    path: PathLike,
    to: str,
    *,
    headers: Mapping[str, str] | None = None,
    limit_rate: float | None = None,
    state: PathLike | None = None,
    metadata: Metadata | None = None,
    checksum: str = "sha-256",
    concurrency: int | None = None,
    chunk_size: int | None = None,
    protocol: Dialect = "auto",
    on_change: OnChange = "fail",
    resume: bool = False,
    max_attempts: int = 10,
    progress: Watcher | None = None,
    override_method: bool = False,
) -> UploadResult:
    """Send a file and wait until the server has published it; goes on with what was begun before.

    The arguments are those of Client and Client.upload. Raises HoldfastError; see holdfast.errors.
    """
    with Client(headers=headers, limit_rate=limit_rate, state=state, override_method=override_method) as client:
        return client.upload(
            path,
            to,
            metadata=metadata,
            checksum=checksum,
            concurrency=concurrency,
            chunk_size=chunk_size,
            protocol=protocol,
            on_change=on_change,
            resume=resume,
            max_attempts=max_attempts,
            progress=progress,
        )


def download(
    url: str,
    path: PathLike | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    limit_rate: float | None = None,
    state: PathLike | None = None,
    folder: PathLike | None = None,
    segments: int | None = None,
    checksum: Digest | None = None,
    mirrors: Sequence[str] = (),
    overwrite: bool = False,
    max_attempts: int = 10,
    progress: Watcher | None = None,
) -> DownloadResult:
    """Receive a file and wait until it is there, whole and verified; goes on with what was begun before.

    The arguments are those of Client and Client.download. Raises HoldfastError; see holdfast.errors.
    """
    with Client(headers=headers, limit_rate=limit_rate, state=state) as client:
        return client.download(
            url,
            path,
            folder=folder,
            segments=segments,
            checksum=checksum,
            mirrors=mirrors,
            overwrite=overwrite,
            max_attempts=max_attempts,
            progress=progress,
        )
