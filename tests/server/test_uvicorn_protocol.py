"""`HoldfastProtocol` in uvicorn: on every event loop, over TLS, and on a disk that hangs."""

import asyncio
import os
import random
import socket
import ssl
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import uvicorn
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker
from tests.support.waiting import eventually, scaled
from websockets.asyncio.client import connect

from holdfast_server import create_app
from holdfast_server.http.lending import HEAD
from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.http.websocket import WebSocketProtocol

MIB = 1 << 20


@contextmanager
def served(data: Path, http: type[HoldfastProtocol] = HoldfastProtocol, **options: Any) -> Iterator[int]:
    """The application in a thread of this process; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {"ws": "none"} | options
        config = uvicorn.Config(create_app(data), http=http, lifespan="on", log_level="warning", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(scaled(20))
            assert not thread.is_alive()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return certificate, key


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.rule("T-PATCH-4", "D-GET-1")
def test_both_roads_on_every_loop(tmp_path: Path, rng: random.Random, loop: str) -> None:
    data = rng.randbytes(9 * MIB)
    with served(tmp_path / "data", loop=loop) as port, Speaker(f"http://127.0.0.1:{port}") as speaker:
        upload = speaker.create(len(data), parallel=False)
        assert speaker.patch(upload, 0, data[: 5 * MIB]).offset == 5 * MIB
        with Speaker(speaker.url) as cut:
            head = TUS_BODY | {"Upload-Offset": str(5 * MIB), "Content-Length": str(4 * MIB)}
            cut.connection.begin("PATCH", upload, head)
            cut.connection.send(data[5 * MIB : 8 * MIB])
        eventually(lambda: speaker.head(upload).offset == 8 * MIB)
        assert speaker.patch(upload, 8 * MIB, data[8 * MIB :]).status == 204
        assert speaker.get(upload).body == data


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.rule("T-PATCH-4", "D-GET-1")
def test_over_tls_the_connection_is_not_lent(
    tmp_path: Path, rng: random.Random, certificate: tuple[Path, Path], loop: str
) -> None:
    """The bytes in the socket are not those of the file then: all goes by the plain road."""
    data = rng.randbytes(5 * MIB)
    files: dict[str, Any] = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    with (
        served(tmp_path / "data", loop=loop, **files) as port,
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=scaled(10)) as client,
    ):
        url = client.post("/files", headers=TUS | {"Upload-Length": str(len(data))}).headers["location"]
        for start in range(0, len(data), 2 * MIB):
            fields = TUS_BODY | {"Upload-Offset": str(start)}
            assert client.patch(url, headers=fields, content=data[start : start + 2 * MIB]).status_code == 204
        assert client.get(url).content == data


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", ["whole", "cut", "taken over"])
@pytest.mark.rule("T-HEAD-1", "T-PATCH-3", "T-PATCH-4")
def test_bytes_of_a_trickle_that_nobody_looks_after_are_told_and_kept(tmp_path: Path, loop: str, end: str) -> None:
    """They gather in the kernel, for half a minute, unless somebody asks for them or the last one is there."""
    data = bytes(range(10))
    with served(tmp_path / "data", loop=loop) as port, Speaker(f"http://127.0.0.1:{port}") as speaker:
        upload = speaker.create(len(data), parallel=False)

        def arrived(size: int) -> bool:
            return speaker.head(upload).offset == size

        with Speaker(speaker.url) as slow:
            connection = slow.connection
            connection.begin("PATCH", upload, TUS_BODY | {"Upload-Offset": "0", "Content-Length": str(len(data))})
            for sent in range(1, 8):
                connection.send(data[sent - 1 : sent])
                eventually(partial(arrived, sent))
            connection.send(data[7:9])
            if end == "whole":
                connection.send(data[9:])
                assert connection.read().offset == len(data)
            elif end == "taken over":
                assert speaker.patch(upload, 9, data[9:]).offset == len(data)
                assert connection.read().code == "fenced"
        if end == "cut":
            eventually(partial(arrived, 9))
            assert speaker.patch(upload, 9, data[9:]).offset == len(data)
        assert speaker.get(upload).body == data


class _Counted(HoldfastProtocol):
    """Which of them are still there."""

    there: ClassVar = weakref.WeakSet["_Counted"]()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.there.add(self)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_websocket_keeps_nothing_of_the_protocol_before_it(
    tmp_path: Path, certificate: tuple[Path, Path], loop: str, tls: bool
) -> None:
    """Thousands that only wait would cost twice the memory. And no garbage is left that has to be searched for.

    Not by `watching`, whose library reads and writes in two threads: TLS is not for that (OpenSSL's `SSL` is not safe).
    """
    files: dict[str, Any] = {}
    trusted = None
    if tls:
        files = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
        trusted = ssl.create_default_context(cafile=str(certificate[0]))

    async def watch(url: str) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(connect(url, ssl=trusted, open_timeout=scaled(20)))
            gone = partial(eventually, lambda: not len(_Counted.there), what="the end of what was there before")
            await asyncio.to_thread(gone)

    with served(tmp_path / "data", _Counted, loop=loop, ws=WebSocketProtocol, **files) as port:
        asyncio.run(watch(f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/api/live"))


class _Counting(HoldfastProtocol):
    """How often it was told of bytes."""

    looks = 0

    def data_received(self, data: bytes) -> None:
        _Counting.looks += 1
        super().data_received(data)

    @classmethod
    def has_looked(cls, times: int) -> bool:
        return cls.looks >= times


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.rule("H-HEAD-3")
def test_a_head_that_comes_byte_by_byte_is_looked_at_a_few_times(
    tmp_path: Path, certificate: tuple[Path, Path], loop: str, tls: bool
) -> None:
    """And it is answered, although its last bytes are too few for the kernel to tell of them by itself."""
    files: dict[str, Any] = {}
    if tls:
        files = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
    _Counting.looks = 0
    with served(tmp_path / "data", _Counting, loop=loop, **files) as port:
        plain = socket.create_connection(("127.0.0.1", port), timeout=scaled(20))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        with trusted.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as client:
            for seen, byte in enumerate(b"GET /heal", 1):
                client.sendall(bytes([byte]))
                eventually(partial(_Counting.has_looked, seen), what="the byte")
            for byte in b"th/live HTTP/1.1\r\nHost: localhost\r\nX: " + 200 * b"x" + b"\r\n\r\n":
                client.sendall(bytes([byte]))
                eventually(partial(later_than, time.monotonic() + 0.002), every=0.001)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert _Counting.looks < 40


def later_than(moment: float) -> bool:
    return time.monotonic() > moment


class _Measuring(HoldfastProtocol):
    """How many bytes it was given."""

    given = 0

    def data_received(self, data: bytes) -> None:
        _Measuring.given += len(data)
        super().data_received(data)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_of_a_large_body_little_goes_through_the_parser(tmp_path: Path, rng: random.Random, loop: str) -> None:
    """The rest waits in the kernel for the thread that writes it, also where all of it is there with the head."""
    data = rng.randbytes(3 * MIB)
    with served(tmp_path / "data", _Measuring, loop=loop) as port, Speaker(f"http://127.0.0.1:{port}") as speaker:
        upload = speaker.create(len(data), parallel=False)
        _Measuring.given = 0
        assert speaker.patch(upload, 0, data).status == 204
        assert _Measuring.given <= HEAD + 4096
        assert speaker.get(upload).body == data


@pytest.mark.rule("T-HEAD-1")
def test_a_disk_that_hangs_stops_nobody_else(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no write to the files of eight uploads comes back, all others are answered, and reads are."""
    data = rng.randbytes(3 * MIB)
    hangs, waiting, write = threading.Event(), threading.Semaphore(0), os.pwritev

    def slow(*arguments: Any) -> int:
        waiting.release()
        assert hangs.wait(scaled(30))
        return write(*arguments)

    with served(tmp_path / "data") as port, Speaker(f"http://127.0.0.1:{port}") as speaker:
        other = speaker.create(len(data), parallel=False)
        assert speaker.patch(other, 0, data).status == 204
        uploads = [speaker.create(len(data), parallel=False) for _ in range(8)]
        with monkeypatch.context() as patch, ThreadPoolExecutor(8) as threads:
            patch.setattr(os, "pwritev", slow)

            def send(url: str) -> int:
                with Speaker(speaker.url) as own:
                    return own.patch(url, 0, data).status

            sending = [threads.submit(send, url) for url in uploads]
            for _ in range(2):
                assert waiting.acquire(timeout=scaled(20))
            try:
                for url in uploads:
                    assert speaker.head(url).offset == 0
                assert speaker.get(other).body == data
                assert speaker.head(speaker.create(5)).offset == 0
                assert not any(each.done() for each in sending)
            finally:
                hangs.set()
            assert [each.result() for each in sending] == [204] * 8
        assert all(speaker.get(url).body == data for url in uploads)


@pytest.mark.rule("P-CHUNK-7")
def test_who_comes_second_while_the_disk_hangs_is_told_to_come_again(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first chunk is whole, and its sync does not come back: it is not taken from it, and nobody waits for long."""
    data, changed = rng.randbytes(3 * GRANULE), rng.randbytes(3 * GRANULE)
    hangs, waiting, sync = threading.Event(), threading.Semaphore(0), os.fdatasync

    def slow(file: int) -> None:
        waiting.release()
        assert hangs.wait(scaled(30))
        sync(file)

    with served(tmp_path / "data") as port, Speaker(f"http://127.0.0.1:{port}") as speaker:
        upload = speaker.create(len(data))
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as threads, Speaker(speaker.url) as first:
            patch.setattr(os, "fdatasync", slow)
            storing = threads.submit(first.chunk, upload, 0, data)
            try:
                assert waiting.acquire(timeout=scaled(20))
                for each in (data, changed):
                    busy = speaker.chunk(upload, 0, each)
                    assert (busy.verdict, busy["retry-after"]) == ((503, "range-busy"), "1")
            finally:
                hangs.set()
            assert storing.result().status == 204
        assert speaker.chunk(upload, 0, changed).verdict == (409, "chunk-conflict")
        assert speaker.chunk(upload, 0, data).status == 204
