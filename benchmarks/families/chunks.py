"""One file in chunks of 8 MiB over 1, 4 and 16 connections.

Rule of this file: ours takes the chunks of one upload in any order, each with a digest; servers that only know tus
get as many partial uploads as there are connections, in PATCHes of the same size, and a final that they put together,
because that is how their clients send in parallel. The time is that until the file is whole.
"""

from dataclasses import replace
from typing import Final

from benchmarks.harness import Bench, check_stored, load, taking_part
from benchmarks.peers import RUSTUS, TUSD_PEER, holdfast, in_chunks
from benchmarks.processes import running
from benchmarks.report import TRANSFER, Report, Table
from benchmarks.units import MIB, size_text

CHUNK: Final = 8 * MIB
CONNECTIONS: Final = (1, 4, 16)
NOTE: Final = (
    f"One file in chunks of {size_text(CHUNK)}. Ours: parallel chunks into one upload, each with an xxh3-128 "
    "digest that is verified before it is stored. The others: as many partial uploads as connections, in PATCHes "
    "of that size, and `Upload-Concat: final`. The digests that are sent are computed before the clock starts."
)


def run(bench: Bench) -> Report:
    report = Report("chunks", "Parallel chunks", NOTE)
    there = taking_part(report, [in_chunks(holdfast("os")), in_chunks(holdfast("ack")), TUSD_PEER, RUSTUS])
    title = f"Parallel chunks, {size_text(bench.size)}"
    table = Table("chunks", title, TRANSFER, base="tusd", axis="connections")
    table.say(list(there.values()))
    table.places = {str(count): count for count in CONNECTIONS}
    report.tables.append(table)
    source = str(bench.source(bench.size))
    for case, row in bench.turns(list(there), list(table.places)):
        if not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(there[row], bench.folder) as server:
            kind = "chunks" if row.startswith("holdfast") else "parts"
            job = {"collection": server.peer.collection, "source": source, "size": bench.size, "piece": CHUNK}
            _, sample = load(server, kind, writes=bench.size, **job, connections=int(case), fields=server.peer.fields)
            check_stored(server.data, 1, bench.size)
            samples.append(replace(sample, work=bench.size))
    return report
