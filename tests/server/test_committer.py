"""Group commit: one transaction for all that waits, and each one's own outcome."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.waiting import eventually

from holdfast_server.catalog.base import CatalogError, Durability, NotReceiving
from holdfast_server.catalog.committer import Committer
from holdfast_server.catalog.connections import connect


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


class Bench:
    """A committer over a table of names, and the statements that it has run."""

    def __init__(self, path: Path, durability: Durability) -> None:
        connection = connect(path, write=True)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("CREATE TABLE parent (name TEXT PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE name (name TEXT UNIQUE, parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
        )
        self.statements: list[str] = []
        connection.set_trace_callback(self.statements.append)
        self.path = path
        self.durability = durability
        self.committer = Committer(connection, path, durability)
        self.outcomes: dict[str, object] = {}

    async def add(self, name: str, parent: str | None = None, final: bool = False, on_conflict: str = "ABORT") -> None:
        """Insert a name; its outcome is the value of `synchronous` under which it was committed, or the error."""

        def operation(connection: sqlite3.Connection) -> object:
            connection.execute(f"INSERT OR {on_conflict} INTO name VALUES (?, ?)", (name, parent))
            return connection.execute("PRAGMA synchronous").fetchone()[0]

        try:
            self.outcomes[name] = await self.committer.submit(operation, final=final)
        except CatalogError as error:
            self.outcomes[name] = error

    async def add_together(self, *calls: Callable[[], object]) -> None:
        """Make the calls while the writer is busy, so that they are all queued when it is ready for the next batch."""
        busy, gate = threading.Event(), threading.Event()

        def wait(_: sqlite3.Connection) -> bool:
            busy.set()
            return gate.wait(30)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.committer.submit, wait)
            assert await anyio.to_thread.run_sync(busy.wait, 30)
            for call in calls:
                tasks.start_soon(call)  # type: ignore[arg-type]
            await anyio.wait_all_tasks_blocked()
            gate.set()

    def names(self) -> list[str]:
        connection = sqlite3.connect(self.path)
        found = [name for (name,) in connection.execute("SELECT name FROM name ORDER BY name")]
        connection.close()
        return found


@pytest.fixture(params=["ack", "finish", "os"])
async def bench(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Bench]:
    opened = Bench(path, request.param)
    yield opened
    opened.committer.refuse()
    await anyio.to_thread.run_sync(opened.committer.join)


FULL, NORMAL = 2, 1


@pytest.mark.anyio
async def test_all_that_waits_is_committed_in_one_transaction(bench: Bench) -> None:
    await bench.add_together(*(lambda n=n: bench.add(f"{n:02}") for n in range(30)))
    assert bench.names() == [f"{n:02}" for n in range(30)]
    # One for that which kept the writer busy, one for all the others.
    assert bench.statements.count("BEGIN IMMEDIATE") == bench.statements.count("COMMIT") == 2


@pytest.mark.anyio
async def test_a_commit_is_synced_as_the_durability_says(bench: Bench) -> None:
    await bench.add("one")
    await bench.add("two", final=True)
    await bench.add("three")
    await bench.add_together(lambda: bench.add("four"), lambda: bench.add("five", final=True))
    expected = {
        "ack": [FULL, FULL, FULL, FULL, FULL],
        "finish": [NORMAL, FULL, NORMAL, FULL, FULL],
        "os": [NORMAL, NORMAL, NORMAL, NORMAL, NORMAL],
    }[bench.durability]
    assert list(bench.outcomes.values()) == expected


@pytest.mark.anyio
async def test_what_comes_while_another_process_has_the_lock_goes_into_the_same_transaction(bench: Bench) -> None:
    """But for what has to be synced, where the transaction that has begun will not be."""
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.add, "one")
        await anyio.to_thread.run_sync(lambda: eventually(lambda: "BEGIN IMMEDIATE" in bench.statements))
        tasks.start_soon(bench.add, "two")
        tasks.start_soon(lambda: bench.add("three", final=True))
        # The thread takes nothing before it has the lock.
        await anyio.to_thread.run_sync(lambda: eventually(lambda: not bench.committer._queue.empty()))
        other.execute("ROLLBACK")
        other.close()
    assert bench.names() == ["one", "three", "two"]
    assert bench.statements.count("COMMIT") == (2 if bench.durability == "finish" else 1)
    assert bench.outcomes["three"] == (NORMAL if bench.durability == "os" else FULL)


@pytest.mark.anyio
async def test_an_operation_that_fails_leaves_the_others_of_its_transaction(bench: Bench) -> None:
    await bench.add("there")
    await bench.add_together(lambda: bench.add("a"), lambda: bench.add("there"), lambda: bench.add("b"))
    assert bench.names() == ["a", "b", "there"]
    assert isinstance(bench.outcomes["there"], CatalogError)
    assert not isinstance(bench.outcomes["a"], CatalogError)


@pytest.mark.anyio
@pytest.mark.parametrize(("parent", "on_conflict"), [("nobody", "ABORT"), (None, "ROLLBACK")])
async def test_a_transaction_that_fails_is_told_to_all_of_it(
    bench: Bench, parent: str | None, on_conflict: str
) -> None:
    """Once COMMIT itself fails (a deferred constraint), once SQLite rolls everything back within an operation."""
    await bench.add("there")
    await bench.add_together(
        lambda: bench.add("a"),
        lambda: bench.add("there" if parent is None else "b", parent, on_conflict=on_conflict),
        lambda: bench.add("c"),
    )
    assert bench.names() == ["there"]
    assert isinstance(bench.outcomes["a"], CatalogError)
    assert isinstance(bench.outcomes["c"], CatalogError)
    assert bench.outcomes["a"] is not bench.outcomes["c"]
    assert "constraint failed" in str(bench.outcomes["a"])
    await bench.add("d")
    assert bench.names() == ["d", "there"]


@pytest.mark.anyio
async def test_a_refused_operation_of_a_failed_transaction_is_told_of_the_failure(bench: Bench) -> None:
    """It was refused because of another one that has not happened after all."""

    def refuse(connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("SELECT count(*) FROM name").fetchone()
        assert count == 1
        raise NotReceiving(None)

    async def refused() -> None:
        with pytest.raises(CatalogError, match="FOREIGN KEY"):
            await bench.committer.submit(refuse)
        bench.outcomes["refused"] = True

    await bench.add_together(lambda: bench.add("a", "nobody"), refused)
    assert bench.outcomes["refused"] is True
    assert bench.names() == []


@pytest.mark.anyio
async def test_the_operation_of_a_caller_that_is_cancelled_is_carried_out(bench: Bench) -> None:
    """And those that share its transaction are answered."""
    cancelled = anyio.CancelScope()

    async def give_up() -> None:
        with cancelled:
            await bench.add("gone")

    async def cancel() -> None:
        cancelled.cancel()

    await bench.add_together(give_up, lambda: bench.add("here"), cancel)
    assert bench.names() == ["gone", "here"]
    assert list(bench.outcomes) == ["here"]
