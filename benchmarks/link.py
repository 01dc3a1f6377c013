"""A link: a proxy on loopback with a delay, a rate for each connection and one for all, and cuts.

Rule of this file: bytes are passed on in order and unchanged. What goes up leaves at the pace of the link and arrives
half a round trip later; a connection takes a round trip to be made. Nothing is lost and nothing starts slowly: it is
no model of TCP, but of a path where one connection does not get all there is.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

PIECE: Final = 16 * 1024
WINDOW: Final = 256 * 1024
"""Bytes that the kernel may hold for a connection before the link has taken them."""


class Link:
    """Passes connections on to `target`, a port of 127.0.0.1. Rates are in bytes a second, times in seconds."""

    def __init__(
        self,
        target: int,
        *,
        round_trip: float = 0.0,
        each: float | None = None,
        whole: float | None = None,
        cut_after: int | None = None,
    ) -> None:
        self._target = target
        self._half = round_trip / 2
        self._each = each
        self._whole = whole
        self._cut_after = cut_after
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.up = 0
        """Bytes that went to the server, heads included."""
        self.connections = 0
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> "Link":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                return
            for side in (client, server):
                side.settimeout(None)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        ready = time.monotonic() + 2 * self._half
        with client, server:
            down = threading.Thread(target=self._pass, args=(server, client, 0.0, False), daemon=True)
            down.start()
            self._pass(client, server, ready, True)
            down.join()

    def _pass(self, source: socket.socket, sink: socket.socket, ready: float, paced: bool) -> None:
        """One direction, until it ends. With `paced` it is the way up, which has rates and cuts."""
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = threading.Condition()
        sender = threading.Thread(target=self._deliver, args=(sink, waiting, arrived), daemon=True)
        sender.start()
        free_at = ready
        sent = 0
        piece = b"begin"
        with contextlib.suppress(OSError):
            while piece:
                piece = self._read(source)
                free_at = max(free_at, time.monotonic())
                if paced and piece:
                    free_at = self._depart(free_at, len(piece))
                    if self._closing.wait(max(0.0, free_at - time.monotonic())):
                        piece = b""
                    sent += len(piece)
                with arrived:
                    waiting.append((free_at + self._half, piece))
                    arrived.notify()
                if paced and self._cut_after is not None and sent >= self._cut_after:
                    for side in (source, sink):
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        side.shutdown(socket.SHUT_RDWR)
                    break
        with arrived:
            waiting.append((time.monotonic() + self._half, b""))
            arrived.notify()
        sender.join()

    def _depart(self, free_at: float, size: int) -> float:
        """When the last byte of a piece has left: at the pace of its connection and of the whole link."""
        with self._lock:
            self.up += size
            if self._each is not None:
                free_at += size / self._each
            if self._whole is not None:
                self._free_at = max(self._free_at, time.monotonic()) + size / self._whole
                free_at = max(free_at, self._free_at)
        return free_at

    def _read(self, source: socket.socket) -> bytes:
        while not self._closing.is_set():
            if select.select([source], [], [], 0.2)[0]:
                return source.recv(PIECE)
        return b""

    def _deliver(
        self, sink: socket.socket, waiting: "deque[tuple[float, bytes]]", arrived: threading.Condition
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                with arrived:
                    while not waiting:
                        arrived.wait()
                    due, piece = waiting.popleft()
                if self._closing.wait(max(0.0, due - time.monotonic())) or not piece:
                    break
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
