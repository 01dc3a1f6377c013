"""Bytes of a connection, through the server's own HTTP layer, without a socket.

Rule of this file: whatever comes, what goes out is whole answers in order, no more than there were requests and one
refusal behind them; nothing is raised, and after a refusal the connection is closed. The input is split where its first
byte says, so that every head is also read in pieces.
"""

import asyncio
import re
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.settings import Limits

_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_REFUSALS: Final = (400, 408, 431)
_asked: list[str] = []


async def _app(scope: Any, receive: Any, send: Any) -> None:
    _asked.append(scope["method"])
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


class Transport(asyncio.Transport):
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


class _Loop:
    """One loop and one configuration for all inputs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.config = uvicorn.Config(_app, http=HoldfastProtocol, ws="none", lifespan="off", log_config=None)
        self.config.load()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))


_loop: _Loop | None = None


def play(data: bytes) -> None:
    global _loop
    if _loop is None:
        _loop = _Loop()
    _loop.loop.run_until_complete(_play(_loop, data))


async def _play(here: _Loop, data: bytes) -> None:
    _asked.clear()
    split = data[0] if data else 0
    transport = Transport()
    protocol = HoldfastProtocol(here.config, ServerState(), {}, here.loop, limits=Limits(max_head=2048))
    protocol.connection_made(transport)
    for piece in (data[1 : 1 + split], data[1 + split :]):
        if piece and not transport.closed:
            protocol.data_received(piece)
        for _ in range(6):
            await asyncio.sleep(0)
    for _ in range(3 * len(_asked) + 6):
        await asyncio.sleep(0)
    statuses = _statuses(transport.written)
    protocol.connection_lost(None)
    for _ in range(6):
        await asyncio.sleep(0)
    assert here.faults == [], here.faults
    good, refused = statuses.count(299), [status for status in statuses if status != 299]
    assert good <= len(_asked), statuses
    assert len(refused) <= 1, statuses
    if refused:
        assert statuses[-1] in _REFUSALS, statuses
        assert transport.closed


def _statuses(written: bytes) -> list[int]:
    """The statuses of the answers in what was written. Raises AssertionError if there is anything else in it."""
    found = []
    while written:
        if written.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            written = written[25:]
            continue
        match = _ANSWER.match(written)
        assert match is not None, written
        found.append(int(match[1]))
        length = re.search(rb"(?im)^content-length: *(\d+)\r$", match[2])
        body = int(length[1]) if length is not None else 0
        rest = written[match.end() :]
        # The answer to a HEAD has a length and no body.
        written = rest if rest.startswith(b"HTTP/1.1 ") or not rest else rest[body:]
    return found
