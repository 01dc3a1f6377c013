"""Holdfast: resumable uploads and downloads for large files over bad networks.

    import holdfast
    result = holdfast.upload("film.mkv", to="http://127.0.0.1:8000/files")

Rule of this file: what is public is named here; modules may move behind it. A module is imported when something of it
is used for the first time, so that who needs little waits for little.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from holdfast._transport import Timeouts
    from holdfast.client import AsyncClient
    from holdfast.errors import (
        BrokenProtocol,
        ConnectionFailed,
        HoldfastError,
        NotAuthorized,
        ServerFull,
        ServerRefused,
        ServerUnavailable,
        ServerUntrusted,
        SourceChanged,
        SourceUnreadable,
        Stalled,
        TargetExists,
        TargetUnwritable,
        TransferBusy,
        TransferCancelled,
        UploadGone,
        UsageError,
        VerificationFailed,
    )
    from holdfast.outcome import DownloadResult, UploadResult
    from holdfast.progress import Progress, State
    from holdfast.queue import Statistics, TransferQueue
    from holdfast.sources import UploadSource
    from holdfast.sync import Client, SyncTransfer, SyncTransferQueue, download, upload
    from holdfast.transfers import RetryPolicy, Transfer
    from holdfast.watching import News
    from holdfast_protocol.digest import Digest
    from holdfast_protocol.live import Place

__all__ = [
    "AsyncClient",
    "BrokenProtocol",
    "Client",
    "ConnectionFailed",
    "Digest",
    "DownloadResult",
    "HoldfastError",
    "News",
    "NotAuthorized",
    "Place",
    "Progress",
    "RetryPolicy",
    "ServerFull",
    "ServerRefused",
    "ServerUnavailable",
    "ServerUntrusted",
    "SourceChanged",
    "SourceUnreadable",
    "Stalled",
    "State",
    "Statistics",
    "SyncTransfer",
    "SyncTransferQueue",
    "TargetExists",
    "TargetUnwritable",
    "Timeouts",
    "Transfer",
    "TransferBusy",
    "TransferCancelled",
    "TransferQueue",
    "UploadGone",
    "UploadResult",
    "UploadSource",
    "UsageError",
    "VerificationFailed",
    "download",
    "upload",
]

_PLACES: Final = {
    "Timeouts": "holdfast._transport",
    "AsyncClient": "holdfast.client",
    "DownloadResult": "holdfast.outcome",
    "UploadResult": "holdfast.outcome",
    "Progress": "holdfast.progress",
    "State": "holdfast.progress",
    "Statistics": "holdfast.queue",
    "TransferQueue": "holdfast.queue",
    "UploadSource": "holdfast.sources",
    "Client": "holdfast.sync",
    "SyncTransfer": "holdfast.sync",
    "SyncTransferQueue": "holdfast.sync",
    "download": "holdfast.sync",
    "upload": "holdfast.sync",
    "RetryPolicy": "holdfast.transfers",
    "Transfer": "holdfast.transfers",
    "News": "holdfast.watching",
    "Digest": "holdfast_protocol.digest",
    "Place": "holdfast_protocol.live",
}
"""Where it is, unless it is an error."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_PLACES.get(name, "holdfast.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
