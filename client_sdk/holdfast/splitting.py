"""How a file is cut into parts for a server that puts parts together.

Rule of this file: small files are never split, and a cut that was made is kept: an upload that goes on later has the
parts that it had.
"""

from typing import Final

from msgspec import Struct

from holdfast.planner import MIB
from holdfast_protocol.messages import Span

SMALLEST: Final = 32 * MIB
"""Bytes of a part, at least: below that the requests around it cost more than the second connection brings."""
MOST: Final = 32
"""Parts of a file. Their URLs stand in one header field, and servers take 8 KiB of that."""


class Part(Struct, frozen=True):
    """A run of the file's bytes, and the upload of it if there is one."""

    span: Span
    url: str = ""
    expires: float | None = None
    """When the server will have removed it, seconds since the epoch; None if it did not say so."""


def split(size: int, connections: int | None, *, near: bool = False) -> tuple[Part, ...]:
    """The parts of a file of `size` bytes; none if it is not worth it.

    2 to 32 parts of 32 MiB and more, as many as there can be, so that there are more of them than connections. None to
    a server that is near, unless a number of `connections` is given: there one carries all that there is, and to put
    parts together costs the server a copy and the room for it.
    """
    number = min(size // SMALLEST, MOST)
    if number < 2 or connections == 1 or (connections is None and near):
        return ()
    return tuple(Part(Span(size * at // number, size * (at + 1) // number)) for at in range(number))
