"""The link passes bytes on as it says, and refuses in HTTP what it was told to refuse."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from benchmarks.link import LATE, Conditions, Link
from benchmarks.units import KIB, MIB
from tests.support.waiting import eventually, scaled


@pytest.fixture
def port() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        try:
            while piece := connection.recv(65536):
                connection.sendall(piece)
        except OSError:
            return


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=scaled(20))


def exchange(link: Link, data: bytes) -> bytes:
    """Send it as a body, say that it was all, and read what comes back to the end."""
    with connected(link) as client:
        sender = threading.Thread(target=_send, args=(client, request(len(data)) + data))
        sender.start()
        came = b""
        while piece := client.recv(65536):
            came += piece
        sender.join()
    return came.removeprefix(request(len(data)))


def _send(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def request(body: int) -> bytes:
    return b"PATCH /files/1 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % body


def status(client: socket.socket) -> int:
    return int(client.recv(65536).split()[1])


def test_bytes_arrive_unchanged_and_no_faster_than_it_says(port: int) -> None:
    """Lower bounds: the rate for the bytes, what it may catch up, a round trip to connect, and one for the bytes."""
    data = bytes(range(256)) * 1024
    with Link(port, Conditions(round_trip=0.1, each=MIB)) as link:
        began = time.monotonic()
        assert exchange(link, data) == data
        took = time.monotonic() - began
    assert link.up == len(request(len(data)) + data)
    assert link.connections == 1
    assert took >= len(data) / MIB + 0.2 - LATE
    assert 0.1 <= link.seconds <= took


def test_the_rate_of_all_is_shared(port: int) -> None:
    data = bytes(256 * KIB)
    with Link(port, Conditions(whole=MIB)) as link:
        began = time.monotonic()
        threads = [threading.Thread(target=exchange, args=(link, data)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 3 * len(data) / MIB - LATE
    assert link.up == 3 * len(request(len(data)) + data)


def test_what_is_on_its_way_does_not_wait_for_what_left_before(port: int) -> None:
    """The delay takes nothing from the rate: pieces that wait for one another would take half a minute."""
    data = bytes(4 * MIB)
    with Link(port, Conditions(round_trip=1.0)) as link:
        assert exchange(link, data) == data
    assert link.seconds < 0.5 * len(data) / (128 * KIB)


def test_a_connection_is_cut_after_its_bytes(port: int) -> None:
    with Link(port, Conditions(cut_after=100_000)) as link:
        with connected(link) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(request(10 * MIB) + bytes(10 * MIB))
        link.change(Conditions())
        data = bytes(200_000)
        assert exchange(link, data) == data
    assert link.connections == 2
    assert 100_000 <= link.up - len(data) < 400_000


def test_a_stall_is_a_pause(port: int) -> None:
    data = bytes(MIB + 64 * KIB)
    with Link(port, Conditions(stalls=1.0, stall_time=0.5)) as link:
        began = time.monotonic()
        assert exchange(link, data) == data
        assert time.monotonic() - began >= 0.5


def test_one_request_too_many_is_answered_429(port: int) -> None:
    """Requests count and not connections, from the head to the answer; the server here never answers."""
    with Link(port, Conditions(most=2)) as link:
        first, second, third = connected(link), connected(link), connected(link)
        with first, second, third:
            for client in (first, second):
                client.sendall(request(100))
                assert client.recv(65536).startswith(b"PATCH")  # the echo: it is with the server
            third.sendall(request(100))
            assert status(third) == 429
    assert link.refused == 1


def test_a_large_body_is_answered_413(port: int) -> None:
    with Link(port, Conditions(largest=1000)) as link:
        with connected(link) as client:
            client.sendall(request(1001))
            assert status(client) == 413
        with connected(link) as client:
            client.sendall(request(1000))
            assert client.recv(65536) == request(1000)
    assert link.refused == 1


def test_every_request_can_be_refused_for_a_while(port: int) -> None:
    with Link(port, Conditions(answer=503)) as link:
        with connected(link) as client:
            client.sendall(request(10))
            assert status(client) == 503
        link.change(Conditions())

        def let_in() -> bool:
            with connected(link) as client:
                client.sendall(request(10))
                return client.recv(65536) == request(10)

        eventually(let_in, what="a request that is passed on")


def test_the_way_down_can_have_the_pace(port: int) -> None:
    """And then the way up has none."""
    data = bytes(2 * MIB)
    with Link(port, Conditions(each=4 * MIB), down=True) as link:
        began = time.monotonic()
        assert exchange(link, data) == data
        took = time.monotonic() - began
    assert took >= 0.5 - LATE
    assert link.down >= len(data)
    assert link.up >= len(data)
