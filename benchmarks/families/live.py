"""Live progress: how many are told how soon, what a connection costs, and what it costs the uploads beside it.

Rule of this file: every hub hears of the same moves in the same datagrams, at the same rate, and sends frames of the
same length. Ours looks each upload up in its catalog before it tells of it, as it always does; the others only send.
"""

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio

from benchmarks.harness import ROOT, Bench, Load, load, taking_part
from benchmarks.load.wire import Connection
from benchmarks.peers import STARLETTE, WS, Peer, holdfast
from benchmarks.processes import Running, family, running
from benchmarks.report import Report, Sample, Table, more, percentile
from benchmarks.units import KIB, MIB
from holdfast_protocol.live import EVENTS_PATH, LIVE_PATH
from holdfast_server.catalog.base import Sample as Remembered
from holdfast_server.catalog.sqlite import open_sqlite
from holdfast_server.uploads.upload import State

SECONDS: Final = 4.0
FULL_SIZE: Final = 256 * MIB
"""From this size on everything is as large as it is meant to be; smaller ones are to see that all of it works."""
CASES: Final = {
    "1 subscriber, 100 messages/s": (1, 100.0),
    "100 subscribers, 500 messages/s": (100, 500.0),
    "100 subscribers, 1,100 messages/s": (100, 1100.0),
    "100 subscribers, 1,600 messages/s": (100, 1600.0),
    "1,000 subscribers, 4 messages/s": (1000, 4.0),
}
UPLOADS: Final = 250
CONNECTIONS: Final = 10_000
FEWEST: Final = 500
STREAM: Final = " (events)"
PER_SAMPLE: Final = KIB
"""One remembered sample at most for so many bytes of the size that was asked for."""
EACH: Final = 100
STREAMS: Final = 8
WATCHING: Final = 100
BESIDE: Final = {"nobody watches": 0, f"{WATCHING} watch all of it": WATCHING}
"""How many watch."""
NOTE: Final = (
    "Each message is of one upload and goes to every subscriber; `delivered` counts what arrived, a second; the delay "
    "is from when the message was due to the bytes at the subscriber, so a message that leaves late has waited. "
    "`spread` is from the first delivery of a message to its last. The subscribers are one process on the same two "
    "cores, and look every 0.3 ms. `(events)` is over server-sent events."
)


def _ours(workers: int = 1) -> Peer:
    lifted = ("--max-connections", "20000", "--client-connections", "20000", "--progress-rate", "1000", "--overcommit")
    return holdfast("os", workers=workers).with_options(*lifted)


def _seconds(bench: Bench) -> float:
    """For how long messages are told."""
    return SECONDS * min(1.0, max(1 / 16, bench.size / FULL_SIZE))


def _raise_limit() -> None:
    """Of open files, for the servers that are started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _created(server: Running, count: int) -> list[str]:
    found = []
    with Connection(server.port) as connection:
        for _ in range(count):
            fields = ("Upload-Length: 1073741824", "Upload-Metadata: project bGl2ZQ==,filename ZmlsZQ==")
            location = connection.tus("POST", server.peer.collection, *fields).expect(201).location
            found.append(location.rpartition("/")[2])
    return found


def _job(server: Running, *, stream: bool) -> dict[str, Any]:
    if server.peer.collection == "/":
        return {"target": "/", "stream": False, "uploads": [f"{n:032x}" for n in range(UPLOADS)], "folder": None}
    path = EVENTS_PATH if stream else LIVE_PATH
    uploads = _created(server, UPLOADS)
    return {
        "target": f"{path}?topic=project:live",
        "stream": stream,
        "uploads": uploads,
        "folder": str(server.data / "live"),
    }


def run(bench: Bench) -> Report:
    _raise_limit()
    report = Report("live", "Live progress", NOTE)
    ours = _ours()
    there = taking_part(report, [ours, WS, STARLETTE])
    rows = {ours.name: ours, ours.name + STREAM: ours, **{name: peer for name, peer in there.items() if peer != ours}}
    _deliveries(bench, report, rows)
    # Two workers: a process takes a third as many connections as it may have files open, which may be 20,000.
    many = _ours(2)
    _memory(bench, report, {many.name: many, **{name: peer for name, peer in there.items() if peer != ours}})
    _beside(bench, report)
    _history(bench, report)
    return report


def _deliveries(bench: Bench, report: Report, rows: dict[str, Peer]) -> None:
    measures = (
        more("delivered", "delivered", "1/s", ratio=True, plotted=True, more_is_better=True),
        more("p50", "delay, median", "ms"),
        more("p99", "p99", "ms", ratio=True, plotted=True),
        more("spread", "spread, p99", "ms"),
        more("missing", "not delivered", ""),
        more("busy", "the load, of one core", "%"),
    )
    table = Table("live", "Messages to subscribers", measures, base=STARLETTE.name)
    report.tables.append(table)
    for case, row in bench.turns(list(rows), list(CASES)):
        if not bench.wanted(table, case, row):
            continue
        count, rate = CASES[case]
        with bench.attempt(table, case, row) as samples, running(rows[row], bench.folder) as server:
            job = _job(server, stream=row.endswith(STREAM))
            result, sample = load(server, "watchers", count=count, rate=rate, seconds=_seconds(bench), **job)
            times = [1000 * each for each in result["times"]]
            found = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)} if times else {}
            found |= {"delivered": result["delivered"] / sample.seconds, "missing": float(result["missing"])}
            found["busy"] = 100 * result["busy"]
            if result["spread"]:
                found["spread"] = 1000 * percentile(result["spread"], 0.99)
            samples.append(Sample(sample.seconds, result["delivered"], sample.cpu, sample.memory, sample.load, found))


def _memory(bench: Bench, report: Report, rows: dict[str, Peer]) -> None:
    measures = (
        more("each", "memory a connection", "KiB", ratio=True, plotted=True),
        more("seconds", "until all are there", "s"),
    )
    count = max(FEWEST, min(CONNECTIONS, CONNECTIONS * bench.size // FULL_SIZE))
    table = Table("live-memory", f"{count:,} idle WebSockets at once", measures, base=STARLETTE.name)
    report.tables.append(table)
    for case, row in bench.turns(list(rows)):
        if not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(rows[row], bench.folder) as server:
            target = "/" if server.peer.collection == "/" else f"{LIVE_PATH}?topic=project:live"
            before = _resident(server)
            began = time.monotonic()
            job = {"port": server.port, "target": target, "stream": False, "count": count, "rate": 0.0}
            with _waiting({"kind": "watchers", **job, "seconds": 1.0, "uploads": [], "folder": None}):
                seconds = time.monotonic() - began
                each = (_resident(server) - before) / count / KIB
            samples.append(Sample(seconds, count, more={"each": each, "seconds": seconds}))


def _resident(server: Running) -> int:
    """Bytes, of all its processes."""
    total = 0
    for pid in family(server.process.pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * KIB
    return total


@contextlib.contextmanager
def _waiting(job: dict[str, Any]) -> Iterator[None]:
    """Connections that are there for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline() or "{}")
        if "ready" not in told:
            raise OSError(told.get("error", "the load has died"))
        yield
    finally:
        process.kill()
        process.wait()


def _beside(bench: Bench, report: Report) -> None:
    """Uploads while nobody and while many watch them."""
    rows = BESIDE
    table = Table(
        "live-beside",
        f"{STREAMS} uploads at once, watched",
        (
            more("speed", "uploads", "MiB/s", ratio=True, plotted=True, more_is_better=True),
            more("cpu", "CPU of the server", "s/GiB"),
        ),
        base="nobody watches",
    )
    report.tables.append(table)
    size = bench.size - bench.size % STREAMS
    source = str(bench.source(size))
    peer = holdfast("os")
    for case, row in bench.turns(list(rows)):
        if not bench.wanted(table, case, row):
            continue
        with bench.attempt(table, case, row) as samples, running(peer, bench.folder) as server:
            job = {"collection": peer.collection, "fields": peer.fields, "source": source}
            with contextlib.ExitStack() as stack:
                if rows[row]:
                    watch = {"kind": "watchers", "port": server.port, "target": f"{LIVE_PATH}?topic=all"}
                    watch |= {"stream": False, "count": rows[row], "rate": 0.0, "seconds": 1.0, "uploads": []}
                    stack.enter_context(_waiting({**watch, "folder": None}))
                with server.metered(size) as meter:
                    sent = Load("streams", port=server.port, **job, size=size, count=STREAMS, piece=0).result()
            found = {"speed": size / sent["seconds"] / MIB, "cpu": meter.cpu * 1024 * MIB / size}
            samples.append(Sample(sent["seconds"], size, meter.cpu, meter.memory, sent["cpu"], found))


async def _fill(catalog: Path, uploads: list[str], each: int) -> None:
    async with open_sqlite(catalog, durability="os") as opened:
        for upload in uploads:
            samples = [
                Remembered(upload, 1000.0 + second, State.RECEIVING, "receiving", second, 0, 1.0, 0, 0)
                for second in range(each)
            ]
            await opened.add_samples(samples, most=10 * each)


def _history(bench: Bench, report: Report) -> None:
    peer = holdfast("os").with_options("--history-keep", "never", "--overcommit")
    count = max(EACH, min(1_000_000, bench.size // PER_SAMPLE))
    measures = (more("p50", "median", "ms", plotted=True), more("p99", "p99", "ms"), more("max", "slowest", "ms"))
    title = f"GET of the history of an upload, {count:,} samples in the catalog"
    table = Table("live-history", title, measures, base=peer.name)
    report.tables.append(table)
    with running(peer, bench.folder) as server:
        uploads = _created(server, count // EACH)
        anyio.run(_fill, server.data / "catalog.sqlite", uploads, EACH)
        for case, row in bench.turns([peer.name]):
            with bench.attempt(table, case, row) as samples:
                target = f"/api/uploads/{uploads[len(uploads) // 2]}/history"
                result, sample = load(server, "requests", method="GET", target=target, count=200)
                times = [1000 * each for each in result["times"]]
                found = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "max": max(times)}
                samples.append(Sample(sample.seconds, 200, sample.cpu, sample.memory, sample.load, found))
