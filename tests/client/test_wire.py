"""Connections as they are made: whoever stops waiting for one leaves none open."""

import gc
import socket

import anyio
import pytest
from anyio.lowlevel import checkpoint

from holdfast._wire import Network

pytestmark = pytest.mark.anyio


async def test_a_connection_that_is_there_as_its_caller_goes_is_closed() -> None:
    """Whatever the step at which it goes; one that is left open is a ResourceWarning, and so a failure."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for steps in range(40):
            async with anyio.create_task_group() as group:
                group.start_soon(connect, listener.getsockname()[1])
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            gc.collect()


async def connect(port: int) -> None:
    wire = await Network().connect_tcp("127.0.0.1", port)
    await wire.aclose()
