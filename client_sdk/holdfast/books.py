"""Keeps the ledger of one client: writes how far its transfers are, and carries out what other processes want of them.

Rule of this file: what another process wrote is seen within a quarter of a second, and costs no more than the look at
one number while nobody writes. How far transfers are is written once a second, all of them together; that one has
begun, changed its state or ended, at once. Transfers never wait for the books.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from holdfast.errors import HoldfastError, TransferBusy
from holdfast.journal import Journal
from holdfast.ledger import Asked, Row, Step, Wanted, shown
from holdfast.limiter import Limiters
from holdfast.outcome import DownloadResult, UploadResult
from holdfast.progress import State, Tracker
from holdfast.transfers import Transfer

Result = TypeVar("Result")

LOOK: Final = 0.25
"""Seconds between two looks at what is wanted."""
WRITE: Final = 1.0
"""Seconds between two notes of the bytes of a transfer."""


class _Page(Struct):
    transfer: Transfer[Any]
    written: Step
    at: float = 0.0
    wanted: Wanted = "run"


class Books:
    """Belongs to one event loop, that of the client whose journal it writes to."""

    def __init__(self, journal: Journal, limiters: Limiters) -> None:
        self._journal = journal
        self._ledger = journal.ledger
        self._limiters = limiters
        self._ceilings = limiters.ceilings
        self._pages: dict[str, _Page] = {}
        self._news = anyio.Event()
        self._version = -1

    def open(self, transfer: Transfer[Any], asked: Asked) -> None:
        """A transfer has begun. Of two that ask for the same in one process only the first is written down."""
        if asked.id in self._pages:
            return
        self._ledger.note(asked)
        step = Step(asked.id, State.PENDING, None, 0, asked.priority, "run", "run")
        self._pages[asked.id] = _Page(transfer, step)
        self._news.set()

    async def keep(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            with anyio.move_on_after(LOOK):
                await self._news.wait()
            self._news = anyio.Event()
            await self.settle()

    async def settle(self) -> None:
        """Write down what has changed, and carry out what is wanted."""
        steps, ended = [], []
        now = time.monotonic()
        for id_, page in self._pages.items():
            if (step := _step(page, now)) is not None:
                steps.append(step)
                page.at, page.written, page.wanted = now, step, step.wanted
            if page.transfer.done:
                ended.append(id_)
        for id_ in ended:
            del self._pages[id_]
        ceilings = {name: size for name, size in self._limiters.ceilings.items() if self._ceilings.get(name) != size}
        self._ceilings |= ceilings
        wishes = await to_thread.run_sync(self._exchange, steps, ceilings)
        for id_, wanted in wishes.items():
            page_of = self._pages.get(id_)
            if page_of is not None and page_of.wanted != wanted:
                page_of.wanted = wanted
                match wanted:
                    case "run":
                        page_of.transfer.resume()
                    case "pause":
                        page_of.transfer.pause()
                    case "cancel":
                        page_of.transfer.cancel()

    async def follow(self, busy: TransferBusy, tracker: Tracker) -> Row | None:
        """Another process is at the transfer: show how far it is, until it ends. Its row, or None if it does not end.

        It does not end if its process is paused by Ctrl-C or dies; then it is this one's turn.
        """
        since = time.time()
        while True:
            row = await to_thread.run_sync(self._ledger.find_key, busy.key or "")
            # What had ended before was another run.
            if row is not None and row.state.final and row.updated >= since:
                return row
            if row is None or not row.running:
                await anyio.sleep(LOOK)
                return None
            tracker.size = row.size
            tracker.accepted = max(tracker.accepted, row.accepted)
            doing = "has paused it" if row.state is State.PAUSED else "is at it"
            tracker.enter(State.IN_PROGRESS, f"process {row.process} {doing}; this one follows")
            await anyio.sleep(LOOK)

    def following(
        self, tracker: Tracker, work: Callable[[], Awaitable[Result]], result_of: Callable[[Row], Result | None]
    ) -> Callable[[], Awaitable[Result]]:
        """The same work, done by another process if that is at it already, and then as it ended there.

        `result_of` a row that is complete; None lets `work` find out what there is. Raises as `work`, and the error
        that the other process has failed with.
        """

        async def work_or_follow() -> Result:
            while True:
                try:
                    return await work()
                except TransferBusy as error:
                    if error.key is None:
                        raise
                    row = await self.follow(error, tracker)
                tracker.accepted = 0
                if row is not None and row.state is not State.COMPLETED:
                    failed = row.error or HoldfastError(f"process {row.process} has cancelled {row.source}")
                    failed.elsewhere = True
                    raise failed
                if row is not None and (result := result_of(row)) is not None:
                    return result

        return work_or_follow

    def _exchange(self, steps: list[Step], ceilings: dict[str, int]) -> dict[str, Wanted]:
        for origin, size in ceilings.items():
            self._journal.keep_ceiling(origin, size)
        if steps:
            self._ledger.keep(steps)
        version = self._ledger.version()
        if version == self._version:
            return {}
        self._version = version
        return self._ledger.wishes()


def _step(page: _Page, now: float) -> Step | None:
    """What there is to write about a transfer; None if it is nothing new."""
    transfer, written = page.transfer, page.written
    state = transfer.state
    if state is State.CANCELLED and not transfer.called_off:
        state = State.PAUSED
    wanted: Wanted = "pause" if transfer.paused else "cancel" if transfer.called_off else "run"
    same = bool(page.at) and (state, transfer.priority, wanted) == (written.state, written.priority, page.wanted)
    if same and (state is State.PENDING or (now - page.at < WRITE and not transfer.done)):
        return None
    look = transfer.progress
    step = Step(transfer.id, state, look.size, look.accepted, transfer.priority, page.wanted, wanted)
    if transfer.done:
        step = replace(step, failure=None if state is State.PAUSED else transfer.failure)
        outcome = transfer.outcome
        if isinstance(outcome, UploadResult | DownloadResult):
            place = outcome.url if isinstance(outcome, UploadResult) else shown(outcome.path)
            digest = f"{outcome.digest.algorithm}={outcome.digest.hex}" if outcome.digest is not None else None
            step = replace(step, result=place, digest=digest)
    return step if not page.at or step != replace(written, known=step.known) else None
