"""Clients from end to end: one file, from the start of the command to its end.

Rule of this file: the command is what is measured, its start and its end included; the server's CPU stands beside it. A
measurement counts only if the file is found on the server's disk, and until it is there: who puts parts together may do
so after its answer.
"""

from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks.clients import HOLDFAST, SEQUENTIAL, TUS_JS_PARALLEL, Client
from benchmarks.harness import Bench, command, taking_part, wait_stored
from benchmarks.peers import TUSD_PEER, Peer, holdfast
from benchmarks.processes import running
from benchmarks.report import MEMORY, Report, Table, cpu, load, rate
from benchmarks.units import size_text

BASE: Final = "curl to tusd"
NOTE: Final = (
    "One file over loopback, each command from its start to its end, with nothing told but the file and the URL. "
    "Our server runs with the durability `os`, as tusd does. `holdfast upload` hashes what it sends and the file "
    "as a whole; the others send no checksum."
)


def pairs(bench: Bench, report: Report, clients: list[Client], peers: list[Peer]) -> dict[str, tuple[Client, Peer]]:
    """Every client with every server, as `tuspy to tusd`; those that are not installed are written down."""
    there = taking_part(report, peers)
    report.absent += [client.missing for client in clients if client.missing]
    return {
        f"{client.name} to {name.partition(' ')[0]}": (client, peer)
        for client in clients
        if not client.missing
        for name, peer in there.items()
    }


def whole_location(peer: Peer) -> Peer:
    """Ours, with a whole URL in `Location`: aiotus cannot follow a path."""
    return replace(
        peer, command=lambda port, data: [*peer.command(port, data), "--public-url", f"http://127.0.0.1:{port}"]
    )


def run(bench: Bench) -> Report:
    report = Report("clients", "Clients, end to end", NOTE)
    rows = pairs(bench, report, [HOLDFAST, *SEQUENTIAL, TUS_JS_PARALLEL], [whole_location(holdfast("os")), TUSD_PEER])
    measures = (rate(), cpu(of="client"), MEMORY, load(of="server"))
    table = Table(
        "clients", f"Clients, {size_text(bench.size)}", measures, base=BASE, fact_titles=("sends", "checksum")
    )
    table.facts = {row: (client.requests, client.checksum) for row, (client, _) in rows.items()}
    report.tables.append(table)
    source = bench.source(bench.size)
    home = bench.folder / "home"
    for _, row in bench.turns(list(rows)):
        client, peer = rows[row]
        if not bench.wanted(table, "", row):
            continue
        with bench.attempt(table, "", row) as samples, running(peer, bench.folder) as server, bench.emptied(home):
            words = client.command(source, server.url)
            stored = partial(wait_stored, server.data, bench.size)
            _, sample = command(server, words, home, writes=bench.size, then=stored, environment={"HOME": str(home)})
            samples.append(replace(sample, work=bench.size))
    return report
