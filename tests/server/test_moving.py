"""What is known of uploads that move: over several processes, over time, by a clock that is an argument."""

import pytest
from tests.support.catalogs import fresh

from holdfast_server.live.moving import HERE, REMEMBERED, STOPPED, WINDOW, Course, Moving, total


def test_speed_is_told_from_the_second_point_on_and_not_after_a_stop() -> None:
    course = Course("a")
    assert course.speed(100.0) is None
    course.move(HERE, 0, 0, None, 100.0)
    assert course.speed(100.0) is None
    course.move(HERE, 0, 500, None, 101.0)
    assert course.speed(101.0) == pytest.approx(500)
    assert course.speed(102.0) == pytest.approx(250)  # it falls while nothing comes
    assert course.speed(101.0 + STOPPED) is not None
    assert course.speed(101.1 + STOPPED) is None


def test_speed_is_that_of_the_last_seconds() -> None:
    course = Course("a")
    for second in range(60):
        course.move(HERE, 1000 * second if second < 30 else 29_000 + 10 * (second - 29), 0, None, float(second))
    assert course.speed(59.0) == pytest.approx(10)


def test_points_that_are_too_close_replace_each_other() -> None:
    course = Course("a")
    for step in range(10_000):
        course.move(HERE, step, 0, None, step / 1000)
    assert len(course._points) <= WINDOW / 0.05 + 3
    assert course.speed(9.999) == pytest.approx(1000, rel=0.02)


def test_bytes_that_come_to_nothing_are_no_negative_speed() -> None:
    course = Course("a")
    course.move(HERE, 0, 9000, None, 1.0)
    course.move(HERE, 0, 0, None, 2.0)
    assert course.speed(2.0) == 0.0


def test_several_processes_add_up_what_arrives_and_agree_on_what_is_stored() -> None:
    course = Course("a")
    course.move("one", 100, 10, None, 1.0)
    assert not course.here
    course.move(HERE, 300, 20, "publishing", 2.0)
    course.move("one", 200, 5, None, 3.0)  # it knows less than we do
    assert (course.received, course.arriving, course.here) == (300, 25, True)
    assert course.motion(3.0).step == "publishing"


def test_what_a_process_has_told_that_tells_no_more_is_forgotten() -> None:
    course = Course("a")
    course.move("killed", 100, 10, "verifying", 1.0)
    course.move(HERE, 100, 1, None, 1.0 + REMEMBERED)
    course.forget(1.0 + REMEMBERED)
    assert course.arriving == 11
    course.forget(1.1 + REMEMBERED)
    assert (course.arriving, course.motion(12.0).step) == (1, None)


def test_what_does_not_move_is_forgotten_and_what_ended_at_once() -> None:
    moving = Moving()
    for each, at in (("old", 1.0), ("new", 5.0), ("ended", 5.0)):
        moving.course(each).move(HERE, 1, 2, None, at)
    assert moving.course("new") is moving.get("new")
    moving.end("ended")
    moving.end("never there")
    moving.forget(1.1 + REMEMBERED)
    assert [course.id for course in moving] == ["new"]
    assert len(moving) == 1
    assert moving.motion("new", 5.0).arriving == 2
    assert moving.motion("old", 5.0).arriving == 0
    assert moving.get("old") is None


def test_a_sum_is_told_without_what_is_not_known() -> None:
    one, two = Course("a"), Course("b")
    one.move(HERE, 0, 0, None, 0.0)
    one.move(HERE, 400, 100, None, 1.0)
    both = [(one, fresh(1)), (two, fresh(2, received=250))]
    assert total(both, 1.0) == {
        "uploads": 2,
        "length": 2000,
        "received": 650,
        "arriving": 100,
        "progress": 37.5,
        "speed": 500.0,
        "eta": 2.5,
    }
    unknown = total([*both, (Course("c"), fresh(3, length=None))], 1.0)
    assert (unknown["uploads"], unknown["length"], unknown["progress"], unknown["eta"]) == (3, None, None, None)
    nothing = total([], 1.0)
    assert (nothing["uploads"], nothing["progress"], nothing["eta"], nothing["speed"]) == (0, None, None, 0.0)
