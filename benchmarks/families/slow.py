"""What thousands of slow connections cost others: one stream and small files, alone and beside them.

Rule of this file: a row is two servers of one kind, one of which has the slow connections. They are measured in turns,
after one that does not count: what changes on the machine meanwhile happens to both. While the one without is measured,
the process that plays the slow ones stands still; but it is measured once more while as many send to somebody else, who
takes them and reads nothing: so much they cost whatever the server does. Others are measured once the first seconds of
the slow ones are over, and before the server lets them go, which is time for a few turns; then both servers are started
anew, until there were as many turns as are asked for. As many slow ones as were there at the beginning have to be there
at the end.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from benchmarks.families.small import BYTES, CLIENTS, SECONDS
from benchmarks.harness import ROOT, Bench, load, taking_part
from benchmarks.peers import RUSTUS, TUSD_PEER, holdfast
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import MEMORY, Measure, Report, Sample, Table, cpu, rate
from benchmarks.units import size_text

CONNECTIONS: Final = 4000
SETTLE: Final = 10.0
"""Seconds after which they are no news for the server any more; it lets them go after about thirty..."""
LATEST: Final = 26.0
"""...so every turn has to end before so many."""
AWAKE: Final = 0.3
"""Seconds until those that stood still are not heard of at once any more."""
SHARE: Final = 4
"""Of the bytes that others send as one stream: all that was sent to a server is kept until it ends."""
CASES: Final = ("stream", "small")
ALONE: Final = "alone"
ELSEWHERE: Final = f"{CONNECTIONS:,} slow connections elsewhere"
BESIDE: Final = f"beside {CONNECTIONS:,} slow connections"
NOTE: Final = (
    f"{CONNECTIONS:,} connections from 64 addresses send a byte a second each: half of them heads that do not end, "
    f"half bodies. Speed of one stream, and of files of {size_text(BYTES)} from {CLIENTS} clients in one request each, "
    "to a server without them and to one that has them, in turns. On a tmpfs where there is one. The process that "
    "plays the slow ones shares the cores with all, and stands still while the server without them is measured. What "
    "their packets cost the machine, whatever a server does, show the rows `elsewhere`: the server without them, while "
    "another such process sends to a socket that nobody reads."
)


@contextlib.contextmanager
def slow_clients(port: int, heads: int, bodies: int) -> Iterator["subprocess.Popen[str]"]:
    """The process that plays them. Raises FailedError if they cannot connect, or are not there any more at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load.slow", f"http://127.0.0.1:{port}", str(heads), str(bodies)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise FailedError("the slow connections could not be made")
        yield process
        told, _ = process.communicate("", timeout=60)
        found = json.loads(told)
        if found["open"] < 0.9 * CONNECTIONS:
            raise FailedError(f"only {found['open']} slow connections were there: {found['ended']}")
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """The port of somebody who takes connections and reads nothing of them."""
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener, contextlib.ExitStack() as taken:

        def take() -> None:
            for _ in range(CONNECTIONS):
                taken.enter_context(listener.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=10)


@contextlib.contextmanager
def sending(process: "subprocess.Popen[str] | None") -> Iterator[None]:
    """This one, or None, is the only one that does not stand still."""
    if process is None:
        yield
        return
    process.send_signal(signal.SIGCONT)
    time.sleep(AWAKE)
    try:
        yield
    finally:
        process.send_signal(signal.SIGSTOP)


def measure(bench: Bench, server: Running, case: str, size: int) -> Sample:
    """One `stream` of `size` bytes, or `small` files."""
    peer = server.peer
    if case == "stream":
        _, sample = load(
            server,
            "streams",
            writes=size,
            collection=peer.collection,
            fields=peer.fields,
            source=str(bench.source(size)),
            size=size,
            count=1,
            piece=0,
        )
        return replace(sample, work=size)
    result, sample = load(
        server,
        "files",
        collection=peer.collection,
        way="one",
        size=BYTES,
        clients=CLIENTS,
        limit=SECONDS,
        most=max(2 * CLIENTS, size // (128 * 1024)),
        fields=peer.fields,
    )
    return replace(sample, work=result["files"])


def turns(bench: Bench, server: Running, size: int, count: int, samples: Mapping[str, list[Sample]]) -> None:
    """So many turns of each case."""
    for _ in range(count):
        for case, found in samples.items():
            found.append(measure(bench, server, case, size))


def compare(
    bench: Bench, without: Running, having: Running, size: int, most: int
) -> Mapping[str, Mapping[str, list[Sample]]]:
    """The samples of each case, by state: of as many turns as there is time for, at most `most`."""
    for server in (without, having):
        turns(bench, server, size, 1, {case: [] for case in CASES})
    alone: dict[str, list[Sample]] = {case: [] for case in CASES}
    beside: dict[str, list[Sample]] = {case: [] for case in CASES}
    elsewhere: dict[str, list[Sample]] = {case: [] for case in CASES}
    half = CONNECTIONS // 2
    with (
        nobody() as port,
        slow_clients(port, CONNECTIONS, 0) as others,
        slow_clients(having.port, half, CONNECTIONS - half) as theirs,
    ):
        begun = time.monotonic()
        others.send_signal(signal.SIGSTOP)
        time.sleep(SETTLE)
        theirs.send_signal(signal.SIGSTOP)
        measurements = [
            (None, without, alone),
            (others, without, elsewhere),
            (theirs, having, beside),
        ]
        try:
            longest = 0.0
            for turn in range(most):
                since = time.monotonic()
                if since - begun + longest > LATEST:
                    break
                for index in range(len(measurements)):
                    process, server, samples = measurements[(index + turn) % len(measurements)]
                    with sending(process):
                        turns(bench, server, size, 1, samples)
                longest = max(longest, time.monotonic() - since)
        finally:
            for each in (others, theirs):
                each.send_signal(signal.SIGCONT)
    return {ALONE: alone, ELSEWHERE: elsewhere, BESIDE: beside}


def run(bench: Bench) -> Report:
    report = Report("slow", "Beside slow connections", NOTE)
    there = taking_part(report, [holdfast("os"), holdfast("os", workers=2), TUSD_PEER, RUSTUS])
    size, folder = bench.size // SHARE, bench.memory or bench.folder
    stream: tuple[Measure, ...] = (rate(), cpu(), MEMORY)
    small: tuple[Measure, ...] = (rate("files/s", 1), cpu("s/1,000 files", 1000), MEMORY)
    tables = {
        "stream": Table("slow-stream", f"One stream, {size_text(size)}", stream, base=ALONE),
        "small": Table("slow-small", "Small files", small, base=ALONE),
    }
    report.tables += tables.values()
    for table in tables.values():
        table.say(list(there.values()))
    bench.expect(len(there))
    for row, peer in there.items():
        bench.advance(row)
        for table in tables.values():
            table.of(row, ALONE), table.of(row, ELSEWHERE)  # stand before the other one
        with bench.attempt(tables["small"], row, BESIDE) as measured, bench.attempt(tables["stream"], row, BESIDE):
            begun, took = time.monotonic(), 0.0
            while len(measured) < bench.rounds and time.monotonic() - begun + took < bench.limit / len(there):
                since = time.monotonic()
                with running(peer, folder / "without") as without, running(peer, folder / "having") as having:
                    for state, found in compare(bench, without, having, size, bench.rounds - len(measured)).items():
                        for case, samples in found.items():
                            tables[case].of(row, state).extend(samples)
                took = time.monotonic() - since
    return report
