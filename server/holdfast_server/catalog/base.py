"""The port of the catalog, and what can go wrong behind it.

    CatalogError
      Duplicate          an upload with this id is there already
      UnknownUpload      there is no upload with this id
      NoRoom             what is still to come would not fit
      Spent              a grant has made as many uploads as it may
        OverQuota        it would be more than an owner, or all together, may have
      NotReceiving       the upload takes no bytes (any more)
      WrongState         the upload is not in a state from which this change leads
      Unavailable        the store did not answer in time; the same call may work later
      Incompatible       the store was made by a newer version, or is no catalog
    OSError              the disk failed: ENOSPC when it is full, EIO, EROFS

Rule of this file: nothing here knows how a catalog stores. Sizes and offsets are in bytes, ranges are
half-open `(start, end)`, times are seconds since the epoch and are always given by the caller.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from holdfast_protocol.digest import Digest
from holdfast_server.uploads.upload import State, Upload

Durability: TypeAlias = Literal["ack", "finish", "os"]
"""What is on the disk, not only with the operating system, when a call returns: `ack` everything, `finish`
the completion of an upload (and so all before it), `os` nothing is asked for."""

Uploads: TypeAlias = list[Upload]
Ranges: TypeAlias = list[tuple[int, int]]

TOMBSTONES: Final = frozenset({State.EXPIRED, State.TERMINATED})
"""States of an upload whose bytes are gone. It is remembered until `purge`."""


class CatalogError(Exception):
    """The catalog could not do what was asked, and has changed nothing."""


class Duplicate(CatalogError):  # noqa: N818 - the name is the sentence
    """There is an upload with this id already."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"there is an upload {upload_id} already")
        self.upload_id = upload_id


class UnknownUpload(CatalogError):  # noqa: N818
    """There is no upload with this id, not even a tombstone."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"there is no upload {upload_id}")
        self.upload_id = upload_id


class NoRoom(CatalogError):  # noqa: N818
    """The new upload, and what all others still have coming, would take more than the room given.

    `needed` is the length of the new upload; `free` (0 or more) is what would fit. Both in bytes.
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed} bytes are needed and {free} are free")
        self.needed = needed
        self.free = free


class Asked(CatalogError):  # noqa: N818
    """There is an upload already that was asked for by the same key: `upload`."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(f"upload {upload.id} was asked for by that key")
        self.upload = upload


class Spent(CatalogError):  # noqa: N818
    """The grant has made as many uploads as it may. `empty` is the oldest of them that has received nothing yet and
    still may; None if there is none."""

    def __init__(self, empty: str | None) -> None:
        super().__init__("the grant is spent")
        self.empty = empty


class OverQuota(NoRoom):
    """There would be more uploads at once, or more bytes, than all together or those of `owner` may come to.

    `limit` is the quota, `used` what there is of it, `needed` what would be added.
    """

    def __init__(
        self, what: Literal["uploads", "bytes"], owner: str | None, limit: int, used: int, needed: int
    ) -> None:
        super().__init__(needed, max(0, limit - used))
        self.what = what
        self.owner = owner
        self.limit = limit
        self.used = used


class NotReceiving(CatalogError):  # noqa: N818
    """The upload is not in the state `receiving`. `upload` is what it is instead; None: it never was here."""

    def __init__(self, upload: Upload | None) -> None:
        super().__init__("there is no such upload" if upload is None else f"the upload is {upload.state}")
        self.upload = upload


class WrongState(CatalogError):  # noqa: N818
    """The upload is in none of the states that were named. `upload` is what it is; None: it never was
    here."""

    def __init__(self, upload: Upload | None) -> None:
        super().__init__("there is no such upload" if upload is None else f"the upload is {upload.state}")
        self.upload = upload


class Unavailable(CatalogError):  # noqa: N818
    """The store is held by somebody else, or cannot be reached; the same call may work later."""


class Incompatible(CatalogError):  # noqa: N818
    """This store cannot be used by this version. The message says why and what to do."""


class Quota(Struct, frozen=True):
    """What there may be at once; None: any number. Uploads count until they are complete or removed, bytes from the
    moment at which they are announced until they are removed."""

    uploads: int | None = None
    stored: int | None = None
    owner_uploads: int | None = None
    owner_stored: int | None = None


UNBOUNDED: Final = Quota()


class Whose(NamedTuple):
    """What of an upload says who sees it. Never changes."""

    id: str
    owner: str | None
    project: str | None


class Event(Struct, frozen=True):
    """One line of the event log: a fact about an upload.

    Every change of state is one; an upload that came in one piece, when it was made, was never `verifying`. The data
    are what the upload is from then on: `state`, `previous` (the state before, None for `created`), `name`, `length`,
    `received`, `prefix`, `created`, `errors`, `retries`, and `error` and `error_detail` if there is an error.
    """

    seq: int
    """Ascends strictly, from 1, in the order of commits over all processes. Numbers may be left out."""
    upload: str
    type: str
    at: float
    data: Mapping[str, Any]
    owner: str | None
    project: str | None


class Log(Struct, frozen=True):
    """The log of events: which one it is, and what of it is there."""

    epoch: str
    """Hexadecimal digits, at random, for as long as there is this log."""
    floor: int
    """Events up to this number were trimmed; 0 if none was."""
    head: int
    """As `event_head`."""


class Watched(Struct, frozen=True):
    """Of which uploads something is wanted: these, those of these owners and projects, or all."""

    uploads: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    all: bool = False


class Sample(Struct, frozen=True):
    """How far an upload was at a moment."""

    upload: str
    at: float
    state: State
    step: str | None
    received: int
    arriving: int
    """Bytes that were on their way to be stored."""
    speed: float | None
    """Bytes a second; None: nothing moved."""
    errors: int
    retries: int


class Tally(Struct, frozen=True):
    """How many uploads are in a state, and their bytes; an unknown length counts nothing."""

    state: State
    uploads: int
    received: int
    length: int


class Use(Struct, frozen=True):
    """An upload is made by a grant: the one of that name, which may make `most`, and is of no use after `until`."""

    grant: str
    most: int
    until: float


class Fence(Struct, frozen=True):
    """A request to whoever writes to `[start, end)` of an upload to stop. Numbered apart from the events."""

    seq: int
    upload: str
    start: int
    end: int


class Standing(Struct, frozen=True):
    """See `Catalog.standing`."""

    upload: Upload | None
    fence: int
    """As `fence_head`."""
    stored: tuple[int, int] | None
    """The first stored range that has bytes in the range that was asked for, clipped to it."""


class Catalog(Protocol):
    """Where uploads are written down. Safe for any number of tasks, and of processes that have opened the
    same one.

    A call that changes something returns when the change is committed as `Durability` says, or raises and has
    changed nothing. One that is cancelled while it waits may still take effect. Reading never waits for a
    writer, and sees what this process has been told is committed. No call makes the event loop wait for a writer or
    for a sync; a lookup of one row may read it from the disk there.
    Any call may raise OSError, `Unavailable`, or `anyio.ClosedResourceError` after `aclose`.
    """

    async def create(
        self,
        upload: Upload,
        *,
        room: int | None,
        parts: Sequence[str] = (),
        use: Use | None = None,
        asked: str | None = None,
    ) -> None:
        """Add an upload (with nothing stored yet: `prefix` and `received` are 0) and the event `created`.

        One that came in one piece may be added when it is complete: with all of its bytes, and the event `complete`
        too.

        `parts` are the ids of those that a final upload is put together from, in order; one may be there twice.

        `room` is how many bytes there are for it and for all that the receiving uploads still have coming;
        this is counted in the same transaction (T-CREATE-2). None: it is not counted. One of length 0 always
        fits, and so does one whose length is not known.

        `use` is the grant that it is made by; the uploads that it has made are counted in the same transaction, but for
        those that were removed without having received a byte. Raises Spent if it is one too many.

        `asked` is the key that it is asked for by. Raises Asked, and adds nothing, if there is an upload that was asked
        for by it, and that has not failed, expired or been removed (K-KEY-1).

        Raises NoRoom, OverQuota, Duplicate; ValueError if the upload claims to have bytes and is not complete.
        """
        ...

    async def used(self, grant: str) -> int:
        """How many uploads a grant has made for good: without those that have received nothing and still may, or were
        removed so."""
        ...

    async def release(self, upload_id: str) -> None:
        """Forget by which grant an upload was made, so that it may make another one."""
        ...

    async def set_length(
        self, upload_id: str, length: int, granule: int, *, room: int | None, now: float, expires: float | None
    ) -> Upload:
        """Write down how long an upload is, if that is not known yet; `room` as in `create`, for what is missing.

        Raises NoRoom, OverQuota, NotReceiving; ValueError if the length is known as another one, or bytes lie beyond
        it.
        """
        ...

    async def parts(self, upload_id: str) -> Uploads:
        """The parts of a final upload, in its order, as they are at this moment."""
        ...

    async def finals(self, part_id: str) -> Sequence[str]:
        """The ids of the receiving uploads that this is a part of."""
        ...

    async def usage(self, owner: str | None) -> tuple[int, int]:
        """How many uploads of an owner are not finished, and how many bytes all of his come to, those included that
        are still coming. None: of all owners together."""
        ...

    async def left(self, owner: str | None) -> int | None:
        """How many bytes more the quota allows an owner at this moment; None: any number."""
        ...

    async def coming(self) -> int:
        """How many bytes all receiving uploads of a known length still have coming."""
        ...

    async def get(self, upload_id: str, /) -> Upload | None:
        """The upload as it is at this moment, tombstones too; None if there is none."""
        ...

    async def whose(self, upload_id: str, /) -> Whose | None:
        """Of an upload that `get` finds; None if there is none. Both take as long (A-OWNER-1)."""
        ...

    async def list(
        self,
        *,
        state: State | None = None,
        before: tuple[float, str] | None = None,
        limit: int,
        owner: str | None = None,
        projects: Sequence[str] | None = None,
    ) -> Uploads:
        """At most `limit` uploads, newest first.

        With `state` those in that state, without it all but tombstones. `before` is `(created, id)` of the
        last one of the page before. With `owner` or `projects` those that are of this owner or in one of these
        projects; this reads no more than `limit` uploads for each of them, whatever others have.
        """
        ...

    async def stored(self, upload_id: str, start: int, end: int, limit: int) -> Ranges:
        """The first `limit` stored ranges in `[start, end)`, clipped to it, ascending, disjoint, not touching.

        Empty for an upload that is not here, or whose bytes are gone.
        """
        ...

    async def missing(self, upload_id: str, start: int, end: int, limit: int) -> tuple[Ranges, bool]:
        """The first `limit` gaps in `[start, end)`, clipped to it and to a known length, and whether there are more.

        Reads `limit` ranges and not more, whatever their number. Raises UnknownUpload.
        """
        ...

    async def commit(
        self,
        upload_id: str,
        ranges: Sequence[tuple[int, int]],
        *,
        now: float,
        expires: float | None,
        verify: bool = False,
        computed: tuple[Digest, ...] | None = None,
    ) -> Upload:
        """Write down that these ranges are stored; all of them or, if this raises, none.

        They may overlap each other and what is stored already; only bytes that are new count. No ranges at
        all just set `updated` and `expires`. With `verify` the upload becomes `verifying` in the same transaction,
        with the event of that name, if every byte is stored then. `computed` is set unless None.

        Raises NotReceiving; OverQuota if the length is not known; ValueError if a range is reversed or not within the
        length.
        """
        ...

    async def finish(self, upload: Upload, *, now: float, expires: float | None) -> Upload:
        """Write down that all bytes of an upload that had none have come at once, and that it is `complete`, with the
        events `verifying` and `complete`, in one. Its file must be published; `upload` is what was verified,
        `computed` with it.

        Raises NotReceiving, also if the upload has bytes or is not the one that was verified.
        """
        ...

    async def transition(
        self,
        upload_id: str,
        *,
        sources: Collection[State],
        to: State,
        now: float,
        expires: float | None,
        event: str,
        error: str | None = None,
        error_detail: str | None = None,
        expected: tuple[Digest, ...] | None = None,
        computed: tuple[Digest, ...] | None = None,
    ) -> Upload:
        """Change the state if it is one of `sources`, and append an event of type `event`, in one.

        `expires` is set as given; the last four are set unless None. The stored ranges are forgotten with a
        change to a tombstone; `prefix` and `received` stay as they were. Raises WrongState; ValueError if
        `to` is `verifying` or `complete` and bytes are missing.
        """
        ...

    async def record_digest(self, upload_id: str, digest: Digest, *, now: float) -> Upload:
        """Add a digest to `computed`, in the place of one of the same algorithm. Raises UnknownUpload."""
        ...

    async def unfinished(self) -> Uploads:
        """All uploads that are receiving or verifying, oldest first."""
        ...

    async def states(self, upload_ids: Sequence[str]) -> dict[str, State]:
        """The states of those of these uploads that the catalog knows."""
        ...

    async def expired(self, now: float, limit: int) -> Uploads:
        """At most `limit` uploads, receiving, failed or complete, whose `expires` is not after `now`; by `expires`.

        Not a part that a receiving final waits for, and not a receiving final of which a part has not expired.
        """
        ...

    async def fence(self, upload_id: str, start: int, end: int, *, now: float) -> int:
        """Ask the writers to `[start, end)` of an upload in all processes to stop; the number of the request."""
        ...

    async def fences(self, after: int) -> Sequence[Fence]:
        """All fences with a number above `after`, ascending."""
        ...

    async def standing(self, upload_id: str, start: int, end: int) -> "Standing":
        """What a writer has to know once it has reserved `[start, end)`, as of one moment."""
        ...

    async def fence_head(self) -> int:
        """The number of the newest fence, 0 if there never was one. It never shrinks."""
        ...

    async def record_failure(self, upload_id: str, *, now: float) -> Upload:
        """Count a request that failed; all failures before it count as tried again. So does the next `commit`.

        Not an event, and `updated` stays. Raises UnknownUpload.
        """
        ...

    async def log(self) -> Log:
        """Which log this is, and how far it reaches, as of one moment."""
        ...

    async def events(self, after: int, limit: int, of: Watched | None = None) -> Sequence[Event]:
        """The first `limit` events with a number above `after`, ascending; with `of` only those of such uploads."""
        ...

    async def event_head(self) -> int:
        """The number of the newest event, 0 if there never was one. It never shrinks."""
        ...

    async def trim(self, before: float, most: int) -> int:
        """Forget events from the old end of the log: those before the time `before`, and all but the newest `most`.

        Answers how many. An old one behind a newer one stays until that one goes.
        """
        ...

    async def add_samples(self, samples: Sequence[Sample], *, most: int) -> None:
        """Remember how far uploads are, with at most `most` samples of each.

        One that comes within a second of the one before, or within a part in `most` of the time since the first, is
        left out, so that they cover all of that time; when there are too many every second one goes. One of a state
        other than `receiving` takes the place of the one before instead. Those of uploads that are not here are left
        out.
        """
        ...

    async def samples(self, upload_id: str, limit: int) -> Sequence[Sample]:
        """The newest `limit` samples of an upload, ascending by time."""
        ...

    async def drop_samples(self, before: float) -> int:
        """Forget samples that are older than this; how many."""
        ...

    async def moving(self, of: Watched, limit: int) -> Uploads:
        """At most `limit` of these uploads that are receiving or verifying; those that were touched last come first."""
        ...

    async def tally(self, of: Watched | None = None) -> Sequence[Tally]:
        """How many of these uploads are in each state; states without any are left out. Reads a row of every upload."""
        ...

    def version(self) -> int:
        """A number that is another one whenever anybody, this process or another, has committed something.

        Takes some microseconds and does not block; to be polled.
        """
        ...

    async def purge(self, before: float) -> int:
        """Forget tombstones not updated since `before`, fences as old, and grants that were over by then; the number of
        the uploads.

        Events and samples stay: `trim`, `drop_samples`.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was begun and close. Again is nothing."""
        ...
