"""Order, limits, pause and resume, retries and statistics, with transfers that do what the test says."""

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

import holdfast
from holdfast import AsyncClient, ConnectionFailed, Progress, RetryPolicy, State, UsageError, VerificationFailed
from holdfast.progress import Tracker
from holdfast.queue import TransferQueue
from holdfast.rates import RateLimit, Share
from holdfast.transfers import Gate, Transfer
from tests.client.loopback import Loopback
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


class Job:
    """A transfer of which the test says when it ends, and how."""

    def __init__(self, name: str, log: list[str], priority: int = 0, gate: Gate | None = None) -> None:
        self.log = log
        self.name = name
        self.free = anyio.Event()
        self.error: holdfast.HoldfastError | None = None
        self.tracker = Tracker(lambda: 0.0)
        limit = RateLimit(None, lambda: 0.0)
        self.transfer: Transfer[str] = Transfer(
            "upload", name, self.tracker, self.work, share=Share(priority, limit), limit=limit, gate=gate
        )

    async def work(self) -> str:
        self.log.append(self.name)
        self.tracker.size = 100
        self.tracker.enter(State.IN_PROGRESS)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        await self.free.wait()
        self.tracker.accepted = 100
        return self.name


@asynccontextmanager
async def opened(active: int = 1, policy: RetryPolicy | None = None) -> AsyncIterator[TransferQueue]:
    queue = TransferQueue(active, RateLimit(None, lambda: 0.0), policy or RetryPolicy(retries=0))
    async with anyio.create_task_group() as group:
        queue.open(group.start_soon)
        with anyio.fail_after(10):
            yield queue
        group.cancel_scope.cancel()


async def settle() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_lower_numbers_go_first_and_then_the_older_ones() -> None:
    log: list[str] = []
    jobs = [Job("first", log), Job("late", log, 5), Job("b", log, 1), Job("c", log, 1), Job("urgent", log, -1)]
    async with opened() as queue:
        for job in jobs:
            queue.start(job.transfer)
            await settle()
        for job in jobs:
            job.free.set()
        await queue.join()
    assert log == ["first", "urgent", "b", "c", "late"]


async def test_what_waits_can_be_put_in_another_order() -> None:
    log: list[str] = []
    jobs = {name: Job(name, log) for name in ("now", "a", "b", "c", "d")}
    async with opened() as queue:
        for job in jobs.values():
            queue.start(job.transfer)
            await settle()
        queue.put_before(jobs["d"].transfer, jobs["b"].transfer)
        jobs["c"].transfer.priority = -3
        assert [each.name for each in queue.waiting] == ["c", "a", "d", "b"]
        queue.put_before(jobs["b"].transfer, jobs["a"].transfer)
        assert [each.name for each in queue.waiting] == ["c", "b", "a", "d"]
        with pytest.raises(UsageError):
            queue.put_before(jobs["now"].transfer, jobs["a"].transfer)
        for job in jobs.values():
            job.free.set()
        await queue.join()
    assert log == ["now", "c", "b", "a", "d"]


async def test_the_limit_of_active_transfers_holds_and_can_be_changed() -> None:
    log: list[str] = []
    jobs = [Job(str(number), log) for number in range(6)]
    async with opened(2) as queue:
        for job in jobs:
            queue.start(job.transfer)
        await settle()
        assert (queue.statistics.active, queue.statistics.pending) == (2, 4)
        queue.active = 4
        await settle()
        assert (queue.statistics.active, queue.statistics.pending) == (4, 2)
        queue.active = 1
        for job in jobs[:4]:
            job.free.set()
        await settle()
        assert (queue.statistics.active, queue.statistics.pending) == (1, 1)
        for job in jobs:
            job.free.set()
        statistics = await queue.join()
        assert (statistics.completed, statistics.total, statistics.fraction) == (6, 6, 1.0)
        with pytest.raises(UsageError):
            queue.active = 0


async def test_who_is_paused_lets_others_have_the_turn_and_goes_on_later() -> None:
    log: list[str] = []
    first, second = Job("first", log), Job("second", log)
    async with opened() as queue:
        queue.start(first.transfer)
        await settle()
        queue.start(second.transfer)
        first.transfer.pause()
        await settle()
        assert (first.transfer.state, second.transfer.state) == (State.PAUSED, State.IN_PROGRESS)
        first.transfer.resume()
        await settle()
        assert first.transfer.state is State.PENDING
        second.free.set()
        await settle()
        assert log == ["first", "second", "first"]
        first.free.set()
        assert await first.transfer == "first"


async def test_who_is_paused_at_once_does_not_begin() -> None:
    log: list[str] = []
    first, second = Job("first", log), Job("second", log)
    first.free.set()
    async with opened() as queue:
        for job in (first, second):
            queue.start(job.transfer)
        first.transfer.pause()
        await settle()
        assert (first.transfer.state, log) == (State.PAUSED, ["second"])
        first.transfer.resume()
        second.free.set()
        assert await first.transfer == "first"


async def test_the_sizes_of_those_that_wait_are_in_the_statistics(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """So that the part that is done does not go back with each one that has its turn."""
    free = threading.Event()
    loopback.order("POST", "hold", until=free.is_set)
    async with make_client(transfers=1, timeouts=holdfast.Timeouts(stall=20, response=20)) as client:
        assert client.queue.statistics.fraction == 1.0
        client.upload(b"", loopback.url)
        assert client.queue.statistics.fraction == 0.0, "there is something to do, however little it is"
        client.upload(b"x" * 1000, loopback.url)
        client.upload(make_file(500), loopback.url)
        client.upload(make_file(0, "gone").parent / "nowhere", loopback.url).cancel()
        assert (client.queue.statistics.size, client.queue.statistics.fraction) == (1500, 0.0)
        free.set()
        statistics = await client.queue.join()
        assert (statistics.size, statistics.fraction, statistics.eta) == (1500, 1.0, 0.0)


async def test_who_waits_can_be_paused_too() -> None:
    log: list[str] = []
    first, second, third = (Job(name, log) for name in ("first", "second", "third"))
    async with opened() as queue:
        for job in (first, second, third):
            queue.start(job.transfer)
        await settle()
        second.transfer.pause()
        await settle()
        assert second.transfer.state is State.PAUSED
        first.free.set()
        await settle()
        assert log == ["first", "third"]
        second.transfer.resume()
        third.free.set()
        second.free.set()
        await queue.join()
    assert log == ["first", "third", "second"]


async def test_pause_and_resume_at_once_changes_nothing_for_long() -> None:
    job = Job("job", [])
    async with opened() as queue:
        queue.start(job.transfer)
        await settle()
        job.transfer.pause()
        job.transfer.resume()
        await settle()
        assert job.transfer.state is State.IN_PROGRESS
        job.free.set()
        assert await job.transfer == "job"


async def test_a_stream_keeps_its_turn_while_it_is_paused() -> None:
    gate = Gate()
    job = Job("stream", [], gate=gate)
    async with opened() as queue:
        queue.start(job.transfer)
        await settle()
        job.transfer.pause()
        assert job.transfer.state is State.PAUSED
        with anyio.move_on_after(0.01) as waiting:
            await gate.passed()
        assert waiting.cancelled_caught
        job.transfer.resume()
        await gate.passed()
        job.free.set()
        assert await job.transfer == "stream"
        assert job.log == ["stream"]


async def test_cancel_ends_whatever_it_does() -> None:
    """On its way, in the queue, and paused."""
    log: list[str] = []
    running, paused, waiting = (Job(name, log) for name in ("running", "paused", "waiting"))
    async with opened() as queue:
        for job in (running, paused, waiting):
            queue.start(job.transfer)
        await settle()
        paused.transfer.pause()
        await settle()
        for job in (paused, waiting, running):
            job.transfer.cancel()
            assert await job.transfer.wait() is State.CANCELLED
            with pytest.raises(holdfast.TransferCancelled):
                await job.transfer
        assert (queue.statistics.cancelled, queue.statistics.total) == (3, 3)
        assert queue.unseen_errors == []


async def test_what_may_go_better_is_tried_again_and_nothing_else() -> None:
    log: list[str] = []
    flaky, wrong = Job("flaky", log), Job("wrong", log)
    flaky.error, wrong.error = ConnectionFailed("no way"), VerificationFailed("not the file")
    flaky.free.set()
    async with opened(policy=RetryPolicy(retries=1, first=0.01)) as queue:
        queue.start(flaky.transfer)
        queue.start(wrong.transfer)
        assert await flaky.transfer == "flaky"
        with pytest.raises(VerificationFailed):
            await wrong.transfer
    assert log == ["flaky", "wrong", "flaky"]


async def test_tries_come_to_an_end() -> None:
    job = Job("job", [])

    async def fail() -> str:
        job.log.append("try")
        raise ConnectionFailed("no way")

    job.transfer._work = fail
    async with opened(policy=RetryPolicy(retries=3, first=0.001)) as queue:
        queue.start(job.transfer)
        assert await job.transfer.wait() is State.FAILED
        assert isinstance(job.transfer.error, ConnectionFailed)
    assert job.transfer.progress.retries == 3
    assert job.log == ["try"] * 4


async def test_what_is_said_between_two_tries_is_not_what_to_do_after_the_last() -> None:
    job = Job("job", [])
    job.error = ConnectionFailed("no way")
    job.error.add("; gave up, run it again")
    async with opened(policy=RetryPolicy(retries=1, first=3600.0, longest=3600.0)) as queue:
        queue.start(job.transfer)
        await settle()
        note = job.transfer.progress.note
        assert note is not None
        assert note.startswith("no way; the transfer goes on in ")
        job.transfer.cancel()


async def test_callbacks_see_progress_and_the_end_and_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[State] = []
    ended: list[str] = []

    def progress(transfer: Transfer[str], look: Progress) -> None:
        seen.append(look.state)
        raise ValueError("not my day")

    async def end(transfer: Transfer[str]) -> None:
        await anyio.lowlevel.checkpoint()
        ended.append(transfer.name)

    with caplog.at_level(logging.CRITICAL, "holdfast"):
        async with opened() as queue:
            queue.on_progress(progress)
            queue.on_end(end)
            for name in ("a", "b"):
                job = Job(name, [])
                job.free.set()
                queue.start(job.transfer)
            await queue.join()
            await settle()
    assert ended == ["a", "b"]
    assert seen.count(State.COMPLETED) == 2


async def test_shutdown_waits_for_what_is_there_and_takes_no_more() -> None:
    log: list[str] = []
    running, waiting, paused = (Job(name, log) for name in ("running", "waiting", "paused"))
    async with opened() as queue:
        for job in (running, waiting, paused):
            queue.start(job.transfer)
        await settle()
        paused.transfer.pause()
        await settle()
        running.free.set()
        waiting.free.set()
        statistics = await queue.shutdown()
        assert (statistics.completed, statistics.cancelled) == (2, 1)
        with pytest.raises(UsageError):
            queue.start(Job("more", log).transfer)


async def test_shutdown_does_not_wait_for_one_that_was_paused_just_now() -> None:
    job = Job("paused", [])
    async with opened() as queue:
        queue.start(job.transfer)
        job.transfer.pause()
        assert (await queue.shutdown()).cancelled == 1


async def test_shutdown_without_waiting_cancels() -> None:
    jobs = [Job(str(number), []) for number in range(3)]
    async with opened() as queue:
        for job in jobs:
            queue.start(job.transfer)
        await settle()
        assert (await queue.shutdown(wait=False)).cancelled == 3


async def test_a_real_upload_is_paused_and_goes_on(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    path = make_file(8 * MIB)
    loopback.order("PATCH", "stall", when=lambda seen: seen.is_chunk and seen.offset == 6 * MIB)
    async with make_client(timeouts=holdfast.Timeouts(stall=25, response=25)) as client:
        transfer = client.upload(path, loopback.url, chunk_size=MIB, concurrency=1)
        async for progress in transfer:
            if progress.accepted >= 6 * MIB and progress.state is State.IN_PROGRESS:
                await to_thread.run_sync(eventually, lambda: len(loopback.chunks()) == 7)
                transfer.pause()
            if progress.state is State.PAUSED:
                assert progress.concurrency == 0
                break
        before = len(loopback.chunks())
        transfer.resume()
        result = await transfer
    assert bytes(loopback.only().data) == path.read_bytes()
    assert len(loopback.chunks()) == before + 2, "what was stored before is not sent again"
    assert result.size == 8 * MIB


async def test_a_limit_can_be_lifted_while_it_holds(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback
) -> None:
    """At 64 KiB a second it would take a minute."""
    path = make_file(4 * MIB)
    async with make_client() as client:
        with anyio.fail_after(40):
            transfer = client.upload(path, loopback.url, limit_rate=65536)
            other = client.upload(make_file(1000, "other"), loopback.url)
            await other
            async for progress in transfer:
                if progress.wire:
                    transfer.limit_rate = None
            assert (await transfer).size == 4 * MIB
