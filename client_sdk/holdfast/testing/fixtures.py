"""Fixtures of pytest: `pytest_plugins = ["holdfast.testing.fixtures"]` in a conftest.py.

Rule of this file: a test gets a server, and a journal, of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.testing.clock import VirtualClock
from holdfast.testing.server import Server


@pytest.fixture
def holdfast_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the test's own journal; nothing of the user's is seen or changed."""
    folder = tmp_path / "holdfast-state"
    monkeypatch.setenv("HOLDFAST_STATE", str(folder))
    return folder


@pytest.fixture
def holdfast_server(tmp_path: Path, holdfast_state: Path) -> Iterator[Server]:
    """A server of the test's own, running; the journal is the test's own, too."""
    with Server(tmp_path / "holdfast-data") as server:
        yield server


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """For `clock=` of a client."""
    return VirtualClock()
