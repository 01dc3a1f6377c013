"""Quotas in every catalog: what there is, and what more there may be."""

import random
from contextlib import suppress

import anyio
import pytest
from msgspec.structs import replace
from tests.support.catalogs import Opener, add, become, fresh

from holdfast_server.catalog.base import Catalog, CatalogError, OverQuota, Quota
from holdfast_server.uploads.upload import State, Upload

pytestmark = pytest.mark.anyio

LONGEST = 999_999_999_999_999


def counted(upload: Upload) -> tuple[int, int]:
    """What an upload adds to the usage, by the words of Q-UPLOADS-1 and Q-BYTES-1."""
    match upload.state:
        case State.EXPIRED | State.TERMINATED:
            return 0, 0
        case State.FAILED:
            return 1, upload.received
        case State.COMPLETE:
            return 0, upload.received
        case _:
            return 1, upload.received if upload.length is None else upload.length


async def truth(catalog: Catalog, ids: list[str], owner: str | None) -> tuple[int, int]:
    found = [upload for each in ids if (upload := await catalog.get(each)) is not None]
    mine = [counted(upload) for upload in found if owner is None or upload.owner == owner]
    return sum(count for count, _ in mine), sum(size for _, size in mine)


@pytest.mark.rule("Q-UPLOADS-1", "Q-BYTES-1")
async def test_the_usage_is_the_sum_of_the_uploads_whatever_happens_to_them(
    catalog: Catalog, rng: random.Random
) -> None:
    owners = ["alice", "bob", None]
    ids: list[str] = []
    for number in range(300):
        with suppress(CatalogError, ValueError):
            if not ids or rng.random() < 0.2:
                length = rng.choice([None, 0, 1, 1000, LONGEST])
                ids.append((await add(catalog, number, length=length, owner=rng.choice(owners))).id)
                continue
            chosen = rng.choice(ids)
            upload = await catalog.get(chosen)
            if upload is None:
                continue  # purged
            match rng.randrange(4):
                case 0:
                    start = rng.randrange(2000)
                    await catalog.commit(chosen, [(start, start + rng.randrange(500))], now=1.0, expires=None)
                case 1:
                    length = rng.randrange(3000)
                    await catalog.set_length(chosen, length, 65536, room=None, now=1.0, expires=None)
                case 2:
                    await become(catalog, upload, rng.choice(list(State)))
                case _:
                    await catalog.purge(1e9)
    for owner in owners:
        assert await catalog.usage(owner) == await truth(catalog, ids, owner)
    assert await catalog.usage("nobody") == (0, 0)


@pytest.mark.rule("Q-UPLOADS-1")
async def test_uploads_at_once(opener: Opener) -> None:
    async with opener(Quota(uploads=3, owner_uploads=2)) as catalog:
        first = await add(catalog, 1, owner="alice")
        await add(catalog, 2, owner="alice")
        with pytest.raises(OverQuota) as refused:
            await add(catalog, 3, owner="alice")
        error = refused.value
        assert (error.what, error.owner, error.limit, error.used, error.needed) == ("uploads", "alice", 2, 2, 1)
        await add(catalog, 4, owner="bob")
        with pytest.raises(OverQuota) as refused:
            await add(catalog, 5, owner="bob")
        assert refused.value.owner is None
        await become(catalog, first, State.FAILED)
        with pytest.raises(OverQuota):
            await add(catalog, 6, owner="alice")
        await become(catalog, first, State.TERMINATED)
        await add(catalog, 7, owner="alice")
        whole = fresh(8, owner="alice", state=State.COMPLETE, length=5, prefix=5, received=5)
        await catalog.create(whole, room=None)


@pytest.mark.rule("Q-BYTES-1")
async def test_bytes(opener: Opener) -> None:
    async with opener(Quota(stored=5000, owner_stored=2500)) as catalog:
        first = await add(catalog, 1, owner="alice", length=1500)
        assert await catalog.left("alice") == 1000
        with pytest.raises(OverQuota) as refused:
            await add(catalog, 2, owner="alice", length=1001)
        error = refused.value
        assert (error.what, error.owner, error.limit, error.used, error.needed) == ("bytes", "alice", 2500, 1500, 1001)
        await add(catalog, 3, owner="alice", length=1000)
        await add(catalog, 4, owner="alice", length=0)
        await add(catalog, 5, length=2500)
        assert await catalog.left(None) == 0
        with pytest.raises(OverQuota):
            await add(catalog, 6, owner="bob", length=1)
        await catalog.commit(first.id, [(0, 100)], now=1.0, expires=None)
        await become(catalog, first, State.FAILED)
        assert await catalog.left("alice") == 1400
        complete = fresh(7, owner="alice", state=State.COMPLETE, length=1401, prefix=1401, received=1401)
        with pytest.raises(OverQuota):
            await catalog.create(complete, room=None)
        await catalog.create(replace(complete, length=1400, prefix=1400, received=1400), room=None)


@pytest.mark.rule("Q-BYTES-1")
async def test_bytes_of_an_unknown_length_count_as_they_come(opener: Opener) -> None:
    async with opener(Quota(owner_stored=1000)) as catalog:
        upload = await add(catalog, owner="alice", length=None)
        await catalog.commit(upload.id, [(0, 600)], now=1.0, expires=None)
        with pytest.raises(OverQuota):
            await catalog.commit(upload.id, [(600, 1001)], now=1.0, expires=None)
        await catalog.commit(upload.id, [(0, 600), (600, 900)], now=1.0, expires=None)
        with pytest.raises(OverQuota):
            await catalog.set_length(upload.id, 1001, 65536, room=None, now=1.0, expires=None)
        known = await catalog.set_length(upload.id, 1000, 65536, room=None, now=1.0, expires=None)
        await catalog.commit(known.id, [(900, 1000)], now=1.0, expires=None)
        assert await catalog.left("alice") == 0


@pytest.mark.rule("Q-RACE-1")
async def test_quotas_hold_exactly_between_two_that_race(opener: Opener) -> None:
    quota = Quota(uploads=40, owner_stored=20_500)
    async with opener(quota) as one, opener(quota) as other:
        made, refused = [], []

        async def create(catalog: Catalog, number: int) -> None:
            try:
                made.append(await add(catalog, number, owner="alice" if number % 2 else "bob", length=1000))
            except OverQuota as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(create, one if number % 3 else other, number)
        assert len(made) == 40
        assert len(refused) == 60
        assert sum(upload.owner == "alice" for upload in made) <= 20
        assert await one.usage(None) == await other.usage(None) == (40, 40_000)
