"""How long a small request waits while eight large uploads run: HEAD on another upload over one connection.

Rule of this file: the one that asks is a process of its own, beside the load of the uploads.
"""

from typing import Final

from benchmarks.harness import Bench, Load, load, taking_part
from benchmarks.load.wire import Connection
from benchmarks.peers import RUSTUS, TUS_NODE_PEER, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.processes import Running, running
from benchmarks.report import Report, Sample, Table, more, percentile
from benchmarks.units import size_text

STREAMS: Final = 8
PAUSE: Final = 0.002
NOTE: Final = (
    "HEAD on an upload of which nothing has arrived, while eight streams of tus send the rest. `asked` is how "
    "many times. Both "
    "loads and the server share the cores of this machine."
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
    )
    size = bench.size - bench.size % STREAMS
    table = Table("latency", f"HEAD beside {STREAMS} uploads, {size_text(size)} in all", measures, base="tusd")
    table.say(list(there.values()))
    report.tables.append(table)
    source = str(bench.source(size))
    for _, row in bench.turns(list(there)):
        if not bench.wanted(table, "", row):
            continue
        with bench.attempt(table, "", row) as samples, running(there[row], bench.folder) as server:
            asking = Load("heads", port=server.port, target=_upload(server), pause=PAUSE)
            try:
                job = {"collection": server.peer.collection, "fields": server.peer.fields, "source": source}
                _, sample = load(server, "streams", **job, size=size, count=STREAMS, piece=0)
            finally:
                asked = asking.result()
            times = [1000 * seconds for seconds in asked["times"]]
            found = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}
            found |= {"max": max(times), "asked": float(len(times))}
            samples.append(Sample(sample.seconds, size, sample.cpu, sample.memory, sample.load, found))
    return report
