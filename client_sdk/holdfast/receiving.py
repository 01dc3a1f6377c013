"""One download on its way: what its connections share.

Rule of this file: each connection, also that of the first answer, is one of those that may be used, so that there are
never more at once. What a failure asks for is decided in one place (`Download.recover`), and attempts count only as
long as no byte comes for the first time in between.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from holdfast.errors import ConnectionFailed, HoldfastError
from holdfast.journal import TransferLock
from holdfast.limiter import Limiter
from holdfast.outcome import from_refusal, gave_up
from holdfast.progress import State as Stage
from holdfast.progress import Tracker
from holdfast.rates import Share
from holdfast.remote import Answer, OtherVersion, Remote, Version
from holdfast.retries import Attempts, Backoff
from holdfast_protocol.client import Reaction, Refusal
from holdfast_protocol.digest import Digest

KEPT: Final = "What was received is kept; run the same download again to go on."
ANEW: Final = "This server gives no ranges of one version; the same download will begin anew."

Trouble: TypeAlias = HoldfastError | OtherVersion
"""What ends the use of a server."""


class DownloadJob(Struct, frozen=True):
    """What to receive and where to put it. `path` goes before `folder`; with neither it is the current folder."""

    url: str
    id: str | None = None
    """Of the transfer, in the journal."""
    path: Path | None = None
    folder: Path | None = None
    segments: int | None = None
    """Connections to use at once, to each server."""
    checksum: Digest | None = None
    """What the file must have, beside what the server says."""
    overwrite: bool = False
    max_attempts: int = 10
    mirrors: tuple[str, ...] = ()
    """Further URLs of the same file."""


class Source(Struct, eq=False):
    """A server that has the version."""

    remote: Remote
    version: Version
    trouble: Trouble | None = None


class First(Struct, eq=False):
    """The first answer, and the connection over which it comes."""

    source: Source
    answer: Answer
    held: AsyncExitStack

    async def release(self) -> None:
        """Let go of both. May be called more than once."""
        await self.held.aclose()


class Download:
    """One download on its way. `url` is what it is called in errors; `clock` is monotonic, in seconds."""

    def __init__(self, job: DownloadJob, url: str, tracker: Tracker, share: Share, clock: Callable[[], float]) -> None:
        self.job = job
        self.url = url
        self.tracker = tracker
        self.share = share
        self.clock = clock
        self.lock: TransferLock | None = None
        """As soon as it is known which file it is."""
        self.keeps: str = KEPT
        """What is said of what came, when it is given up."""
        self.requests: int = 0
        """Answers that brought something."""
        self.progress: int = 0
        """Grows with the bytes that came for the first time; attempts are counted against it."""
        self._backoff = Backoff()

    def connection(self, limiter: Limiter) -> AbstractAsyncContextManager[None]:
        """Wait for one of the connections that may be used at once, and have it inside the block."""
        return limiter.connection(self.share, self.job.segments)

    def surplus(self, limiter: Limiter) -> bool:
        """See `Limiter.surplus`."""
        return limiter.surplus(self.share, self.job.segments)

    def attempts(self) -> Attempts:
        """For one that goes on by itself after a failure."""
        return Attempts(self.job.max_attempts, self.progress)

    def came(self, limiter: Limiter, count: int, new: int) -> None:
        """So many bytes came, `new` of them for the first time."""
        assert self.lock is not None
        self.lock.count(count)
        self.tracker.accepted += new
        self.tracker.resent += count - new
        self.tracker.moved(count)
        limiter.moved(count)
        self.tracker.go_on()

    async def recover(self, error: HoldfastError | Refusal, attempts: Attempts, limiter: Limiter) -> None:
        """Wait until it may go better. Raises if it will not, or has not for too long."""
        final = from_refusal(error, self.url) if isinstance(error, Refusal) else error
        if is_final(error):
            raise final from error
        self.tracker.failed(final)
        if not attempts.failed(self.progress):
            raise gave_up(final, attempts.failures, self.keeps) from error
        self.tracker.retries += 1
        told = error.retry_after if isinstance(error, Refusal) else None
        throttled = isinstance(error, Refusal) and error.throttled
        if isinstance(error, Refusal) and throttled:
            limiter.throttled(retry_after=told, crowded=error.status == 429)
        delay = limiter.after_failure(self._backoff, attempts.failures, told, throttled=throttled)
        self.tracker.enter(Stage.IN_PROGRESS, f"{final.message}; again in {delay:.1f} s")
        await limiter.clock.sleep(delay)


def is_final(error: HoldfastError | Refusal) -> bool:
    """Another attempt at that server will not help."""
    return error.reaction is Reaction.FAIL if isinstance(error, Refusal) else not isinstance(error, ConnectionFailed)
