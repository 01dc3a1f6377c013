"""A lean WebSocket for `holdfast serve`: uvicorn gives the connection over when a request asks for the upgrade.

Rule of this file: RFC 6455 is read and answered by the library websockets, without input or output of its own; what
goes to the client is written to the transport as it comes, already framed. The application sees an ordinary ASGI
scope, so that whoever guards it decides; it accepts, and may then take the connection (the extension `TAKING`) and
return. From then on an idle connection costs no task, no queue and no timer. Messages to an application that does not
take it are not delivered: ours always does.

No extension is negotiated: compression would cost each connection more memory than everything else.
"""

import asyncio
import http
import logging
import socket
import urllib.parse
from collections.abc import Iterable
from typing import Any, Final, Protocol, cast

import anyio
from starlette.types import Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from holdfast_protocol import live

TAKING: Final = "holdfast.websocket.take"
"""The extension of a scope by which a server says that an accepted connection can be taken: `take`, to be called
with what is told of messages and of the end; it answers the `Connection`."""
HIGH_WATER: Final = 64 * 1024
"""Bytes that wait in the transport before it takes no more for now."""
UNREAD: Final = 128 * 1024
"""Bytes that the kernel keeps for somebody who does not read; it doubles this. By itself it goes up to megabytes."""
LINGER: Final = 5.0
"""Seconds for which a connection that is being closed waits for the other side."""

logger: Final = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection that was taken."""

    def writable(self) -> bool: ...
    def send(self, framed: bytes) -> None:
        """Frames of RFC 6455, as they are."""
        ...

    async def drained(self) -> None: ...
    def alive(self) -> bool: ...
    def close(self, code: int, reason: str) -> None: ...


class Taker(Protocol):
    """Who takes one. Nothing of it may block."""

    def heard(self, text: str) -> None: ...
    def writable_again(self) -> None: ...
    def ended(self) -> None: ...


def bound(transport: asyncio.BaseTransport) -> None:
    """Has the kernel keep no more than `UNREAD` of what is written to somebody who watches."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)


class WebSocketProtocol(asyncio.Protocol):
    """To be given to uvicorn as `ws=`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._conn = ServerProtocol(extensions=None, max_size=live.LONGEST_MESSAGE, logger=logger)
        self._transport: asyncio.Transport
        self._request: Request | None = None
        self._refusal: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        self._taker: Taker | None = None
        self._drained: anyio.Event | None = None
        self._gone: anyio.Event | None = None
        self._partial: bytearray | None = None  # of a message in pieces, which may be very many or empty
        self._accepted = self._paused = False
        self._alive = True

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._conn.receive_data(data)
        self._step()

    def eof_received(self) -> None:
        self._conn.receive_eof()
        self._step()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._end()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()
        if self._taker is not None:
            self._taker.writable_again()

    def shutdown(self) -> None:
        """uvicorn ends."""
        self.close(live.GOING_AWAY, "the server ends")

    # Called by who has taken the connection

    def writable(self) -> bool:
        return not self._paused and self._conn.state is State.OPEN

    def send(self, framed: bytes) -> None:
        self._transport.write(framed)

    async def drained(self) -> None:
        while self._paused and self._conn.state is State.OPEN:
            if self._drained is None:
                self._drained = anyio.Event()
            await self._drained.wait()

    def alive(self) -> bool:
        alive, self._alive = self._alive, False
        return alive

    def close(self, code: int, reason: str) -> None:
        if self._conn.state is State.OPEN:
            self._conn.send_close(code, reason)
            self._write()
            self._wake()
            if self._paused:
                self._transport.abort()  # it would not be read
            else:
                self._loop.call_later(LINGER, self._transport.abort)
        elif not self._accepted:
            self._transport.close()

    # What comes

    def _step(self) -> None:
        for event in self._conn.events_received():
            if isinstance(event, Frame):
                self._alive = True
                self._take_frame(event)
            elif isinstance(event, Request):
                self._begin(event)
        self._write()

    def _write(self) -> None:
        for data in self._conn.data_to_send():
            if data:
                self._transport.write(data)
            else:  # as websockets says that it will write no more
                self._transport.close()

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._conn.fail(live.NO_TEXT, "messages are JSON, as text")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            if frame.opcode is Opcode.TEXT and frame.fin:
                self._hear(bytes(frame.data))
                return
            if self._partial is None:
                self._partial = bytearray()
            self._partial += frame.data
            if frame.fin:
                whole, self._partial = bytes(self._partial), None
                self._hear(whole)

    def _hear(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._conn.fail(1007, "this is no UTF-8")
            return
        if self._taker is not None:
            self._taker.heard(text)

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _end(self) -> None:
        self._wake()
        if self._gone is not None:
            self._gone.set()
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.ended()

    # The handshake, and the application

    def _begin(self, request: Request) -> None:
        self._request = request
        task = self._loop.create_task(self._run(self._scope(request)))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def _scope(self, request: Request) -> Scope:
        path, _, query = request.path.partition("?")
        transport = self._transport
        named = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(transport) else "ws",
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "root_path": self._config.root_path,
            "path": self._config.root_path + urllib.parse.unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [
                (name.lower().encode("ascii"), value.encode("latin-1", "surrogateescape"))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": [each.strip() for each in named.split(",") if each.strip()],
            "state": self._app.copy(),
            "extensions": {TAKING: {"take": self._take}, "websocket.http.response": {}},
        }

    async def _run(self, scope: Scope) -> None:
        try:
            app: Any = self._config.loaded_app  # uvicorn has types of its own for the same things
            await app(scope, self._receive, self._send)
        except Exception:
            logger.exception("the WebSocket of %s failed", scope["path"])
            if self._accepted:
                self.close(1011, "the server failed")
        if not self._accepted:
            self._reject(500, [], b"")
        elif self._taker is None:
            self.close(1000, "")

    async def _receive(self) -> Message:
        if self._gone is None:
            self._gone = anyio.Event()
            return {"type": "websocket.connect"}
        await self._gone.wait()
        return {"type": "websocket.disconnect", "code": self._conn.close_code or 1006}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._accept(message.get("subprotocol"))
            case "websocket.close" if self._accepted:
                self.close(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close":
                self._reject(403, [], b"")
            case "websocket.http.response.start":
                self._refusal = (message["status"], list(message.get("headers", ())), b"")
            case "websocket.http.response.body" if self._refusal is not None:
                status, fields, body = self._refusal
                self._refusal = (status, fields, body + message.get("body", b""))
                if not message.get("more_body"):
                    self._reject(*self._refusal)
            case kind:
                raise RuntimeError(f"This server sends no {kind}.")

    def _accept(self, subprotocol: str | None) -> None:
        assert self._request is not None
        response = self._conn.accept(self._request)
        if subprotocol is not None and response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._respond(response)

    def _reject(self, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        if self._accepted or self._conn.state is not State.CONNECTING:
            return
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
        if "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        headers["Connection"] = "close"
        self._respond(Response(status, http.HTTPStatus(status).phrase, headers, body))

    def _respond(self, response: Response) -> None:
        self._accepted = True
        self._request = None
        self._conn.send_response(response)
        self._write()

    def _take(self, taker: Taker) -> Connection:
        self._taker = taker
        bound(self._transport)
        if self._transport.is_closing():
            self._loop.call_soon(self._end)
        return self
