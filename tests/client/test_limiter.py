"""Who may use a connection next."""

from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.abc import TaskGroup

from holdfast.clock import SYSTEM
from holdfast.errors import UsageError
from holdfast.limiter import Crowd, Limiter, Limiters
from holdfast.planner import NEAR_CONNECTIONS, START_CONNECTIONS
from holdfast.rates import RateLimit, Share

pytestmark = pytest.mark.anyio


class Room:
    """A limiter whose connections are all in use, and those that wait for one, by name."""

    def __init__(self, group: TaskGroup) -> None:
        self.limiter = Limiter(SYSTEM)
        self._group = group
        self.came: list[str] = []

    async def wait(self, name: str, share: Share) -> None:
        """From now on `name` waits."""

        async def use() -> None:
            async with self.limiter.connection(share):
                self.came.append(name)
                await anyio.sleep_forever()

        self._group.start_soon(use)
        await anyio.wait_all_tasks_blocked()


async def test_who_has_the_fewest_connections_is_next() -> None:
    """A small file does not stand in line behind all chunks of a large one."""
    large, small = Share(0), Share(0)
    async with anyio.create_task_group() as group, AsyncExitStack() as first:
        room = Room(group)
        for _ in range(START_CONNECTIONS - 1):
            await room.wait("large", large)
        await first.enter_async_context(room.limiter.connection(large))
        await room.wait("large again", large)
        await room.wait("small", small)
        room.came.clear()
        await first.aclose()
        await anyio.wait_all_tasks_blocked()
        assert room.came == ["small"]
        group.cancel_scope.cancel()


async def test_priority_goes_before_that() -> None:
    """Also one that has changed while it waits."""
    large, small = Share(1), Share(1)
    async with anyio.create_task_group() as group, AsyncExitStack() as first:
        room = Room(group)
        for _ in range(START_CONNECTIONS - 1):
            await room.wait("large", large)
        await first.enter_async_context(room.limiter.connection(large))
        await room.wait("small", small)
        await room.wait("large again", large)
        large.priority = 0
        room.came.clear()
        await first.aclose()
        await anyio.wait_all_tasks_blocked()
        assert room.came == ["large again"]
        group.cancel_scope.cancel()


async def test_who_had_one_until_now_goes_behind_those_that_had_none() -> None:
    """With fewer connections than transfers, those that came first do not hand them on among themselves."""
    one, other, late = Share(0), Share(0), Share(0)
    limiter = Limiter(SYSTEM, crowd=Crowd(2))
    came: list[str] = []
    ends: dict[str, anyio.Event] = {}

    async def use(name: str, share: Share) -> None:
        ends[name] = anyio.Event()
        async with limiter.connection(share):
            came.append(name)
            await ends[name].wait()

    async with anyio.create_task_group() as group:
        for name, share in {"one": one, "other": other, "one 2": one, "other 2": other, "late": late}.items():
            group.start_soon(use, name, share)
            await anyio.wait_all_tasks_blocked()
        for name in ("one", "other", "late", "one 2", "other 2"):
            ends[name].set()
            await anyio.wait_all_tasks_blocked()
    assert came == ["one", "other", "late", "one 2", "other 2"]


async def test_who_gives_up_waiting_leaves_its_place_to_others() -> None:
    share, other = Share(0), Share(0)
    async with anyio.create_task_group() as group, AsyncExitStack() as first:
        room = Room(group)
        for _ in range(START_CONNECTIONS - 1):
            await room.wait("", share)
        await first.enter_async_context(room.limiter.connection(share))
        with anyio.move_on_after(0.01):
            async with room.limiter.connection(other):
                raise AssertionError("there was no room")
        await room.wait("next", share)
        await first.aclose()
        await anyio.wait_all_tasks_blocked()
        assert room.came[-1] == "next"
        group.cancel_scope.cancel()


async def test_a_transfer_never_has_more_than_it_was_told() -> None:
    """Also where there is room; others are let in past it."""
    limiter = Limiters(SYSTEM).of(("http", "a", 1), "down")
    one, other = Share(0), Share(1)
    came: list[str] = []

    async def use(share: Share, name: str, fixed: int | None, until: anyio.Event) -> None:
        async with limiter.connection(share, fixed):
            came.append(name)
            await until.wait()

    async with anyio.create_task_group() as group:
        leave, end = anyio.Event(), anyio.Event()
        for name, until in (("a", leave), ("b", end), ("c", end)):
            group.start_soon(use, one, name, 2, until)
        group.start_soon(use, other, "other", None, end)
        await anyio.wait_all_tasks_blocked()
        assert came == ["a", "b", "other"]
        leave.set()
        await anyio.wait_all_tasks_blocked()
        assert came == ["a", "b", "other", "c"]
        end.set()


async def test_all_origins_share_what_the_caller_allows() -> None:
    """At most so many connections to whatever origins; the lowest priority number is next, wherever it waits."""
    crowd = Crowd(2)
    limiters = Limiters(SYSTEM, crowd=crowd)
    here, there = limiters.of(("http", "a", 1), "up"), limiters.of(("http", "b", 1), "down")
    came: list[str] = []
    leave = anyio.Event()

    async def use(limiter: Limiter, name: str, priority: int, until: anyio.Event) -> None:
        async with limiter.connection(Share(priority), fixed=10):
            came.append(name)
            await until.wait()

    async with anyio.create_task_group() as group:
        for limiter, name, priority in ((here, "first", 0), (there, "second", 0)):
            group.start_soon(use, limiter, name, priority, leave)
        await anyio.wait_all_tasks_blocked()
        later = anyio.Event()
        for limiter, name, priority in ((here, "late", 5), (there, "urgent", -1), (here, "middle", 1)):
            group.start_soon(use, limiter, name, priority, later)
            await anyio.wait_all_tasks_blocked()
        assert (came, crowd.used) == (["first", "second"], 2)
        leave.set()
        await anyio.wait_all_tasks_blocked()
        assert (came[2:], crowd.used) == (["urgent", "middle"], 2)
        crowd.most = 3
        await anyio.wait_all_tasks_blocked()
        assert (came[4:], crowd.used) == (["late"], 3)
        later.set()
    assert crowd.used == 0
    with pytest.raises(UsageError):
        crowd.most = 0


async def test_nobody_waits_for_one_that_is_slow_because_its_own_limit_wants_it() -> None:
    """Also where few connections are begun with; the slow one itself gets no more of them for that."""
    slow, other = Share(0, RateLimit(1000, lambda: 0.0)), Share(0, RateLimit(None, lambda: 0.0))
    async with anyio.create_task_group() as group:
        room = Room(group)
        room.limiter.controller.met(0.001)
        for _ in range(NEAR_CONNECTIONS + 1):
            await room.wait("slow", slow)
        for _ in range(NEAR_CONNECTIONS + 1):
            await room.wait("other", other)
        assert room.came.count("slow") == NEAR_CONNECTIONS
        assert room.came.count("other") == 1
        group.cancel_scope.cancel()


async def test_with_a_limit_for_all_none_of_them_waits_for_the_chunks_of_another() -> None:
    """With few connections, each of which is slow, a transfer would stand still for as long as a chunk takes."""
    whole = RateLimit(1000, lambda: 0.0)
    async with anyio.create_task_group() as group:
        room = Room(group)
        room.limiter.controller.met(0.001)
        for number in range(NEAR_CONNECTIONS + 2):
            share = Share(0, RateLimit(None, lambda: 0.0), whole)
            for _ in range(NEAR_CONNECTIONS):
                await room.wait(str(number), share)
        assert [room.came.count(str(number)) for number in range(4)] == [2, 1, 1, 1]
        group.cancel_scope.cancel()


async def test_who_was_refused_lets_others_have_its_connection() -> None:
    """And has one again before those that waited longer, for what it sends is in memory."""
    share = Share(0)
    order = []
    async with anyio.create_task_group() as group:
        room = Room(group)
        room.limiter = Limiter(SYSTEM, crowd=Crowd(1))
        refused, over = anyio.Event(), anyio.Event()

        async def use() -> None:
            async with room.limiter.connection(share):
                async with room.limiter.without(share):
                    refused.set()
                    await over.wait()
                order.append("again")

        group.start_soon(use)
        await refused.wait()
        async with room.limiter.connection(share):
            await room.wait("later", share)
            over.set()
            await anyio.wait_all_tasks_blocked()
            assert (order, room.came) == ([], [])
        await anyio.wait_all_tasks_blocked()
        assert (order, room.came) == (["again"], ["later"])
        group.cancel_scope.cancel()


async def test_who_is_cancelled_without_a_connection_has_none_to_give_back() -> None:
    share = Share(0)
    limiter = Limiter(SYSTEM, crowd=(crowd := Crowd(1)))
    with anyio.CancelScope() as scope:
        async with limiter.connection(share), limiter.without(share):
            scope.cancel()
            await anyio.sleep_forever()
    assert crowd.used == 0
