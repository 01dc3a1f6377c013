"""Processes of one data folder that tell each other: over real sockets, in one process."""

import contextlib
import socket
from pathlib import Path

import anyio
import pytest
from tests.support.waiting import scaled

from holdfast_server.storage.neighbours import LONGEST, LOOK_INTERVAL, Neighbours

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def heard(by: Neighbours) -> list[bytes]:
    with anyio.fail_after(scaled(10)):
        return list(await by.heard())


async def test_everybody_else_hears_what_is_told(tmp_path: Path) -> None:
    folder, clock = tmp_path / "live", Clock()
    names = [Neighbours(folder, clock) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        one, two, three = [stack.enter_context(each.there()) for each in names]
        one.tell(b"news")
        assert [await heard(two), await heard(three)] == [[b"news"], [b"news"]]
        two.tell(b"more")
        assert await heard(one) == [b"more"]  # and not what it has told itself
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


async def test_who_comes_and_goes_is_noticed_at_the_next_look(tmp_path: Path) -> None:
    clock = Clock()
    with Neighbours(tmp_path, clock).there() as one:
        assert one.alone()
        with Neighbours(tmp_path, clock).there() as two:
            assert one.alone()
            clock.now += LOOK_INTERVAL
            assert not one.alone()
            one.tell(b"news")
            assert await heard(two) == [b"news"]
        one.tell(b"to nobody")
        assert one.alone()


async def test_who_was_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = Clock()
    killed = tmp_path / "0123456789abcdef.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as its:
        its.bind(str(killed))
    assert killed.exists()
    with Neighbours(tmp_path, clock).there() as one, Neighbours(tmp_path, clock).there() as two:
        assert not one.alone()
        one.tell(b"news")
        assert await heard(two) == [b"news"]
        assert not killed.exists()


async def test_what_does_not_fit_is_not_told_and_nobody_waits(tmp_path: Path) -> None:
    clock = Clock()
    with Neighbours(tmp_path, clock).there() as one, Neighbours(tmp_path, clock).there() as two:
        one.tell(bytes(64 * LONGEST))
        for number in range(2000):
            one.tell(b"%d" % number)  # and nobody reads
        came = await heard(two)
        assert came == [b"%d" % number for number in range(len(came))]


async def test_what_waits_is_heard_at_once_and_in_order(tmp_path: Path) -> None:
    clock = Clock()
    with Neighbours(tmp_path, clock).there() as one, Neighbours(tmp_path, clock).there() as two:
        for number in range(5):
            one.tell(b"%d" % number)
        assert await heard(two) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_deep_folder_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 20] * 3)
    folder.mkdir(parents=True)
    clock = Clock()
    with Neighbours(folder, clock).there() as one, Neighbours(folder, clock).there() as two:
        one.tell(b"news")
        assert await heard(two) == [b"news"]
