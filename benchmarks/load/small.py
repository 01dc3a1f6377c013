"""Small requests: many small files from several clients, and one client that asks again and again.

Rule of this file: one thread serves all clients through epoll, with one send and as few reads as can be for a request,
so that on a small machine the server gets most of the time.
"""

import os
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.wire import Connection, RefusedError

_LOCATION = re.compile(rb"\r\nlocation: *(?:https?://[^/\r]+)?(/[^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Client:
    """One connection that uploads one small file after the other."""

    def __init__(
        self, port: int, collection: str, way: str, size: int, fields: list[str], name: int, common: Sequence[str]
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = "".join(f"{line}\r\n" for line in (f"Host: 127.0.0.1:{port}", *common))
        self._body = bytes(index % 251 for index in range(size))
        self._way = way
        self._name = f"{collection}{name}-"
        self._data = b""
        self._patching = False
        self.done = 0
        more = "".join(f"{line}\r\n" for line in fields)
        tus = f"POST {collection} HTTP/1.1\r\n{self._host}Tus-Resumable: 1.0.0\r\nUpload-Length: {size}\r\n{more}"
        if way == "two":
            self._first = f"{tus}Content-Length: 0\r\n\r\n".encode()
        else:
            typed = "Content-Type: application/offset+octet-stream\r\n"
            self._first = f"{tus}{typed}Content-Length: {size}\r\n\r\n".encode() + self._body
        self._rest = (
            f" HTTP/1.1\r\n{self._host}Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {size}\r\n\r\n"
        ).encode() + self._body

    def begin(self) -> None:
        """Send the first request of the next file."""
        if self._way == "put":
            head = f"PUT {self._name}{self.done} HTTP/1.1\r\n{self._host}Content-Length: {len(self._body)}\r\n\r\n"
            self.socket.sendall(head.encode() + self._body)
        else:
            self.socket.sendall(self._first)

    def read(self) -> bool:
        """Take what came; True when a file is complete."""
        piece = self.socket.recv(65536)
        if not piece:
            raise RefusedError(f"the connection was closed after {self._data!r}")
        self._data += piece
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or not self._whole(head, body):
            return False
        self._data = b""
        status = int(head[9:12])
        if status not in (201, 204):
            raise RefusedError(f"answered {status}: {head.decode('latin-1')} {body[:300]!r}")
        if self._way == "two" and not self._patching:
            location = _LOCATION.search(head)
            if location is None:
                raise RefusedError(f"no Location: {head.decode('latin-1')}")
            self.socket.sendall(b"PATCH " + location[1] + self._rest)
            self._patching = True
            return False
        if self._way == "one" and f"upload-offset: {len(self._body)}".encode() not in head.lower():
            raise RefusedError(f"the body was not stored: {head.decode('latin-1')}")
        self._patching = False
        self.done += 1
        return True

    @staticmethod
    def _whole(head: bytes, body: bytes) -> bool:
        if head[9:12] == b"204":
            return True
        if b"chunked" in head.lower():
            return body.endswith(b"0\r\n\r\n")
        length = _LENGTH.search(head)
        return len(body) >= (int(length[1]) if length else 0)


def files(
    port: int,
    collection: str,
    way: str,
    size: int,
    clients: int,
    limit: float,
    most: int,
    fields: list[str],
    common: Sequence[str] = (),
) -> dict[str, float]:
    """Files of `size` bytes from `clients` connections for `limit` seconds, or until there are `most`.

    `way` is `two` (creation and PATCH), `one` (creation with the content) or `put`. What has begun is brought to its
    end and counted; the clock stops at the last answer.
    """
    each = [_Client(port, collection, way, size, fields, index, common) for index in range(clients)]
    poll = select.epoll()
    by_number = {client.socket.fileno(): client for client in each}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    began = time.perf_counter()
    for client in each:
        client.begin()
    open_, begun, done = clients, clients, 0
    while open_:
        events = poll.poll(60)
        if not events:
            raise RefusedError("nothing was answered for a minute")
        late = time.perf_counter() - began > limit
        for number, _ in events:
            client = by_number[number]
            if client.read():
                done += 1
                if late or begun >= most:
                    open_ -= 1
                    poll.unregister(number)
                else:
                    begun += 1
                    client.begin()
    seconds = time.perf_counter() - began
    for client in each:
        client.socket.close()
    return {"seconds": seconds, "files": float(done)}


def heads(port: int, target: str, pause: float) -> dict[str, object]:
    """HEAD on one upload over one connection, with pauses, until standard input ends, and once at least; each time in
    seconds.
    """
    times: list[float] = []
    with Connection(port) as connection:
        while not times or not select.select([sys.stdin], [], [], pause)[0]:
            began = time.perf_counter()
            connection.tus("HEAD", target).expect(200)
            times.append(time.perf_counter() - began)
    return {"seconds": sum(times), "times": times}


def press(path: str, size: int) -> dict[str, object]:
    """Write `size` bytes to a file and force them to the disk, again and again, until standard input ends."""
    block = os.urandom(size)
    times: list[float] = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while not select.select([sys.stdin], [], [], 0)[0]:
            began = time.perf_counter()
            os.pwrite(file, block, 0)
            os.fdatasync(file)
            times.append(time.perf_counter() - began)
    finally:
        os.close(file)
        Path(path).unlink()
    return {"seconds": sum(times), "times": times}


def requests(port: int, method: str, target: str, count: int) -> dict[str, object]:
    """The same request so many times over one connection; each time in seconds, and the bytes of the last body."""
    times: list[float] = []
    size = 0
    with Connection(port) as connection:
        for _ in range(count):
            began = time.perf_counter()
            size = len(connection.tus(method, target).expect(200).body)
            times.append(time.perf_counter() - began)
    return {"seconds": sum(times), "times": times, "bytes": size}
