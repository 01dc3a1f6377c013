"""What Holdfast aims at, as ratios within one run, and what was measured.

Rule of this file: an aim is a number that was set before anything was measured, and is shown whether it was reached or
not. What was not measured, because somebody was not installed or a family was left out, is shown as `-`.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.families import adaptive
from benchmarks.families.adaptive import CASES as LINKS
from benchmarks.families.adaptive import Case
from benchmarks.peers import DIGEST
from benchmarks.report import number, ratio
from benchmarks.units import GIB, MIB

OS: Final = f"holdfast (os, {DIGEST})"
ACK: Final = f"holdfast (ack, {DIGEST})"
OURS: Final = "holdfast upload to holdfast"
ADAPTIVE: Final = adaptive.ADAPTIVE.name
FIXED: Final = tuple(client.name for client in adaptive.FIXED)
"""Names of rows."""


@dataclass(frozen=True)
class Results:
    """The documents of the families, by their names."""

    documents: Mapping[str, Mapping[str, Any]]

    def median(self, table: str, case: str, row: str, of: Callable[[Mapping[str, Any]], float]) -> float | None:
        """The median of a figure of all samples of a row; None if there are none."""
        for document in self.documents.values():
            for each in document["tables"]:
                if each["name"] == table:
                    samples = each["samples"].get(case, {}).get(row, [])
                    return statistics.median(map(of, samples)) if samples else None
        return None

    def speed(self, table: str, case: str, row: str) -> float | None:
        return self.median(table, case, row, lambda sample: float(sample["work"] / sample["seconds"]))

    def cpu(self, table: str, case: str, row: str) -> float | None:
        """Seconds for a GiB."""
        return self.median(table, case, row, lambda sample: float(sample["cpu"] * GIB / sample["work"]))

    def peak(self, table: str) -> float | None:
        """MiB: the highest of our rows in any case."""
        found = [
            sample["memory"] / MIB
            for document in self.documents.values()
            for each in document["tables"]
            if each["name"] == table
            for by_row in each["samples"].values()
            for row, samples in by_row.items()
            if row.startswith("holdfast")
            for sample in samples
        ]
        return max(found, default=None)


@dataclass(frozen=True)
class Goal:
    """`limit` is at least, or with `at_most` at most, what `measured` should be."""

    words: str
    measured: Callable[[Results], float | None]
    limit: float
    at_most: bool = False
    unit: str = "x"

    def reached(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


def _speed(table: str, case: str, row: str, other: str) -> Callable[[Results], float | None]:
    return lambda r: ratio(r.speed(table, case, row), r.speed(table, case, other))


def _cpu(table: str, case: str, row: str, other: str) -> Callable[[Results], float | None]:
    return lambda r: ratio(r.cpu(table, case, row), r.cpu(table, case, other))


def _more(table: str, case: str, row: str, name: str) -> Callable[[Results], float | None]:
    return lambda r: r.median(table, case, row, lambda sample: float(sample[name]))


def _least(table: str, cases: Sequence[str], rows: Sequence[str], base: str) -> Callable[[Results], float | None]:
    """The worst of these rows in these cases: its speed, of that of `base`."""

    def measured(r: Results) -> float | None:
        found = [ratio(r.speed(table, case, row), r.speed(table, case, base)) for case in cases for row in rows]
        return min((each for each in found if each is not None), default=None)

    return measured


LIVE, MANY = "holdfast (os)", "holdfast (os, 2 workers)"
_SINGLE, _HUNDRED = "1 subscriber, 100 messages/s", "100 subscribers, 1,100 messages/s"
_THOUSAND = "1,000 subscribers, 4 messages/s"


def _against_fixed(case: Case) -> Callable[[Results], float | None]:
    """The speed of adapting, of that of the better fixed setting."""

    def measured(r: Results) -> float | None:
        fixed = [speed for row in FIXED if (speed := r.speed("adaptive", case.title, row)) is not None]
        return ratio(r.speed("adaptive", case.title, ADAPTIVE), max(fixed, default=None))

    return measured


def _sent_with_cuts(r: Results) -> float | None:
    case = next(case for case in LINKS if case.name == "cuts")
    return r.median("adaptive", case.title, ADAPTIVE, lambda sample: float(sample["sent"]))


_ONE, _EIGHT, _PIECES = "1 stream", "8 streams", "1 stream, 4 MiB PATCHes"
_TWO_REQUESTS, _ONE_REQUEST = "creation and PATCH", "creation with the content"
_WORKERS = f"holdfast (os, {DIGEST}, 2 workers)"
_ASKED, _NOBODY = ("token", "JWT"), "nobody asks"
_BOUND, _UNBOUND = ("by default", "and rates and quotas", "and types"), "no limits"
_SLOW, _ALONE = ("beside 4,000 slow connections",), "alone"

GOALS: Final = (
    Goal("one stream: speed, of tusd's", _speed("ingest", _ONE, OS, "tusd"), 2.0),
    Goal("one stream: CPU, of tusd's", _cpu("ingest", _ONE, OS, "tusd"), 0.4, at_most=True),
    Goal("one stream: time, of nginx PUT's", _speed("ingest", _ONE, "nginx", OS), 1.3, at_most=True),
    Goal("eight streams: speed, of tusd's", _speed("ingest", _EIGHT, OS, "tusd"), 1.2),
    Goal("4 MiB PATCHes: speed, of tusd's", _speed("ingest", _PIECES, OS, "tusd"), 1.5),
    Goal("one stream, `ack`: speed, of our own `os`", _speed("ingest", _ONE, ACK, OS), 0.6),
    Goal(
        "4 KiB files on a tmpfs, two workers, in two requests: of tusd's",
        _speed("small-tmpfs", _TWO_REQUESTS, _WORKERS, "tusd"),
        0.7,
    ),
    Goal("the same in one request: of tusd's", _speed("small-tmpfs", _ONE_REQUEST, _WORKERS, "tusd"), 0.5),
    Goal("download: CPU, of nginx's", _cpu("downloads", "whole", "holdfast (os)", "nginx"), 1.5, at_most=True),
    Goal(
        "`holdfast download -n 16` over 80 ms, 4 MiB/s a connection: speed, of aria2's with 16",
        _speed("downloads-link", "", "holdfast download -n 16", "aria2, 16"),
        0.9,
    ),
    Goal(
        "`holdfast upload` to Holdfast: speed, of tus-js-client to tusd",
        _speed("clients", "", OURS, "tus-js-client to tusd"),
        1.0,
    ),
    Goal("the same, of tuspy to tusd", _speed("clients", "", OURS, "tuspy to tusd"), 1.0),
    Goal("the same, of aiotus to tusd", _speed("clients", "", OURS, "aiotus to tusd"), 1.0),
    Goal("the same: time, of curl to Holdfast", _speed("clients", "", "curl to holdfast", OURS), 1.5, at_most=True),
    Goal(
        "80 ms, 4 MiB/s a connection: share of the link's 40 MiB/s",
        lambda r: r.median("shaped", "", OURS, lambda sample: float(sample["share"])),
        0.85,
        unit="",
    ),
    Goal(
        "live: 10,000 WebSockets, memory of each", _more("live-memory", "", MANY, "each"), 27, at_most=True, unit="KiB"
    ),
    Goal("live: one upload to one subscriber, p99", _more("live", _SINGLE, LIVE, "p99"), 10, at_most=True, unit="ms"),
    Goal("live: to 100 subscribers, delivered", _more("live", _HUNDRED, LIVE, "delivered"), 100_000, unit="1/s"),
    Goal("the same, p99", _more("live", _HUNDRED, LIVE, "p99"), 10, at_most=True, unit="ms"),
    Goal(
        "live: one message to 1,000 subscribers, first to last",
        _more("live", _THOUSAND, LIVE, "spread"),
        25,
        at_most=True,
        unit="ms",
    ),
    Goal(
        "live: over server-sent events, of what WebSockets deliver",
        lambda r: ratio(
            r.median("live", _HUNDRED, f"{LIVE} (events)", lambda sample: float(sample["delivered"])),
            r.median("live", _HUNDRED, LIVE, lambda sample: float(sample["delivered"])),
        ),
        0.5,
    ),
    Goal(
        "uploads that 100 watch: speed, of unwatched ones",
        _speed("live-beside", "", "100 watch all of it", "nobody watches"),
        0.9,
    ),
    Goal(
        "the history of an upload, with a million samples: p99",
        _more("live-history", "", LIVE, "p99"),
        5,
        at_most=True,
        unit="ms",
    ),
    *(Goal(f"{case.title}: speed, of the better fixed setting's", _against_fixed(case), 0.9) for case in LINKS),
    *(
        Goal(f"{case.name}: share of the link", _more("adaptive", case.title, ADAPTIVE, "share"), 0.9, unit="")
        for case in LINKS
        if case.allows is not None
    ),
    Goal("cuts every 32 MiB: bytes sent, of the file", _sent_with_cuts, 1.05, at_most=True, unit=""),
    Goal("who asks is known: one stream, of the speed where it is not", _least("trust", [_ONE], _ASKED, _NOBODY), 0.95),
    Goal("who asks is known: small files", _least("trust", [_TWO_REQUESTS, _ONE_REQUEST], _ASKED, _NOBODY), 0.85),
    Goal(
        "limits and types: one stream, of the speed without any", _least("limits-stream", [""], _BOUND, _UNBOUND), 0.95
    ),
    Goal("limits and types: small files", _least("limits-small", [""], _BOUND, _UNBOUND), 0.85),
    Goal(
        "beside 4,000 slow connections, one and two workers: one stream, of the speed alone",
        _least("slow-stream", [LIVE, MANY], _SLOW, _ALONE),
        0.9,
    ),
    Goal("beside them: small files", _least("slow-small", [LIVE, MANY], _SLOW, _ALONE), 0.9),
    Goal("memory of the server, one connection", lambda r: r.peak("memory-servers"), 104, at_most=True, unit="MiB"),
    Goal(
        "memory of the server, eight connections", lambda r: r.peak("memory-connections"), 132, at_most=True, unit="MiB"
    ),
    Goal("memory of the client", lambda r: r.peak("memory-clients"), 120, at_most=True, unit="MiB"),
)


def table(documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of a table in Markdown: what, the aim, what was measured, whether it was reached."""
    results = Results(documents)
    lines = ["| what | aim | measured | reached |", "| --- | --- | --- | --- |"]
    for goal in GOALS:
        value = goal.measured(results)
        aim = f"{'at most' if goal.at_most else 'at least'} {goal.limit:g} {goal.unit}".rstrip()
        told = f"{number(value)} {goal.unit}".rstrip() if value is not None else "-"
        reached = "-" if value is None else "yes" if goal.reached(value) else "no"
        lines.append(f"| {goal.words} | {aim} | {told} | {reached} |")
    return lines
