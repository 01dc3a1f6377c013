"""Runs the transfers of one command: progress, results in order, Ctrl-C, and the exit status.

Rule of this file: the first Ctrl-C (or SIGTERM) pauses: everything is stopped in order, the journal is kept, and the
exit status is 130. The second one leaves at once. A transfer that fails does not stop the others.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import anyio
import click

from holdfast.cli.screen import Screen, choose, emit, show_warnings
from holdfast.client import AsyncClient
from holdfast.errors import HoldfastError, ServerRefused, TransferCancelled, UsageError, VerificationFailed
from holdfast.transfers import RetryPolicy, Transfer

Result = TypeVar("Result")

PAUSED: Final = 130
_WORST_LAST: Final = (0, 1, 4, 3)


class Batch(Generic[Result]):
    """Several transfers of one kind, started together; their results are told in the order of `names`.

    A result is told as `line_of` it, or as `event_of` it with --json; `note_of` it is a remark for people.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Callable[[AsyncClient, str], Transfer[Result]],
        line_of: Callable[[Result], str],
        event_of: Callable[[str, Result], dict[str, object]],
        note_of: Callable[[Result], str | None] = lambda result: None,
        *,
        quiet: bool,
        as_json: bool,
    ) -> None:
        self._names = names
        self._start = start
        self._line_of = line_of
        self._event_of = event_of
        self._note_of = note_of
        self._quiet = quiet
        self._as_json = as_json
        self._screen: Screen = choose(quiet=quiet, as_json=as_json)
        self._paused = False
        self._status = 0

    def run(
        self,
        *,
        headers: Mapping[str, str],
        limit_rate: float | None,
        transfers: int = 4,
        override_method: bool = False,
        retries: int = 2,
    ) -> int:
        """Blocks until all of them have ended; the exit status."""
        show_warnings()
        try:
            anyio.run(self._main, dict(headers), limit_rate, transfers, override_method, retries)
        except UsageError as error:
            raise click.UsageError(error.message) from error
        except HoldfastError as error:
            self._failed(None, error)
        return PAUSED if self._paused else self._status

    async def _main(
        self, headers: dict[str, str], limit_rate: float | None, transfers: int, override_method: bool, retries: int
    ) -> None:
        client = AsyncClient(
            headers=headers,
            limit_rate=limit_rate,
            transfers=transfers,
            override_method=override_method,
            retry=RetryPolicy(retries=retries),
        )
        with self._screen:
            async with client:
                started = [(name, self._start(client, name)) for name in self._names]
                async with anyio.create_task_group() as group:
                    group.start_soon(self._signals, [transfer for _, transfer in started])
                    for name, transfer in started:
                        group.start_soon(self._watch, name, transfer)
                    for name, transfer in started:
                        await self._end(name, transfer)
                    group.cancel_scope.cancel()
        if self._paused:
            self._screen.say("Paused: what was done is kept. Run the same command again to go on.")

    async def _watch(self, name: str, transfer: Transfer[Result]) -> None:
        async for progress in transfer:
            self._screen.show(name, progress)

    async def _end(self, name: str, transfer: Transfer[Result]) -> None:
        try:
            result = await transfer.result()
        except TransferCancelled:
            if self._as_json:
                emit({"event": "paused", "file": name, "accepted": transfer.progress.accepted})
        except HoldfastError as error:
            self._failed(name, error)
        else:
            self._screen.show(name, transfer.progress)
            if self._as_json:
                emit(self._event_of(name, result))
                return
            if (note := self._note_of(result)) is not None and not self._quiet:
                self._screen.say(f"{name}: {note}")
            self._screen.result(self._line_of(result))

    def _failed(self, name: str | None, error: HoldfastError) -> None:
        status = exit_status(error)
        self._status = max(self._status, status, key=_WORST_LAST.index)
        if self._as_json:
            emit({"event": "failed", "file": name, "code": error.code, "message": error.message})
        self._screen.say(f"holdfast: {name}: {error.message}" if name else f"holdfast: {error.message}")

    async def _signals(self, transfers: Sequence[Transfer[Result]]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._paused:
                    os._exit(PAUSED)
                self._paused = True
                with suppress(OSError):
                    self._screen.say("Stopping; once more to leave at once.")
                for transfer in transfers:
                    transfer.cancel()


def exit_status(error: HoldfastError) -> int:
    """What a failed transfer makes of the exit status: 1, 3 or 4; 2 for an argument that made no sense."""
    match error:
        case VerificationFailed():
            return 3
        case ServerRefused(retryable=False):
            return 4
        case _:
            return 1
