"""How a file is cut up, how a rate is held: by values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.planner import Controller, Plan, aligned, pieces
from holdfast.rates import RateLimit, Share
from holdfast_protocol.messages import Span

MIB = 1024 * 1024
GRANULE = 65536


@given(
    left=st.integers(1, 1 << 42),
    granule=st.sampled_from([1, GRANULE, 5 * MIB]),
    granules=st.integers(1, 1000),
    chunk_size=st.none() | st.integers(1, 1 << 32),
    concurrency=st.none() | st.integers(1, 64),
)
def test_chunks_are_what_the_server_takes(
    left: int, granule: int, granules: int, chunk_size: int | None, concurrency: int | None
) -> None:
    plan = Plan(
        Controller(0.0), granule=granule, max_chunk=granule * granules, chunk_size=chunk_size, concurrency=concurrency
    )
    assert plan.chunk_size(left) % granule == 0
    assert granule <= plan.chunk_size(left) <= granule * granules
    assert plan.concurrency == (concurrency or 8)


@pytest.mark.parametrize(("left", "chunk"), [(1, MIB), (16 * MIB, MIB), (24 * MIB, 3 * MIB // 2), (1 << 40, 2 * MIB)])
def test_towards_the_end_chunks_get_smaller(left: int, chunk: int) -> None:
    """What is left is shared by all connections, in two goes at least."""
    assert Plan(Controller(0.0), granule=GRANULE, max_chunk=64 * MIB).chunk_size(left) == chunk


def test_where_it_goes_fast_chunks_do_not_get_too_small_for_the_requests_around_them() -> None:
    """To end together to the millisecond is not worth a request for each MiB."""
    controller = Controller(0.0)
    controller.met(0.001)
    for turn in range(60):
        controller.accepted(controller.chunk_size, controller.chunk_size / (400 * MIB) + 0.002, 0.002, float(turn))
    plan = Plan(controller, granule=GRANULE, kept=False)
    assert plan.chunk_size(1 << 30) > 20 * MIB
    assert plan.chunk_size(4 * MIB) == pytest.approx(20 * MIB, rel=0.1)


@pytest.mark.parametrize("rate", [MIB // 8, 4 * MIB, 16 * MIB])
def test_on_a_network_connections_end_together(rate: int) -> None:
    controller = Controller(0.0)
    for turn in range(60):
        controller.accepted(controller.chunk_size, controller.chunk_size / rate + 0.08, 0.08, float(turn))
    assert Plan(controller, granule=GRANULE).chunk_size(MIB) == MIB


def test_sizes_are_halved_down_to_the_granule() -> None:
    plan = Plan(Controller(0.0), granule=GRANULE, max_chunk=MIB, chunk_size=3 * GRANULE)
    assert plan.too_large(3 * GRANULE)
    assert plan.chunk_size(MIB) == GRANULE
    assert not plan.too_large(GRANULE)


def test_what_one_upload_learns_of_the_largest_chunk_holds_for_the_next() -> None:
    controller = Controller(0.0)
    assert Plan(controller, granule=GRANULE).too_large(2 * MIB)
    assert Plan(controller, granule=GRANULE).chunk_size(1 << 30) == MIB


@pytest.mark.parametrize("bad", [{"chunk_size": 0}, {"concurrency": 0}, {"concurrency": 65}])
def test_what_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Plan(Controller(0.0), granule=GRANULE, **bad)


@given(
    spans=st.lists(st.tuples(st.integers(0, 999), st.integers(1, 999))).map(
        lambda pairs: [Span(a, min(a + b, 1000)) for a, b in sorted(pairs)]
    ),
    granule=st.integers(1, 100),
)
def test_aligned_spans_cover_what_is_missing_and_keep_to_the_granule(spans: list[Span], granule: int) -> None:
    found = aligned(spans, granule, 1000)
    assert all(found.covers(span.start, span.end) for span in spans)
    for start, end in found:
        assert start % granule == 0
        assert end % granule == 0 or end == 1000
        assert any(span.start < start + granule and start < span.end for span in spans)


def test_pieces() -> None:
    assert pieces(Span(10, 25), 10) == (Span(10, 20), Span(20, 25))


@given(rate=st.integers(1000, 10**9), takes=st.lists(st.integers(1, 65536), min_size=1, max_size=50))
def test_a_limit_lets_no_more_through_than_its_rate(rate: int, takes: list[int]) -> None:
    """Whoever waits as told never gets more than a burst and the rate times the time."""
    now = 0.0
    limit = RateLimit(rate, lambda: now)
    burst = min(max(65536.0, rate / 4), 4.0 * MIB)
    gone = 0
    for size in takes:
        now += limit.wait(limit.book(size))
        gone += size
        assert gone <= burst + rate * now + 1


def test_a_limit_serves_in_the_order_of_booking() -> None:
    limit = RateLimit(1000, lambda: 0.0)
    limit.book(65536)
    tickets = [limit.book(1000), limit.book(1000), limit.book(500)]
    assert [limit.wait(each) for each in tickets] == [1.0, 2.0, 2.5]


def test_a_rate_that_is_changed_holds_for_those_who_wait() -> None:
    limit = RateLimit(1000, lambda: 0.0)
    limit.book(65536)
    ticket = limit.book(4000)
    assert limit.wait(ticket) == 4
    limit.rate = 2000
    assert limit.wait(ticket) == 2
    limit.rate = None
    assert limit.wait(ticket) == 0
    limit.rate = 1000
    assert limit.wait(limit.book(1000)) == 1, "what went without a limit is forgotten"


def test_a_transfer_keeps_to_its_own_limit_and_to_that_of_all() -> None:
    whole, own = RateLimit(1000, lambda: 0.0), RateLimit(None, lambda: 0.0)
    share, other = Share(0, own, whole), Share(0, whole)
    other.book(65536)
    tickets = share.book(1000)
    assert share.wait(tickets) == 1
    own.rate = 100.0
    assert share.wait(share.book(65536)) > 60
    assert share.slice == 16 * 1024
    assert Share(0, RateLimit(None, lambda: 0.0)).slice is None


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_more_than_nothing(rate: float) -> None:
    with pytest.raises(UsageError):
        RateLimit(rate, lambda: 0.0)
    limit = RateLimit(None, lambda: 0.0)
    with pytest.raises(UsageError):
        limit.rate = rate
