"""The load does what it says, against a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.harness import Bench, check_stored, load
from benchmarks.peers import holdfast
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import Sample, Table, rate
from benchmarks.units import KIB, MIB

SIZE = 2 * MIB + 128 * KIB


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Running]:
    with running(holdfast("os"), tmp_path) as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SIZE, 3, 60.0, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("kind", "job", "files", "length"),
    [
        ("streams", {"count": 1, "piece": 0}, 1, SIZE),
        ("streams", {"count": 2, "piece": 256 * KIB}, 2, SIZE // 2),
        ("chunks", {"connections": 3, "piece": 512 * KIB}, 1, SIZE),
        ("parts", {"connections": 2, "piece": 512 * KIB}, 1, SIZE),
    ],
)
def test_every_byte_is_stored(
    subject: Running, bench: Bench, kind: str, job: dict[str, Any], files: int, length: int
) -> None:
    source = bench.source(SIZE)
    _, sample = load(subject, kind, collection="/files", source=str(source), size=SIZE, fields=[], **job)
    assert sample.seconds > 0
    assert sample.cpu is not None
    assert sample.load is not None
    check_stored(subject.data, files, length)
    with pytest.raises(FailedError, match="are stored, not"):
        check_stored(subject.data, files, length + 1)


@pytest.mark.parametrize("connections", [1, 8])
def test_a_download_is_read_to_its_last_byte(subject: Running, bench: Bench, connections: int) -> None:
    job: dict[str, Any] = {
        "collection": "/files",
        "source": str(bench.source(SIZE)),
        "size": SIZE,
        "count": 1,
        "piece": 0,
    }
    made, _ = load(subject, "streams", **job, fields=[])
    load(subject, "reads", target=made["locations"][0], size=SIZE, connections=connections)
    with pytest.raises(FailedError, match="bytes came, not"):
        load(subject, "reads", target=made["locations"][0], size=SIZE + 1, connections=1)


@pytest.mark.parametrize("way", ["one", "two"])
def test_small_files_are_counted_as_they_are_stored(subject: Running, way: str) -> None:
    job: dict[str, Any] = {
        "collection": "/files",
        "way": way,
        "size": 5000,
        "clients": 4,
        "limit": 60.0,
        "most": 21,
        "fields": [],
    }
    result, _ = load(subject, "files", **job)
    assert result["files"] == 21
    check_stored(subject.data, 21, 5000)


def test_a_refused_request_is_told(subject: Running, bench: Bench) -> None:
    job: dict[str, Any] = {
        "collection": "/nowhere",
        "source": str(bench.source(SIZE)),
        "size": SIZE,
        "count": 1,
        "piece": 0,
    }
    with pytest.raises(FailedError, match="answered 40"):
        load(subject, "streams", **job, fields=[])


def test_every_row_has_its_turn_before_the_next_round_and_none_is_always_first(bench: Bench) -> None:
    turns = list(bench.turns(["a", "b", "c"], ["x", "y"]))
    assert len(turns) == 3 * 2 * 3
    for turn in range(3):
        of_this = turns[turn * 6 : turn * 6 + 6]
        assert sorted(of_this) == [(case, row) for case in "xy" for row in "abc"]
    assert [turns[turn * 6][1] for turn in range(3)] == ["a", "b", "c"]


def test_no_round_begins_that_would_go_beyond_the_limit(bench: Bench) -> None:
    bench.limit = 0.0
    assert len(list(bench.turns(["a", "b"]))) == 2


def test_what_fails_is_told_without_the_places_of_this_machine(bench: Bench) -> None:
    table = Table("t", "Title", (rate(),), base="a")
    with bench.attempt(table, "case", "holdfast (os)") as samples:
        samples.append(Sample(1.0, 1.0))
        check_stored(bench.folder / "data", 1, 17)
    assert table.failures == {("case", "holdfast (os)"): "failed: 0 files of 17 bytes are stored, not 1"}
    with bench.attempt(table, "other", "tusd"):
        (bench.folder / "data").read_bytes()
    assert "'DATA/data'" in table.failures["other", "tusd"]
    assert table.of("case", "holdfast (os)") == []
    assert bench.failed == ["Title: case: holdfast (os): 0 files of 17 bytes are stored, not 1"]
    assert not bench.wanted(table, "case", "holdfast (os)")
