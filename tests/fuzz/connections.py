"""Connections without sockets, for targets that speak with a protocol of the server.

Rule of this file: one event loop and one configuration serve all inputs of a target; what the loop is told that went
wrong, breaks it.
"""

import asyncio
from collections.abc import Coroutine
from functools import cache
from typing import Any

import uvicorn


class Loop:
    """Runs what is said with the application `app`."""

    def __init__(self, app: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
        self.config.load()
        self._faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self._faults.append(context))

    def run(self, talk: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(talk)
        assert self._faults == [], self._faults


loop_with = cache(Loop)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 80), "sslcontext": True}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
