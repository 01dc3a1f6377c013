"""What every catalog keeps of uploads, states and events, over each implementation of `catalog.base.Catalog`."""

import anyio
import pytest
from msgspec.structs import replace
from tests.support.catalogs import Opener, add, become, fresh, told

from holdfast_protocol.digest import Digest
from holdfast_server.catalog import base
from holdfast_server.catalog.base import Catalog, Event, Fence
from holdfast_server.uploads.upload import State, Upload

pytestmark = pytest.mark.anyio

RECEIVING, VERIFYING, COMPLETE = State.RECEIVING, State.VERIFYING, State.COMPLETE
FAILED, EXPIRED, TERMINATED = State.FAILED, State.EXPIRED, State.TERMINATED
SHA = Digest("sha-256", bytes(range(32)))
XXH = Digest("xxh3-128", bytes(range(16)))


# creating and reading


@pytest.mark.parametrize(
    "upload",
    [
        fresh(),
        fresh(
            length=999_999_999_999_999_999,
            parallel=False,
            granule=1 << 44,
            metadata="filename ZsO8,x ",
            name="f\N{LATIN SMALL LETTER U WITH DIAERESIS} 'x';--.txt",
            created=1.25,
            updated=2.5,
            expires=1e10 + 0.125,
            expected=(SHA, XXH),
            wanted="sha-256",
        ),
        fresh(length=0, state=COMPLETE, metadata="", computed=(SHA,)),
    ],
)
async def test_an_upload_comes_back_as_it_was_created(catalog: Catalog, upload: Upload) -> None:
    await catalog.create(upload, room=None)
    assert await catalog.get(upload.id) == upload


async def test_an_upload_that_is_not_here_is_none(catalog: Catalog) -> None:
    await add(catalog)
    assert await catalog.get(fresh(2).id) is None
    assert await catalog.get("") is None


async def test_an_id_is_given_once(catalog: Catalog) -> None:
    upload = await add(catalog)
    with pytest.raises(base.Duplicate):
        await catalog.create(replace(upload, length=5), room=None)
    assert await catalog.get(upload.id) == upload
    assert [event.type for event in await catalog.events(0, 10)] == ["created"]


async def test_a_new_upload_cannot_claim_bytes(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="no bytes"):
        await catalog.create(fresh(received=1), room=None)
    assert await catalog.get(fresh().id) is None


async def test_an_upload_that_came_in_one_piece_is_complete_at_once(catalog: Catalog) -> None:
    """Its bytes and both of its events are there with it, and nothing of it is still to come."""
    upload = fresh(length=10, state=COMPLETE, prefix=10, received=10, computed=(SHA,))
    await catalog.create(upload, room=10)
    assert await catalog.get(upload.id) == upload
    assert await catalog.stored(upload.id, 0, 10, 5) == [(0, 10)]
    assert await catalog.coming() == 0
    created, complete = await catalog.events(0, 10)
    assert (created.type, created.data["state"]) == ("created", "receiving")
    assert (created.data["received"], created.data["prefix"], created.data["previous"]) == (0, 0, None)
    assert (complete.type, complete.data) == ("complete", told(upload, RECEIVING))


@pytest.mark.parametrize("received", [0, 9])
async def test_a_new_upload_is_not_complete_without_all_of_its_bytes(catalog: Catalog, received: int) -> None:
    with pytest.raises(ValueError, match="all of them"):
        await catalog.create(fresh(length=10, state=COMPLETE, prefix=received, received=received), room=None)
    assert await catalog.get(fresh().id) is None


async def test_the_last_bytes_and_the_state_are_one_change(catalog: Catalog) -> None:
    """`verify` asks for `verifying` as soon as every byte is stored, and for nothing before that."""
    upload = await add(catalog, length=10)
    first = await catalog.commit(upload.id, [(0, 5)], now=3.0, expires=4.0, verify=True)
    assert first.state is RECEIVING
    last = await catalog.commit(upload.id, [(5, 10)], now=5.0, expires=6.0, verify=True)
    assert last == await catalog.get(upload.id)
    assert (last.state, last.prefix, last.updated) == (VERIFYING, 10, 5.0)
    _, changed = await catalog.events(0, 10)
    assert (changed.type, changed.at) == ("verifying", 5.0)
    assert changed.data == told(last, RECEIVING)
    with pytest.raises(base.NotReceiving):
        await catalog.commit(upload.id, [(0, 10)], now=7.0, expires=None)


async def test_everything_is_there_when_it_is_opened_again(opener: Opener) -> None:
    async with opener() as catalog:
        upload = await add(catalog)
        stored = await catalog.commit(upload.id, [(0, 10), (20, 30)], now=3.0, expires=4.0)
        number = await catalog.fence(upload.id, 5, 6, now=3.0)
    async with opener() as catalog:
        assert await catalog.get(upload.id) == stored
        assert await catalog.stored(upload.id, 0, 1000, 10) == [(0, 10), (20, 30)]
        assert [event.type for event in await catalog.events(0, 10)] == ["created"]
        assert await catalog.fences(0) == [Fence(number, upload.id, 5, 6)]


async def test_after_closing_every_call_says_so(opener: Opener) -> None:
    async with opener() as catalog:
        upload = await add(catalog)
    await catalog.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await catalog.get(upload.id)
    with pytest.raises(anyio.ClosedResourceError):
        await catalog.commit(upload.id, [], now=1.0, expires=None)
    with pytest.raises(anyio.ClosedResourceError):
        catalog.version()


async def test_what_was_begun_before_closing_is_finished(opener: Opener) -> None:
    async with opener() as catalog, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(add, catalog, number)
        await anyio.wait_all_tasks_blocked()
        await catalog.aclose()
    async with opener() as catalog:
        assert len(await catalog.list(limit=100)) == 20


# room


@pytest.mark.rule("T-CREATE-2")
async def test_what_others_have_coming_counts_against_the_room(catalog: Catalog) -> None:
    await catalog.create(fresh(1, length=600), room=1000)
    with pytest.raises(base.NoRoom) as caught:
        await catalog.create(fresh(2, length=401), room=1000)
    assert (caught.value.needed, caught.value.free) == (401, 400)
    assert await catalog.get(fresh(2).id) is None
    await catalog.create(fresh(2, length=400), room=1000)
    with pytest.raises(base.NoRoom) as caught:
        await catalog.create(fresh(3, length=1), room=900)
    assert caught.value.free == 0


@pytest.mark.rule("T-CREATE-2")
async def test_without_a_room_nothing_is_counted(catalog: Catalog) -> None:
    await catalog.create(fresh(1, length=10**17), room=None)
    assert await catalog.get(fresh(1).id) is not None


@pytest.mark.rule("T-DEFER-2", "T-DEFER-3")
async def test_a_length_is_written_down_once(catalog: Catalog) -> None:
    """Until then nothing is counted as coming; then what is missing must fit, and counts."""
    await catalog.create(fresh(1, length=None), room=0)
    upload = await catalog.commit(fresh(1).id, [(0, 300)], now=2.0, expires=5.0)
    assert (upload.length, upload.prefix, upload.whole) == (None, 300, False)
    assert await catalog.missing(upload.id, 0, 1000, 10) == ([(300, 1000)], False)
    assert await catalog.coming() == 0

    async def say(length: int, room: int | None = 1000) -> Upload:
        return await catalog.set_length(upload.id, length, 65536, room=room, now=3.0, expires=6.0)

    with pytest.raises(ValueError, match="stored up to 300"):
        await say(299)
    with pytest.raises(base.NoRoom) as caught:
        await say(1301)
    assert (caught.value.needed, caught.value.free) == (1001, 1000)
    await become(catalog, upload, FAILED)
    with pytest.raises(ValueError, match="bytes are stored"):
        await catalog.transition(upload.id, sources={FAILED}, to=VERIFYING, now=3.0, expires=None, event="e")
    with pytest.raises(base.NotReceiving):
        await say(1300)
    await become(catalog, upload, RECEIVING)
    upload = await say(1300)
    assert (upload.length, upload.updated, upload.expires) == (1300, 3.0, 6.0)
    assert upload == await catalog.get(upload.id)
    assert await catalog.coming() == 1000
    assert await say(1300) == upload
    with pytest.raises(ValueError, match="the length is 1300 already"):
        await say(1299)
    await catalog.commit(upload.id, [(300, 400)], now=4.0, expires=None)
    assert await catalog.coming() == 900


@pytest.mark.rule("T-CONCAT-2", "T-CONCAT-3")
async def test_parts_are_known_in_order(catalog: Catalog) -> None:
    one, two = [await add(catalog, number, concat="partial") for number in (1, 2)]
    final = fresh(3, concat="final;two one two", length=None)
    await catalog.create(final, room=0, parts=(two.id, one.id, two.id))
    assert await catalog.get(final.id) == final
    assert await catalog.parts(final.id) == [two, one, two]
    assert await catalog.parts(one.id) == []
    assert await catalog.finals(two.id) == [final.id]
    assert await catalog.finals(final.id) == []
    await become(catalog, final, State.TERMINATED)
    assert await catalog.finals(two.id) == []
    assert await catalog.parts(final.id) == []


@pytest.mark.rule("T-CONCAT-2")
async def test_parts_and_finals_expire_in_order(catalog: Catalog) -> None:
    """A part waits for its final, which waits for the last of its parts."""
    one = await add(catalog, 1, concat="partial", expires=10.0)
    two = await add(catalog, 2, concat="partial", expires=30.0)
    final = fresh(3, concat="final;one two", length=None, expires=20.0)
    await catalog.create(final, room=None, parts=(one.id, two.id))
    alone = await add(catalog, 4, concat="partial", expires=10.0)
    assert await catalog.expired(25.0, 10) == [alone]
    assert await catalog.expired(30.0, 10) == [alone, final]
    await become(catalog, final, FAILED, expires=None)
    assert await catalog.expired(30.0, 10) == [one, alone, two]


async def test_an_empty_upload_always_fits(catalog: Catalog) -> None:
    await add(catalog, 1, length=5000)
    await catalog.create(fresh(2, length=0), room=1000)
    assert await catalog.get(fresh(2).id) is not None


async def room_left(catalog: Catalog, room: int) -> int:
    with pytest.raises(base.NoRoom) as caught:
        await catalog.create(fresh(999, length=10**17), room=room)
    return caught.value.free


@pytest.mark.rule("T-CREATE-2")
async def test_only_bytes_still_to_come_take_room(catalog: Catalog) -> None:
    upload = await add(catalog, length=600)
    assert await room_left(catalog, 1000) == 400
    await catalog.commit(upload.id, [(0, 50), (100, 150)], now=1.0, expires=None)
    assert await room_left(catalog, 1000) == 500
    await catalog.commit(upload.id, [(0, 150)], now=1.0, expires=None)
    assert await room_left(catalog, 1000) == 550


@pytest.mark.parametrize("state", [VERIFYING, COMPLETE, FAILED, EXPIRED, TERMINATED])
async def test_an_upload_that_receives_no_more_takes_no_room(catalog: Catalog, state: State) -> None:
    upload = await add(catalog, length=600)
    await become(catalog, upload, state)
    assert await room_left(catalog, 1000) == 1000
    await catalog.purge(1e9)
    assert await room_left(catalog, 1000) == 1000


async def test_an_upload_that_receives_again_takes_its_room_again(catalog: Catalog) -> None:
    upload = await add(catalog, length=600)
    await catalog.commit(upload.id, [(0, 100)], now=1.0, expires=None)
    await become(catalog, upload, FAILED)
    await become(catalog, upload, RECEIVING)
    assert await room_left(catalog, 1000) == 500


async def test_many_of_the_greatest_length_can_be_counted(catalog: Catalog) -> None:
    length = 999_999_999_999_999_999
    for number in range(12):
        await add(catalog, number, length=length)
    assert await room_left(catalog, 12 * length + 77) == 77
    for number in range(12):
        await become(catalog, fresh(number), FAILED)
    assert await room_left(catalog, 1000) == 1000


@pytest.mark.rule("T-CREATE-2")
async def test_creations_at_once_cannot_slip_through_together(opener: Opener) -> None:
    refused = []

    async def create(catalog: Catalog, number: int) -> None:
        try:
            await catalog.create(fresh(number, length=100), room=550)
        except base.NoRoom:
            refused.append(number)

    async with opener() as one, opener() as two:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(create, one, number)
                tasks.start_soon(create, two, number + 10)
        assert len(refused) == 15
        assert len(await one.list(limit=100)) == 5


# lists


async def test_lists_are_newest_first_and_paged_without_gap_or_repetition(catalog: Catalog) -> None:
    # Many at one instant: then the id decides.
    uploads = [await add(catalog, number, created=float(number // 4)) for number in range(20)]
    pages: list[Upload] = []
    before = None
    while page := await catalog.list(before=before, limit=3):
        assert len(page) <= 3
        pages += page
        before = (page[-1].created, page[-1].id)
    assert pages == sorted(uploads, key=lambda upload: (upload.created, upload.id), reverse=True)


async def test_a_list_of_one_state_has_only_that(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number), state)
    for number, state in enumerate(State):
        assert [upload.id for upload in await catalog.list(state=state, limit=10)] == [fresh(number).id]
        assert [upload.id for upload in await catalog.list(state=state, before=(99.0, ""), limit=10)] == [
            fresh(number).id
        ]
        assert await catalog.list(state=state, before=(0.0, ""), limit=10) == []


async def test_a_list_of_all_leaves_out_tombstones(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number), state)
    listed = {upload.state for upload in await catalog.list(limit=10)}
    assert listed == set(State) - {EXPIRED, TERMINATED}


async def test_states_of_many_at_once(catalog: Catalog) -> None:
    uploads = [await add(catalog, number) for number in range(3)]
    await become(catalog, uploads[1], TERMINATED)
    ids = [upload.id for upload in uploads]
    assert await catalog.states([*ids, fresh(77).id, "'"]) == dict(
        zip(ids, [RECEIVING, TERMINATED, RECEIVING], strict=True)
    )
    assert await catalog.states([]) == {}


async def test_unfinished_are_those_that_a_restart_has_to_look_at(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number), state)
    assert [upload.state for upload in await catalog.unfinished()] == [RECEIVING, VERIFYING]


async def test_expired_are_those_whose_time_is_over_and_whose_bytes_are_there(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number, expires=100.0 - number), state)
        await become(catalog, await add(catalog, number + 10, expires=None), state)
    assert await catalog.expired(93.0, 10) == []
    assert [u.state for u in await catalog.expired(99.0, 10)] == [FAILED, COMPLETE]
    assert [u.state for u in await catalog.expired(100.0, 10)] == [FAILED, COMPLETE, RECEIVING]
    assert [u.state for u in await catalog.expired(1e9, 2)] == [FAILED, COMPLETE]


async def test_a_commit_moves_the_expiry_on(catalog: Catalog) -> None:
    upload = await add(catalog, expires=10.0)
    assert len(await catalog.expired(20.0, 10)) == 1
    await catalog.commit(upload.id, [], now=5.0, expires=30.0)
    assert await catalog.expired(20.0, 10) == []
    assert len(await catalog.expired(30.0, 10)) == 1


# states


async def test_a_transition_changes_the_state_and_says_so_in_the_log(catalog: Catalog) -> None:
    upload = await add(catalog, length=10, expires=9.0, expected=(SHA,))
    whole = await catalog.commit(upload.id, [(0, 10)], now=2.0, expires=9.0)
    verifying = await catalog.transition(
        upload.id, sources={RECEIVING}, to=VERIFYING, now=3.0, expires=12.0, event="verifying", expected=(SHA, XXH)
    )
    assert verifying == replace(whole, state=VERIFYING, updated=3.0, expires=12.0, expected=(SHA, XXH))
    complete = await catalog.transition(
        upload.id, sources={VERIFYING}, to=COMPLETE, now=4.0, expires=None, event="done", computed=(SHA, XXH)
    )
    assert complete == replace(verifying, state=COMPLETE, updated=4.0, expires=None, computed=(SHA, XXH))
    assert await catalog.get(upload.id) == complete
    created, changed, done = await catalog.events(0, 10)
    assert created == Event(created.seq, upload.id, "created", 1.0, told(upload, None), None, None)
    assert changed == Event(changed.seq, upload.id, "verifying", 3.0, told(verifying, RECEIVING), None, None)
    assert done == Event(done.seq, upload.id, "done", 4.0, told(complete, VERIFYING), None, None)


async def test_an_error_is_kept_and_told(catalog: Catalog) -> None:
    upload = await add(catalog)
    failed = await become(catalog, upload, FAILED, error="upload-digest-mismatch", error_detail="It is wrong.")
    assert (failed.error, failed.error_detail) == ("upload-digest-mismatch", "It is wrong.")
    ended = await become(catalog, upload, TERMINATED)
    assert (ended.error, ended.error_detail) == ("upload-digest-mismatch", "It is wrong.")
    assert await catalog.get(upload.id) == ended
    event = (await catalog.events(0, 10))[1]
    error = {"error": "upload-digest-mismatch", "error_detail": "It is wrong."}
    assert event.data == {**told(failed, RECEIVING), **error}


async def test_a_transition_from_another_state_changes_nothing(catalog: Catalog) -> None:
    upload = await become(catalog, await add(catalog), FAILED)
    head = await catalog.event_head()
    with pytest.raises(base.WrongState) as caught:
        await catalog.transition(
            upload.id, sources=[RECEIVING, VERIFYING], to=EXPIRED, now=9.0, expires=None, event="expired"
        )
    assert caught.value.upload == upload == await catalog.get(upload.id)
    assert await catalog.event_head() == head
    with pytest.raises(base.WrongState) as caught:
        await catalog.transition(fresh(7).id, sources=[RECEIVING], to=EXPIRED, now=9.0, expires=None, event="expired")
    assert caught.value.upload is None


async def test_of_many_that_change_a_state_at_once_one_does(opener: Opener) -> None:
    won, lost = [], []

    async def change(catalog: Catalog, number: int) -> None:
        try:
            await catalog.transition(
                fresh().id, sources={RECEIVING}, to=FAILED, now=2.0, expires=None, event=f"by-{number}"
            )
            won.append(number)
        except base.WrongState as error:
            lost.append(error.upload)

    async with opener() as one, opener() as two:
        await add(one)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(change, (one, two)[number % 2], number)
        assert len(won) == 1
        assert lost == [await one.get(fresh().id)] * 9
        assert [event.type for event in await two.events(0, 10)] == ["created", f"by-{won[0]}"]


@pytest.mark.parametrize("state", [VERIFYING, COMPLETE])
async def test_an_upload_with_holes_is_never_called_whole(catalog: Catalog, state: State) -> None:
    upload = await add(catalog)
    after = await catalog.commit(upload.id, [(0, 500), (501, 1000)], now=1.0, expires=None)
    with pytest.raises(ValueError, match="999 of 1000"):
        await catalog.transition(upload.id, sources={RECEIVING}, to=state, now=2.0, expires=None, event="x")
    assert await catalog.get(upload.id) == after


async def test_ranges_go_with_the_bytes(catalog: Catalog) -> None:
    for number, state in enumerate((FAILED, EXPIRED, TERMINATED)):
        upload = await add(catalog, number)
        await catalog.commit(upload.id, [(0, 10), (20, 30)], now=1.0, expires=None)
        ended = await become(catalog, upload, state)
        assert (ended.prefix, ended.received) == (10, 20)
        kept = [(0, 10), (20, 30)] if state is FAILED else []
        assert await catalog.stored(upload.id, 0, 1000, 10) == kept


async def test_a_digest_takes_the_place_of_one_of_its_algorithm(catalog: Catalog) -> None:
    upload = await add(catalog)
    assert (await catalog.record_digest(upload.id, SHA, now=2.0)).computed == (SHA,)
    assert (await catalog.record_digest(upload.id, XXH, now=3.0)).computed == (SHA, XXH)
    other = Digest("sha-256", bytes(32))
    after = await catalog.record_digest(upload.id, other, now=4.0)
    assert set(after.computed) == {other, XXH}
    assert after == replace(upload, computed=after.computed, updated=4.0) == await catalog.get(upload.id)
    with pytest.raises(base.UnknownUpload):
        await catalog.record_digest(fresh(2).id, SHA, now=4.0)


# the log, fences, and what is new


async def test_event_numbers_ascend_and_pages_leave_nothing_out(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        assert await one.event_head() == 0
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(add, (one, two)[number % 2], number)
        seen: list[Event] = []
        while page := await two.events(seen[-1].seq if seen else 0, 7):
            assert len(page) <= 7
            seen += page
        assert [event.seq for event in seen] == sorted({event.seq for event in seen})
        assert seen[-1].seq == await one.event_head()
        assert {event.upload for event in seen} == {fresh(number).id for number in range(40)}


async def test_fences_are_numbered_apart_and_not_in_the_log(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        upload = await add(one)
        assert await two.fence_head() == 0
        assert await two.fences(0) == []
        first = await one.fence(upload.id, 0, 1000, now=1.0)
        second = await one.fence(upload.id, 10, 20, now=2.0)
        assert first < second == await two.fence_head()
        assert await two.fences(0) == [Fence(first, upload.id, 0, 1000), Fence(second, upload.id, 10, 20)]
        assert await two.fences(first) == [Fence(second, upload.id, 10, 20)]
        assert len(await two.events(0, 10)) == 1


async def test_the_version_changes_with_every_commit_and_with_nothing_else(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        upload = await add(one)
        before = [catalog.version() for catalog in (one, two)]
        assert [catalog.version() for catalog in (one, two)] == before
        await one.fence(upload.id, 0, 10, now=1.0)
        after = [catalog.version() for catalog in (one, two)]
        assert all(new != old for new, old in zip(after, before, strict=True))
        await one.get(upload.id)
        with pytest.raises(base.NotReceiving):
            await two.commit(fresh(2).id, [], now=1.0, expires=None)
        assert [catalog.version() for catalog in (one, two)] == after


async def test_purge_forgets_old_tombstones_and_fences_and_nothing_else(catalog: Catalog) -> None:
    for number, state in enumerate(State):
        await become(catalog, await add(catalog, number), state, now=100.0)
        await become(catalog, await add(catalog, number + 10), state, now=200.0)
    last = await catalog.fence(fresh(1).id, 0, 10, now=100.0)
    head = await catalog.event_head()
    assert await catalog.purge(100.0) == 0
    assert await catalog.purge(150.0) == 2
    gone = {fresh(number).id for number, state in enumerate(State) if state in (EXPIRED, TERMINATED)}
    everything = [fresh(number + more).id for number in range(len(State)) for more in (0, 10)]
    assert set(everything) - set(await catalog.states(everything)) == gone
    assert await catalog.fences(0) == []
    assert await catalog.fence_head() == last
    assert await catalog.fence(fresh(1).id, 0, 10, now=300.0) > last
    assert await catalog.event_head() == head
    assert len(await catalog.events(0, 1000)) == 24


async def test_purge_takes_any_number(catalog: Catalog) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(1100):
            tasks.start_soon(add, catalog, number)
    async with anyio.create_task_group() as tasks:
        for number in range(1100):
            tasks.start_soon(become, catalog, fresh(number), TERMINATED)
    assert await catalog.purge(1e9) == 1100
    assert await catalog.list(state=TERMINATED, limit=10) == []


async def test_one_that_fails_does_not_harm_those_beside_it(catalog: Catalog) -> None:
    """Good and bad calls are begun at once, so that they may share a transaction; each has its own outcome."""
    upload = await add(catalog)
    outcomes: dict[int, str] = {}

    async def commit(number: int) -> None:
        try:
            bad = number % 3 == 0
            await catalog.commit(upload.id, [(number, number + 1), (5000, 5001)][: 1 + bad], now=1.0, expires=None)
            outcomes[number] = "stored"
        except ValueError:
            outcomes[number] = "refused"

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(commit, number)
    assert outcomes == {number: "stored" if number % 3 else "refused" for number in range(60)}
    stored = [(start, start + 2) for start in range(1, 60, 3)]
    assert await catalog.stored(upload.id, 0, 1000, 100) == stored


# all of its bytes at once


async def test_an_upload_that_got_all_of_its_bytes_at_once_is_complete(catalog: Catalog) -> None:
    upload = await add(catalog, parallel=False, expected=(SHA,), expires=9.0)
    done = await catalog.finish(replace(upload, computed=(SHA,)), now=7.0, expires=None)
    assert done == await catalog.get(upload.id)
    assert done == replace(
        upload, state=COMPLETE, prefix=1000, received=1000, updated=7.0, expires=None, computed=(SHA,)
    )
    assert await catalog.stored(upload.id, 0, 1000, 9) == [(0, 1000)]
    assert await catalog.coming() == 0
    events = await catalog.events(0, 10)
    assert [(event.type, event.data["previous"]) for event in events] == [
        ("created", None),
        ("verifying", "receiving"),
        ("complete", "verifying"),
    ]


async def test_what_failed_before_counts_as_tried_again_when_all_bytes_come_at_once(catalog: Catalog) -> None:
    upload = await add(catalog)
    await catalog.record_failure(upload.id, now=2.0)
    done = await catalog.finish(upload, now=7.0, expires=None)
    assert done == await catalog.get(upload.id)
    assert (done.errors, done.retries) == (1, 1)
    assert [event.data["errors"] for event in await catalog.events(0, 10)] == [0, 1, 1]


async def test_one_that_had_bytes_before_or_is_another_does_not_get_all_at_once(catalog: Catalog) -> None:
    upload = await add(catalog)
    with pytest.raises(base.NotReceiving):
        await catalog.finish(fresh(2), now=7.0, expires=None)
    for other in (replace(upload, length=999), replace(upload, expected=(SHA,)), replace(upload, wanted="md5")):
        with pytest.raises(base.NotReceiving):
            await catalog.finish(other, now=7.0, expires=None)
    with pytest.raises(ValueError, match="without bytes"):
        await catalog.finish(replace(upload, length=None), now=7.0, expires=None)
    some = await catalog.commit(upload.id, [(10, 20)], now=7.0, expires=None)
    with pytest.raises(base.NotReceiving) as raised:
        await catalog.finish(some, now=8.0, expires=None)
    assert raised.value.upload == some == await catalog.get(upload.id)
    gone = await add(catalog, 3)
    await become(catalog, gone, TERMINATED)
    with pytest.raises(base.NotReceiving):
        await catalog.finish(gone, now=8.0, expires=None)
