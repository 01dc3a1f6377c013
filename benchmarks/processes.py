"""Processes and what they cost.

    Running   a server that answers: its CPU time and memory, with all its children
    Meter     what a server has used between two moments
    Spent     what a command has used from its start to its end

Rule of this file: whatever is started here is ended here, with its children, however the block is left. CPU time is
user and system time as the kernel counts it, in steps of 10 ms for a server and exact for a command. Memory is
the highest resident size (VmHWM), added up over the processes, since the meter was set or the command began.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import Peer
from benchmarks.units import MIB

TICKS: Final = os.sysconf("SC_CLK_TCK")
START_LIMIT: Final = 30.0
"""Seconds that a server may take until it answers."""
REST: Final = 0.1
"""A server is at rest when it has used less than two ticks of CPU in so many seconds."""
COMMAND_LIMIT: Final = 300.0
"""Seconds that a command may take."""
SPARE: Final = 64 * MIB
MOST_READY: Final = 2048 * MIB
"""Bytes of memory: what is made ready beyond what a measurement is said to need, and the most that ever is."""


class FailedError(Exception):
    """A server or a command did not do what it was asked to; the message says what it said."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def surroundings() -> dict[str, str]:
    """The environment of this process without what would change what is measured: settings of ours, and the one by
    which Python compiles everything anew at each start.
    """
    left_out = ("HOLDFAST_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


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


def started_by(pid: int) -> list[int]:
    """The living children that the main thread of a process has started, and theirs. Costs less than `family`."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *started_by(child))]


def cpu_of(pids: Sequence[int]) -> float:
    """Seconds of CPU, user and system, that these have used, with children of theirs that have ended."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in fields[11:15])
    return total / TICKS


def peak_of(pids: Sequence[int]) -> int:
    """Bytes: the highest resident size of each of these, added up."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


@dataclass
class Meter:
    """What a server used. `cpu` is in seconds and `memory` in bytes; both are known when the block has ended."""

    cpu: float = 0.0
    memory: int = 0


@dataclass
class Running:
    """A server that answers on `port`, with its files in `data`."""

    peer: Peer
    process: "subprocess.Popen[bytes]"
    port: int
    data: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.peer.collection}"

    @contextlib.contextmanager
    def metered(self, writes: int = 0) -> Iterator[Meter]:
        """What the block, in which about `writes` bytes are written, costs this server. What earlier runs left
        unwritten is written first, and memory is made ready: nobody pays for others.
        """
        os.sync()
        ready_memory(min(writes + writes // 4 + SPARE, MOST_READY), self.data.parent)
        pids = family(self.process.pid)
        for pid in pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        before = cpu_of(pids)
        meter = Meter()
        yield meter
        pids = family(self.process.pid)
        meter.cpu = cpu_of(pids) - before
        meter.memory = peak_of(pids)

    def settle(self) -> None:
        """Wait until all its processes have started and are at rest; 5 s at most."""
        deadline = time.monotonic() + 5
        before = -1.0
        while time.monotonic() < deadline:
            now = cpu_of(family(self.process.pid))
            if now - before < 2 / TICKS:
                return
            before = now
            time.sleep(REST)

    def kill(self) -> None:
        """SIGKILL the whole process group, and wait for its leader."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def ready_memory(size: int, folder: Path) -> None:
    """Have the kernel hold so much free memory that was in use a moment ago, for the page cache to grow into.

    A virtual machine gives free memory back to its host after about two seconds, and the first write to a page that is
    away costs several times as much as any later one: whoever is measured would pay for what was freed before. The page
    cache takes its memory from the same place again, so it is a file that is written and removed.
    """
    path = folder / "memory"
    piece = bytes(MIB)
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(0, size, MIB):
                file.write(piece)
    finally:
        path.unlink(missing_ok=True)


def answers(port: int, target: str) -> bool:
    """Whether an OPTIONS is answered at all. Blocks for a second at most."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
        asking.sendall(f"OPTIONS {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return asking.recv(5) == b"HTTP/"
    return False


def start(peer: Peer, data: Path, port: int | None = None) -> Running:
    """Start a server on `data`, and wait until it answers. Raises FailedError with its log if it does not."""
    port = port or free_port()
    log = data.with_name("peer.log")
    command = peer.command(port, data)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=surroundings(),
            start_new_session=True,
        )
    server = Running(peer, process, port, data)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not answers(port, peer.collection):
            if process.poll() is not None or time.monotonic() > deadline:
                raise FailedError(f"{peer.name} does not answer: {log.read_text(errors='replace')[-1500:].strip()}")
            time.sleep(0.005)
        return server
    except BaseException:
        server.kill()
        raise


@contextlib.contextmanager
def running(peer: Peer, folder: Path) -> Iterator[Running]:
    """A server on an empty data folder in `folder`; at the end all of it is removed."""
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    try:
        server = start(peer, data)
        try:
            server.settle()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(data, ignore_errors=True)


@dataclass(frozen=True)
class Spent:
    """What a command used: wall seconds, CPU seconds, bytes of memory at the highest; and what it printed."""

    seconds: float
    cpu: float
    memory: int
    output: str


@dataclass
class _Watch:
    """The peak of a command's memory, read again and again, because the kernel's own figure counts the parent's."""

    pid: int
    peak: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.wait(0.01):
            self.peak = max(self.peak, peak_of([self.pid, *started_by(self.pid)]))


def spend(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    limit: float = COMMAND_LIMIT,
    check: Callable[[int], bool] = lambda status: status == 0,
) -> Spent:
    """Run a command to its end in `folder`. Blocks at most `limit` seconds.

    Raises FailedError with the end of its output if `check` is false of its exit status, or if it takes too long.
    """
    output = folder / "command.log"
    with output.open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=surroundings() | dict(environment or {}),
            start_new_session=True,
        )
    watch = _Watch(process.pid)
    watcher = threading.Thread(target=watch.run)
    watcher.start()
    timer = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        timer.cancel()
        watch.ended.set()
        watcher.join()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    told = output.read_text(errors="replace")
    if not check(process.returncode):
        raise FailedError(f"{Path(command[0]).name} ended with {process.returncode}: {told[-1500:].strip()}")
    return Spent(seconds, usage.ru_utime + usage.ru_stime, watch.peak, told)
