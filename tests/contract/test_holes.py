"""What every storage does with holes, over each implementation of the port `storage.base.Storage`."""

import os
from pathlib import Path

import pytest

from holdfast_protocol.digest import hasher
from holdfast_server.storage import holes
from holdfast_server.storage.base import Source, Storage
from holdfast_server.storage.local import LocalStorage

pytestmark = [pytest.mark.anyio, pytest.mark.rule("P-HOLE-4")]

MIB = 1 << 20
ID = "0" * 32


@pytest.fixture(params=["punched", "overwritten"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """On a file system that can make holes, and on one that cannot."""
    if request.param == "overwritten":
        monkeypatch.setattr(holes, "_FS_IOC_UNRESVSP64", 0)
    return LocalStorage(tmp_path, "ack")


@pytest.fixture
async def stored(storage: Storage, tmp_path: Path) -> Path:
    """The file of an upload with 3 MiB of bytes at its beginning."""
    reservation = await storage.reserve(ID, 0, 3 * MIB)
    assert reservation is not None
    await reservation.write(0, giving(b"x" * (3 * MIB)), 3 * MIB)
    reservation.release()
    return tmp_path / "incoming" / ID


def giving(data: bytes) -> Source:
    left = memoryview(data)

    def give(most: int) -> list[memoryview]:
        nonlocal left
        piece, left = left[:most], left[most:]
        return [piece] if piece else []

    return give


def content(path: Path) -> bytes:
    return path.read_bytes()


def size(path: Path) -> int:
    return path.stat().st_size


def room(path: Path) -> int:
    """What it takes on the disk, in bytes."""
    return path.stat().st_blocks * 512


async def punch(storage: Storage, start: int, end: int) -> None:
    reservation = await storage.reserve(ID, start, end)
    assert reservation is not None
    try:
        await reservation.punch(start, end)
        await reservation.sync()
    finally:
        reservation.release()


async def test_what_an_earlier_writer_left_there_becomes_zeros(storage: Storage, stored: Path) -> None:
    """To the byte, also where it does not fall on blocks, and nothing beside it changes."""
    await punch(storage, 1000, 2 * MIB + 1)
    rest = MIB - 1
    assert content(stored) == b"x" * 1000 + bytes(2 * MIB - 999) + b"x" * rest


async def test_a_hole_behind_the_end_takes_no_room(storage: Storage, stored: Path) -> None:
    """The file reaches to its end all the same: what is stored lies within the file."""
    before = room(stored)
    await punch(storage, 4 * MIB, 1 << 40)
    assert size(stored) == 1 << 40
    assert room(stored) - before <= 64 * 1024
    assert await storage.size(ID, "") == 1 << 40


async def test_a_writer_behind_the_hole_loses_nothing(storage: Storage, stored: Path) -> None:
    behind = await storage.reserve(ID, 8 * MIB, 9 * MIB)
    assert behind is not None
    await behind.write(8 * MIB, giving(b"y" * MIB), MIB)
    await punch(storage, 3 * MIB, 8 * MIB)
    behind.release()
    assert content(stored)[2 * MIB :] == b"x" * MIB + bytes(5 * MIB) + b"y" * MIB


async def test_zeros_are_told_from_other_bytes(storage: Storage, stored: Path) -> None:
    await punch(storage, 4 * MIB, 1 << 40)
    with stored.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(MIB) + b"\0\0z", 5 * MIB)
    piece = await storage.view(ID, "")
    assert piece is not None
    assert await piece.zeros(0, MIB) == 0
    assert await piece.zeros(3 * MIB, 5 * MIB) == 5 * MIB
    assert await piece.zeros(4 * MIB + 1, 1 << 40) == 6 * MIB + 2
    assert await piece.zeros(7 * MIB, 1 << 40) == 1 << 40
    assert await piece.zeros(5 * MIB, 5 * MIB + 1) == 5 * MIB + 1
    piece.release()


async def test_a_digest_covers_holes(storage: Storage, stored: Path) -> None:
    """Holes and bytes by turns; fewer bytes at the end of the file are told."""
    await punch(storage, 5 * MIB, 9 * MIB)
    await punch(storage, MIB, 2 * MIB)
    computing, expected = hasher("sha-256"), hasher("sha-256")
    piece = await storage.view(ID, "")
    assert piece is not None
    assert await piece.digest(10, 10 * MIB, [computing]) == 9 * MIB - 10
    expected.update(content(stored)[10:])
    assert computing.digest() == expected.digest()
    piece.release()
