"""Snapshots: the newest one always, none queued."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConnectionFailed, Stalled
from holdfast.progress import ETA_HALF_LIFE, Meter, Progress, State, Tracker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.anyio
async def test_a_slow_reader_gets_the_newest_and_not_all() -> None:
    tracker = Tracker(Clock())
    seen: list[Progress] = []
    newest = anyio.Event()

    async def read() -> None:
        async for progress in tracker.latest.follow():
            seen.append(progress)
            if progress.accepted == 1000:
                newest.set()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for number in range(1, 1001):
            tracker.accepted = number
            tracker.tick()
        with anyio.fail_after(10):
            await newest.wait()
        tracker.accepted = 1001
        tracker.enter(State.COMPLETED)
        tracker.latest.close()
    assert [progress.accepted for progress in seen] == [0, 1000, 1001]
    assert seen[-1].state is State.COMPLETED


@pytest.mark.anyio
async def test_who_comes_late_gets_the_last_one() -> None:
    tracker = Tracker(Clock())
    tracker.accepted = 7
    tracker.latest.close()
    tracker.accepted = 8
    assert [progress.accepted async for progress in tracker.latest.follow()] == [7]


def test_a_speed_is_that_of_late() -> None:
    meter = Meter(0.0)
    now = 0.0
    for rate in (1000, 5000):
        for _ in range(100):
            now += 0.25
            meter.add(rate // 4)
            meter.rate(now)
        assert meter.rate(now) == pytest.approx(rate, rel=0.01)


def test_what_was_there_before_does_not_count_as_speed() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.size, tracker.accepted, tracker.resumed = 1000, 600, 600
    tracker.enter(State.IN_PROGRESS)
    clock.now += 1
    tracker.moved(100)
    snapshot = tracker.snapshot()
    assert snapshot.fraction == 0.6
    assert snapshot.speed == pytest.approx(100)
    assert snapshot.eta == pytest.approx(3.0), "what is on its way is not to go any more"


@given(st.lists(st.tuples(st.floats(0.05, 2.0), st.floats(0.2, 5.0), st.booleans()), min_size=5, max_size=200))
def test_the_time_to_go_does_not_jump(steps: list[tuple[float, float, bool]]) -> None:
    """Whatever the speed does, and however large the chunks are that are accepted at once: it comes nearer to the
    newest estimate, never beyond it, and by no more than the time that has passed allows.
    """
    clock = Clock()
    tracker = Tracker(clock)
    tracker.size = 10**9
    tracker.enter(State.IN_PROGRESS)
    tracker.moved(10_000)
    clock.now += 1.0
    last = tracker.snapshot().eta
    assert last is not None
    for span, speed, accepts in steps:
        clock.now += span
        tracker.moved(int(1e6 * speed * span))
        if accepts:
            tracker.accepted = tracker.wire
        look = tracker.snapshot()
        assert look.eta is not None
        assert look.size is not None
        aim = max(0, look.size - look.wire) / look.speed
        allowed = 1 - 0.5 ** (span / ETA_HALF_LIFE)
        down = max(0.0, last - span)
        assert look.eta == pytest.approx(down + (aim - down) * allowed, rel=1e-6, abs=1e-6)
        assert min(down, aim) - 1e-6 <= look.eta <= max(down, aim) + 1e-6
        last = look.eta


def test_at_a_steady_speed_it_counts_down_to_nothing() -> None:
    clock = Clock()
    tracker = Tracker(clock)
    tracker.size = 60_000_000
    tracker.enter(State.IN_PROGRESS)
    for second in range(1, 60):
        clock.now += 1
        tracker.moved(1_000_000)
        if second % 16 == 0:
            tracker.accepted = tracker.wire
        assert tracker.snapshot().eta == pytest.approx(60 - second, abs=0.5)


def test_nothing_is_said_of_the_time_to_go_before_there_is_a_speed() -> None:
    """Buffers take the first bytes at once, and the time to go would be next to nothing."""
    clock = Clock()
    tracker = Tracker(clock)
    tracker.size = 30_000_000
    tracker.begin()
    tracker.enter(State.IN_PROGRESS)
    clock.now += 0.1
    tracker.moved(3_000_000)
    assert tracker.snapshot().eta is None
    for _ in range(9):
        clock.now += 0.1
        tracker.moved(300_000)
    clock.now += 0.001
    eta = tracker.snapshot().eta
    assert eta is not None
    assert eta > 3
    tracker.begin()
    tracker.enter(State.IN_PROGRESS)
    assert tracker.snapshot().eta is None, "nor after a pause"


def test_the_time_to_go_knows_of_a_limit() -> None:
    """What the limit lets go at once in the beginning, and what buffers take, is faster than it will be."""
    clock = Clock()
    limit = 1_000_000.0
    tracker = Tracker(clock, lambda: limit)
    tracker.size = 30_000_000
    tracker.begin()
    tracker.enter(State.IN_PROGRESS)
    clock.now += 0.5
    tracker.moved(2_000_000)
    clock.now += 0.51
    look = tracker.snapshot()
    assert look.speed > limit
    assert look.eta == pytest.approx(28, abs=0.1)
    limit = 2_000_000.0
    for _ in range(300):
        clock.now += 0.1
        tracker.moved(100_000)
        eta = tracker.snapshot().eta
    assert eta == pytest.approx(0, abs=0.1), "slower than the limit it is as fast as it is"


def test_the_same_failure_counts_once() -> None:
    tracker = Tracker(Clock())
    error = ConnectionFailed("no way")
    tracker.failed(error)
    tracker.failed(error)
    tracker.failed(Stalled("still no way"))
    look = tracker.snapshot()
    assert (look.errors, look.last_error) == (2, tracker.last_error)


@pytest.mark.parametrize(("size", "fraction"), [(None, 0.0), (0, 1.0)])
def test_sizes_that_tell_nothing(size: int | None, fraction: float) -> None:
    tracker = Tracker(Clock())
    tracker.size = size
    assert (tracker.snapshot().fraction, tracker.snapshot().eta) == (fraction, None)
