"""How long is waited, and how often something is tried again: by values."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.retries import Attempts, Backoff, Budget


@given(failures=st.integers(1, 10_000), rand=st.floats(0, 1, exclude_max=True))
def test_back_off_is_full_jitter_up_to_its_cap(failures: int, rand: float) -> None:
    window = min(0.3 * 2 ** min(failures - 1, 100), 30.0)
    assert Backoff().delay(failures, rand) == pytest.approx(rand * window)


@pytest.mark.parametrize(("said", "least", "most"), [(0.0, 0.0, 0.31), (5.0, 5.0, 6.4), (86400.0, 600.0, 630.1)])
def test_retry_after_is_a_lower_bound_with_a_cap(said: float, least: float, most: float) -> None:
    for rand in (0.0, 0.5, 0.999):
        assert least <= Backoff().delay(9, rand, said) <= most


def test_attempts_count_without_progress() -> None:
    attempts = Attempts(3, progress=0)
    assert [attempts.failed(0), attempts.failed(0)] == [True, True]
    assert [attempts.failed(1), attempts.failed(1), attempts.failed(1)] == [True, True, False]


def test_retries_of_a_process_are_bounded_but_never_refused() -> None:
    """A burst is free, then one a second, and nobody waits longer than half a minute."""
    budget = Budget(0.0)
    free = 0
    while budget.spend(0.0) == 0.0:
        free += 1
    assert free == Budget.CAPACITY // Budget.RETRY
    waits = [budget.spend(0.0) for _ in range(100)]
    assert all(later >= sooner for sooner, later in itertools.pairwise(waits))
    assert waits[-1] == Budget.LONGEST
    assert budget.spend(60.0) == 0.0, "time pays"
    budget = Budget(0.0)
    for _ in range(36):
        budget.spend(0.0)
    for _ in range(40):
        budget.succeeded()
    assert budget.spend(0.0, throttled=True) == 0.0, "so does success"
    assert budget.tokens <= Budget.CAPACITY
