"""An HTTP server that sends what a test tells it to, byte for byte.

Rule of this file: a request is read, and what the script gives for it is written, piece by piece; then the connection
ends. So a script can say what no honest server says.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.waiting import scaled


@dataclass(frozen=True)
class Asked:
    """A request, and which one it is, from 0 on."""

    number: int
    path: str
    fields: dict[str, str] = field(default_factory=dict)

    def span(self, size: int) -> tuple[int, int] | None:
        """The range that it asks for, of a file of so many bytes; None if it asks for none."""
        said = self.fields.get("range")
        if said is None:
            return None
        first, last = said.removeprefix("bytes=").split("-")
        return int(first), min(size, int(last) + 1) if last else size


Script = Callable[[Asked], Iterable[bytes]]


def head(status: int, *lines: str) -> bytes:
    """The head of an answer that ends its connection."""
    return "\r\n".join([f"HTTP/1.1 {status} Scripted", *lines, "Connection: close", "", ""]).encode()


def good(content: bytes, asked: Asked, *lines: str, etag: str = '"one"') -> list[bytes]:
    """What an honest server answers."""
    span = asked.span(len(content))
    same = asked.fields.get("if-range", etag) == etag
    common = [f"ETag: {etag}", *lines]
    if span is None or not same:
        return [head(200, f"Content-Length: {len(content)}", *common), content]
    start, end = span
    said = f"Content-Range: bytes {start}-{end - 1}/{len(content)}"
    return [head(206, f"Content-Length: {end - start}", said, *common), content[start:end]]


def without_sums(script: Script) -> Script:
    """There is no .sha256 file."""

    def whole(asked: Asked) -> Iterable[bytes]:
        if asked.path.endswith(".sha256"):
            return [head(404, "Content-Length: 0")]
        return script(asked)

    return whole


class Scripted:
    """The server, in threads; `asked` has what came."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self.asked: list[Asked] = []
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Scripted":
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(scaled(10))

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._guard:
            self._open.add(connection)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(connection)
            if self._tls is not None:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            text = b""
            while b"\r\n\r\n" not in text:
                piece = connection.recv(65536)
                if not piece:
                    break
                text += piece
            if text:
                lines = text.decode("latin-1").split("\r\n")
                fields = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:] if line)
                }
                with self._guard:
                    asked = Asked(len(self.asked), lines[0].split(" ")[1], fields)
                    self.asked.append(asked)
                for piece in self.script(asked):
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
        with self._guard:
            self._open.discard(connection)


def ranges(server: Scripted) -> list[str | None]:
    """What ranges it was asked for, but for those of sums."""
    return [each.fields.get("range") for each in server.asked if not each.path.endswith(".sha256")]
