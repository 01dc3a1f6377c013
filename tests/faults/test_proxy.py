"""The proxy of these tests is a network: who is gone on one side is gone for the other side as well.

A client that is left with a silent connection waits for as long as it has patience, and its test waits with it.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.proxy import Fault, Proxy
from tests.support.waiting import scaled


@contextmanager
def connected(fault: Fault | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and a server, with the proxy between them, who have heard of each other."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", fault) as proxy,
        socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2]))) as client,
        listener.accept()[0] as server,
    ):
        for each in (client, server):
            each.settimeout(scaled(10))
        client.sendall(b"asked")
        assert server.recv(5) == b"asked"
        yield client, server


def reset(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


@pytest.mark.parametrize("leaves", [socket.socket.close, reset])
@pytest.mark.parametrize("who", ["client", "server"])
def test_who_is_gone_is_gone_for_both(who: str, leaves: Callable[[socket.socket], None]) -> None:
    with connected() as (client, server):
        gone, left = (client, server) if who == "client" else (server, client)
        leaves(gone)
        assert left.recv(1) == b""


def test_what_was_said_before_the_reset_arrives() -> None:
    with connected() as (client, server):
        server.sendall(b"refused")
        assert client.recv(7) == b"refused"
        reset(server)
        assert client.recv(1) == b""


def test_a_connection_that_was_idle_is_as_slow_as_before() -> None:
    """It would be done at once with what it did not do before, and a test that wants time to look has none."""
    rate = 400_000
    with connected(Fault(rate=rate)) as (client, server):
        time.sleep(0.5)
        began = time.monotonic()
        client.sendall(bytes(rate // 2))
        left = rate // 2
        while left:
            left -= len(server.recv(left))
        assert time.monotonic() - began >= 0.49
