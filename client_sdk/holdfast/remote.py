"""A file at a server, as a download sees it: which version is there, and the bytes of a range of that version.

    Remote    a place where the file is: http_remote.py, ftp.py
    Version   what is there now
    Answer    bytes of it that are on their way

Rule of this file: a download knows no protocol. Whoever has a file says what it can promise: with `pin` a range that is
asked for later is of the same version, or there is OtherVersion instead of bytes.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from holdfast._wire import Sink
from holdfast.limiter import Limiter
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

Wanted = Callable[[], int]
"""How many bytes may come now; 0: no more."""


class Version(Struct, frozen=True):
    """One version of a file, as its server describes it."""

    size: int | None
    """Bytes; None if that is known only when all have come."""
    pin: str | None
    """What a range is pinned to this version by: a strong validator. None: there is none, or there are no ranges."""
    digests: tuple[Digest, ...] = ()
    name: str = "download"
    """Safe as a file name."""
    coded: bool = False
    """It comes in a content coding, which is taken off on the way."""


class Since(Struct, frozen=True):
    """What an earlier call has left: the first range that is missing, of the version with that pin."""

    span: Span
    pin: str


class OtherVersion(Exception):  # noqa: N818 - it is no error yet
    """The server has another version now, or gives no ranges of this one any more."""


class Answer(Protocol):
    """Bytes from `start` on that are on their way. They stop when its context is left."""

    version: Version
    start: int

    def carry(self, sink: Sink, wanted: Wanted) -> AsyncIterator[int]:
        """Bring bytes to `sink`, at their offset from `start`; gives how many it were each time.

        Ends with what was asked for, with the file, or when no more are wanted. Raises ConnectionFailed after what came
        before a connection broke, and what `sink` raises.
        """
        ...


class Remote(Protocol):
    """A file at one server."""

    url: str
    """Without user name and password."""
    limiter: Limiter

    def first(self, since: Since | None = None) -> AbstractAsyncContextManager[Answer]:
        """All of the file, or, if it is still that version, what is missing first; and what version it is.

        Raises ConnectionFailed, Refusal, or another HoldfastError.
        """
        ...

    def range(self, version: Version, span: Span) -> AbstractAsyncContextManager[Answer]:
        """A range of a version that has a pin. Raises OtherVersion, and as `first`."""
        ...

    async def beside(self, suffix: str) -> bytes | None:
        """A small file (at most 64 KiB) beside this one, whose name is this one's with a suffix; None if there is none.

        Raises nothing: who cannot be asked has none.
        """
        ...

    async def settle(self, version: Version) -> None:
        """After the last byte: that it is still this version, where ranges cannot say so. Raises as `range`."""
        ...


def same_file(one: Version, other: Version) -> bool:
    """Two servers have the same file: the same length, an ETag or a digest in common, and no digest that differs."""
    mine = {digest.algorithm: digest for digest in one.digests}
    common = [(mine[each.algorithm], each) for each in other.digests if each.algorithm in mine]
    if one.size is None or one.size != other.size or any(a != b for a, b in common):
        return False
    return bool(common) or (one.pin is not None and one.pin.startswith('"') and one.pin == other.pin)
