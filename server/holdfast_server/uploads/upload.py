"""An upload as the catalog knows it.

Rule of this file: an `Upload` is a snapshot. It is never changed; a change goes through the catalog, which answers
with a new one.
"""

from enum import StrEnum

from msgspec import Struct

from holdfast_protocol import server as rules
from holdfast_protocol.digest import Digest


class State(StrEnum):
    """Where an upload is in its life. `receiving -> verifying -> complete` is the way of a good one."""

    RECEIVING = "receiving"
    VERIFYING = "verifying"
    """All bytes are stored; digests are being checked, or the file is being published."""
    COMPLETE = "complete"
    FAILED = "failed"
    EXPIRED = "expired"
    TERMINATED = "terminated"


class Upload(Struct, frozen=True):
    """One file on its way or complete. Sizes are in bytes, times in seconds since the epoch."""

    id: str
    """32 lower-case hexadecimal digits."""
    state: State
    length: int | None
    """None while it is not known (T-DEFER-1)."""
    parallel: bool
    """Created for parallel chunks: it is completed by request, not by its last byte."""
    granule: int
    metadata: str | None
    """`Upload-Metadata`, byte for byte as the client sent it."""
    name: str
    """The file's name, made safe for a file system; not empty."""
    created: float
    updated: float
    expires: float | None
    """When it is removed if it is not finished by then; None: never."""
    expected: tuple[Digest, ...] = ()
    """Digests of the whole file that the client has given."""
    wanted: str | None = None
    """The algorithm that the client has said it will ask for at the end."""
    computed: tuple[Digest, ...] = ()
    """Digests of the whole file that the server has computed."""
    prefix: int = 0
    """Contiguous bytes stored from offset 0."""
    received: int = 0
    """Bytes stored in all."""
    error: str | None = None
    """The problem code, if it has failed."""
    error_detail: str | None = None
    concat: str | None = None
    """`Upload-Concat`, byte for byte as the client sent it."""
    owner: str | None = None
    """Whose it is; None: it was made where nobody has to say who he is."""
    project: str | None = None
    """The project that shares it; None: it is its owner's alone."""
    errors: int = 0
    """Requests to it that failed once their body had begun."""
    retries: int = 0
    """How many of these were tried again."""

    @property
    def whole(self) -> bool:
        """Every byte is stored."""
        return self.received == self.length

    @property
    def partial(self) -> bool:
        """A part, which is only there to be put together with others."""
        return rules.is_part(self)

    @property
    def final(self) -> bool:
        """Put together from parts."""
        return rules.is_final(self)

    @property
    def reach(self) -> int:
        """No byte lies here or behind: the length or, while that is not known, the longest upload of all."""
        return rules.LONGEST if self.length is None else self.length
