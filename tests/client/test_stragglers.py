"""When a chunk is sent twice: by values."""

import pytest

from holdfast.stragglers import allowance, due

MIB = 1024 * 1024


def slow(rate: float, age: float, *, others: float, moved: int | None = None, silent: float = 0.0) -> float:
    """A chunk of 1 MiB that moves at `rate` bytes a second, where others do at `others`, 0.1 s around each request."""
    gone = min(MIB, int(rate * age)) if moved is None else moved
    return due(MIB, gone, age, silent, 1 / others, lambda size: 0.1 + size / others)


def test_a_connection_that_is_much_slower_than_others_is_helped() -> None:
    assert slow(0.1 * MIB, 0.5, others=8 * MIB) > 0, "it may only have begun late"
    assert slow(0.1 * MIB, 2.0, others=8 * MIB) <= 0


@pytest.mark.parametrize("age", [0.1, 5.0, 10.2, 15.0, 30.0])
def test_where_all_are_slow_nothing_is_sent_twice(age: float) -> None:
    assert slow(0.1 * MIB, age, others=0.1 * MIB) > 0


def test_one_that_has_got_slower_but_is_nearly_there_is_left_alone() -> None:
    """The copy would have to bring all of it, and takes from the same line."""
    assert slow(0.04 * MIB, 22.0, others=0.1 * MIB) > 0
    assert slow(0.01 * MIB, 22.0, others=0.1 * MIB) <= 0


def test_one_that_stands_still_is_helped_even_if_all_of_it_has_gone_out() -> None:
    """What has gone out may be in the buffers of the kernel, which nobody empties."""
    assert slow(0, 2.0, others=8 * MIB, moved=MIB, silent=0.1) > 0
    assert slow(0, 2.0, others=8 * MIB, moved=MIB, silent=1.9) <= 0


def test_nobody_waits_for_one_that_stands_still_until_it_is_late() -> None:
    """A large chunk is late after seconds; that it moves no more is known before."""
    assert due(16 * MIB, 4 * MIB, 2.0, 0.5, 1 / (8 * MIB), lambda size: 0.1 + size / (8 * MIB)) > 0
    assert due(16 * MIB, 4 * MIB, 2.0, 0.8, 1 / (8 * MIB), lambda size: 0.1 + size / (8 * MIB)) <= 0


def test_before_a_chunk_was_accepted_nobody_knows() -> None:
    assert due(MIB, 0, 100.0, 100.0, 1e-7, lambda size: None) > 0


@pytest.mark.parametrize(("size", "most"), [(MIB, MIB), (20 * MIB, MIB), (100 * MIB, 5 * MIB), (20 << 40, 1 << 40)])
def test_little_of_a_file_is_sent_twice(size: int, most: int) -> None:
    assert allowance(size) == most
