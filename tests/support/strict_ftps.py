"""An FTP server that is as strict about TLS as vsftpd: `with StrictFtps(content, certificate) as server`.

Rule of this file: nobody logs in without AUTH TLS. A data connection has TLS only when a file was asked for, and it
has to go on with the session of the connection for commands, so that nobody else can take it.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.support.waiting import scaled

PLAIN: Final = {
    "USER": "230 Welcome.",
    "PBSZ": "200 None.",
    "PROT": "200 Private.",
    "TYPE": "200 Binary.",
    "MDTM": "213 20250101000000",
}
"""Commands that are always answered alike."""


class StrictFtps:
    """The server, in threads. Whatever is asked for is `content`; `retrieved` counts how often it was."""

    def __init__(self, content: bytes, certificate: Path) -> None:
        self._content = content
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self.retrieved = 0
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "StrictFtps":
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

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    @contextlib.contextmanager
    def _held(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Ended with the server, or the block."""
        with self._guard:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._guard:
                self._open.discard(connection)
            connection.close()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.enter_context(self._held(plain))
            connection, start, secure = plain, 0, False
            data = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            connection.sendall(b"220 Strict.\r\n")
            while True:
                line = _line(connection)
                command, _, word = line.partition(" ")
                if command == "AUTH":
                    connection.sendall(b"234 Go on.\r\n")
                    connection = stack.enter_context(self._held(self._tls.wrap_socket(plain, server_side=True)))
                    secure = True
                    continue
                if not secure:
                    answer = "530 AUTH TLS first."
                elif command == "SIZE":
                    answer = f"213 {len(self._content)}"
                elif command == "REST":
                    start, answer = int(word), "350 Noted."
                elif command == "EPSV":
                    answer = f"229 Here (|||{data.getsockname()[1]}|)"
                elif command == "RETR":
                    answer, start = self._retrieve(connection, data, start), 0
                else:
                    answer = PLAIN.get(command, "502 Unknown.")
                connection.sendall(f"{answer}\r\n".encode())

    def _retrieve(self, connection: socket.socket, listener: socket.socket, start: int) -> str:
        listener.settimeout(scaled(10))
        accepted, _ = listener.accept()
        with self._held(accepted):
            connection.sendall(b"150 Here it comes.\r\n")
            with self._tls.wrap_socket(accepted, server_side=True) as data, self._held(data):
                if not data.session_reused:
                    return "522 The session of the other connection is required."
                with self._guard:
                    self.retrieved += 1
                data.sendall(memoryview(self._content)[start:])
                data.unwrap()
        return "226 Done."


def _line(connection: socket.socket) -> str:
    found = b""
    while not found.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError
        found += byte
    return found.decode().rstrip("\r\n")
