"""One HTTP/1.1 connection over a raw socket, as little of it as a load needs.

Rule of this file: an answer is read to its end, so that the connection can be used again, and no wait is longer than
TIMEOUT.
"""

import os
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TIMEOUT: Final = 120
"""Seconds that a socket may stand still."""
PIECE: Final = 4 * 1024 * 1024
"""Bytes that sendfile is asked to send at once."""


class RefusedError(Exception):
    """The server did not answer as it should; the message has the answer."""


@dataclass(frozen=True)
class Segment:
    """A part of an open file."""

    file: int
    offset: int
    length: int


@dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: bytes = b""

    def field(self, name: str) -> str | None:
        found = re.search(rf"^{name}: *(.*?) *$", self.head, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else None

    @property
    def location(self) -> str:
        """The path of `Location`. Raises RefusedError if there is none."""
        value = self.field("location")
        if value is None:
            raise RefusedError(f"no Location: {self.head}")
        return re.sub(r"^https?://[^/]+", "", value)

    def expect(self, *statuses: int) -> "Answer":
        """Itself. Raises RefusedError if the status is none of these."""
        if self.status not in statuses:
            raise RefusedError(f"answered {self.status}: {self.head.strip()} {self.body[:300]!r}")
        return self


class Connection:
    """To a port of 127.0.0.1; `common` are lines that go with every request."""

    def __init__(self, port: int, common: Sequence[str] = ()) -> None:
        self._common = tuple(common)
        self._host = f"127.0.0.1:{port}"
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel keeps the time, because sendfile needs a socket that blocks.
        for side in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", TIMEOUT, 0))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, method: str, target: str, *fields: str, body: Segment | bytes = b"") -> Answer:
        """Send a request and read its answer, with its body. Blocks."""
        length = body.length if isinstance(body, Segment) else len(body)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", *self._common, *fields]
        if length or method in ("POST", "PATCH", "PUT"):
            lines.append(f"Content-Length: {length}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if isinstance(body, bytes):
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head, socket.MSG_MORE)
            self._send_file(body)
        return self._answer(bodiless=method == "HEAD")

    def tus(self, method: str, target: str, *fields: str, body: Segment | bytes = b"") -> Answer:
        return self.request(method, target, "Tus-Resumable: 1.0.0", *fields, body=body)

    def patch(self, target: str, offset: int, body: Segment) -> None:
        """One PATCH of tus. Raises RefusedError unless all of it is acknowledged."""
        fields = (f"Upload-Offset: {offset}", "Content-Type: application/offset+octet-stream")
        answer = self.tus("PATCH", target, *fields, body=body).expect(204)
        if answer.field("upload-offset") != str(offset + body.length):
            raise RefusedError(f"not all was taken: {answer.head}")

    def begin_patch(self, target: str, body: Segment, sent: int) -> None:
        """The head of a PATCH at offset 0 with this body, and the first `sent` bytes of it. No answer is waited for."""
        fields = ("Upload-Offset: 0", "Content-Type: application/offset+octet-stream", "Tus-Resumable: 1.0.0")
        lines = [f"PATCH {target} HTTP/1.1", f"Host: {self._host}", *fields, f"Content-Length: {body.length}", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        self._send_file(Segment(body.file, body.offset, sent))

    def discard(self, target: str, *fields: str) -> int:
        """GET, and throw the body away unread; how many bytes it had."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host}", *fields, "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        answer, rest = self._head()
        answer.expect(200, 206)
        length = int(answer.field("content-length") or -1)
        if length < 0:
            raise RefusedError(f"no Content-Length: {answer.head}")
        left = length - len(rest)
        room = bytearray(PIECE)
        while left:
            count = self._socket.recv_into(room, min(left, PIECE), socket.MSG_TRUNC)
            if not count:
                raise RefusedError(f"closed with {left} bytes to come")
            left -= count
        return length

    def _send_file(self, body: Segment) -> None:
        sent = 0
        while sent < body.length:
            want = min(body.length - sent, PIECE)
            sent += os.sendfile(self._socket.fileno(), body.file, body.offset + sent, want)

    def _head(self) -> tuple[Answer, bytes]:
        """The next final head, and what came behind it."""
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                data += self._more(data)
            head, _, data = data.partition(b"\r\n\r\n")
            answer = Answer(int(head[9:12]), head.decode("latin-1").replace("\r\n", "\n"))
            if answer.status >= 200:
                return answer, data

    def _answer(self, *, bodiless: bool) -> Answer:
        answer, data = self._head()
        if bodiless or answer.status in (204, 304):
            return answer
        if "chunked" in (answer.field("transfer-encoding") or "").lower():
            while not data.endswith(b"0\r\n\r\n"):
                data += self._more(data)
        else:
            while len(data) < int(answer.field("content-length") or 0):
                data += self._more(data)
        return Answer(answer.status, answer.head, data)

    def _more(self, data: bytes) -> bytes:
        piece = self._socket.recv(65536)
        if not piece:
            raise RefusedError(f"the connection was closed after {data[-300:]!r}")
        return piece
