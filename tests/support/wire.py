"""One HTTP/1.1 connection over a plain socket, which may break every rule that a good client keeps.

    Connection      send a head, a part of a body, stall, half-close, reset; read an answer
    Answer          status, fields and body of an answer

Rule of this file: nothing is mended on the way. What the test says is sent, byte for byte, and what came
back is shown; there are no retries here and no redirects.
"""

import json
import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.support.waiting import scaled

Fields = Mapping[str, str] | list[tuple[str, str]] | tuple[()]


class ConnectionLostError(Exception):
    """The server closed or reset the connection before the answer was whole."""


@dataclass(frozen=True)
class Answer:
    """An answer. `fields` keeps every field in order, names in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    before: "list[Answer]" = field(default_factory=list)
    """The 1xx answers that came before it."""

    @property
    def interim(self) -> list[int]:
        """Their statuses."""
        return [answer.status for answer in self.before]

    def __getitem__(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        values = self.all(name)
        assert len(values) == 1, f"{name} is there {len(values)} times in {self}"
        return values[0]

    def get(self, name: str) -> str | None:
        """The value of a field that may be there once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times in {self}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of the problem document, or None if the body is none."""
        if self.get("content-type") != "application/problem+json":
            return None
        code = self.json()["code"]
        assert isinstance(code, str)
        return code

    @property
    def verdict(self) -> tuple[int, str | None]:
        """Status and problem code, to compare in one go."""
        return self.status, self.code

    @property
    def offset(self) -> int:
        """`Upload-Offset`, which must be there."""
        return int(self["upload-offset"])


class Connection:
    """A connection to `url`'s host. Every wait ends after `timeout` seconds (scaled) with TimeoutError.

    `source` is an address of this machine to come from: all of 127.0.0.0/8 are, and each is a client of its own.
    """

    def __init__(
        self, url: str, *, timeout: float = 20.0, receive_buffer: int | None = None, source: str | None = None
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host = f"{parts.hostname}:{parts.port}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(scaled(timeout))
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.connect((parts.hostname, parts.port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.socket.close()
            raise
        self._rest = b""
        self._method = "GET"
        self._asked = False  # an answer is expected

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, method: str, target: str, fields: Fields = ()) -> None:
        """Send a head, with `Host` and the given fields and no others. `target` is a path or a URL."""
        if target.startswith("http://"):
            parts = urlsplit(target)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
        pairs = fields if isinstance(fields, list | tuple) else fields.items()
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", *(f"{k}: {v}" for k, v in pairs)]
        self._method, self._asked = method, True
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes as they are. Raises OSError if the server closed the connection."""
        self.socket.sendall(data)

    def half_close(self) -> None:
        """Say that nothing more will be sent; the answer can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def read(self, method: str | None = None) -> Answer:
        """The answer to the last `begin`, or to a request of this method that was written by hand.

        Raises ConnectionLostError if it does not come whole.
        """
        before: list[Answer] = []
        while True:
            answer = self.read_head()
            if answer.status >= 200 or answer.status == 101:
                break
            before.append(answer)
        self._asked = False
        status, fields = answer.status, answer.fields
        answer = Answer(status, fields, b"", before)
        if (method or self._method) == "HEAD" or status in (101, 204, 304):
            return answer
        return Answer(status, fields, self._read_body(answer), before)

    def read_head(self) -> Answer:
        """The next head, also that of an interim answer, which `read` would read over."""
        return Answer(*self._read_head())

    def request(self, method: str, target: str, fields: Fields = (), body: bytes | None = None) -> Answer:
        """Send a whole request, with `Content-Length` if there is a body and the fields do not say it; read
        the answer.

        A server that answers and closes before it has read the body is heard all the same.
        """
        pairs = [*fields] if isinstance(fields, list | tuple) else [*fields.items()]
        names = {name.lower() for name, _ in pairs}
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            pairs.append(("Content-Length", str(len(body))))
        try:
            self.begin(method, target, pairs)
            if body:
                self.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self.read()

    def readable(self, seconds: float) -> bool:
        """Has something come, or comes within so long?"""
        return bool(self._rest) or bool(select.select([self.socket], [], [], seconds)[0])

    @property
    def stale(self) -> bool:
        """The server has closed this connection, or has sent what nobody asked for."""
        self.socket.setblocking(False)
        try:
            came = self.socket.recv(1, socket.MSG_PEEK)
            return not came or (came == b"H" and not self._asked)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            if self.socket.fileno() >= 0:
                self.socket.settimeout(scaled(20))

    def _more(self) -> bytes:
        try:
            data = self.socket.recv(262144)
        except ConnectionError as error:
            raise ConnectionLostError(str(error)) from error
        if not data:
            raise ConnectionLostError("the connection was closed before the answer was whole")
        return data

    def _read_head(self) -> tuple[int, list[tuple[str, str]]]:
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._more()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return int(first.split()[1]), [(name.lower(), value.strip()) for name, value in pairs]

    def _read_body(self, answer: Answer) -> bytes:
        if answer.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self._line(), 16):
                pieces.append(self._exactly(size))
                self._exactly(2)
            self._exactly(2)
            return b"".join(pieces)
        if (length := answer.get("content-length")) is not None:
            return self._exactly(int(length))
        pieces = [self._rest]
        self._rest = b""
        while True:
            try:
                pieces.append(self._more())
            except ConnectionLostError:
                return b"".join(pieces)

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._rest += self._more()
        line, self._rest = self._rest.split(b"\r\n", 1)
        return line

    def _exactly(self, count: int) -> bytes:
        pieces, have = [self._rest], len(self._rest)
        while have < count:
            pieces.append(self._more())
            have += len(pieces[-1])
        whole = b"".join(pieces)
        self._rest = whole[count:]
        return whole[:count]
