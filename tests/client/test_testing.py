"""What is shipped for the tests of others, as docs/testing.md shows it."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import holdfast
from holdfast.testing import Cut, FlakyTransport, Pass, Server, Stall, VirtualClock
from tests.support.process import environment
from tests.support.waiting import scaled

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_page_is_right(tmp_path: Path) -> None:
    """Its examples, as files of somebody's own, under a pytest of their own."""
    conftest, tests = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_theirs.py").write_text(tests)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=scaled(100), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tests.count('def test_')} passed" in done.stdout


def test_a_server_keeps_its_port_and_its_data(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--durability", "os") as server:
        url = server.url
        result = holdfast.upload(b"abc", to=server.files, state=tmp_path / "state")
        server.stop()
        assert not server.running
        server.start()
        assert (server.url, server.running) == (url, True)
        assert holdfast.download(result.url, tmp_path / "x", state=tmp_path / "state").path.read_bytes() == b"abc"
    assert not server.running


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-option"):
        Server(tmp_path / "data", "--no-such-option").start()


def test_a_stalled_connection_is_left(tmp_path: Path) -> None:
    short = holdfast.Timeouts(stall=0.5, response=0.5)
    with (
        Server(tmp_path / "data") as server,
        FlakyTransport(server.files, [Pass(), Stall(after=0), Cut()]) as flaky,
        holdfast.Client(state=tmp_path / "state", timeouts=short) as client,
    ):
        assert client.upload(b"abc", flaky.url).result().size == 3
    assert Pass() in flaky.taken


def test_a_virtual_clock_waits_for_nobody() -> None:
    import anyio

    clock = VirtualClock()
    began, real, wall = clock.monotonic(), time.monotonic(), clock.time()
    anyio.run(clock.sleep, 3600.0)
    clock.advance(60)
    clock.advance(-5)
    assert time.monotonic() - real < 60
    assert 3660 <= clock.monotonic() - began < 3720
    assert 3660 <= clock.time() - wall < 3720
    assert clock.slept == [3600.0]
