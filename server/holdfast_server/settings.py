"""What can be set. Values come from flags, the environment and a TOML file; `cli.py` puts them together.

Rule of this file: a setting is a field of `Settings`, with its default, its unit and its meaning, and nothing reads
the environment anywhere else.
"""

from dataclasses import dataclass
from pathlib import Path

from holdfast_server.storage.local import Durability

MIB = 1024 * 1024


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
    progress_rate: float = 4.0
    """Progress frames a second that a subscriber gets of one upload, at most."""
    ping_interval: float = 25.0
    """Those who watch hear something at least so often."""
    history_samples: int = 100
    """Samples of progress that are kept of one upload, at most."""
    history_keep: float = 86400.0
    """How long they are kept."""
    log_keep: float = 7 * 86400.0
    """How long events are kept in the log: a client that was away for longer cannot recover what it missed."""
    log_events: int = 1_000_000
    """How many of them are kept, at most."""
    patience: float = 10.0
    """How long a completing request waits for the verification before it is answered 202."""
