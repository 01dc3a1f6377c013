"""Connections that break: every byte of a tus PATCH that reached the server stays, half a chunk never does.

The proxy counts what it passed on, so that the test knows exactly which bytes reached the server.
"""

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, chunk_fields, digest, missing
from tests.support.waiting import eventually, scaled
from tests.support.wire import Connection, ConnectionLostError

LENGTH = 3_000_000


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with Proxy(server.url) as each:
        yield each


def patch_head(connection: Connection, path: str, offset: int, length: int | None) -> int:
    """Send the head of a tus PATCH; how many bytes it took. Without a length the body is chunked."""
    body = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    fields = {**TUS_BODY, "Upload-Offset": str(offset), **body}
    lines = [f"PATCH {path} HTTP/1.1", f"Host: {connection.host}", *(f"{k}: {v}" for k, v in fields.items())]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    connection.send(head)
    return len(head)


def path_of(url: str) -> str:
    return "/files/" + url.rsplit("/", 1)[-1]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.rule("T-PATCH-4")
def test_a_cut_patch_keeps_every_byte_that_arrived(
    speaker: Speaker, proxy: Proxy, rng: random.Random, reset: bool
) -> None:
    """Cut anywhere, again and again: the offset is exactly what reached the server, and the file is right."""
    data = rng.randbytes(LENGTH)
    upload = speaker.create(LENGTH, parallel=False)
    offset = 0
    for _ in range(6):
        rest = LENGTH - offset
        with Connection(proxy.url) as probe:
            head = len(
                f"PATCH {path_of(upload)} HTTP/1.1\r\nHost: {probe.host}\r\n"
                + "".join(
                    f"{k}: {v}\r\n" for k, v in {**TUS_BODY, "Upload-Offset": offset, "Content-Length": rest}.items()
                )
                + "\r\n"
            )
        brought = rng.randint(0, rest // 2)
        proxy.fault = Fault(cut_after=head + brought, reset=reset)
        with Connection(proxy.url) as connection:
            assert patch_head(connection, path_of(upload), offset, rest) == head
            try:
                connection.send(data[offset:])
                connection.read()
            except (OSError, ConnectionLostError):
                pass
            else:
                pytest.fail("the proxy was to cut this connection")
        expected = offset + brought
        eventually(lambda: speaker.head(upload).offset == expected, what=f"offset {expected}")  # noqa: B023
        offset = expected
    answer = speaker.patch(upload, offset, data[offset:])
    assert (answer.status, answer.offset) == (204, LENGTH)
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4")
def test_a_patch_that_was_cut_with_its_last_byte_does_not_complete(
    server: ServerProcess, speaker: Speaker, rng: random.Random
) -> None:
    """A body that did not end is no end of the file; an empty PATCH at the end is (T-PATCH-4)."""
    data = rng.randbytes(200_000)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        fields = {**TUS_BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
        connection.begin("PATCH", upload, fields)
        connection.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        eventually(lambda: speaker.head(upload).offset == len(data))
    head = speaker.head(upload)
    assert (head.offset, head["upload-complete"]) == (len(data), "?0")
    assert speaker.get(upload).verdict == (409, "not-finished")
    assert speaker.patch(upload, len(data), b"").status == 204
    assert speaker.get(upload).body == data


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.rule("P-CHUNK-3")
def test_a_cut_chunk_stores_nothing(speaker: Speaker, server: ServerProcess, rng: random.Random, reset: bool) -> None:
    """Whatever is missing of its body, all of its range stays missing, and the chunk is welcome later."""
    data = rng.randbytes(8 * GRANULE)
    upload = speaker.create(len(data))
    assert speaker.chunk(upload, 0, data[:GRANULE]).status == 204
    for _ in range(4):
        with Connection(server.url) as connection:
            connection.begin("PATCH", upload, chunk_fields(GRANULE, data[GRANULE:]))
            connection.send(data[GRANULE : rng.randint(GRANULE, len(data) - 1)])
            if reset:
                connection.reset()
        assert missing(speaker.head(upload)) == [(GRANULE, 7 * GRANULE)]
    assert speaker.chunk(upload, GRANULE, data[GRANULE:]).status == 204
    assert speaker.complete(upload, digest(data)).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-7", "T-PATCH-4")
def test_a_body_shorter_than_said_keeps_what_came(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    """The client half-closes before the announced end: what came is stored, and an answer says so, if any."""
    data = rng.randbytes(400_000)
    upload = speaker.create(len(data), parallel=False)
    with Connection(proxy.url) as connection:
        patch_head(connection, path_of(upload), 0, len(data))
        connection.send(data[:150_000])
        connection.half_close()
        eventually(lambda: speaker.head(upload).offset == 150_000)
        with suppress(ConnectionLostError):
            assert connection.read().status >= 400
    assert speaker.head(upload)["upload-complete"] == "?0"
    assert speaker.patch(upload, 150_000, data[150_000:]).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-6")
def test_a_chunked_body_longer_than_the_upload_is_stored_up_to_its_length(
    speaker: Speaker, server: ServerProcess, rng: random.Random
) -> None:
    data = rng.randbytes(300_000)
    upload = speaker.create(len(data), parallel=False)
    with Connection(server.url) as connection:
        connection.begin("PATCH", upload, {**TUS_BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"})
        body = data + b"surplus"
        connection.send(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        assert connection.read().verdict == (413, "length-exceeded")
    assert speaker.head(upload).offset == len(data)
    assert speaker.patch(upload, len(data), b"").status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4", "C-OFFSET-1")
def test_a_slow_sender_is_followed_byte_by_byte(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    """Over a link of 400 kB/s the offset grows while the PATCH runs, never shrinks, and the PATCH succeeds."""
    data = rng.randbytes(300_000)
    upload = speaker.create(len(data), parallel=False)
    proxy.fault = Fault(rate=400_000, delay=0.002)
    offsets: list[int] = []
    with Connection(proxy.url) as connection:
        patch_head(connection, path_of(upload), 0, len(data))
        connection.send(data)

        def ask() -> bool:
            offsets.append(speaker.head(upload).offset)
            return offsets[-1] == len(data)

        eventually(ask, every=0.02)
        assert connection.read().verdict == (204, None)
    assert offsets == sorted(offsets)
    assert len(set(offsets)) > 3
    assert speaker.get(upload).body == data


@pytest.mark.rule("P-CHUNK-3", "P-CHUNK-4")
def test_chunks_over_a_slow_link_are_stored(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    data = rng.randbytes(4 * GRANULE)
    upload = speaker.create(len(data))
    proxy.fault = Fault(rate=1_000_000, delay=0.005)
    with Speaker(proxy.url) as slow:
        for offset in (2 * GRANULE, 0):
            assert slow.chunk(upload, offset, data[offset : offset + 2 * GRANULE]).status == 204
    assert speaker.complete(upload, digest(data)).status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-HEAD-1", "T-PATCH-3")
def test_a_link_that_stalls_hides_nothing(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    """A connection that neither ends nor brings bytes: HEAD tells what came, and a new PATCH goes on."""
    data = rng.randbytes(500_000)
    upload = speaker.create(len(data), parallel=False)
    proxy.fault = Fault(stall_after=200_000)
    with Connection(proxy.url, timeout=scaled(5)) as connection:
        head = patch_head(connection, path_of(upload), 0, len(data))
        connection.send(data)
        arrived = 200_000 - head
        eventually(lambda: speaker.head(upload).offset == arrived)
        assert speaker.patch(upload, arrived, data[arrived:]).offset == len(data)
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4")
def test_a_half_closed_link_still_brings_the_answer(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    """A client that says after its last byte that nothing more comes hears that all is stored."""
    data = rng.randbytes(200_000)
    upload = speaker.create(len(data), parallel=False)
    with Connection(proxy.url) as connection:
        patch_head(connection, path_of(upload), 0, len(data))
        connection.send(data)
        connection.half_close()
        eventually(lambda: speaker.head(upload).offset == len(data))
        try:
            assert connection.read().status == 204
        except ConnectionLostError:
            # HTTP/1.1 lets a server take the half-closed side for the end of the client; the bytes stay.
            assert speaker.patch(upload, len(data), b"").status == 204
    assert speaker.get(upload).body == data


@pytest.mark.rule("P-RETRY-1", "P-STATE-1")
def test_an_answer_that_is_lost_is_no_loss(speaker: Speaker, proxy: Proxy, rng: random.Random) -> None:
    """The chunk was stored but the 204 never came: HEAD tells, and sending it again is a 204 as well."""
    data = rng.randbytes(2 * GRANULE)
    upload = speaker.create(len(data))
    with Connection(proxy.url) as connection:
        connection.begin("PATCH", upload, chunk_fields(0, data[:GRANULE]))
        connection.send(data[:GRANULE])
        eventually(lambda: missing(speaker.head(upload)) == [(GRANULE, GRANULE)])
        proxy.drop_all()
    assert speaker.chunk(upload, 0, data[:GRANULE]).status == 204
    assert missing(speaker.head(upload)) == [(GRANULE, GRANULE)]
