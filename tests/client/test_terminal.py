"""The command at a real terminal: Ctrl-C once and twice, and going on after either."""

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.loopback import Loopback
from tests.support.process import CommandLine
from tests.support.terminal import CTRL_C, HIDE_CURSOR, SHOW_CURSOR, Terminal
from tests.support.waiting import eventually

MIB = 1024 * 1024
CHUNK = 65536
MakeFile = Callable[..., Path]


@pytest.fixture
def path(make_file: MakeFile) -> Path:
    return make_file(MIB)


def upload(loopback: Loopback, path: Path) -> list[str]:
    """All is stored but the last chunk, which stands still."""
    last = path.stat().st_size - CHUNK
    loopback.order("PATCH", "stall", after=1000, when=lambda seen: seen.offset == last)
    return ["upload", str(path), "--to", loopback.url, "--chunk-size", str(CHUNK), "--concurrency", "1"]


def wait_for_upload(loopback: Loopback, path: Path) -> None:
    last = path.stat().st_size - CHUNK
    eventually(lambda: loopback.uploads and loopback.only().stored.total == last, within=30, what="all chunks but one")
    eventually(lambda: loopback.body_bytes >= last + 1000, within=30, what="the first bytes of the last chunk")


@contextlib.contextmanager
def journal_held(home: Path) -> Iterator[None]:
    """Nobody can write to the journal meanwhile, so that whoever puts everything away has to wait."""
    with contextlib.closing(sqlite3.connect(home / ".local/state/holdfast/journal.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def goes_on(command: CommandLine, *words: str) -> dict[str, int]:
    """The same command again; its last word about the file."""
    done = command.run(*words, "--json")
    assert done.returncode == 0, done.stderr
    event: dict[str, int] = json.loads(done.stdout.splitlines()[-2])
    return event


def test_ctrl_c_once_pauses_an_upload(path: Path, loopback: Loopback, holdfast_command: CommandLine) -> None:
    words = upload(loopback, path)
    with Terminal(holdfast_command.home, *words) as terminal:
        wait_for_upload(loopback, path)
        terminal.type(CTRL_C)
        assert terminal.ended() == 130
    assert "Pausing; Ctrl-C once more leaves at once." in terminal.text
    assert "Run the same command again to go on." in terminal.text
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    assert "Traceback" not in terminal.text
    done = goes_on(holdfast_command, *words)
    assert (done["bytes_resumed"], done["bytes_resent"]) == (MIB - CHUNK, CHUNK)
    assert bytes(loopback.only().data) == path.read_bytes()


def test_ctrl_c_twice_leaves_an_upload_at_once(path: Path, loopback: Loopback, holdfast_command: CommandLine) -> None:
    """While it cannot put away what it knows; the terminal gets its cursor back, and nothing is lost all the same."""
    words = upload(loopback, path)
    with Terminal(holdfast_command.home, *words) as terminal:
        wait_for_upload(loopback, path)
        with journal_held(holdfast_command.home):
            terminal.type(CTRL_C)
            terminal.shows("Pausing")
            terminal.type(CTRL_C)
            assert terminal.ended() == 130
    assert "Run the same command again" not in terminal.text
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    assert "Traceback" not in terminal.text
    done = goes_on(holdfast_command, *words)
    assert done["bytes_resumed"] == MIB - CHUNK
    assert bytes(loopback.only().data) == path.read_bytes()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_pauses_or_leaves_a_download(
    times: int, loopback: Loopback, holdfast_command: CommandLine, tmp_path: Path
) -> None:
    content = os.urandom(2 * MIB)
    url = loopback.put("a" * 32, content, stored=[(0, len(content))])
    target = tmp_path / "copy"
    words = ["download", url, "-o", str(target), "-n", "1"]
    with Terminal(holdfast_command.home, *words, "--limit-rate", "128K") as terminal:
        eventually(lambda: re.search(r"[1-9]%", terminal.text), within=30, what="the first bytes")
        with journal_held(holdfast_command.home) if times == 2 else contextlib.nullcontext():
            terminal.type(CTRL_C)
            terminal.shows("Pausing")
            if times == 2:
                terminal.type(CTRL_C)
            assert terminal.ended() == 130
    assert ("Run the same command again" in terminal.text) == (times == 1)
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    assert "Traceback" not in terminal.text
    assert not target.exists()
    done = goes_on(holdfast_command, *words)
    if times == 1:
        assert done["bytes_resumed"] > 0
    assert done["bytes_resumed"] + done["bytes_received"] >= len(content)
    assert target.read_bytes() == content
