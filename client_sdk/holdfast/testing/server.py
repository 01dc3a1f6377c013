"""A real server for tests, as a process of its own.

Rule of this file: what was started is ended when the block is left, also when the test fails, and nothing else is.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

READY: Final = 30.0
"""Seconds until it must listen."""
_URL: Final = re.compile(rb"https?://[^\s]+")


class Server:
    """`holdfast serve` on a free port of the loopback, with its data in `folder`; used with `with`.

    `options` are further options of its command line. Needs the extra `server`. `stop()` and `kill()` end it, and
    `start()` starts it again on the same port and data, as often as wanted: what it had acknowledged is still there.
    Starting blocks until it listens. Raises RuntimeError, with what it said, if it does not.
    """

    def __init__(self, folder: str | os.PathLike[str], *options: str) -> None:
        self.folder: Path = Path(folder)
        self.log: Path = self.folder.with_name(self.folder.name + ".log")
        """What it writes to standard error."""
        self.url: str = ""
        """`http://127.0.0.1:PORT`"""
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None

    @property
    def files(self) -> str:
        """The URL of the collection, for `to=`."""
        return f"{self.url}/files"

    @property
    def running(self) -> bool:
        """It was started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, if it does not run."""
        if self.running:
            return
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "holdfast.cli", "serve", "--host", "127.0.0.1", "--port", port]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, "--data", str(self.folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        told = threading.Event()
        self._drain = threading.Thread(target=self._read, args=(self._process, told), daemon=True)
        self._drain.start()
        if not told.wait(READY) or not self.url:
            self.kill()
            raise RuntimeError(f"the server did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it in order: what is on its way may come to its end, for a few seconds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            # It is the first of its own group, which its workers are in.
            os.killpg(process.pid, how)
        process.wait()
        if self._drain is not None:
            self._drain.join(READY)
        if process.stdout is not None:
            process.stdout.close()

    def _read(self, process: "subprocess.Popen[bytes]", told: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not told.is_set() and (found := _URL.search(line)):
                self.url = found[0].decode()
                told.set()
        told.set()
