"""The bytes of a request, as the domain wants to have them. `http.body` makes one out of an ASGI request."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from holdfast_protocol.messages import Headers


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
    """Bytes that arrive. They are read ahead, up to a bound, so that none is lost when the connection is."""

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
        """Nobody is there to be answered any more, as far as that can be told. Bytes may still be there to be taken."""
        ...

    async def take(self, patience: float | None = None) -> Sequence[bytes] | None:
        """Everything that has arrived, at most some MiB; empty at the end (`ending` says which).

        None if nothing came within `patience` seconds, or `nudge` was called.
        """
        ...

    def nudge(self) -> None:
        """Has the `take` that waits return None."""
        ...

    def stop(self) -> None:
        """Reads no further: `take` still gives what has arrived, and then the end."""
        ...
