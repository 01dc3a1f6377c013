"""Grants in every catalog: how many uploads one may make."""

import anyio
import pytest
from tests.support.catalogs import Opener, become, fresh

from holdfast_server.catalog.base import Catalog, Spent, Use
from holdfast_server.uploads.upload import State

pytestmark = [pytest.mark.anyio, pytest.mark.rule("A-SIGN-4")]

TWO = Use("grant", 2, 100.0)


async def make(catalog: Catalog, number: int, use: Use = TWO) -> None:
    await catalog.create(fresh(number), room=None, use=use)


async def test_it_makes_as_many_as_it_says(catalog: Catalog) -> None:
    for number in (1, 2):
        await make(catalog, number)
        await catalog.commit(fresh(number).id, [(0, 1)], now=1.0, expires=None)
    with pytest.raises(Spent) as caught:
        await make(catalog, 3)
    assert caught.value.empty is None
    assert await catalog.get(fresh(3).id) is None
    await make(catalog, 3, Use("other", 1, 100.0))


async def test_the_oldest_empty_one_is_named(catalog: Catalog) -> None:
    await make(catalog, 1)
    await make(catalog, 2)
    with pytest.raises(Spent) as caught:
        await make(catalog, 3)
    assert caught.value.empty == fresh(1).id
    await catalog.commit(fresh(1).id, [(0, 1)], now=1.0, expires=None)
    with pytest.raises(Spent) as caught:
        await make(catalog, 3)
    assert caught.value.empty == fresh(2).id


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("received", [0, 5])
async def test_only_one_that_was_removed_empty_does_not_count(catalog: Catalog, state: State, received: int) -> None:
    one = Use("grant", 1, 100.0)
    await make(catalog, 1, one)
    if received:
        await catalog.commit(fresh(1).id, [(0, received)], now=1.0, expires=None)
    upload = await catalog.get(fresh(1).id)
    assert upload is not None
    if state is not State.RECEIVING:
        await become(catalog, upload, state)
    for_good = received > 0 or state not in (State.RECEIVING, State.EXPIRED, State.TERMINATED)
    assert await catalog.used(one.grant) == for_good
    if state in (State.EXPIRED, State.TERMINATED) and not received:
        await make(catalog, 2, one)
    else:
        with pytest.raises(Spent):
            await make(catalog, 2, one)


async def test_a_use_can_be_given_back(catalog: Catalog) -> None:
    one = Use("grant", 1, 100.0)
    await make(catalog, 1, one)
    await catalog.commit(fresh(1).id, [(0, 5)], now=1.0, expires=None)
    await catalog.release(fresh(1).id)
    await make(catalog, 2, one)


async def test_a_use_outlives_the_memory_of_the_upload_but_not_the_grant(catalog: Catalog) -> None:
    one = Use("grant", 1, 100.0)
    await make(catalog, 1, one)
    upload = await catalog.commit(fresh(1).id, [(0, 5)], now=1.0, expires=None)
    await become(catalog, upload, State.TERMINATED)
    assert await catalog.purge(90.0) == 1
    assert await catalog.used(one.grant) == 1
    with pytest.raises(Spent):
        await make(catalog, 2, one)
    await catalog.purge(101.0)
    await make(catalog, 2, one)


async def test_creations_at_once_are_counted_together(opener: Opener) -> None:
    refused: list[int] = []

    async def attempt(catalog: Catalog, number: int) -> None:
        try:
            await make(catalog, number, Use("grant", 3, 100.0))
        except Spent:
            refused.append(number)

    async with opener() as one, opener() as two, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(attempt, one, number)
            tasks.start_soon(attempt, two, number + 10)
        del tasks
    assert len(refused) == 17
