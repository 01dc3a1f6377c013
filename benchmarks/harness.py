"""What every family works with: the size and rounds it was given, turns, a source, the load, and what goes wrong.

Rule of this file: every row has its turn in each round before the next round begins, and each round begins with another
row. No round is begun that would go beyond the family's time. What fails is written down and is not tried again.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.load.wire import RefusedError
from benchmarks.peers import Peer, installed, missing
from benchmarks.processes import FailedError, Running, Spent, spend
from benchmarks.report import Report, Sample, Table
from benchmarks.units import MIB

LOAD_LIMIT: Final = 300.0
"""Seconds that one job of the load may take."""
STORED_LIMIT: Final = 30.0
"""Seconds that a server may take to put parts together after it has answered."""
ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass
class Bench:
    """One run of one family. `size` is in bytes, `limit` in seconds, `folder` on the disk that is measured."""

    size: int
    rounds: int
    limit: float
    folder: Path
    sources: Path
    """Where files of random bytes are kept for all families of a run."""
    memory: Path | None = None
    """A folder on a tmpfs, if there is one."""
    expect: Callable[[int], None] = lambda count: None
    """Told how many measurements are to come."""
    advance: Callable[[str], None] = lambda words: None
    """Told what is measured next."""
    failed: list[str] = field(default_factory=list)
    """Rows of ours that failed, in words."""

    def turns(self, rows: Sequence[str], cases: Sequence[str] = ("",)) -> Iterator[tuple[str, str]]:
        """Case and row of each measurement."""
        self.expect(self.rounds * len(cases) * len(rows))
        began = time.monotonic()
        for turn in range(self.rounds):
            if turn and (time.monotonic() - began) * (turn + 1) / turn > self.limit:
                return
            for case in cases:
                for index in range(len(rows)):
                    row = rows[(index + turn) % len(rows)]
                    self.advance(f"{row}, {case}" if case else row)
                    yield case, row

    @contextlib.contextmanager
    def attempt(self, table: Table, case: str, row: str) -> Iterator[list[Sample]]:
        """The samples of a row, to add to; what goes wrong in the block becomes a row that says so."""
        samples = table.of(case, row)
        try:
            yield samples
        except (FailedError, RefusedError, OSError, subprocess.SubprocessError) as error:
            told = str(error)
            for place, name in ((self.folder, "DATA"), (ROOT, "."), (sys.prefix, "PYTHON")):
                told = told.replace(str(place), name)
            table.failures[case, row] = f"failed: {told}"
            samples.clear()
            if row.startswith("holdfast"):
                self.failed.append(f"{table.title}: {case}: {row}: {told}")

    @contextlib.contextmanager
    def emptied(self, folder: Path) -> Iterator[Path]:
        """A folder with nothing in it, which is gone afterwards."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def wanted(self, table: Table, case: str, row: str) -> bool:
        """Whether a row has not failed yet."""
        return (case, row) not in table.failures

    def source(self, size: int) -> Path:
        """A file of random bytes, in the page cache."""
        path = self.sources / f"source-{size}"
        if not path.exists():
            block = os.urandom(min(size, 4 * MIB))
            with path.open("wb") as file:
                for written in range(0, size, len(block)):
                    file.write(block[: min(len(block), size - written)])
                os.fsync(file.fileno())
        return path


def absent(report: Report, names: Sequence[str]) -> None:
    """Write down which of these are not installed, and why."""
    report.absent += [reason for name in names if (reason := missing(name)) is not None]


def taking_part(report: Report, peers: Sequence[Peer]) -> dict[str, Peer]:
    """Those that are installed, by name; the others are written down."""
    absent(report, [peer.name for peer in peers])
    return {peer.name: peer for peer in installed(peers)}


class Load:
    """The load as a process, at work on a job from the moment that this is made."""

    def __init__(self, kind: str, **job: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, **job}) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What came out; a job that goes on for ever ends now. Raises FailedError for what the load says went wrong."""
        try:
            told, _ = self._process.communicate(timeout=LOAD_LIMIT)
        finally:
            self._process.kill()
            self._process.wait()
        result: dict[str, Any] = json.loads(told or '{"error": "the load has died"}')
        if "error" in result:
            raise FailedError(result["error"])
        return result


def load(server: Running, kind: str, *, writes: int = 0, **job: Any) -> tuple[dict[str, Any], Sample]:
    """Run one job against a server, which writes about so many bytes; its result, and a sample of it without its
    work.
    """
    with server.metered(writes) as meter:
        result = Load(kind, port=server.port, **job).result()
    return result, Sample(result["seconds"], cpu=meter.cpu, memory=meter.memory, load=result["cpu"])


def check_stored(data: Path, count: int, length: int) -> None:
    """Raises FailedError unless there are `count` files or more of `length` bytes in `data`, none of them with
    holes."""
    if (found := _stored(data, length)) < count:
        raise FailedError(f"{found} files of {length} bytes are stored, not {count}")


def wait_stored(data: Path, length: int) -> float:
    """The seconds until a file of `length` bytes is there: a server may answer before it has put all parts together.

    Raises FailedError if it does not come within `STORED_LIMIT`.
    """
    began = time.perf_counter()
    while not _stored(data, length) and time.perf_counter() - began < STORED_LIMIT:
        time.sleep(0.01)
    check_stored(data, 1, length)
    return time.perf_counter() - began


def _stored(data: Path, length: int) -> int:
    """How many files of `length` bytes are there."""
    found = 0
    for path in data.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found += path.is_file() and status.st_size == length and status.st_blocks * 512 >= length
    return found


def command(
    server: Running,
    words: Sequence[str],
    folder: Path,
    *,
    writes: int = 0,
    then: Callable[[], float] = lambda: 0.0,
    **more: Any,
) -> tuple[Spent, Sample]:
    """Run a command against a server, with which about so many bytes are written; what it used, and a sample that has
    its costs, those of the server as `load`. `then` waits for what the server does after its answer: the seconds that
    it gives count, too.
    """
    with server.metered(writes) as meter:
        spent = spend(words, folder, **more)
        seconds = spent.seconds + then()
    return spent, Sample(seconds, cpu=spent.cpu, memory=spent.memory, load=meter.cpu)
