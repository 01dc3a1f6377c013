"""Many small files: 4 KiB from 16 clients, created and sent in two requests or in one, on a tmpfs and on a disk.

Rule of this file: each measurement is as many files as can be had in half a second; all that were acknowledged have
been found in the data folder.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.harness import Bench, check_stored, load, taking_part
from benchmarks.peers import (
    NGINX,
    RESUMABLE_UPLOAD,
    RUSTUS,
    TUS_NODE_PEER,
    TUSD_PEER,
    TUSPYSERVER,
    Peer,
    holdfast,
)
from benchmarks.processes import Running, running
from benchmarks.report import MEMORY, Report, Sample, Table, cpu, rate
from benchmarks.report import load as load_of
from benchmarks.units import KIB, size_text

BYTES: Final = 4 * KIB
CLIENTS: Final = 16
SECONDS: Final = 0.5
WAYS: Final = {"two": "creation and PATCH", "one": "creation with the content"}
PER_FILE: Final = 128 * KIB
"""One file at most for so many bytes of the size that was asked for."""
UNIT: Final = "s/1,000 files"
MEASURES: Final = (rate("files/s", 1), cpu(UNIT, 1000), MEMORY, load_of(UNIT, 1000))
NOTE: Final = (
    f"Files of {size_text(BYTES)} from {CLIENTS} clients, each with one connection that it keeps. nginx takes one "
    "PUT a file in either case. The load runs on the same cores: what it costs is in the last column. The server "
    "is started anew in each round, and takes files in two requests first, then in one."
)


def send(bench: Bench, server: Running, way: str) -> Sample:
    result, sample = load(
        server,
        "files",
        collection=server.peer.collection,
        way="put" if server.peer.put else way,
        size=BYTES,
        clients=CLIENTS,
        limit=SECONDS,
        most=max(2 * CLIENTS, bench.size // PER_FILE),
        fields=server.peer.fields,
    )
    return replace(sample, work=result["files"])


def run(bench: Bench) -> Report:
    report = Report("small", "Small files", NOTE)
    ours = [
        holdfast("os", digest=True),
        holdfast("os", digest=True, workers=2),
        holdfast("os", workers=2),
        holdfast("ack", digest=True, workers=2),
    ]
    many = taking_part(report, [*ours, TUSD_PEER, NGINX, RUSTUS, TUS_NODE_PEER, TUSPYSERVER, RESUMABLE_UPLOAD])
    few = {name: many[name] for name in list(many)[: len(ours) + 2]}
    turns: list[tuple[Table, Path, Peer]] = []
    for name, folder, there in (("tmpfs", bench.memory, many), ("disk", bench.folder, few)):
        if folder is None:
            report.absent.append("there is no tmpfs")
            continue
        table = Table(f"small-{name}", f"Small files, {name}", MEASURES, base="tusd")
        table.say(list(there.values()))
        report.tables.append(table)
        turns += [(table, folder, peer) for peer in there.values()]
    rows = {f"{peer.name} on {table.name}": (table, folder, peer) for table, folder, peer in turns}
    for _, row in bench.turns(list(rows)):
        table, folder, peer = rows[row]
        if not bench.wanted(table, WAYS["one"], peer.name):
            continue
        with bench.attempt(table, WAYS["one"], peer.name) as samples, running(peer, folder) as server:
            first = send(bench, server, "two")
            second = send(bench, server, "one")
            check_stored(server.data, int(first.work + second.work if not peer.put else second.work), BYTES)
            table.of(WAYS["two"], peer.name).append(first)
            samples.append(second)
    for table in report.tables:
        table.samples = {case: table.samples[case] for case in WAYS.values() if case in table.samples}
    return report
