"""What is special to the SQLite catalog: processes that are killed, that share a file, and that fill the disk.

Run as a program, this file is one of those processes.
"""

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast_server.catalog import committer as committer_module
from holdfast_server.catalog import schema, stored
from holdfast_server.catalog.base import (
    Duplicate,
    Durability,
    Event,
    NoRoom,
    Quota,
    Unavailable,
)
from holdfast_server.catalog.connections import connect
from holdfast_server.catalog.sqlite import SqliteCatalog, open_sqlite
from holdfast_server.uploads.upload import State, Upload

PIECE = 10
PIECES = 400


def fresh(number: int, length: int = PIECE * PIECES, metadata: str | None = None) -> Upload:
    return Upload(
        id=f"{number:032x}",
        state=State.RECEIVING,
        length=length,
        parallel=True,
        granule=65536,
        metadata=metadata,
        name="file",
        created=float(number),
        updated=float(number),
        expires=None,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The lock for writing, held by somebody else."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


# other processes


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def commit_until_killed(path: Path, durability: Durability, seed: int) -> None:
    """Commit pieces of new uploads in any order, from several tasks, and say each one when it is acknowledged."""
    async with open_sqlite(path, durability) as catalog, anyio.create_task_group() as tasks:

        async def run(lane: int) -> None:
            choice = random.Random(seed * 100 + lane)
            number = seed * 1_000_000 + lane * 10_000
            while True:
                number += 1
                upload = fresh(number)
                await catalog.create(upload, room=None)
                say(f"{upload.id} created")
                pieces = choice.sample(range(PIECES), PIECES)
                for piece in pieces:
                    await catalog.commit(
                        upload.id, [(piece * PIECE, piece * PIECE + PIECE)], now=float(piece), expires=None
                    )
                    say(f"{upload.id} {piece}")
                await catalog.transition(
                    upload.id, sources={State.RECEIVING}, to=State.COMPLETE, now=1.0, expires=None, event="done"
                )
                say(f"{upload.id} complete")

        for lane in range(4):
            tasks.start_soon(run, lane)


async def share(path: Path, number: int, count: int) -> None:
    """With `count` others: create uploads, and store every `count`th piece of a shared one."""
    async with open_sqlite(path, "os") as catalog, anyio.create_task_group() as tasks:
        try:
            await catalog.create(fresh(0), room=None)
        except Duplicate:
            say("the shared upload was there")

        async def store(lane: int) -> None:
            for piece in range(number + lane * count, PIECES, 2 * count):
                await catalog.commit(fresh(0).id, [(piece * PIECE, piece * PIECE + PIECE)], now=1.0, expires=None)

        async def create(each: int) -> None:
            upload = fresh(1000 * (number + 1) + each, 100)
            await catalog.create(upload, room=None)
            await catalog.commit(upload.id, [(0, 30)], now=1.0, expires=None)
            if each % 2:
                await catalog.transition(
                    upload.id, sources={State.RECEIVING}, to=State.FAILED, now=1.0, expires=None, event="failed"
                )

        for lane in range(2):
            tasks.start_soon(store, lane)
        for each in range(20):
            tasks.start_soon(create, each)


def child(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["ack", "finish", "os"])
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    path: Path, durability: str, rng: random.Random
) -> None:
    """Three processes, one after another on one file, are killed at random points while they commit."""
    for seed in range(3):
        said: list[str] = []
        with child("kill", path, durability, seed) as process:
            assert process.stdout is not None
            wait_for = rng.randint(1, 1200)
            for line in process.stdout:
                said.append(line)
                if len(said) == wait_for:
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert len(said) >= wait_for

        acknowledged: dict[str, set[str]] = {}
        for line in said:
            if line.endswith("\n"):
                upload_id, fact = line.split()
                acknowledged.setdefault(upload_id, set()).add(fact)
        async with open_sqlite(path, "os") as catalog:
            for upload_id, facts in acknowledged.items():
                upload = await catalog.get(upload_id)
                assert upload is not None
                ranges = await catalog.stored(upload_id, 0, upload.reach, PIECES)
                offsets = {offset for start, end in ranges for offset in range(start, end, PIECE)}
                assert {int(fact) * PIECE for fact in facts if fact.isdigit()} <= offsets
                assert upload.received == len(offsets) * PIECE
                assert upload.prefix == (ranges[0][1] if ranges and ranges[0][0] == 0 else 0)
                assert upload.state is State.COMPLETE or "complete" not in facts
            await check_log(catalog)


async def check_log(catalog: SqliteCatalog) -> list[Event]:
    """The log has every upload's changes, and numbers that ascend strictly."""
    log: list[Event] = []
    while page := await catalog.events(log[-1].seq if log else 0, 1000):
        log += page
    assert all(before.seq < after.seq for before, after in pairwise(log))
    last = {event.upload: event.data["state"] for event in log}
    assert await catalog.states([*last]) == last
    return log


@pytest.mark.anyio
async def test_processes_that_start_together_share_one_catalog(path: Path) -> None:
    """Three processes make the file, and write to one upload and to others, while this one follows the log."""
    count = 3
    processes = [child("share", path, number, count) for number in range(count)]
    followed: list[Event] = []
    async with open_sqlite(path, "os") as catalog:
        while True:
            ended = sum(process.poll() is not None for process in processes) == count
            page = await catalog.events(followed[-1].seq if followed else 0, 5)
            followed += page
            if ended and not page:
                break
        output = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * count
        assert "".join(output).count("was there") == count - 1

        shared = await catalog.get(fresh(0).id)
        assert shared is not None
        assert (shared.received, shared.prefix) == (PIECE * PIECES, PIECE * PIECES)
        assert await catalog.stored(shared.id, 0, shared.reach, 10) == [(0, shared.length)]
        with pytest.raises(NoRoom) as caught:
            await catalog.create(fresh(99, 10**9), room=10**6)
        assert caught.value.free == 10**6 - count * 10 * 70

        assert followed == await check_log(catalog)
        assert len(followed) == 1 + count * (20 + 10)


# locks


@pytest.mark.anyio
@pytest.mark.rule("P-STATE-1")
async def test_reading_does_not_wait_for_a_writer(path: Path) -> None:
    async with open_sqlite(path, "os") as catalog:
        upload = fresh(1)
        await catalog.create(upload, room=None)
        after: list[Upload] = []

        async def commit() -> None:
            after.append(await catalog.commit(upload.id, [(0, 10)], now=2.0, expires=None))

        async with anyio.create_task_group() as tasks:
            with held(path):
                tasks.start_soon(commit)
                await anyio.wait_all_tasks_blocked()
                assert await catalog.get(upload.id) == upload
                assert await catalog.missing(upload.id, 0, 100, 1) == ([(0, 100)], False)
                assert await catalog.list(limit=10) == [upload]
                assert len(await catalog.events(0, 10)) == 1
                assert after == []
        assert after[0].received == 10


@pytest.mark.anyio
async def test_a_caller_that_goes_away_leaves_its_commit_in_place(path: Path) -> None:
    async with open_sqlite(path, "os") as catalog:
        upload = fresh(1)
        await catalog.create(upload, room=None)

        async def commit() -> None:
            await catalog.commit(upload.id, [(0, 10)], now=2.0, expires=None)

        with held(path):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        # This one is behind it in the queue.
        assert (await catalog.commit(upload.id, [], now=3.0, expires=None)).received == 10


@pytest.mark.anyio
async def test_a_file_that_stays_locked_is_told_and_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BUSY_SECONDS", 0.05)
    async with open_sqlite(path, "os") as catalog:
        with held(path), pytest.raises(Unavailable, match="held by another process"):
            await catalog.create(fresh(1), room=None)
        assert await catalog.get(fresh(1).id) is None
        await catalog.create(fresh(1), room=None)
        assert await catalog.get(fresh(1).id) == fresh(1)


# the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True, timeout=10
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True, timeout=10)


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["ack", "os"])
async def test_a_full_disk_is_told_to_everybody_and_the_catalog_goes_on(
    small_disk: Path, durability: Durability
) -> None:
    """Uploads are created twenty at once until the disk is full; when there is room again it takes more.

    Everything acknowledged is there, and nothing that was refused, also after it is opened again.
    """
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    created: set[str] = set()
    refused: set[str] = set()

    async def create(number: int) -> None:
        upload = fresh(number, metadata="m" * 2000)
        try:
            await catalog.create(upload, room=None)
            created.add(upload.id)
        except OSError as error:
            refused.add(upload.id)
            assert error.errno == errno.ENOSPC  # noqa: PT017 - whether it is raised is what differs

    async def create_some(first: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(first, first + 20):
                tasks.start_soon(create, number)

    async with open_sqlite(small_disk / "catalog.sqlite", durability) as catalog:
        first = 0
        while not refused:
            await create_some(first)
            first += 20
            assert first < 1000, "this disk never fills"
        assert created
        assert set(await catalog.states([*created, *refused])) == created
        ballast.unlink()
        refused_before = set(refused)
        await create_some(first)
        assert refused == refused_before
        assert set(await catalog.states([*created, *refused])) == created
    async with open_sqlite(small_disk / "catalog.sqlite", durability) as catalog:
        assert set(await catalog.states([*created, *refused])) == created
        assert len(await check_log(catalog)) == len(created)


# the cost of a call


@pytest.fixture
def table(path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(path, write=True)
    schema.prepare(connection, path)
    yield connection
    connection.close()


def steps(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """How many instructions SQLite's machine runs for `work`."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1)
    work()
    connection.set_progress_handler(None, 1)
    return count


def test_a_call_costs_the_same_with_few_ranges_and_with_many(table: sqlite3.Connection) -> None:
    """Adding, listing and finding gaps in the middle of 50,000 ranges takes the steps that it takes in ten."""

    def costs(upload: int, count: int) -> list[int]:
        table.execute("BEGIN")
        table.executemany(
            "INSERT INTO stored VALUES (?, ?, ?)", [(upload, n * 100, n * 100 + 50) for n in range(count)]
        )
        middle = count // 2 * 100
        found = [
            steps(table, lambda: stored.gaps(table, upload, middle + 10, count * 100, 2)),
            steps(table, lambda: list(stored.between(table, upload, middle + 10, count * 100, 2))),
            steps(table, lambda: stored.add(table, upload, middle + 60, middle + 70)),
            steps(table, lambda: stored.add(table, upload, middle + 40, middle + 60)),
            steps(table, lambda: stored.add(table, upload, middle + 10, middle + 20)),
        ]
        table.execute("COMMIT")
        return found

    costs(3, 1)  # newer versions of SQLite count the steps in which they compile a statement, once, too
    assert costs(1, 50_000) == costs(2, 10)


@pytest.mark.anyio
async def test_every_query_finds_its_rows_by_an_index(path: Path) -> None:
    """No call reads a whole table. (Reading an index in order, up to a limit, is what a list is.)"""
    seen: list[str] = []
    async with open_sqlite(path, "os") as catalog:
        await catalog.create(fresh(1), room=None)
        await catalog.get(fresh(1).id)
        await catalog.list(limit=1)
        (reader,) = catalog._readers._idle
        here = catalog._readers._here
        assert here is not None
        for connection in (reader, here, catalog._committer._connection):
            connection.set_trace_callback(seen.append)
        await catalog.create(fresh(2), room=10**12)
        await catalog.commit(fresh(1).id, [(0, 10), (20, 30), (5, 25)], now=1.0, expires=None)
        await catalog.transition(
            fresh(1).id, sources={State.RECEIVING}, to=State.TERMINATED, now=1.0, expires=None, event="terminated"
        )
        await catalog.fence(fresh(2).id, 0, 1, now=1.0)
        await catalog.purge(2.0)
        await catalog.get(fresh(2).id)
        await catalog.list(limit=10)
        await catalog.list(before=(5.0, "a"), limit=10)
        await catalog.list(state=State.RECEIVING, before=(5.0, "a"), limit=10)
        await catalog.stored(fresh(2).id, 0, 10, 10)
        await catalog.missing(fresh(2).id, 0, 10, 10)
        await catalog.unfinished()
        await catalog.expired(5.0, 10)
        await catalog.states([fresh(2).id])
        await catalog.fences(0)
        await catalog.events(0, 10)
    connection = sqlite3.connect(path)
    plans = {
        sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        for sql in seen
        if sql.startswith(("SELECT", "UPDATE", "DELETE"))
    }
    connection.close()
    assert len(plans) >= 20
    small = ("SCAN coming", "SCAN json_each", "SCAN sqlite_sequence")
    for sql, plan in plans.items():
        for step in plan:
            assert not step.startswith("SCAN") or " USING " in step or step.startswith(small), (sql, plan)


@pytest.mark.anyio
async def test_nothing_that_is_written_needs_a_table_for_a_while(path: Path) -> None:
    """SQLite makes one for a list of more than two values, in an index or a trigger too, and anew for every row."""
    seen: list[str] = []
    async with open_sqlite(path, "os", Quota(10, 10**12, 10, 10**12)) as catalog:
        catalog._committer._connection.set_trace_callback(seen.append)
        for number in (1, 2):
            await catalog.create(replace(fresh(number), expires=9.0, owner="ann"), room=10**12, asked=f"key {number}")
        await catalog.commit(fresh(1).id, [(0, 10)], now=1.0, expires=9.0, verify=True)
        await catalog.finish(replace(fresh(2), expires=9.0), now=1.0, expires=8.0)
        for to in (State.FAILED, State.TERMINATED):
            await catalog.transition(fresh(1).id, sources=set(State), to=to, now=1.0, expires=9.0, event="changed")
    connection = sqlite3.connect(path)
    written = {sql for sql in seen if sql.startswith(("INSERT", "UPDATE", "DELETE", "SELECT"))}
    codes = {sql: [row[1] for row in connection.execute(f"EXPLAIN {sql}")] for sql in written}
    connection.close()
    assert len(codes) >= 10
    assert not [sql for sql, found in codes.items() if "OpenEphemeral" in found]


@pytest.mark.anyio
async def test_what_has_expired_is_found_at_the_same_cost_among_few_and_among_many(path: Path) -> None:
    """A plan without a scan may still go through all receiving uploads for each of them."""
    costs = []
    async with open_sqlite(path, "os") as catalog:
        for numbers in (range(20), range(20, 500)):
            for number in numbers:
                await catalog.create(replace(fresh(number), expires=float(number)), room=None)
            await catalog.expired(1e9, 10)
            (reader,) = catalog._readers._idle
            count = 0

            def tick() -> int:
                nonlocal count
                count += 1
                return 0

            reader.set_progress_handler(tick, 1)
            assert len(await catalog.expired(1e9, 10)) == 10
            assert await catalog.finals(fresh(0).id) == []
            reader.set_progress_handler(None, 1)
            costs.append(count)
    assert costs[1] < 1.2 * costs[0]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=25))
def test_added_ranges_are_those_of_a_set(added: list[tuple[int, int]]) -> None:
    """`add` answers how many bytes are new and the run that they are in, and keeps ranges disjoint and apart."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in schema.statements(schema.migrations()[1]):
        connection.execute(statement)
    present: set[int] = set()
    for start, size in added:
        piece = set(range(start, start + size))
        new, first, last = stored.add(connection, 1, start, start + size)
        assert new == len(piece - present)
        present |= piece
        assert set(range(first, last)) <= present
        assert not {first - 1, last} & present
        rows = connection.execute("SELECT start, stop FROM stored ORDER BY start").fetchall()
        assert {offset for low, high in rows for offset in range(low, high)} == present
        assert all(before[1] < after[0] for before, after in pairwise(rows))
    connection.close()


# durability


@pytest.mark.anyio
async def test_the_completion_of_an_upload_asks_for_the_disk(path: Path) -> None:
    """With `finish`, the transaction that completes an upload is synced, and no other."""
    async with open_sqlite(path, "finish") as catalog:
        seen: list[str] = []
        await catalog.create(fresh(1, 0), room=None)
        await catalog.create(fresh(2, 0), room=None)
        catalog._committer._connection.set_trace_callback(seen.append)
        for number, state in ((1, State.FAILED), (2, State.COMPLETE), (1, State.TERMINATED)):
            await catalog.transition(
                fresh(number).id, sources=set(State), to=state, now=1.0, expires=None, event="changed"
            )
    words = [line for line in seen if line in ("COMMIT", *(f"PRAGMA synchronous = {v}" for v in ("FULL", "NORMAL")))]
    assert words == ["COMMIT", "PRAGMA synchronous = FULL", "COMMIT", "PRAGMA synchronous = NORMAL", "COMMIT"]


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "kill":
        anyio.run(commit_until_killed, Path(where), cast(Durability, rest[0]), int(rest[1]))
    else:
        anyio.run(share, Path(where), int(rest[0]), int(rest[1]))
