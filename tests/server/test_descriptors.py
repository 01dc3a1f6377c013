"""Bytes into an open file, as much as there is at a time."""

import time
from pathlib import Path

from holdfast_server.storage.descriptors import TURN, write_from


def test_what_takes_long_is_written_in_several_turns(tmp_path: Path) -> None:
    """So that others have theirs where the disk is slow."""
    data = b"slowly"

    def source(most: int) -> list[bytes]:
        time.sleep(TURN)
        return [data[len(data) - most :][:2]]

    turns: list[int] = []
    with (tmp_path / "file").open("wb") as file:
        while (done := sum(turns)) < len(data):
            turns.append(write_from(file.fileno(), done, source, len(data) - done, ()))
    assert turns == [2, 2, 2]
    assert (tmp_path / "file").read_bytes() == data
