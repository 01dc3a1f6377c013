"""How many uploads and connections there are at once, how fast they are, whose turn it is, and how they end."""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.loopback import Loopback, same

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


async def test_connections_and_memory_are_bounded(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(8 * MIB)
    loopback.order("PATCH", "hold", times=3, until=lambda: loopback.most_at_once == 3)
    async with make_client(timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        result = await client.upload(path, loopback.url, concurrency=3, chunk_size=65536)
    assert same(result, loopback, path)
    assert result.concurrency == 3
    assert loopback.most_at_once <= 3


async def test_a_rate_limit_holds(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """Bytes beyond the first burst take at least as long as the rate says."""
    path = make_file(600_000)
    async with make_client(limit_rate=400_000) as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert result.seconds >= (600_000 - 100_000) / 400_000


async def test_lower_priority_numbers_go_first(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    async with make_client(transfers=1) as client:
        transfers = [client.upload(make_file(10, f"f{p}"), loopback.url, priority=p) for p in (0, 3, 1, 2)]
        for transfer in transfers:
            await transfer
    names = [seen.fields["upload-metadata"] for seen in loopback.requests("POST")]
    assert names == [f"filename {code}" for code in ("ZjA=", "ZjE=", "ZjI=", "ZjM=")]


async def test_two_transfers_of_one_file_do_not_run_at_once(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "stall", when=lambda seen: seen.is_chunk)
    async with make_client(timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        first = client.upload(path, loopback.url)
        async for progress in first:
            if progress.state is holdfast.State.IN_PROGRESS:
                break
        with pytest.raises(holdfast.TransferBusy, match="already"):
            await client.upload(path, loopback.url)
        first.cancel()


async def test_cancel_keeps_what_is_done(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(4 * MIB)
    loopback.order("PATCH", "stall", when=lambda seen: seen.is_chunk and seen.offset == 3 * MIB)
    async with make_client(timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        transfer = client.upload(path, loopback.url, chunk_size=MIB, concurrency=2)
        async for progress in transfer:
            if progress.accepted >= 3 * MIB:
                transfer.cancel()
        with pytest.raises(holdfast.TransferCancelled):
            await transfer
        assert transfer.progress.state is holdfast.State.CANCELLED
        loopback.seen.clear()
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert [seen.offset for seen in loopback.chunks()] == [3 * MIB]
    assert result.bytes_resumed == 3 * MIB


async def test_the_end_does_not_wait_for_the_slowest_connection(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """A chunk that takes far too long is sent on another connection too; the first to arrive counts."""
    path = make_file(8 * MIB)
    loopback.order("PATCH", "stall", after=65536, when=lambda seen: seen.is_chunk and seen.offset == 7 * MIB)
    async with make_client(timeouts=holdfast.Timeouts(stall=25, response=25)) as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB, concurrency=2)
    assert same(result, loopback, path)
    assert result.retries == 0, "nobody waited for the connection that stood still"
    assert 65536 <= result.bytes_resent <= MIB, "what the connection took that stood still"
