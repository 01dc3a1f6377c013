"""What it costs to ask for the state of an upload that has as many ranges as an upload can have.

Rule of this file: the ranges are written into the catalog of a running server by its own port, not sent, because
sending half a million chunks would measure something else. What is asked goes over HTTP.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from benchmarks.harness import Bench, load
from benchmarks.load.wire import Connection
from benchmarks.peers import holdfast
from benchmarks.processes import Running, running
from benchmarks.report import Report, Sample, Table, more, percentile
from benchmarks.units import GIB, KIB
from holdfast_server.catalog.sqlite import open_sqlite

GRANULES: Final = 1 << 20
"""P-CREATE-2: no upload has more. Every second one is stored: as many ranges as there can be."""
LENGTH: Final = 128 * GIB
GRANULE: Final = LENGTH // GRANULES
PER_RANGE: Final = 2 * KIB
"""One range at most for so many bytes of the size that was asked for."""
BATCH: Final = 20_000
ASKED: Final = 20
"""Requests in one measurement."""
NOTE: Final = (
    f"Every second granule of a sparse upload of 128 GiB is stored. More than {GRANULES // 2:,} ranges no upload "
    f"can have (P-CREATE-2). `JSON` is `/api/uploads/{{id}}` with 1,000 ranges a page. Beside it an upload with one "
    "range."
)


async def _fill(catalog: Path, upload: str, ranges: Sequence[tuple[int, int]]) -> None:
    async with open_sqlite(catalog, durability="os") as opened:
        for begin in range(0, len(ranges), BATCH):
            await opened.commit(upload, ranges[begin : begin + BATCH], now=time.time(), expires=None)


def _upload(server: Running, count: int) -> str:
    """The path of an upload with so many ranges."""
    with Connection(server.port) as connection:
        fields = (f"Upload-Length: {LENGTH}", "Upload-Parallel: ?1")
        location = connection.tus("POST", server.peer.collection, *fields).expect(201).location
    ranges = [(2 * index * GRANULE, (2 * index + 1) * GRANULE) for index in range(count)]
    anyio.run(_fill, server.data / "catalog.sqlite", location.rpartition("/")[2], ranges)
    return location


def run(bench: Bench) -> Report:
    report = Report("state", "State of an upload", NOTE)
    count = max(1000, min(GRANULES // 2, bench.size // PER_RANGE))
    rows = {"1 range": 1, f"{count:,} ranges": count}
    median = more("p50", "time of a request, median", "ms", ratio=True, plotted=True)
    worst = more("max", "slowest", "ms")
    table = Table("state", "State of an upload", (median, worst, more("bytes", "body", "B")), base="1 range")
    report.tables.append(table)
    peer = holdfast("os")
    overcommitted = peer.with_options("--overcommit")
    with running(overcommitted, bench.folder) as server:
        uploads = {row: _upload(server, number) for row, number in rows.items()}
        middle = count * GRANULE
        for case, row in bench.turns(list(rows), ["HEAD", "JSON, first page", "JSON, page in the middle"]):
            api = f"/api/uploads/{uploads[row].rpartition('/')[2]}"
            method, target = {
                "HEAD": ("HEAD", uploads[row]),
                "JSON, first page": ("GET", api),
                "JSON, page in the middle": ("GET", f"{api}?after={middle}"),
            }[case]
            if not bench.wanted(table, case, row):
                continue
            with bench.attempt(table, case, row) as samples:
                result, sample = load(server, "requests", method=method, target=target, count=ASKED)
                times = [1000 * seconds for seconds in result["times"]]
                found = {"p50": percentile(times, 0.5), "max": max(times), "bytes": result["bytes"]}
                samples.append(Sample(sample.seconds, ASKED, sample.cpu, sample.memory, sample.load, found))
    return report
