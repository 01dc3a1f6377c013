"""A connection of uvicorn's that can be lent to the application, for the body of a request (`lent_body`) or for a part
of the body of an answer (`downloads`).

Rule of this file: while the connection is lent, uvicorn does not read from it; when it comes back, whatever of the body
was left unread is passed over, and the next request begins where it ends. Nobody writes to a connection that is lent
for an answer before all is on its way that uvicorn had to write. What is lent is a second descriptor of the
same socket, so the connection may go meanwhile: the bytes that had arrived are still there. Only a body with a length
can be lent, because where it ends must be known before; and only a plain TCP connection.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from holdfast_server.http.framing import FramingProtocol
from holdfast_server.http.lent_body import own_memory

HEAD: Final = 80 * 1024
"""Bytes that are read at once while no body comes: a small file, whole, with its head. The kernel has to copy them once
more if they are of a large one."""
BODY: Final = 256 * 1024
"""Bytes that are read at once of a body that goes through the parser."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def length_of(fields: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How many bytes the body has, if that is all there is to know of where it ends."""
    length = None
    for name, value in fields:
        if name == b"content-length":
            length = int(value)
        elif name in (b"transfer-encoding", b"upgrade"):
            return None
    return length


class Loan(Struct, frozen=True):
    """See `lent_body.Loan`."""

    protocol: "LendingProtocol"
    cycle: RequestResponseCycle
    received: bytearray
    left: int
    socket: socket.socket | None

    def give_back(self, left: int, *, cut: bool) -> None:
        if self.socket is not None:
            self.socket.close()
            self.protocol.take_back(self.cycle, left, cut)


class _Intake(asyncio.BufferedProtocol):
    """Stands between the transport and uvicorn's protocol, which would get whatever has come: of a head it gets little
    more, so that its body is still in the kernel for whom the connection is lent to."""

    def __init__(self, protocol: "LendingProtocol") -> None:
        self._protocol = protocol

    def let_go(self) -> None:
        """Another protocol has taken over. uvloop keeps methods of this one for as long as the connection lasts."""
        del self._protocol

    def get_buffer(self, sizehint: int) -> memoryview:
        return own_memory()[: BODY if self._protocol.in_body else HEAD]

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(own_memory()[:nbytes]))

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


class LendingProtocol(FramingProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._passed_over = 0  # bytes of a body that nobody will read
        self._arrived = 0  # bytes of the body of `cycle` that went through the parser
        self._plain = False
        self._begun = False  # a body that can be lent, in the data that is parsed just now

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = not is_ssl(transport)
        super().connection_made(transport)
        if self._plain:
            transport.set_protocol(_Intake(self))

    def data_received(self, data: bytes) -> None:
        if self._passed_over:
            self._unset_keepalive_if_required()
            if self._idle:
                self._bound()  # as any body that comes behind its answer
            size = min(self._passed_over, len(data))
            self._passed_over -= size
            if self._passed_over:
                return
            self._end_message()
            data = data[size:]
        super().data_received(data)
        if self._begun:
            self._begun = False
            if self._in_body:  # what comes now is for whom the connection is lent to; `receive` goes on reading
                self.flow.pause_reading()

    def handle_websocket_upgrade(self) -> None:
        before = self.transport.get_protocol()
        super().handle_websocket_upgrade()
        if isinstance(before, _Intake):
            before.let_go()

    def on_headers_complete(self) -> None:
        self._arrived = 0
        super().on_headers_complete()
        self._begun = self.parser is not None and self.lends() and bool(length_of(self.headers))

    def on_body(self, body: bytes) -> None:
        self._arrived += len(body)
        super().on_body(body)

    def lends(self) -> bool:
        """Can the connection be lent at all?"""
        return self._plain

    @property
    def in_body(self) -> bool:
        """What comes next is a body that the parser has begun to take in."""
        return self._in_body

    def lend(self, cycle: RequestResponseCycle) -> Loan:
        received, cycle.body = cycle.body, bytearray()
        left = 0
        if cycle is self.cycle and cycle.more_body:
            left = (length_of(cycle.scope["headers"]) or 0) - self._arrived
        if not left or cycle.disconnected or self.transport.is_closing():
            return Loan(self, cycle, received, left, None)
        if cycle.waiting_for_100_continue:
            self.transport.write(_CONTINUE)
            cycle.waiting_for_100_continue = False
        self.flow.pause_reading()
        return Loan(self, cycle, received, left, self._second())

    async def send(
        self, cycle: RequestResponseCycle, size: int, transmit: Callable[[socket.socket], Awaitable[None]]
    ) -> None:
        """See `downloads.SENDING`."""
        if size > cycle.expected_content_length:
            raise RuntimeError("This would be more than the Content-Length of the answer.")
        for limit in (0, None):  # 0 calls `pause_writing` if anything is left to be written
            if cycle.disconnected or self.transport.is_closing():
                cycle.expected_content_length -= size  # what goes to nobody needs not to be sent
                return
            self.transport.set_write_buffer_limits(limit)
            await self.flow.drain()
        try:
            with self._second() as lent:
                await transmit(lent)
        except ConnectionError:
            cycle.disconnected = True
            self.transport.abort()
        else:
            cycle.expected_content_length -= size

    def _second(self) -> socket.socket:
        lent: socket.socket = self.transport.get_extra_info("socket").dup()
        lent.setblocking(False)
        return lent

    def take_back(self, cycle: RequestResponseCycle, left: int, cut: bool) -> None:
        """uvicorn reads again once the request is answered."""
        if cycle.disconnected:
            return
        if cut:
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.close()
        elif left:
            self._passed_over = left
        else:
            self._end_message()

    def _end_message(self) -> None:
        """The parser does not know of the bytes that went past it, so the next request gets a new one."""
        self.on_message_complete()
        self.parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
