"""How a file becomes a catalog, and which files are refused."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from tests.support.catalogs import add

from holdfast_server.catalog import schema
from holdfast_server.catalog.base import Incompatible, Unavailable
from holdfast_server.catalog.connections import connect
from holdfast_server.catalog.sqlite import SqliteCatalog, open_sqlite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.mark.anyio
async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    async with open_sqlite(path, "os") as catalog:
        await add(catalog)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 4711")
    connection.close()
    with pytest.raises(Incompatible, match=r"4711.*newer version"):
        async with open_sqlite(path):
            pass
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (4711,)
    connection.close()


def test_a_file_that_is_no_catalog_is_refused(path: Path) -> None:
    path.write_bytes(b"holdfast" * 1000)
    with pytest.raises(Incompatible, match="not a sound catalog"):
        anyio.run(SqliteCatalog.open, path, "os")
    assert path.read_bytes() == b"holdfast" * 1000


@pytest.mark.anyio
async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="folder"):
        async with open_sqlite(tmp_path / "nowhere" / "catalog.sqlite"):
            pass


def test_many_can_make_the_same_file_at_once(tmp_path: Path) -> None:
    """Each one finds the whole schema, whoever made it."""
    together = threading.Barrier(8)

    def make(path: Path) -> tuple[object, ...]:
        together.wait(30)
        connection = connect(path, write=True)
        try:
            schema.prepare(connection, path)
            mode = connection.execute("PRAGMA journal_mode").fetchone()
            return (*mode, *connection.execute("SELECT billions, units FROM coming").fetchone())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for turn in range(5):
            assert list(pool.map(make, [tmp_path / f"{turn}.sqlite"] * 8)) == [("wal", 0, 0)] * 8


def test_a_file_that_is_busy_while_it_is_made_is_tried_again(path: Path) -> None:
    """The change to WAL can be refused at once. Here a reader refuses it, and goes when it is tried a second time."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("CREATE TABLE other (a)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM other").fetchall()
    connection = connect(path, write=True)
    connection.execute("PRAGMA busy_timeout = 0")
    tries: list[str] = []

    def trace(statement: str) -> None:
        if "journal_mode" in statement:
            tries.append(statement)
            if len(tries) == 2:
                reader.execute("ROLLBACK")

    connection.set_trace_callback(trace)
    schema.prepare(connection, path)
    assert len(tries) >= 2
    assert connection.execute("SELECT count(*) FROM upload").fetchone() == (0,)
    connection.close()
    reader.close()


def test_statements_are_cut_where_they_end() -> None:
    table = "-- one;\nCREATE TABLE a (b);\n"
    trigger = "CREATE TRIGGER c AFTER INSERT ON a\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n"
    assert list(schema.statements(table + trigger + "-- end\n")) == [table, trigger]
    with pytest.raises(ValueError, match="within a statement"):
        list(schema.statements("CREATE TABLE a (b)"))
