"""A server that is told to stop goes soon and keeps what it has (promises 1 and 7)."""

import random

import pytest
from tests.conftest import StartServer
from tests.support.speaker import GRANULE, Speaker, chunk_fields, digest, missing
from tests.support.waiting import eventually
from tests.support.wire import ConnectionLostError

TUS_BODY = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
SOON = 8.0
"""Seconds (scaled) after SIGTERM by which the server is gone, whatever its clients do."""


@pytest.mark.rule("T-PATCH-4")
def test_sigterm_keeps_what_a_running_patch_has_brought(
    start_server: StartServer, rng: random.Random, workers: int
) -> None:
    """A PATCH that never ends does not hold the server, and not a byte of it is lost."""
    data = rng.randbytes(3_000_000)
    server = start_server(workers=workers)
    with Speaker(server.url) as writer, Speaker(server.url) as reader:
        upload = writer.create(len(data), parallel=False)
        connection = writer.connection
        connection.begin("PATCH", upload, TUS_BODY | {"Upload-Offset": "0", "Content-Length": str(len(data))})
        connection.send(data[:1_234_567])
        eventually(lambda: reader.head(upload).offset == 1_234_567)
        server.stop(within=SOON)
    server.start()
    with Speaker(server.url) as speaker:
        assert speaker.head(upload).offset == 1_234_567
        assert speaker.patch(upload, 1_234_567, data[1_234_567:]).offset == len(data)
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-CHUNK-3")
def test_a_chunk_in_flight_is_whole_or_absent_after_sigterm(start_server: StartServer, rng: random.Random) -> None:
    """A chunk that is on its way may finish; if it is answered 204 it is there, else nothing of it is."""
    data = rng.randbytes(8 * GRANULE)
    server = start_server()
    with Speaker(server.url) as writer, Speaker(server.url) as other:
        upload = writer.create(len(data))
        connection = writer.connection
        connection.begin("PATCH", upload, chunk_fields(0, data[: 4 * GRANULE]))
        connection.send(data[: 2 * GRANULE])
        assert other.chunk(upload, 4 * GRANULE, data[4 * GRANULE :]).status == 204
        server.terminate()
        try:
            connection.send(data[2 * GRANULE : 4 * GRANULE])
            status = connection.read().status
        except (OSError, ConnectionLostError):
            status = 0
        assert status in (0, 204, 503)
        server.wait(SOON)
    server.restart()
    with Speaker(server.url) as speaker:
        holes = missing(speaker.head(upload))
        assert holes == ([] if status == 204 else [(0, 4 * GRANULE)])
        assert speaker.chunk(upload, 0, data[: 4 * GRANULE]).status == 204
        assert speaker.complete(upload, digest(data)).status == 204
        assert speaker.get(upload).body == data


def test_an_idle_server_stops_at_once_and_with_status_zero(start_server: StartServer) -> None:
    """Open keep-alive connections do not hold it."""
    server = start_server(workers=2)
    with Speaker(server.url) as idle:
        assert idle.request("GET", "/health/live").status == 200
        assert server.stop(within=SOON) == 0


def test_a_running_download_does_not_hold_the_server(start_server: StartServer, rng: random.Random) -> None:
    """A client that has stopped reading does not either."""
    data = rng.randbytes(16 << 20)
    server = start_server()
    with Speaker(server.url) as speaker:
        upload = speaker.create(len(data), parallel=False)
        assert speaker.patch(upload, 0, data).status == 204
        speaker.connection.begin("GET", upload)
        assert speaker.connection.socket.recv(1000)
        server.stop(within=SOON)
