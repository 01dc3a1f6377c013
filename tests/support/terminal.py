"""The `holdfast` command at a terminal of its own: what it shows there, and keys that are typed.

Rule of this file: it is the kernel's terminal, so Ctrl-C is a key and becomes a signal there, as for a user. Whatever
is started here is ended here.
"""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.process import environment
from tests.support.waiting import eventually, scaled

CTRL_C = b"\x03"
SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"
HOLDFAST = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\nfrom holdfast.cli import main; main()"


class Terminal:
    """A command in a terminal of `columns` x `rows`; `holdfast` with `arguments`, if no other `command` is given.

    With `output`, standard output goes into that file, and only what is for people is on the terminal.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        command: list[str] | None = None,
        columns: int = 80,
        rows: int = 24,
        output: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._mine, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {k: v for k, v in environment(home).items() if k not in ("CI", "NO_COLOR", "COLUMNS", "LINES")}
        with contextlib.ExitStack() as opened:
            out = inside if output is None else opened.enter_context(output.open("wb")).fileno()
            self.process = subprocess.Popen(
                command or [sys.executable, "-c", HOLDFAST, *arguments],
                stdin=inside,
                stdout=out,
                stderr=inside,
                env=kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | dict(variables or {}),
                cwd=home,
                start_new_session=True,
            )
        os.close(inside)
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(scaled(10))
        os.close(self._mine)

    @property
    def text(self) -> str:
        """All that came so far, with what steers the terminal."""
        return bytes(self._said).decode("utf-8", "replace")

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._mine, keys)

    def shows(self, text: str, *, within: float = 30.0) -> None:
        """Wait until that came."""
        eventually(lambda: text in self.text, within=within, what=f"{text!r} on the terminal")

    def ended(self, *, within: float = 30.0) -> int:
        """Wait for the end of the command and of its output; the exit status."""
        status = self.process.wait(scaled(within))
        self._reader.join(scaled(10))
        return status

    def _read(self) -> None:
        # It ends with an error when nobody has the other side open any more.
        with contextlib.suppress(OSError):
            while piece := os.read(self._mine, 65536):
                self._said += piece
