"""What goes out as the body of a request: pieces in memory, or parts of a file that the kernel sends.

Rule of this file: bodies go from where they are straight into the socket, if the connection is one of _wire.py, and a
file that gives no more is the source's to explain (SourceChanged, SourceUnreadable), not an error of the connection.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

from anyio import to_thread
from msgspec import Struct

from holdfast._wire import WRITTEN, Sent, UnreadableError
from holdfast.errors import ConnectionFailed
from holdfast.limiter import Limiter
from holdfast.rates import Share
from holdfast.sources import Source
from holdfast_protocol.messages import Span

PIECE: Final = 256 * 1024
LARGEST_PIECE: Final = 8 * 1024 * 1024
"""Bytes handed to the connection at once, and what that grows to where a piece is gone in no time."""
NO_TIME: Final = 0.02
"""Seconds; four times as many are too much."""
FILE_PIECE: Final = 1024 * 1024
"""Bytes that are read of a file at once where the kernel cannot send from it: TLS, a proxy."""


class Stored(Struct, frozen=True):
    """Bytes of a body that are still in a file: `span` of `source`, which has this `descriptor`."""

    source: Source
    descriptor: int
    span: Span

    def __len__(self) -> int:
        return self.span.length


class Body(Struct, frozen=True):
    """The bytes of a request: `pieces()` gives them anew for each sending, `length` bytes in all."""

    length: int
    pieces: Callable[[], AsyncIterator[bytes | bytearray | memoryview | Stored]]


async def outgoing(
    body: Body, sent: Callable[[int], None] | None, share: Share | None, limiter: Limiter, stall: float
) -> AsyncIterator[bytes]:
    """The bytes of a body for httpx, or notes of what went into the connection past it. `sent` is told of each piece
    before it goes; `share` and `limiter` hold it to a rate. `stall`: seconds without a byte that moves.

    Raises SourceChanged, SourceUnreadable, and ConnectionFailed if a file could not be sent for once.
    """
    wire = WRITTEN.get()
    async for part in _parts(body, by_kernel=wire is not None and wire.plain):
        start = 0
        while start < len(part):
            size = min(len(part) - start, (share and share.slice) or limiter.piece or PIECE)
            if share is not None:
                await limiter.held_to(share, size)
            if wire is not None:
                wire.heed()
            # Counted before it goes: a failure in the middle must not make bytes on the wire look unsent.
            if sent is not None:
                sent(size)
            began = limiter.clock.monotonic()
            if wire is None:
                assert isinstance(part, memoryview)
                yield part[start : start + size]  # type: ignore[misc]  # h11 takes a view, and copies it once
            else:
                if isinstance(part, Stored):
                    try:
                        await wire.send_file(part.descriptor, part.span.start + start, size, stall)
                    except UnreadableError as error:
                        await to_thread.run_sync(_find_fault, part)
                        raise ConnectionFailed(f"the request was broken off: {error}") from error
                else:
                    await wire.send(part[start : start + size], stall)
                yield Sent(size)
            start += size
            if (took := limiter.clock.monotonic() - began) < NO_TIME:
                limiter.piece = min(2 * size, LARGEST_PIECE)
            elif took > 4 * NO_TIME:
                limiter.piece = PIECE


def _find_fault(part: Stored) -> None:
    """Read what could not be sent, for the source to say why. Raises SourceChanged or SourceUnreadable."""
    part.source.check()
    piece = memoryview(bytearray(min(FILE_PIECE, len(part))))
    for at in range(part.span.start, part.span.end, FILE_PIECE):
        part.source.read_into(at, piece[: part.span.end - at])


async def _parts(body: Body, *, by_kernel: bool) -> AsyncIterator[memoryview | Stored]:
    """What a body consists of. What is in a file is read, piece by piece, if the kernel cannot send it from there."""
    async for part in body.pieces():
        if not isinstance(part, Stored):
            yield memoryview(part)
        elif by_kernel:
            yield part
        else:
            memory = memoryview(bytearray(min(FILE_PIECE, len(part))))
            for at in range(part.span.start, part.span.end, FILE_PIECE):
                piece = memory[: part.span.end - at]
                await to_thread.run_sync(part.source.read_into, at, piece)
                yield piece
