"""Snapshots: the newest one always, none queued."""

import anyio
import pytest

from holdfast.progress import Meter, Progress, State, Tracker


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
    clock.now += 1
    tracker.moved(100)
    snapshot = tracker.snapshot()
    assert snapshot.fraction == 0.6
    assert snapshot.speed == pytest.approx(100)
    assert snapshot.eta == pytest.approx(4.0)


@pytest.mark.parametrize(("size", "fraction"), [(None, 0.0), (0, 1.0)])
def test_sizes_that_tell_nothing(size: int | None, fraction: float) -> None:
    tracker = Tracker(Clock())
    tracker.size = size
    assert (tracker.snapshot().fraction, tracker.snapshot().eta) == (fraction, None)
