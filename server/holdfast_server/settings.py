"""What can be set. Values come from flags, the environment and a TOML file; `cli.py` puts them together.

Rule of this file: a setting is a field of `Settings`, with its default, its unit and its meaning, and nothing reads
the environment anywhere else.
"""

from dataclasses import dataclass
from pathlib import Path

from holdfast_server.storage.local import Durability

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the server anybody may take. A client is an address, of IPv6 a network of 64 bits; what is told of
    clients and connections, each worker process counts for itself. Sizes in bytes, times in seconds, rates a second;
    None: no limit.
    """

    max_connections: int | None = 10_000
    """Connections at once; the last eighth of them is kept for clients that have few."""
    client_connections: int | None = 1_000
    """Connections of one client at once."""
    client_requests: float | None = None
    """Requests of one client a second; what it has not used in the last seconds it may use at once."""
    client_rate: int | None = None
    """Bytes a second that one client may send and fetch, over all of its connections."""
    max_head: int = 128 * KIB
    """Bytes of the head of a request, and of what follows a body (H-HEAD-1)."""
    max_metadata: int = 16 * KIB
    """Bytes of `Upload-Metadata`, as it came."""
    min_speed: int = 128
    """A request that sends or fetches fewer bytes a second, over 30 seconds of waiting for its client (or the stall
    timeout, if that is shorter), is ended."""
    max_request_time: float | None = 86400.0
    """One request that sends or fetches for longer is ended; what it brought is kept, and it can be resumed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes in bytes, times in seconds."""

    data: Path
    """The folder that holds everything: bytes on their way, complete files, the catalog."""
    durability: Durability = "ack"
    """`ack`: every acknowledged byte is on the disk; `finish`: completed files are; `os`: never asked for."""
    max_size: int | None = None
    """The largest upload; None: any that fits."""
    max_chunk: int = 64 * MIB
    """The largest chunk of the parallel dialect."""
    overcommit: bool = False
    """Accept uploads that are larger than the free room, as sparse files may be."""
    min_free: int = 16 * MIB
    """Room that uploads never take, so that the catalog can always record what was stored."""
    expire_after: float | None = 7 * 86400.0
    """An unfinished upload that nobody has touched for so long is removed; None: never."""
    expire_finished: float | None = None
    """A complete file is removed after so long; None: never."""
    stall_timeout: float = 60.0
    """A request of which no byte has come for so long is ended; what it brought is kept. Under `holdfast serve` also
    how long the head of a request may take (H-HEAD-2)."""
    grace: float = 3.0
    """At SIGTERM, how long requests in flight may go on."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may speak to this server (`https://example.org`), or `*` for all; none if empty."""
    public_url: str | None = None
    """Where clients reach this server, without a slash at the end (`https://files.example.org`); the path of an upload
    follows it in `Location`. None: `Location` is the path alone."""
    patience: float = 10.0
    """How long a completing request waits for the verification before it is answered 202."""
    limits: Limits = Limits()
