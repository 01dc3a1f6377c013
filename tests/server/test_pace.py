"""How long a client may keep a request open: `holdfast_server.http.pace`, by a clock that the tests move."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast_server.http.pace import LINGER, LONGEST_LINGER, TRICKLE, WINDOW, Pace
from holdfast_server.settings import Limits, Settings


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, *, min_speed: int = 100, longest: float | None = None, stall: float = 60.0) -> Pace:
    limits = Limits(min_speed=min_speed, max_request_time=longest)
    return Pace(Settings(data=Path(), stall_timeout=stall, limits=limits), None, clock)


@pytest.mark.rule("H-SLOW-1")
@pytest.mark.anyio
async def test_who_is_slow_for_long_is_let_go() -> None:
    slow = pace(Clock())
    for second in range(int(WINDOW)):
        assert not slow.over, second
        await slow.passed(99)
        slow.waited(1.0)
    assert slow.over


@pytest.mark.anyio
async def test_who_is_fast_enough_goes_on_for_ever() -> None:
    good = pace(Clock())
    for _ in range(1000):
        await good.passed(101)
        good.waited(1.0)
        assert not good.over


@pytest.mark.rule("H-SLOW-1")
@pytest.mark.anyio
async def test_time_of_the_server_is_not_held_against_a_client() -> None:
    clock = Clock()
    patient = pace(clock)
    for _ in range(1000):
        clock.now += 10  # the disk was slow
        await patient.passed(1)
        patient.waited(0.001)
        assert not patient.over


@pytest.mark.rule("H-SLOW-1")
def test_no_request_takes_longer_than_a_request_may() -> None:
    clock = Clock()
    long = pace(clock, longest=50.0)
    clock.now += 49
    assert not long.over
    clock.now += 2
    assert long.over


def test_a_request_may_take_for_ever_if_it_is_allowed_to() -> None:
    clock = Clock()
    endless = pace(clock)
    clock.now += 1e9
    assert not endless.over


def test_without_a_least_speed_and_a_stall_timeout_nobody_is_too_slow() -> None:
    free = pace(Clock(), min_speed=0, stall=math.inf)
    free.waited(1e9)
    assert not free.over


def test_a_trickle_is_looked_after_less_and_less_often() -> None:
    trickling = Pace(Settings(data=Path()), None, Clock(), lambda: 0.0)
    seen = []
    for _ in range(5):
        trickling.gathered(1)
        seen.append(trickling.linger)
    assert seen == sorted(seen)
    assert seen[-1] == LONGEST_LINGER
    trickling.gathered(TRICKLE)
    assert trickling.linger == LINGER


def test_the_next_look_at_a_trickle_is_when_its_time_is_over() -> None:
    for chance, spread in ((0.0, 1.25), (1.0, 1.0)):
        trickling = Pace(Settings(data=Path()), None, Clock(), iter([chance] * 9).__next__)
        for _ in range(5):
            trickling.gathered(1)
        assert trickling.linger == pytest.approx(WINDOW * spread)
        trickling.waited(WINDOW / 2)
        trickling.gathered(1)
        assert trickling.linger == pytest.approx(WINDOW / 2 * spread)
        trickling.waited(trickling.linger)
        assert trickling.over
