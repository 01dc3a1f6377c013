"""Many who watch, over WebSockets or server-sent events, and what they are told: how much, how late.

Rule of this file: the one who watches is also the one from whom the server hears what there is to tell, in datagrams
that carry the time at which they left; so a delay is from there to the last byte that arrives, by one clock. A frame is
found by that time in it and not read otherwise.
"""

import contextlib
import json
import re
import resource
import select
import socket
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.load.wire import RefusedError

PIECE: Final = 256 * 1024
QUIET: Final = 0.3
"""Seconds without a byte after which everybody has been greeted."""
GRACE: Final = 2.0
"""Seconds after the last message for which its deliveries count; never longer than messages were told."""
_TIME: Final = re.compile(rb'"arriving":(\d{10,})')
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


class _Told:
    """Deliveries of what was sent, each once to each subscriber: of an upload that has stopped a server tells once
    more, with the time of its last move, and in sums times are added up.
    """

    def __init__(self, subscribers: int) -> None:
        self._subscribers = subscribers
        self._owed: dict[int, int] = {}
        self.times: list[float] = []
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def expect(self, sent: int) -> None:
        """A message goes out, with this time in it."""
        self._owed[sent] = self._subscribers

    def take(self, piece: bytes) -> None:
        now = time.monotonic_ns()
        for text in _TIME.findall(piece):
            sent = int(text)
            if not self._owed.get(sent):
                continue
            self._owed[sent] -= 1
            self.times.append((now - sent) / 1e9)
            self.first.setdefault(sent, now)
            self.last[sent] = now


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
    its last, in seconds.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        by_number: dict[int, socket.socket] = {}
        poll = select.epoll()
        for _ in range(count):
            each = stack.enter_context(_connect(port, target, stream))
            by_number[each.fileno()] = each
            poll.register(each.fileno(), select.EPOLLIN)
        told = _Told(count)

        def receive(patience: float) -> bool:
            events = poll.poll(max(0.0, patience), 64)
            for number, _ in events:
                piece = by_number[number].recv(PIECE)
                if not piece:
                    raise RefusedError("the server has closed a connection")
                told.take(piece)
            return bool(events)

        while receive(QUIET):
            pass
        if not rate:
            print(json.dumps({"ready": count}), flush=True)
            while not select.select([0], [], [], 0)[0]:
                receive(0.2)
            return {"seconds": seconds}
        feed = _Feed(port, folder)
        messages = round(rate * seconds)
        told = _Told(count)
        began = time.monotonic()
        sent = 0
        while sent < messages or (
            len(told.times) < messages * count and time.monotonic() - began < seconds + min(GRACE, seconds)
        ):
            now = time.monotonic() - began
            while sent < messages and sent / rate <= now:
                stamp = time.monotonic_ns()
                told.expect(stamp)
                feed.tell(uploads[sent % len(uploads)], stamp)
                sent += 1
                receive(0)
            receive(sent / rate - now if sent < messages else 0.05)
        took = time.monotonic() - began
    spread = [(told.last[each] - told.first[each]) / 1e9 for each in told.first]
    step = max(1, len(told.times) // 20_000)
    delivered = len(told.times)
    return {
        "seconds": took,
        "delivered": delivered,
        "missing": messages * count - delivered,
        "times": sorted(told.times)[::step],
        "spread": spread,
    }
