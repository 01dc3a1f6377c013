"""Bytes into an open file, as much as there is at a time."""

import time
from pathlib import Path

from holdfast_server.storage.base import RUN
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


def test_what_is_asked_for_ends_at_a_multiple_of_a_run(tmp_path: Path) -> None:
    """Also where it begins, or stops for a moment, in the middle of one: the kernel writes whole pages then."""
    asked: list[int] = []
    start, size = RUN - 10, 2 * RUN

    def source(most: int) -> list[bytes]:
        asked.append(most)
        return [b"x" * min(most, RUN - 100)]

    with (tmp_path / "file").open("wb") as file:
        assert write_from(file.fileno(), start, source, size, ()) == size
    assert asked == [10, RUN, 100, RUN - 10, 90]
    assert (tmp_path / "file").read_bytes() == bytes(start) + b"x" * size
