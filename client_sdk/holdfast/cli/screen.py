"""What the command line shows: bars on a terminal (bars.py), plain lines elsewhere, events as JSON.

Rule of this file: standard output carries results alone (one URL or path a line, or with --json one event a line), so
that scripts can read it. All that is for people goes to standard error, and nothing of it can steer a terminal,
whatever a file is called or a server says.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

import click
from msgspec import Struct

from holdfast.progress import Progress, State

LINE_EVERY: Final = 5.0
EVENT_EVERY: Final = 0.5
MANY: Final = 20
"""Files; of more than so many, lines tell the sum, and of single ones only what went wrong."""


class Overall(Struct, frozen=True):
    """One look at all that a command was asked to transfer. Sizes in bytes, times in seconds."""

    total: int
    done: int = 0
    failed: int = 0
    active: int = 0
    """On their way, or between two attempts."""
    size: int | None = None
    """Of all of them; None if it is not known beforehand."""
    accepted: int = 0
    fraction: float = 0.0
    """By bytes, or by files if not all sizes are known."""
    speed: float = 0.0
    eta: float | None = None

    @property
    def left(self) -> int:
        """Those that have neither been completed nor failed."""
        return self.total - self.done - self.failed

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        size = human(self.accepted) if self.size is None else f"{human(self.accepted)} of {human(self.size)}"
        left = "" if self.eta is None else f", {clock(self.eta)} to go"
        return f"{self.done} of {self.total} done{failed}: {size} ({self.fraction:.0%}), {human(self.speed)}/s{left}"


class Screen(Protocol):
    """Where progress is shown. Transfers go by the number of their job: names may come twice."""

    def __enter__(self) -> "Screen": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, job: int, name: str, progress: Progress) -> None:
        """The newest snapshot of a transfer."""
        ...

    def show_all(self, overall: Overall) -> None:
        """The newest look at all of them; some times a second."""
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

    def show(self, job: int, name: str, progress: Progress) -> None:
        return None

    def show_all(self, overall: Overall) -> None:
        return None

    def say(self, sentence: str) -> None:
        say(sentence)

    def result(self, line: str) -> None:
        click.echo(printable(line) if sys.stdout.isatty() else line)


class Lines(Silent):
    """For each of some few transfers a line every few seconds, and one for each change of its state; for many their sum
    every few seconds."""

    def __init__(self, jobs: int) -> None:
        self._many = jobs > MANY
        self._shown: dict[int, tuple[float, str, str | None]] = {}
        self._summed = time.monotonic()

    def show(self, job: int, name: str, progress: Progress) -> None:
        now, doing = time.monotonic(), doing_of(progress)
        then, before, note = self._shown.get(job, (now - LINE_EVERY, State.PENDING, None))
        if progress.state.final:
            self._shown.pop(job, None)
        if progress.state in (State.FAILED, State.CANCELLED):
            return
        trouble = progress.note is not None and progress.note != note
        if progress.state in (State.PENDING, State.STARTING) and not trouble:
            return
        if self._many and not trouble:
            return
        if doing == before and not trouble and now - then < LINE_EVERY:
            if progress.note is None and note is not None:
                self._shown[job] = (then, before, note)  # said once, also if it comes and goes
            return
        # While a transfer fails and goes on in turn, it does not say so more often than once a second.
        if trouble and doing == before and now - then < 1.0:
            return
        self._shown[job] = (now, doing, progress.note)
        self.say(f"{name}: {_sentence(progress)}")

    def show_all(self, overall: Overall) -> None:
        now = time.monotonic()
        if self._many and now - self._summed >= LINE_EVERY:
            self._summed = now
            self.say(str(overall))


class Events(Silent):
    """One JSON object a line on standard output."""

    def __init__(self) -> None:
        self._shown: dict[int, tuple[float, str, str | None]] = {}

    def show(self, job: int, name: str, progress: Progress) -> None:
        if progress.state.final:
            self._shown.pop(job, None)
            return
        now, doing = time.monotonic(), doing_of(progress)
        then, before, note = self._shown.get(job, (0.0, State.PENDING, None))
        if doing == before and progress.note == note and now - then < EVENT_EVERY:
            return
        self._shown[job] = (now, doing, progress.note)
        emit(
            {
                "event": "progress",
                "file": name,
                "state": progress.state,
                "step": progress.step,
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


def choose(jobs: int, *, quiet: bool, as_json: bool) -> Screen:
    """The screen that fits so many jobs: JSON if asked for, bars on a terminal that can move its cursor, plain lines
    elsewhere; also where CI is set, whose terminals are read later, as files."""
    if as_json:
        return Events()
    if quiet:
        return Silent()
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    if in_ci or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return Lines(jobs)
    # Scripts do not need rich.
    from holdfast.cli.bars import Bars

    return Bars(jobs)


def emit(event: dict[str, object]) -> None:
    """One event on standard output, at once."""
    click.echo(json.dumps(event, ensure_ascii=True, separators=(",", ":")))


class _Warnings(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._say(f"holdfast: {self.format(record)}")
        except Exception:
            self.handleError(record)


def say(sentence: str) -> None:
    """A sentence for people, where there are no bars."""
    click.echo(printable(sentence), err=True)


def show_warnings(say: Callable[[str], None] = say) -> None:
    """Let warnings of the library be said, one line each."""
    log = logging.getLogger("holdfast")
    for handler in [each for each in log.handlers if isinstance(each, _Warnings)]:
        log.removeHandler(handler)
    if not log.handlers:
        log.addHandler(_Warnings(say))
        log.propagate = False


def human(size: float) -> str:
    """A size for people: `8.0 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def clock(seconds: float) -> str:
    """A time for people: `0:07`, `12:05`, `3:02:11`, `4 days`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """The same text, without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def doing_of(progress: Progress) -> str:
    """What it is at, in a word: its state, or the step of the server's that is a part of that."""
    return progress.step or progress.state


def _sentence(progress: Progress) -> str:
    match progress.state:
        case State.COMPLETED:
            return f"done, {human(progress.accepted)} in {progress.elapsed:.1f} s"
        case State.VERIFYING:
            return doing_of(progress)
        case State.PAUSED:
            return "paused"
        case _ if progress.note is not None and progress.concurrency == 0:
            return progress.note
    whole = "?" if progress.size is None else human(progress.size)
    left = "" if progress.eta is None else f", {clock(progress.eta)} to go"
    percent = "" if progress.size is None else f" ({progress.fraction:.0%})"
    note = "" if progress.note is None else f"; {progress.note}"
    return f"{human(progress.accepted)} of {whole}{percent}, {human(progress.speed)}/s{left}{note}"
