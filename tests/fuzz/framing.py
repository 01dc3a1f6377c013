"""Bytes of a connection, through the server's own HTTP layer, without a socket.

Rule of this file: whatever comes, what goes out is whole answers in order, no more than there were requests and one
refusal behind them; nothing is raised, and after a refusal the connection is closed. The input is split where its first
byte says, so that every head is also read in pieces.
"""

import asyncio
import re
from typing import Any, Final

from uvicorn.server import ServerState

from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.settings import Limits
from tests.fuzz.connections import Loop, Transport, loop_with

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


def play(data: bytes) -> None:
    here = loop_with(_app)
    here.run(_play(here, data))


async def _play(here: Loop, data: bytes) -> None:
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
