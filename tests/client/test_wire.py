"""Connections: whoever stops waiting for one leaves none open, and files go through them."""

import gc
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import httpcore
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from holdfast._transport import Timeouts, Transport
from holdfast._wire import Network, UnreadableError, Wire
from holdfast.bodies import Body
from holdfast.errors import Stalled
from holdfast_protocol import client as protocol
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

MIB: Final = 1 << 20
pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_there_as_its_caller_goes_is_closed() -> None:
    """Whatever the step at which it goes; one that is left open is a ResourceWarning, and so a failure."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for steps in range(40):
            async with anyio.create_task_group() as group:
                group.start_soon(connect, listener.getsockname()[1])
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            gc.collect()


async def connect(port: int) -> None:
    wire = await Network().connect_tcp("127.0.0.1", port)
    await wire.aclose()


async def test_a_file_goes_past_this_process(tmp_path: Path) -> None:
    """A part of it that is larger than any buffer of the kernel, to somebody who is slow to read it."""
    content = random.Random(1).randbytes(12 * MIB)
    (tmp_path / "file").write_bytes(content)
    async with connected() as (wire, peer):
        with (tmp_path / "file").open("rb") as file:
            async with anyio.create_task_group() as group:
                group.start_soon(wire.send_file, file.fileno(), 1000, 10 * MIB, 30)
                came = b""
                while len(came) < 10 * MIB:
                    came += await to_thread.run_sync(peer.recv, 10 * MIB - len(came))
        assert came == content[1000 : 1000 + 10 * MIB]


async def test_a_file_that_ends_before_its_time_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    async with connected() as (wire, _):
        with (tmp_path / "file").open("rb") as file, pytest.raises(UnreadableError, match="ended"):
            await wire.send_file(file.fileno(), 0, 1001, 30)


@pytest.mark.parametrize("reads", [True, False], ids=["reads-on", "reads-no-more"])
async def test_who_answers_early_gets_no_more(tmp_path: Path, *, reads: bool) -> None:
    """Whether the other side throws the rest away or leaves it where it is; and the answer is there to be read."""
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    came = 0
    async with connected() as (wire, peer):

        def refuse() -> None:
            nonlocal came
            came = len(peer.recv(MIB))
            peer.sendall(answer)
            while reads and (piece := peer.recv(64 * 1024)):
                came += len(piece)
                time.sleep(0.002)  # the pace of a network

        with (tmp_path / "file").open("rb") as file:
            async with anyio.create_task_group() as group:
                group.start_soon(to_thread.run_sync, refuse)
                with pytest.raises(httpcore.WriteError, match="answered"):
                    await wire.send_file(file.fileno(), 0, 64 * MIB, 30)
                assert await wire.read(65536, 30) == answer
                await wire.aclose()
        assert came < 64 * MIB


async def test_an_interim_answer_is_none(tmp_path: Path) -> None:
    """It comes in two parts, so that half of it is looked at too, and the request goes on to its end."""
    content = random.Random(1).randbytes(12 * MIB)
    (tmp_path / "file").write_bytes(content)
    interim = b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 5\r\n\r\n"
    final = b"HTTP/1.1 204 No Content\r\n\r\n"
    came = bytearray()
    async with connected() as (wire, peer):

        def take() -> None:
            came.extend(peer.recv(MIB))
            for part in (interim[:20], interim[20:], interim[:5]):
                peer.sendall(part)
                for _ in range(16):
                    came.extend(peer.recv(64 * 1024))
            while len(came) < len(content):
                came.extend(peer.recv(MIB))
            peer.sendall(interim[5:] + final)

        with (tmp_path / "file").open("rb") as file:
            async with anyio.create_task_group() as group:
                group.start_soon(to_thread.run_sync, take)
                await wire.send_file(file.fileno(), 0, len(content), 30)
        assert bytes(came) == content
        heard = b""
        while not heard.endswith(final):
            heard += await wire.read(65536, 30)


async def test_a_connection_that_ends_is_heard_of_too() -> None:
    async with connected() as (wire, peer):
        peer.shutdown(socket.SHUT_WR)
        with anyio.fail_after(30):
            await anyio.wait_readable(wire.get_extra_info("socket"))
        with pytest.raises(httpcore.WriteError):
            wire.heed()


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system keeps what it likes")
async def test_what_counts_as_sent_is_on_its_way_or_nearly() -> None:
    """The kernel would take some MiB for somebody who reads nothing, as it would for a line that is slow."""

    async def content() -> AsyncIterator[memoryview]:
        yield memoryview(bytes(32 * MIB))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/files/a"
        transport = Transport(timeouts=Timeouts(stall=0.5))
        steps = protocol.chunk(url, Span(0, 32 * MIB), Digest("xxh3-128", bytes(16)), now=0.0)
        with pytest.raises(Stalled):
            await transport.session(url).exchange(steps, Body(32 * MIB, content))
        await transport.aclose()
        with listener.accept()[0] as peer:
            came = 0
            while piece := await to_thread.run_sync(peer.recv, MIB):
                came += len(piece)
    assert 0 < came < 2 * MIB


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Wire, socket.socket]]:
    """A connection, and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = await Network().connect_tcp("127.0.0.1", listener.getsockname()[1])
        try:
            with listener.accept()[0] as peer:
                yield wire, peer
        finally:
            await wire.aclose()
