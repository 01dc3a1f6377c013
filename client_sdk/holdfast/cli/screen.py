"""What the command line shows: bars on a terminal, plain lines elsewhere, events as JSON.

Rule of this file: standard output carries results alone (one URL or path a line, or with --json one event a line), so
that scripts can read it. All that is for people goes to standard error.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from holdfast.progress import Part, Progress, State

LINE_EVERY: Final = 5.0
EVENT_EVERY: Final = 0.5


class Screen(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> "Screen": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, name: str, progress: Progress) -> None:
        """The newest snapshot of a transfer."""
        ...

    def say(self, sentence: str) -> None:
        """A sentence for people, about this run."""
        ...

    def result(self, line: str) -> None:
        """A line for standard output."""
        ...


class Silent:
    """Shows nothing but errors and what must be known."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, name: str, progress: Progress) -> None:
        return None

    def say(self, sentence: str) -> None:
        click.echo(sentence, err=True)

    def result(self, line: str) -> None:
        click.echo(line)


class Lines(Silent):
    """A line for each transfer every few seconds, and one for each change of its state."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, State, str | None]] = {}

    def show(self, name: str, progress: Progress) -> None:
        now = time.monotonic()
        then, state, note = self._shown.get(name, (now - LINE_EVERY, State.PENDING, None))
        news = progress.state is not state and progress.state is not State.STARTING
        if not news and progress.note == note and now - then < LINE_EVERY:
            return
        if progress.state in (State.PENDING, State.STARTING, State.FAILED, State.CANCELLED):
            return
        # While a transfer fails and goes on in turn, each sentence is said once and the rest is rate limited.
        if state is State.IN_PROGRESS and progress.state is State.IN_PROGRESS:
            if progress.note is None and now - then < LINE_EVERY:
                self._shown[name] = (then, progress.state, note)
                return
            if progress.note is not None and now - then < 1.0:
                return
        self._shown[name] = (now, progress.state, progress.note)
        click.echo(f"{name}: {_sentence(progress)}", err=True)


class Bars:
    """A bar for each transfer, on a terminal; for the only one also a bar for each connection of a download."""

    def __init__(self) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
            speed_estimate_period=10,
            # They would send to standard error what is for standard output.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._results: list[str] = []
        self._tasks: dict[str, TaskID] = {}
        self._parts: list[TaskID] = []

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        for line in self._results:
            click.echo(line)

    def show(self, name: str, progress: Progress) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(escape(name.rstrip("/").rpartition("/")[2]), total=None, note="")
        # Here only Ctrl-C cancels, and what it cancels goes on with the next run of the command.
        word = "paused" if progress.state is State.CANCELLED else str(progress.state)
        note = progress.note or ("" if progress.state is State.IN_PROGRESS else word)
        self._bars.update(self._tasks[name], total=progress.size, completed=progress.accepted, note=escape(note))
        self._show_parts(progress.parts if len(self._tasks) == 1 and len(progress.parts) > 1 else ())

    def _show_parts(self, parts: Sequence[Part]) -> None:
        while len(self._parts) < len(parts):
            self._parts.append(self._bars.add_task("", total=None, note="", visible=False))
        for task, part in zip(self._parts, parts, strict=False):
            name = f"  from {human(part.start)}"
            size, there = part.end - part.start, part.at - part.start
            self._bars.update(task, description=name, total=size, completed=there, visible=True)
        for task in self._parts[len(parts) :]:
            self._bars.update(task, visible=False)

    def say(self, sentence: str) -> None:
        self._bars.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def result(self, line: str) -> None:
        # Where both go to one terminal the line would end up inside a bar.
        if sys.stdout.isatty():
            self._results.append(line)
        else:
            click.echo(line)


class Events(Silent):
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, State, str | None]] = {}

    def show(self, name: str, progress: Progress) -> None:
        if progress.state.final:
            return
        now = time.monotonic()
        then, state, note = self._shown.get(name, (0.0, State.PENDING, None))
        if progress.state is state and progress.note == note and now - then < EVENT_EVERY:
            return
        self._shown[name] = (now, progress.state, progress.note)
        emit(
            {
                "event": "progress",
                "file": name,
                "state": progress.state,
                "size": progress.size,
                "accepted": progress.accepted,
                "wire": progress.wire,
                "fraction": round(progress.fraction, 6),
                "speed": round(progress.speed),
                "eta": None if progress.eta is None else round(progress.eta, 1),
                "seconds": round(progress.elapsed, 3),
                "retries": progress.retries,
                "concurrency": progress.concurrency,
                "chunk_size": progress.chunk_size,
                "note": progress.note,
            }
        )


def choose(*, quiet: bool, as_json: bool) -> Screen:
    """The screen that fits: JSON if asked for, bars on a terminal, plain lines elsewhere."""
    if as_json:
        return Events()
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def emit(event: dict[str, object]) -> None:
    """One event on standard output, at once."""
    click.echo(json.dumps(event, ensure_ascii=True, separators=(",", ":")))


def show_warnings() -> None:
    """Let warnings of the library appear on standard error, one line each."""
    log = logging.getLogger("holdfast")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("holdfast: %(message)s"))
        log.addHandler(handler)
        log.propagate = False


def human(size: float) -> str:
    """A size for people: `8.0 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _sentence(progress: Progress) -> str:
    match progress.state:
        case State.COMPLETED:
            return f"done, {human(progress.accepted)} in {progress.elapsed:.1f} s"
        case State.VERIFYING:
            return "verifying"
        case State.PAUSED:
            return "paused"
        case State.IN_PROGRESS if progress.note is not None and progress.concurrency == 0:
            return progress.note
    whole = "?" if progress.size is None else human(progress.size)
    left = "" if progress.eta is None else f", {progress.eta:.0f} s to go"
    percent = "" if progress.size is None else f" ({progress.fraction:.0%})"
    note = "" if progress.note is None else f"; {progress.note}"
    return f"{human(progress.accepted)} of {whole}{percent}, {human(progress.speed)}/s{left}{note}"
