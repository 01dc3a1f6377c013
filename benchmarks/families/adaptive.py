"""Does learning pay: our client as it adapts, beside fixed settings of it, and beside others, over eight links.

Rule of this file: all rows of a case are sent at the same moment, each over a link and to a server of its own, so that
what happens to the machine happens to all of them; only where nothing but the machine is the limit they take turns,
several in each round, because what happens to it differs from turn to turn. What is measured is the time on the link,
from the first connection to the last byte: the start of a command, which differs between languages, is left out. A
client that can use one connection only gets fewer bytes.
"""

import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.clients import AIOTUS, TUS_JS_CLIENT, TUSPY, Client, holdfast_events
from benchmarks.families.clients import pairs
from benchmarks.harness import Bench, check_stored
from benchmarks.link import Conditions, Link
from benchmarks.peers import TUSD_PEER, Peer, holdfast
from benchmarks.plot import timeline
from benchmarks.processes import FailedError, running, spend
from benchmarks.report import MEMORY, Report, Sample, Table, cpu, median, more, rate
from benchmarks.units import MIB, size_text

ADAPTIVE: Final = holdfast_events("holdfast adaptive")
FIXED: Final = (
    holdfast_events("holdfast 8 MiB x 10", "--chunk-size", "8M", "--concurrency", "10"),
    holdfast_events("holdfast 64 MiB x 4", "--chunk-size", "64M", "--concurrency", "4"),
)
LIMIT: Final = 75.0
"""Seconds that a command may take."""
FULL: Final = 1024 * MIB
"""The size for which the sizes of the cases are given; another one makes them smaller or larger by as much."""
TURNS: Final = 5
"""In a round, at that size, where the machine is the limit."""


@dataclass(frozen=True)
class Case:
    """A link. `size` is what several connections send, `single` what one does; `allows` is the link's own limit in
    bytes a second, None where the machine is the limit. `coarse` is what the setting with the largest chunks sends
    where it gets hardly anywhere, and `rivals` whether others get anywhere at all.
    """

    name: str
    words: str
    conditions: Conditions
    size: int
    single: int
    allows: float | None
    then: tuple[tuple[float, Conditions], ...] = ()
    coarse: int | None = None
    rivals: bool = True

    def sends(self, client: Client) -> int:
        """Bytes."""
        if client is FIXED[-1] and self.coarse is not None:
            return self.coarse
        return self.size if client.parallel else self.single

    @property
    def title(self) -> str:
        """What the case is called in the table."""
        return f"{self.name}: {self.words}"

    def limit(self, size: int) -> float | None:
        """Seconds that the link needs at least for `size` bytes."""
        if self.allows is None:
            return None
        if not self.then:
            return size / self.allows
        left, at, rate = float(size), 0.0, self.allows
        for moment, conditions in self.then:
            if left <= (moment - at) * rate:
                break
            left -= (moment - at) * rate
            assert conditions.whole is not None
            at, rate = moment, conditions.whole
        return at + left / rate


_WIDE: Final = Conditions(round_trip=0.04, each=4 * MIB, whole=20 * MIB)


def _wide(**more: Any) -> Conditions:
    return Conditions(round_trip=_WIDE.round_trip, each=_WIDE.each, whole=_WIDE.whole, **more)


_NARROW: Final = Conditions(round_trip=0.04, each=4 * MIB, whole=2 * MIB)
CASES: Final = (
    Case("LAN", "no shaping", Conditions(), 1024 * MIB, 1024 * MIB, None),
    Case(
        "far",
        "80 ms, 2 MiB/s a connection, 20 MiB/s in all",
        Conditions(round_trip=0.08, each=2 * MIB, whole=20 * MIB),
        200 * MIB,
        24 * MIB,
        20 * MIB,
    ),
    Case(
        "DSL", "60 ms, 0.75 MiB/s in all", Conditions(round_trip=0.06, whole=0.75 * MIB), 12 * MIB, 12 * MIB, 768 * 1024
    ),
    Case(
        "cuts",
        "every connection is cut after 32 MiB",
        _wide(cut_after=32 * MIB),
        512 * MIB,
        40 * MIB,
        20 * MIB,
        coarse=128 * MIB,
    ),
    Case(
        "stalls",
        "4 % of the MiB of a connection come 3 s late",
        _wide(stalls=0.04, stall_time=3.0),
        240 * MIB,
        32 * MIB,
        20 * MIB,
    ),
    Case("429", "429 above 3 requests at once", _wide(most=3), 160 * MIB, 40 * MIB, 12 * MIB),
    Case("413", "413 above 1 MiB", _wide(largest=MIB), 200 * MIB, 32 * MIB, 20 * MIB, rivals=False),
    Case(
        "change",
        "20 MiB/s, after 5 s 2 MiB/s, after 15 s 20 MiB/s",
        _WIDE,
        220 * MIB,
        40 * MIB,
        20 * MIB,
        ((5.0, _NARROW), (15.0, _WIDE)),
    ),
)
NOTE: Final = (
    "A proxy of ours stands between client and server, which is Holdfast with the durability `os`. Unless a case says "
    "otherwise: 40 ms there and back, 4 MiB/s for a connection, 20 MiB/s in all, so that two cores carry all rows of a "
    "case, which run at the same time, each with a link of its own; on the LAN one after the other. Speed is bytes of "
    "the file over the time from the first connection to the last byte. Its ratio is to the better one of our fixed "
    "settings; `of the link` is the part of what the link allows; `sent` is what went up the link, of the file. Where "
    "the link answers 413 the others are left out: they never make a request smaller, and try until they are ended."
)


class Against(Table):
    """Ratios are to the better one of the fixed settings."""

    def base_of(self, case: str) -> str | None:
        speeds = {
            client.name: value
            for client in FIXED
            if (value := median(self.samples[case].get(client.name, ()), self.measures[0])) is not None
        }
        return max(speeds, key=lambda row: speeds[row], default=super().base_of(case))


def events(output: str) -> list[dict[str, Any]]:
    """What `holdfast upload --json` told."""
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"event"')]


def send(bench: Bench, case: Case, client: Client, peer: Peer, source: Path, place: Path) -> tuple[Sample, str]:
    """One file over a link of its own; a sample of it, and what the command printed."""
    size = source.stat().st_size
    place.mkdir(exist_ok=True)
    with running(peer, place) as server, bench.emptied(place / "home") as home:
        with Link(server.port, case.conditions, case.then, seed=bench.rounds) as link:
            words = client.command(source, f"http://127.0.0.1:{link.port}{peer.collection}")
            spent = spend(words, home, environment={"HOME": str(home)}, limit=LIMIT)
        check_stored(server.data, 1, size)
    if not link.seconds:
        raise FailedError("nothing went over the link")
    found = {"sent": link.up / size, "connections": float(link.connections), "refused": float(link.refused)}
    if (least := case.limit(size)) is not None:
        found["share"] = least / link.seconds
    return Sample(link.seconds, size, spent.cpu, spent.memory, more=found), spent.output


def drawing(case: Case, told: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Size, connections and speed over time, as the command told them."""
    looks = [each for each in told if each["event"] == "progress" and each["state"] == "in_progress"]
    speeds = [
        (after["seconds"], (after["accepted"] - before["accepted"]) / (after["seconds"] - before["seconds"]) / MIB)
        for before, after in itertools.pairwise(looks)
        if after["seconds"] > before["seconds"]
    ]
    panels = [
        ("size of a chunk", "MiB", [(each["seconds"], each["chunk_size"] / MIB) for each in looks]),
        ("connections that carry bytes", "", [(each["seconds"], float(each["concurrency"])) for each in looks]),
        ("accepted by the server", "MiB/s", speeds),
    ]
    return f"adaptive-{case.name.lower()}", f"What the client did over time: {case.title}", timeline(case.title, panels)


def run(bench: Bench) -> Report:
    report = Report("adaptive", "What adapting brings", NOTE)
    found = pairs(bench, report, [ADAPTIVE, *FIXED, TUS_JS_CLIENT, TUSPY], [holdfast("os")])
    # aiotus needs a whole URL in Location, and the one that we can be told to send leads past the link.
    found |= pairs(bench, report, [AIOTUS], [TUSD_PEER])
    rows = {row.removesuffix(" to holdfast"): pair for row, pair in found.items()}
    measures = (
        rate(),
        more("share", "of the link", ""),
        more("sent", "sent", ""),
        more("refused", "refused", ""),
        cpu(of="client"),
        MEMORY,
    )
    table = Against(
        "adaptive", "Adaptive and fixed", measures, base="the better fixed setting", fact_titles=("sends", "checksum")
    )
    table.facts = {row: (client.requests, client.checksum) for row, (client, _) in rows.items()}
    report.tables.append(table)
    drawn: dict[str, tuple[str, str, str]] = {}

    def one(case: Case, row: str, place: Path) -> None:
        client, peer = rows[row]
        size = case.sends(client) * bench.size // FULL
        with bench.attempt(table, case.title, row) as samples:
            sample, output = send(bench, case, client, peer, sources[size], place)
            samples.append(sample)
            if client is ADAPTIVE:
                drawn[case.name] = drawing(case, events(output))

    wanted = {case.sends(client) * bench.size // FULL for case in CASES for client, _ in rows.values()}
    sources = {size: bench.source(size) for size in wanted}
    alone = {f"{case.name}, {row}": (case, row) for case in CASES for row in rows if case.allows is None}
    together = {case.name: case for case in CASES if case.allows is not None}
    for _, turn in bench.turns([*alone] * (TURNS if bench.size >= FULL else 1) + [*together]):
        if turn in alone:
            one(*alone[turn], bench.folder / "link-0")
            continue
        threads = [
            threading.Thread(target=one, args=(together[turn], row, bench.folder / f"link-{index}"))
            for index, (row, (client, _)) in enumerate(rows.items())
            if bench.wanted(table, together[turn].title, row) and (together[turn].rivals or client.parallel)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    table.drawings = [drawn[case.name] for case in CASES if case.name in drawn]
    report.note += f" Sizes for several connections and for one: {', '.join(_sizes(bench, case) for case in CASES)}."
    return report


def _sizes(bench: Bench, case: Case) -> str:
    several, one = (size_text(each * bench.size // FULL) for each in (case.size, case.single))
    words = f"{case.name} {several}" if several == one or not case.rivals else f"{case.name} {several} and {one}"
    return (
        words if case.coarse is None else f"{words} ({FIXED[-1].name}: {size_text(case.coarse * bench.size // FULL)})"
    )
