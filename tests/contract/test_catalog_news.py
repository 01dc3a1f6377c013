"""What live progress asks of a catalog: the log that is trimmed, failures, samples, and what is moving."""

import itertools

import pytest
from msgspec.structs import replace
from tests.support.catalogs import Opener, add, become, fresh

from holdfast_server.catalog.base import Catalog, Sample, Tally, UnknownUpload, Watched
from holdfast_server.uploads.upload import State

pytestmark = pytest.mark.anyio

ALL = Watched(all=True)


def sample(number: int, at: float, **changes: object) -> Sample:
    return replace(Sample(fresh(number).id, at, State.RECEIVING, "receiving", 10, 5, 1.5, 0, 0), **changes)


async def test_a_log_has_a_name_that_stays(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        first = await one.log()
        assert (first.floor, first.head) == (0, 0)
        assert int(first.epoch, 16) >= 0
        await add(one)
        assert (await two.log()) == replace(first, head=await one.event_head())
    async with opener() as again:
        assert (await again.log()).epoch == first.epoch


async def test_events_can_be_asked_for_by_whose_they_are(catalog: Catalog) -> None:
    await add(catalog, 1, owner="ada", project="films")
    await add(catalog, 2, owner="bob", project="films")
    await add(catalog, 3, owner="bob")
    await add(catalog, 4)

    async def found(of: Watched | None) -> list[int]:
        return [int(event.upload, 16) for event in await catalog.events(0, 10, of)]

    assert await found(None) == await found(ALL) == [1, 2, 3, 4]
    assert await found(Watched(owners=frozenset({"bob"}))) == [2, 3]
    assert await found(Watched(projects=frozenset({"films"}))) == [1, 2]
    assert await found(Watched(uploads=frozenset({fresh(4).id}), owners=frozenset({"ada"}))) == [1, 4]
    assert await found(Watched()) == await found(Watched(owners=frozenset({"all", "films"}))) == []
    event = (await catalog.events(0, 1))[0]
    assert (event.owner, event.project) == ("ada", "films")


async def test_the_log_is_trimmed_at_its_old_end_by_age_and_by_number(catalog: Catalog) -> None:
    for number in range(1, 11):
        await add(catalog, number)  # created at that second
    assert await catalog.trim(0.0, 10) == 0
    assert await catalog.trim(4.0, 10) == 3
    log = await catalog.log()
    assert (log.floor, log.head) == (3, 10)
    assert [event.at for event in await catalog.events(log.floor, 100)] == [4, 5, 6, 7, 8, 9, 10]
    assert await catalog.trim(0.0, 2) == 5
    assert (await catalog.log()).floor == 8
    assert await catalog.trim(1e9, 100) == 2
    assert await catalog.events(0, 100) == []
    assert (await catalog.log()) == replace(log, floor=10)
    await add(catalog, 11)
    assert await catalog.event_head() == 11


async def test_more_than_is_taken_at_once_is_trimmed(catalog: Catalog) -> None:
    upload = await add(catalog)
    for _ in range(600):
        await become(catalog, upload, State.FAILED)
    assert await catalog.trim(0.0, 1) == 600
    assert len(await catalog.events(0, 10)) == 1


async def test_failures_are_counted_and_what_follows_tries_again(catalog: Catalog) -> None:
    upload = await add(catalog)
    head = await catalog.event_head()
    failed = await catalog.record_failure(upload.id, now=3.0)
    assert failed == replace(upload, errors=1, retries=0) == await catalog.get(upload.id)
    again = await catalog.record_failure(upload.id, now=4.0)
    assert (again.errors, again.retries) == (2, 1)
    stored = await catalog.commit(upload.id, [(0, 10)], now=5.0, expires=None)
    assert (stored.errors, stored.retries) == (2, 2)
    assert stored == await catalog.get(upload.id)
    assert await catalog.event_head() == head
    with pytest.raises(UnknownUpload):
        await catalog.record_failure(fresh(2).id, now=1.0)


async def test_samples_come_back_as_they_were(catalog: Catalog) -> None:
    await add(catalog, 1)
    await add(catalog, 2)
    first, second = sample(1, 10.0), sample(1, 20.0, step=None, speed=None, errors=3, retries=2)
    await catalog.add_samples([first, sample(2, 10.0), sample(3, 10.0)], most=100)
    await catalog.add_samples([second], most=100)
    assert await catalog.samples(fresh(1).id, 10) == [first, second]
    assert await catalog.samples(fresh(1).id, 1) == [second]
    assert await catalog.samples(fresh(2).id, 10) == [sample(2, 10.0)]
    assert await catalog.samples(fresh(3).id, 10) == []


async def test_samples_that_are_too_close_are_left_out_but_never_the_end(catalog: Catalog) -> None:
    await add(catalog, 1)
    for at in (10.0, 10.1, 10.95, 11.0):
        await catalog.add_samples([sample(1, at)], most=100)
    assert [each.at for each in await catalog.samples(fresh(1).id, 10)] == [10.0, 10.95]
    end = sample(1, 11.1, state=State.COMPLETE)
    await catalog.add_samples([end], most=100)
    assert await catalog.samples(fresh(1).id, 10) == [sample(1, 10.0), end]


async def test_samples_are_bounded_and_cover_all_of_the_time(catalog: Catalog) -> None:
    await add(catalog, 1)
    for second in range(1000):
        await catalog.add_samples([sample(1, float(second))], most=20)
        assert len(await catalog.samples(fresh(1).id, 100)) <= 20
    times = [each.at for each in await catalog.samples(fresh(1).id, 100)]
    assert times[0] == 0.0
    assert times[-1] > 900
    assert max(after - before for before, after in itertools.pairwise(times)) < 150


async def test_old_samples_are_dropped(catalog: Catalog) -> None:
    await add(catalog, 1)
    for second in range(0, 2000, 2):
        await catalog.add_samples([sample(1, float(second))], most=100_000)
    assert len(await catalog.samples(fresh(1).id, 10_000)) == 1000
    assert await catalog.drop_samples(1998.0) == 999
    assert [each.at for each in await catalog.samples(fresh(1).id, 10)] == [1998.0]


async def test_what_is_moving_comes_by_when_it_was_touched(catalog: Catalog) -> None:
    for number in (1, 2, 3, 4):
        await add(catalog, number, project="films" if number % 2 else None)
    await catalog.commit(fresh(1).id, [(0, 10)], now=100.0, expires=None)
    await become(catalog, await add(catalog, 5), State.FAILED)

    async def found(of: Watched, limit: int) -> list[int]:
        return [int(upload.id, 16) for upload in await catalog.moving(of, limit)]

    assert await found(ALL, 10) == [1, 4, 3, 2]
    assert await found(ALL, 2) == [1, 4]
    assert await found(Watched(projects=frozenset({"films"})), 10) == [1, 3]
    assert await found(Watched(uploads=frozenset({fresh(5).id, fresh(2).id})), 10) == [2]


async def test_uploads_are_counted_by_state(catalog: Catalog) -> None:
    assert await catalog.tally() == []
    await add(catalog, 1, owner="ada", length=10**17)
    await add(catalog, 2, owner="bob", length=None)
    await catalog.commit(fresh(2).id, [(0, 5)], now=1.0, expires=None)
    await become(catalog, await add(catalog, 3, owner="bob"), State.COMPLETE)
    assert sorted(await catalog.tally(), key=lambda each: each.state) == [
        Tally(State.COMPLETE, 1, 1000, 1000),
        Tally(State.RECEIVING, 2, 5, 10**17),
    ]
    assert await catalog.tally(Watched(owners=frozenset({"ada"}))) == [Tally(State.RECEIVING, 1, 0, 10**17)]
