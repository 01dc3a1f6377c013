"""Which connection fetches what: by values."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.segments import GRANULE, LEAST, SILENCE, Segment, Segments
from holdfast_protocol.messages import Span

MIB = 1024 * 1024


def taken(segments: Segments, parts: int, now: float = 0.0) -> Segment:
    segment = segments.take(parts, now)
    assert segment is not None
    return segment


def test_each_connection_gets_its_share() -> None:
    segments = Segments([Span(0, 64 * MIB)])
    found = [taken(segments, 8 - n) for n in range(8)]
    assert [(each.start, each.end) for each in found] == [(n * 8 * MIB, (n + 1) * 8 * MIB) for n in range(8)]
    assert segments.take(1, 0.1) is None


def test_no_share_is_too_small_for_a_request() -> None:
    segments = Segments([Span(0, 3 * MIB + 7)])
    found = [taken(segments, 100) for _ in range(3)]
    assert [each.end - each.start for each in found] == [LEAST, LEAST, LEAST + 7]


def test_what_is_lacking_is_free_again() -> None:
    segments = Segments([Span(0, 4 * MIB), Span(8 * MIB, 9 * MIB)])
    first = taken(segments, 1)
    first.came(MIB, 1.0)
    segments.give_back(first)
    assert segments.free == segments.left == 4 * MIB
    assert segments.begins_at(MIB)
    again = taken(segments, 1)
    assert (again.start, again.end) == (MIB, 4 * MIB)


def test_half_of_what_a_slow_one_has_is_taken_over() -> None:
    segments = Segments([Span(0, 16 * MIB)])
    slow, fast = taken(segments, 2), taken(segments, 1)
    slow.came(MIB, 1.0)
    fast.came(8 * MIB, 1.0)
    segments.give_back(fast)
    assert segments.offers(1.0)
    new = taken(segments, 1, 1.0)
    assert (new.end, slow.end) == (8 * MIB, new.start)
    # 7 MiB at 1 MiB/s; the new one is thought to be no faster, as no other has a rate.
    assert slow.left == 3.5 * MIB
    assert segments.left == 7 * MIB


def test_nothing_is_taken_over_from_those_that_are_soon_done() -> None:
    segments = Segments([Span(0, 16 * MIB)])
    one = taken(segments, 1)
    one.came(15 * MIB, 1.0)
    assert not segments.offers(1.0)
    assert segments.take(1, 1.0) is None


def test_all_is_taken_over_from_one_that_is_silent() -> None:
    segments = Segments([Span(0, MIB)])
    silent = taken(segments, 1)
    silent.came(MIB - 10, 1.0)
    assert not segments.offers(1.0 + SILENCE / 2)
    new = taken(segments, 1, 1.0 + SILENCE)
    assert (new.start, new.end, silent.left) == (MIB - 10, MIB, 0)


@given(
    st.lists(st.tuples(st.integers(0, 4 * MIB), st.integers(1, 4 * MIB)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, MIB)), max_size=60),
)
def test_every_missing_byte_is_free_or_in_one_segment(
    sizes: list[tuple[int, int]], steps: list[tuple[int, int, int]]
) -> None:
    """Whatever happens in whatever order: nothing is lost, and nothing is in two hands."""
    missing, at = [], 0
    for gap, size in sizes:
        missing.append(Span(at + gap, at + gap + size))
        at += gap + size
    segments = Segments(missing)
    lacking = {(span.start, span.end) for span in missing}
    total = sum(end - start for start, end in lacking)
    now, came = 0.0, 0
    for kind, which, number in steps:
        now += number / MIB * 4
        hands = sorted(segments.taken, key=lambda each: each.start)
        if kind == 0:
            segments.take(which, now)
        elif hands:
            segment = hands[which % len(hands)]
            if kind == 1:
                segments.give_back(segment)
            else:
                count = min(number, segment.left)
                segment.came(count, now)
                came += count
        assert segments.left == total - came
        spans = sorted((each.at, each.end) for each in segments.taken if each.left)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert GRANULE < LEAST
