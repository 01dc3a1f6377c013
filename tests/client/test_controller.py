"""What the controller learns, on links that are modelled: bytes flow like a fluid, time is a number."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.planner import (
    LARGEST_CHUNK,
    MEMORY,
    MOST_CONNECTIONS,
    NEAR,
    NEAR_CONNECTIONS,
    SMALLEST_CHUNK,
    START_CHUNK,
    START_CONNECTIONS,
    Controller,
    Sending,
)

MIB = 1024 * 1024
PIECE = 256 * 1024
STEP = 0.01


@dataclass
class Link:
    """A link of `total` bytes a second, of which one connection gets at most `each`. Times in seconds."""

    total: float
    each: float = float("inf")
    delay: float = 0.02
    """From the last byte to the answer, and from the answer to the next first byte."""
    allowed: int | None = None
    """Requests at once; one more is answered 429."""
    breaks_every: int | None = None
    """Bytes after which a connection breaks."""
    stalls: float = 0.0
    """The probability, for each MiB of each connection, that it stands still"""
    stall_time: float = 3.0
    """for so long."""
    buffers: int = 0
    """Bytes of each connection that are taken before they are on their way."""


@dataclass
class _Connection:
    size: int = 0
    began: float = 0.0
    sent: float = 0.0
    told: int = 0
    wait: float = 0.0
    gone: float | None = None
    answering: bool = False
    life: float = 0.0
    still_until: float = 0.0
    sending: Sending | None = None


@dataclass
class Run:
    """A transfer of `left` bytes over a link, step by step."""

    link: Link
    controller: Controller
    left: int
    now: float = 0.0
    refused: int = 0
    wire: int = 0
    history: list[tuple[float, int, int]] = field(default_factory=list)
    connections: list[_Connection] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def go(self, until: float = float("inf")) -> float:
        """Runs to the end, or to a moment; the seconds that it took."""
        began = self.now
        while (self.left or any(each.size for each in self.connections)) and self.now < until:
            self._step()
        return self.now - began

    def _step(self) -> None:
        self.now += STEP
        limit = self.controller.allowed(self.now)
        while len(self.connections) < limit:
            self.connections.append(_Connection(wait=self.now + self.link.delay))
        busy = [each for each in self.connections if each.size]
        for each in self.connections:
            if not each.size and self.left and each.wait <= self.now and len(busy) < limit:
                if self.link.allowed is not None and len(busy) >= self.link.allowed:
                    self.refused += 1
                    each.wait = self.now + self.link.delay + 0.3
                    self.controller.throttled(self.now, 0.5, crowded=True)
                    limit = self.controller.allowed(self.now)
                    continue
                each.size = min(self.controller.size_of(self.left), self.left)
                self.left -= each.size
                each.began, each.sent, each.told, each.gone, each.answering = self.now, 0.0, 0, None, False
                each.sending = self.controller.began(self.now, each.size)
                busy.append(each)
        sending = [each for each in busy if not each.answering and each.still_until <= self.now]
        for each in sending:
            self._send(each, min(self.link.each, self.link.total / len(sending)) * STEP)
        for each in busy:
            if each.size and each.answering and each.wait <= self.now:
                self._end(each)
                assert each.sending is not None
                assert each.gone is not None
                overhead = each.sending.around(each.began, each.gone, self.now)
                self.controller.accepted(each.size, self.now - each.began, overhead, self.now)
                each.size, each.wait = 0, self.now + self.link.delay
        self.history.append((self.now, self.controller.connections, self.controller.chunk_size))

    def _send(self, each: _Connection, size: float) -> None:
        assert each.sending is not None
        if int((each.sent + size) // MIB) > int(each.sent // MIB) and self.chance.random() < self.link.stalls:
            each.still_until = self.now + self.link.stall_time
        each.sent += size
        while each.told < min(each.sent + self.link.buffers, each.size):
            piece = min(PIECE, each.size - each.told)
            each.told += piece
            self.wire += piece
            each.sending.advance(piece, self.now)
            self.controller.moved(piece, self.now)
        if each.gone is None and each.sent + self.link.buffers >= each.size:
            each.gone = self.now
        if self.link.breaks_every is not None:
            each.life += size
            if each.life >= self.link.breaks_every:
                each.life = 0.0
                self.left += each.size
                each.size, each.wait = 0, self.now + 0.2
                self._end(each)
                self.controller.broken()
                return
        if each.sent >= each.size:
            each.answering, each.wait = True, self.now + self.link.delay

    def _end(self, each: _Connection) -> None:
        assert each.sending is not None
        self.controller.ended(each.sending, self.now)


def run(link: Link, size: int, near: float | None = None) -> Run:
    """A transfer to its end. `near` is how long a request without a body took before it, if there was one."""
    controller = Controller(0.0)
    if near is not None:
        controller.met(near)
    found = Run(link, controller, size)
    found.go()
    return found


@pytest.mark.parametrize(
    ("link", "size"),
    [
        (Link(total=110 * MIB, delay=0.005), 2048 * MIB),
        (Link(total=40 * MIB, each=4 * MIB, delay=0.08), 400 * MIB),
        (Link(total=0.5 * MIB, delay=0.06), 60 * MIB),
        (Link(total=50 * MIB, each=10 * MIB, delay=0.1), 1024 * MIB),
    ],
    ids=["LAN", "long-fat", "DSL", "in-between"],
)
def test_most_of_the_link_is_used(link: Link, size: int) -> None:
    took = run(link, size).now
    assert size / took >= 0.8 * min(link.total, MOST_CONNECTIONS * link.each)


def test_connections_that_bring_nothing_are_given_up() -> None:
    """On a link that a few connections fill, more of them only take from others."""
    found = run(Link(total=20 * MIB, delay=0.01), 1024 * MIB)
    late = [connections for now, connections, _ in found.history if now > found.now / 2]
    assert sum(late) / len(late) <= 9


def test_connections_are_added_while_each_brings_its_own() -> None:
    found = run(Link(total=400 * MIB, each=4 * MIB, delay=0.05), 1024 * MIB)
    assert found.controller.connections == MOST_CONNECTIONS
    assert next(now for now, connections, _ in found.history if connections == MOST_CONNECTIONS) < 3


def test_a_server_that_takes_three_at_once_is_asked_for_more_only_now_and_then() -> None:
    found = run(Link(total=30 * MIB, each=10 * MIB, delay=0.02, allowed=3), 1500 * MIB)
    assert found.refused <= 8
    assert 1500 * MIB / found.now >= 0.8 * 30 * MIB


def test_chunks_grow_where_the_answer_takes_long() -> None:
    """The time around the bytes stays a small part of a request, as far as memory allows."""
    slow = run(Link(total=20 * MIB, delay=0.5), 1024 * MIB)
    assert max(size for _, _, size in slow.history) > 4 * MIB


def test_chunks_stay_small_on_a_slow_link() -> None:
    """A request must come to its end in some seconds, or a pause costs too much."""
    found = run(Link(total=0.5 * MIB, delay=0.05), 40 * MIB)
    assert found.history[-1][2] == SMALLEST_CHUNK


@pytest.mark.parametrize("near", [None, 0.001], ids=["far", "near"])
def test_where_connections_break_little_is_sent_twice(near: float | None) -> None:
    size = 2048 * MIB
    found = run(Link(total=40 * MIB, each=8 * MIB, delay=0.05, breaks_every=32 * MIB), size, near)
    assert found.wire <= 1.05 * size + MOST_CONNECTIONS * PIECE


def test_in_a_short_transfer_little_is_sent_twice_too() -> None:
    """All connections come to their first break together, and it is half over before anybody knows of breaks."""
    size = 512 * MIB
    found = run(Link(total=20 * MIB, each=4 * MIB, breaks_every=32 * MIB, buffers=768 * 1024), size)
    assert found.wire <= 1.05 * size


@given(through=st.lists(st.integers(1, 16 * MIB), max_size=50), left=st.integers(1, 1 << 40))
def test_as_long_as_nothing_breaks_little_is_at_risk(through: list[int], left: int) -> None:
    controller = Controller(0.0)
    for turn, size in enumerate(through):
        controller.accepted(size, 2.0, 1.0, float(turn))
    together = controller.size_of(left) * controller.connections
    assert together <= max(START_CHUNK * controller.connections, (sum(through) + left) / 25)


def test_a_link_that_gets_slower_does_not_keep_the_large_chunks() -> None:
    link = Link(total=20 * MIB, delay=0.05)
    found = Run(link, Controller(0.0), 4096 * MIB)
    found.go(until=30)
    link.total = 2 * MIB
    before = found.left
    found.go(until=90)
    assert before - found.left >= 0.9 * 50 * 2 * MIB
    assert found.controller.chunk_size <= 4 * MIB


def test_memory_is_bounded_whatever_is_learnt() -> None:
    random.seed(1)
    controller = Controller(0.0)
    for now in range(1, 500):
        sending = controller.began(now)
        for _ in range(100):
            controller.moved(MIB, now + random.random())
        controller.accepted(controller.chunk_size, random.random(), random.random() / 10, now + 1.0)
        controller.ended(sending, now + 1.0)
        held = controller.chunk_size * (controller.connections + 1)
        assert held <= MEMORY or controller.chunk_size == SMALLEST_CHUNK
        assert SMALLEST_CHUNK <= controller.chunk_size <= LARGEST_CHUNK
        assert 1 <= controller.connections <= MOST_CONNECTIONS


def test_retry_after_holds_for_the_whole_origin() -> None:
    controller = Controller(0.0)
    controller.throttled(10.0, 0.5, retry_after=4.0)
    assert controller.pause(10.0) == pytest.approx(4.4)
    assert controller.pause(20.0) == 0
    assert controller.connections == 4


def test_what_was_on_its_way_together_counts_as_one_refusal() -> None:
    controller = Controller(0.0)
    for _ in range(8):
        controller.throttled(10.0, 0.5)
    assert controller.connections == 4


def test_too_many_requests_are_as_many_as_were_let_in() -> None:
    controller = Controller(0.0)
    eight = [controller.began(1.0) for _ in range(8)]
    for each in eight[:5]:
        controller.ended(each, 2.0)
        controller.throttled(2.0, 0.5, crowded=True)
    assert controller.connections == 3


def two_after_a_refusal(controller: Controller) -> None:
    two = [controller.began(0.0) for _ in range(2)]
    controller.throttled(0.0, 0.5, crowded=True)
    for each in two:
        controller.ended(each, 0.0)
    assert controller.connections == 2


def test_fewer_than_the_server_takes_are_soon_made_more() -> None:
    """One of the three that it takes had just ended when the others were refused: two are not the end."""
    found = Run(Link(total=30 * MIB, each=10 * MIB, delay=0.02, allowed=3), Controller(0.0), 600 * MIB)
    two_after_a_refusal(found.controller)
    found.go()
    assert next(now for now, connections, _ in found.history if connections == 3) < 4
    late = [connections for now, connections, _ in found.history if now > found.now / 2]
    assert sum(late) / len(late) >= 2.5


def test_where_more_paid_fewer_are_not_tried_next() -> None:
    """What was just found to be good is not given up to see whether it was."""
    found = Run(Link(total=100 * MIB, each=10 * MIB, delay=0.02), Controller(0.0), 600 * MIB)
    two_after_a_refusal(found.controller)
    found.go()
    used = [connections for _, connections, _ in found.history]
    assert max(used) >= 4
    assert used[: used.index(max(used))] == sorted(used[: used.index(max(used))])


def test_a_rate_limit_of_our_own_says_nothing_of_the_network() -> None:
    controller = Controller(0.0)
    for _ in range(8):
        controller.began(0.0)
    for step in range(1, 100):
        controller.held()
        controller.moved(MIB, step / 10)
    assert controller.connections == 8


def test_what_was_before_the_first_chunk_is_not_measured() -> None:
    """An upload is created first, and that takes a while in which nothing can be sent."""
    controller = Controller(0.0)
    for _ in range(8):
        controller.began(10.0)
    for step in range(1, 60):
        controller.moved(MIB, 10.0 + step / 40)
    assert controller.connections == 16


def test_connections_that_wait_for_bytes_are_given_up() -> None:
    """Where whoever reads and hashes brings enough for three connections, three are enough."""
    controller = Controller(0.0)
    for _ in range(3):
        controller.began(0.0)
    for _ in range(5):
        controller.hungry(0.0)
    for step in range(1, 200):
        controller.moved(MIB, step / 100)
    assert controller.connections == 3


@pytest.mark.parametrize("fed", [False, True], ids=["never-asked", "fed-at-once"])
def test_connections_that_send_nothing_for_other_reasons_stay(fed: bool) -> None:
    """They wait after a failure, or there are only some small files; that does not say how many are good."""
    controller = Controller(0.0)
    for _ in range(3):
        controller.began(0.0)
    for _ in range(5 if fed else 0):
        controller.hungry(0.0)
        controller.fed(0.0)
    for step in range(1, 200):
        controller.moved(MIB, step / 100)
    assert controller.connections == 8


def test_where_a_round_trip_is_short_two_connections_begin() -> None:
    controller = Controller(0.0)
    controller.met(0.5)
    assert (controller.connections, controller.chunk_size) == (START_CONNECTIONS, START_CHUNK)
    controller.met(NEAR / 2)
    assert (controller.connections, controller.chunk_size) == (NEAR_CONNECTIONS, START_CHUNK)


def test_what_was_learnt_from_chunks_is_not_begun_anew() -> None:
    controller = Controller(0.0)
    controller.began(0.0)
    controller.accepted(START_CHUNK, 1.0, 0.05, 1.0)
    controller.met(NEAR / 2)
    assert controller.connections == START_CONNECTIONS


def test_each_transfer_that_reads_has_its_part_of_the_memory() -> None:
    controller = Controller(0.0)
    controller.met(NEAR / 2)
    with controller.reading(), controller.reading(), controller.reading(), controller.reading():
        assert controller.chunk_size <= MEMORY // (NEAR_CONNECTIONS + 4)


def test_where_it_is_near_chunks_that_are_not_kept_grow_beyond_the_memory() -> None:
    """Elsewhere, and of what is kept until it is sent, they do not."""
    for near, kept, most in ((0.001, False, 64 * MIB), (0.001, True, 48 * MIB // 3), (0.1, False, 48 * MIB // 9)):
        controller = Controller(0.0)
        controller.met(near)
        for turn in range(200):
            controller.accepted(controller.chunk_size, 0.02, 0.02, float(turn))
        for turn in range(50):
            controller.accepted(64 * MIB, 0.3, 0.02, float(200 + turn))
        assert controller.size_of(1 << 40, kept=kept) == most


def test_where_it_is_near_the_first_break_does_not_cost_much() -> None:
    """Chunks grow with what has gone through, not at once."""
    size = 256 * MIB
    found = run(Link(total=1000 * MIB, each=64 * MIB, delay=0.002, breaks_every=32 * MIB), size, near=0.001)
    assert found.wire <= 1.05 * size


def test_others_send_for_those_that_stand_still() -> None:
    """Five connections fill this link, and of eight now and then more than three stand still."""
    shares: list[float] = []
    for seed in range(4):
        link = Link(total=20 * MIB, each=4 * MIB, delay=0.02, stalls=0.04)
        found = Run(link, Controller(0.0), 2400 * MIB, chance=random.Random(seed))
        found.go(until=20)
        shares.append(found.wire / found.now / link.total)
    assert sum(shares) / len(shares) >= 0.95, shares


def known(controller: Controller, now: float) -> Controller:
    """It knows by now how long bytes take: a second for a MiB."""
    controller.accepted(MIB, 1.05, 0.05, now)
    return controller


def test_a_connection_that_stands_still_has_another_one_beside_it_until_it_moves() -> None:
    controller = known(Controller(0.0), 0.0)
    moving, still = controller.began(0.0), controller.began(0.0)
    for now in (0.5, 1.0, 1.5, 2.0):
        moving.advance(MIB // 2, now)
    assert controller.allowed(1.0) == START_CONNECTIONS
    assert controller.allowed(2.0) == START_CONNECTIONS + 1
    still.advance(MIB // 2, 2.0)
    assert controller.allowed(2.0) == START_CONNECTIONS
    assert controller.allowed(9.0) == START_CONNECTIONS + 2
    controller.ended(moving, 9.0)
    assert controller.allowed(9.0) == START_CONNECTIONS + 1


def test_before_it_is_known_how_long_bytes_take_none_stands_still() -> None:
    controller = Controller(0.0)
    controller.began(0.0)
    assert controller.allowed(100.0) == START_CONNECTIONS


@given(still=st.integers(0, 40), refused=st.booleans(), now=st.floats(0, 200))
def test_there_are_never_more_than_the_server_takes(still: int, refused: bool, now: float) -> None:
    controller = known(Controller(0.0), 0.0)
    for _ in range(still):
        controller.began(0.0)
    if refused:
        controller.throttled(0.0, 0.5, crowded=True)
    most = START_CONNECTIONS - 1 if refused and now < 60 else MOST_CONNECTIONS
    assert controller.connections <= controller.allowed(now) <= max(controller.connections, most)


def test_what_waits_in_buffers_is_not_taken_for_the_answer() -> None:
    """Chunks need not be large to make little of a short answer, and a break costs so much less."""
    found = run(Link(total=20 * MIB, each=4 * MIB, delay=0.02, buffers=768 * 1024), 400 * MIB)
    assert max(size for _, _, size in found.history) <= 3 * MIB


@given(
    buffers=st.integers(0, 4 * MIB),
    rate=st.integers(MIB // 4, 64 * MIB),
    size=st.integers(1, 64 * MIB),
    answer=st.floats(0, 5),
)
def test_the_time_around_the_bytes_is_found_whatever_waits(buffers: int, rate: int, size: int, answer: float) -> None:
    """To within the bytes that are handed over at once; never more than the wait for the answer."""
    sending = Sending(0.0, size)
    while sending.moved < size:
        # The buffers take a piece as soon as they have room for the one before it.
        now = max(0.0, sending.moved - buffers) / rate
        sending.advance(min(PIECE, size - sending.moved), now)
    gone, answered = max(0.0, size - buffers) / rate, size / rate + answer
    found = sending.around(0.0, gone, answered)
    assert 0 <= found <= answered - gone
    if size // 2 >= buffers + PIECE:
        assert found == pytest.approx(answer, abs=0.001)
    assert found >= answer - 0.001


def test_where_it_goes_faster_than_a_gigabit_chunks_are_soon_large() -> None:
    """The requests around them are what takes time there; what a break costs does not."""
    sizes: dict[int, int] = {}
    for rate in (100 * MIB, 300 * MIB):
        controller = Controller(0.0)
        controller.met(NEAR / 2)
        for turn in range(20):
            size = controller.size_of(1 << 30)
            controller.accepted(size, 0.005 + size / rate, 0.005, float(turn))
        sizes[rate] = controller.size_of(1 << 30, kept=False)
    assert sizes[100 * MIB] < 20 * MIB
    assert 25 * MIB < sizes[300 * MIB] <= 30 * MIB


def test_a_burst_is_not_taken_for_a_fast_network() -> None:
    """What buffers and shapers let through at first is faster than all that follows, and the first break would cost."""
    controller = Controller(0.0)
    controller.met(NEAR / 2)
    for turn in range(4):
        controller.accepted(2 * MIB, 2 / 140, 0.005, float(turn))
    assert controller.size_of(128 * MIB, kept=False) < 3 * MIB


@pytest.mark.parametrize(("each", "most"), [(500 * MIB, NEAR_CONNECTIONS), (60 * MIB, MOST_CONNECTIONS)])
def test_connections_that_are_fast_each_are_not_made_more(each: int, most: int) -> None:
    """More of them would share the processors; what looks like a gain is what their buffers take at once."""
    link = Link(total=16 * each, each=each, delay=0.001, buffers=4 * MIB)
    found = Run(link, Controller(0.0), 100 * each)
    found.controller.met(NEAR / 2)
    found.go(until=9)
    assert found.controller.connections == most
