"""A file that changes, or an upload that is gone or has lost something: what arrives is one version of it, whole."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.loopback import Loopback, Seen, same

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


async def test_a_changed_file_is_another_upload(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    async with make_client() as client:
        first = await client.upload(path, loopback.url)
        make_file(MIB)
        second = await client.upload(path, loopback.url)
    assert first.url != second.url
    assert bytes(loopback.uploads[second.url.rpartition("/")[2]].data) == path.read_bytes()


def touch_on_first_chunk(loopback: Loopback, path: Path) -> None:
    touched: list[bool] = []

    def touch(seen: Seen) -> bool:
        if seen.is_chunk and not touched:
            touched.append(True)
            with path.open("r+b") as file:
                file.write(b"changed")
            os.utime(path, ns=(1, 1))
        return False

    loopback.order("PATCH", "cut", when=touch)


async def test_a_file_that_changes_while_it_is_sent_is_refused(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(4 * MIB)
    touch_on_first_chunk(loopback, path)
    async with make_client() as client:
        with pytest.raises(holdfast.SourceChanged, match="changed while it was read"):
            await client.upload(path, loopback.url, chunk_size=65536, concurrency=1)
    assert loopback.uploads == {}


async def test_a_file_that_changes_is_sent_anew_if_asked_for(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(4 * MIB)
    touch_on_first_chunk(loopback, path)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=65536, concurrency=1, on_change="restart")
    assert same(result, loopback, path)


async def test_an_upload_that_is_gone_is_begun_anew_once(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(4 * MIB)

    async with make_client() as client:
        loopback.order("PATCH", "answer", status=404, code="not-found", when=lambda seen: seen.offset == 2 * MIB)
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert len(loopback.requests("POST")) == 2
    assert len(loopback.requests("DELETE")) == 1


async def test_an_upload_that_is_always_gone_is_an_error(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=410, code="gone", times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.UploadGone):
            await client.upload(path, loopback.url)
    assert len(loopback.requests("POST")) == 2


async def test_a_conflicting_upload_is_left_for_a_new_one(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=409, code="chunk-conflict")
    async with make_client() as client:
        result = await client.upload(path, loopback.url, concurrency=1)
    assert same(result, loopback, path)


@pytest.mark.rule("P-COMPLETE-2")
async def test_ranges_that_got_lost_are_sent_again(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """The server acknowledged a chunk and lost it: completion says so, and it is filled in."""
    path = make_file(4 * 65536)
    lost: list[int] = []

    def lose(seen: Seen) -> bool:
        if not seen.is_chunk and not lost:
            lost.append(loopback.only().stored.subtract(65536, 2 * 65536))
        return False

    loopback.order("PATCH", "cut", when=lose)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=65536)
    assert lost == [65536]
    assert same(result, loopback, path)
    assert result.bytes_resent == 65536


@pytest.mark.rule("P-COMPLETE-3")
async def test_a_wrong_whole_is_an_error_and_not_tried_again(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(2 * MIB)

    def spoil(seen: Seen) -> bool:
        if not seen.is_chunk:
            loopback.only().data[5] ^= 1
        return False

    loopback.order("PATCH", "cut", when=spoil)
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match="nothing was published"):
            await client.upload(path, loopback.url)
        assert loopback.uploads == {}
        loopback.orders.clear()
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
