"""What worker processes tell each other of clients: `holdfast_server.storage.board`, in real processes."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest
from tests.support.waiting import scaled

from holdfast_server.http.doors import FEW, Doors
from holdfast_server.http.rationing import BURST, Buckets
from holdfast_server.storage.board import BYTES, CONNECTIONS, REQUESTS, Board

CONTEXT = multiprocessing.get_context("spawn")


def _work(board: Board, orders: Connection) -> None:
    """Does what it is told, and answers."""
    doors = Doors(most=40, each=10, board=board)
    buckets = Buckets(10, REQUESTS, board)
    does: dict[str, Any] = {
        "enter": lambda who: getattr(doors.enter(who), "code", None),
        "leave": doors.leave,
        "take": lambda who, now: buckets.take(who, 1, now),
        "tell": board.tell,
        "others": lambda kind, name: sorted(board.others(kind, name)),
    }
    while True:
        word, *given = orders.recv()
        orders.send(does[word](*given))


class Worker:
    def __init__(self, board: Board) -> None:
        self._orders, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_work, args=(board, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def do(self, *order: Any) -> Any:
        self._orders.send(order)
        assert self._orders.poll(scaled(30))
        return self._orders.recv()

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(scaled(30))
        self._orders.close()


@contextmanager
def working(count: int) -> Iterator[tuple[Board, list[Worker]]]:
    board = Board(2)
    workers = [Worker(board) for _ in range(count)]
    try:
        yield board, workers
    finally:
        for each in workers:
            each.kill()
        board.close()
        gc.collect()


def test_each_hears_what_the_others_have_told_last() -> None:
    with working(3) as (_, (one, other, late)):
        for each in (one, other):
            each.do("others", CONNECTIONS, "a")  # takes its column, in this order
        one.do("tell", CONNECTIONS, "a", 3)
        one.do("tell", CONNECTIONS, "a", 4)
        one.do("tell", BYTES, "a", 1.5)
        other.do("tell", CONNECTIONS, "b", 7)
        assert other.do("others", CONNECTIONS, "a") == [4]
        assert other.do("others", BYTES, "a") == [1.5]
        assert other.do("others", REQUESTS, "a") == []
        assert one.do("others", CONNECTIONS, "a") == []
        assert one.do("others", CONNECTIONS, "b") == [7]
        late.do("tell", CONNECTIONS, "a", 9)  # there is no column for it: it hears, and is not heard
        assert late.do("others", CONNECTIONS, "a") == [4]
        assert other.do("others", CONNECTIONS, "a") == [4]


def test_who_follows_a_killed_one_takes_its_place_empty() -> None:
    with working(2) as (board, workers):
        one, other = workers
        for each in workers:
            each.do("tell", CONNECTIONS, "a", 5)
        one.kill()
        workers[0] = Worker(board)
        assert workers[0].do("others", CONNECTIONS, "a") == [5]
        assert other.do("others", CONNECTIONS, "a") == []


@pytest.mark.rule("H-CONN-1")
def test_connections_count_in_all_processes() -> None:
    with working(2) as (_, (one, other)):
        answers = [worker.do("enter", "a") for _ in range(6) for worker in (one, other)]
        assert answers == [None] * 10 + ["too-many-connections"] * 2
        one.do("leave", "a")
        assert other.do("enter", "a") is None
        for number in range(30):
            assert (one, other)[number % 2].do("enter", f"client {number}") is None
        assert [worker.do("enter", "one more") for worker in (one, other)] == ["overloaded"] * 2
        for _ in range(5):
            other.do("leave", "a")
        assert one.do("enter", "a") is None  # it has five, which is fewer than eight
        assert FEW == 8


@pytest.mark.rule("H-RATE-1", "H-RATE-2")
def test_processes_draw_from_the_same_buckets() -> None:
    with working(2) as (_, (one, other)):
        for number in range(int(10 * BURST)):
            assert (one, other)[number % 2].do("take", "a", 100.0) == 0
        assert one.do("take", "a", 100.0) == pytest.approx(0.1)
        assert other.do("take", "a", 100.0) == pytest.approx(0.2)
        assert other.do("take", "b", 100.0) == 0
        assert one.do("take", "a", 100.3) == 0
