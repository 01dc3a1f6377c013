"""Runs the transfers of one command: progress, results in order, Ctrl-C, and the exit status.

Rule of this file: the first Ctrl-C (or SIGTERM) pauses: everything is stopped in order, the journal is kept, and the
exit status is 130. The second one leaves at once. A transfer that fails does not stop the others.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import anyio
import click
from anyio.abc import TaskGroup

from holdfast.cli.jobs import Job
from holdfast.cli.screen import Screen, choose, emit, human, show_warnings
from holdfast.client import AsyncClient, IfBusy
from holdfast.errors import HoldfastError, ServerRefused, TransferCancelled, UsageError, VerificationFailed
from holdfast.transfers import RetryPolicy, Transfer

Result = TypeVar("Result")

PAUSED: Final = 130
AHEAD: Final = 4
"""How many jobs are begun for each that may be on its way."""
LOOK: Final = 0.5
"""Seconds after which it is looked whether one was paused."""
_WORST_LAST: Final = (0, 1, 4, 3)


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
        quiet: bool,
        as_json: bool,
    ) -> None:
        self._jobs = jobs
        self._start = start
        self._line_of = line_of
        self._event_of = event_of
        self._note_of = note_of
        self._quiet = quiet
        self._as_json = as_json
        self._screen: Screen = choose(quiet=quiet, as_json=as_json)
        self._paused = False
        self._status = 0
        self._live: set[Transfer[Result]] = set()
        self._left = anyio.Event()
        self._wrong: UsageError | None = None
        self._ended: dict[int, Result | None] = {}
        self._told = 0
        self._done = 0
        self._failures = 0

    def run(
        self,
        *,
        headers: Mapping[str, str],
        limit_rate: float | None,
        transfers: int = 4,
        override_method: bool = False,
        retries: int = 2,
        if_busy: IfBusy = "follow",
    ) -> int:
        """Blocks until all of them have ended; the exit status."""
        show_warnings()
        client = AsyncClient(
            headers=headers,
            limit_rate=limit_rate,
            transfers=transfers,
            override_method=override_method,
            retry=RetryPolicy(retries=retries),
            if_busy=if_busy,
        )
        try:
            anyio.run(self._main, client, AHEAD * transfers)
        except UsageError as error:
            raise click.UsageError(error.message) from error
        except HoldfastError as error:
            self._failed(None, error)
        return PAUSED if self._paused else self._status

    async def _main(self, client: AsyncClient, at_once: int) -> None:
        began = time.monotonic()
        with self._screen:
            async with client, anyio.create_task_group() as signals:
                signals.start_soon(self._signals)
                async with anyio.create_task_group() as group:
                    for index in sorted(range(len(self._jobs)), key=lambda index: self._jobs[index].priority):
                        await self._room(at_once)
                        if self._paused:
                            break
                        self._begin(client, index, group)
                        if self._wrong is not None:
                            self._stop()
                            break
                signals.cancel_scope.cancel()
                seconds = time.monotonic() - began
                if len(self._jobs) > 1 and not self._quiet and not self._as_json and self._wrong is None:
                    self._screen.say(self._summary(client.queue.statistics.accepted, seconds))
        if self._wrong is not None:
            raise self._wrong
        if self._paused:
            self._screen.say("Paused: what was done is kept. Run the same command again to go on.")

    def _summary(self, size: int, seconds: float) -> str:
        """What has become of all of them, in one sentence."""
        failed = f", {self._failures} failed" if self._failures else ""
        left = len(self._jobs) - self._done - self._failures
        more = f", {left} left for another time" if left else ""
        speed = human(size / max(seconds, 0.001))
        return f"{self._done} of {len(self._jobs)} done{failed}{more}: {human(size)} in {seconds:.1f} s, {speed}/s"

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
                self._wrong = error
                return
            self._failed(job.shown, error)
            self._tell(index, None)
            return
        self._live.add(transfer)
        group.start_soon(self._end, index, transfer)

    async def _end(self, index: int, transfer: Transfer[Result]) -> None:
        name = self._jobs[index].shown
        result = None
        async for progress in transfer:
            self._screen.show(name, progress)
        try:
            result = await transfer.result()
            self._screen.show(name, transfer.progress)
        except TransferCancelled as error:
            if transfer.called_off or error.elsewhere:
                self._failed(name, error)
            elif self._as_json:
                emit({"event": "paused", "file": name, "accepted": transfer.progress.accepted})
        except HoldfastError as error:
            self._failed(name, error)
        self._tell(index, result)
        self._live.discard(transfer)
        self._left.set()

    def _tell(self, index: int, result: Result | None) -> None:
        self._ended[index] = result
        while self._told in self._ended:
            name, ended = self._jobs[self._told].shown, self._ended.pop(self._told)
            self._told += 1
            if ended is None:
                continue
            self._done += 1
            if self._as_json:
                emit(self._event_of(name, ended))
                continue
            if (note := self._note_of(ended)) is not None and not self._quiet:
                self._screen.say(f"{name}: {note}")
            self._screen.result(self._line_of(ended))

    def _failed(self, name: str | None, error: HoldfastError) -> None:
        status = exit_status(error)
        self._failures += name is not None
        self._status = max(self._status, status, key=_WORST_LAST.index)
        if self._as_json:
            emit({"event": "failed", "file": name, "code": error.code, "message": error.message})
        self._screen.say(f"holdfast: {name}: {error.message}" if name else f"holdfast: {error.message}")

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._paused:
                    os._exit(PAUSED)
                self._paused = True
                with suppress(OSError):
                    self._screen.say("Stopping; once more to leave at once.")
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
