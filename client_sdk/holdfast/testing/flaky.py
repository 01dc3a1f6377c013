"""A relay before a server, that does to connections what bad networks and busy servers do.

Rule of this file: each new connection takes the next fault of the plan; when the plan is used up, connections are left
alone. Bytes are passed on in order and unchanged until the fault strikes.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

_PIECE: Final = 64 * 1024
_HEAD: Final = 64 * 1024


class Pass(Struct, frozen=True):
    """Leave this connection alone."""


class Cut(Struct, frozen=True):
    """End the connection after so many bytes of the client, heads included."""

    after: int = 0


class Stall(Struct, frozen=True):
    """After so many bytes of the client pass nothing on any more, and end the connection `seconds` later."""

    after: int = 0
    seconds: float = 60.0


class Answer(Struct, frozen=True):
    """Answer the first request in the server's place, with nothing but a status and perhaps Retry-After (seconds)."""

    status: int = 503
    retry_after: int | None = None


Fault: TypeAlias = Pass | Cut | Stall | Answer


class FlakyTransport:
    """Relays connections on the loopback to the server at the URL `target`; used with `with`. `url` is its own.

    The path of `target` is kept, so that `FlakyTransport(server.files, [...]).url` can be given for `to=`.
    """

    def __init__(self, target: str, plan: Iterable[Fault] = ()) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._plan = iter(plan)
        self.taken: list[Fault] = []
        """The faults that connections have taken so far."""
        self._guard = threading.Lock()
        self._leaving = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url: str = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"

    def __enter__(self) -> "FlakyTransport":
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for each in self._sockets:
                _shut(each)
        for thread in tuple(self._threads):
            thread.join(10)

    def _begin(self, work: Callable[..., None], *said: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=said, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._leaving.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._guard:
                fault = next(self._plan, Pass())
                self.taken.append(fault)
            self._begin(self._serve, client, fault)

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with contextlib.suppress(OSError), client:
            if isinstance(fault, Answer):
                _answer(client, fault)
                return
            with socket.create_connection(self._target, timeout=10) as server:
                server.settimeout(None)
                with self._guard:
                    self._sockets |= {client, server}
                down = self._begin(_pass_on, server, client)
                try:
                    _pass_on(client, server, None if isinstance(fault, Pass) else fault.after)
                    if isinstance(fault, Stall):
                        self._leaving.wait(fault.seconds)
                finally:
                    if not isinstance(fault, Pass):
                        _shut(client)
                        _shut(server)
                    down.join()
                    with self._guard:
                        self._sockets -= {client, server}


def _pass_on(here: socket.socket, there: socket.socket, most: int | None = None) -> None:
    """Bytes from here to there: all, or so many."""
    passed = 0
    with contextlib.suppress(OSError):
        while most is None or passed < most:
            piece = here.recv(_PIECE if most is None else min(_PIECE, most - passed))
            if not piece:
                there.shutdown(socket.SHUT_WR)
                return
            there.sendall(piece)
            passed += len(piece)


def _answer(client: socket.socket, fault: Answer) -> None:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD:
        piece = client.recv(_PIECE)
        if not piece:
            return
        head += piece
    fields = ["Content-Length: 0", "Connection: close"]
    if fault.retry_after is not None:
        fields.append(f"Retry-After: {fault.retry_after}")
    client.sendall("\r\n".join([f"HTTP/1.1 {fault.status} As planned", *fields, "", ""]).encode())
    # What is still coming must not turn the end of the connection into a reset that eats the answer.
    client.shutdown(socket.SHUT_WR)
    client.settimeout(5)
    while client.recv(_PIECE):
        pass


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
