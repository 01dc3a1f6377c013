"""What thousands of slow connections cost others: one stream and small files, alone and beside them, on one server.

Rule of this file: all rounds of a row are of the same server: a turn that does not count, half of those alone, those
beside, and the other half of those alone, so that nobody pays for what is done once, or for what changes on the machine
meanwhile. The load of the slow ones is a process of its own; they come once, since to wait for them takes most of the
time. Others are measured once the first seconds of the slow ones are over, and before the server lets them go; as many
as were there at the beginning have to be there at the end.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from benchmarks.families.small import BYTES, CLIENTS, SECONDS
from benchmarks.harness import ROOT, Bench, load, taking_part
from benchmarks.peers import RUSTUS, TUSD_PEER, holdfast
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import MEMORY, Measure, Report, Sample, Table, cpu, rate
from benchmarks.units import size_text

CONNECTIONS: Final = 4000
SETTLE: Final = 12.0
"""Seconds after which they are no news for the server any more; it lets them go after about thirty."""
SHARE: Final = 4
"""Of the bytes that others send as one stream: all that was sent to a server is kept until it ends."""
ALONE: Final = "alone"
BESIDE: Final = f"beside {CONNECTIONS:,} slow connections"
NOTE: Final = (
    f"{CONNECTIONS:,} connections from 64 addresses send a byte a second each: half of them heads that do not end, "
    f"half bodies. Speed of one stream, and of files of {size_text(BYTES)} from {CLIENTS} clients in one request each, "
    "before they come, while they are there and when they have gone. On a tmpfs where there is one. The processes that "
    "play the slow ones share the cores with both."
)


@contextlib.contextmanager
def slow_clients(server: Running) -> Iterator[dict[str, Any]]:
    """Filled, when the block has ended, with what became of them. Raises FailedError if they cannot connect."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load.slow", f"http://127.0.0.1:{server.port}", str(CONNECTIONS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    found: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise FailedError("the slow connections could not be made")
        time.sleep(SETTLE)
        yield found
        told, _ = process.communicate("", timeout=60)
        found |= json.loads(told)
        if found["open"] < 0.9 * CONNECTIONS:
            raise FailedError(f"only {found['open']} slow connections were there: {found['ended']}")
    finally:
        process.kill()
        process.wait()


def measure(bench: Bench, server: Running, case: str, size: int) -> Sample:
    """One `stream` of `size` bytes, or `small` files."""
    peer = server.peer
    if case == "stream":
        _, sample = load(
            server,
            "streams",
            writes=size,
            collection=peer.collection,
            fields=peer.fields,
            source=str(bench.source(size)),
            size=size,
            count=1,
            piece=0,
        )
        return replace(sample, work=size)
    result, sample = load(
        server,
        "files",
        collection=peer.collection,
        way="one",
        size=BYTES,
        clients=CLIENTS,
        limit=SECONDS,
        most=max(2 * CLIENTS, size // (128 * 1024)),
        fields=peer.fields,
    )
    return replace(sample, work=result["files"])


def turns(bench: Bench, server: Running, size: int, count: int, samples: Mapping[str, list[Sample]]) -> None:
    """So many turns of each case."""
    for _ in range(count):
        for case, found in samples.items():
            found.append(measure(bench, server, case, size))


def _tables(report: Report, size: int) -> dict[str, Table]:
    stream: tuple[Measure, ...] = (rate(), cpu(), MEMORY)
    small: tuple[Measure, ...] = (rate("files/s", 1), cpu("s/1,000 files", 1000), MEMORY)
    tables = {
        "stream": Table("slow-stream", f"One stream, {size_text(size)}", stream, base=ALONE),
        "small": Table("slow-small", "Small files", small, base=ALONE),
    }
    report.tables += tables.values()
    return tables


def run(bench: Bench) -> Report:
    report = Report("slow", "Beside slow connections", NOTE)
    there = taking_part(report, [holdfast("os"), holdfast("os", workers=2), TUSD_PEER, RUSTUS])
    size = bench.size // SHARE
    tables = _tables(report, size)
    for table in tables.values():
        table.say(list(there.values()))
    bench.expect(len(there))
    for row in there:
        bench.advance(row)
        with contextlib.ExitStack() as attempts:
            samples = {
                (case, state): attempts.enter_context(bench.attempt(table, row, state))
                for case, table in tables.items()
                for state in (ALONE, BESIDE)
            }
            alone: dict[str, list[Sample]] = {case: samples[case, ALONE] for case in tables}
            beside: dict[str, list[Sample]] = {case: [] for case in tables}
            server = attempts.enter_context(running(there[row], bench.memory or bench.folder))
            turns(bench, server, size, 1, {case: [] for case in tables})
            turns(bench, server, size, bench.rounds - bench.rounds // 2, alone)
            with slow_clients(server):
                turns(bench, server, size, bench.rounds, beside)
            for case, found in beside.items():
                samples[case, BESIDE] += found  # only now it is known that the slow ones were there
            server.settle()
            turns(bench, server, size, bench.rounds // 2, alone)
    return report
