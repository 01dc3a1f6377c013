"""Real processes: the server with its workers, and the command line.

Rule of this file: whatever is started here is ended here, with all its children, also when the test fails;
only processes of the group that was started are touched.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from tests.support.waiting import eventually, scaled
from tests.support.wire import Connection, ConnectionLostError

PLAIN = """
from holdfast_server.cli import serve
from holdfast_server.http.uvicorn_protocol import HoldfastProtocol

HoldfastProtocol.lends = lambda self: False
serve(prog_name="holdfast serve")
"""


def environment(home: Path) -> dict[str, str]:
    """The environment of a child: the same packages as here, no settings of the user or a CI, its own home folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "XDG_", "PYTHON")) and k != "CI"}
    return {
        **kept,
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PYTHONUNBUFFERED": "1",
    }


def processes_of(group: int) -> list[int]:
    """Living processes of a process group; zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[2]) == group and after_name[0] not in "ZX":
                found.append(int(entry.name))
    return found


def kill_group(group: int) -> None:
    """SIGKILL every process of a group and wait until none is left. Blocks."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    eventually(lambda: not processes_of(group), what="the end of killed processes")


class ServerProcess:
    """`holdfast serve` as a process, with its data in `data` and its log beside it.

    `options` are further options of the command line. The first line that the server prints on standard
    output holds its URL. With `start` the constructor blocks until the server is ready, at most 30 s
    (scaled). `plain` has one worker that lends no connection, so that bodies and files take the plain road of ASGI;
    HOLDFAST_TEST_ROAD=plain makes that the default for servers of one worker.
    """

    def __init__(
        self,
        data: Path,
        *options: str,
        workers: int = 1,
        overcommit: bool = False,
        expire_after: float | None = None,
        plain: bool = os.environ.get("HOLDFAST_TEST_ROAD") == "plain",
        max_size: int | None = None,
    ) -> None:
        self.data = data
        self._entry = ["-c", PLAIN] if plain and workers == 1 else ["-m", "holdfast_server"]
        self.log = data.with_name(data.name + ".log")
        self.url = ""
        self._options = [*options, "--workers", str(workers)]
        if overcommit:
            self._options.append("--overcommit")
        if expire_after is not None:
            self._options += ["--expire-after", f"{expire_after:g}"]
        if max_size is not None:
            self._options += ["--max-size", str(max_size)]
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._told = threading.Event()

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it on the port that it had before, or on a free one, and wait until it is ready."""
        assert not self.running
        self._told.clear()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self.data.parent),
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read_output, args=(self._process,), daemon=True)
        self._reader.start()
        try:
            eventually(self._ready, within=30, every=0.02, what="the server's readiness")
        except BaseException as error:
            self.kill()
            error.add_note(self.read_log())
            raise

    def kill(self) -> None:
        """SIGKILL the server and all its workers. Blocks until they are gone; nothing happens if they are."""
        if self._process is None:
            return
        kill_group(self._process.pid)
        self._process.wait()
        self._close()

    def stop(self, within: float = 10.0) -> int:
        """SIGTERM; the exit status. Raises TimeoutExpired if it does not end in `within` seconds (scaled)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(scaled(within))
        kill_group(self._process.pid)
        self._close()
        return status

    def terminate(self) -> None:
        """Only send SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self, within: float) -> int:
        """Wait for the end that `terminate` began; the exit status."""
        assert self._process is not None
        return self._process.wait(scaled(within))

    def restart(self) -> None:
        """SIGKILL if it runs, then start it again on the same port and data."""
        self.kill()
        self.start()

    def pids(self) -> list[int]:
        """The server and all its workers."""
        return processes_of(self.pid)

    def resident(self) -> dict[int, int]:
        """Resident memory of each process in bytes (VmRSS)."""
        return {pid: self._memory(pid, "status", "VmRSS") for pid in self.pids()}

    def private(self) -> dict[int, int]:
        """Memory of each process in bytes that it shares with no other."""
        return {
            pid: self._memory(pid, "smaps_rollup", "Private_Clean") + self._memory(pid, "smaps_rollup", "Private_Dirty")
            for pid in self.pids()
        }

    def read_log(self) -> str:
        """The last 20,000 characters of what the server wrote to standard error."""
        return self.log.read_text(errors="replace")[-20000:] if self.log.exists() else ""

    def _command(self) -> list[str]:
        command = [sys.executable, *self._entry, "--host", "127.0.0.1", "--port", str(self._port)]
        return [*command, "--data", str(self.data), *self._options]

    def _close(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        assert self._process.stdout is not None
        self._reader.join(scaled(10))
        self._process.stdout.close()
        self._process = None

    def _read_output(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not self._told.is_set() and (match := re.search(rb"http://127\.0\.0\.1:(\d+)", line)):
                self._port = int(match[1])
                self.url = match[0].decode()
                self._told.set()

    def _ready(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"the server ended with status {status}\n{self.read_log()}"
        if not self._told.is_set():
            return False
        try:
            with Connection(self.url, timeout=5) as connection:
                return connection.request("GET", "/health/ready").status == 200
        except (OSError, ConnectionLostError):
            return False

    @staticmethod
    def _memory(pid: int, file: str, name: str) -> int:
        match = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else 0


class HostedProcess(ServerProcess):
    """The application as a process of `host`, a server that `tests.support.hosts` knows, with one worker."""

    def __init__(
        self, host: str, data: Path, *, expire_after: float | None = None, max_size: int | None = None
    ) -> None:
        super().__init__(data)
        settings = {"expire_after": expire_after, "max_size": max_size}
        self._hosted = [host, str(data), json.dumps({k: v for k, v in settings.items() if v is not None})]

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.hosts", *self._hosted]


class CommandLine:
    """The `holdfast` command, with its journal and settings in the folder `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._command = [sys.executable, "-c", "import sys; from holdfast.cli import main; sys.exit(main())"]

    def run(
        self, *arguments: str, within: float = 60.0, variables: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end; raises TimeoutExpired after `within` seconds (scaled). `variables` of the environment go
        before the others."""
        return subprocess.run(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(self.home) | dict(variables or {}),
            timeout=scaled(within),
            check=False,
        )

    @contextlib.contextmanager
    def started(self, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Run it beside the test, its output in `home`/output.txt; killed at the end of the block if it
        still runs.
        """
        with (self.home / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self.home),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill_group(process.pid)
            process.wait()
