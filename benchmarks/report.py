"""Samples, and the tables that are made of them.

    Sample    one measurement
    Measure   a figure that is read off a sample: its name, its unit, whether more is better
    Table     cases x peers: ratios of medians first, then medians with their spread
    Report    the tables of one family, with what is needed to judge them

Rule of this file: a ratio compares two medians of one table, so of one run on one machine, and never anything else.
A case that failed is a row that says so; no figure stands in for it.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import Peer, versions
from benchmarks.units import GIB, MIB, size_text


@dataclass(frozen=True)
class Sample:
    """One measurement. `work` is what was done in `seconds`, in bytes or in pieces.

    `cpu` (seconds) and `memory` (bytes at the highest) are those of what is measured, `load` the CPU seconds of the
    other side of the connection; None: not measured here. `more` are further figures by name.
    """

    seconds: float
    work: float = 0.0
    cpu: float | None = None
    memory: int | None = None
    load: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A figure of a sample. With `ratio` it has a column that compares it with that of the base."""

    title: str
    unit: str
    of: Callable[[Sample], float | None]
    ratio: bool = False
    more_is_better: bool = False
    plotted: bool = False


def _per(value: float | None, work: float, scale: float) -> float | None:
    return None if value is None or not work else value * scale / work


def rate(unit: str = "MiB/s", scale: float = MIB, title: str = "speed") -> Measure:
    """Work per second."""
    return Measure(title, unit, lambda s: s.work / s.seconds / scale, ratio=True, more_is_better=True, plotted=True)


def cpu(unit: str = "s/GiB", scale: float = GIB, of: str = "server") -> Measure:
    """CPU for work, of what is measured."""
    return Measure(f"CPU of the {of}", unit, lambda s: _per(s.cpu, s.work, scale), ratio=True, plotted=True)


def load(unit: str = "s/GiB", scale: float = GIB, of: str = "load") -> Measure:
    """CPU for work, of the other side."""
    return Measure(f"CPU of the {of}", unit, lambda s: _per(s.load, s.work, scale))


def more(
    name: str, title: str, unit: str, *, ratio: bool = False, plotted: bool = False, more_is_better: bool = False
) -> Measure:
    """A further figure."""
    return Measure(title, unit, lambda s: s.more.get(name), ratio=ratio, plotted=plotted, more_is_better=more_is_better)


MEMORY: Final = Measure("peak memory", "MiB", lambda s: None if s.memory is None else s.memory / MIB)
SECONDS: Final = Measure("time", "s", lambda s: s.seconds, ratio=True, plotted=True)

TRANSFER: Final = (rate(), cpu(), MEMORY, load())
"""What is told of a server that bytes are sent to or read from."""


def median(samples: Sequence[Sample], measure: Measure) -> float | None:
    """The median of a figure; None if it was not measured in every sample, or there is no sample."""
    values = [measure.of(sample) for sample in samples]
    found = [value for value in values if value is not None]
    return statistics.median(found) if found and len(found) == len(values) else None


def spread(samples: Sequence[Sample], measure: Measure) -> tuple[float, float] | None:
    """The lowest and the highest."""
    found = [value for sample in samples if (value := measure.of(sample)) is not None]
    return (min(found), max(found)) if found else None


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` in units of `base`; None if one of them is not known or nothing can be said."""
    return None if value is None or not base else value / base


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all are not above. Raises ValueError if there are none."""
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * len(ordered) * 1_000_000) // 1_000_000) - 1)]


def number(value: float | None) -> str:
    """Three digits that count, `-` for what is not known."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"


@dataclass
class Table:
    """Samples by case and row. What the others are compared with is `base`, or the first row where that is missing."""

    name: str
    """Ends the names of its plots: letters and hyphens."""
    title: str
    measures: Sequence[Measure]
    base: str
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By row: durability and checksum, or whatever `fact_titles` says."""
    fact_titles: tuple[str, ...] = ("synced before the answer", "checksum")
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    axis: str = ""
    """What the cases are, with its unit, where they are numbers: then the plot is of lines over `places`."""
    places: dict[str, float] = field(default_factory=dict)
    drawings: list[tuple[str, str, str]] = field(default_factory=list)
    """Plots of another kind: the end of a file name, words that say what is shown, and the SVG."""

    def of(self, case: str, row: str) -> list[Sample]:
        return self.samples.setdefault(case, {}).setdefault(row, [])

    def say(self, peers: Sequence[Peer]) -> None:
        """Durability and checksum of each of these."""
        self.facts |= {peer.name: (peer.durability, peer.checksum) for peer in peers}

    def base_of(self, case: str) -> str | None:
        rows = [row for row, samples in self.samples[case].items() if samples]
        return self.base if self.base in rows else rows[0] if rows else None

    def markdown(self) -> list[str]:
        """The lines of the table. Ratios first."""
        titles = ["case", "who", *(self.fact_titles if self.facts else ())]
        titles += [f"{measure.title}, ratio" for measure in self.measures if measure.ratio]
        titles += [f"{measure.title}, {measure.unit}".removesuffix(", ") for measure in self.measures]
        titles.append("rounds")
        lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
        for case, by_row in self.samples.items():
            base = self.base_of(case)
            for row, samples in by_row.items():
                cells = [case, row, *self.facts.get(row, ("-",) * len(self.fact_titles) if self.facts else ())]
                if samples:
                    cells += self._figures(samples, by_row[base] if base else [])
                else:
                    told = self.failures.get((case, row), "was not measured").splitlines() or [""]
                    cells += [told[0].replace("|", "/")[:160], *[""] * (len(titles) - len(cells) - 1)]
                lines.append(f"| {' | '.join(cells)} |")
        return lines

    def _figures(self, samples: Sequence[Sample], base: Sequence[Sample]) -> list[str]:
        compared = [measure for measure in self.measures if measure.ratio]
        cells = [number(ratio(median(samples, measure), median(base, measure))) for measure in compared]
        for measure in self.measures:
            told = number(median(samples, measure))
            between = spread(samples, measure)
            if measure.ratio and between is not None and len(samples) > 1:
                told += f" ({number(between[0])}-{number(between[1])})"
            cells.append(told)
        return [*cells, str(len(samples))]

    def document(self) -> dict[str, Any]:
        """All samples, for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "base": self.base,
            "facts": self.facts,
            "samples": {
                case: {row: [sample_document(sample) for sample in samples] for row, samples in by_row.items()}
                for case, by_row in self.samples.items()
            },
            "failures": [{"case": case, "row": row, "why": why} for (case, row), why in self.failures.items()],
        }


def sample_document(sample: Sample) -> dict[str, Any]:
    return {
        "seconds": sample.seconds,
        "work": sample.work,
        "cpu": sample.cpu,
        "memory": sample.memory,
        "load": sample.load,
        **sample.more,
    }


@dataclass
class Report:
    """What one family measured. `absent` are the reasons why somebody did not take part."""

    family: str
    title: str
    note: str
    tables: list[Table] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    size: int = 0
    rounds: int = 0
    seconds: float = 0.0

    def markdown(self, pictures: Mapping[str, Sequence[tuple[str, str]]]) -> str:
        """The section of this family. `pictures` are the plots of each table by its name: path and words for it."""
        lines = [f"## {self.title}", "", self.note, ""]
        lines += [f"SIZE={size_text(self.size).replace(' ', '')}, ROUNDS={self.rounds}, {time.strftime('%Y-%m-%d')}."]
        if self.absent:
            lines += ["", f"Not there: {'; '.join(dict.fromkeys(self.absent))}."]
        for table in self.tables:
            lines += ["", f"### {table.title}", ""]
            bases = dict.fromkeys(base for case in table.samples if (base := table.base_of(case)))
            if bases and any(measure.ratio for measure in table.measures):
                lines += [f"Ratios are to {' or '.join(bases)}.", ""]
            lines += [f"![{words}]({path})" for path, words in pictures.get(table.name, ())]
            lines += ["", *table.markdown()]
        return "\n".join(lines) + "\n"

    def document(self, folder: Path) -> dict[str, Any]:
        """All that was measured, for JSON; `folder` is where the data lay."""
        return {
            "family": self.family,
            "size": self.size,
            "rounds": self.rounds,
            "seconds": round(self.seconds, 1),
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(folder),
            "versions": versions(),
            "absent": self.absent,
            "tables": [table.document() for table in self.tables],
        }

    def save(self, folder: Path, markdown: str, data: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.family}.md").write_text(markdown)
        (folder / f"{self.family}.json").write_text(json.dumps(self.document(data), indent=1) + "\n")


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on: `ext4`, `tmpfs`."""
    if not shutil.which("stat"):
        return "unknown"
    told = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    kind = told.stdout.strip()
    return "ext4" if kind == "ext2/ext3" else kind or "unknown"


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were measured on. The load is the average of the last minute before this call."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
