"""Two roads from the socket to the file, and no client can tell them apart.

By the fast one the connection is lent to whoever stores the body; by the plain one the body goes through ASGI. What
follows in the stream of a connection must be right on both: the next request begins where the body ends.
"""

import fcntl
import random
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, b64, chunk_fields, digest, missing, raw_digest
from tests.support.waiting import eventually
from tests.support.wire import Connection, ConnectionLostError

MIB = 1 << 20


@pytest.fixture(scope="module", params=[False, True], ids=["lent", "plain"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for each road."""
    with ServerProcess(tmp_path_factory.mktemp("road") / "data", plain=request.param) as process:
        yield process


def head(method: str, url: str, fields: dict[str, str], version: str = "1.1") -> bytes:
    path = "/files/" + url.rsplit("/", 1)[-1]
    lines = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def patch_fields(offset: int, length: int) -> dict[str, str]:
    return {**TUS_BODY, "Upload-Offset": str(offset), "Content-Length": str(length)}


def patch_head(url: str, offset: int, length: int, **others: str) -> bytes:
    return head("PATCH", url, patch_fields(offset, length) | others)


@pytest.mark.parametrize("size", [1, 70_000, 9 * MIB + 1])
@pytest.mark.rule("T-PATCH-4", "T-HEAD-1")
def test_requests_that_are_sent_ahead_are_answered_in_their_order(
    server: ServerProcess, speaker: Speaker, rng: random.Random, size: int
) -> None:
    """PATCH, HEAD, PATCH, GET in one go: each begins right behind the body before it."""
    data = rng.randbytes(2 * size)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        connection.send(
            patch_head(upload, 0, size)
            + data[:size]
            + head("HEAD", upload, {"Tus-Resumable": "1.0.0"})
            + patch_head(upload, size, size)
            + data[size:]
            + head("GET", upload, {})
        )
        first = connection.read_head()
        asked = connection.read_head()
        second = connection.read_head()
        assert [first.status, asked.status, second.status] == [204, 200, 204]
        assert [first.offset, asked.offset, second.offset] == [size, size, 2 * size]
        assert connection.read().body == data


@pytest.mark.rule("T-PATCH-4")
def test_one_connection_for_many_bodies(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """Bodies of all sizes, in pieces of all sizes: the connection is kept, and every byte is in its place."""
    sizes = [rng.choice([1, 1000, GRANULE, 300_000, MIB, 5 * MIB]) + rng.randrange(100) for _ in range(20)]
    data = rng.randbytes(sum(sizes))
    upload = speaker.create(len(data), parallel=False)
    position = 0
    with Connection(server.url) as connection:
        for size in sizes:
            whole = patch_head(upload, position, size) + data[position : position + size]
            while whole:
                piece = rng.choice([100, 5000, 200_000, 2 * MIB])
                connection.send(whole[:piece])
                whole = whole[piece:]
            position += size
            assert connection.read().offset == position
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4", "T-CHECKSUM-1")
def test_a_body_that_is_refused_on_the_way_is_passed_over(
    server: ServerProcess, speaker: Speaker, rng: random.Random
) -> None:
    """The answer comes before the body has come; what is left of it is not taken for a request."""
    data = rng.randbytes(6 * MIB)
    upload = speaker.create(len(data), parallel=False)
    nested = head("DELETE", upload, {"Tus-Resumable": "1.0.0"}) * 20_000
    with Connection(server.url) as connection:
        connection.send(patch_head(upload, 0, len(nested)) + nested[:MIB])
        eventually(lambda: speaker.head(upload).offset == MIB)
        assert speaker.patch(upload, MIB, b"").status == 204  # takes over
        assert connection.read().verdict == (409, "fenced")
        connection.send(nested[MIB:])
        connection.begin("HEAD", upload, {"Tus-Resumable": "1.0.0"})
        assert connection.read().offset == MIB
        connection.begin("PATCH", upload, patch_fields(7, 3 * MIB))
        connection.send(data[: 3 * MIB])
        assert connection.read().verdict == (409, "offset-mismatch")
        wrong = f"sha256 {b64(raw_digest('sha-256', data))}"
        connection.begin("PATCH", upload, patch_fields(MIB, 5 * MIB) | {"Upload-Checksum": wrong})
        connection.send(data[MIB:])
        assert connection.read().verdict == (460, "checksum-mismatch")
        connection.begin("HEAD", upload, {"Tus-Resumable": "1.0.0"})
        assert connection.read().offset == MIB


@pytest.mark.rule("T-PATCH-1", "I-INTERIM-4")
def test_a_client_that_waits_is_told_when_to_go_on(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """100 Continue comes when the head was accepted, and not at all when it was refused."""
    data = rng.randbytes(2 * MIB)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        connection.send(patch_head(upload, 5, len(data), Expect="100-continue"))
        assert connection.read_head().status == 409
    with Connection(server.url) as connection:
        connection.send(patch_head(upload, 0, len(data), Expect="100-continue"))
        assert connection.read_head().status == 100
        connection.send(data)
        assert connection.read().offset == len(data)
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4")
def test_http_1_0(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    data = rng.randbytes(3 * MIB)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        connection.send(head("PATCH", upload, patch_fields(0, len(data)), "1.0") + data)
        assert connection.read().offset == len(data)
        assert connection.socket.recv(1) == b""
    with Connection(server.url) as connection:
        connection.send(head("GET", upload, {}, "1.0"))
        assert connection.read().body == data
        assert connection.socket.recv(1) == b""


@pytest.mark.parametrize("how", ["closed", "reset", "half"])
@pytest.mark.rule("T-PATCH-4", "T-PATCH-7")
def test_all_that_was_sent_before_a_cut_is_kept(
    server: ServerProcess, speaker: Speaker, rng: random.Random, how: str
) -> None:
    """More than any buffer of the server holds, and then the end: not a byte is missing."""
    data = rng.randbytes(12 * MIB)
    upload = speaker.create(len(data) + 1, parallel=False)
    with Connection(server.url) as connection:
        connection.send(patch_head(upload, 0, len(data) + 1) + data)
        if how == "reset":
            # A reset may overtake what is still on the way to the server's kernel.
            eventually(lambda: unsent(connection.socket) == 0)
            connection.reset()
        elif how == "half":
            connection.half_close()
        else:
            connection.close()
        eventually(lambda: speaker.head(upload).offset == len(data))
    assert speaker.patch(upload, len(data), b"!").status == 204
    assert speaker.get(upload).body == data + b"!"


def unsent(connection: socket.socket) -> int:
    """Bytes that the other side's kernel has not confirmed (ioctl SIOCOUTQ)."""
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(size)


@pytest.mark.rule("T-PATCH-7")
def test_who_sends_all_and_half_closes_gets_the_answer(
    server: ServerProcess, speaker: Speaker, rng: random.Random
) -> None:
    """The bytes are stored in any case; by the fast road the answer comes too."""
    data = rng.randbytes(5 * MIB)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        connection.send(patch_head(upload, 0, len(data)) + data)
        connection.half_close()
        try:
            assert connection.read().offset == len(data)
        except ConnectionLostError:
            assert speaker.head(upload).offset == len(data)


@pytest.mark.rule("P-CHUNK-3")
def test_chunks_in_pieces_over_one_connection(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """Right, damaged and cut chunks of several slices."""
    data = rng.randbytes(20 * MIB)
    upload = speaker.create(len(data))
    with Connection(server.url) as connection:
        for start in (10 * MIB, 0):
            body = data[start : start + 10 * MIB]
            connection.begin("PATCH", upload, chunk_fields(start, body))
            connection.send(body[:-1] + bytes([body[-1] ^ 1]))
            assert connection.read().verdict == (400, "digest-mismatch")
            connection.begin("PATCH", upload, chunk_fields(start, body))
            for at in range(0, len(body), 3_000_000):
                connection.send(body[at : at + 3_000_000])
            assert connection.read().verdict == (204, None)
        assert missing(speaker.head(upload)) == []
    assert speaker.complete(upload, digest(data)).status == 204
    assert speaker.get(upload).body == data


def stored(speaker: Speaker, data: bytes) -> str:
    upload = speaker.create(len(data), parallel=False)
    assert speaker.patch(upload, 0, data).status == 204
    return upload


@pytest.mark.rule("D-GET-1", "D-GET-2")
def test_answers_keep_their_places_in_the_stream(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """Whole files, ranges, several ranges and answers without a file in one go, on one connection."""
    data = rng.randbytes(20 * MIB + 11)
    upload = stored(speaker, data)
    cases: list[tuple[str | None, bytes]] = [
        ("bytes=5-", data[5:]),
        ("bytes=-3", data[-3:]),
        ("bytes=0-0", data[:1]),
        (None, data),
        ("bytes=9000000-9999999", data[9_000_000:10_000_000]),
    ]
    with Connection(server.url) as connection:
        for asked, _ in cases:
            connection.send(head("GET", upload, {"Range": asked} if asked else {}))
            connection.send(head("GET", upload, {"Range": "bytes=0-9,12000000-17000000,-10"}))
            connection.send(head("GET", "0" * 32, {}))
        for asked, expected in cases:
            answer = connection.read()
            assert answer.status == (206 if asked else 200)
            assert answer.body == expected
            several = connection.read()
            assert several.status == 206
            for part in (data[:10], data[12_000_000:17_000_001], data[-10:]):
                assert part in several.body
            assert connection.read().verdict == (404, "not-found")


@pytest.mark.rule("D-GET-1")
def test_a_reader_that_pauses_and_one_that_goes(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """The file waits for who reads slowly; who goes away in the middle leaves nothing behind, and stops nobody."""
    data = rng.randbytes(24 * MIB)
    upload = stored(speaker, data)
    with Connection(server.url, receive_buffer=65536) as slow:
        slow.send(head("GET", upload, {}))
        for _ in range(5):
            with Connection(server.url) as gone:
                gone.send(head("GET", upload, {}))
                assert gone.read_head().status == 200
                gone.reset()
        assert speaker.get(upload).body == data
        assert slow.read().body == data
    eventually(lambda: open_files(server, upload) == 0)


def open_files(server: ServerProcess, upload: str) -> int:
    """How often the server has the upload's file open."""
    count = 0
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(OSError):
            count += upload.rsplit("/", 1)[-1] in str(link.readlink())
    return count


@pytest.mark.rule("T-PATCH-4")
def test_a_body_of_which_nothing_comes_is_ended(tmp_path: Path, rng: random.Random) -> None:
    """Also when some of it has come: it is kept, and the answer says to go on from there."""
    data = rng.randbytes(2 * MIB)
    for plain in (False, True):
        with (
            ServerProcess(tmp_path / f"data-{plain}", "--stall-timeout", "1s", plain=plain) as server,
            Speaker(server.url) as speaker,
            Connection(server.url) as connection,
        ):
            upload = speaker.create(len(data), parallel=False)
            connection.send(patch_head(upload, 0, len(data)) + data[:MIB])
            assert connection.read().verdict == (408, "request-timeout")
            assert speaker.head(upload).offset == MIB
