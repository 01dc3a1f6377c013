"""The runner of a command: a long list costs little more than the list, and its results come in order."""

import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest

from holdfast import AsyncClient, State, TargetExists, Transfer
from holdfast.cli.jobs import Job
from holdfast.cli.options import Settings
from holdfast.cli.running import AHEAD, Batch, Sum
from holdfast.progress import Tracker
from holdfast.rates import RateLimit, Share

MANY = 3000


def test_a_long_list_is_begun_little_by_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one ends last, every third fails, and never are there more than a few transfers."""
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    alive: weakref.WeakSet[Transfer[Any]] = weakref.WeakSet()
    most = ended = 0
    last = anyio.Event()

    def start(client: AsyncClient, job: Job) -> Transfer[str]:
        async def work() -> str:
            nonlocal ended
            if job.name == "0":
                await last.wait()
            await anyio.lowlevel.checkpoint()
            ended += 1
            if ended == MANY - 1:
                last.set()
            if int(job.name) % 3 == 1:
                raise TargetExists("it is there already")
            return f"result {job.name}"

        nonlocal most
        limit = RateLimit(None, lambda: 0.0)
        transfer = Transfer(
            "upload", job.name, Tracker(lambda: 0.0), work, share=Share(job.priority, limit), limit=limit
        )
        client.queue.start(transfer)
        alive.add(transfer)
        most = max(most, sum(not each.done for each in alive))
        return transfer

    jobs = [Job(str(number)) for number in range(MANY)]
    batch = Batch(jobs, start, str, lambda name, result: {}, settings=Settings(quiet=True, transfers=2))
    assert batch.run() == 1
    assert most == 2 * AHEAD
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"result {number}" for number in range(MANY) if number % 3 != 1]
    assert len(err.splitlines()) == MANY // 3


def test_the_time_to_go_of_all_counts_what_is_on_its_way_and_knows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("holdfast.cli.running.time.monotonic", lambda: now)
    total = Sum([Job("a", size=20_000_000), Job("b", size=10_000_000)], 1_000_000)
    tracker = Tracker(lambda: now)
    tracker.size = 20_000_000
    tracker.enter(State.IN_PROGRESS)
    tracker.moved(2_000_000)
    now += 1.01
    total.look(0, tracker.snapshot())
    overall = total.overall()
    assert overall.accepted == 0
    assert overall.eta == pytest.approx(28, abs=0.1)


def test_of_a_list_the_lowest_number_is_begun_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    begun: list[str] = []

    def start(client: AsyncClient, job: Job) -> Transfer[str]:
        async def work() -> str:
            return job.name

        begun.append(job.name)
        limit = RateLimit(None, lambda: 0.0)
        transfer = Transfer("upload", job.name, Tracker(lambda: 0.0), work, share=Share(0, limit), limit=limit)
        client.queue.start(transfer)
        return transfer

    jobs = [Job("late", priority=5), Job("a"), Job("b"), Job("urgent", priority=-1)]
    batch = Batch(jobs, start, str, lambda name, result: {}, settings=Settings(quiet=True))
    assert batch.run() == 0
    assert begun == ["urgent", "a", "b", "late"]
    assert capsys.readouterr().out.split() == ["late", "a", "b", "urgent"]
