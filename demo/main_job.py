"""The main job, to watch: upload, kill the server, resume, kill the client, resume, download, compare.

    python demo/main_job.py [--file PATH] [--keep]

Everything that is shown happens: the server and the client are processes of their own, started with the commands that
a user would type, and the digests are computed here, with hashlib, from the file that was read and the file that came
back. Exit status: 0 if all of it held, 1 if anything differs or fails, 130 after Ctrl-C.

Rule of this file: whatever it starts or writes is gone when it ends, however it ends; `--keep` keeps the folder and
says where it is.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

MIB: Final = 1024 * 1024
GRANULE: Final = 64 * 1024
ARCHIVE_LIMIT: Final = 192 * MIB
CONCURRENCY: Final = 4
UPLOAD_SECONDS: Final = 8
"""How long the upload is made to take, so that there is a middle to hit: see `rate_for`."""
SERVER_DIES_AT: Final = 0.40
CLIENT_DIES_AT: Final = 0.70
SERVER_AWAY: Final = 1.5
"""Seconds between the death of the server and its return."""
PATIENCE: Final = 100.0
"""Seconds after which the demo gives up, plus what a file of the user's own may need."""

ROOT: Final = Path(__file__).resolve().parent.parent
HOLDFAST: Final = Path(sys.executable).with_name("holdfast")


class DemoError(Exception):
    """Something is not as it must be; the sentence says what."""


def size_text(size: float) -> str:
    return f"{size / MIB:,.1f} MiB" if size >= MIB / 10 else f"{size:,.0f} bytes"


class Screen:
    """What is shown: bars that move on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._step = 0

    def step(self, text: str) -> None:
        self._step += 1
        self.console.print(f"\n[bold cyan]{self._step}[/] [bold]{text}[/]")

    def command(self, command: list[str]) -> None:
        shown = ["holdfast", *command[1:]]
        self.console.print(
            "  $ " + " ".join(part.replace(str(ROOT) + "/", "") for part in shown), style="dim", markup=False
        )

    def say(self, text: str, style: str = "") -> None:
        self.console.print("  " + text, style=style, markup=False)

    @contextlib.contextmanager
    def bar(self, total: int) -> "Iterator[Bar]":
        progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=2,
        )
        with progress:
            yield Bar(self, progress, total)


class Bar:
    """A progress bar on a terminal; elsewhere a line at each tenth."""

    def __init__(self, screen: Screen, progress: Progress, total: int) -> None:
        self._screen = screen
        self._progress = progress
        self._task = progress.add_task("stored", total=total)
        self._total = total
        self._tenth = 0

    def show(self, done: int, what: str = "stored") -> None:
        self._progress.update(self._task, completed=done, description=what)
        tenth = done * 10 // self._total if self._total else 10
        if tenth > self._tenth and not self._screen.console.is_terminal:
            self._screen.say(f"{tenth * 10:3d} %  {size_text(done)} {what}")
        self._tenth = max(self._tenth, tenth)


@dataclass
class Deadline:
    """The end of all waiting."""

    at: float

    def check(self, what: str) -> None:
        if time.monotonic() > self.at:
            raise DemoError(f"it took too long: {what}")


@dataclass
class Child:
    """A process with a group of its own, so that nothing of it is left when it is killed."""

    process: "subprocess.Popen[bytes]"
    log: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    """What a command with --json has said so far, one object a line."""

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL the whole group, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def complaint(self) -> str:
        return self.log.read_text(errors="replace").strip()[-2000:]


class Household:
    """The scratch folder and the processes of this run; all of it goes when the block ends."""

    def __init__(self, keep: bool) -> None:
        cache = ROOT / ".cache"
        cache.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="demo-", dir=cache))
        self._keep = keep
        self._children: list[Child] = []
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        self._environment |= {"HOLDFAST_STATE": str(self.folder / "journal"), "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> "Household":
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for child in self._children:
            child.kill()
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()

    def start(self, name: str, command: list[str], read: Callable[[Child, IO[bytes]], None]) -> Child:
        """Start a command; `read` gets its standard output, in a thread. Standard error goes to a file."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )
        child = Child(process, log)
        self._children.append(child)
        assert process.stdout is not None
        threading.Thread(target=read, args=(child, process.stdout), daemon=True).start()
        return child


class Server:
    """`holdfast serve` on one port and one data folder, through all its lives."""

    def __init__(self, house: Household, deadline: Deadline) -> None:
        self._house = house
        self._deadline = deadline
        self._data = house.folder / "data"
        self._child: Child | None = None
        self._port = 0
        self.url = ""

    @property
    def command(self) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--data", str(self._data)]
        return [str(HOLDFAST), "serve", *where]

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        told = threading.Event()

        def read(child: Child, output: IO[bytes]) -> None:
            for line in output:
                if b"http://" in line and not told.is_set():
                    self.url = "http://" + line.split(b"http://")[1].split()[0].decode().rstrip("/")
                    self._port = int(self.url.rsplit(":", 1)[1])
                    told.set()

        self._child = self._house.start("server", self.command, read)
        while not (told.is_set() and self._ready()):
            if not self._child.running:
                raise DemoError(f"the server did not start:\n{self._child.complaint()}")
            self._deadline.check("the server's start")
            time.sleep(0.02)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    def get(self, path: str) -> Any:
        """JSON from the server. Raises OSError if it is away."""
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def received(self) -> int | None:
        """Bytes of the one upload that are stored; None if the server is away, 0 if there is no upload yet."""
        try:
            uploads = self.get("/api/uploads?limit=1")["uploads"]
        except OSError:
            return None
        return int(uploads[0]["received"]) if uploads else 0

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


def read_events(child: Child, output: IO[bytes]) -> None:
    for line in output:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                child.events.append(event)


def files_of_this_python() -> Iterator[Path]:
    """The files of the running Python: its standard library, then the packages beside it. No caches."""
    for name in ("stdlib", "platlib"):
        for folder, subfolders, names in os.walk(sysconfig.get_path(name)):
            subfolders[:] = sorted(set(subfolders) - {"__pycache__"})
            yield from (Path(folder, each) for each in sorted(names))


def make_archive(target: Path) -> int:
    """A plain tar of the Python that runs this, at most ARCHIVE_LIMIT bytes and a little; the number of files."""
    count = 0
    seen: set[Path] = set()
    with target.open("wb") as output, tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in files_of_this_python():
            if path in seen or not path.is_file() or not os.access(path, os.R_OK):
                continue
            if output.tell() + path.stat().st_size > ARCHIVE_LIMIT:
                continue
            seen.add(path)
            archive.add(path, arcname=str(path).lstrip("/"), recursive=False)
            count += 1
    return count


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rate_for(size: int) -> int:
    """Bytes a second at which an upload of `size` takes UPLOAD_SECONDS."""
    return max(size // UPLOAD_SECONDS, 64 * 1024)


def chunk_for(size: int) -> int:
    """Bytes of a chunk: small enough to stop close to a percentage, and a multiple of 64 KiB."""
    return min(max(size // 64 // GRANULE, 1) * GRANULE, 4 * MIB)


def outcome(child: Child, what: str) -> dict[str, Any]:
    """How the one transfer of a command that has ended came out. Raises DemoError if it failed."""
    status = child.process.wait()
    for _ in range(100):
        if child.events and child.events[-1]["event"] == "summary":
            break
        time.sleep(0.02)
    done = [each for each in child.events if each["event"] == "done"]
    if status != 0 or not done:
        raise DemoError(f"{what} ended with status {status}:\n{child.complaint()}")
    return done[0]


class Acts:
    """The upload in two acts: the server dies, then the client."""

    def __init__(self, screen: Screen, house: Household, server: Server, deadline: Deadline, source: Path) -> None:
        self._screen = screen
        self._house = house
        self._server = server
        self._deadline = deadline
        self._size = source.stat().st_size
        self._command = [
            str(HOLDFAST), "upload", str(source), "--to", f"{server.url}/files",
            "--concurrency", str(CONCURRENCY), "--chunk-size", str(chunk_for(self._size)),
            "--limit-rate", str(rate_for(self._size)), "--json",
        ]  # fmt: skip
        self.seconds = 0.0
        """How long the upload took, from the first command to the last word of the second."""

    def play(self) -> dict[str, Any]:
        """The whole upload; the client's last word."""
        self._screen.say(
            f"Slowed down to {size_text(rate_for(self._size))}/s, so that there is a middle to cut it in.", "yellow"
        )
        self._screen.command(self._command)
        began = time.monotonic()
        with self._screen.bar(self._size) as bar:
            client = self._house.start("client", self._command, read_events)
            stored = self._until(SERVER_DIES_AT, client, bar)
            self._server.kill()
            bar.show(stored, "server killed")
            self._screen.say(
                f"kill -9 to the server at {stored / self._size:.0%}. The client keeps trying.", "bold red"
            )
            time.sleep(SERVER_AWAY)
            self._return_of_the_server(stored)
            if not client.running:
                raise DemoError(f"the client gave up while the server was away:\n{client.complaint()}")

            stored = self._until(CLIENT_DIES_AT, client, bar)
            client.kill()
            self._screen.say(f"kill -9 to the client at {stored / self._size:.0%}. The same command again:", "bold red")
            self._screen.command(self._command)
            second = self._house.start("client", self._command, read_events)
            self._until(1.0, second, bar)
            last = outcome(second, "the upload")
            bar.show(self._size)
        self.seconds = time.monotonic() - began
        resumed = int(last.get("bytes_resumed", 0))
        if resumed < stored * 0.9:
            raise DemoError(f"the second client began with {resumed} bytes, but {stored} were stored")
        self._screen.say(f"It found {size_text(resumed)} in place and sent the rest.", "green")
        return last

    def _return_of_the_server(self, promised: int) -> None:
        self._server.start()
        kept = self._server.received()
        self._deadline.check("the server's return")
        if kept is None or kept < promised:
            raise DemoError(f"the server had acknowledged {promised} bytes, and after its death it has {kept}")
        self._screen.say(
            f"The server is back, on the same port and folder, with {size_text(kept)}: all it had acknowledged.",
            "green",
        )

    def _until(self, fraction: float, client: Child, bar: Bar) -> int:
        """Wait until that part of the file is stored or the client has ended; bytes stored."""
        stored = 0
        while stored < fraction * self._size and client.running:
            stored = self._server.received() or stored
            bar.show(stored)
            self._deadline.check(f"the upload stands at {stored} bytes of {self._size}")
            time.sleep(0.02)
        if stored < fraction * self._size and fraction < 1:
            raise DemoError(f"the upload ended before {fraction:.0%} of it were stored:\n{client.complaint()}")
        return stored


def download(screen: Screen, house: Household, deadline: Deadline, url: str, target: Path) -> dict[str, Any]:
    """Fetch it again in parallel ranges; the client's last word."""
    command = [str(HOLDFAST), "download", url, "-o", str(target), "-n", str(CONCURRENCY), "--json"]
    screen.command(command)
    child = house.start("download", command, read_events)
    while child.running:
        deadline.check("the download")
        time.sleep(0.02)
    return outcome(child, "the download")


def run(screen: Screen, house: Household, own_file: Path | None) -> None:
    """All of it. Raises DemoError if anything is not as it must be."""
    began = time.monotonic()
    screen.step("The file")
    source = own_file or house.folder / "python.tar"
    if own_file is None:
        count = make_archive(source)
        screen.say(
            f"{source.name}: {count:,} files of Python {sys.version.split()[0]}, {size_text(source.stat().st_size)}"
        )
    else:
        screen.say(f"{source}: {size_text(source.stat().st_size)}")
    size = source.stat().st_size
    if size < MIB:
        raise DemoError("take a file of at least 1 MiB: a smaller one is stored before it can be interrupted")
    if shutil.disk_usage(house.folder).free < 2 * size + 64 * MIB:
        raise DemoError(f"{house.folder} needs room for the file twice")
    expected = sha256_of(source)
    deadline = Deadline(began + PATIENCE + size / (20 * MIB))

    screen.step("A server")
    server = Server(house, deadline)
    server.start()
    screen.command(server.command)
    screen.say(f"listening on {server.url}")

    screen.step(f"Upload in verified chunks, {CONCURRENCY} at a time")
    acts = Acts(screen, house, server, deadline, source)
    up = acts.play()

    screen.step(f"Download in {CONCURRENCY} parallel ranges")
    target = house.folder / "back"
    down = download(screen, house, deadline, up["url"], target)

    screen.step("The same file?")
    actual = sha256_of(target)
    table = Table(show_header=True, header_style="bold", box=None, padding=(0, 2))
    table.add_column("")
    table.add_column("upload", justify="right")
    table.add_column("download", justify="right")
    for row in (
        ("size", size_text(size), size_text(target.stat().st_size)),
        ("chunks", str(up["chunks"]) + " in the last run", str(down["segments"])),
        ("concurrency", str(up["concurrency"]), str(down["concurrency"])),
        ("sent twice", size_text(up["bytes_resent"]), size_text(max(0, down["bytes_received"] - size))),
        ("seconds", f"{acts.seconds:.1f} with both deaths", f"{down['seconds']:.1f}"),
        ("speed", f"{size_text(rate_for(size))}/s (limit)", f"{size_text(size / max(down['seconds'], 1e-6))}/s"),
    ):
        table.add_row(*row)
    screen.console.print(table)
    screen.say(f"SHA-256 sent      {expected}")
    screen.say(f"SHA-256 came back {actual}")
    if actual != expected or target.stat().st_size != size:
        raise DemoError("the file that came back is another one")
    screen.say(f"The same, in {time.monotonic() - began:.0f} s in all.", "bold green")


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Upload, kill, resume, download, compare.")
    parser.add_argument("--file", type=Path, help="a file of your own instead of an archive of this Python")
    parser.add_argument("--keep", action="store_true", help="keep the folder with server data, logs and the copy")
    options = parser.parse_args()
    screen = Screen()
    if options.file is not None and not options.file.is_file():
        screen.say(f"{options.file} is not a file", "bold red")
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    status = 1
    with Household(options.keep) as house:
        try:
            run(screen, house, options.file)
            status = 0
        except DemoError as error:
            screen.say(f"FAILED: {error}", "bold red")
        except KeyboardInterrupt:
            screen.say("Interrupted; cleaning up.", "bold red")
            status = 130
        if options.keep:
            screen.say(f"Kept: {house.folder}")
    return status


if __name__ == "__main__":
    sys.exit(main())
