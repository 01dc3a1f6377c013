"""Bytes out: servers by what a file costs them, and clients by what they make of a server and of a link.

Rule of this file: a server is started once and has the file in the page cache. In the first table its CPU is what is
measured: the load throws bytes away unread, curl writes them to /dev/null, aria2 and our client write a file. In the
other two it is the clients that are measured; each writes a file, which has to have the right length, and ours has
synced it to the disk by then, as nobody else does.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.clients import aria2, holdfast_download
from benchmarks.harness import Bench, absent, command, load, taking_part
from benchmarks.link import Conditions, Link
from benchmarks.peers import NGINX, TUSD_PEER, holdfast, missing
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import MEMORY, Report, Sample, Table, cpu, more, rate
from benchmarks.report import load as load_of
from benchmarks.units import MIB, size_text

RANGES: Final = 8
MANY: Final = 16
OURS_16: Final = f"holdfast download -n {MANY}"
ARIA2_16: Final = f"aria2, {MANY}"
"""Names of rows."""
SHARE: Final = 5
"""Of the size that was asked for, this part goes over the link,"""
SHARE_OF_ONE: Final = 40
"""and this part where it goes over one connection."""
NOTE: Final = (
    "The server's CPU and memory; the reader's CPU is in the last column. Ranges are asked for over eight "
    "connections at once. tusd serves one reader of an upload at a time and lets the others wait for seconds: it "
    "has no row for ranges. Of the clients, ours looks for a sum beside the file and syncs what it wrote; `-n 16` and "
    "`-x16` are as many connections for both, and without `-n` ours finds out how many pay. Over the link curl has one "
    f"connection, and gets an {SHARE_OF_ONE // SHARE}th of the file that the others get."
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
    return {
        "whole, curl": lambda url: ["curl", "-sS", "--fail", "-o", "/dev/null", url],
        "8 ranges, aria2": lambda url: aria2(url, target, RANGES),
        "holdfast download": lambda url: holdfast_download(url, target),
    }


def _clients(target: Path) -> dict[str, Callable[[str], list[str]]]:
    """Those that are compared with each other, the ones that are not installed left out."""
    found: dict[str, Callable[[str], list[str]]] = {
        "holdfast download": lambda url: holdfast_download(url, target),
        OURS_16: lambda url: holdfast_download(url, target, "-n", str(MANY)),
    }
    if not missing("aria2c"):
        found |= {"aria2, 8": lambda url: aria2(url, target, RANGES), ARIA2_16: lambda url: aria2(url, target, MANY)}
    if not missing("curl"):
        found["curl"] = lambda url: ["curl", "-sS", "--fail", "-o", str(target), url]
    return found


def _client(server: Running, words: list[str], target: Path, size: int) -> Sample:
    """The sample of a command, with its own costs in the first place."""
    target.unlink(missing_ok=True)
    _, sample = command(server, words, target.parent, environment={"HOME": str(target.parent)})
    if target.stat().st_size != size:
        raise FailedError(f"{target.stat().st_size} bytes came, not {size}")
    return sample


def _compare(bench: Bench, report: Report, target: Path) -> None:
    """Clients from nginx, over loopback and over a link."""
    used = (cpu(of="client"), MEMORY)
    near = Table("downloads-clients", f"Clients, from nginx, {size_text(bench.size)}", (rate(), *used), base="aria2, 8")
    large, small = bench.size // SHARE, bench.size // SHARE_OF_ONE
    title = f"80 ms, 4 MiB/s a connection, 40 MiB/s in all, {size_text(large)}"
    told = (
        more("share", "of the link", ""),
        more("connections", "connections", ""),
        more("at_once", "at once", ""),
        more("came", "sent, of the file", ""),
    )
    far = Table("downloads-link", title, (rate(), told[0], *used, *told[1:]), base=ARIA2_16)
    for table in (near, far):
        table.fact_titles = ()
        report.tables.append(table)
    if missing("nginx"):
        return
    clients = _clients(target)
    sizes = {**dict.fromkeys(clients, large), "curl": small}
    home = bench.folder / "clients"
    home.mkdir(exist_ok=True)
    with running(NGINX, home) as server:
        whole = _path(server, str(bench.source(bench.size)), bench.size)
        parts = {}
        for index, size in enumerate((large, small), start=1):
            source = str(bench.source(size))
            load(server, "puts", collection=f"/{index}-", source=source, size=size, count=1)
            parts[size] = f"/{index}-0"
        for case, row in bench.turns(list(clients), ["loopback", "link"]):
            table = far if case == "link" else near
            if not bench.wanted(table, "", row):
                continue
            with bench.attempt(table, "", row) as samples:
                if table is near:
                    words = clients[row](f"http://127.0.0.1:{server.port}{whole}")
                    samples.append(replace(_client(server, words, target, bench.size), work=bench.size))
                    continue
                size = sizes[row]
                with Link(server.port, Conditions(round_trip=0.08, each=4 * MIB, whole=40 * MIB), down=True) as link:
                    words = clients[row](f"http://127.0.0.1:{link.port}{parts[size]}")
                    sample = _client(server, words, target, size)
                found = {
                    "share": size / sample.seconds / (40 * MIB),
                    "connections": float(link.connections),
                    "at_once": float(link.at_once),
                    "came": link.down / size,
                }
                samples.append(replace(sample, work=size, more=found))


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
    _compare(bench, report, target)
    return report
