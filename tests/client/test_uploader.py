"""The driver of uploads: the way of a file to a real server, from its first byte or from where it stopped."""

import base64
import itertools
import mimetypes
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from holdfast.sources import FileSource
from holdfast_protocol.digest import digest
from tests.client.loopback import Loopback, same

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


@pytest.mark.rule("G-TUS-11")
@pytest.mark.rule("P-CREATE-1", "P-CHUNK-1", "P-COMPLETE-1")
async def test_a_file_goes_over_in_parallel_chunks(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(5 * MIB + 17)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert loopback.only().complete
    assert (result.chunks, result.retries, result.bytes_resent, result.bytes_sent) == (6, 0, 0, path.stat().st_size)
    assert result.protocol == "parallel"
    assert result.url.startswith(loopback.url + "/")
    media = mimetypes.guess_type("film.mkv")[0] or ""  # the name that this Python has for it
    assert loopback.only().metadata == f"filename ZmlsbS5ta3Y=,filetype {base64.b64encode(media.encode()).decode()}"


@pytest.mark.parametrize("size", [0, 1, 65536, 65537])
async def test_small_sizes(make_file: MakeFile, make_client: MakeClient, loopback: Loopback, size: int) -> None:
    path = make_file(size)
    async with make_client() as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert loopback.only().complete


@pytest.mark.rule("G-TUS-3", "G-TUS-8", "G-TUS-12")
@pytest.mark.rule("P-OFFER-1")
@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 5])
async def test_a_tus_server_gets_plain_tus(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback, size: int
) -> None:
    path = make_file(size)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert same(result, tus_only, path)
    assert result.protocol == "tus"
    assert len(tus_only.requests("PATCH")) == (size > 0)


async def test_the_same_upload_again_is_already_there(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    async with make_client() as client:
        first = await client.upload(path, loopback.url)
        sent = loopback.body_bytes
        second = await client.upload(path, loopback.url)
    assert second.already_there
    assert not first.already_there
    assert (second.url, second.digest) == (first.url, first.digest)
    assert loopback.body_bytes == sent


@pytest.mark.rule("P-DIGEST-2", "P-COMPLETE-1")
@pytest.mark.parametrize(
    ("asked", "wants", "found"),
    [
        (None, ("sha-256", "xxh3-128"), "xxh3-128"),
        (None, ("md5", "sha-256"), "md5"),
        ("sha-256", ("xxh3-128", "sha-256"), "sha-256"),
    ],
)
async def test_the_digest_of_the_whole_is_that_of_the_chunks_or_as_asked(
    make_file: MakeFile, make_client: MakeClient, asked: str | None, wants: tuple[str, ...], found: str
) -> None:
    """It is said at creation, and given at the end."""
    path = make_file(3 * MIB)
    with Loopback(wants=wants) as loopback:
        async with make_client() as client:
            result = await client.upload(path, loopback.url, checksum=asked)
            again = await client.upload(path, loopback.url, checksum="sha-512")
        assert same(result, loopback, path)
        (post,) = loopback.requests("POST")
        assert post.fields["want-repr-digest"] == f"{found}=10"
        assert loopback.requests("PATCH")[-1].fields["upload-digest"].startswith(f"{found}=")
    assert result.digest.algorithm == found
    assert (again.already_there, again.digest) == (True, digest("sha-512", path.read_bytes()))


@pytest.mark.rule("P-STATE-1")
async def test_missing_ranges_that_are_named_bit_by_bit(make_file: MakeFile, make_client: MakeClient) -> None:
    """Only what is missing is sent, also if the server names two ranges at a time; the digest is that of all."""
    path = make_file(16 * 65536 + 5)
    content = path.read_bytes()
    with Loopback(missing_on_head=2) as loopback:
        async with make_client() as client:
            loopback.order("PATCH", "answer", status=401, times=99)
            with pytest.raises(holdfast.NotAuthorized):
                await client.upload(path, loopback.url, concurrency=1)
            loopback.orders.clear()
            loopback.seen.clear()
            kept = loopback.only()
            for start in range(0, len(content), 2 * 65536):
                kept.data[start : start + 65536] = content[start : start + 65536]
                kept.stored.add(start, min(start + 65536, len(content)))
            result = await client.upload(path, loopback.url)
        assert same(result, loopback, path)
        assert sorted(seen.offset or 0 for seen in loopback.chunks()) == list(range(65536, 16 * 65536, 2 * 65536))
        assert len(loopback.requests("HEAD")) == 4


@pytest.mark.rule("C-MIX-3")
async def test_a_prefix_off_the_granule_is_overlapped(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(3 * 65536)
    async with make_client() as client:
        loopback.order("PATCH", "answer", status=401, times=99)
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, loopback.url)
        loopback.orders.clear()
        loopback.seen.clear()
        loopback.only().data[:70000] = path.read_bytes()[:70000]
        loopback.only().stored.add(0, 70000)
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert min(seen.offset or 0 for seen in loopback.chunks()) == 65536


@pytest.mark.rule("P-COMPLETE-4")
async def test_verifying_is_waited_for(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """And what the server is at shows meanwhile."""
    path = make_file(MIB)
    loopback.verify_later = True
    async with make_client() as client:
        transfer = client.upload(path, loopback.url)
        seen = [(progress.state, progress.step) async for progress in transfer]
        result = await transfer
    assert same(result, loopback, path)
    assert [each for each, _ in itertools.groupby(seen)][-3:] == [
        ("verifying", "verifying"),
        ("verifying", "publishing"),
        ("completed", None),
    ]


async def test_what_the_server_has_is_hashed_beside_the_sending(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a resume the network does not wait until the bytes that are there already were read."""
    path = make_file(8 * MIB)
    loopback.order("PATCH", "stall", when=lambda seen: seen.is_chunk and seen.offset == 6 * MIB)
    async with make_client(timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        transfer = client.upload(path, loopback.url, chunk_size=MIB, concurrency=1)
        async for progress in transfer:
            if progress.accepted >= 6 * MIB:
                transfer.cancel()
    loopback.seen.clear()
    read_into = FileSource.read_into
    too_early: list[int] = []

    def read_late(self: FileSource, offset: int, buffer: memoryview) -> None:
        deadline = time.monotonic() + 10
        while MIB <= offset < 5 * MIB and not loopback.chunks() and time.monotonic() < deadline:
            time.sleep(0.01)
        if MIB <= offset < 5 * MIB and not loopback.chunks():
            too_early.append(offset)
        read_into(self, offset, buffer)

    monkeypatch.setattr(FileSource, "read_into", read_late)
    async with make_client(timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert not too_early


async def test_headers_go_to_their_origin_and_no_other(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """A server that sends the upload elsewhere does not get the credentials sent there."""
    path = make_file(MIB)
    with Loopback() as other:
        place = other.put("0" * 32, bytes(MIB), stored=[])
        loopback.order("POST", "answer", status=201, fields={"Location": place})
        async with make_client(headers={"Authorization": "Bearer secret"}) as client:
            await client.upload(path, loopback.url)
        assert all("authorization" in seen.fields for seen in loopback.seen)
        assert other.requests("PATCH")
        assert not any("authorization" in seen.fields for seen in other.seen)


async def test_a_password_in_the_url_is_not_in_the_result(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, tmp_path: Path
) -> None:
    path = make_file(1000)
    to = loopback.url.replace("http://", "http://someone:hush@")
    async with make_client() as client:
        result = await client.upload(path, to)
    assert "hush" not in result.url
    assert all(seen.fields["authorization"].startswith("Basic ") for seen in loopback.seen)
    assert b"hush" not in b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir() if file.is_file())
