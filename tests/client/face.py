"""The blocking client with the face of the asynchronous one, so that the same tests run over both.

Rule of this file: it only waits. Each call goes to the blocking client, in a worker thread if it blocks.
"""

from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import Any

from anyio import to_thread

from holdfast import Client
from holdfast.progress import Progress, State
from holdfast.sync import SyncTransfer, SyncTransferQueue


class Face:
    """Everything that is not said otherwise is that of the object behind it."""

    def __init__(self, behind: Any) -> None:
        object.__setattr__(self, "behind", behind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.behind, name, value)


class TransferFace(Face):
    behind: SyncTransfer[Any]

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def result(self) -> Any:
        return await to_thread.run_sync(self.behind.result)

    async def wait(self) -> State:
        return await to_thread.run_sync(self.behind.wait)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        each = iter(self.behind)
        while (progress := await to_thread.run_sync(next, each, None)) is not None:
            yield progress


class QueueFace(Face):
    behind: SyncTransferQueue

    async def join(self) -> Any:
        return await to_thread.run_sync(self.behind.join)

    async def shutdown(self, *, wait: bool = True) -> Any:
        return await to_thread.run_sync(lambda: self.behind.shutdown(wait=wait))


class ClientFace(Face):
    behind: Client

    def __init__(self, **settings: Any) -> None:
        super().__init__(Client(**settings))

    async def __aenter__(self) -> "ClientFace":
        await to_thread.run_sync(self.behind.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_thread.run_sync(self.behind.__exit__, kind, error, trace)

    @property
    def queue(self) -> QueueFace:
        return QueueFace(self.behind.queue)

    def upload(self, *said: Any, **more: Any) -> TransferFace:
        return TransferFace(self.behind.upload(*said, **more))

    def download(self, *said: Any, **more: Any) -> TransferFace:
        return TransferFace(self.behind.download(*said, **more))
