"""Servers that others wrote, as processes on loopback: tusd, and @tus/server on Node.

Rule of this file: a server that is not installed is no failure; `missing` says in words what is not there. Whatever
is started is ended, and so are its children.
"""

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.support.process import environment, kill_group
from tests.support.waiting import scaled

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".cache" / "interop" / "node_modules"
MAX_SIZE = 1_000_000_000
"""The limit in bytes that they are started with."""


@dataclass(frozen=True)
class Peer:
    """`version` asks what is installed; `missing` is None or the reason why it cannot be started; `command` starts
    it with its files in a folder, and it prints its creation URL.
    """

    name: str
    version: Callable[[], str]
    missing: Callable[[], str | None]
    command: Callable[[Path], list[str]]

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Start it; the creation URL. Raises AssertionError if it is not up in 30 s (scaled)."""
        files = folder / "files"
        files.mkdir(parents=True)
        process = subprocess.Popen(
            self.command(files),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(folder),
            start_new_session=True,
        )
        told: Queue[str] = Queue()
        reader = threading.Thread(target=_read, args=(process, told), daemon=True)
        reader.start()
        try:
            url = told.get(timeout=scaled(30))
            assert url, f"{self.name} ended before it was ready"
            yield url
        finally:
            kill_group(process.pid)
            process.wait()
            reader.join(scaled(10))
            assert process.stdout is not None
            process.stdout.close()


def _read(process: "subprocess.Popen[bytes]", told: "Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(rb"http://127\.0\.0\.1:[1-9]\d*/\S*", line):
            told.put(match[0].decode())
    told.put("")


def _tusd() -> str | None:
    return os.environ.get("TUSD") or shutil.which("tusd")


def _tusd_version() -> str:
    """What the binary knows of its module; one that was built in a checkout does not, and $TUSD_VERSION says it."""
    path = _tusd()
    assert path is not None
    found = re.search(rb"mod\tgithub\.com/tus/tusd/v2\tv([\d.]+)", Path(path).read_bytes())
    return found[1].decode() if found else os.environ.get("TUSD_VERSION", "of unknown version")


def _tusd_command(files: Path) -> list[str]:
    path = _tusd()
    assert path is not None
    options = ["-host", "127.0.0.1", "-port", "0", "-base-path", "/files/", "-max-size", str(MAX_SIZE)]
    options += ["-enable-experimental-protocol"]
    return [path, *options, "-upload-dir", str(files)]


def _node_missing() -> str | None:
    if not shutil.which("node"):
        return "node is not installed"
    if not (MODULES / "@tus" / "server").is_dir():
        return "@tus/server is not installed: make interop"
    return None


def _node_version() -> str:
    found = re.search(r'"version": "([^"]+)"', (MODULES / "@tus" / "server" / "package.json").read_text())
    assert found is not None
    return found[1]


TUSD = Peer("tusd", _tusd_version, lambda: None if _tusd() else "tusd is not installed", _tusd_command)
TUS_NODE = Peer(
    "@tus/server",
    _node_version,
    _node_missing,
    lambda files: ["node", str(HERE / "tus_server.mjs"), str(MODULES), str(files), str(MAX_SIZE)],
)
