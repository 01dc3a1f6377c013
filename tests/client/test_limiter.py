"""Who may use a connection next."""

from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.abc import TaskGroup

from holdfast.limiter import Limiter
from holdfast.planner import START_CONNECTIONS, Share

pytestmark = pytest.mark.anyio


class Room:
    """A limiter whose connections are all in use, and those that wait for one, by name."""

    def __init__(self, group: TaskGroup) -> None:
        self.limiter = Limiter(lambda: 0.0)
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
