"""How fast the algorithms of holdfast_protocol.digest are on one core.

Rule of this file: one thread, pieces of 1 MiB that are in memory, as the server and the client hash them.
"""

import os
import time
from typing import Final

from benchmarks.harness import Bench
from benchmarks.report import Report, Sample, Table, rate
from benchmarks.units import MIB
from holdfast_protocol.digest import available, hasher

PIECE: Final = MIB
MOST: Final = 64 * MIB
"""Bytes that one measurement hashes at most."""
NOTE: Final = "One thread, pieces of 1 MiB in memory. GB/s are 10^9 bytes a second."


def run(bench: Bench) -> Report:
    report = Report("hashing", "Hashing", NOTE)
    table = Table("hashing", "Digest algorithms", (rate("GB/s", 1e9),), base="sha-256")
    report.tables.append(table)
    piece = memoryview(os.urandom(PIECE))
    times = max(4, min(bench.size, MOST) // PIECE)
    for _, name in bench.turns(sorted(available())):
        made = hasher(name)
        began = time.perf_counter()
        for _ in range(times):
            made.update(piece)
        made.digest()
        table.of("", name).append(Sample(time.perf_counter() - began, times * PIECE))
    return report
