"""What every part of the domain works with.

Rule of this file: the state of an upload that a writer relies on is read after it has reserved its range
(`Catalog.standing`), never before.
"""

import errno
from collections.abc import Callable

from msgspec import Struct, field

from holdfast_protocol import headers
from holdfast_protocol import server as rules
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import EVERYBODY, Principal
from holdfast_server.catalog.base import Catalog, NoRoom, OverQuota
from holdfast_server.settings import Settings
from holdfast_server.storage.base import Storage
from holdfast_server.uploads.activity import Activity
from holdfast_server.uploads.upload import State, Upload


class Core(Struct, frozen=True):
    """The ports, the settings and the clocks."""

    catalog: Catalog
    storage: Storage
    settings: Settings
    now: Callable[[], float]
    """Seconds since the epoch; may jump. For what people and other machines see."""
    monotonic: Callable[[], float]
    """Seconds that never jump. For durations."""
    activity: Activity = field(default_factory=Activity)

    async def find(self, upload_id: str, who: Principal = EVERYBODY) -> Upload:
        """The upload, for the one who asks; by default for ourselves. Raises ProblemError 404 or 410 if there is none
        (T-EXPIRE-2), 404 for whoever is not to know of it (A-OWNER-1), and 403 for whoever has a signature for one that
        was given up (A-SIGN-4)."""
        return self.found(await self.get(upload_id, who), who)

    async def get(self, upload_id: str, who: Principal) -> Upload | None:
        """As the catalog has it, for the one who asks. Whose it is is asked first and by itself: to read all of an
        upload takes longer than not to find it, and would tell that it is there."""
        if not who.sees_all:
            whose = await self.catalog.whose(upload_id)
            if whose is None or not who.sees(whose):
                return None
        return await self.catalog.get(upload_id)

    def found(self, upload: Upload | None, who: Principal = EVERYBODY) -> Upload:
        """What `get` has answered, if it is there. Raises ProblemError as `find`."""
        if upload is None or upload.state is State.TERMINATED:
            if upload is not None and upload.id == who.only and upload.error == given_up().code:
                raise given_up()
            raise ProblemError("not-found", "There is no upload with this id. Create a new one.")
        if upload.state is State.EXPIRED:
            raise ProblemError("gone", "This upload was not finished in time and was removed. Create a new one.")
        return upload

    def receiving(self, upload: Upload | None) -> Upload:
        """The upload, if it still takes bytes. Raises ProblemError otherwise."""
        found = self.found(upload)
        rules.check_takes_bytes(found)
        if found.state is not State.RECEIVING:
            raise ProblemError("final-upload", "All bytes of this upload are here; it takes no more.")
        return found

    def expiry(self) -> float | None:
        """When an upload that was touched just now expires."""
        after = self.settings.expire_after
        return None if after is None else self.now() + after

    def kept_until(self) -> float | None:
        """When an upload that is complete as of now expires."""
        after = self.settings.expire_finished
        return None if after is None else self.now() + after

    def free(self) -> int:
        """How many bytes uploads may still take of the room that there is; negative if they took more than that."""
        return self.storage.room().free - self.settings.min_free

    def check_room(self, size: int) -> None:
        """Raises ProblemError 507 if so many bytes do not fit now (P-CHUNK-8)."""
        free = self.free()
        if size > free:
            raise no_space(size, max(0, free))


def given_up() -> ProblemError:
    """A-SIGN-4, of an upload that had received nothing when the same URL made another one."""
    return ProblemError(
        "given-up",
        "The URL that made this upload has made another one in its place, and may make no more. Ask for a new one.",
    )


def no_space(needed: int | None = None, free: int | None = None) -> ProblemError:
    sizes = "" if needed is None else f" {needed} bytes are needed and {free} are free."
    return ProblemError(
        "insufficient-storage",
        f"There is not enough room on the server.{sizes} What is stored stays; try again when there is room.",
        {} if needed is None else {"needed": needed, "free": free},
    )


def quota_exceeded() -> ProblemError:
    """Q-BYTES-1, in the middle of an upload of which nobody has said how long it is."""
    return ProblemError(
        "quota-exceeded",
        "There are as many bytes here as there may be. What is stored stays; DELETE what is not needed, and go on.",
    )


def no_room(error: NoRoom) -> ProblemError:
    """What the catalog has refused: T-CREATE-2, Q-UPLOADS-1, Q-BYTES-1."""
    if not isinstance(error, OverQuota):
        return no_space(error.needed, error.free)
    whose = "This server has" if error.owner is None else "You have"
    members = {"limit": error.limit, "used": error.used, "needed": error.needed}
    if error.what == "uploads":
        return ProblemError(
            "too-many-uploads",
            f"{whose} {error.used} uploads that are not finished, and may have {error.limit} at once. "
            "Finish or DELETE some, and try again.",
            members,
            {headers.RETRY_AFTER: "30"},
        )
    return ProblemError(
        "quota-exceeded",
        f"{whose} {error.used} bytes of {error.limit}, those included that are still to come; {error.needed} more are "
        "too many. What is stored stays; DELETE what is not needed, and try again.",
        members,
    )


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
