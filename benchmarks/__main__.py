"""The command line of the benchmarks: `python -m benchmarks --size 1GiB --rounds 5 --only ingest,downloads`.

Rule of this file: a family is a module with `run(Bench) -> Report`, listed in FAMILIES. Each is bounded in time: no
round begins that would go beyond --limit. What was measured goes to benchmarks/results; `make benchpage` publishes
it.
"""

import argparse
import compileall
import importlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import page, plot
from benchmarks.harness import ROOT, Bench
from benchmarks.report import Report, file_system
from benchmarks.units import parse_size, size_text

FAMILIES: Final = (
    "ingest",
    "rivals",
    "chunks",
    "small",
    "state",
    "concatenation",
    "downloads",
    "clients",
    "shaped",
    "adaptive",
    "recovery",
    "memory",
    "hashing",
    "latency",
    "live",
    "slow",
    "trust",
    "limits",
)
PACKAGES: Final = ("protocol", "client_sdk", "server")
RESULTS: Final = ROOT / "benchmarks" / "results"
ROOM: Final = 4
"""How many times `size` a family may need on the disk."""


def by_family(text: str) -> dict[str, str]:
    """`1GiB,memory=256MiB`: values by family, and one for all others under an empty name. Raises ValueError."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.rpartition("=")
        if equals and name not in FAMILIES:
            raise ValueError(f"{name!r} is no family; there are {', '.join(FAMILIES)}")
        found[name] = value
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    several = "; name=value after a comma for one family"
    parser.add_argument("--size", default="1GiB", help=f"bytes moved in one measurement{several}")
    parser.add_argument("--rounds", default="5", help=f"turns of every row, 5 for a median to speak of{several}")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds after which a family begins no new round")
    parser.add_argument("--only", default="", help=f"families, with commas: {', '.join(FAMILIES)}")
    parser.add_argument("--data", type=Path, default=ROOT / ".cache", help="where to make a folder for the data")
    parser.add_argument(
        "--publish", action="store_true", help="measure nothing; write docs/benchmarks.md of the results"
    )
    options = parser.parse_args()
    try:
        options.sizes = {name: parse_size(value) for name, value in by_family(options.size).items()}
        options.turns = {name: int(value) for name, value in by_family(options.rounds).items()}
    except ValueError as error:
        parser.error(str(error))
    options.families = options.only.split(",") if options.only else list(FAMILIES)
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    return options


@contextmanager
def shown(name: str, bench: Bench) -> Iterator[None]:
    """A bar on a terminal while a family runs."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)

        def expect(count: int) -> None:
            progress.update(task, total=(progress.tasks[0].total or 0) + count)

        def advance(words: str) -> None:
            progress.update(task, advance=1, description=f"{name}: {words}"[:70])

        bench.expect, bench.advance = expect, advance
        yield


def measure(name: str, bench: Bench) -> Report:
    began = time.monotonic()
    with shown(name, bench):
        report: Report = importlib.import_module(f"benchmarks.families.{name}").run(bench)
    report.size, report.rounds, report.seconds = bench.size, bench.rounds, time.monotonic() - began
    return report


def save(report: Report, data: Path) -> str:
    """Write JSON, Markdown and plots into benchmarks/results; the Markdown."""
    pictures: dict[str, list[tuple[str, str]]] = {}
    folder = RESULTS / page.PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for table in report.tables:
        for name, words, drawn in plot.plots(table):
            (folder / f"{name}.svg").write_text(drawn)
            pictures.setdefault(table.name, []).append((f"{page.PICTURES}/{name}.svg", words))
    markdown = report.markdown(pictures)
    report.save(RESULTS, markdown, data)
    return markdown


def main() -> int:
    options = arguments()
    if options.publish:
        return page.publish(RESULTS, FAMILIES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.data))
    shared = Path("/dev/shm")
    memory = Path(tempfile.mkdtemp(prefix="bench-", dir=shared)) if file_system(shared) == "tmpfs" else None
    failed: list[str] = []
    for package in PACKAGES:
        # As pip does where it installs one: a command that is compiled anew each time is not what users start.
        compileall.compile_dir(ROOT / package, quiet=1)
    try:
        for name in options.families:
            size = options.sizes.get(name, options.sizes.get("", parse_size("1GiB")))
            rounds = options.turns.get(name, options.turns.get("", 5))
            if shutil.disk_usage(folder).free < ROOM * size:
                print(f"{folder} has no room for {size_text(ROOM * size)}; say DATA=folder", file=sys.stderr)
                return 1
            bench = Bench(size, rounds, options.limit, folder, folder, memory)
            report = measure(name, bench)
            failed += bench.failed
            print(save(report, folder), flush=True)
            print(f"{name}: {report.seconds:.0f} s\n", file=sys.stderr, flush=True)
    finally:
        for each in (folder, memory):
            if each is not None:
                shutil.rmtree(each, ignore_errors=True)
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
