"""What every scenario needs: peers as processes, what they cost, rounds, and a table.

    Peer        how a server is started, and where its uploads are
    Running     a started one: its URL, its CPU time and memory, with all its children
    Sample      one measurement
    interleave  rounds in which every peer has its turn before the next round begins
    Report      medians, ratios first; Markdown to read, JSON to keep

Rule of this file: peers are compared within one run and never across two, because the machine changes between them;
so a report gives ratios first, and medians with their spread beside them. Nothing is pinned or tuned for a peer.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
TICKS: Final = os.sysconf("SC_CLK_TCK")
START_LIMIT: Final = 30.0
"""Seconds that a peer may take until it listens."""

UNITS: Final = {"": 1, "B": 1, "KIB": 1024, "K": 1024, "MIB": MIB, "M": MIB, "GIB": GIB, "G": GIB}


def parse_size(text: str) -> int:
    """`1GiB`, `64MiB`, `65536`: bytes. Raises ValueError for anything else."""
    number = text.rstrip("BGIKMbgikm")
    unit = text[len(number) :].upper()
    if not number.isdigit() or unit not in UNITS:
        raise ValueError(f"{text!r} is not a size; write 64MiB or 1GiB")
    return int(number) * UNITS[unit]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Peer:
    """A server under measurement. `command` makes the command line from a port and a data folder."""

    name: str
    command: Callable[[int, Path], list[str]]
    collection: str = "/files"
    """The path that uploads are created at."""


def holdfast_peers(durabilities: Sequence[str] = ("os", "ack")) -> list[Peer]:
    """This server with one process, once for each durability."""

    def peer(durability: str) -> Peer:
        def command(port: int, data: Path) -> list[str]:
            server = [sys.executable, "-m", "holdfast_server", "--host", "127.0.0.1", "--port", str(port)]
            return [*server, "--data", str(data), "--durability", durability]

        return Peer(f"holdfast ({durability})", command)

    return [peer(durability) for durability in durabilities]


def tusd_peer() -> Peer | None:
    """tusd from $TUSD or from the PATH; None if there is none."""
    program = os.environ.get("TUSD") or shutil.which("tusd")
    if program is None:
        return None

    def command(port: int, data: Path) -> list[str]:
        where = ["-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(data), "-base-path", "/files/"]
        return [program, *where, "-show-greeting=false"]

    return Peer("tusd", command, "/files/")


def family(root: int) -> list[int]:
    """A process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


@dataclass(frozen=True)
class Running:
    """A peer that listens."""

    peer: Peer
    process: "subprocess.Popen[bytes]"
    port: int
    data: Path

    def cpu(self) -> float:
        """Seconds of CPU, user and system, that the whole family has used, with children that have ended."""
        total = 0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(value) for value in fields[11:15])
        return total / TICKS

    def peak_memory(self) -> int:
        """Bytes: the highest resident size (VmHWM) of each living process, added up."""
        total = 0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def running(peer: Peer, folder: Path) -> Iterator[Running]:
    """Start a peer on an empty data folder in `folder`, and wait until it listens; at the end all of it is removed.

    Raises RuntimeError with its log if it does not listen within START_LIMIT seconds.
    """
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    port = free_port()
    log = folder / "peer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(port, data), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{peer.name} does not listen:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)
        yield Running(peer, process, port, data)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(data, ignore_errors=True)


@dataclass(frozen=True)
class Sample:
    """One measurement: wall seconds, CPU seconds of the server, its peak memory in bytes."""

    seconds: float
    cpu: float
    memory: int


@contextlib.contextmanager
def measured(server: Running, samples: list[Sample]) -> Iterator[None]:
    """Append what the block takes. What earlier runs left unwritten is written first: nobody pays for others."""
    os.sync()
    cpu = server.cpu()
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    samples.append(Sample(seconds, server.cpu() - cpu, server.peak_memory()))


def interleave(rounds: int, peers: Sequence[Peer], cases: Sequence[str]) -> Iterator[tuple[str, Peer]]:
    """Every case of every peer once in each round. Each round begins with another peer: none is always first."""
    for turn in range(rounds):
        for case in cases:
            for index in range(len(peers)):
                yield case, peers[(index + turn) % len(peers)]


@dataclass
class Report:
    """The samples of one scenario. The first peer of `peers` is what the others are compared with."""

    scenario: str
    note: str
    peers: list[str]
    volume: int
    """Bytes of content moved in one measurement, for the CPU column."""
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    """By case and peer."""

    def of(self, case: str, peer: str) -> list[Sample]:
        return self.samples.setdefault(case, {}).setdefault(peer, [])

    def markdown(self) -> str:
        """A table: ratios of medians to the first peer (below 1 is better), then medians with the spread."""
        first = self.peers[0]
        lines = [
            f"### {self.scenario}",
            "",
            self.note,
            "",
            f"| case | peer | time, of {first} | CPU, of {first} | seconds (min-max) | CPU s/GiB | peak MiB | rounds |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for case, by_peer in self.samples.items():
            base = by_peer[first]
            for peer in self.peers:
                samples = by_peer[peer]
                seconds = [sample.seconds for sample in samples]
                cpu = statistics.median(sample.cpu for sample in samples)
                base_cpu = statistics.median(sample.cpu for sample in base)
                time_ratio = statistics.median(seconds) / statistics.median(sample.seconds for sample in base)
                cpu_ratio = f"{cpu / base_cpu:.2f}" if base_cpu else "-"
                lines.append(
                    f"| {case} | {peer} | {time_ratio:.2f} | {cpu_ratio} "
                    f"| {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) "
                    f"| {cpu * GIB / self.volume:.2f} | {max(sample.memory for sample in samples) / MIB:.0f} "
                    f"| {len(samples)} |"
                )
        return "\n".join(lines)

    def save(self, folder: Path) -> Path:
        """Write all samples as JSON, with what is needed to judge them; the file."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = folder / f"{self.scenario}-{stamp}.json"
        document = {
            "scenario": self.scenario,
            "note": self.note,
            "volume": self.volume,
            "when": stamp,
            "machine": {
                "cores": os.cpu_count(),
                "architecture": platform.machine(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "load": os.getloadavg(),
            },
            "samples": {
                case: {
                    peer: [{"seconds": s.seconds, "cpu": s.cpu, "memory": s.memory} for s in samples]
                    for peer, samples in by_peer.items()
                }
                for case, by_peer in self.samples.items()
            },
        }
        target.write_text(json.dumps(document, indent=2) + "\n")
        return target
