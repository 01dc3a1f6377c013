"""Limits on the wire: what is refused, with which words, and what goes on beside it."""

import hashlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker, b64
from tests.support.waiting import eventually
from tests.support.wire import Connection, ConnectionLostError
from tests.support.workers import speakers_by_worker

ESTABLISHED = 1
"""TCP_ESTABLISHED of the kernel."""
ROADS = pytest.mark.parametrize("plain", [False, True], ids=["lent", "plain"])


def enter(server: ServerProcess, stack: ExitStack, source: str | None = None) -> Connection:
    """One more connection that stays, as soon as one that was closed before is gone for the server too."""
    found: list[Connection] = []

    def welcome() -> bool:
        with suppress(OSError, ConnectionLostError), ExitStack() as attempt:
            connection = attempt.enter_context(Connection(server.url, source=source))
            if connection.request("OPTIONS", "/files").status == 204:
                stack.push(attempt.pop_all())
                found.append(connection)
        return bool(found)

    eventually(welcome, what="room for one more connection")
    return found[0]


def refused(connection: Connection) -> tuple[int, str | None, str | None]:
    answer = connection.read("GET")
    return *answer.verdict, answer.get("retry-after")


@pytest.mark.rule("H-CONN-1")
def test_a_client_has_no_more_connections_than_it_may(start_server: StartServer, workers: int) -> None:
    """In all workers together: whichever gets the connections that are too many."""
    server = start_server("--client-connections", "5", workers=workers)
    with ExitStack() as stack:
        held = [enter(server, stack) for _ in range(5)]
        for _ in range(1 if workers == 1 else 8):
            with Connection(server.url) as more:
                assert refused(more) == (429, "too-many-connections", "5")
        assert held[0].request("OPTIONS", "/files").status == 204
        with Connection(server.url, source="127.0.0.2") as other:
            assert other.request("OPTIONS", "/files").status == 204
    with ExitStack() as stack:
        enter(server, stack)  # there is room for the client that has left


@pytest.mark.rule("H-CONN-1")
def test_all_have_no_more_connections_than_there_are(start_server: StartServer, workers: int) -> None:
    server = start_server("--max-connections", "16", workers=workers)
    with ExitStack() as stack:
        for _ in range(14):
            enter(server, stack)
        for _ in range(1 if workers == 1 else 8):
            with Connection(server.url) as more:
                assert refused(more) == (503, "overloaded", "5")
        for number in range(2):  # those are kept for others
            enter(server, stack, f"127.0.0.{2 + number}")
        with Connection(server.url, source="127.0.0.4") as more:
            assert refused(more) == (503, "overloaded", "5")


@pytest.mark.rule("H-RATE-1")
def test_too_many_requests_are_refused_as_a_problem_document(start_server: StartServer) -> None:
    server = start_server("--client-requests", "10")
    with Speaker(server.url) as speaker:
        answers = [speaker.request("OPTIONS", "/files") for _ in range(40)]
    bad = [answer for answer in answers if answer.status != 204]
    assert len(bad) > 5
    assert {answer.verdict for answer in bad} == {(429, "too-many-requests")}
    assert all(int(answer.get("retry-after") or 0) >= 1 for answer in bad)


@pytest.mark.rule("H-RATE-1")
def test_requests_to_all_workers_are_counted_together(start_server: StartServer) -> None:
    server = start_server("--client-requests", "200", workers=2)
    began = time.monotonic()
    with speakers_by_worker(server) as speakers:
        statuses = [speakers[number % 2].request("OPTIONS", "/files").status for number in range(900)]
    assert set(statuses) <= {204, 429}
    # By themselves they would let through 400 each and more. A few of the same microsecond may count once.
    assert statuses.count(204) <= 400 + 200 * (time.monotonic() - began) + 20


@pytest.mark.rule("H-RATE-2")
def test_bytes_to_all_workers_are_counted_together(start_server: StartServer) -> None:
    """Half of them to each: it would be within what may come at once."""
    server = start_server("--client-rate", "4M", workers=2)
    data = os.urandom(8 << 20)
    with speakers_by_worker(server) as speakers, ThreadPoolExecutor(2) as pool:
        urls = [speaker.url + speaker.post(len(data))["location"] for speaker in speakers]
        began = time.monotonic()
        answers = pool.map(lambda speaker, url: speaker.patch(url, 0, data), speakers, urls)
        assert [answer.status for answer in answers] == [204, 204]
        assert time.monotonic() - began > 1.5


@ROADS
@pytest.mark.rule("H-RATE-2")
def test_bytes_a_second_are_bounded_up_and_down(start_server: StartServer, plain: bool) -> None:
    server = start_server("--client-rate", "4M", plain=plain)
    data = os.urandom(16 << 20)
    with Speaker(server.url) as speaker:
        url = speaker.url + speaker.post(len(data))["location"]
        began = time.monotonic()
        assert speaker.patch(url, 0, data).status == 204
        assert time.monotonic() - began > 1.5  # 16 MiB less the burst of 8, at 4 a second
        answer = speaker.get(url)
        while answer.status == 429:
            time.sleep(float(answer.get("retry-after") or 1))
            answer = speaker.get(url)
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()
        assert time.monotonic() - began > 5


@ROADS
@pytest.mark.rule("H-SLOW-1")
def test_a_trickle_is_ended_and_what_it_brought_is_kept(start_server: StartServer, plain: bool) -> None:
    server = start_server("--stall-timeout", "2s", "--min-speed", "1000", plain=plain)
    with Speaker(server.url) as speaker, Connection(server.url) as slow:
        path = speaker.post(1000)["location"]
        slow.send(
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            "Content-Type: application/offset+octet-stream\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        sent, began = 0, time.monotonic()
        while not slow.readable(0.1):
            assert time.monotonic() - began < 30
            slow.send(b"x")
            sent += 1
        answer = slow.read("PATCH")
        assert answer.verdict == (408, "request-timeout")
        assert sent - 3 <= int(answer.get("upload-offset") or 0) <= sent
        assert speaker.head(speaker.url + path).offset == int(answer.get("upload-offset") or 0)


@ROADS
@pytest.mark.rule("H-SLOW-1")
def test_a_request_ends_when_its_time_is_over(start_server: StartServer, plain: bool) -> None:
    server = start_server("--max-request-time", "1s", plain=plain)
    with Speaker(server.url) as speaker, Connection(server.url) as long:
        path = speaker.post(100_000_000)["location"]
        long.send(
            f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            "Content-Type: application/offset+octet-stream\r\nContent-Length: 100000000\r\n\r\n".encode()
        )
        began = time.monotonic()
        while not long.readable(0.01):
            assert time.monotonic() - began < 30
            long.send(bytes(1000))
        answer = long.read("PATCH")
        assert answer.verdict == (408, "request-timeout")
        assert int(answer.get("upload-offset") or 0) > 0


@ROADS
@pytest.mark.rule("H-READ-1")
def test_who_does_not_read_is_let_go(start_server: StartServer, plain: bool) -> None:
    server = start_server("--stall-timeout", "1s", plain=plain)
    data = os.urandom(32 << 20)
    with Speaker(server.url) as speaker:
        url = speaker.url + speaker.post(len(data))["location"]
        assert speaker.patch(url, 0, data).status == 204
        with Connection(server.url, receive_buffer=65536) as deaf:
            deaf.begin("GET", url)

            def let_go() -> bool:
                state = deaf.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                return state != ESTABLISHED

            eventually(let_go, within=20, what="the end of the connection of a client that does not read")
        assert speaker.get(url).body == data


@pytest.mark.rule("V-META-2")
def test_metadata_are_bounded(start_server: StartServer) -> None:
    server = start_server("--max-metadata", "1K")
    with Speaker(server.url) as speaker:
        good = "filename " + b64(b"a" * 700)
        assert speaker.post(10, Upload_Metadata=good).status == 201
        for fields in (
            TUS,
            {**TUS, "Upload-Parallel": "?1"},
            {"Upload-Draft-Interop-Version": "9", "Upload-Complete": "?0"},
        ):
            bad = {**fields, "Upload-Length": "10", "Upload-Metadata": "filename " + b64(b"a" * 800)}
            answer = speaker.request("POST", "/files", bad, b"")
            assert answer.verdict == (431, "metadata-too-large")
            assert answer.json()["max-metadata"] == 1024
        assert len(speaker.request("GET", "/api/uploads").json()["uploads"]) == 1


@pytest.mark.rule("H-HEAD-1")
def test_the_size_of_heads_is_a_setting(start_server: StartServer) -> None:
    server = start_server("--max-head", "4K")
    with Speaker(server.url) as speaker:
        assert speaker.request("OPTIONS", "/files", {"X-Long": "a" * 3000}).status == 204
    with Connection(server.url) as connection:
        answer = connection.request("OPTIONS", "/files", {"X-Long": "a" * 5000})
        assert answer.verdict == (431, "headers-too-large")
