"""Bars on a terminal: one for each file that is on its way, and one for all of them.

Rule of this file: a bar is one line, whatever the width; what does not fit is left out, the least useful first. There
are never more lines than the terminal has, nor many: files that wait or have no room are a number. What has ended goes
up as its result or its error, and its bar goes.
"""

import os
import sys
from types import TracebackType
from typing import Final

import click
from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from holdfast.cli.screen import Overall, clock, doing_of, human, printable
from holdfast.progress import Part, Progress, State

SHOWN: Final = 8
"""Files with a bar of their own, and connections of the only one."""
PERCENT: Final = 4
COLUMNS: Final = {"eta": 10, "size": 17, "speed": 12}
"""Columns and their widths, the most useful first."""
LEAST_BAR: Final = 6
LARGEST_BAR: Final = 40
NAME: Final = range(8, 41)
"""Widths of names."""
MARGIN: Final = 3
"""Columns that stay empty: there a terminal shows the ^C that was typed, and a line that is full would become two."""


class Layout(Struct, frozen=True):
    """What fits into a line."""

    name: int
    bar: int
    """0 for none."""
    columns: frozenset[str]

    @classmethod
    def of(cls, width: int) -> "Layout":
        """For so many columns."""
        name = min(max(NAME.start, width // 4), NAME.stop - 1)
        left = width - name - 1 - PERCENT
        columns = set()
        for column, size in COLUMNS.items():
            if left - (size + 1) > LEAST_BAR:
                left -= size + 1
                columns.add(column)
        return cls(name, max(0, min(left - 1, LARGEST_BAR)), frozenset(columns))


def room_of(console: Console) -> int:
    """Columns that lines may fill."""
    return max(1, console.width - MARGIN)


class Bars:
    """See Screen."""

    def __init__(self, jobs: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._several = jobs > 1
        self._looks: dict[int, tuple[str, Progress]] = {}
        self._overall = Overall(jobs)
        self._live = Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            # They would send to standard error what is for standard output.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "Bars":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without bars nothing is left, not even an empty line.
        self._live.transient = not self._looks
        self._live.stop()

    def show(self, job: int, name: str, progress: Progress) -> None:
        over = progress.state is State.FAILED or (self._several and progress.state is State.COMPLETED)
        waits = progress.state is State.PENDING and progress.note is None
        never_begun = progress.state is State.CANCELLED and job not in self._looks
        if over or waits or never_begun:
            self._looks.pop(job, None)
        else:
            self._looks[job] = (name.rstrip("/").rpartition("/")[2], progress)

    def show_all(self, overall: Overall) -> None:
        self._overall = overall
        self._live.refresh()

    def say(self, sentence: str) -> None:
        self._console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)

    def result(self, line: str) -> None:
        if _same_terminal(sys.stdout, sys.stderr):
            self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(printable(line) if sys.stdout.isatty() else line)

    def _frame(self) -> RenderableType:
        width = room_of(self._console)
        layout = Layout.of(width)
        room = max(1, min(2 * SHOWN, self._console.height - 4))
        lines: list[RenderableType] = []
        shown = 0
        for name, progress in self._looks.values():
            rows = self._of_file(layout, name, progress)
            if shown == SHOWN or (lines and len(lines) + len(rows) > room):
                break
            lines += rows
            shown += 1
        if self._several and self._looks:
            lines.append(self._of_all(layout))
            if rest := self._rest(shown):
                lines.append(Text(rest, style="dim", no_wrap=True, overflow="ellipsis"))
        return Constrain(Group(*lines), width)

    def _of_file(self, layout: Layout, name: str, progress: Progress) -> list[RenderableType]:
        # Here only Ctrl-C cancels, and what it cancels goes on with the next run of the command.
        state = "paused" if progress.state is State.CANCELLED else doing_of(progress)
        moving = progress.state is State.IN_PROGRESS
        columns = {
            "size": amount(progress.accepted, progress.size),
            "speed": f"{human(progress.speed)}/s" if moving and progress.speed else "",
            "eta": ("" if progress.eta is None else clock(progress.eta)) if moving else state,
        }
        if progress.state is State.COMPLETED:
            columns["eta"] = f"in {clock(progress.elapsed)}"
        fraction = None if progress.size is None else progress.fraction
        rows: list[RenderableType] = [row(layout, name, fraction, columns, waits=not moving)]
        if progress.note is not None:
            rows.append(Text(f"  {printable(progress.note)}", style="yellow", no_wrap=True, overflow="ellipsis"))
        if not self._several and len(progress.parts) > 1:
            rows += [_of_part(layout, part) for part in progress.parts[:SHOWN]]
        return rows

    def _of_all(self, layout: Layout) -> RenderableType:
        overall = self._overall
        columns = {
            "size": amount(overall.accepted, overall.size),
            "speed": f"{human(overall.speed)}/s" if overall.speed else "",
            "eta": "" if overall.eta is None else clock(overall.eta),
        }
        name = f"{overall.done} of {overall.total} done"
        if len(name) > layout.name:
            name = f"{overall.done}/{overall.total}"
        return row(layout, name, overall.fraction, columns, style="bold")

    def _rest(self, shown: int) -> str:
        overall = self._overall
        more = len(self._looks) - shown
        numbers = {"more on their way": more, "waiting": overall.left - len(self._looks), "failed": overall.failed}
        return ", ".join(f"{number} {what}" for what, number in numbers.items() if number > 0)


def row(
    layout: Layout,
    name: str,
    fraction: float | None,
    columns: dict[str, str],
    *,
    style: str = "",
    waits: bool = False,
) -> RenderableType:
    """One line: a name, a bar, a percentage, and those of `columns` for which there is room.

    `fraction` is None for an unknown length, with a bar that moves unless it `waits`.
    """
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=layout.name, no_wrap=True)
    cells: list[RenderableType] = [Text(shortened(printable(name), layout.name), style=style)]
    if layout.bar:
        grid.add_column(width=layout.bar)
        total = None if fraction is None and not waits else 1.0
        cells.append(ProgressBar(total=total, completed=fraction or 0.0, width=layout.bar, finished_style="green"))
    grid.add_column(width=PERCENT, no_wrap=True, justify="right")
    cells.append(Text("" if fraction is None else f"{int(100 * fraction)}%", style=style))
    for column in ("size", "speed", "eta"):
        if column in layout.columns:
            grid.add_column(width=COLUMNS[column], no_wrap=True, justify="right", overflow="ellipsis")
            cells.append(Text(columns[column], style=style))
    grid.add_row(*cells)
    return grid


def _of_part(layout: Layout, part: Part) -> RenderableType:
    size, there = part.end - part.start, part.at - part.start
    columns = {"size": amount(there, size), "speed": "", "eta": ""}
    return row(layout, f"  at {human(part.start)}", there / size if size else 1.0, columns, style="dim")


def amount(there: int, size: int | None) -> str:
    """How much is there, of how much: `1.1/5.7 MiB`: at most 17 letters below 1 PiB."""
    if size is None:
        return human(there) if there else ""
    number, unit = human(size).split()
    step = ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)
    return f"{there / 1024**step:.{1 if step else 0}f}/{number} {unit}"


def shortened(name: str, width: int) -> str:
    """A name in so many columns: without its middle, because names begin and end with what tells them apart."""
    if cell_len(name) <= width:
        return name
    tail = ""
    for letter in reversed(name):
        if cell_len(letter + tail) > width // 3:
            break
        tail = letter + tail
    head = ""
    for letter in name:
        if cell_len(head + letter) > width - 1 - cell_len(tail):
            break
        head += letter
    return f"{head}…{tail}"


def _same_terminal(*files: object) -> bool:
    """What is written to one of them is read between what is written to the other."""
    try:
        devices = {os.fstat(each.fileno()).st_rdev for each in files}  # type: ignore[attr-defined]
        return len(devices) == 1 and all(each.isatty() for each in files)  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return False
