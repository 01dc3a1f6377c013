"""How fast bytes come in: one stream and eight streams of tus, each one creation and one PATCH.

The load comes from raw sockets and sendfile, so that the client costs next to nothing and what is measured is the
server. No checksums are sent, as tus sends none by default. Holdfast runs with the durability `os`, which promises
what tusd's file store promises (nothing is synced), and with `ack`, its default, beside it.

Rule of this file: a measurement counts only after the server has said the full offset for every stream, and the files
of the right length, with blocks behind them, have been found in its data folder.
"""

import os
import re
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import MIB, Peer, Report, Running, holdfast_peers, interleave, measured, running, tusd_peer

STREAMS = (1, 8)
TIMEOUT = 120
"""Seconds that a socket may stand still."""


class Stream:
    """One tus upload over one connection, from a part of an open file."""

    def __init__(self, server: Running, source: int, offset: int, length: int) -> None:
        self._server = server
        self._source = source
        self._offset = offset
        self._length = length
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel keeps the time, because sendfile needs a socket that blocks.
        for side in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", TIMEOUT, 0))
        self.error: Exception | None = None

    def run(self) -> None:
        """Create, send, close. What goes wrong is kept in `error`."""
        try:
            with self._socket:
                location = self._create()
                self._send(location)
        except Exception as error:
            self.error = error

    def _create(self) -> str:
        self._head("POST", self._server.peer.collection, f"Upload-Length: {self._length}", "Content-Length: 0")
        status, head = self._answer()
        found = re.search(r"^location: *(?:https?://[^/]+)?(/\S+)", head, re.MULTILINE | re.IGNORECASE)
        if status != 201 or not found:
            raise RuntimeError(f"the creation was answered {status}:\n{head}")
        return found[1]

    def _send(self, location: str) -> None:
        self._head(
            "PATCH",
            location,
            "Upload-Offset: 0",
            "Content-Type: application/offset+octet-stream",
            f"Content-Length: {self._length}",
        )
        sent = 0
        while sent < self._length:
            want = min(self._length - sent, 4 * MIB)
            sent += os.sendfile(self._socket.fileno(), self._source, self._offset + sent, want)
        status, head = self._answer()
        found = re.search(r"^upload-offset: *(\d+)", head, re.MULTILINE | re.IGNORECASE)
        if status != 204 or not found or int(found[1]) != self._length:
            raise RuntimeError(f"the PATCH was answered {status}:\n{head}")

    def _head(self, method: str, target: str, *fields: str) -> None:
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self._server.port}", "Tus-Resumable: 1.0.0", *fields]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def _answer(self) -> tuple[int, str]:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"the connection was closed after {data!r}")
            data += piece
        head = data.decode("latin-1").replace("\r\n", "\n")
        return int(head.split()[1]), head


def check_stored(data: Path, count: int, length: int) -> None:
    """Raises RuntimeError unless there are `count` files of `length` bytes in `data`, none of them with holes."""
    found = 0
    for path in data.rglob("*"):
        if path.is_file():
            status = path.stat()
            found += status.st_size == length and status.st_blocks * 512 >= length
    if found != count:
        raise RuntimeError(f"{found} files of {length} bytes are stored, not {count}")


def upload(server: Running, source: int, streams: int, size: int) -> None:
    """Send `size` bytes in all over `streams` connections at once, and wait for the last answer."""
    length = size // streams
    each = [Stream(server, source, index * length, length) for index in range(streams)]
    threads = [threading.Thread(target=stream.run) for stream in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in each:
        if stream.error is not None:
            raise RuntimeError(f"{server.peer.name}: {stream.error}") from stream.error


def make_source(folder: Path, size: int) -> Path:
    """A file of random bytes, read once so that it is in the page cache."""
    source = folder / "source"
    block = os.urandom(4 * MIB)
    with source.open("wb") as file:
        for written in range(0, size, len(block)):
            file.write(block[: min(len(block), size - written)])
    return source


def run(size: int, rounds: int, folder: Path) -> Report:
    """Measure. Blocks; needs room for three times `size` bytes in `folder`."""
    size -= size % (max(STREAMS) * 4096)
    tusd = tusd_peer()
    peers: Sequence[Peer] = [*([tusd] if tusd else []), *holdfast_peers()]
    alone = "" if tusd else " There is no tusd on the PATH or in $TUSD, so there is nobody to compare with."
    report = Report(
        scenario="ingest",
        note=f"{size / MIB:g} MiB in all, one tus upload a stream, raw sockets with sendfile over loopback.{alone}",
        peers=[peer.name for peer in peers],
        volume=size,
    )
    cases = {f"{streams} stream{'s' * (streams > 1)}": streams for streams in STREAMS}
    source = os.open(make_source(folder, size), os.O_RDONLY)
    try:
        for case, peer in interleave(rounds, peers, list(cases)):
            with running(peer, folder) as server:
                with measured(server, report.of(case, peer.name)):
                    upload(server, source, cases[case], size)
                check_stored(server.data, cases[case], size // cases[case])
    finally:
        os.close(source)
    return report
