"""What can go wrong on the client's side, and whether trying again is worth it.

    HoldfastError                    every error below; `code`, a sentence, `retryable`, `verdict`
    ├── UsageError (ValueError)      usage                no   an argument makes no sense
    ├── SourceUnreadable             source-unreadable    no   what is to be sent cannot be opened or read
    ├── SourceChanged                source-changed       no   the file to send was changed while it was read
    ├── TargetUnwritable             target-unwritable    no   the file to receive into cannot be written
    ├── TargetExists                 target-exists        no   it is there already, and nobody said to replace it
    ├── TransferBusy                 transfer-busy        no   another process runs this transfer
    ├── TransferCancelled            cancelled            no   `cancel()` was called; the journal keeps what is done
    ├── VerificationFailed           verification-failed  no   the bytes do not have the digest they must have
    ├── BrokenProtocol               broken-protocol      no   an answer does not follow the protocol
    ├── ServerUntrusted              server-untrusted     no   its certificate is not one to rely on
    ├── ConnectionFailed             connection-failed    yes  no connection, or it broke
    │   └── Stalled                  stalled              yes  no bytes either way for too long
    └── ServerRefused                the server's code    no   the server said no
        ├── NotAuthorized            the server's code    no   401 or 403: credentials are missing or wrong
        ├── UploadGone               the server's code    no   404 or 410: nothing is there (any more)
        ├── ServerFull               the server's code    no   507: there is no room on the server
        └── ServerUnavailable        the server's code    yes  408, 425, 429, other 5xx: it may go better later

Rule of this file: `code` is stable and for programs; the message is a sentence for people and says what to do. The
third column is `retryable`: the same call may succeed later without any change by anybody here; `verdict` says the same
in words, with the reason. By the time a caller sees a retryable error, the retries of the transfer are used up.

Nothing secret is in a message: of URLs neither user name and password nor the query are shown.
"""

import re
from typing import ClassVar, Final

# ruff: noqa: N818 - the names say what happened; that they are errors says the tree

_LOGIN: Final = re.compile(r"(?<=://)[^/\s?#]*@")
_QUERY: Final = re.compile(r"(\w://[^\s?]*)\?\S*")


def without_secrets(text: str) -> str:
    """The same text, with no user name, password or query in its URLs."""
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


class HoldfastError(Exception):
    """Root of the tree. `code` is a stable token, `retryable` says if the same call may go well later."""

    code: str = "failed"
    retryable: ClassVar[bool] = False
    verdict: ClassVar[str] = "not tried again: it would not go better by itself"
    """Whether trying again is worth it, and why; part of a sentence."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.message: str = without_secrets(message)
        self.reason: str = self.message
        """The message without what was added to it, such as what to do now that nothing is tried any more."""
        super().__init__(self.message)
        self.elsewhere: bool = False
        """It was another process that failed, after its own retries; this one only followed."""
        if code is not None:
            self.code = code

    def add(self, sentence: str) -> None:
        """Say more in the message."""
        self.message = without_secrets(f"{self.message}{sentence}")
        self.args: tuple[object, ...] = (self.message,)


class UsageError(HoldfastError, ValueError):
    """An argument, or a combination of arguments, makes no sense. Raised before anything is sent."""

    code = "usage"
    verdict = "not tried again: the arguments have to change first"


class SourceUnreadable(HoldfastError):
    """The file to send is not there, is not a regular file, or cannot be read."""

    code = "source-unreadable"
    verdict = "not tried again: the file has to be readable first"


class SourceChanged(HoldfastError):
    """The file to send got another size or modification time while it was being sent. Nothing was completed."""

    code = "source-changed"
    verdict = "not tried again: whoever writes to the file has to end first"


class TargetUnwritable(HoldfastError):
    """The file to receive into cannot be created or written: no right, no folder, no room."""

    code = "target-unwritable"
    verdict = "not tried again: it needs room and rights to write there first"


class TargetExists(HoldfastError):
    """The file to receive into is there already and replacing it was not asked for."""

    code = "target-exists"
    verdict = "not tried again: it needs another name, or leave to replace the file"


class TransferBusy(HoldfastError):
    """Another process, or another transfer of this process, is at the same transfer."""

    code = "transfer-busy"
    verdict = "not tried again: somebody else is at it"

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        """What the journal knows it by, if it is another process that is at it."""


class TransferCancelled(HoldfastError):
    """The transfer was cancelled. What was done is kept; the same call goes on from there."""

    code = "cancelled"
    verdict = "not tried again: somebody wanted it to stop"


class VerificationFailed(HoldfastError):
    """The bytes do not have the digest that they must have. The bad copy is not used again."""

    code = "verification-failed"
    verdict = "not tried again: the same bytes would fail again"


class BrokenProtocol(HoldfastError):
    """An answer does not follow the protocol, so that nothing can be concluded from it."""

    code = "broken-protocol"
    verdict = "not tried again: the server has to be mended first"


class ServerUntrusted(HoldfastError):
    """The certificate of the server is of nobody who is trusted here, of another host, or not valid now."""

    code = "server-untrusted"
    verdict = "not tried again: it needs another certificate, or an authority that is trusted here"


class ConnectionFailed(HoldfastError):
    """No connection could be made, or it broke before the answer was complete."""

    code = "connection-failed"
    retryable = True
    verdict = "worth trying again: the network or the server may come back"


class Stalled(ConnectionFailed):
    """No bytes went either way for longer than the stall timeout, or no answer came in time."""

    code = "stalled"


class ServerRefused(HoldfastError):
    """The server answered that it will not do this. `status` is the HTTP status, `code` the server's code."""

    code = "refused"
    verdict = "not tried again: the server would say the same again"

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status


class NotAuthorized(ServerRefused):
    """401 or 403: credentials are missing, wrong or not enough."""

    code = "not-authorized"
    verdict = "not tried again: it needs other credentials first"


class UploadGone(ServerRefused):
    """404 or 410: there is nothing at this URL (any more)."""

    code = "not-found"
    verdict = "not tried again: nothing is there any more"


class ServerFull(ServerRefused):
    """507: there is no room on the server for this."""

    code = "insufficient-storage"
    verdict = "not tried again: somebody has to make room on the server first"


class ServerUnavailable(ServerRefused):
    """408, 425, 429 or another 5xx, and it did not get better within the attempts that were allowed."""

    code = "unavailable"
    retryable = True
    verdict = "worth trying again: the server may have time for it later"
