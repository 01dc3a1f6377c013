"""The driver of uploads against a real server that misbehaves on order."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import holdfast
from holdfast import AsyncClient, UploadResult
from holdfast.sources import FileSource
from holdfast_protocol.digest import digest
from tests.client.loopback import Loopback, Seen

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    return (
        bytes(loopback.only().data) == content
        and result.digest == digest(result.digest.algorithm, content)
        and result.size == len(content)
    )


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
    assert loopback.only().metadata == "filename ZmlsbS5ta3Y=,filetype dmlkZW8veC1tYXRyb3NrYQ=="


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


@pytest.mark.rule("P-RETRY-1")
async def test_a_cut_chunk_is_sent_again_after_asking(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """The server is asked before the chunk goes again, and only that chunk goes again."""
    path = make_file(8 * MIB)
    loopback.order("PATCH", "cut", after=200_000)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert result.retries == 1
    assert 0 < result.bytes_resent <= MIB
    assert len(loopback.requests("HEAD")) == 1


async def test_a_lost_answer_does_not_send_the_chunk_again(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(4 * MIB)
    loopback.order("PATCH", "lose", when=lambda seen: seen.is_chunk)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert (result.retries, result.bytes_resent, len(loopback.chunks())) == (1, 0, 4)


async def test_a_lost_answer_to_the_completion(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "lose", when=lambda seen: not seen.is_chunk)
    async with make_client() as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert result.bytes_resent == 0


@pytest.mark.rule("G-TUS-6")
async def test_a_stalled_connection_is_left(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(4 * MIB)
    loopback.order("PATCH", "stall", after=100_000)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=2 * MIB)
    assert same(result, loopback, path)
    assert result.retries == 1


async def test_retry_after_is_waited_for(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=503, fields={"Retry-After": "1"})
    async with make_client() as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert result.seconds >= 1.0


@pytest.mark.parametrize("status", [401, 403])
async def test_missing_credentials_fail_at_once(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, status: int
) -> None:
    path = make_file(MIB)
    loopback.order("POST", "answer", status=status, times=100)
    async with make_client() as client:
        with pytest.raises(holdfast.NotAuthorized, match="Authorization") as caught:
            await client.upload(path, loopback.url)
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert len(loopback.requests("POST")) == 1


async def test_too_large_chunks_are_halved(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """Something on the way that takes less than the server said (a proxy): the size goes down to what passes."""
    path = make_file(4 * MIB)
    loopback.order("PATCH", "answer", status=413, times=99, when=lambda seen: seen.length > 300_000)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, chunk_size=MIB)
    assert same(result, loopback, path)
    assert {seen.length for seen in loopback.chunks()} == {MIB, MIB // 2, MIB // 4}


async def test_nothing_smaller_than_the_granule_is_tried(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=413, times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.ServerRefused) as caught:
            await client.upload(path, loopback.url, concurrency=1)
    assert caught.value.status == 413
    assert min(seen.length for seen in loopback.chunks()) == 65536


async def test_damage_on_the_way_is_repeated_once(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=400, code="digest-mismatch")
    async with make_client() as client:
        result = await client.upload(path, loopback.url, concurrency=1)
    assert same(result, loopback, path)


async def test_damage_that_stays_is_an_error(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=400, code="digest-mismatch", times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match="damaged twice"):
            await client.upload(path, loopback.url, concurrency=1)


async def test_attempts_without_progress_are_limited(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=500, times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.ServerUnavailable, match="after 3 attempts without progress") as caught:
            await client.upload(path, loopback.url, concurrency=1, max_attempts=3)
    assert caught.value.retryable
    assert len(loopback.chunks()) == 3


async def test_of_a_chunk_that_is_refused_at_its_head_little_is_sent(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """The server answers 429 and reads no more, and its connection stays open: nobody sends into it until it ends."""
    path = make_file(32 * MIB)
    loopback.order("PATCH", "early", status=429, after=65536, when=lambda seen: seen.is_chunk)
    async with make_client(timeouts=holdfast.Timeouts(stall=25, response=25)) as client:
        result = await client.upload(path, loopback.url, chunk_size=32 * MIB, concurrency=1)
    assert same(result, loopback, path)
    assert result.retries == 1
    assert result.bytes_resent <= 16 * MIB, "what was on its way, and in the buffers of the kernel"


async def test_progress_resets_the_attempts(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """Each chunk fails twice, more failures in all than attempts are allowed, and the upload gets through."""
    path = make_file(6 * 65536)
    refused: dict[int | None, int] = {}

    def twice(seen: Seen) -> bool:
        offset = seen.offset
        refused[offset] = refused.get(offset, 0) + 1
        return refused[offset] <= 2

    loopback.order("PATCH", "answer", status=500, times=99, when=twice)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, concurrency=1, chunk_size=65536, max_attempts=3)
    assert same(result, loopback, path)
    assert result.retries == 14


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


@pytest.mark.rule("P-COMPLETE-4")
async def test_verifying_is_waited_for(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(MIB)
    loopback.verify_later = True
    async with make_client() as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert len(loopback.requests("HEAD")) == 2


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


@pytest.mark.rule("G-TUS-4")
@pytest.mark.rule("T-PATCH-4")
async def test_a_cut_tus_patch_goes_on_where_it_was_cut(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    path = make_file(3 * MIB)
    tus_only.order("PATCH", "cut", after=1_000_000)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert same(result, tus_only, path)
    assert [seen.offset for seen in tus_only.requests("PATCH")] == [0, 1_000_000]


async def test_tus_patches_get_smaller_if_refused(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    path = make_file(3 * MIB)
    tus_only.order("PATCH", "answer", status=413, times=99, when=lambda seen: seen.length > MIB)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert same(result, tus_only, path)


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


async def test_a_rate_limit_holds(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    """Bytes beyond the first burst take at least as long as the rate says."""
    path = make_file(600_000)
    async with make_client(limit_rate=400_000) as client:
        result = await client.upload(path, loopback.url)
    assert same(result, loopback, path)
    assert result.seconds >= (600_000 - 100_000) / 400_000


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


async def test_a_redirect_is_named(make_file: MakeFile, make_client: MakeClient, loopback: Loopback) -> None:
    path = make_file(1000)
    loopback.order("POST", "answer", status=308, fields={"Location": "https://elsewhere.example/files"})
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match=r"elsewhere\.example"):
            await client.upload(path, loopback.url)


async def test_errors_that_nobody_awaited_come_out_at_the_end(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(1000)
    loopback.order("POST", "answer", status=401)
    with pytest.raises(holdfast.NotAuthorized):
        async with make_client() as client:
            client.upload(path, loopback.url)


async def test_no_server_is_said_so(make_file: MakeFile, make_client: MakeClient) -> None:
    path = make_file(1000)
    with Loopback() as gone:
        url = gone.url
    async with make_client() as client:
        with anyio.fail_after(20), pytest.raises(holdfast.ConnectionFailed, match="is the server running"):
            await client.upload(path, url, max_attempts=2)


async def test_lower_priority_numbers_go_first(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    async with make_client(transfers=1) as client:
        transfers = [client.upload(make_file(10, f"f{p}"), loopback.url, priority=p) for p in (0, 3, 1, 2)]
        for transfer in transfers:
            await transfer
    names = [seen.fields["upload-metadata"] for seen in loopback.requests("POST")]
    assert names == [f"filename {code}" for code in ("ZjA=", "ZjE=", "ZjI=", "ZjM=")]


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


async def test_chunks_get_as_small_as_a_connection_lives(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """A connection that always breaks before a whole chunk is through still brings the file over."""
    path = make_file(2 * MIB + 5)
    loopback.order("PATCH", "cut", times=999, after=200_000, when=lambda seen: seen.is_chunk and seen.length > 200_000)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, max_attempts=6, concurrency=1)
    assert same(result, loopback, path)
