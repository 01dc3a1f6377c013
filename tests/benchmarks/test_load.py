"""The load does what it says, against a real server."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.harness import Bench, check_stored, load, wait_stored
from benchmarks.load.watchers import Reader, Stream
from benchmarks.load.wire import Connection
from benchmarks.peers import holdfast
from benchmarks.processes import FailedError, Running, running
from benchmarks.report import Sample, Table, rate
from benchmarks.units import KIB, MIB

from holdfast_protocol.live import EVENTS_PATH, LIVE_PATH

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


def test_a_file_that_is_late_is_waited_for(tmp_path: Path) -> None:
    """As where a server has answered before it has put the parts together."""
    late = threading.Timer(0.2, (tmp_path / "file").write_bytes, [b"0" * 5000])
    began = time.perf_counter()
    late.start()
    assert 0.1 < wait_stored(tmp_path, 5000) <= time.perf_counter() - began
    late.join()


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


@pytest.mark.parametrize("stream", [False, True])
def test_who_watches_counts_every_message_once(subject: Running, stream: bool) -> None:
    with Connection(subject.port) as connection:
        made = [
            connection.tus("POST", "/files", "Upload-Length: 1000").expect(201).location.rpartition("/")[2]
            for _ in range(20)
        ]
    job: dict[str, Any] = {"target": f"{EVENTS_PATH if stream else LIVE_PATH}?topic=all", "stream": stream}
    job |= {"count": 5, "rate": 40.0, "seconds": 0.5, "uploads": made, "folder": str(subject.data / "live")}
    result, _ = load(subject, "watchers", **job)
    assert result["delivered"] == 5 * 20
    assert result["missing"] == 0
    assert len(result["times"]) == 5 * 20
    assert all(each > 0 for each in result["times"])
    assert len(result["spread"]) == 20


def frame(due: int) -> bytes:
    return b'{"v":1,"payload":{"arriving":%d,"error":null,"timestamp":"now"}}\n' % due


def test_what_comes_in_other_pieces_is_the_same_and_what_differs_is_read_by_itself() -> None:
    first, second, third = 10**10, 10**10 + 1, 10**10 + 2
    owed = {first, second, third}
    common = Stream(owed)
    readers = []
    for _ in range(4):
        made = Reader(socket.socket())
        made.socket.close()
        made.follow(common)
        readers.append(made)

    def times(by: Reader, *pieces: bytes) -> list[int]:
        found = []
        for piece in pieces:
            stream, before, after = by.take(piece)
            found += stream.times[before:after]
        return found

    whole = frame(first) + frame(5) + frame(10**10 + 9) + frame(second) + frame(first) + frame(third)
    one, two, three, four = readers
    assert times(one, whole[:70], whole[70:]) == [first, second, third]
    assert times(two, *[whole[at : at + 1] for at in range(len(whole))]) == [first, second, third]
    assert times(three, frame(first), frame(third), frame(third) + frame(second)[:20], frame(second)[20:]) == [
        *(first, third, second)
    ]
    assert times(four, frame(second) + frame(first)) == [second, first]
    assert times(one, frame(second) + b"{") == times(two, frame(second), b"{") == []
