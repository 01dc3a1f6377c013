"""Memory for chunks: bounded, used again, and given back when it does not fit."""

import anyio
import pytest

from holdfast.buffers import Buffers

MIB = 1024 * 1024

pytestmark = pytest.mark.anyio


async def test_a_buffer_is_used_again_if_it_has_about_the_size() -> None:
    buffers = Buffers()
    first = buffers.take(8 * MIB)
    buffers.give_back(first)
    assert buffers.take(7 * MIB) is first


async def test_one_that_is_much_too_large_is_given_back_to_the_system() -> None:
    buffers = Buffers()
    large = buffers.take(8 * MIB)
    large[:4] = b"kept"
    buffers.give_back(large)
    assert len(buffers.take(2 * MIB)) == 2 * MIB
    assert large[:4] == bytes(4), "its pages are gone, though somebody still names it"


async def test_one_that_somebody_looks_at_is_not_written_to() -> None:
    buffers = Buffers()
    seen = buffers.take(MIB)
    buffers.give_back(seen, again=False)
    assert buffers.take(MIB) is not seen


async def test_whoever_would_go_beyond_the_bound_waits() -> None:
    buffers = Buffers()
    first = buffers.take(6 * MIB)
    order = []

    async def second() -> None:
        await buffers.room(6 * MIB, 8 * MIB)
        order.append("room")

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        order.append("given back")
        buffers.give_back(first)
    assert order == ["given back", "room"]


async def test_one_that_is_larger_than_the_bound_has_room_alone() -> None:
    await Buffers().room(64 * MIB, 8 * MIB)
