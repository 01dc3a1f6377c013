"""Peak memory of servers, with one connection and with eight, and of clients, for files of four sizes.

Rule of this file: the peak is read when the file is stored, and counts from before the first byte of it.
"""

from dataclasses import replace
from typing import Final

from benchmarks.clients import AIOTUS, HOLDFAST, TUS_JS_CLIENT, TUSPY
from benchmarks.families import ingest
from benchmarks.families.clients import pairs, whole_location
from benchmarks.goals import OS
from benchmarks.harness import Bench, command, taking_part
from benchmarks.peers import RESUMABLE_UPLOAD, RUSTUS, TUS_NODE_PEER, TUSD_PEER, TUSPYSERVER, holdfast
from benchmarks.processes import running
from benchmarks.report import MEMORY, Report, Table
from benchmarks.units import MIB, size_text

SHARES: Final = (64, 16, 4, 1)
STREAMS: Final = 8
NOTE: Final = (
    "One file in one PATCH to each server; eight at once, with so many bytes in all; and each client with one file, "
    "ours to our server, the others to tusd (to ours if there is no tusd)."
)


def run(bench: Bench) -> Report:
    report = Report("memory", "Memory", NOTE)
    peak = replace(MEMORY, plotted=True)
    sizes = {size_text(bench.size // share): bench.size // share for share in SHARES}
    places = {case: size / MIB for case, size in sizes.items()}
    there = taking_part(
        report, [holdfast("os", digest=True), TUSD_PEER, RUSTUS, TUS_NODE_PEER, TUSPYSERVER, RESUMABLE_UPLOAD]
    )
    servers = Table("memory-servers", "Servers", (peak,), base="", axis="file size", places=places)
    title = f"Servers, {STREAMS} connections"
    eight = Table("memory-connections", title, (peak,), base="", axis="bytes in all", places=places)
    at_once = {f"{name}, {STREAMS} at once": there[name] for name in (OS, TUSD_PEER.name) if name in there}
    other = there.get(TUSD_PEER.name, whole_location(holdfast("os")))
    rows = pairs(bench, report, [HOLDFAST], [holdfast("os")]) | pairs(
        bench, report, [TUSPY, AIOTUS, TUS_JS_CLIENT], [other]
    )
    clients = Table("memory-clients", "Clients", (peak,), base="", axis="file size", places=places)
    report.tables += [servers, eight, clients]
    home = bench.folder / "home"
    for case, row in bench.turns([*there, *at_once, *rows], list(sizes)):
        source = bench.source(sizes[case])
        table = servers if row in there else eight if row in at_once else clients
        if not bench.wanted(table, case, row):
            continue
        if row not in rows:
            taken, streams = (there[row], 1) if row in there else (at_once[row], STREAMS)
            with bench.attempt(table, case, row) as samples, running(taken, bench.folder) as server:
                samples.append(ingest.send(server, str(source), sizes[case], streams, 0))
        else:
            client, peer = rows[row]
            with bench.attempt(table, case, row) as samples, running(peer, bench.folder) as server, bench.emptied(home):
                words, home_is = client.command(source, server.url), {"HOME": str(home)}
                _, sample = command(server, words, home, writes=sizes[case], environment=home_is)
                samples.append(sample)
    return report
