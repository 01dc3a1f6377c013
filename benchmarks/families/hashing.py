"""How fast the algorithms of holdfast_protocol.digest are on one core.

Rule of this file: one thread, pieces of 1 MiB, as the server and the client hash them; each comes from memory and not
from a cache of the processor, because no piece is hashed twice in a measurement.
"""

import os
import time
from typing import Final

from benchmarks.harness import Bench
from benchmarks.report import Report, Sample, Table, rate
from benchmarks.units import MIB
from holdfast_protocol.digest import available, hasher

PIECE: Final = MIB
MOST: Final = 256 * MIB
"""Bytes that one measurement hashes at most."""
NOTE: Final = "One thread, pieces of 1 MiB from memory, each of them once. GB/s are 10^9 bytes a second."


def run(bench: Bench) -> Report:
    report = Report("hashing", "Hashing", NOTE)
    table = Table("hashing", "Digest algorithms", (rate("GB/s", 1e9),), base="sha-256")
    report.tables.append(table)
    content = memoryview(os.urandom(max(4 * PIECE, min(bench.size, MOST))))
    for _, name in bench.turns(sorted(available())):
        made = hasher(name)
        began = time.perf_counter()
        for offset in range(0, len(content), PIECE):
            made.update(content[offset : offset + PIECE])
        made.digest()
        table.of("", name).append(Sample(time.perf_counter() - began, len(content)))
    return report
