"""Uploads over connections that break and to servers that refuse, damage, or are none: asked again, or said clearly."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.loopback import Loopback, Seen, same

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


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


async def test_chunks_get_as_small_as_a_connection_lives(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """A connection that always breaks before a whole chunk is through still brings the file over."""
    path = make_file(2 * MIB + 5)
    loopback.order("PATCH", "cut", times=999, after=200_000, when=lambda seen: seen.is_chunk and seen.length > 200_000)
    async with make_client() as client:
        result = await client.upload(path, loopback.url, max_attempts=6, concurrency=1)
    assert same(result, loopback, path)


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


async def test_tus_patches_get_smaller_if_refused(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    path = make_file(3 * MIB)
    tus_only.order("PATCH", "answer", status=413, times=99, when=lambda seen: seen.length > MIB)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert same(result, tus_only, path)


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


async def test_errors_that_somebody_looked_at_do_not(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(1000)
    loopback.order("POST", "answer", status=401)
    async with make_client() as client:
        transfer = client.upload(path, loopback.url)
        assert await transfer.wait() is holdfast.State.FAILED
        assert isinstance(transfer.error, holdfast.NotAuthorized)


async def test_no_server_is_said_so(make_file: MakeFile, make_client: MakeClient) -> None:
    path = make_file(1000)
    with Loopback() as gone:
        url = gone.url
    async with make_client() as client:
        with anyio.fail_after(20), pytest.raises(holdfast.ConnectionFailed, match="is the server running"):
            await client.upload(path, url, max_attempts=2)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", holdfast.BrokenProtocol, "does not speak TLS"),
        (b"", holdfast.ConnectionFailed, "broke the connection off before TLS"),
    ],
)
async def test_a_server_without_tls_is_said_so(
    make_file: MakeFile, make_client: MakeClient, answer: bytes, kind: type[holdfast.HoldfastError], sentence: str
) -> None:
    """https:// at a port of http: it is there, and it does not help to come again."""
    path = make_file(1000)
    with plain_server(answer) as port:
        async with make_client() as client:
            with anyio.fail_after(20), pytest.raises(kind, match=sentence):
                await client.upload(path, f"https://127.0.0.1:{port}/files", max_attempts=2)


@contextmanager
def plain_server(answer: bytes) -> Iterator[int]:
    """A port that answers whatever comes with the same bytes, and ends the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
