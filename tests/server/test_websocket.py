"""The server's WebSocket layer, without a socket: `holdfast_server.http.websocket`."""

import asyncio
import sys
from typing import Any

import pytest
import uvicorn
from tests.fuzz.connections import Transport
from tests.fuzz.sockets import HANDSHAKE
from uvicorn.server import ServerState

from holdfast_server.http.websocket import TAKING, WebSocketProtocol

BEGIN = b"\x01\x80\0\0\0\0"
EMPTY = b"\0\x80\0\0\0\0"
END = b"\x80\x84\0\0\0\0text"


class Taker:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def heard(self, text: str) -> None:
        self.texts.append(text)

    def writable_again(self) -> None:
        pass

    def ended(self) -> None:
        pass


@pytest.mark.anyio
async def test_pieces_without_anything_in_them_cost_nothing() -> None:
    """A message of very many pieces, none of which has a byte, is within every length."""
    taker = Taker()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][TAKING]["take"](taker)

    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    protocol = WebSocketProtocol(config, ServerState(), {})
    protocol.connection_made(Transport())
    protocol.data_received(HANDSHAKE)
    for _ in range(4):
        await asyncio.sleep(0)
    protocol.data_received(BEGIN)
    for _ in range(20):
        protocol.data_received(1000 * EMPTY)
        assert sys.getsizeof(protocol._partial) < 200
    protocol.data_received(END)
    assert taker.texts == ["text"]
    protocol.connection_lost(None)
