"""Streams of unknown length, against a server that misbehaves on order."""

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

import holdfast
from holdfast import AsyncClient
from tests.client.loopback import Loopback
from tests.support.process import CommandLine, environment
from tests.support.waiting import eventually, scaled

pytestmark = pytest.mark.anyio

PIECE = 100_000
MakeClient = Callable[..., AsyncClient]


@pytest.fixture
def deferring() -> Iterator[Loopback]:
    extensions = ("creation", "creation-defer-length", "checksum")
    with Loopback(parallel=False, extensions=extensions, checksums=("sha256",)) as server:
        yield server


def pieces(content: bytes, size: int = 30_001) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
        yield b""


@pytest.mark.rule("G-TUS-9", "G-TUS-10")
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_of_any_length(
    make_client: MakeClient, deferring: Loopback, rng: random.Random, size: int, asynchronous: bool
) -> None:
    """The length comes with the last PATCH, and with no other."""
    content = rng.randbytes(size)

    async def coming() -> AsyncIterator[bytes]:
        for piece in pieces(content):
            yield piece

    async with make_client() as client:
        stream = coming() if asynchronous else pieces(content)
        result = await client.upload(stream, deferring.url, name="tape", chunk_size=PIECE)
    kept = deferring.only()
    assert bytes(kept.data) == content
    assert (kept.length, kept.deferred, kept.metadata) == (size, False, "filename dGFwZQ==")
    assert (result.size, result.bytes_resent) == (size, 0)
    assert result.digest.value == hashlib.sha256(content).digest()
    (post,) = deferring.requests("POST")
    assert post.fields["upload-defer-length"] == "1"
    assert "upload-length" not in post.fields
    patches = deferring.requests("PATCH")
    assert len(patches) == max(1, -(-size // PIECE))
    assert [seen.fields.get("upload-length") for seen in patches] == [None] * (len(patches) - 1) + [str(size)]
    assert all("upload-checksum" in seen.fields for seen in patches)


@pytest.mark.parametrize("checked", [True, False])
async def test_a_cut_chunk_is_sent_from_memory(make_client: MakeClient, rng: random.Random, checked: bool) -> None:
    content = rng.randbytes(3 * PIECE + 7)
    extensions = ("creation-defer-length", "checksum") if checked else ("creation-defer-length",)
    with Loopback(parallel=False, extensions=extensions, checksums=("sha256",)) as loopback:
        for offset in (0, PIECE, 3 * PIECE):
            loopback.order("PATCH", "cut", after=5, when=lambda seen, offset=offset: seen.offset == offset)
        async with make_client() as client:
            result = await client.upload(pieces(content), loopback.url, chunk_size=PIECE)
        assert bytes(loopback.only().data) == content
        assert not loopback.only().deferred
        assert result.retries == 3


@pytest.mark.rule("G-TUS-10")
async def test_the_last_answer_is_lost(make_client: MakeClient, deferring: Loopback, rng: random.Random) -> None:
    content = rng.randbytes(PIECE + 7)
    deferring.order("PATCH", "lose", when=lambda seen: seen.offset == PIECE)
    async with make_client() as client:
        result = await client.upload(pieces(content), deferring.url, chunk_size=PIECE)
    assert bytes(deferring.only().data) == content
    assert (result.bytes_resent, len(deferring.requests("PATCH"))) == (0, 2)


async def test_damage_is_repeated_once(make_client: MakeClient, deferring: Loopback) -> None:
    async with make_client() as client:
        deferring.order("PATCH", "answer", status=460)
        await client.upload([b"abc"], deferring.url)
        assert bytes(deferring.only().data) == b"abc"
        deferring.order("PATCH", "answer", status=460, times=99)
        with pytest.raises(holdfast.VerificationFailed, match="damaged twice"):
            await client.upload([b"abc"], deferring.url)


async def test_what_the_server_has_lost_cannot_be_sent_again(make_client: MakeClient, deferring: Loopback) -> None:
    deferring.order("PATCH", "answer", status=404, when=lambda seen: seen.offset == PIECE)
    async with make_client() as client:
        with pytest.raises(holdfast.UploadGone, match="a stream cannot be sent again"):
            await client.upload(pieces(bytes(2 * PIECE)), deferring.url, chunk_size=PIECE)


async def test_a_server_that_takes_no_streams_is_named(make_client: MakeClient, tus_only: Loopback) -> None:
    async with make_client() as client:
        with pytest.raises(holdfast.UsageError, match="save tape to a file first"):
            await client.upload([b"abc"], tus_only.url, name="tape")
    assert tus_only.uploads == {}


async def test_a_stream_that_gets_too_long_is_stopped(make_client: MakeClient) -> None:
    with Loopback(parallel=False, extensions=("creation-defer-length",), max_size=PIECE) as loopback:
        async with make_client() as client:
            with pytest.raises(holdfast.ServerRefused, match=f"at most {PIECE} bytes") as caught:
                await client.upload(pieces(bytes(2 * PIECE)), loopback.url, chunk_size=PIECE)
        assert caught.value.code == "upload-too-large"


def standard_input(loopback: Loopback, home: CommandLine) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast.cli", "upload", "-", "--to", loopback.url, "--chunk-size", str(PIECE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home.home),
    )


def test_standard_input_is_sent_as_it_comes(
    deferring: Loopback, holdfast_command: CommandLine, rng: random.Random
) -> None:
    """The first chunk is at the server while the rest has not been written yet."""
    content = rng.randbytes(2 * PIECE + 5)
    with standard_input(deferring, holdfast_command) as process:
        assert process.stdin is not None
        process.stdin.write(content[: PIECE + 1])
        process.stdin.flush()
        eventually(lambda: deferring.uploads and deferring.only().stored.prefix == PIECE, within=30)
        out, _ = process.communicate(content[PIECE + 1 :], timeout=scaled(30))
        assert process.returncode == 0
    assert out.decode() == f"{deferring.url}/{0:032x}\n"
    assert bytes(deferring.only().data) == content


def test_ctrl_c_ends_it_while_nothing_comes(deferring: Loopback, holdfast_command: CommandLine) -> None:
    with standard_input(deferring, holdfast_command) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(PIECE + 1))
        process.stdin.flush()
        eventually(lambda: deferring.uploads and deferring.only().stored.prefix == PIECE, within=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(10)) == 130
