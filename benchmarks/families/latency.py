"""How long a small request waits while eight large uploads run: HEAD on another upload over one connection.

Rule of this file: the one that asks is a process of its own, beside the load of the uploads, which come again and again
for `SECONDS`, so that there are enough answers for a percentile. In the second case a third one keeps the disk of the
data folder busy, so that whatever waits for the disk waits long.
"""

import contextlib
import shutil
from typing import Final

from benchmarks.harness import Bench, Load, taking_part
from benchmarks.load.wire import Connection
from benchmarks.peers import RUSTUS, TUS_NODE_PEER, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.processes import Running, running
from benchmarks.report import Report, Sample, Table, more, percentile
from benchmarks.units import MIB, size_text

STREAMS: Final = 8
PAUSE: Final = 0.001
SECONDS: Final = 6.0
"""For so long uploads are begun, as long as there is room; those that have begun are brought to their end."""
LARGE: Final = 64 * MIB
"""With fewer bytes it is only tried whether everything runs: they are sent once."""
PRESS: Final = 16 * MIB
CASES: Final = {"8 uploads": False, "8 uploads, busy disk": True}
NOTE: Final = (
    f"HEAD on an upload of which nothing has arrived, while eight streams of tus send others, for {SECONDS:g} s. "
    "`asked` is how many times. Busy disk: another process writes 16 MiB to the same disk and syncs them, again and "
    "again. All of them share the cores of this machine."
)


def _upload(server: Running) -> str:
    with Connection(server.port) as connection:
        fields = ("Upload-Length: 1000", *server.peer.fields)
        return connection.tus("POST", server.peer.collection, *fields).expect(201).location


def run(bench: Bench) -> Report:
    report = Report("latency", "Small requests beside large ones", NOTE)
    ours = [holdfast("os", digest=True), holdfast("ack", digest=True), holdfast("ack", digest=True, workers=2)]
    there = taking_part(report, [*ours, TUSD_PEER, RUSTUS, TUS_NODE_PEER, TUSPYSERVER])
    measures = (
        more("p50", "median", "ms", ratio=True, plotted=True),
        more("p99", "p99", "ms", ratio=True, plotted=True),
        more("max", "slowest", "ms"),
        more("asked", "asked", ""),
        more("speed", "uploads", "MiB/s"),
    )
    size = bench.size - bench.size % STREAMS
    table = Table("latency", f"HEAD beside {STREAMS} uploads, {size_text(size)} in all", measures, base="tusd")
    table.say(list(there.values()))
    report.tables.append(table)
    source = str(bench.source(size))
    for case, row in bench.turns(list(there), list(CASES)):
        if not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(there[row], bench.folder) as server:
            enough = SECONDS if size >= LARGE else 0.0
            job = {"collection": server.peer.collection, "fields": server.peer.fields, "source": source}
            target = _upload(server)
            with server.metered(size) as meter, contextlib.ExitStack() as others:
                if CASES[case]:
                    pressing = Load("press", path=str(bench.folder / "pressed"), size=PRESS)
                    others.callback(pressing.result)
                asking = Load("heads", port=server.port, target=target, pause=PAUSE)
                seconds, cpu, work = 0.0, 0.0, 0
                try:
                    while not work or (seconds < enough and shutil.disk_usage(server.data).free > 2 * size):
                        sent = Load("streams", port=server.port, **job, size=size, count=STREAMS, piece=0).result()
                        seconds, cpu, work = seconds + sent["seconds"], cpu + sent["cpu"], work + size
                finally:
                    asked = asking.result()
            times = [1000 * seconds for seconds in asked["times"]]
            found = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}
            found |= {"max": max(times), "asked": float(len(times)), "speed": work / seconds / MIB}
            samples.append(Sample(seconds, work, meter.cpu, meter.memory, cpu, found))
    return report
