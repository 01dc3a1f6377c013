"""A final upload ten times as large as its parts, which are listed ten times over.

Rule of this file: only putting together is measured, from asking for the final until HEAD shows it whole; not the
sending of the parts. The final is as large as the disk allows, and the table says how large that is.
"""

import shutil
from dataclasses import replace
from typing import Final

from benchmarks.harness import Bench, check_stored, load, taking_part
from benchmarks.peers import RESUMABLE_UPLOAD, RUSTUS, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.processes import running
from benchmarks.report import MEMORY, Report, Table, cpu, more, rate
from benchmarks.units import MIB, size_text

PARTS: Final = 8
TIMES: Final = 10
NOTE: Final = (
    f"{PARTS} partial uploads, listed {TIMES} times in one `Upload-Concat: final`. Speed is that of the final's "
    "bytes, from the request until HEAD shows all of them. `on the disk` is what parts and final take together, "
    "in units of the final."
)


def run(bench: Bench) -> Report:
    report = Report("concatenation", "Concatenation", NOTE)
    size = min(bench.size, shutil.disk_usage(bench.folder).free // (3 * TIMES))
    size -= size % PARTS
    whole = size * TIMES
    others = [TUSD_PEER, RUSTUS, TUSPYSERVER, RESUMABLE_UPLOAD]
    there = taking_part(report, [holdfast("os"), holdfast("ack"), *others])
    used = more("disk", "on the disk", "x final")
    table = Table("concatenation", f"A final of {size_text(whole)}", (rate(), cpu(), MEMORY, used), base="tusd")
    table.say(list(there.values()))
    report.tables.append(table)
    source = str(bench.source(size))
    for _, row in bench.turns(list(there)):
        if not bench.wanted(table, "", row):
            continue
        with bench.attempt(table, "", row) as samples, running(there[row], bench.folder) as server:
            collection = server.peer.collection
            made, _ = load(
                server, "partials", collection=collection, source=source, size=size, count=PARTS, piece=64 * MIB
            )
            job = {"parts": made["locations"] * TIMES, "size": whole, "fields": server.peer.fields}
            _, sample = load(server, "final", writes=whole, collection=collection, **job)
            check_stored(server.data, 1, whole)
            blocks = sum(path.stat().st_blocks for path in server.data.rglob("*") if path.is_file())
            samples.append(replace(sample, work=whole, more={"disk": blocks * 512 / whole}))
    return report
