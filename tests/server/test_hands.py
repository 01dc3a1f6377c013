"""Threads for short work: one does what waits, and others come only where it hangs."""

import asyncio
import errno
import threading

import anyio
import anyio.lowlevel
import pytest

from holdfast_server.storage.hands import Hands

pytestmark = pytest.mark.anyio


async def test_work_is_done_in_another_thread_and_answered() -> None:
    assert await Hands(4).run(threading.get_ident) != threading.get_ident()


async def test_an_error_is_that_of_whoever_asked() -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "broken")

    hands = Hands(4)
    with pytest.raises(OSError, match="broken"):
        await hands.run(fail)
    assert await hands.run(lambda: 5) == 5


async def test_what_is_given_together_is_done_by_one_thread_in_order() -> None:
    hands, seen = Hands(4), list[tuple[int, int]]()
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(hands.run, lambda n=number: seen.append((n, threading.get_ident())))
    assert [number for number, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen}) == 1


async def test_nobody_waits_for_a_job_that_hangs() -> None:
    """Neither those that were given with it nor those that come later."""
    hands, gate = Hands(4), threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hands.run, gate.wait)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as others:
                for number in range(10):
                    others.start_soon(hands.run, number.bit_length)
            assert await hands.run(lambda: "later") == "later"
        gate.set()


async def test_long_jobs_are_done_side_by_side() -> None:
    """Each ends only when the others have begun, also those that come while one is at work."""
    hands, meet = Hands(3, at_once=3), threading.Barrier(3)
    for _ in range(2):  # with new threads, and with those that are there
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(hands.run, lambda: meet.wait(30))
                await anyio.lowlevel.checkpoint()


async def test_what_was_done_is_told_while_the_next_job_hangs() -> None:
    hands, gate = Hands(1), threading.Event()
    async with anyio.create_task_group() as tasks:

        async def first() -> None:
            with anyio.fail_after(30):
                assert await hands.run(lambda: "done") == "done"
            gate.set()

        tasks.start_soon(first)
        tasks.start_soon(hands.run, gate.wait)


async def test_there_are_no_more_threads_than_were_allowed() -> None:
    hands, gate, busy = Hands(3), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        busy.release()
        gate.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(hands.run, hang)
        for _ in range(3):
            assert await anyio.to_thread.run_sync(lambda: busy.acquire(timeout=30))
        await anyio.sleep(0.05)  # ten times as long as it takes to see that jobs wait
        assert not busy.acquire(blocking=False)
        gate.set()


async def test_a_caller_that_is_cancelled_waits_for_its_work() -> None:
    """What a thread has in its hands, a lock or a descriptor, must not be left to nobody."""
    hands, begun, gate, results = Hands(2), threading.Event(), threading.Event(), list[str]()

    def work() -> str:
        begun.set()
        gate.wait()
        return "mine"

    async def ask() -> None:
        results.append(await hands.run(work))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        assert await anyio.to_thread.run_sync(begun.wait, 30)
        tasks.cancel_scope.cancel()
        gate.set()
    assert results == ["mine"]


async def test_a_caller_that_asyncio_itself_cancels_leaves_the_others_alone() -> None:
    """A shield of anyio does not hold that off: `asyncio.timeout` around us, or a server that ends."""
    hands, gate, task = Hands(2), threading.Event(), asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await hands.run(gate.wait)
    task.uncancel()
    gate.set()
    with anyio.fail_after(30):
        assert await hands.run(lambda: "later") == "later"
