"""The list of transfers of all processes: what is written, what is obeyed, and two that want the same.

Two clients with one journal folder are as two processes: each has locks and a name of its own.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anyio import to_thread

import holdfast
from holdfast import AsyncClient, State, Transfer
from holdfast.journal import Journal
from holdfast.journal_file import JournalFile
from holdfast.ledger import INTERRUPTED, Asked, Row, Step, Wanted
from holdfast.repeating import again, lacking
from tests.client.loopback import Loopback, Seen
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]
PATIENT = holdfast.Timeouts(connect=5, stall=60, response=60)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Another process that looks at the journal."""
    (tmp_path / "state").mkdir()
    journal = Journal(tmp_path / "state")
    yield journal
    journal.close()


def only(journal: Journal) -> Row:
    (row,) = journal.ledger.rows()
    return row


def held_at_the_end(loopback: Loopback, path: Path) -> threading.Event:
    """The last chunk of a file is answered only after this event."""
    free = threading.Event()
    last = path.stat().st_size - 65536
    loopback.order("PATCH", "hold", until=free.is_set, when=lambda seen: seen.offset == last)
    return free


def begin(client: AsyncClient, loopback: Loopback, path: Path) -> Transfer[holdfast.UploadResult]:
    return client.upload(path, loopback.url, chunk_size=65536, concurrency=1)


async def until(journal: Journal, probe: Callable[[Row], object], what: str) -> None:
    """There is one row, and it is as `probe` wants it."""

    def look() -> bool:
        rows = journal.ledger.rows()
        return len(rows) == 1 and bool(probe(rows[0]))

    await to_thread.run_sync(lambda: eventually(look, every=0.02, what=what))


async def wish(journal: Journal, wanted: Wanted) -> None:
    await to_thread.run_sync(lambda: journal.ledger.want(only(journal).id, wanted))


async def test_a_transfer_is_listed_from_its_beginning_to_its_end(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as client:
        transfer = begin(client, loopback, path)
        await until(journal, lambda row: row.accepted == MIB - 65536, "all but the last chunk in the list")
        row = only(journal)
        assert (row.id, row.kind, row.state, row.size) == (transfer.id, "upload", State.IN_PROGRESS, MIB)
        assert (row.source, row.target, row.running, row.mine) == (str(path), loopback.url, True, False)
        free.set()
        result = await transfer
    row = only(journal)
    assert (row.state, row.result, row.digest) == (State.COMPLETED, result.url, f"xxh3-128={result.digest.hex}")
    assert (row.accepted, row.process) == (MIB, None)


async def test_another_process_pauses_and_resumes(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    """It is picked up within a second, by polling and without signals."""
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as client:
        transfer = begin(client, loopback, path)
        await until(journal, lambda row: row.accepted, "the first bytes")
        await wish(journal, "pause")
        await until(journal, lambda row: row.state is State.PAUSED, "the pause")
        assert transfer.paused
        free.set()
        await wish(journal, "run")
        result = await transfer
    assert result.bytes_resumed > 0
    assert only(journal).state is State.COMPLETED


async def test_a_pause_of_its_own_can_be_ended_by_another_process(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as client:
        transfer = begin(client, loopback, path)
        await until(journal, lambda row: row.accepted, "the first bytes")
        transfer.pause()
        await until(journal, lambda row: row.wanted == "pause", "the pause in the journal")
        free.set()
        await wish(journal, "run")
        await transfer


async def test_another_process_cancels(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    path = make_file(MIB)
    held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as client:
        transfer = begin(client, loopback, path)
        await until(journal, lambda row: row.accepted, "the first bytes")
        await wish(journal, "cancel")
        with pytest.raises(holdfast.TransferCancelled):
            await transfer
    assert only(journal).state is State.CANCELLED


async def test_what_the_end_of_a_program_stops_is_paused(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    """Nobody has said that it is not wanted any more."""
    path = make_file(MIB)
    held_at_the_end(loopback, path)

    async def broken_off() -> None:
        async with make_client(timeouts=PATIENT) as client:
            begin(client, loopback, path)
            await until(journal, lambda row: row.accepted, "the first bytes")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken_off()
    row = only(journal)
    assert (row.state, row.running, row.failure) == (State.PAUSED, False, None)


async def test_a_failure_is_kept_with_its_code_and_sentence_and_without_secrets(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal, tmp_path: Path
) -> None:
    path = make_file(MIB)
    loopback.order("POST", "answer", status=413, code="upload-too-large")
    address = loopback.url.replace("http://", "http://user:passw0rd@") + "?signature=s3cret"
    async with make_client(headers={"X-Token": "t0ken"}) as client:
        with pytest.raises(holdfast.ServerRefused):
            await client.upload(path, address)
    row = only(journal)
    assert row.state is State.FAILED
    assert isinstance(row.error, holdfast.ServerRefused)
    assert (row.error.code, row.error.status) == ("upload-too-large", 413)
    assert "refused (413)" in row.error.message
    assert row.target == loopback.url
    assert row.options is not None
    assert row.options["headers"] == ["Authorization", "X-Token"]
    for file in (tmp_path / "state").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(secret in content for secret in (b"passw0rd", b"s3cret", b"t0ken")), file
    assert "query" in (lacking(row, ["authorization", "x-token"]) or "")


async def test_secrets_that_are_lacking_are_asked_for(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    async with make_client(headers={"Authorization": "Bearer x"}) as client:
        await client.upload(make_file(10), loopback.url)
    row = only(journal)
    assert "--header" in (lacking(row, []) or "")
    assert lacking(row, ["authorization"]) is None


async def test_the_same_call_is_made_again_from_the_journal(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    """With all that was said of it, and from what is done."""
    path = make_file(MIB)
    loopback.order("PATCH", "answer", status=422, code="digest-mismatch", times=9, when=lambda seen: seen.offset == 0)
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed):
            await client.upload(
                path, loopback.url, metadata={"name": b"\xff\x00"}, concurrency=1, chunk_size=65536, checksum="sha-512"
            )
    loopback.orders.clear()
    before = only(journal)
    async with make_client() as client:
        result = await again(client, before)
    after = only(journal)
    assert (after.id, after.options, after.state) == (before.id, before.options, State.COMPLETED)
    assert after.created == before.created
    assert result.digest.algorithm == "sha-512"
    assert "name /wA=" in (loopback.only().metadata or "")


async def test_a_download_is_made_again_from_the_journal(
    make_client: MakeClient, loopback: Loopback, journal: Journal, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 1000
    url = loopback.put("a" * 32, content, stored=[(0, len(content))])
    loopback.order("GET", "answer", status=404)
    async with make_client() as client:
        with pytest.raises(holdfast.UploadGone):
            await client.download(url, folder=tmp_path / "here", segments=2)
    async with make_client() as client:
        result = await again(client, only(journal))
    assert result.path == tmp_path / "here" / "film.mkv"
    assert result.path.read_bytes() == content
    assert only(journal).result == str(result.path)


async def test_the_second_follows_the_first_to_its_end(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    """It says so, shows how far the other one is, sends nothing, and has the same result."""
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as first, make_client(timeouts=PATIENT) as second:
        leading = begin(first, loopback, path)
        await until(journal, lambda row: row.accepted == MIB - 65536, "all but the last chunk")
        following = begin(second, loopback, path)
        async for progress in following:
            if "follows" in (progress.note or "") and progress.accepted == MIB - 65536:
                free.set()
        result = await following
        assert (await leading).url == result.url
    assert result.already_there
    assert loopback.body_bytes == MIB
    assert only(journal).state is State.COMPLETED


async def test_the_second_ends_as_the_first_has_ended(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    """With its error, and without an attempt of its own."""
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    loopback.order("PATCH", "answer", status=403, when=lambda seen: not seen.is_chunk)
    async with make_client(timeouts=PATIENT) as first, make_client(timeouts=PATIENT) as second:
        leading = begin(first, loopback, path)
        await until(journal, lambda row: row.accepted == MIB - 65536, "all but the last chunk")
        following = begin(second, loopback, path)
        async for progress in following:
            if "follows" in (progress.note or ""):
                free.set()
        with pytest.raises(holdfast.NotAuthorized) as caught:
            await leading
        with pytest.raises(holdfast.NotAuthorized) as same:
            await following
    assert same.value.message == caught.value.message
    assert same.value.elsewhere
    assert loopback.body_bytes == MIB


async def test_the_second_takes_over_when_the_first_ends_before_its_time(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as second:
        async with make_client(timeouts=PATIENT) as first:
            leading = begin(first, loopback, path)
            await until(journal, lambda row: row.accepted == MIB - 65536, "all but the last chunk")
            following = begin(second, loopback, path)
            async for progress in following:
                if "follows" in (progress.note or ""):
                    break
            leading.interrupt()
        free.set()
        result = await following
    assert not result.already_there
    assert result.bytes_resumed >= MIB - 65536
    assert bytes(loopback.only().data) == path.read_bytes()


async def test_the_second_fails_if_that_is_asked_for(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, journal: Journal
) -> None:
    path = make_file(MIB)
    free = held_at_the_end(loopback, path)
    async with make_client(timeouts=PATIENT) as first, make_client(if_busy="fail") as second:
        leading = begin(first, loopback, path)
        await until(journal, lambda row: row.accepted == MIB - 65536, "all but the last chunk")
        with pytest.raises(holdfast.TransferBusy, match="another process"):
            await begin(second, loopback, path)
        assert only(journal).running, "the row stays with the one that runs"
        free.set()
        await leading
    assert only(journal).state is State.COMPLETED


async def test_a_download_is_followed_too(
    make_client: MakeClient, loopback: Loopback, journal: Journal, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 16384
    url = loopback.put("a" * 32, content, stored=[(0, len(content))])
    free = threading.Event()
    loopback.order("GET", "hold", until=free.is_set, when=lambda seen: seen.fields.get("range") != "bytes=0-")
    async with make_client(timeouts=PATIENT) as first, make_client(timeouts=PATIENT) as second:
        leading = first.download(url, tmp_path / "x", segments=2)
        await until(journal, lambda row: row.key, "the lock")
        following = second.download(url, tmp_path / "x", segments=2)
        async for progress in following:
            if "follows" in (progress.note or ""):
                free.set()
        result = await following
        assert (await leading).digest == result.digest
    assert (result.path, result.size, result.bytes_received) == (tmp_path / "x", len(content), 0)


async def test_a_largest_chunk_is_remembered_for_a_week(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, tmp_path: Path
) -> None:
    """A proxy in between refuses more than 200,000 bytes, and no header says so."""
    path = make_file(4 * MIB)

    def large(seen: Seen) -> bool:
        return seen.length > 200_000

    loopback.order("PATCH", "answer", status=413, times=1000, when=large)
    async with make_client() as client:
        await client.upload(path, loopback.url)
    assert any(large(seen) for seen in loopback.chunks())
    loopback.seen.clear()
    async with make_client() as client:
        await client.upload(make_file(4 * MIB, "other"), loopback.url)
    assert loopback.chunks()
    assert not any(large(seen) for seen in loopback.chunks())
    now = 1e9
    (tmp_path / "later").mkdir()
    journal = Journal(tmp_path / "later", clock=lambda: now)
    journal.keep_ceiling("http://host:80", 1000)
    assert journal.find_ceilings() == {"http://host:80": 1000}
    now += 8 * 86400
    assert journal.find_ceilings() == {}
    journal.close()


async def test_tus_patches_learn_it_too(make_file: MakeFile, make_client: MakeClient, tus_only: Loopback) -> None:
    path = make_file(2 * MIB)
    tus_only.order("PATCH", "answer", status=413, times=1000, when=lambda seen: seen.length > MIB)
    async with make_client() as client:
        await client.upload(path, tus_only.url)
    tus_only.seen.clear()
    async with make_client() as client:
        await client.upload(make_file(2 * MIB, "other"), tus_only.url)
    assert max(seen.length for seen in tus_only.requests("PATCH")) <= MIB


async def test_that_a_whole_file_is_too_large_says_nothing_of_chunks(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback, journal: Journal
) -> None:
    """It is refused with the same status, whatever size is tried."""
    path = make_file(2 * MIB)
    tus_only.order("PATCH", "answer", status=413, times=1000)
    async with make_client() as client:
        with pytest.raises(holdfast.ServerRefused):
            await client.upload(path, tus_only.url)
    assert journal.find_ceilings() == {}


def test_a_row_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    """Known by the lock; the number of the process may belong to another one by now."""
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.ledger.note(Asked("abc", "upload", "/a", "http://host/files"))
    first.ledger.keep([Step("abc", State.IN_PROGRESS, 10, 5, 0, "run", "run")])
    assert only(second).condition is State.IN_PROGRESS
    first.close()
    row = only(second)
    assert (row.condition, row.running, row.process) == (INTERRUPTED, False, None)
    second.ledger.note(Asked("abc", "upload", "/a", "http://host/files"))
    second.ledger.keep([])
    row = only(second)
    assert (row.state, row.mine, row.accepted) == (State.PENDING, True, 5)
    second.close()


def test_the_last_word_of_a_process_that_ends_meanwhile_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes how its transfer has ended, and goes, between the look at the row and that at the process."""
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.ledger.note(Asked("abc", "upload", "/a", "http://host/files"))
    first.ledger.claim("abc", "key")
    alive = JournalFile.alive

    def end_first(self: JournalFile, owner: str) -> int | None:
        first.ledger.keep([Step("abc", State.FAILED, 10, 5, 0, "run", "run")])
        first.close()
        monkeypatch.setattr(JournalFile, "alive", alive)
        return self.alive(owner)

    monkeypatch.setattr(JournalFile, "alive", end_first)
    row = second.ledger.find_key("key")
    assert row is not None
    assert (row.condition, row.process) == (State.FAILED, None)
    second.close()


def test_a_row_of_a_living_process_is_not_taken(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    asked = Asked("abc", "upload", "/a", "http://host/files")
    first.ledger.note(asked)
    first.ledger.keep([])
    second.ledger.note(asked)
    second.ledger.keep([Step("abc", State.FAILED, 10, 5, 0, "run", "run")])
    assert (only(first).state, only(first).mine) == (State.PENDING, True)
    second.ledger.claim("abc", "key")
    assert not only(first).mine, "who holds the lock has the row"
    first.close()
    second.close()


def test_rows_are_found_by_the_start_of_their_id(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for id_ in ("abc", "abd", "xyz"):
        journal.ledger.note(Asked(id_, "upload", "/a", "http://host/files"))
    journal.ledger.keep([])
    assert [row.id for row in journal.ledger.find("AB")] == ["abc", "abd"]
    assert [row.id for row in journal.ledger.find("x")] == ["xyz"]
    assert journal.ledger.find("q") == []
    journal.ledger.forget("xyz")
    assert journal.ledger.find("x") == []
    journal.close()
