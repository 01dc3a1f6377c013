"""Many who watch, over WebSockets or server-sent events, and what they are told: how much, how late.

Rule of this file: the one who watches is also the one from whom the server hears what there is to tell, in datagrams
that carry the time at which they were due; so a delay is from there to the last byte that arrives, by one clock. It has
to cost less than what it measures: all are told the same, so a frame is read once, by the first to whom it comes, and
what comes to the others is compared with it, as bytes. Whoever is told something else is read by itself from there on.
"""

import bisect
import contextlib
import gc
import json
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.load.wire import RefusedError

PIECE: Final = 64 * 1024
MOST_AT_ONCE: Final = 256
NAP: Final = 0.0003
"""Seconds between two looks at who was told something: a server pays for each time that it wakes somebody who waits. By
so much a delay may be told too long."""
QUIET: Final = 0.3
"""Seconds without a byte after which everybody has been greeted."""
GRACE: Final = 2.0
"""Seconds after the last message for which its deliveries count; never longer than messages were told."""
_FRAME: Final = re.compile(rb'"arriving":(\d{10,}),[^}]*\}\}')
"""From the time to the end of the frame."""
_UPGRADE: Final = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def _connect(port: int, target: str, stream: bool) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{'' if stream else _UPGRADE}\r\n".encode())
    head = made.recv(4096)
    if not head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
        raise RefusedError(head.decode(errors="replace")[:300])
    made.setblocking(False)
    return made


class _Feed:
    """Tells the server of moves, as another process of it does. `folder` has the sockets of ours; others take UDP."""

    def __init__(self, port: int, folder: str | None) -> None:
        family = socket.AF_INET if folder is None else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._addresses: list[Any] = [("127.0.0.1", port)]
        if folder is not None:
            self._addresses = [str(path) for path in Path(folder).glob("*.sock")]

    def tell(self, upload: str, sent: int) -> None:
        told = {"from": "load", "moves": [[upload, 0, sent, None]]}
        for address in self._addresses:
            self._socket.sendto(json.dumps(told).encode(), address)


class Stream:
    """What came over a connection, or over several that were all told the same, behind the greeting.

    Of an upload that has stopped a server tells once more, with the time of its last move, and in sums times are added
    up: neither is counted.
    """

    def __init__(self, sent: set[int]) -> None:
        self.data = bytearray()
        self.ends: list[int] = []
        """Where each frame ends in the data, ascending..."""
        self.times: list[int] = []
        """...and the time in it."""
        self._sent = sent
        self._seen: set[int] = set()
        self._read = 0

    def add(self, piece: bytes) -> None:
        self.data += piece
        for found in _FRAME.finditer(self.data, self._read):
            self._read = found.end()
            due = int(found[1])
            if due in self._sent and due not in self._seen:
                self._seen.add(due)
                self.ends.append(self._read)
                self.times.append(due)

    def branch(self, position: int) -> "Stream":
        """One that has been the same up to there. Its data begin behind the last frame that was."""
        there = bisect.bisect_right(self.ends, position)
        found = Stream(self._sent)
        found._seen.update(self.times[:there])
        found.add(bytes(self.data[self.ends[there - 1] if there else 0 : position]))
        return found


class Reader:
    """One connection, and how far it was told."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made

    def follow(self, stream: Stream) -> None:
        self._stream = stream
        self._position = self._told = 0

    def take(self, piece: bytes) -> tuple[Stream, int, int]:
        """Which frames of which stream have come with it."""
        stream, position = self._stream, self._position
        if not stream.data.startswith(piece, position):
            more = len(stream.data) - position
            if not piece.startswith(stream.data[position:]):
                stream, more = stream.branch(position), 0
                self.follow(stream)
                position = len(stream.data)
            stream.add(piece[more:])
        self._position = position + len(piece)
        before = self._told
        self._told = bisect.bisect_right(stream.ends, self._position, before)
        return stream, before, self._told


def watchers(
    port: int,
    target: str,
    stream: bool,
    count: int,
    rate: float,
    seconds: float,
    uploads: list[str],
    folder: str | None,
) -> dict[str, object]:
    """`count` connections that watch while `rate` messages a second are told, for so long. With no rate they only are
    there, until standard input ends.

    `times` are the delays of a sample of all deliveries, `spread` for each message the time from its first delivery to
    its last, in seconds; `busy` is how much of one core this has used meanwhile, from 0 to 1.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        readers: dict[int, Reader] = {}
        poll = select.epoll()
        for _ in range(count):
            each = stack.enter_context(_connect(port, target, stream))
            readers[each.fileno()] = Reader(each)
            poll.register(each.fileno(), select.EPOLLIN)

        def received(patience: float) -> Iterator[tuple[Reader, bytes]]:
            for number, _ in poll.poll(max(0.0, patience), MOST_AT_ONCE):
                reader = readers[number]
                piece = reader.socket.recv(PIECE)
                if not piece:
                    raise RefusedError("the server has closed a connection")
                yield reader, piece

        while any(True for _ in received(QUIET)):
            pass
        if not rate:
            print(json.dumps({"ready": count}), flush=True)
            while not select.select([0], [], [], 0)[0]:
                for _ in received(0.2):
                    pass
            return {"seconds": seconds}
        gc.disable()
        feed = _Feed(port, folder)
        messages = round(rate * seconds)
        sent: list[int] = []
        owed: set[int] = set()
        common = Stream(owed)
        for reader in readers.values():
            reader.follow(common)
        told: list[tuple[int, Stream, int, int]] = []
        delivered = 0
        busy = time.process_time()
        began = now = time.monotonic_ns()
        end = began + round(1e9 * (seconds + min(GRACE, seconds)))
        while len(sent) < messages or (delivered < messages * count and now < end):
            due = began + round(1e9 * len(sent) / rate)
            if len(sent) < messages and due <= now:
                owed.add(due)
                feed.tell(uploads[len(sent) % len(uploads)], due)
                sent.append(due)
                patience = 0.0
            else:
                patience = (due - now) / 1e9 - NAP if len(sent) < messages else 0.05
            for reader, piece in received(patience):
                now = time.monotonic_ns()
                came, before, after = reader.take(piece)
                if after > before:
                    told.append((now, came, before, after))
                    delivered += after - before
            time.sleep(NAP)
            now = time.monotonic_ns()
        took = (now - began) / 1e9
        busy = time.process_time() - busy
    times: list[float] = []
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, came, before, after in told:
        for due in came.times[before:after]:
            times.append((at - due) / 1e9)
            first.setdefault(due, at)
            last[due] = at
    step = max(1, len(times) // 20_000)
    return {
        "seconds": took,
        "delivered": delivered,
        "missing": messages * count - delivered,
        "times": sorted(times)[::step],
        "spread": [(last[each] - first[each]) / 1e9 for each in first],
        "busy": busy / took,
    }
