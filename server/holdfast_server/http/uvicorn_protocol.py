"""uvicorn's HTTP protocol, with trailers and interim answers.

Rule of this file: it mends what cannot be mended from inside an ASGI application. uvicorn appends trailers to the
header fields of the scope, often before the application has seen those, so that nobody could tell them apart
(T-TRAILER-1). It does not say whether the client is still there unless its bytes are read (T-PATCH-3). It has no
interim answers: here is the ASGI extension `http.response.informational`, a message with `status` and `headers` that
may be sent before `http.response.start`, any number of times. And it lends the connection for bodies (`lending`).
Where another server runs the application, everything else still holds.
"""

import http
import re
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from holdfast_server.http.answers import ARRIVED, PEER, TRAILERS
from holdfast_server.http.downloads import SENDING
from holdfast_server.http.lending import LendingProtocol, Loan, length_of
from holdfast_server.http.lent_body import LENDING
from holdfast_server.http.live import STREAMING
from holdfast_server.http.websocket import bound

_INFORMATIONAL = "http.response.informational"
_NOT_IN_A_FIELD = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus} | {104: "Upload Resumption Supported"}


class HoldfastProtocol(LendingProtocol):
    """To be given to uvicorn as `http=`, with the `head_timeout` of `FramingProtocol`."""

    def on_headers_complete(self) -> None:
        trailers: list[tuple[bytes, bytes]] = []
        self.scope["extensions"] = {TRAILERS: {"fields": trailers}, PEER: {"gone": self._gone}}
        super().on_headers_complete()
        if (
            self.parser is not None and not self.parser.should_upgrade()
        ):  # there is no body then, and the fields are looked at again
            self.headers = trailers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, _extending(app, self, cycle))

    def _gone(self) -> bool:
        """Whether the client has closed the connection, or it broke: also behind bytes that nobody has read yet."""
        if self.transport.is_closing():
            return True
        poll = select.poll()  # which always looks for a connection that was reset, too
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


def _extending(app: ASGIApp, protocol: LendingProtocol, cycle: RequestResponseCycle) -> ASGIApp:
    async def extending(scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(protocol, cycle, send)
        extensions = scope.setdefault("extensions", {})
        extensions[ARRIVED] = {"body": request.arrived}
        extensions[STREAMING] = {"stream": request.stream}
        if scope["http_version"] == "1.1":  # RFC 9110, section 15.2: never to a client of HTTP/1.0
            extensions[_INFORMATIONAL] = {}
        if protocol.lends():
            extensions[SENDING] = {"send": request.send_through}
            if length_of(scope["headers"]):
                extensions[LENDING] = {"lend": request.lend}
        try:
            await app(scope, receive, request.send)
        finally:
            extensions.clear()  # they lead back to the scope: without them nothing is left that has to be searched for

    return extending


class _Request:
    """What the application can do with a request beyond ASGI."""

    __slots__ = ("_cycle", "_protocol", "_send")

    def __init__(self, protocol: LendingProtocol, cycle: RequestResponseCycle, send: Send) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        return _inform(self._cycle, message) if message["type"] == _INFORMATIONAL else self._send(message)

    def arrived(self) -> bytes | None:
        cycle = self._cycle
        return None if cycle.more_body or cycle.waiting_for_100_continue else bytes(cycle.body)

    def stream(self) -> "_Stream":
        bound(self._cycle.transport)
        return _Stream(self._cycle)

    def lend(self) -> Loan:
        return self._protocol.lend(self._cycle)

    async def send_through(self, size: int, transmit: Callable[[socket.socket], Awaitable[None]]) -> None:
        await self._protocol.send(self._cycle, size, transmit)


class _Stream:
    """See `live.Stream`."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def write(self, body: bytes) -> bool:
        cycle = self._cycle
        if not cycle.chunked_encoding or cycle.response_complete or cycle.disconnected or cycle.flow.write_paused:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def abort(self) -> None:
        self._cycle.transport.abort()


async def _inform(cycle: RequestResponseCycle, message: Message) -> None:
    """Writes an interim answer. It is left out when the final one has begun or the client does not read."""
    if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or cycle.transport.is_closing():
        return
    status = message["status"]
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode()]
    for name, value in message["headers"]:
        if _NOT_IN_A_FIELD.search(name) or _NOT_IN_A_FIELD.search(value):
            raise RuntimeError("Invalid field in an interim answer.")
        lines.append(name + b": " + value)
    cycle.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
