"""A TCP proxy on loopback that does to a connection what bad networks do.

    Fault       what is done to a connection
    Proxy       the proxy; `fault` is used for connections that are opened from then on

Rule of this file: bytes are passed on in order and unchanged, until the fault says otherwise; what was
passed on is counted.
"""

import array
import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from tests.support.waiting import scaled


@dataclass(frozen=True)
class Fault:
    """What is done to a connection. Counts are of bytes from client to server, heads included."""

    cut_after: int | None = None
    """Close both sides after exactly so many bytes were passed on to the server."""
    reset: bool = False
    """Cut with a TCP reset and not with an orderly end."""
    stall_after: int | None = None
    """Pass on exactly so many bytes, then nothing more, and leave both sides open."""
    cut_answer_after: int | None = None
    """Close both sides after exactly so many bytes were passed on to the client."""
    half_close_after: int | None = None
    """After so many bytes tell the server that nothing more comes, and still bring the client its answer."""
    delay: float = 0.0
    """Seconds that every piece waits, in each direction."""
    rate: float | None = None
    """Bytes per second from client to server, at most."""


class Proxy:
    """Passes connections on to the server at `target`, a URL; `url` is where it listens itself."""

    def __init__(self, target: str, fault: Fault | None = None) -> None:
        parts = urlsplit(target)
        assert parts.port is not None
        self._target = ("127.0.0.1", parts.port)
        self.fault = fault or Fault()
        self.once: Fault | None = None
        """What is done to the next connection, and to no other one, in the place of `fault`."""
        self.up = 0
        """Bytes passed on to the server, over all connections."""
        self.down = 0
        """Bytes passed on to clients, over all connections."""
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def drop_all(self) -> None:
        """End every connection that is open now."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        _end(*sockets)

    def cut(self) -> None:
        """From now on the server cannot be reached: connections end, and new ones are ended at once; until `mend`."""
        self._cut.set()
        self.drop_all()

    def mend(self) -> None:
        """The network is back."""
        self._cut.clear()

    def close(self) -> None:
        """End all connections and stop listening. Blocks until its threads have ended."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(scaled(10))
        self.drop_all()
        for thread in self._threads[1:]:
            thread.join(scaled(10))
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, timeout=scaled(10))
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
                self.connections += 1
            fault, self.once = self.once or self.fault, None
            self._start(self._serve, client, server, fault)

    def _serve(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        """One connection: this thread passes bytes up, another one passes them down; both sockets end
        here.
        """
        ended, end = socket.socketpair()
        down = threading.Thread(target=self._pass_down, args=(server, client, ended, fault), daemon=True)
        with client, server, ended, end:
            down.start()
            try:
                self._pass_up(client, server, fault)
                if fault.cut_after is not None and fault.reset:
                    # A socket that another thread waits on would not be closed with a reset.
                    end.close()
                    down.join()
                    self._wait_until_received(server)
                    for each in (client, server):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif fault.cut_after is not None:
                    _end(server, client)
            except OSError:
                _end(server)  # what it has still said is passed down
            down.join()
            with self._lock:
                self._sockets = [s for s in self._sockets if s not in (client, server)]

    def _wait_until_received(self, server: socket.socket) -> None:
        """A reset throws away what the other side's kernel has not got yet."""
        unsent = array.array("i", [1])
        deadline = time.monotonic() + scaled(10)
        while unsent[0] and time.monotonic() < deadline and not self._closing.wait(0.002):
            fcntl.ioctl(server, termios.TIOCOUTQ, unsent)

    def _pass_up(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        limits = [n for n in (fault.cut_after, fault.stall_after, fault.half_close_after) if n is not None]
        limit = min(limits, default=None)
        sent = 0
        due = 0.0  # a connection that was idle has no more than its rate afterwards
        while limit is None or sent < limit:
            piece = client.recv(65536 if limit is None else min(65536, limit - sent))
            if not piece:
                server.shutdown(socket.SHUT_WR)
                return
            pause = fault.delay
            if fault.rate is not None:
                now = time.monotonic()
                due = max(due, now) + len(piece) / fault.rate
                pause = max(pause, due - now)
            if pause and self._closing.wait(pause):
                return
            server.sendall(piece)
            sent += len(piece)
            with self._lock:
                self.up += len(piece)
        if fault.half_close_after is not None:
            server.shutdown(socket.SHUT_WR)

    def _pass_down(self, server: socket.socket, client: socket.socket, ended: socket.socket, fault: Fault) -> None:
        told = 0
        try:
            while ended not in select.select([server, ended], [], [])[0]:
                piece = server.recv(65536)
                if not piece:
                    client.shutdown(socket.SHUT_WR)
                    return
                if fault.delay and self._closing.wait(fault.delay):
                    return
                left = len(piece) if fault.cut_answer_after is None else fault.cut_answer_after - told
                client.sendall(piece[:left])
                told += len(piece)
                with self._lock:
                    self.down += len(piece[:left])
                if left < len(piece):
                    _end(server, client)
                    return
        except OSError:
            _end(server, client)


def _end(*sockets: socket.socket) -> None:
    """Neither side is left to wait for one that is gone."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
