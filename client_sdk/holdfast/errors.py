"""What can go wrong on the client's side.

    HoldfastError                    every error below; `code`, a sentence, `retryable`
    ├── UsageError (ValueError)      usage                an argument makes no sense
    ├── SourceUnreadable             source-unreadable    the file to send cannot be opened or read
    ├── SourceChanged                source-changed       the file to send was changed while it was read
    ├── TargetUnwritable             target-unwritable    the file to receive into cannot be written
    ├── TargetExists                 target-exists        it is there already, and nobody said to replace it
    ├── TransferBusy                 transfer-busy        another process runs this transfer
    ├── TransferCancelled            cancelled            `cancel()` was called; the journal keeps what is done
    ├── VerificationFailed           verification-failed  the bytes do not have the digest they must have
    ├── BrokenProtocol               broken-protocol      an answer does not follow the protocol
    ├── ConnectionFailed             connection-failed    no connection, or it broke (retryable)
    │   └── Stalled                  stalled              no bytes either way for too long (retryable)
    └── ServerRefused                the server's code    the server said no
        ├── NotAuthorized            not-authorized       401 or 403: credentials are missing or wrong
        ├── UploadGone               the server's code    404 or 410: nothing is there (any more)
        └── ServerUnavailable        the server's code    408, 425, 429, 5xx: it may go better later (retryable)

Rule of this file: `code` is stable and for programs; the message is a sentence for people and says what to do.
`retryable` means that the same call may succeed later without any change by the caller; by the time a caller
sees such an error, the retries of the transfer are used up.
"""

from typing import ClassVar

# ruff: noqa: N818 - the names say what happened; that they are errors says the tree


class HoldfastError(Exception):
    """Root of the tree. `code` is a stable token, `retryable` says if the same call may go well later."""

    code: str = "failed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.elsewhere = False
        """It was another process that failed, after its own retries; this one only followed."""
        if code is not None:
            self.code = code


class UsageError(HoldfastError, ValueError):
    """An argument, or a combination of arguments, makes no sense. Raised before anything is sent."""

    code = "usage"


class SourceUnreadable(HoldfastError):
    """The file to send is not there, is not a regular file, or cannot be read."""

    code = "source-unreadable"


class SourceChanged(HoldfastError):
    """The file to send got another size or modification time while it was being sent. Nothing was completed."""

    code = "source-changed"


class TargetUnwritable(HoldfastError):
    """The file to receive into cannot be created or written: no right, no folder, no room."""

    code = "target-unwritable"


class TargetExists(HoldfastError):
    """The file to receive into is there already and replacing it was not asked for."""

    code = "target-exists"


class TransferBusy(HoldfastError):
    """Another process, or another transfer of this process, is at the same transfer."""

    code = "transfer-busy"

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        """What the journal knows it by, if it is another process that is at it."""


class TransferCancelled(HoldfastError):
    """The transfer was cancelled. What was done is kept; the same call goes on from there."""

    code = "cancelled"


class VerificationFailed(HoldfastError):
    """The bytes do not have the digest that they must have. The bad copy is not used again."""

    code = "verification-failed"


class BrokenProtocol(HoldfastError):
    """An answer does not follow the protocol, so that nothing can be concluded from it."""

    code = "broken-protocol"


class ConnectionFailed(HoldfastError):
    """No connection could be made, or it broke before the answer was complete."""

    code = "connection-failed"
    retryable = True


class Stalled(ConnectionFailed):
    """No bytes went either way for longer than the stall timeout, or no answer came in time."""

    code = "stalled"


class ServerRefused(HoldfastError):
    """The server answered that it will not do this. `status` is the HTTP status, `code` the server's code."""

    code = "refused"

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status


class NotAuthorized(ServerRefused):
    """401 or 403: credentials are missing, wrong or not enough."""

    code = "not-authorized"


class UploadGone(ServerRefused):
    """404 or 410: there is nothing at this URL (any more)."""

    code = "not-found"


class ServerUnavailable(ServerRefused):
    """408, 425, 429 or 5xx, and it did not get better within the attempts that were allowed."""

    code = "unavailable"
    retryable = True
