"""RangeSet against a plain model: a bytearray with a one for each stored offset.

Rule of this file: what a set answers is compared with the model; how it keeps its leaves is checked by `sound`. The
properties run with leaves of four boundaries, so that a few ranges make many leaves, and with the real ones.
"""

import itertools
import random
import sys
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_protocol import ranges
from holdfast_protocol.ranges import RangeSet

SIZE = 96

Operation = tuple[bool, int, int]
spans = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted).filter(lambda pair: pair[0] < pair[1])
short_spans = st.tuples(st.integers(0, SIZE - 3), st.integers(1, 3)).map(lambda pair: (pair[0], sum(pair)))
operations = st.lists(
    st.tuples(st.sampled_from([True, True, False]), short_spans | spans).map(lambda op: (op[0], *op[1])),
    max_size=80,
)


@pytest.fixture(params=[(4, 2), (8, 4), (1024, 128)], ids=["tiny", "small", "real"], scope="module", autouse=True)
def leaf_size(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "_FULL", request.param[0])
        patch.setattr(ranges, "_SPARSE", request.param[1])
        yield


def runs(model: bytearray, wanted: int, start: int = 0, end: int = SIZE) -> list[tuple[int, int]]:
    """The runs of `wanted` in the model, clipped."""
    found = []
    at = start
    for value, group in itertools.groupby(model[start:end]):
        length = len(list(group))
        if value == wanted:
            found.append((at, at + length))
        at += length
    return found


def sound(subject: RangeSet) -> None:
    """The leaves hold whole ranges in ascending order with gaps between, and the index tells where they begin."""
    leaves = subject._leaves
    boundaries = list(itertools.chain.from_iterable(leaves))
    assert all(low < high for low, high in itertools.pairwise(boundaries))
    assert all(len(leaf) % 2 == 0 and len(leaf) <= ranges._FULL for leaf in leaves)
    assert all(leaves) or len(leaves) == 1
    assert list(subject._firsts) == [0, *(leaf[0] for leaf in leaves[1:])]
    assert subject.total == sum(boundaries[1::2]) - sum(boundaries[::2])


def built(steps: list[Operation]) -> tuple[RangeSet, bytearray]:
    subject, model = RangeSet(), bytearray(SIZE)
    for stored, start, end in steps:
        if stored:
            assert subject.add(start, end) == model.count(0, start, end)
        else:
            assert subject.subtract(start, end) == model.count(1, start, end)
        model[start:end] = bytes([stored]) * (end - start)
        sound(subject)
    return subject, model


@given(operations)
def test_adding_and_subtracting(steps: list[Operation]) -> None:
    """After each step the bytes that changed are told; in the end the ranges are the runs of the model."""
    subject, model = built(steps)
    assert list(subject) == runs(model, 1)
    assert len(subject) == len(runs(model, 1))
    assert subject.total == model.count(1)
    assert bool(subject) == (1 in model)
    assert subject.prefix == (SIZE if 0 not in model else model.index(0))


def test_a_long_life(request: pytest.FixtureRequest) -> None:
    """Thousands of short steps, which leave many leaves of all sizes behind; checked after each."""
    chance = random.Random(request.config.getoption("seed"))
    size = 2000
    subject, model = RangeSet(), bytearray(size)
    for step in range(3000):
        start = chance.randrange(size)
        end = min(size, start + chance.choice((1, 2, 3, 40)))
        stored = chance.random() < (0.7 if step // 500 % 2 == 0 else 0.3)
        changed = (subject.add if stored else subject.subtract)(start, end)
        assert changed == model.count(not stored, start, end)
        model[start:end] = bytes([stored]) * (end - start)
        sound(subject)
        assert (start in subject) == stored
    assert list(subject) == runs(model, 1, 0, size)


@given(operations)
def test_one_offset(steps: list[Operation]) -> None:
    subject, model = built(steps)
    assert [offset in subject for offset in range(-2, SIZE + 2)] == [False, False, *model, False, False]


@given(operations, spans | short_spans)
def test_one_range(steps: list[Operation], span: tuple[int, int]) -> None:
    subject, model = built(steps)
    start, end = span
    assert subject.covers(start, end) == all(model[start:end])
    assert subject.overlaps(start, end) == any(model[start:end])
    assert list(subject.within(start, end)) == runs(model, 1, start, end)
    assert list(subject.missing(start, end)) == runs(model, 0, start, end)


@given(operations, operations)
def test_equality_is_that_of_the_offsets(first: list[Operation], second: list[Operation]) -> None:
    """However the ranges came about and wherever their leaves end."""
    one, one_model = built(first)
    other, other_model = built(second)
    assert (one == other) == (one_model == other_model)
    assert one == RangeSet(runs(one_model, 1))
    assert one == RangeSet(reversed(runs(one_model, 1)))


@given(operations, operations)
def test_a_copy_lives_by_itself(steps: list[Operation], later: list[Operation]) -> None:
    subject, model = built(steps)
    twin = subject.copy()
    sound(twin)
    for stored, start, end in later:
        (twin.add if stored else twin.subtract)(start, end)
    sound(twin)
    assert list(subject) == runs(model, 1)
    assert subject.total == model.count(1)


@given(operations, operations, st.sampled_from(["iter", "within", "missing"]))
def test_an_iterator_survives_changes(steps: list[Operation], later: list[Operation], kind: str) -> None:
    """What it yields stays ascending and disjoint, and is right where nothing changes."""
    subject, model = built(steps)
    iterator = {
        "iter": lambda: iter(subject),
        "within": lambda: subject.within(0, SIZE),
        "missing": lambda: subject.missing(0, SIZE),
    }[kind]()
    changed = bytearray(SIZE)
    found = []
    for stored, start, end in later:
        found.append(next(iterator, None))
        changed[start:end] = bytes([1]) * (end - start)
        (subject.add if stored else subject.subtract)(start, end)
    pieces = [piece for piece in [*found, *iterator] if piece is not None]
    flat = [offset for piece in pieces for offset in piece]
    assert all(start < end for start, end in pieces)
    assert flat == sorted(flat)
    named = {offset for start, end in pieces for offset in range(start, end)}
    wanted = 0 if kind == "missing" else 1
    for offset in range(SIZE):
        if not changed[offset]:
            assert (offset in named) == (model[offset] == wanted)


@given(operations)
def test_gaps_may_be_filled_while_they_are_listed(steps: list[Operation]) -> None:
    subject, model = built(steps)
    filled = 0
    for start, end in subject.missing(0, SIZE):
        filled += subject.add(start, end)
    assert filled == model.count(0)
    assert list(subject) == [(0, SIZE)]


@given(operations)
def test_ranges_may_be_dropped_while_they_are_listed(steps: list[Operation]) -> None:
    subject, _ = built(steps)
    for start, end in subject:
        assert subject.subtract(start, end) == end - start
    sound(subject)
    assert not subject


@pytest.mark.parametrize(
    ("before", "added", "after", "new"),
    [
        ([], (0, 5), [(0, 5)], 5),
        ([(0, 5)], (5, 9), [(0, 9)], 4),
        ([(5, 9)], (0, 5), [(0, 9)], 5),
        ([(0, 5), (7, 9)], (5, 7), [(0, 9)], 2),
        ([(0, 5)], (0, 5), [(0, 5)], 0),
        ([(0, 9)], (3, 5), [(0, 9)], 0),
        ([(3, 5)], (0, 9), [(0, 9)], 7),
        ([(0, 2), (4, 6), (8, 10)], (1, 9), [(0, 10)], 4),
        ([(0, 2), (4, 6), (8, 10)], (2, 8), [(0, 10)], 4),
        ([(0, 2), (4, 6), (8, 10)], (3, 7), [(0, 2), (3, 7), (8, 10)], 2),
        ([(4, 6)], (0, 1), [(0, 1), (4, 6)], 1),
        ([(0, 1)], (2**63 - 2, 2**63 - 1), [(0, 1), (2**63 - 2, 2**63 - 1)], 1),
    ],
)
def test_adding(before: list[tuple[int, int]], added: tuple[int, int], after: list[tuple[int, int]], new: int) -> None:
    subject = RangeSet(before)
    assert subject.add(*added) == new
    assert list(subject) == after
    sound(subject)


@pytest.mark.parametrize(
    ("before", "dropped", "after", "gone"),
    [
        ([], (0, 5), [], 0),
        ([(0, 5)], (0, 5), [], 5),
        ([(0, 5)], (5, 9), [(0, 5)], 0),
        ([(5, 9)], (0, 5), [(5, 9)], 0),
        ([(0, 9)], (3, 5), [(0, 3), (5, 9)], 2),
        ([(0, 9)], (0, 3), [(3, 9)], 3),
        ([(0, 9)], (3, 9), [(0, 3)], 6),
        ([(0, 2), (4, 6), (8, 10)], (1, 9), [(0, 1), (9, 10)], 4),
        ([(0, 2), (4, 6), (8, 10)], (2, 8), [(0, 2), (8, 10)], 2),
    ],
)
def test_subtracting(
    before: list[tuple[int, int]], dropped: tuple[int, int], after: list[tuple[int, int]], gone: int
) -> None:
    subject = RangeSet(before)
    assert subject.subtract(*dropped) == gone
    assert list(subject) == after
    sound(subject)


@pytest.mark.parametrize("method", ["add", "subtract", "covers", "overlaps", "within", "missing"])
@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (5, 4), (0, 0), (-2, -1), (0, 2**63)])
def test_what_is_no_range_is_refused_at_once(method: str, start: int, end: int) -> None:
    """Also by the methods that answer with an iterator: before it is used. Nothing changes."""
    subject = RangeSet([(0, 10)])
    with pytest.raises(ValueError, match="not a range"):
        getattr(subject, method)(start, end)
    assert list(subject) == [(0, 10)]
    with pytest.raises(ValueError, match="not a range"):
        RangeSet([(start, end)])


def test_an_empty_set() -> None:
    subject = RangeSet()
    assert not subject
    assert list(subject) == []
    assert (len(subject), subject.total, subject.prefix) == (0, 0, 0)
    assert list(subject.missing(3, 8)) == [(3, 8)]
    assert list(subject.within(3, 8)) == []
    assert not subject.covers(0, 1)
    assert not subject.overlaps(0, 1)
    assert subject == RangeSet()


def test_the_prefix_begins_at_zero() -> None:
    subject = RangeSet([(1, 10)])
    assert subject.prefix == 0
    subject.add(0, 1)
    assert subject.prefix == 10


def test_other_things_are_not_in_it() -> None:
    subject = RangeSet([(0, 2**63 - 1)])
    assert "0" not in subject
    assert 2**63 - 2 in subject
    assert 2**63 - 1 not in subject
    assert 2**70 not in subject


def test_it_is_equal_to_sets_of_its_kind_only() -> None:
    assert RangeSet([(0, 5)]) != [(0, 5)]
    assert RangeSet([(0, 2), (4, 6)]) != RangeSet([(0, 4)])
    assert RangeSet([(0, 2), (4, 6)]) != RangeSet([(0, 2), (5, 7)])
    with pytest.raises(TypeError):
        hash(RangeSet())


def test_repr_is_short() -> None:
    assert repr(RangeSet()) == "RangeSet([])"
    assert repr(RangeSet([(0, 5), (7, 9)])) == "RangeSet([(0, 5), (7, 9)])"
    many = RangeSet((at, at + 1) for at in range(0, 2000, 2))
    assert repr(many).startswith("<RangeSet of 1000 ranges, 1000 bytes: (0, 1), (2, 3),")
    assert len(repr(many)) < 200


class Counting(RangeSet):
    """Counts the boundaries in the leaves that are rebuilt; what is not counted is changed inside one leaf."""

    __slots__ = ("rebuilt",)

    def __init__(self) -> None:
        self.rebuilt = 0
        super().__init__()

    def _put(self, low: int, high: int, leaf: "array[int]") -> None:
        self.rebuilt += len(leaf)
        super()._put(low, high, leaf)


@pytest.mark.parametrize("leaf_size", [(1024, 128)], ids=["real"], indirect=True)
def test_a_million_ranges_in_random_order(request: pytest.FixtureRequest) -> None:
    """Each is found again, in about 17 bytes, and no addition works on more than a leaf or two."""
    count, granule = 1_000_000, 65536
    order = list(range(count))
    random.Random(request.config.getoption("seed")).shuffle(order)
    subject = Counting()
    assert all(subject.add(2 * at * granule, (2 * at + 1) * granule) == granule for at in order)

    assert len(subject) == count
    assert subject.total == count * granule
    assert all(piece == (2 * at * granule, (2 * at + 1) * granule) for at, piece in enumerate(subject))
    sound(subject)
    assert len(subject._leaves) <= 2 * count // (ranges._FULL // 2 - 2) + 1
    assert sum(map(sys.getsizeof, [*subject._leaves, subject._firsts])) <= 20 * count
    # A full leaf of 1024 is split into halves, which take 256 more ranges before they are full.
    assert subject.rebuilt <= 5 * count

    last = 2 * count * granule
    assert sum(end - start for start, end in subject.missing(0, last)) == count * granule
    assert subject.add(granule, last) == count * granule
    assert list(subject) == [(0, last)]
    assert len(subject._leaves) == 1


def test_leaves_that_ran_empty_are_joined() -> None:
    """A set that shrank by many small steps keeps no more leaves than its ranges need."""
    count = 3000
    subject = RangeSet((10 * at, 10 * at + 5) for at in range(count))
    for at in range(count):
        if at % 100:
            subject.subtract(10 * at, 10 * at + 5)
    sound(subject)
    assert list(subject) == [(10 * at, 10 * at + 5) for at in range(0, count, 100)]
    assert len(subject._leaves) <= 2 * len(subject) // (ranges._SPARSE // 2) + 1
