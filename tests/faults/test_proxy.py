"""The proxy of these tests is a network: who is gone on one side is gone for the other side as well.

A client that is left with a silent connection waits for as long as it has patience, and its test waits with it.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.support.proxy import Proxy
from tests.support.waiting import scaled


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and a server, with the proxy between them, who have heard of each other."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy,
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
