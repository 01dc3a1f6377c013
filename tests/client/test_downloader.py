"""The driver of downloads against a real server that misbehaves on order: one version, whole, or nothing."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient, Digest
from holdfast.journal import DownloadRecord, Journal, download_key
from holdfast_protocol.digest import digest
from holdfast_protocol.fields import parse_byte_ranges
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet
from tests.client.loopback import Loopback, Seen

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
KEY = "d" * 32
SIZE = 5 * MIB + 3
HALF = 2 * MIB
"""Where the one answer to one connection is cut."""
MakeClient = Callable[..., AsyncClient]


@pytest.fixture
def content(rng: random.Random) -> bytes:
    return rng.randbytes(SIZE)


@pytest.fixture
def url(loopback: Loopback, content: bytes) -> str:
    return loopback.put(KEY, content, stored=[(0, len(content))])


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("x*")]


def segments(loopback: Loopback) -> list[Seen]:
    """GETs but the first one, which asks for all of it."""
    return loopback.requests("GET")[1:]


async def test_a_file_comes_in_ranges_of_one_version(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    async with make_client() as client:
        result = await client.download(url, folder=tmp_path / "in")
    assert result.path == tmp_path / "in" / "film.mkv"
    assert result.path.read_bytes() == content
    assert result.digest == digest("sha-256", content)
    assert loopback.requests("GET")[0].fields["range"] == "bytes=0-"
    assert "if-range" not in loopback.requests("GET")[0].fields
    assert len(loopback.requests("GET")) == result.segments == 5
    assert {seen.fields["if-range"] for seen in segments(loopback)} == {'"one"'}
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["film.mkv"]


@pytest.mark.parametrize("size", [0, 1])
async def test_small_files(make_client: MakeClient, loopback: Loopback, tmp_path: Path, size: int) -> None:
    url = loopback.put(KEY, b"x" * size, stored=[])
    async with make_client() as client:
        result = await client.download(url, tmp_path / "x")
        named = await client.download(url, folder=tmp_path)
    assert result.path.read_bytes() == b"x" * size
    assert result.size == size
    assert result.digest == digest("sha-256", b"x" * size)
    assert named.path == tmp_path / "film.mkv"


async def test_a_range_that_is_cut_goes_on_where_it_was_cut(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    loopback.order("GET", "short", after=400_000, when=lambda seen: seen.fields["range"].startswith(f"bytes={MIB}-"))
    async with make_client() as client:
        result = await client.download(url, tmp_path / "x")
    assert result.path.read_bytes() == content
    assert f"bytes={MIB + 400_000}-{2 * MIB - 1}" in [seen.fields["range"] for seen in segments(loopback)]


async def test_a_download_goes_on_from_what_is_on_the_disk(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    """Over one connection: what was not here when the first call ended, in one request."""
    loopback.order("GET", "short", after=HALF)
    loopback.order("GET", "answer", status=404, when=lambda seen: seen.fields["range"].startswith(f"bytes={HALF}-"))
    async with make_client() as client:
        with pytest.raises(holdfast.UploadGone):
            await client.download(url, tmp_path / "x", segments=1)
        assert not (tmp_path / "x").exists()
        before = len(loopback.requests("GET"))
        result = await client.download(url, tmp_path / "x", segments=1)
    assert result.path.read_bytes() == content
    assert result.bytes_resumed == HALF
    assert [seen.fields["range"] for seen in loopback.requests("GET")[before:]] == [f"bytes={HALF}-{SIZE - 1}"]
    assert result.bytes_received == SIZE


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("islands", [[(MIB, 2 * MIB), (3 * MIB + 5, 4 * MIB)], [(0, 7), (4 * MIB, SIZE)]])
async def test_nothing_that_is_on_the_disk_is_asked_for_again(
    make_client: MakeClient,
    loopback: Loopback,
    url: str,
    content: bytes,
    tmp_path: Path,
    islands: list[tuple[int, int]],
    connections: int,
) -> None:
    """Also where several connections have left islands, and whatever lies between them."""
    target, part = tmp_path / "x", bytearray(b"?" * SIZE)
    for start, end in islands:
        part[start:end] = content[start:end]
    (tmp_path / "x.part").write_bytes(part)
    key = download_key(url, str(target))
    with closing(Journal.open(tmp_path / "state")) as journal:
        journal.begin_download(DownloadRecord(key, url, str(target), f"{target}.part", SIZE, '"one"'))
        journal.keep_spans(key, [Span(*each) for each in islands])
    async with make_client() as client:
        result = await client.download(url, target, segments=connections)
    there = RangeSet(islands)
    assert target.read_bytes() == content
    assert result.bytes_resumed == there.total
    asked = [parse_byte_ranges(seen.fields["range"], SIZE) or [] for seen in loopback.requests("GET")]
    assert all(len(each) == 1 for each in asked)
    assert not [span for (span,) in asked if list(there.within(*span))]
    for (span,) in asked:
        there.add(*span)
    assert list(there) == [(0, SIZE)]
    if connections == 1:
        assert sum(end - start for ((start, end),) in asked) == SIZE - result.bytes_resumed
        assert result.bytes_received == SIZE - result.bytes_resumed


@pytest.mark.rule("G-GET-3")
async def test_a_new_version_starts_the_file_anew(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    """Bytes of two versions never meet in one file."""
    other = bytes(reversed(content))

    def publish(seen: Seen) -> bool:
        if seen.fields.get("range", "").startswith(f"bytes={HALF}-"):
            kept = loopback.uploads[KEY]
            kept.data[:], kept.etag = other, '"two"'
        return False

    loopback.order("GET", "short", after=HALF)
    loopback.order("GET", "cut", when=publish)
    async with make_client() as client:
        result = await client.download(url, tmp_path / "x", segments=1)
    assert result.path.read_bytes() == other


async def test_ranges_that_are_passed_over_give_one_stream(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    loopback.uploads[KEY].ranges = False
    async with make_client() as client:
        result = await client.download(url, tmp_path / "x")
    assert result.path.read_bytes() == content
    assert result.segments == 1


@pytest.mark.rule("G-GET-4")
@pytest.mark.parametrize("etag", [None, 'W/"weak"', "garbage"])
async def test_without_a_strong_etag_there_is_one_stream(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path, etag: str | None
) -> None:
    loopback.uploads[KEY].etag = etag
    loopback.order("GET", "short", after=300_000)
    async with make_client() as client:
        result = await client.download(url, tmp_path / "x")
    assert result.path.read_bytes() == content
    assert [seen.fields.get("range") for seen in loopback.requests("GET")] == ["bytes=0-", "bytes=0-"]


@pytest.mark.rule("G-GET-2")
async def test_another_range_than_asked_for_is_refused(
    make_client: MakeClient, loopback: Loopback, url: str, tmp_path: Path
) -> None:
    said = {"Content-Range": f"bytes 0-{MIB - 1}/{5 * MIB + 3}"}
    loopback.order("GET", "twist", fields=said, when=lambda seen: seen.fields["range"].startswith(f"bytes={MIB}-"))
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="to the range"):
            await client.download(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.rule("G-GET-5")
async def test_damage_is_found_and_kept_aside(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    """With what the caller knows, also if the server says nothing."""
    loopback.uploads[KEY].digest = False
    good = digest("md5", content)
    loopback.uploads[KEY].data[MIB] ^= 1
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match=r"md5.*is left in .*x\.part"):
            await client.download(url, tmp_path / "x", checksum=good)
        assert names(tmp_path) == ["x.part"]
        loopback.uploads[KEY].data[MIB] ^= 1
        result = await client.download(url, tmp_path / "x", checksum=good)
    assert result.digest == good
    assert result.bytes_resumed == 0
    assert names(tmp_path) == ["x"]


async def test_a_target_is_replaced_only_if_asked_for(
    make_client: MakeClient, loopback: Loopback, url: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("mine")
    async with make_client() as client:
        with pytest.raises(holdfast.TargetExists):
            await client.download(url, tmp_path / "x")
        assert (tmp_path / "x").read_text() == "mine"
        await client.download(url, tmp_path / "x", overwrite=True)
    assert (tmp_path / "x").read_bytes() == content


async def test_a_target_that_appears_meanwhile_is_not_replaced(
    make_client: MakeClient, loopback: Loopback, url: str, tmp_path: Path
) -> None:
    def appear(seen: Seen) -> bool:
        if seen.fields["range"] != "bytes=0-":
            (tmp_path / "x").write_text("mine")
        return False

    loopback.order("GET", "cut", when=appear)
    async with make_client() as client:
        with pytest.raises(holdfast.TargetExists, match="appeared"):
            await client.download(url, tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


async def test_what_is_not_finished_is_said_so(make_client: MakeClient, loopback: Loopback, url: str) -> None:
    loopback.order("GET", "answer", status=409, code="not-finished")
    async with make_client() as client:
        with pytest.raises(holdfast.ServerRefused) as caught:
            await client.download(url)
    assert caught.value.code == "not-finished"


async def test_a_checksum_must_have_its_length(make_client: MakeClient, url: str) -> None:
    async with make_client() as client:
        with pytest.raises(holdfast.UsageError, match="64 digits"):
            client.download(url, checksum=Digest("sha-256", b"x"))
