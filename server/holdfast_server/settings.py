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
    """How much of the server anybody may take, over all worker processes together. A client is an address, of IPv6 a
    network of 64 bits. Sizes in bytes, times in seconds, rates a second;
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
    max_uploads: int | None = 100_000
    """Uploads at once that are not finished, in all."""
    max_stored: int | None = None
    """Bytes of all uploads together, those included that are still to come."""
    owner_uploads: int | None = None
    """Uploads of one owner at once that are not finished."""
    owner_stored: int | None = None
    """Bytes of all uploads of one owner, those included that are still to come."""
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
    allowed_hosts: tuple[str, ...] = ()
    """Names, without ports, by which this server may be asked where nobody has to say who he is, besides addresses,
    `localhost`, and the host of `public_url`; `*` for all (`http/hosts.py`)."""
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
    tokens: Path | None = None
    """A file with hashes of tokens, as `holdfast token` writes it (`auth/tokens.py`)."""
    jwt_keys: str | None = None
    """A file with a JWK set, or its address; with it `jwt_issuer` and `jwt_audience` have to be said."""
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA", "Ed25519")
    """The only ones that are taken."""
    signing_key: Path | None = None
    """A file with the keys of signed URLs, one a line; the first one signs (`auth/signing.py`)."""
    authority: str | None = None
    """`package.module:name` of a callable that finds the principal of a request (`auth/authority.py`)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-` fields are believed; `unix` for whoever comes over a Unix socket."""
    patience: float = 10.0
    """How long a completing request waits for the verification before it is answered 202."""
    limits: Limits = Limits()
    allow_extensions: tuple[str, ...] = ()
    """Extensions of the files that are taken, in lower case and without the dot; all if empty."""
    allow_types: tuple[str, ...] = ()
    """Media types of the files that are taken, as `image/png` or `image/*`: by their names and by their first bytes;
    all if empty."""
    inline_types: tuple[str, ...] = ()
    """Media types, as those above, of files that a browser may show and not only save."""
