"""Links that are far, slow and broken: 80 ms there and back, 4 MiB/s for a connection, 40 MiB/s in all; and cuts.

Rule of this file: the link is the limit, not the machine; so clients that send over one connection, which can have 4
MiB/s and no more, are run at the same time, each with a link and a server of its own, and get fewer bytes.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.clients import AIOTUS, CURL, HOLDFAST, RESUMABLE, TUS_JS_CLIENT, TUS_JS_PARALLEL, TUSPY, Client
from benchmarks.families.clients import pairs
from benchmarks.harness import Bench, check_stored
from benchmarks.link import Conditions, Link
from benchmarks.peers import TUSD_PEER, Peer, holdfast, missing
from benchmarks.processes import running, spend
from benchmarks.report import MEMORY, Measure, Report, Sample, Table, cpu, more, rate
from benchmarks.units import MIB, size_text

ROUND_TRIP: Final = 0.08
EACH: Final = 4 * MIB
WHOLE: Final = 40 * MIB
SHARE: Final = 5
"""Of the size that was asked for, this part goes over several connections at once."""
SHARE_OF_ONE: Final = 40
"""And this part over one connection."""
CUTS: Final = 4
"""Every connection is cut after the CUTS-th part of the file,"""
CUT_LEAST: Final = 5 * MIB // 2
"""and not before so many bytes: some clients send no less than 1 MiB in a request."""
CUT_SHARE: Final = 8
CUT_EACH: Final = 64 * MIB
LIMIT: Final = 90.0
"""Seconds that a command may take."""
NOTE: Final = (
    f"A proxy of ours stands between client and server. The first table: {1000 * ROUND_TRIP:.0f} ms there and "
    f"back, {size_text(EACH)}/s for each connection, {size_text(WHOLE)}/s for all together. The second: every "
    f"connection is reset after a quarter of the file, at {size_text(CUT_EACH)}/s each; curl does not resume and "
    "is not there."
)


def send(bench: Bench, client: Client, peer: Peer, source: Path, name: str, cut: bool) -> Sample:
    """One file over a link of its own, from a folder of its own."""
    size = source.stat().st_size
    place = bench.folder / name
    place.mkdir(exist_ok=True)
    with running(peer, place) as server, bench.emptied(place / "home") as home:
        if cut:
            link = Link(server.port, Conditions(each=CUT_EACH, cut_after=max(CUT_LEAST, size // CUTS)))
        else:
            link = Link(server.port, Conditions(round_trip=ROUND_TRIP, each=EACH, whole=WHOLE))
        with link:
            words = client.command(source, f"http://127.0.0.1:{link.port}{peer.collection}")
            spent = spend(words, home, environment={"HOME": str(home)}, limit=LIMIT)
        check_stored(server.data, 1, size)
    found = {"share": size / spent.seconds / WHOLE, "sent": link.up / size, "connections": float(link.connections)}
    return Sample(spent.seconds, size, spent.cpu, spent.memory, more=found)


def _at_once(bench: Bench, table: Table, rows: dict[str, tuple[Client, Peer]], source: Path) -> None:
    """All of these at the same time."""

    def one(row: str, name: str) -> None:
        with bench.attempt(table, "", row) as samples:
            samples.append(send(bench, *rows[row], source, name, cut=False))

    threads = [threading.Thread(target=one, args=(row, f"link-{index}")) for index, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _table(
    name: str, title: str, measures: Sequence[Measure], base: str, rows: dict[str, tuple[Client, Peer]]
) -> Table:
    table = Table(name, title, measures, base=base, fact_titles=("sends", "checksum"))
    table.facts = {row: (client.requests, client.checksum) for row, (client, _) in rows.items()}
    return table


def run(bench: Bench) -> Report:
    report = Report("shaped", "Slow and broken links", NOTE)
    other = TUSD_PEER if missing("tusd") is None else holdfast("os")
    # aiotus needs a whole URL in Location, and the one that we can be told to send leads past the link.
    resuming = [TUSPY, *([AIOTUS] if other is TUSD_PEER else []), TUS_JS_CLIENT, RESUMABLE]
    many = pairs(bench, report, [HOLDFAST], [holdfast("os")]) | pairs(
        bench, report, [HOLDFAST, TUS_JS_PARALLEL], [other]
    )
    single = pairs(bench, report, [CURL, *resuming], [other])
    cut = pairs(bench, report, [HOLDFAST], [holdfast("os")])
    cut |= pairs(bench, report, [HOLDFAST, *resuming], [other])
    large, medium = bench.size // SHARE, bench.size // CUT_SHARE
    small = bench.size // SHARE_OF_ONE
    used = (cpu(of="client"), MEMORY, more("connections", "connections", ""))
    speed, share, sent = rate(), more("share", "of the link", ""), more("sent", "sent, of the file", "")
    report.note += f" Several connections send {size_text(large)}, one connection {size_text(small)}."
    title = "80 ms, 4 MiB/s a connection"
    slow = _table("shaped", title, (speed, share, *used), next(iter(single), ""), many | single)
    broken = _table("shaped-cuts", f"Cuts, {size_text(medium)}", (speed, sent, *used), "", cut)
    broken.base = next((row for row in cut if not row.startswith("holdfast")), "")
    report.tables += [slow, broken]
    together = "one connection each, at once"
    cases = {**dict.fromkeys(many, many), **({together: single} if single else {})}
    begun = list(cases) + [f"{row}, cuts" for row in cut]
    for _, row in bench.turns(begun):
        if row == together:
            wanted = {name: pair for name, pair in single.items() if bench.wanted(slow, "", name)}
            _at_once(bench, slow, wanted, bench.source(small))
        elif row in many:
            with bench.attempt(slow, "", row) as samples:
                samples.append(send(bench, *many[row], bench.source(large), "link-0", cut=False))
        elif bench.wanted(broken, "", name := row.removesuffix(", cuts")):
            with bench.attempt(broken, "", name) as samples:
                samples.append(send(bench, *cut[name], bench.source(medium), "link-0", cut=True))
    return report
