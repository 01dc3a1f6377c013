"""Runs the transfers of one command: progress, results in order, Ctrl-C, and the exit status.

Rule of this file: the first Ctrl-C (or SIGTERM) pauses: everything is stopped in order, the journal is kept, and the
exit status is 130. The second one leaves at once. A transfer that fails does not stop the others.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import anyio
import click
from anyio.abc import TaskGroup

from holdfast.cli.jobs import Job
from holdfast.cli.options import Settings
from holdfast.cli.screen import Overall, Screen, choose, emit, human, show_warnings
from holdfast.client import AsyncClient
from holdfast.errors import HoldfastError, ServerRefused, TransferCancelled, UsageError, VerificationFailed
from holdfast.progress import Countdown, Meter, Progress
from holdfast.transfers import Transfer

Result = TypeVar("Result")

PAUSED: Final = 130
AHEAD: Final = 4
"""How many jobs are begun for each that may be on its way."""
LOOK: Final = 0.5
"""Seconds after which it is looked whether one was paused."""
FRAME: Final = 0.125
"""Seconds between two looks at all of them."""
_WORST_LAST: Final = (0, 1, 4, 3)


class Sum:
    """What has come of `jobs` so far. Of each that has begun it needs every snapshot that there is to see.

    `most` is the limit of their speed, in bytes a second, if there is one.
    """

    def __init__(self, jobs: Sequence[Job], most: float | None = None) -> None:
        self._most = most or math.inf
        sizes = [each.size for each in jobs]
        self._size = None if None in sizes else sum(size or 0 for size in sizes)
        self._total = len(jobs)
        self._looks: dict[int, Progress] = {}
        self._ended_bytes = 0
        self._began = time.monotonic()
        self._meter = Meter(self._began)
        self._countdown = Countdown(self._began)
        self.done: int = 0
        self.failed: int = 0
        self.wire: int = 0
        self.resent: int = 0
        self.retries: int = 0

    @property
    def accepted(self) -> int:
        """Bytes at the other end, also those that were there before."""
        return self._ended_bytes + sum(look.accepted for look in self._looks.values())

    @property
    def left(self) -> int:
        """Jobs that have neither been completed nor failed."""
        return self._total - self.done - self.failed

    def look(self, job: int, progress: Progress) -> None:
        """The newest snapshot of one, which is the last one if its state is final."""
        before = self._looks.pop(job, None)
        moved = progress.wire - (before.wire if before is not None else 0)
        self.wire += moved
        self._meter.add(moved)
        if not progress.state.final:
            self._looks[job] = progress
            return
        self._ended_bytes += progress.accepted
        self.resent += progress.resent
        self.retries += progress.retries

    def overall(self) -> Overall:
        """A look at all of them."""
        now = time.monotonic()
        accepted, speed = self.accepted, self._meter.rate(now)
        files = self.done + self.failed + sum(look.fraction for look in self._looks.values())
        fraction = accepted / self._size if self._size else files / self._total
        eta = None
        if self._size is not None:
            moved = self._ended_bytes + sum(look.moved for look in self._looks.values())
            eta = self._countdown.left(now, max(0, self._size - moved), min(speed, self._most))
        return Overall(
            self._total, self.done, self.failed, len(self._looks), self._size, accepted, min(1.0, fraction), speed, eta
        )

    def event(self, status: int) -> dict[str, object]:
        """The last event of a command."""
        return {
            "event": "summary",
            "status": status,
            "files": self._total,
            "done": self.done,
            "failed": self.failed,
            "left": self.left,
            "accepted": self.accepted,
            "wire": self.wire,
            "resent": self.resent,
            "retries": self.retries,
            "seconds": round(time.monotonic() - self._began, 3),
        }

    def __str__(self) -> str:
        seconds = time.monotonic() - self._began
        failed = f", {self.failed} failed" if self.failed else ""
        left = f", {self.left} left for another time" if self.left else ""
        size = f"{human(self.accepted)} in {seconds:.1f} s, {human(self.wire / max(seconds, 0.001))}/s"
        if not self.wire and self.accepted:
            size = f"{human(self.accepted)}, all of it there already"
        again = f"; {human(self.resent)} went over the network more than once" if self.resent else ""
        return f"{self.done} of {self._total} done{failed}{left}: {size}{again}"


class Batch(Generic[Result]):
    """Several transfers; their results are told in the order of `jobs`, each as soon as those before it have ended.

    A result is told as `line_of` it, or as `event_of` it with --json; `note_of` it is a remark for people. Only some of
    the jobs are begun at once, those with the lowest priority number first, so that a long list costs little more than
    the list. What makes no sense of a job with a `line` fails alone; else it ends the command, with UsageError.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        start: Callable[[AsyncClient, Job], Transfer[Result]],
        line_of: Callable[[Result], str],
        event_of: Callable[[str, Result], dict[str, object]],
        note_of: Callable[[Result], str | None] = lambda result: None,
        *,
        settings: Settings,
    ) -> None:
        self._jobs = jobs
        self._start = start
        self._line_of = line_of
        self._event_of = event_of
        self._note_of = note_of
        self._settings = settings
        self._screen: Screen = choose(len(jobs), quiet=settings.quiet, as_json=settings.as_json)
        self._sum = Sum(jobs, settings.limit_rate)
        self._paused = False
        self._status = 0
        self._live: set[Transfer[Result]] = set()
        self._left = anyio.Event()
        self._broken: HoldfastError | None = None
        self._ended: dict[int, Result | None] = {}
        self._told = 0

    def run(self, *, override_method: bool = False) -> int:
        """Blocks until all of them have ended; the exit status."""
        show_warnings(self._screen.say)
        anyio.run(self._main, self._settings.client(override_method=override_method))
        if isinstance(self._broken, UsageError):
            raise click.UsageError(self._broken.message) from self._broken
        if self._broken is not None:
            self._failed(None, self._broken)
        status = PAUSED if self._paused else self._status
        if self._settings.as_json:
            emit(self._sum.event(status))
        elif not self._settings.quiet:
            if len(self._jobs) > 1:
                self._screen.say(str(self._sum))
            elif self._sum.done and self._sum.resent:
                resent = f"{human(self._sum.resent)} of it went over the network more than once"
                self._screen.say(f"{self._jobs[0].shown}: {resent}")
        if self._paused and any(job.name != "-" for job in self._jobs):
            self._screen.say("Paused: what was done is kept. Run the same command again to go on.")
        return status

    async def _main(self, client: AsyncClient) -> None:
        with self._screen:
            # Ctrl-C is heard until the client has put everything away.
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._signals)
                beside.start_soon(self._look)
                try:
                    async with client, anyio.create_task_group() as group:
                        await self._begin_all(client, group)
                except HoldfastError as error:
                    self._broken = error
                beside.cancel_scope.cancel()
            self._screen.show_all(self._sum.overall())

    async def _begin_all(self, client: AsyncClient, group: TaskGroup) -> None:
        at_once = AHEAD * self._settings.transfers
        for index in sorted(range(len(self._jobs)), key=lambda index: self._jobs[index].priority):
            await self._room(at_once)
            if self._paused:
                return
            self._begin(client, index, group)
            if self._broken is not None:
                self._stop()
                return

    async def _look(self) -> None:
        while True:
            self._screen.show_all(self._sum.overall())
            await anyio.sleep(FRAME)

    async def _room(self, at_once: int) -> None:
        """Waits while enough of them are on their way, or wait for their turn; those that are paused do not count."""
        while sum(not each.paused for each in self._live) >= at_once and not self._paused:
            self._left = anyio.Event()
            with anyio.move_on_after(LOOK):
                await self._left.wait()

    def _begin(self, client: AsyncClient, index: int, group: TaskGroup) -> None:
        job = self._jobs[index]
        try:
            if job.problem is not None:
                raise UsageError(job.problem)
            transfer = self._start(client, job)
        except UsageError as error:
            if not job.alone:
                self._broken = error
                return
            self._failed(job.shown, error)
            self._tell(index, None)
            return
        self._live.add(transfer)
        group.start_soon(self._end, index, transfer)

    async def _end(self, index: int, transfer: Transfer[Result]) -> None:
        job = self._jobs[index]
        name = job.shown
        result = None
        async for progress in transfer:
            self._show(index, progress)
        try:
            result = await transfer.result()
        except TransferCancelled as error:
            if transfer.called_off or error.elsewhere:
                self._failed(name, error)
            elif self._settings.as_json:
                emit({"event": "paused", "file": name, "accepted": transfer.progress.accepted})
            elif job.name == "-" and transfer.url is not None:
                self._screen.say(f"Paused: give the same stream again, with --resume {transfer.url}, to go on.")
        except HoldfastError as error:
            self._failed(name, error)
        self._tell(index, result)
        self._live.discard(transfer)
        self._left.set()

    def _show(self, index: int, progress: Progress) -> None:
        self._sum.look(index, progress)
        self._screen.show(index, self._jobs[index].shown, progress)

    def _tell(self, index: int, result: Result | None) -> None:
        self._ended[index] = result
        self._sum.done += result is not None
        while self._told in self._ended:
            name, ended = self._jobs[self._told].shown, self._ended.pop(self._told)
            self._told += 1
            if ended is None:
                continue
            if self._settings.as_json:
                emit(self._event_of(name, ended))
                continue
            if (note := self._note_of(ended)) is not None and not self._settings.quiet:
                self._screen.say(f"{name}: {note}")
            self._screen.result(self._line_of(ended))

    def _failed(self, name: str | None, error: HoldfastError) -> None:
        status = exit_status(error)
        self._sum.failed += name is not None
        self._status = max(self._status, status, key=_WORST_LAST.index)
        if self._settings.as_json:
            emit({"event": "failed", "file": name, "code": error.code, "message": error.message})
        said = name is None or error.message.startswith(name)
        self._screen.say(f"holdfast: {error.message}" if said else f"holdfast: {name}: {error.message}")

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._paused:
                    with suppress(Exception):
                        self._screen.__exit__(None, None, None)  # a terminal gets its cursor back
                    os._exit(PAUSED)
                self._paused = True
                with suppress(OSError):
                    self._screen.say("Pausing; Ctrl-C once more leaves at once.")
                self._stop()

    def _stop(self) -> None:
        self._left.set()
        for transfer in self._live:
            transfer.interrupt()


def exit_status(error: HoldfastError) -> int:
    """What a failed transfer makes of the exit status: 1, 3 or 4; 2 for an argument that made no sense."""
    match error:
        case VerificationFailed():
            return 3
        case ServerRefused(retryable=False):
            return 4
        case _:
            return 1
