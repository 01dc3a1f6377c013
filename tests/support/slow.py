"""Clients that keep connections open with next to nothing: a byte a second, by the thousand.

Rule of this file: one thread serves all of them, and they come from many addresses of this machine, so that no limit of
connections of one client ends them before they are slow. Whatever the server answers or closes is counted.
"""

import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from tests.support.speaker import Speaker

ADDRESSES: Final = 64
LENGTH: Final = 1_000_000
_SLICES: Final = 20
"""A second is so many turns, in each of which as many of the connections send."""


class SlowClients:
    """`heads` connections that never end a head, and `bodies` that send bytes of uploads: a byte a second each.

    A context manager; entering it blocks until all are connected and have sent what they begin with.
    """

    def __init__(self, url: str, heads: int, bodies: int = 0, addresses: int = ADDRESSES) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, heads + bodies + 1024)), hard))
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port)
        self._heads = heads
        self._addresses = addresses
        self.uploads: list[str] = []
        with Speaker(url) as speaker:
            for _ in range(bodies):
                self.uploads.append(speaker.post(LENGTH)["location"])
        self._open: dict[int, socket.socket] = {}
        self.ended: Counter[str] = Counter()
        """How those ended that are not open any more: the status that they were answered, or `closed`."""
        self.sent = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def open(self) -> int:
        return len(self._open)

    def __enter__(self) -> "SlowClients":
        for number in range(self._heads):
            self._connect(number, b"GET /files/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for number, path in enumerate(self.uploads):
            head = (
                f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {LENGTH}\r\n\r\n"
            )
            self._connect(number, head.encode())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        for each in self._open.values():
            each.close()
        self._open.clear()

    def _connect(self, number: int, begins: bytes) -> None:
        slow = socket.socket()
        slow.bind((f"127.0.1.{1 + number % self._addresses}", 0))
        slow.connect(self._target)
        slow.sendall(begins)
        slow.setblocking(False)
        self._open[slow.fileno()] = slow

    def _run(self) -> None:
        poll = select.epoll()
        for number in self._open:
            poll.register(number, select.EPOLLIN)
        turn, begun = 0, time.monotonic()
        while not self._stopping:
            for number, _ in poll.poll(0):
                poll.unregister(number)
                self._end(number)
            self._send([number for number in self._open if number % _SLICES == turn % _SLICES])
            late = time.monotonic() - begun
            turn = max(turn + 1, int(late * _SLICES))  # what was missed is not caught up with
            time.sleep(max(0.0, turn / _SLICES - late))
        poll.close()

    def _send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            try:
                self.sent += self._open[number].send(b"x")
            except OSError:
                continue  # what it was is read in the next turn

    def _end(self, number: int) -> None:
        ended = self._open.pop(number)
        try:
            answer = ended.recv(65536)
        except OSError:
            answer = b""
        self.ended[answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"] += 1
        ended.close()
