"""How fast bytes come in: one stream and eight, each in one PATCH, and one stream in PATCHes of 4 MiB.

Rule of this file: a measurement counts only after the server has said the full offset for every stream, and files of
the right length, with blocks behind them, have been found in its data folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from benchmarks.harness import Bench, check_stored, load, taking_part
from benchmarks.peers import NGINX, TUSD_PEER, Peer, holdfast
from benchmarks.processes import Running, running
from benchmarks.report import TRANSFER, Report, Sample, Table
from benchmarks.units import MIB, size_text

PATCH: Final = 4 * MIB
CASES: Final = {"1 stream": (1, 0), "8 streams": (8, 0), "1 stream, 4 MiB PATCHes": (1, PATCH)}
"""Streams, and the bytes of a PATCH; 0: all of the file."""
NOTE: Final = (
    "One creation and one or many PATCHes of tus a stream, over loopback, without `Upload-Checksum`, which tusd "
    "does not know. `xxh3-128, whole file`: the server computes the digest of the whole file as it arrives, "
    "because the creation asked for it. nginx takes the same bytes as one PUT a stream: no upload protocol, "
    "nothing to resume; its buffer for a body is 1 MiB."
)


def send(server: Running, source: str, size: int, streams: int, piece: int) -> Sample:
    """`size` bytes in all. Raises FailedError if not all of it is stored."""
    common = {"collection": server.peer.collection, "source": source, "size": size, "count": streams}
    if server.peer.put:
        _, sample = load(server, "puts", writes=size, **common)
    else:
        _, sample = load(server, "streams", writes=size, **common, piece=piece, fields=server.peer.fields)
    check_stored(server.data, streams, size // streams)
    return replace(sample, work=size)


def compare(bench: Bench, report: Report, peers: Sequence[Peer], size: int) -> None:
    """All cases, for all of these peers that are installed."""
    size -= size % (max(streams for streams, _ in CASES.values()) * 4096)
    there = taking_part(report, peers)
    table = Table(report.family, f"{report.title}, {size_text(size)}", TRANSFER, base="tusd")
    table.say(list(there.values()))
    report.tables.append(table)
    source = str(bench.source(size))
    for case, row in bench.turns(list(there), list(CASES)):
        streams, piece = CASES[case]
        if (there[row].put and piece) or not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(there[row], bench.folder) as server:
            samples.append(send(server, source, size, streams, piece))


def run(bench: Bench) -> Report:
    report = Report("ingest", "Bytes in", NOTE)
    peers = [holdfast("os", digest=True), holdfast("os"), holdfast("ack", digest=True), TUSD_PEER, NGINX]
    compare(bench, report, peers, bench.size)
    return report
