"""Sparse files up, as holes, and files with zeros down, sparse again."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import AsyncClient, UploadResult
from holdfast.errors import SourceChanged
from holdfast.sources import FileSource
from holdfast.targets import PartFile
from holdfast_protocol.digest import digest
from holdfast_protocol.messages import Span
from tests.client.loopback import Kept, Loopback, Seen

pytestmark = pytest.mark.anyio

MIB = 1 << 20
MakeClient = Callable[..., AsyncClient]
Runs = dict[int, bytes]


@pytest.fixture
def sparing() -> Iterator[Loopback]:
    """A server that takes holes."""
    with Loopback(holes=True) as server:
        yield server


def sparse(path: Path, size: int, runs: Runs) -> Path:
    """A file of holes with runs of bytes at some offsets."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for offset, data in runs.items():
            os.pwrite(file.fileno(), data, offset)
    assert path.stat().st_blocks * 512 < size, "this file system has no holes"
    return path


def told(loopback: Loopback) -> list[tuple[int, int]]:
    """The holes that the server was told of."""
    return sorted((seen.offset or 0, (seen.offset or 0) + seen.hole) for seen in loopback.chunks() if seen.hole)


def sent(loopback: Loopback) -> int:
    return sum(seen.length for seen in loopback.chunks())


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    return (
        bytes(loopback.only().data) == content
        and loopback.only().complete
        and result.digest == digest(result.digest.algorithm, content)
        and result.bytes_sent + result.bytes_sparse == len(content)
    )


@pytest.mark.rule("P-HOLE-1", "P-HOLE-2")
async def test_holes_are_not_sent(tmp_path: Path, make_client: MakeClient, sparing: Loopback) -> None:
    """Neither on the wire nor counted as such; they are in whole granules, but for the end of the file."""
    runs = {10 * MIB - 5: b"a" * 100_000, 30 * MIB: b"b" * MIB}
    path = sparse(tmp_path / "film.mkv", 50 * MIB + 17, runs)
    async with make_client() as client:
        transfer = client.upload(path, sparing.url, chunk_size=MIB)
        result = await transfer
    assert same(result, sparing, path)
    assert told(sparing) == [(0, 10 * MIB - 65536), (10 * MIB + 131072, 30 * MIB), (31 * MIB, 50 * MIB + 17)]
    assert (result.bytes_sparse, result.bytes_resent) == (50 * MIB + 17 - sent(sparing), 0)
    assert (transfer.progress.accepted, transfer.progress.wire) == (50 * MIB + 17, sent(sparing))
    assert result.chunks == len(sparing.chunks()) - 3


@pytest.mark.rule("P-OFFER-1")
async def test_a_server_without_holes_gets_zeros(tmp_path: Path, make_client: MakeClient, loopback: Loopback) -> None:
    path = sparse(tmp_path / "film.mkv", 5 * MIB, {0: b"a"})
    async with make_client() as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert (told(loopback), result.bytes_sparse, sent(loopback)) == ([], 0, 5 * MIB)


async def test_small_holes_are_sent(tmp_path: Path, make_client: MakeClient, sparing: Loopback) -> None:
    """A request for each would cost more than the bytes: those below 1 MiB go with the chunks around them."""
    path = sparse(tmp_path / "film.mkv", 5 * MIB, {at * 512 * 1024: b"a" for at in range(10)})
    async with make_client() as client:
        result = await client.upload(path, sparing.url)
    assert same(result, sparing, path)
    assert told(sparing) == []


@pytest.mark.rule("P-RETRY-1")
@pytest.mark.parametrize("kind", ["cut", "lose", "answer"])
async def test_a_hole_is_told_of_again(tmp_path: Path, make_client: MakeClient, sparing: Loopback, kind: str) -> None:
    """After a failure the server is asked first, as for a chunk; what it has heard is not told again."""
    path = sparse(tmp_path / "film.mkv", 20 * MIB, {8 * MIB: b"a" * MIB})

    def speaks_of_the_first(seen: Seen) -> bool:
        return seen.hole == 8 * MIB

    sparing.order("PATCH", kind, when=speaks_of_the_first)
    async with make_client() as client:
        result = await client.upload(path, sparing.url)
    assert same(result, sparing, path)
    assert (result.retries, result.bytes_resent, result.bytes_sparse) == (1, 0, 19 * MIB)
    assert len(told(sparing)) == (2 if kind == "lose" else 3)


async def test_what_is_missing_is_asked_before_holes_are_looked_for(
    tmp_path: Path, make_client: MakeClient, sparing: Loopback
) -> None:
    """A resumed upload tells of no hole that the server has, and of what it lacks of one."""
    path = sparse(tmp_path / "film.mkv", 40 * MIB, {20 * MIB: b"a" * MIB})
    sparing.order("PATCH", "answer", status=403, when=lambda seen: seen.hole == 19 * MIB)
    async with make_client() as client:
        with pytest.raises(Exception, match="403"):
            await client.upload(path, sparing.url, concurrency=1)
        before = len(sparing.chunks())
        kept = sparing.only()
        kept.stored.add(30 * MIB, 32 * MIB)
        result = await client.upload(path, sparing.url, concurrency=1)
    assert kept.complete
    assert bytes(kept.data) == path.read_bytes()
    assert [(seen.offset, seen.hole) for seen in sparing.chunks()[before:]] == [
        (21 * MIB, 9 * MIB),
        (32 * MIB, 8 * MIB),
    ]
    assert (result.bytes_resumed, result.bytes_sparse) == (23 * MIB, 17 * MIB)
    assert result.digest == digest("xxh3-128", path.read_bytes())


async def test_a_file_that_is_all_hole(tmp_path: Path, make_client: MakeClient, sparing: Loopback) -> None:
    path = sparse(tmp_path / "film.mkv", 100 * MIB, {})
    async with make_client() as client:
        result = await client.upload(path, sparing.url)
    assert same(result, sparing, path)
    assert (told(sparing), sent(sparing)) == ([(0, 100 * MIB)], 0)


def test_a_source_tells_its_holes(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a", 10 * MIB, {2 * MIB: b"a" * MIB, 8 * MIB: b"b"})
    source = FileSource.open(path)
    assert source.hole(0, 10 * MIB) == Span(0, 2 * MIB)
    assert source.hole(MIB, 10 * MIB) == Span(MIB, 2 * MIB)
    assert source.hole(0, MIB) == Span(0, MIB)
    assert source.hole(2 * MIB, 3 * MIB) is None
    assert source.hole(2 * MIB + 1, 10 * MIB) == Span(3 * MIB, 8 * MIB)
    assert source.hole(9 * MIB, 10 * MIB) == Span(9 * MIB, 10 * MIB)
    with path.open("r+b") as file:
        file.write(b"now it is none")
    with pytest.raises(SourceChanged):
        source.hole(0, 10 * MIB)
    source.close()


def test_a_file_without_holes_is_not_searched_for_any(tmp_path: Path) -> None:
    """Its zeros are bytes: they may have been written in order to be there."""
    (tmp_path / "a").write_bytes(bytes(MIB))
    source = FileSource.open(tmp_path / "a")
    assert source.hole(0, MIB) is None
    source.close()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "one stream"])
async def test_zeros_come_down_as_holes(
    tmp_path: Path, make_client: MakeClient, loopback: Loopback, ranges: bool
) -> None:
    """Whatever the pieces are in which they come; a stream that breaks begins anew on an empty file."""
    content = bytearray(20 * MIB + 5)
    content[3 * MIB - 7 : 3 * MIB] = b"written"
    content[10 * MIB : 10 * MIB + 100_000] = os.urandom(100_000)
    key = "0" * 32
    loopback.uploads[key] = Kept(len(content), None, content, complete=True, ranges=ranges)
    if not ranges:
        loopback.order("GET", "short", after=11 * MIB)
    async with make_client() as client:
        result = await client.download(f"{loopback.url}/{key}", tmp_path / "x")
    assert result.path.read_bytes() == content
    assert result.size == len(content)
    assert room(result.path) <= 150_000


async def test_a_part_file_that_was_there_gets_every_byte(
    tmp_path: Path, make_client: MakeClient, loopback: Loopback
) -> None:
    """What lies in it, where nothing is known to be received, may be other bytes."""
    content = bytearray(6 * MIB)
    content[:MIB] = os.urandom(MIB)
    key = "0" * 32
    loopback.uploads[key] = Kept(len(content), None, content, complete=True)

    def later(seen: Seen) -> bool:
        return seen.fields.get("range", "").startswith(("bytes=1", "bytes=2"))

    loopback.order("GET", "short", after=2 * MIB)
    loopback.order("GET", "answer", status=403, when=later)
    async with make_client() as client:
        with pytest.raises(Exception, match="403"):
            await client.download(f"{loopback.url}/{key}", tmp_path / "x", segments=1)
        spoil(tmp_path / "x.part", 5 * MIB)
        result = await client.download(f"{loopback.url}/{key}", tmp_path / "x", segments=1)
    assert result.path.read_bytes() == content
    assert 0 < result.bytes_resumed <= 5 * MIB


def spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"left over", offset)


def room(path: Path) -> int:
    """What a file takes on the disk, in bytes."""
    return path.stat().st_blocks * 512


@given(st.data())
def test_a_fresh_file_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Blocks of zeros are left out and nothing else is, however the content is cut into pieces."""
    unit = st.sampled_from([bytes(5000), bytes(1), b"x", b"y" * 4096, bytes(4096)])
    content = b"".join(data.draw(st.lists(unit, max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    path = tmp_path_factory.mktemp("part") / "x"
    part = PartFile.open(path, len(content), fresh=True)
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        part.write(start, content[start:end])
    part.close()
    assert path.read_bytes() == content
