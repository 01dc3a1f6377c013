"""Bytes of a WebSocket behind its handshake, through the server's own layer, without a socket.

Rule of this file: whatever comes, nothing is raised; what is told to the taker is text of a length that is taken, in
pieces or not, and of what has no end yet no more is kept. What goes out is frames of a server, and behind a close
nothing but the end.
"""

import asyncio
from typing import Any, Final

from uvicorn.server import ServerState

from holdfast_protocol import live
from holdfast_server.http.websocket import TAKING, WebSocketProtocol
from tests.fuzz.connections import Loop, Transport, loop_with

HANDSHAKE: Final = (
    b"GET /api/live HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLOSE: Final = 8


class _Taker:
    def __init__(self) -> None:
        self.ends = 0

    def heard(self, text: str) -> None:
        assert len(text.encode()) <= live.LONGEST_MESSAGE
        assert not self.ends

    def writable_again(self) -> None:
        pass

    def ended(self) -> None:
        self.ends += 1


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    scope["extensions"][TAKING]["take"](scope["state"]["taker"])


def converse(data: bytes) -> None:
    """The first byte says after how many bytes the rest comes by itself."""
    here = loop_with(_app)
    here.run(_converse(here, data))


async def _converse(here: Loop, data: bytes) -> None:
    taker, transport = _Taker(), Transport()
    protocol = WebSocketProtocol(here.config, ServerState(), {"taker": taker}, here.loop)
    protocol.connection_made(transport)
    protocol.data_received(HANDSHAKE)
    for _ in range(4):
        await asyncio.sleep(0)
    assert transport.written.startswith(b"HTTP/1.1 101 "), transport.written
    split = data[0] if data else 0
    for piece in (data[1 : 1 + split], data[1 + split :]):
        if piece and not transport.closed:
            protocol.data_received(piece)
    assert len(protocol._partial or b"") <= live.LONGEST_MESSAGE
    protocol.eof_received()
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert taker.ends == 1
    _check(transport.written.partition(b"\r\n\r\n")[2])


def _check(written: bytes) -> None:
    """Whole frames, not masked, and nothing behind a close."""
    while written:
        opcode, size = written[0] & 15, written[1]
        assert size < 126, written
        written = written[2 + size :]
        assert opcode != CLOSE or not written
