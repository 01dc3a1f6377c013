"""Holdfast: resumable uploads and downloads for large files over bad networks.

    import holdfast
    result = holdfast.upload("film.mkv", to="http://127.0.0.1:8000/files")

Rule of this file: what is public is named here; modules may move behind it.
"""

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
