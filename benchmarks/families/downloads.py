"""Bytes out: a file whole and in eight ranges, read by the load, by curl and by aria2.

Rule of this file: a server is started once and has the file in the page cache; its CPU is what is measured. The load
throws bytes away unread, curl writes them to /dev/null, aria2 and our client write a file.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.clients import holdfast_download
from benchmarks.harness import Bench, absent, command, load, taking_part
from benchmarks.peers import NGINX, TUSD_PEER, holdfast, missing
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import MEMORY, Report, Sample, Table, cpu, rate
from benchmarks.report import load as load_of
from benchmarks.units import MIB, size_text

RANGES: Final = 8
NOTE: Final = (
    "The server's CPU and memory; the reader's CPU is in the last column. Ranges are asked for over eight "
    "connections at once. tusd serves one reader of an upload at a time and lets the others wait for seconds: it "
    "has no row for ranges."
)


def _path(server: Running, source: str, size: int) -> str:
    """Where a file of the server is read from, once it is there."""
    collection = server.peer.collection
    if server.peer.put:
        load(server, "puts", writes=size, collection=collection, source=source, size=size, count=1)
        return f"{collection}0"
    job = {
        "collection": collection,
        "source": source,
        "size": size,
        "count": 1,
        "piece": 0,
        "fields": server.peer.fields,
    }
    made, _ = load(server, "streams", writes=size, **job)
    return str(made["locations"][0])


def _commands(target: Path) -> dict[str, Callable[[str], list[str]]]:
    where = ["-d", str(target.parent), "-o", target.name]
    many = [f"-x{RANGES}", f"-s{RANGES}", "-k1M", "--file-allocation=none", "--allow-overwrite=true", "-q"]
    return {
        "whole, curl": lambda url: ["curl", "-sS", "--fail", "-o", "/dev/null", url],
        "8 ranges, aria2": lambda url: ["aria2c", "--no-conf", *many, *where, url],
        "holdfast download": lambda url: holdfast_download(url, target),
    }


def _command(server: Running, words: list[str], target: Path, size: int) -> Sample:
    """The sample of a command, with the costs of the server in the first place."""
    target.unlink(missing_ok=True)
    _, sample = command(server, words, target.parent, writes=size, environment={"HOME": str(target.parent)})
    if words[0] != "curl" and target.stat().st_size != size:
        raise FailedError(f"{target.stat().st_size} bytes came, not {size}")
    return replace(sample, cpu=sample.load, load=sample.cpu, memory=None)


def run(bench: Bench) -> Report:
    report = Report("downloads", "Bytes out", NOTE)
    there = taking_part(report, [holdfast("os"), NGINX, TUSD_PEER])
    absent(report, ["curl", "aria2c"])
    measures = (rate(), cpu(), MEMORY, load_of(of="reader"))
    table = Table("downloads", f"Bytes out, {size_text(bench.size)}", measures, base="nginx")
    report.tables.append(table)
    source = str(bench.source(bench.size))
    place = bench.folder / "read"
    place.mkdir(exist_ok=True)
    target = place / "file"
    commands = _commands(target)
    for program, case in (("curl", "whole, curl"), ("aria2c", "8 ranges, aria2")):
        if missing(program):
            del commands[case]
    if bench.size < RANGES * MIB:
        commands.pop("8 ranges, aria2", None)
    with contextlib.ExitStack() as stack:
        started: dict[str, tuple[Running, str]] = {}
        for name, peer in there.items():
            home = bench.folder / f"serving-{len(started)}"
            home.mkdir(exist_ok=True)
            server = stack.enter_context(running(peer, home))
            started[name] = (server, _path(server, source, bench.size))
        for case, row in bench.turns(list(there), ["whole", "8 ranges", *commands]):
            server, path = started[row]
            if not bench.wanted(table, case, row) or (row == "tusd" and "whole" not in case):
                continue
            with bench.attempt(table, case, row) as samples:
                if case in commands:
                    words = commands[case](f"http://127.0.0.1:{server.port}{path}")
                    sample = _command(server, words, target, bench.size)
                else:
                    connections = 1 if case == "whole" else RANGES
                    _, sample = load(server, "reads", target=path, size=bench.size, connections=connections)
                samples.append(replace(sample, work=bench.size))
    return report
