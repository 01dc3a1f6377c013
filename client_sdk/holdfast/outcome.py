"""What a transfer comes to: results, and errors made from what a server answered.

Rule of this file: each refusal of a server becomes one error of errors.py, whose sentence names the URL, what the
server said, and what to do about it.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from holdfast.errors import (
    BrokenProtocol,
    HoldfastError,
    NotAuthorized,
    ServerFull,
    ServerRefused,
    ServerUnavailable,
    UploadGone,
)
from holdfast_protocol.client import Reaction, Refusal, ViolationError
from holdfast_protocol.digest import Digest
from holdfast_protocol.problem import KINDS

AnyError = TypeVar("AnyError", bound=HoldfastError)


class UploadResult(Struct, frozen=True):
    """A complete upload. Sizes in bytes, `seconds` from the start of this call."""

    url: str
    """Where the file is: GET downloads it from a Holdfast server."""
    path: Path | None
    """The file that was sent; None if it was no path that was given."""
    size: int
    digest: Digest
    """Of the whole file; the server verified it if it speaks the parallel dialect."""
    seconds: float
    bytes_sent: int
    """Content put on the wire for this upload, by this and earlier calls."""
    bytes_resent: int
    """The part of `bytes_sent` that was sent more than once."""
    bytes_resumed: int
    """What the server already had when this call began."""
    retries: int
    chunks: int
    """Requests with content that were accepted in this call."""
    concurrency: int
    protocol: str
    """`parallel`, `tus` or `ietf`."""
    bytes_sparse: int = 0
    """Holes of the file of which the server was told in this call; they count in `size` and were not sent."""
    already_there: bool = False
    """The upload was complete before this call; nothing was sent."""


class DownloadResult(Struct, frozen=True):
    """A complete download. Sizes in bytes, `seconds` from the start of this call."""

    url: str
    path: Path
    size: int
    digest: Digest | None
    """The digest that was verified, None if neither the server nor the caller gave one."""
    seconds: float
    bytes_received: int
    bytes_resumed: int
    retries: int
    segments: int
    concurrency: int


def from_refusal(refusal: Refusal, url: str, *, sending: bool = False) -> ServerRefused:
    """The error for an answer that ends a transfer; `sending` if it is an upload."""
    phrase = next((each.phrase for each in HTTPStatus if each == refusal.status), "without saying why")
    said = refusal.detail.rstrip(".") or phrase
    code = refusal.code
    match refusal.status:
        case 401 | 403:
            return NotAuthorized(
                f"{url} refuses us ({refusal.status}: {said}){_credential_to_give(refusal, url)}",
                status=refusal.status,
                code=code,
            )
        case 404 | 410:
            return UploadGone(
                f"there is nothing at {url} ({refusal.status}: {said}); check the URL{_of_whom(refusal)}",
                status=refusal.status,
                code=code or "not-found",
            )
        case 405:
            return ServerRefused(
                f"{url} does not do this ({refusal.status}: {said}); check the URL{_OF_UPLOADS if sending else ''}",
                status=refusal.status,
                code=code,
            )
        case 507:
            return ServerFull(
                f"{url} has no room for it ({refusal.status}: {said}); free some there",
                status=refusal.status,
                code=code,
            )
    if refusal.reaction is Reaction.RETRY or refusal.status >= 500:
        return ServerUnavailable(
            f"{url} does not take it now ({refusal.status}: {said}{_from_between(refusal)})",
            status=refusal.status,
            code=code,
        )
    return ServerRefused(f"{url} refused ({refusal.status}): {said}", status=refusal.status, code=code)


def _credential_to_give(refusal: Refusal, url: str) -> str:
    """What to do about it, where the server's own words do not say it."""
    if refusal.status == 403 and refusal.code in KINDS:
        return ""  # who it is is known, and what he may not do is said
    if "signature=" in urlsplit(url).query:
        return "" if refusal.code == "unauthenticated" else "; ask for a new URL where this one is from"
    return "; give a token in HOLDFAST_TOKEN, a name and a password in ~/.netrc, or the header Authorization"


_OF_UPLOADS: Final = (
    ", which ends in /files at a Holdfast server, and whether something in between lets no PATCH through"
    " (--override-method)"
)


def _from_between(refusal: Refusal) -> str:
    """Who it is that answers, where it is not the server."""
    return ", says a proxy before the server" if refusal.status in (502, 504) and refusal.code is None else ""


def _of_whom(refusal: Refusal) -> str:
    """A server of ours says the same of what is another owner's."""
    return ", and that it is of the owner of the credential" if refusal.code == "not-found" else ""


def from_violation(error: ViolationError, url: str) -> BrokenProtocol:
    """The error for an answer that does not follow the protocol."""
    return BrokenProtocol(f"{url}: {error}")


def gave_up(error: AnyError, attempts: int, keeps: str) -> AnyError:
    """The same error, with a sentence about the attempts. `keeps` says what can be done with what is there."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    error.add(f"; gave up after {times} without progress. {keeps}")
    return error
