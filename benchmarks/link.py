"""A link: a proxy on loopback, in a process of its own, that does what paths through a network do.

    Conditions    what the link is like: delay, rates, cuts, stalls, what it refuses
    Link          the process; its conditions may change while it runs
    _Road         one direction of one connection, in that process
    _Switch       the loop of that process

Rule of this file: bytes are passed on in order and unchanged. What goes up (or, for downloads, what comes down) leaves
at the pace of the link and arrives half a round trip later; the delay takes nothing from the rate, because what is on
its way is kept beside. A connection takes a round trip to be made. Nothing is lost and nothing starts slowly: it is no
model of TCP, but of a path where one connection does not get all there is. What is refused is answered by the link in
HTTP and never reaches the server.
"""

import contextlib
import heapq
import itertools
import json
import random
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACE: Final = 0.005
"""Seconds of the rate that leave in one piece,"""
SMALLEST, LARGEST = 4 * 1024, 128 * 1024
"""within these."""
LATE: Final = 0.1
"""Seconds by which the loop may be late without the link losing any of its rate."""
WINDOW: Final = 256 * 1024
"""Bytes that the kernel may hold for a connection before the link has taken them."""
AHEAD: Final = 8 * 1024 * 1024
"""Bytes on their way in one direction of a connection, at most."""
HEAD: Final = 64 * 1024
LINGER: Final = 30.0
"""Seconds for which the rest of a refused request is thrown away before the connection ends."""
START_LIMIT: Final = 10.0
STALL_STEP: Final = 1024 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_FINAL: Final = re.compile(rb"HTTP/1\.1 [2-5]")


@dataclass(frozen=True)
class Conditions:
    """What a link is like. Rates: bytes a second in the direction with a pace; times in seconds, sizes in bytes."""

    round_trip: float = 0.0
    each: float | None = None
    """The rate of one connection."""
    whole: float | None = None
    """The rate of all connections together."""
    cut_after: int | None = None
    """Every connection is reset after so many bytes."""
    stalls: float = 0.0
    """The probability, for each MiB of each connection, that it stands still"""
    stall_time: float = 5.0
    """for so long."""
    most: int | None = None
    """Requests at once; one more is answered 429."""
    largest: int | None = None
    """The largest body; a larger one is answered 413."""
    answer: int | None = None
    """Every request is answered with this status."""


class Link:
    """Passes connections on to `target`, a port of 127.0.0.1. `then` says what it is like so many seconds after the
    first byte. With `down` it is the way from server to client that has the pace, and not the other one. The counts are
    known when the block has ended.
    """

    def __init__(
        self,
        target: int,
        conditions: Conditions | None = None,
        then: Sequence[tuple[float, Conditions]] = (),
        *,
        down: bool = False,
        seed: int = 0,
    ) -> None:
        job = {
            "down": down,
            "target": target,
            "conditions": asdict(conditions or Conditions()),
            "then": [(after, asdict(each)) for after, each in then],
            "seed": seed,
        }
        self.up = 0
        """Bytes that went to the server, heads included."""
        self.down = 0
        """Bytes that came from it, heads included."""
        self.connections = 0
        self.at_once = 0
        """The most connections that the client had at the same time."""
        self.refused = 0
        """Requests that the link answered itself."""
        self.seconds = 0.0
        """From the first connection to the last byte in any direction."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self._say(job)
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_LIMIT)[0]:
            self._process.kill()
            raise TimeoutError(f"the link did not start within {START_LIMIT:g} s")
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> "Link":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def change(self, conditions: Conditions) -> None:
        """From now on it is like this, also for connections that are there. Returns at once."""
        self._say(asdict(conditions))

    def close(self) -> None:
        """End all connections and the process; blocks for some moments."""
        if self._process.poll() is not None:
            return
        try:
            told, _ = self._process.communicate(timeout=START_LIMIT)
            counts = json.loads(told.splitlines()[-1])
            self.up, self.down = counts["up"], counts["down"]
            self.connections, self.refused = counts["connections"], counts["refused"]
            self.at_once = counts["at_once"]
            self.seconds = counts["seconds"]
        finally:
            self._process.kill()
            self._process.wait()

    def _say(self, words: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()


class _Road:
    """One direction of one connection: from `source` to `sink`, perhaps `paced`."""

    def __init__(self, line: "_Line", source: socket.socket, sink: socket.socket, *, paced: bool) -> None:
        self.line = line
        self.source = source
        self.sink = sink
        self.paced = paced
        self.free_at = 0.0
        self.sent = 0
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued = 0
        self.resting = False
        """It reads nothing until a timer says so."""
        self.blocked = False
        """The sink takes no more."""
        self.ended = False
        """The source has ended."""
        self.finished = False
        """The sink knows that, too."""


class _Line:
    """A connection: both roads, and where its client is in HTTP."""

    def __init__(self, client: socket.socket, server: socket.socket, *, down: bool) -> None:
        self.client, self.server = client, server
        self.up = _Road(self, client, server, paced=not down)
        self.down = _Road(self, server, client, paced=down)
        self.head = b""
        self.body = 0
        """Bytes of the body that are still to come; -1: it goes on to the end of the connection."""
        self.counted = 0
        """Bytes of the body that came."""
        self.active = False
        """A request of it is with the server."""
        self.refusing = False
        self.closed = False


class _Switch:
    """The loop: sockets that are ready, and timers."""

    def __init__(self, job: dict[str, Any], orders: BinaryIO) -> None:
        self._target = ("127.0.0.1", int(job["target"]))
        self._is = Conditions(**job["conditions"])
        self._then = [(float(after), Conditions(**each)) for after, each in job["then"]]
        self._random = random.Random(job["seed"])
        self._down = bool(job["down"])
        self._orders = orders
        self._poll = select.epoll()
        self._roads: dict[int, _Road] = {}
        """By the number of their source."""
        self._masks: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._active = 0
        self._free_at = 0.0
        self._began: float | None = None
        self.counts: dict[str, float] = {
            "up": 0,
            "down": 0,
            "connections": 0,
            "at_once": 0,
            "refused": 0,
            "seconds": 0.0,
        }
        self._open = 0
        """Connections that the client has not ended."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Until there are no more orders."""
        orders = self._orders.fileno()
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._poll.register(orders, select.EPOLLIN)
        while True:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            # Who is new comes last: those that have ended in the meantime are not there at the same time.
            for number, mask in sorted(self._poll.poll(wait), key=lambda each: each[0] == self._listener.fileno()):
                if number == orders:
                    line = self._orders.readline()
                    if not line:
                        return
                    self._is = Conditions(**json.loads(line))
                elif number == self._listener.fileno():
                    self._accept()
                elif (road := self._roads.get(number)) is not None:
                    self._ready(road, mask)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    def _at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (moment, next(self._count), what))

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            _reset(client)
            return
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._began = self._began or time.monotonic()
        self.counts["connections"] += 1
        self._open += 1
        self.counts["at_once"] = max(self.counts["at_once"], self._open)
        line = _Line(client, server, down=self._down)
        for road in (line.up, line.down):
            self._roads[road.source.fileno()] = road
        self._rest(line.up, time.monotonic() + self._is.round_trip)
        self._watch(line)

    def _watch(self, line: _Line) -> None:
        """Have the kernel tell of what is waited for, and of nothing else."""
        if line.closed:
            return
        for road, back in ((line.up, line.down), (line.down, line.up)):
            full = road.resting or road.ended or road.queued > AHEAD
            mask = (0 if full else select.EPOLLIN) | (select.EPOLLOUT if back.blocked else 0)
            number = road.source.fileno()
            before = self._masks.get(number)
            if before == mask:
                continue
            if not mask:
                if before is not None:
                    self._poll.unregister(number)
                    del self._masks[number]
                continue
            (self._poll.register if before is None else self._poll.modify)(number, mask)
            self._masks[number] = mask

    def _ready(self, road: _Road, mask: int) -> None:
        line = road.line
        back = line.down if road is line.up else line.up
        if mask & select.EPOLLOUT and back.blocked:
            back.blocked = False
            self._deliver(back)
        if not line.closed and mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(road)
        self._watch(line)

    def _rest(self, road: _Road, until: float) -> None:
        road.resting = True

        def wake() -> None:
            road.resting = False
            self._watch(road.line)

        self._at(until, wake)

    def _read(self, road: _Road) -> None:
        if road.resting or road.ended:
            return
        size = LARGEST
        rates = [rate for rate in (self._is.each, self._is.whole) if rate is not None]
        if road.paced and rates:
            size = int(min(max(min(rates) * PACE, SMALLEST), LARGEST))
        try:
            piece = road.source.recv(size)
        except BlockingIOError:
            return
        except OSError:
            self._end(road.line)
            return
        now = leaves = time.monotonic()
        if piece and self._began is not None:
            self.counts["seconds"] = now - self._began
        if not piece:
            road.ended = True
            self._open -= road is road.line.up
        elif road.paced:
            leaves = self._departure(road, len(piece), now)
        self.counts["up" if road is road.line.up else "down"] += len(piece)
        if piece and road is road.line.up:
            piece = self._requests(road.line, piece)
            if road.line.closed:
                return
        elif piece and road.line.active and _FINAL.search(piece):
            self._inactive(road.line)
        self._put(road, leaves + self._is.round_trip / 2, piece)

    def _departure(self, road: _Road, size: int, now: float) -> float:
        """When the last byte of a piece has left, at the pace of its connection and of the whole link."""
        for after, conditions in self._then:
            self._at(now + after, lambda each=conditions: setattr(self, "_is", each))  # type: ignore[misc]
        self._then = []
        leaves = now
        if self._is.each is not None:
            road.free_at = max(road.free_at, now - LATE) + size / self._is.each
            leaves = max(leaves, road.free_at)
        if self._is.whole is not None:
            self._free_at = max(self._free_at, now - LATE) + size / self._is.whole
            leaves = max(leaves, self._free_at)
        until = leaves
        steps = (road.sent + size) // STALL_STEP - road.sent // STALL_STEP
        road.sent += size
        if any(self._random.random() < self._is.stalls for _ in range(steps)):
            until += self._is.stall_time
        if self._is.cut_after is not None and road.sent >= self._is.cut_after:
            self._at(leaves, lambda: self._end(road.line))
        if until > now:
            self._rest(road, until)
        return leaves

    def _requests(self, line: _Line, piece: bytes) -> bytes:
        """What of a piece is passed on: all, but for what is refused."""
        passed = b""
        while piece:
            if line.refusing:
                return passed
            if line.body:
                part = piece if line.body < 0 else piece[: line.body]
                piece = piece[len(part) :]
                line.counted += len(part)
                if line.body > 0:
                    line.body -= len(part)
                if self._is.largest is not None and line.counted > self._is.largest:
                    self._refuse(line, 413)
                    return passed
                passed += part
                continue
            line.head += piece
            head, end, rest = line.head.partition(b"\r\n\r\n")
            if not end:
                if len(line.head) > HEAD:
                    self._end(line)
                return passed
            line.head, piece = b"", rest
            found = _LENGTH.search(head)
            line.counted, line.body = 0, int(found[1]) if found else -1 if _CHUNKED.search(head) else 0
            if (status := self._refusal(line)) is not None:
                self._refuse(line, status)
                return passed
            if not line.active:
                line.active = True
                self._active += 1
            passed += head + end
        return passed

    def _refusal(self, line: _Line) -> int | None:
        if self._is.answer is not None:
            return self._is.answer
        if self._is.most is not None and not line.active and self._active >= self._is.most:
            return 429
        return 413 if self._is.largest is not None and line.body > self._is.largest else None

    def _refuse(self, line: _Line, status: int) -> None:
        self.counts["refused"] += 1
        line.refusing = True
        self._inactive(line)
        answer = f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        now = time.monotonic()
        self._put(line.down, now + self._is.round_trip / 2, answer)
        self._put(line.down, now + self._is.round_trip / 2, b"")
        self._at(now + LINGER, lambda: self._end(line))

    def _inactive(self, line: _Line) -> None:
        self._active -= line.active
        line.active = False

    def _put(self, road: _Road, due: float, piece: bytes) -> None:
        """On its way, to arrive at `due`; nothing is the end."""
        if not piece and not road.ended and road is road.line.up:
            return
        road.queue.append((due, piece))
        road.queued += len(piece)
        self._at(due, lambda: self._deliver(road))

    def _deliver(self, road: _Road) -> None:
        line = road.line
        now = time.monotonic()
        try:
            while not line.closed and not road.blocked and road.queue and road.queue[0][0] <= now:
                due, piece = road.queue.popleft()
                if not piece:
                    road.finished = True
                    road.sink.shutdown(socket.SHUT_WR)
                    break
                try:
                    count = road.sink.send(piece)
                except BlockingIOError:
                    count = 0
                road.queued -= count
                if count < len(piece):
                    road.queue.appendleft((due, piece[count:]))
                    road.blocked = True
        except OSError:
            self._end(line)
        if line.up.finished and line.down.finished:
            self._end(line)
        self._watch(line)

    def _end(self, line: _Line) -> None:
        """Both sides are reset; where both have ended in order, that changes nothing."""
        if line.closed:
            return
        line.closed = True
        self._open -= not line.up.ended
        self._inactive(line)
        for side in (line.client, line.server):
            number = side.fileno()
            del self._roads[number]
            if self._masks.pop(number, None) is not None:
                self._poll.unregister(number)
            if line.up.finished and line.down.finished:
                side.close()
            else:
                _reset(side)


def _reset(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def main() -> None:
    with open(0, "rb", buffering=0, closefd=False) as orders:  # a line that waits in a buffer would wake nobody
        switch = _Switch(json.loads(orders.readline()), orders)
        print(switch.port, flush=True)
        switch.run()
    print(json.dumps(switch.counts), flush=True)


if __name__ == "__main__":
    main()
