"""Owners and projects in every catalog."""

import pytest
from tests.support.catalogs import add, become

from holdfast_server.catalog.base import Catalog, Whose
from holdfast_server.uploads.upload import State, Upload

pytestmark = pytest.mark.anyio


def ids(uploads: list[Upload]) -> list[str]:
    return [upload.id for upload in uploads]


async def test_owner_and_project_come_back(catalog: Catalog) -> None:
    upload = await add(catalog, owner="a'lice", project="f\N{LATIN SMALL LETTER U WITH DIAERESIS}r")
    assert await catalog.get(upload.id) == upload
    assert await catalog.whose(upload.id) == Whose(upload.id, upload.owner, upload.project)
    assert await catalog.whose("0" * 32) is None
    stored = await catalog.commit(upload.id, [(0, 5)], now=1.0, expires=None)
    assert (stored.owner, stored.project) == (upload.owner, upload.project)
    (created,) = await catalog.events(0, 10)
    assert (created.owner, created.project) == (upload.owner, upload.project)


@pytest.mark.rule("A-OWNER-1")
async def test_a_list_has_what_is_ones_own_and_what_is_in_ones_projects(catalog: Catalog) -> None:
    mine = await add(catalog, 1, owner="alice")
    await add(catalog, 2, owner="bob")
    shared = await add(catalog, 3, owner="bob", project="films")
    both = await add(catalog, 4, owner="alice", project="films")
    other = await add(catalog, 5, owner="bob", project="alice")
    await add(catalog, 6)
    assert ids(await catalog.list(limit=10, owner="alice", projects=["films"])) == ids([both, shared, mine])
    assert ids(await catalog.list(limit=10, owner="alice")) == ids([both, mine])
    assert ids(await catalog.list(limit=10, projects=["films", "alice"])) == ids([other, both, shared])
    assert await catalog.list(limit=10, projects=[]) == []
    assert await catalog.list(limit=10, owner="carol", projects=["none"]) == []


@pytest.mark.rule("A-OWNER-1")
async def test_such_a_list_is_paged_without_gap_or_repetition(catalog: Catalog) -> None:
    whose = [{"owner": "alice"}, {"owner": "alice", "project": "films"}, {"owner": "bob", "project": "films"}, {}]
    uploads = [await add(catalog, n, created=float(n // 3), **whose[n % 4]) for n in range(24)]
    expected = sorted((u for u in uploads if u.owner), key=lambda u: (u.created, u.id), reverse=True)
    pages: list[Upload] = []
    before = None
    while page := await catalog.list(before=before, limit=4, owner="alice", projects=["films"]):
        assert len(page) <= 4
        pages += page
        before = (page[-1].created, page[-1].id)
    assert ids(pages) == ids(expected)


async def test_such_a_list_of_one_state_has_only_that(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number, owner="alice"), state)
    assert [u.state for u in await catalog.list(state=State.FAILED, limit=9, owner="alice")] == [State.FAILED]
    assert len(await catalog.list(limit=9, owner="alice")) == len(State) - 2
