"""The bytes of a request, as the domain wants to have them. `http` makes one out of an ASGI request, in two ways.

Rule of this file: whoever writes asks for bytes when it can write them, in the thread in which it writes. So they may
come straight out of a socket, into memory that is used again for the next ones.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol

from holdfast_protocol.messages import Headers

SLICE: Final = 16 * 1024 * 1024
"""Bytes that are written in one go before the event loop is asked again."""


class Ending(Enum):
    """How the bytes of a request came to an end."""

    WHOLE = "whole"
    CUT = "cut"
    """The connection went away before the end; nobody is there to be answered."""
    STALLED = "stalled"
    """Nothing came for too long."""
    STOPPED = "stopped"
    """`stop` was called."""


class Incoming(Protocol):
    """Bytes that arrive. Some MiB of them wait, here or in the kernel, so that none is lost when the connection is.

    `wait` and `read` take turns: neither is called while the other one runs.
    """

    @property
    def ending(self) -> Ending | None:
        """None while more may come."""
        ...

    @property
    def trailers(self) -> Headers:
        """The fields that came behind the bytes; none before the ending is `WHOLE`, or if they cannot be read."""
        ...

    @property
    def gone(self) -> bool:
        """Nobody is there to be answered any more, as far as that can be told. Bytes may still be there to be read."""
        ...

    async def wait(self, patience: float | None = None) -> bool | None:
        """True when it is time to `read`, False at the end (`ending` says which).

        None if nothing came within `patience` seconds, or `nudge` was called and there is nothing.
        """
        ...

    def read(self, most: int) -> Sequence[memoryview | bytes]:
        """What has arrived, at most `most` bytes; empty if there is nothing more now, also at the end.

        To be called in a thread: it may take some milliseconds. What it gives is valid until it is called again.
        """
        ...

    def nudge(self) -> None:
        """Has whoever waits or reads come back at once."""
        ...

    def stop(self) -> None:
        """Takes in no more: what has arrived is still there to be read, and then comes the end."""
        ...
