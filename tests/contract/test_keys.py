"""Keys of creations in every catalog: what was asked for by one is there once."""

import anyio
import pytest
from tests.support.catalogs import Opener, become, fresh

from holdfast_server.catalog.base import Asked, Catalog, OverQuota, Quota
from holdfast_server.uploads.upload import State

pytestmark = [pytest.mark.anyio, pytest.mark.rule("K-KEY-1")]


async def test_what_was_asked_for_is_found_as_it_is_now(catalog: Catalog) -> None:
    await catalog.create(fresh(1), room=None, asked="a")
    await catalog.create(fresh(2), room=None, asked="b")
    await catalog.create(fresh(3), room=None)
    now = await catalog.commit(fresh(1).id, [(0, 7)], now=1.0, expires=None)
    with pytest.raises(Asked) as caught:
        await catalog.create(fresh(4), room=None, asked="a")
    assert caught.value.upload == now
    assert await catalog.get(fresh(4).id) is None


@pytest.mark.parametrize("state", list(State))
async def test_one_that_is_no_more_can_be_asked_for_anew(catalog: Catalog, state: State) -> None:
    await catalog.create(fresh(1), room=None, asked="a")
    upload = await catalog.get(fresh(1).id)
    assert upload is not None
    if state is not State.RECEIVING:
        await become(catalog, upload, state)
    if state in (State.FAILED, State.EXPIRED, State.TERMINATED):
        await catalog.create(fresh(2), room=None, asked="a")
    with pytest.raises(Asked):
        await catalog.create(fresh(3), room=None, asked="a")


async def test_a_complete_one_is_asked_for_too(catalog: Catalog) -> None:
    whole = fresh(1, state=State.COMPLETE, prefix=1000, received=1000)
    await catalog.create(whole, room=None, asked="a")
    with pytest.raises(Asked) as caught:
        await catalog.create(fresh(2, state=State.COMPLETE, prefix=1000, received=1000), room=None, asked="a")
    assert caught.value.upload == whole


@pytest.mark.rule("K-KEY-3")
async def test_asking_again_needs_no_room_and_no_quota(opener: Opener) -> None:
    async with opener(Quota(uploads=1)) as catalog:
        await catalog.create(fresh(1), room=1000, asked="a")
        with pytest.raises(Asked):
            await catalog.create(fresh(2), room=0, asked="a")
        with pytest.raises(OverQuota):
            await catalog.create(fresh(2), room=None, asked="b")


async def test_of_many_that_ask_at_once_one_makes_it(opener: Opener) -> None:
    """From two processes, as it were."""
    made, found = [], []
    async with opener() as one, opener() as other, anyio.create_task_group() as group:

        async def ask(catalog: Catalog, number: int) -> None:
            try:
                await catalog.create(fresh(number), room=None, asked="a")
                made.append(fresh(number).id)
            except Asked as known:
                found.append(known.upload.id)

        for number in range(1, 41):
            group.start_soon(ask, (one, other)[number % 2], number)
    assert len(made) == 1
    assert found == made * 39
