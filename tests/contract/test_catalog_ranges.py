"""What every catalog keeps of stored ranges, over each implementation of the port `catalog.base.Catalog`."""

import random

import anyio
import pytest
from tests.support.catalogs import Opener, add, become, fresh

from holdfast_server.catalog import base
from holdfast_server.catalog.base import Catalog
from holdfast_server.uploads.upload import State

pytestmark = pytest.mark.anyio


@pytest.mark.rule("C-OFFSET-1")
async def test_the_prefix_jumps_when_a_hole_closes(catalog: Catalog) -> None:
    upload = await add(catalog)
    after = await catalog.commit(upload.id, [(100, 200)], now=7.0, expires=8.0)
    assert (after.prefix, after.received, after.updated, after.expires) == (0, 100, 7.0, 8.0)
    after = await catalog.commit(upload.id, [(300, 1000)], now=7.0, expires=None)
    assert (after.prefix, after.received, after.expires) == (0, 800, None)
    after = await catalog.commit(upload.id, [(0, 100)], now=7.0, expires=None)
    assert (after.prefix, after.received, after.whole) == (200, 900, False)
    after = await catalog.commit(upload.id, [(200, 300)], now=7.0, expires=None)
    assert (after.prefix, after.received, after.whole) == (1000, 1000, True)
    assert await catalog.get(upload.id) == after
    assert await catalog.stored(upload.id, 0, 1000, 10) == [(0, 1000)]


@pytest.mark.parametrize(
    ("ranges", "stored"),
    [
        ([(0, 10), (10, 20)], [(0, 20)]),
        ([(10, 20), (0, 10)], [(0, 20)]),
        ([(10, 20), (10, 20)], [(10, 20)]),
        ([(10, 20), (12, 15)], [(10, 20)]),
        ([(12, 15), (10, 20)], [(10, 20)]),
        ([(10, 20), (15, 30)], [(10, 30)]),
        ([(10, 20), (5, 15)], [(5, 20)]),
        ([(10, 20), (30, 40), (20, 30)], [(10, 40)]),
        ([(10, 20), (30, 40), (50, 60), (15, 55)], [(10, 60)]),
        ([(10, 20), (30, 40), (50, 60), (5, 65)], [(5, 65)]),
        ([(10, 20), (30, 40), (50, 60), (21, 49)], [(10, 20), (21, 49), (50, 60)]),
        ([(10, 20), (22, 30), (10, 21)], [(10, 21), (22, 30)]),
        ([(5, 5)], []),
        ([(0, 1000)], [(0, 1000)]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_ranges_merge_with_what_they_overlap_or_touch(
    catalog: Catalog, ranges: list[tuple[int, int]], stored: list[tuple[int, int]], at_once: bool
) -> None:
    upload = await add(catalog)
    for part in [ranges] if at_once else [[each] for each in ranges]:
        await catalog.commit(upload.id, part, now=1.0, expires=None)
    assert await catalog.stored(upload.id, 0, 1000, 100) == stored
    after = await catalog.get(upload.id)
    assert after is not None
    assert after.received == sum(end - start for start, end in stored)
    assert after.prefix == (stored[0][1] if stored and stored[0][0] == 0 else 0)


async def test_the_ranges_of_one_upload_are_not_those_of_another(catalog: Catalog) -> None:
    uploads = [await add(catalog, number) for number in range(3)]
    for number, upload in enumerate(uploads):
        await catalog.commit(upload.id, [(number * 10, 100)], now=1.0, expires=None)
    for number, upload in enumerate(uploads):
        assert await catalog.stored(upload.id, 0, 1000, 10) == [(number * 10, 100)]
        assert await catalog.missing(upload.id, 50, 1000, 10) == ([(100, 1000)], False)


@pytest.mark.parametrize("bad", [(-1, 5), (5, 4), (0, 1001), (1001, 1001)])
async def test_a_range_outside_the_upload_leaves_nothing_of_its_commit(catalog: Catalog, bad: tuple[int, int]) -> None:
    upload = await add(catalog)
    with pytest.raises(ValueError, match="not a range"):
        await catalog.commit(upload.id, [(0, 10), bad], now=1.0, expires=None)
    assert await catalog.get(upload.id) == upload
    assert await catalog.stored(upload.id, 0, 1000, 10) == []


@pytest.mark.parametrize("state", sorted(set(State) - {State.RECEIVING}))
async def test_only_an_upload_that_is_receiving_takes_bytes(catalog: Catalog, state: State) -> None:
    upload = await become(catalog, await add(catalog), state)
    with pytest.raises(base.NotReceiving) as caught:
        await catalog.commit(upload.id, [(0, 10)], now=1.0, expires=None)
    assert caught.value.upload == upload == await catalog.get(upload.id)


async def test_an_upload_that_is_not_here_takes_no_bytes(catalog: Catalog) -> None:
    with pytest.raises(base.NotReceiving) as caught:
        await catalog.commit(fresh().id, [(0, 10)], now=1.0, expires=None)
    assert caught.value.upload is None


def runs(present: list[bool]) -> list[tuple[int, int]]:
    """The runs of True, found byte by byte."""
    found: list[tuple[int, int]] = []
    for offset, is_there in enumerate(present):
        if not is_there:
            continue
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


async def test_ranges_and_gaps_agree_with_a_plain_array(catalog: Catalog, rng: random.Random) -> None:
    """Random commits into 200 bytes; after each, windows of it are compared with an array that has one flag a byte."""
    length = 200
    upload = await add(catalog, length=length)
    present = [False] * length
    while not all(present):
        ranges = []
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(length)
            ranges.append((start, min(length, start + rng.choice([1, 2, 3, 20]))))
            present[ranges[-1][0] : ranges[-1][1]] = [True] * (ranges[-1][1] - ranges[-1][0])
        after = await catalog.commit(upload.id, ranges, now=1.0, expires=None)
        assert after.received == sum(present)
        assert after.prefix == (present.index(False) if not all(present) else length)

        start, end = sorted(rng.sample(range(length + 1), 2))
        limit = rng.choice([1, 2, 5, 500])
        window = [start <= offset < end and is_there for offset, is_there in enumerate(present)]
        assert await catalog.stored(upload.id, start, end, limit) == runs(window)[:limit]
        holes = runs([start <= offset < end and not is_there for offset, is_there in enumerate(present)])
        assert await catalog.missing(upload.id, start, end, limit) == (holes[:limit], len(holes) > limit)
    assert await catalog.stored(upload.id, 0, length, 10) == [(0, length)]


async def test_commits_at_once_count_each_byte_once(opener: Opener, rng: random.Random) -> None:
    """Two connections and many tasks commit all pieces of an upload, each piece twice, in random order."""
    pieces = [(start, start + 10) for start in range(0, 1000, 10)] * 2
    rng.shuffle(pieces)
    async with opener() as one, opener() as two:
        upload = await add(one)

        async def commit(catalog: Catalog, ranges: list[tuple[int, int]]) -> None:
            for each in ranges:
                await catalog.commit(upload.id, [each], now=1.0, expires=None)

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(commit, (one, two)[number % 2], pieces[number::8])
        after = await two.get(upload.id)
        assert after is not None
        assert (after.prefix, after.received) == (1000, 1000)
        assert await two.stored(upload.id, 0, 1000, 10) == [(0, 1000)]


@pytest.mark.rule("P-STATE-1")
async def test_gaps_are_clipped_to_the_length_and_tell_of_more(catalog: Catalog) -> None:
    upload = await add(catalog)
    assert await catalog.missing(upload.id, 0, 10**18, 5) == ([(0, 1000)], False)
    assert await catalog.missing(upload.id, 1000, 2000, 5) == ([], False)
    await catalog.commit(upload.id, [(start, start + 10) for start in range(0, 1000, 100)], now=1.0, expires=None)
    assert await catalog.missing(upload.id, 0, 1000, 2) == ([(10, 100), (110, 200)], True)
    assert await catalog.missing(upload.id, 200, 400, 2) == ([(210, 300), (310, 400)], False)
    assert await catalog.missing(upload.id, 205, 210, 2) == ([], False)
    assert await catalog.missing(upload.id, 205, 250, 2) == ([(210, 250)], False)


async def test_ranges_of_an_upload_that_is_not_here(catalog: Catalog) -> None:
    assert await catalog.stored(fresh().id, 0, 10, 10) == []
    with pytest.raises(base.UnknownUpload):
        await catalog.missing(fresh().id, 0, 10, 10)


async def test_what_a_writer_has_to_know_comes_at_once(catalog: Catalog) -> None:
    """The upload, the newest fence, and the first stored range in its way, clipped to what it asks for."""
    upload = await add(catalog)
    assert await catalog.standing(upload.id, 0, 1000) == base.Standing(upload, 0, None)
    await catalog.commit(upload.id, [(100, 200)], now=7.0, expires=8.0)
    after = await catalog.commit(upload.id, [(300, 400)], now=7.0, expires=8.0)
    fence = await catalog.fence(upload.id, 0, 10, now=1.0)
    for asked, first in [
        ((0, 100), None),
        ((0, 101), (100, 101)),
        ((0, 1 << 50), (100, 200)),
        ((150, 1000), (150, 200)),
        ((200, 1000), (300, 400)),
        ((400, 1000), None),
    ]:
        assert await catalog.standing(upload.id, *asked) == base.Standing(after, fence, first)
    assert await catalog.standing(fresh(2).id, 0, 1000) == base.Standing(None, fence, None)
