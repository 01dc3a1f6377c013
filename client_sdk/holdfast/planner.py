"""How a file is cut up, and how many connections carry it: decisions without any I/O.

Rule of this file: whoever sends asks for the next chunk's size and the number of connections each time anew, and
tells how each chunk went; what is answered changes with what was learnt. Time is an argument (seconds of any
monotonic clock), and so is randomness.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from holdfast.errors import UsageError
from holdfast.retries import RETRY_AFTER_CAP
from holdfast_protocol.messages import Span
from holdfast_protocol.ranges import RangeSet

MIB: Final = 1024 * 1024
MAX_CONCURRENCY: Final = 64
START_CONNECTIONS: Final = 8
MOST_CONNECTIONS: Final = 16
LEAST_READY: Final = 2
"""Connections that are kept where the source of the bytes is the limit: one sends while the other is answered."""
START_CHUNK: Final = 2 * MIB
NEAR: Final = 0.02
"""Seconds of a round trip, below which distance is no reason for many connections;"""
NEAR_CONNECTIONS: Final = 2
"""then it is begun with these."""
SMALLEST_CHUNK: Final = MIB
LARGEST_CHUNK: Final = 64 * MIB
SHORT: Final = 0.05
"""Seconds that a chunk takes at least: with shorter ones connections would end closer together, but no sooner."""
MEMORY: Final = 48 * MIB
"""Bytes for the chunks of all transfers to one origin."""
DEFAULT_CHUNK: Final = 8 * MIB
DEFAULT_CONCURRENCY: Final = 4
LEAST_TIME: Final = 0.2
MOST_TIME: Final = 10.0
"""Seconds that a chunk should take on its way."""
TUS_GRANULE: Final = 256 * 1024
"""Sizes of a tus PATCH are halved down to this after 413; tus itself knows no granule."""

BETWEEN_BREAKS: Final = 24
"""Chunks that go through between two breaks, at least."""
AT_RISK: Final = 0.04
"""Part of all bytes that are in the chunks of all connections as long as there was no break, and that may all break at
once. Not where it is near; there it is one of these:"""
OF_WHAT_IS_LEFT: Final = 64
"""Chunks that are still to come, where a break is possible though there was none,"""
OF_WHAT_IS_THROUGH: Final = 20
"""or chunks of this size that have gone through without one."""
FAST: Final = 128 * MIB
"""Bytes a second of one connection, with the requests around them, that only a network beyond a gigabit carries. It is
the machine that lacks something then: more connections bring nothing, small chunks cost more than a break does,"""
MOMENT: Final = 0.1
"""and so long a chunk may take."""
UNBROKEN: Final = float(BETWEEN_BREAKS * START_CHUNK)
"""Bytes that count as gone through before the first, where it is near: as if there had been a break after them."""
PIECE: Final = 256 * 1024
STILL: Final = 2.0
STILL_LEAST: Final = 0.5
"""A connection stands still when nothing has moved for twice what so many bytes take, and half a second more."""
SETTLE: Final = 0.25
WINDOW: Final = 0.5
PROBE_FIRST: Final = 10.0
PROBE_LAST: Final = 60.0
PROBE_SOON: Final = 1.0
"""Seconds until one more is tried after 429: those that were on their way may have been fewer than it takes."""
THROTTLE_STEP: Final = 5.0
THROTTLE_MEMORY: Final = 60.0


class Sending(Struct, eq=False):
    """A connection that carries a chunk, or another run of bytes, of `size` if that is known."""

    moved_at: float
    """When bytes of it moved last, or it began."""
    size: int = 0
    moved: int = 0
    """Bytes of it that have moved."""
    _middle: tuple[float, int] | None = None

    def advance(self, size: int, now: float) -> None:
        """So many more are about to move; those before them have."""
        if self._middle is None and self.size > self.moved >= self.size // 2 > 0:
            self._middle = now, self.moved
        self.moved += size
        self.moved_at = now

    def around(self, began: float, gone: float, answered: float) -> float:
        """Seconds of a request that went into other things than its bytes.

        `gone` is when the last of them was handed to the kernel. From then until the answer those are still on their
        way that wait in buffers here and there, which may take much longer than the answer itself; how long all of them
        take is seen from the second half, which moves as fast as the network takes it.
        """
        wait = answered - gone
        if self._middle is None:
            return wait
        since, moved = self._middle
        all_of_them = self.size * (gone - since) / (self.size - moved)
        return min(max(answered - began - all_of_them, 0.0), wait)


class Controller:
    """Chunk size and number of connections for one origin and direction, learnt from what happens there.

    All transfers to that origin share it. Sizes in bytes; `now` is in seconds of any monotonic clock and never goes
    back. `memory` bounds the chunks in memory: their size times the connections, and one more that each transfer reads.
    `ceiling` is the largest chunk that the origin takes, if that was learnt before.

    Connections: begun with 8, or with 2 where a round trip takes less than 20 ms, doubled while that pays and each of
    them is slower than a gigabit network, then a fourth more or fewer are tried now and then (after 10 seconds, and
    rarer, up to a minute, while it changes nothing: a short transfer would not earn back what it costs to find that
    fewer do not do). Where more paid, still more are tried at once. More of them pay if the bytes on the wire grow by a
    tenth of what they would grow by if connections were all that is lacking; fewer are kept if less than 5 % is lost.
    Bytes are counted over half a second and a chunk of each connection, after a moment for new ones to come up to
    speed, and only while all of them had something to do.
    If they wait for bytes for a fifth of the time, whoever reads and hashes is what limits, and those are given up that
    had nothing to do.
    Asked for less (429, 503) it goes back to the number that was good before a probe, or else to half, and with 429 to
    those that the server has let in, of which one more is tried after a second; and stays below for a minute. A broken
    connection changes nothing. One that stands still has another one beside it until it moves again, within what was
    asked for and 16: it is not known what it waits for, but the others leave the link to whoever can use it.

    Chunk size: begun with 2 MiB, and moved half-way to what takes 20 times as long as the request around it, 0.2 to 10
    seconds; changes below a fifth are let be. Where connections break, a chunk has at most a 24th of the bytes that go
    through between two breaks, so that no more than some percent are sent twice. As long as there was none, it has at
    most 2 MiB, or what takes 0.2 seconds, or so much that all connections together have a 25th of what has gone through
    and is left. Where it is near that would be too little; but there chunks grow so fast that the first break would
    cost a lot: as long as there was none, a chunk has at most 2 MiB, or a 20th of what has gone through, or a 64th of
    what is left, or what takes a tenth of a second if a connection is faster than a gigabit network. Those that are not
    kept in memory may be larger there than `memory` allows.
    """

    def __init__(self, now: float, *, memory: int = MEMORY, ceiling: int | None = None) -> None:
        self._memory = memory
        self._size = START_CHUNK
        self._readers = 0
        self._ceiling = ceiling
        self._proven = True
        self._round_trip = math.inf
        self._overhead: float | None = None
        self._rate: float | None = None
        self._speed = 0.0
        self._bytes = 0.0
        self._breaks = 0.0
        self._broken = False
        self._near = False
        self._connections = START_CONNECTIONS
        self._good = START_CONNECTIONS
        self._good_speed: float | None = None
        self._climbing = True
        self._upward = True
        self._probe_wait = PROBE_FIRST
        self._probe_at = now
        self._most = MOST_CONNECTIONS
        self._most_until = now
        self._lowered = -math.inf
        self._resume_at = now
        self._sending: set[Sending] = set()
        self._busy_seconds = 0.0
        self._idle_since = -math.inf
        self._hungry = 0
        self._hungry_seconds = 0.0
        self._looked = now
        self._window_from = now
        self._window_bytes = 0
        self._held = False
        self._begin_window(now)

    @property
    def connections(self) -> int:
        """How many to use at once, 1 to 16."""
        return self._connections

    @property
    def chunk_size(self) -> int:
        """Bytes of the next chunk; whoever cuts rounds it to what the server takes."""
        return self.size_of(0)

    def size_of(self, left: int, *, kept: bool = True) -> int:
        """The same, for a transfer of which `left` bytes are still to be cut; `kept`: in memory until they are sent."""
        size = self._size
        if kept or not self._near:
            held = self._connections + max(self._readers, 1)
            size = min(size, max(SMALLEST_CHUNK, self._memory // held))
        if self._breaks:
            safe = self._bytes / self._breaks / BETWEEN_BREAKS
            if not self._broken:
                safe = max(safe, (self._bytes - UNBROKEN) / OF_WHAT_IS_THROUGH, left / OF_WHAT_IS_LEFT)
                if self._speed > FAST:
                    safe = max(safe, self._speed * MOMENT)
            size = min(size, max(SMALLEST_CHUNK, int(safe)))
        else:
            safe = max(AT_RISK * (self._bytes + left) / self._connections, LEAST_TIME * self._speed)
            size = min(size, max(START_CHUNK, int(safe)))
        return size if self._ceiling is None else min(size, self._ceiling)

    @property
    def least_chunk(self) -> int:
        """Bytes below which chunks are not made for connections to end together: 1 MiB, more where it goes fast."""
        return max(SMALLEST_CHUNK, int(self._speed * SHORT))

    @property
    def ceiling(self) -> int | None:
        """The largest chunk that the origin takes, as far as it has refused larger ones (413)."""
        return self._ceiling

    @property
    def proven_ceiling(self) -> int | None:
        """The same, if a chunk was taken since: then it was the chunk that was too large, and not the file."""
        return self._ceiling if self._proven else None

    @property
    def near(self) -> bool:
        """A request without a body was answered in less than 20 ms."""
        return self._round_trip < NEAR

    def expected(self, size: int) -> float | None:
        """Seconds that a chunk of so many bytes takes on one connection; None before the first one was accepted."""
        if self._rate is None or self._overhead is None:
            return None
        return self._overhead + size / self._rate

    def allowed(self, now: float) -> int:
        """How many connections there may be at this moment: `connections`, and one for each that stands still."""
        piece = self.expected(PIECE)
        if piece is None:
            return self._connections
        since = now - still_after(piece)
        standing = sum(each.moved_at < since for each in self._sending)
        most = MOST_CONNECTIONS if now >= self._most_until else self._most
        return max(self._connections, min(self._connections + standing, most))

    def pause(self, now: float) -> float:
        """Seconds for which nothing may be sent to this origin; 0 most of the time."""
        return max(0.0, self._resume_at - now)

    def met(self, seconds: float) -> None:
        """A request without a body was answered after so many seconds."""
        self._round_trip = min(self._round_trip, seconds)
        if self._rate is None and seconds < NEAR and self._good > NEAR_CONNECTIONS:
            self._connections = self._good = NEAR_CONNECTIONS
            self._near = True
            self._breaks, self._bytes = 1.0, UNBROKEN

    @contextmanager
    def reading(self) -> Iterator[None]:
        """In the block one transfer more reads chunks to be sent."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def began(self, now: float, size: int = 0) -> Sending:
        """A connection begins to send a chunk of `size` bytes."""
        self._pass_time(now)
        if not self._sending and now - self._idle_since > SETTLE:
            self._begin_window(now)  # nobody had anything to send
        sending = Sending(now, size)
        self._sending.add(sending)
        return sending

    def ended(self, sending: Sending, now: float) -> None:
        """A connection has done with a chunk, in whatever way."""
        self._pass_time(now)
        self._sending.remove(sending)
        self._idle_since = now

    def hungry(self, now: float) -> None:
        """A connection could send, and waits for somebody to read bytes for it."""
        self._pass_time(now)
        self._hungry += 1

    def fed(self, now: float) -> None:
        """It waits no longer."""
        self._pass_time(now)
        self._hungry -= 1

    def moved(self, size: int, now: float) -> None:
        """So many bytes of chunks went on the wire."""
        self._window_bytes += size
        self._judge(now)

    def held(self) -> None:
        """Bytes had to wait for a rate limit of our own: what is measured now tells nothing about the network."""
        self._held = True

    def accepted(self, size: int, seconds: float, overhead: float, now: float) -> None:
        """A chunk of `size` bytes was accepted, `seconds` after its first byte was sent.

        `overhead` is the part of them that did not go into bytes: the wait for the answer. It is at least what a
        request without a body takes.
        """
        if self._round_trip < seconds:
            overhead = max(overhead, self._round_trip)
        self._overhead = _smooth(self._overhead, overhead, 0.2)
        self._rate = _smooth(self._rate, size / max(seconds - overhead, 0.001), 0.2)
        # From 0 on: the first chunks may be a burst.
        self._speed = _smooth(self._speed, size / max(seconds, 0.001), 0.2)
        self._bytes += size
        self.fitted()
        if size >= self.chunk_size // 2:  # the short end of a file takes as long as a small chunk would
            target = min(max(20 * self._overhead, LEAST_TIME), MOST_TIME)
            wanted = min(max((size + size * target / max(seconds, 0.001)) / 2, size / 2), 4 * size)
            if abs(wanted - self._size) > self._size / 5:
                self._size = int(min(max(wanted, SMALLEST_CHUNK), LARGEST_CHUNK))
        self._judge(now)

    def broken(self) -> None:
        """A connection broke, or stalled, under a chunk."""
        self._broken = True
        # Older breaks, and the bytes before them, count less and less.
        self._breaks = 0.9 * self._breaks + 1
        self._bytes *= 0.9

    def throttled(self, now: float, rand: float, *, retry_after: float | None = None, crowded: bool = False) -> None:
        """The server asked for less (429, 503). `retry_after` is in seconds, `rand` uniform in [0, 1).

        `crowded`: it is one request too many (429), so those that are on their way are what it takes.
        """
        if retry_after is not None:
            wait = min(max(retry_after, 0.0), RETRY_AFTER_CAP) * (1 + 0.2 * rand)
            self._resume_at = max(self._resume_at, now + wait)
        connections = self._connections
        probing = self._good < connections
        if crowded and self._sending:
            connections = min(connections, len(self._sending))
        if now - self._lowered >= THROTTLE_STEP:  # one step back for what was on its way together
            self._lowered = now
            self._most = max(1, self._connections - 1)
            self._most_until = now + THROTTLE_MEMORY
            if probing:
                connections = min(connections, self._good)
            elif not (crowded and self._sending):
                connections = min(connections, self._connections // 2)
        if connections < self._connections:
            self._settle(now, connections)
            soon = PROBE_SOON if crowded and not probing else PROBE_FIRST
            # One more is tried before one less.
            self._probe_at, self._probe_wait, self._upward = now + soon, PROBE_FIRST, False

    def too_large(self, size: int) -> None:
        """A chunk of `size` bytes was refused as too large (413)."""
        self._ceiling = size // 2 if self._ceiling is None else min(self._ceiling, size // 2)
        self._proven = False

    def fitted(self) -> None:
        """A chunk was taken."""
        self._proven = True

    def _pass_time(self, now: float) -> None:
        self._busy_seconds += (now - self._looked) * min(len(self._sending), self._connections)
        self._hungry_seconds += (now - self._looked) * min(self._hungry, self._connections)
        self._looked = now

    def _begin_window(self, now: float) -> None:
        """Measure anew, as soon as connections that were just opened have come up to speed."""
        self._window_from = now + min(max(2 * (self._overhead or 0.0), SETTLE), 1.0)
        self._window_bytes = 0
        self._busy_seconds = self._hungry_seconds = 0.0
        self._held = False

    def _settle(self, now: float, connections: int) -> None:
        """Go back to a number and stay there for a while."""
        self._connections = self._good = max(1, connections)
        self._good_speed = None
        self._climbing = False
        self._probe_at = now + self._probe_wait
        self._probe_wait = min(2 * self._probe_wait, PROBE_LAST)
        self._begin_window(now)

    def _judge(self, now: float) -> None:
        self._pass_time(now)
        if now < self._window_from:
            self._window_bytes = 0
            self._busy_seconds = self._hungry_seconds = 0.0
            return
        span = now - self._window_from
        # There is time for a chunk of each connection, or their waves are taken for changes; but not at the beginning.
        enough = min(self.chunk_size, START_CHUNK) if self._climbing else self.chunk_size
        if span < WINDOW or self._window_bytes < self._connections * enough:
            return
        speed = self._window_bytes / span
        busy, hungry = self._busy_seconds / span, self._hungry_seconds / span
        held, full = self._held, 0.8 * self._connections
        self._begin_window(now)
        if held:
            return
        if busy >= full:
            self._climb(speed, now)
        elif busy + hungry >= full and (needed := max(LEAST_READY, math.ceil(busy - 0.1))) < self._connections:
            self._settle(now, needed)

    def _climb(self, speed: float, now: float) -> None:
        """A window has ended at `speed`: keep what was tried or go back, and try something else when it is time."""
        if self._connections != self._good:
            assert self._good_speed is not None
            more = self._connections > self._good
            worth = 1 + 0.1 * (self._connections / self._good - 1) if more else 0.95
            if speed < self._good_speed * worth:
                self._settle(now, self._good)
                return
            self._good = self._connections
            self._probe_wait = PROBE_FIRST
            if not more:
                self._settle(now, self._good)
                return
        elif not self._climbing:
            if now < self._probe_at:
                return
            self._upward = not self._upward
        elif self._speed > FAST:
            self._settle(now, self._good)
            return
        self._good_speed = speed
        most = MOST_CONNECTIONS if now >= self._most_until else self._most
        step = self._good if self._climbing else max(1, self._good // 4)
        if self._upward:
            self._connections = max(self._good, min(self._good + step, most))
        else:
            self._connections = max(1, self._good - step)
        if self._connections == self._good:
            self._settle(now, self._good)
        self._begin_window(now)


def still_after(piece: float) -> float:
    """Seconds without a byte that moves, after which a connection stands still where `PIECE` bytes take `piece`."""
    return STILL * piece + STILL_LEAST


def _smooth(old: float | None, new: float, share: float) -> float:
    return new if old is None else old + share * (new - old)


class Plan:
    """How one upload is cut up: what the controller has learnt, within what the server and the caller have said.

    `granule` and `max_chunk` are what the server announced, in bytes. `chunk_size` and `concurrency` are what the
    caller fixed, or None to leave them to the controller. `kept`: chunks are in memory until they are sent. Raises
    UsageError if a fixed value makes no sense.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        granule: int,
        max_chunk: int | None = None,
        chunk_size: int | None = None,
        concurrency: int | None = None,
        kept: bool = True,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"a chunk size of {chunk_size} bytes makes no sense; give at least 1")
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise UsageError(f"concurrency must be 1 to {MAX_CONCURRENCY}, not {concurrency}")
        self._controller = controller
        self._granule = granule
        self._max_chunk = max_chunk
        self._chunk_size = chunk_size
        self._concurrency = concurrency
        self._kept = kept

    @property
    def concurrency(self) -> int:
        """Connections to use at once, 1 to 64."""
        return self._controller.connections if self._concurrency is None else self._concurrency

    @property
    def memory(self) -> int:
        """Bytes of chunks that may be in memory at once."""
        return max(MEMORY, 0 if self._chunk_size is None else self._fit(self._chunk_size) * (self.concurrency + 1))

    def chunk_size(self, left: int) -> int:
        """Bytes of the next chunk where `left` are still to be cut: a multiple of the granule, at least one.

        Towards the end chunks get smaller, so that connections come to their end together and a small file goes over
        more than one; down to 1 MiB, or to what takes 50 ms.
        """
        if self._chunk_size is not None:
            return self._fit(self._chunk_size)
        share = max(self._controller.least_chunk, -(-left // (2 * self.concurrency)))
        if self._concurrency is not None:
            share = min(share, max(SMALLEST_CHUNK, MEMORY // (self._concurrency + 1)))
        return self._fit(min(self._controller.size_of(left, kept=self._kept), share))

    def half(self, size: int) -> int:
        """About half of so many bytes, as the server takes it."""
        return self._fit(size // 2)

    def too_large(self, size: int) -> bool:
        """A chunk of `size` bytes was refused as too large. False if there is no smaller size to go to."""
        if size // 2 < self._granule:
            return False
        self._controller.too_large(size)
        return True

    def _fit(self, size: int) -> int:
        """Clipped to what the server takes, and rounded up to the granule where that still fits."""
        size = -(-max(size, 1) // self._granule) * self._granule
        for most in (self._max_chunk, self._controller.ceiling):
            if most is not None:
                size = min(size, max(most // self._granule, 1) * self._granule)
        return size


def aligned(spans: Iterable[Span], granule: int, length: int) -> RangeSet:
    """Spans widened to the granule; the end of the file needs no widening.

    A prefix that a sequential client left need not end on the granule (C-MIX-3); a chunk may overlap it.
    """
    return RangeSet((span.start // granule * granule, min(-(-span.end // granule) * granule, length)) for span in spans)


def pieces(span: Span, size: int) -> tuple[Span, ...]:
    """A span in parts of `size` bytes, the last one shorter if it does not come out even."""
    return tuple(Span(at, min(at + size, span.end)) for at in range(span.start, span.end, size))
