"""Transfers as their callers see them.

Rule of this file: a transfer runs in the client's task group and not in the caller's task, so it goes on while nobody
looks. Its error belongs to whoever awaits it; if nobody does, the client raises it when it is closed. To pause is to
stop and to keep what is done: to resume is the same call again, which goes on from there.
"""

import inspect
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

import anyio
import anyio.lowlevel
from msgspec import Struct

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import HoldfastError, TransferCancelled
from holdfast.progress import Progress, State, Tracker
from holdfast.rates import RateLimit, Share
from holdfast.retries import Backoff

Result = TypeVar("Result")
Kind = Literal["upload", "download"]
Watcher = Callable[[Progress], object]
"""Called with the newest snapshot; may be an `async def`."""

_log = logging.getLogger("holdfast")


class Verdict(Struct, frozen=True):
    """What a policy thinks of a failure."""

    again: bool
    reason: str
    """Part of a sentence, for people."""


class RetryPolicy(Struct, frozen=True):
    """Whether a transfer that failed is tried again by itself, after its own attempts are used up.

    Only what may go better without anybody doing something is: the network, a server that is not there or has no room
    now (`HoldfastError.retryable`). Waits a random part of `first`, twice that, and so on, at most `longest` seconds.
    """

    retries: int = 2
    first: float = 5.0
    longest: float = 60.0

    def judge(self, error: HoldfastError, failures: int) -> "Verdict":
        """Whether to try again after the `failures`-th failure (from 1), and why."""
        if not error.retryable:
            return Verdict(False, error.verdict)
        if error.elsewhere:
            return Verdict(False, "not tried again: the process that it was followed in has given up")
        if failures > self.retries:
            return Verdict(False, f"not tried again by itself after {failures} failures, but {error.verdict}")
        return Verdict(True, error.verdict)

    def delay(self, failures: int, rand: float) -> float:
        """Seconds to wait after the `failures`-th failure; `rand` is uniform in [0, 1)."""
        return Backoff(self.first, self.longest).delay(failures, rand)


NO_RETRIES: Final = RetryPolicy(retries=0)


class Turns(Protocol):
    """Where transfers wait for their turn; `holdfast.queue.TransferQueue` is that."""

    async def enter(self, transfer: "Transfer[Any]") -> None:
        """Waits until it is this one's turn."""
        ...

    def leave(self, transfer: "Transfer[Any]") -> None:
        """The turn is over."""
        ...

    def reordered(self) -> None:
        """A transfer that may be waiting has another priority."""
        ...

    def call(self, callback: Callable[..., Coroutine[Any, Any, None]], *said: object) -> None:
        """Have something done beside the transfers."""
        ...


class Gate:
    """Where a transfer that cannot be stopped and begun again waits while it is paused."""

    def __init__(self) -> None:
        self._open = anyio.Event()
        self._open.set()

    def close(self) -> None:
        """Whoever comes waits."""
        if self._open.is_set():
            self._open = anyio.Event()

    def open(self) -> None:
        """Lets everybody through."""
        self._open.set()

    async def passed(self) -> None:
        """Waits while the gate is closed."""
        await self._open.wait()


class Transfer(Generic[Result]):
    """One file on its way, up or down. `await` it for the result; iterate over it, with `async for`, for its progress.

    Iterating gives the newest snapshot each time and ends with the transfer; it raises nothing of the transfer's.
    Awaiting raises HoldfastError. Both may be done by several tasks of the client's event loop. All methods but
    `result` and `wait` return at once.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        tracker: Tracker,
        work: Callable[[], Awaitable[Result]],
        *,
        share: Share,
        limit: RateLimit,
        gate: Gate | None = None,
        id: str = "",  # noqa: A002 - that is what it is called
        clock: Clock = SYSTEM,
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self.id = id
        """What it is called in the journal, and by `holdfast transfers`."""
        self.age: float = 0.0
        """Of those with the same priority the one with the lowest number is next; the queue gives it."""
        self.verdict: str | None = None
        """Why it is not tried again, of one that failed; part of a sentence."""
        self._clock = clock
        self._share = share
        self._limit = limit
        self._tracker = tracker
        self._work = work
        self._gate = gate
        self._turns: Turns | None = None
        self._scope = anyio.CancelScope()
        self._cancelled = False
        self._interrupted = False
        self._go_on: anyio.Event | None = None
        self._ended = anyio.Event()
        self._result: Result | None = None
        self._error: HoldfastError | None = None
        self._seen = False

    @property
    def progress(self) -> Progress:
        """The newest snapshot."""
        return self._tracker.latest.progress

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self._tracker.state

    @property
    def size(self) -> int | None:
        """In bytes; None as long as it is not known: that of a stream, and that of a download before its turn."""
        return self._tracker.size

    @property
    def paused(self) -> bool:
        """`pause()` was called, and not `resume()` since."""
        return self._go_on is not None

    @property
    def called_off(self) -> bool:
        """`cancel()` was called: somebody does not want it any more."""
        return self._cancelled and not self._interrupted

    @property
    def begun(self) -> bool:
        """It has had its turn once; before that there is nothing to tell of it."""
        return self._tracker.begun

    @property
    def done(self) -> bool:
        """It has ended, in whatever way."""
        return self._ended.is_set()

    @property
    def error(self) -> HoldfastError | None:
        """Why it failed or was cancelled; None if it did not, or has not ended. Who has looked was told: it is not
        raised any more when the client is left.
        """
        self._seen = self._seen or self._error is not None
        return self._error

    @property
    def url(self) -> str | None:
        """Of an upload: where it is on the server, as soon as it is there. None for a download."""
        return self._tracker.url

    @property
    def outcome(self) -> Result | None:
        """The result; None as long as there is none."""
        return self._result

    @property
    def priority(self) -> int:
        """Lower numbers go first. A change counts for as long as it waits, and for its next chunks."""
        return self._share.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._share.priority = priority
        if self._turns is not None:
            self._turns.reordered()

    @property
    def limit_rate(self) -> float | None:
        """Bytes of content a second for this transfer alone, None for no limit; may be changed at any time.

        Raises UsageError for a rate that makes no sense.
        """
        return self._limit.rate

    @limit_rate.setter
    def limit_rate(self, rate: float | None) -> None:
        self._limit.rate = rate

    def pause(self) -> None:
        """Stop, keep what is done, and let others have the turn. Without effect on what is paused or has ended.

        A stream of unknown length keeps its turn, and stops after the chunk that is on its way.
        """
        if self.done or self._cancelled or self._go_on is not None:
            return
        self._go_on = anyio.Event()
        if self._gate is not None and self._tracker.state is not State.PENDING:
            self._gate.close()
            self._tracker.enter(State.PAUSED)
        else:
            self._scope.cancel()

    def resume(self) -> None:
        """Go on after `pause()`, when it is this one's turn again. Without effect on what is not paused."""
        if self._go_on is None:
            return
        self._go_on.set()
        self._go_on = None
        if self._gate is not None:
            self._gate.open()
            if self._tracker.state is State.PAUSED:
                self._tracker.enter(State.IN_PROGRESS)

    def cancel(self) -> None:
        """Stop for good, as soon as possible. What is done is kept: the same call later goes on from there.

        Without effect on what has ended.
        """
        if self.done:
            return
        self._cancelled = True
        self._scope.cancel()

    def interrupt(self) -> None:
        """As `cancel()`, because the process ends and not because nobody wants it: the journal has it as paused."""
        self._interrupted = not self._cancelled
        self.cancel()

    def on_progress(self, callback: Watcher) -> None:
        """Have a function, or an `async def`, called with the newest snapshot, at most ten times a second.

        The last one is final. What it raises is logged and harms nobody. It runs in the event loop, so it must not
        block.
        """
        assert self._turns is not None
        self._turns.call(self._report, callback)

    def on_end(self, callback: "Callable[[Transfer[Result]], object]") -> None:
        """Have a function, or an `async def`, called with this transfer when it has ended; as `on_progress` else."""
        assert self._turns is not None
        self._turns.call(self._report_end, callback)

    async def _report(self, callback: Watcher) -> None:
        async for progress in self:
            await tell(callback, progress)

    async def _report_end(self, callback: "Callable[[Transfer[Result]], object]") -> None:
        await self._ended.wait()
        await tell(callback, self)

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self._tracker.latest.follow()

    def __await__(self) -> Generator[None, None, Result]:
        return self.result().__await__()

    async def result(self) -> Result:
        """Wait for the end; the result. Raises HoldfastError, TransferCancelled after `cancel()`."""
        await self._ended.wait()
        self._seen = True
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    async def wait(self) -> State:
        """Wait for the end, whatever it is: `COMPLETED`, `FAILED` or `CANCELLED`. Raises nothing of the transfer's."""
        await self._ended.wait()
        return self.state

    @property
    def failure(self) -> HoldfastError | None:
        """As `error`, for those who write it down and tell nobody."""
        return self._error

    @property
    def unseen_error(self) -> HoldfastError | None:
        """The error that nobody has been told of."""
        return None if self._seen or self._cancelled else self._error

    def belongs_to(self, turns: Turns) -> None:
        """Where it waits for its turn; the client's part."""
        self._turns = turns

    async def run(self, turns: Turns, policy: RetryPolicy) -> None:
        """Carry it out; the client's part. Raises only what is a mistake in this package, and cancellation."""
        if self._gate is not None:
            policy = NO_RETRIES  # what was read of a stream cannot be read again
        failures = 0
        last: HoldfastError | None = None
        try:
            while self._result is None and self._error is None:
                self._scope = anyio.CancelScope()
                if self._cancelled or self._go_on is not None:
                    self._scope.cancel()
                try:
                    with self._scope:
                        await self._turn(turns, 0.0 if last is None else policy.delay(failures, random.random()), last)  # noqa: S311
                except HoldfastError as error:
                    failures += 1
                    self._tracker.failed(error)
                    verdict = policy.judge(error, failures)
                    if verdict.again:
                        self._tracker.retries += 1
                    else:
                        self._error, self.verdict = error, verdict.reason
                    last = error
                if self._cancelled:
                    self._error = self._error or self._stopped()
                elif self._go_on is not None and self._result is None and self._error is None:
                    await self._paused(self._go_on)
        finally:
            if self._result is None and self._error is None:
                self._error = self._stopped()
            self._tracker.enter(self._final())
            self._tracker.latest.close()
            self._ended.set()

    async def _turn(self, turns: Turns, delay: float, after: HoldfastError | None) -> None:
        await anyio.lowlevel.checkpoint()  # who was paused or cancelled before does not begin
        if after is not None:
            self._tracker.enter(State.PENDING, f"{after.reason}; the transfer goes on in {delay:.1f} s")
            await self._clock.sleep(delay)
        await turns.enter(self)
        try:
            self._tracker.begin()
            self._result = await self._work()
        finally:
            turns.leave(self)

    async def _paused(self, go_on: anyio.Event) -> None:
        self._tracker.busy(0)
        self._tracker.enter(State.PAUSED)
        self._scope = anyio.CancelScope()
        with self._scope:
            await go_on.wait()
            self._tracker.enter(State.PENDING)

    def _stopped(self) -> TransferCancelled:
        return TransferCancelled(f"{self.name} was stopped; what is done is kept, and the same call goes on from there")

    def _final(self) -> State:
        if self._error is None:
            return State.COMPLETED
        return State.CANCELLED if isinstance(self._error, TransferCancelled) else State.FAILED


async def tell(callback: Callable[..., object], *said: object) -> None:
    """Calls back, and waits if there is something to wait for. What the callback raises is logged and harms nobody."""
    try:
        answer = callback(*said)
        if inspect.isawaitable(answer):
            await answer
    except Exception:
        _log.exception("a callback failed; the transfer goes on")
