"""A headless Chromium, and the site whose pages it shows.

    Site       serves a folder on loopback; its origin is another one than that of the server under test
    Driver     a browser of its own, driven by a script with one JSON command a line
    Browser    opens pages and calls functions of them, through browser.cjs

Rule of this file: Chromium is that of the system (`chromium`, or $CHROMIUM), the packages are those of `make interop`.
Every wait is bounded, and when one is in vain the error shows what the browser's console said.
"""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

from tests.support.process import environment, kill_group
from tests.support.waiting import scaled

HERE = Path(__file__).parent
REBOUND = "evil.rebound.example"
"""A name that leads to 127.0.0.1 in the browsers of the tests."""
MODULES = HERE.parents[1] / ".cache" / "interop" / "node_modules"


def chromium() -> str | None:
    """Where Chromium is, or None."""
    return shutil.which(os.environ.get("CHROMIUM", "chromium"))


def missing() -> str | None:
    """What a browser test lacks on this machine, in words, or None."""
    if not shutil.which("node"):
        return "node is not installed"
    if not chromium():
        return "chromium is not installed"
    if not (MODULES / "playwright-core").is_dir():
        return "playwright-core is not installed: make interop"
    return None


def bundle(source: Path, target: Path) -> None:
    """Make one script of a module and the packages that it imports. Blocks for some seconds."""
    esbuild = MODULES / "esbuild-wasm" / "bin" / "esbuild"
    result = subprocess.run(
        ["node", str(esbuild), str(source), "--bundle", "--format=iife", "--log-level=warning", f"--outfile={target}"],
        env={**environment(target.parent), "NODE_PATH": str(MODULES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


class Site:
    """Serves the files of `folder`, on a port of its own or on that one; `put` adds one."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        folder.mkdir()
        self.folder = folder
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Site":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(scaled(10))

    def put(self, name: str, content: str | bytes) -> str:
        """Write a file; its URL."""
        self.folder.joinpath(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return f"{self.origin}/{name}"

    def page(self, name: str, *scripts: str) -> str:
        """A page that runs scripts of this site; its URL."""
        tags = "".join(f'<script src="{script}"></script>' for script in scripts)
        return self.put(name, f'<!doctype html><meta charset="utf-8"><title>interop</title>{tags}')


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


class Driver:
    """A browser of its own, whose profile is thrown away at the end; `script` drives it, one JSON command a line."""

    def __init__(self, home: Path, script: Path) -> None:
        path = chromium()
        assert path is not None
        self.log = home / "browser.log"
        # Short, because Chromium makes sockets in it, whose paths cannot be long.
        self._scratch = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["node", str(script), str(MODULES), path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment(home), "TMPDIR": self._scratch.name},
                start_new_session=True,
            )
        self._answers: Queue[bytes] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.version = str(self._answer("the start of Chromium", 60))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.read_log())
        self.close()

    def read_log(self) -> str:
        """What the browser's console said; the last 5,000 characters of it."""
        return self.log.read_text(errors="replace")[-5000:]

    def close(self) -> None:
        """End the browser with all its processes. Blocks until they are gone.

        It closes when its input ends. One that does not is killed; Chromium itself ends when its driver is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(scaled(10))
        kill_group(self._process.pid)
        self._process.wait()
        self._reader.join(scaled(10))
        self._process.stdout.close()
        self._scratch.cleanup()

    def _send(self, command: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, what: str, within: float) -> Any:
        try:
            line = self._answers.get(timeout=scaled(within))
        except Empty:
            raise AssertionError(f"{what} did not come in {scaled(within):g} s\n{self.read_log()}") from None
        assert line, f"the browser ended before {what}\n{self.read_log()}"
        answer = json.loads(line)
        assert "error" not in answer, f"{what}: {answer['error']}\n{self.read_log()}"
        return answer["value"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")


class Browser(Driver):
    """One page of a browser, from `renew` on."""

    def __init__(self, home: Path) -> None:
        self._begun = 0
        super().__init__(home, HERE / "browser.cjs")

    def renew(self) -> None:
        """A page that knows nothing of the one before, with an empty log."""
        self._send({"renew": True})
        self._answer("another page", 30)
        self._begun = self.log.stat().st_size

    def read_log(self) -> str:
        """What the console has said since `renew`; the last 5,000 characters of it."""
        return self.log.read_bytes()[self._begun :].decode(errors="replace")[-5000:]

    def open(self, url: str) -> None:
        """Go to a page. Blocks until it has loaded."""
        self._send({"open": url})
        self._answer(f"the page {url}", 30)

    def call(self, name: str, given: Any = None, *, within: float = 60.0) -> Any:
        """Call a function of the page's `interop`, and wait for its answer, at most `within` seconds (scaled).

        Raises AssertionError if it does not come, or if the function throws.
        """
        self._send({"call": name, "with": given})
        return self._answer(f"the end of {name}", within)
