"""How a file is cut into parts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.splitting import MOST, SMALLEST, split
from holdfast_protocol.messages import Span


@given(st.integers(0, 1 << 50))
def test_parts_cover_the_file_and_none_is_small(size: int) -> None:
    parts = split(size, None)
    if size < 2 * SMALLEST:
        assert parts == ()
        return
    assert parts[0].span.start == 0
    assert parts[-1].span.end == size
    assert all(left.span.end == right.span.start for left, right in itertools.pairwise(parts))
    assert all(part.span.length >= SMALLEST for part in parts)
    assert len(parts) == min(size // SMALLEST, MOST)
    assert not any(part.url for part in parts)


@pytest.mark.parametrize("connections", [None, 2, 64])
def test_the_smallest_file_that_is_split(connections: int | None) -> None:
    assert [part.span for part in split(2 * SMALLEST, connections)] == [
        Span(0, SMALLEST),
        Span(SMALLEST, 2 * SMALLEST),
    ]


def test_one_connection_needs_no_parts() -> None:
    assert split(1 << 40, 1) == ()


def test_a_server_that_is_near_needs_no_parts_unless_a_number_of_connections_is_given() -> None:
    assert split(1 << 40, None, near=True) == ()
    assert split(1 << 40, 2, near=True) == split(1 << 40, None)
