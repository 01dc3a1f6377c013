"""What comes over a connection before it is a request: refused, bounded in size and in time (protocol.md, section 7).

Rule of this file: nobody can have the server keep more than a head of `max_head` bytes and a handful of pipelined
requests, or keep a connection open by not ending a head or not reading an answer. What is no HTTP is answered 400,
after the answers to the requests before it and never in the middle of one, and the connection is closed. A body that
turns out to be malformed is for the application a body that was cut off: it keeps what T-PATCH-4 promises.
"""

import asyncio
import math
import random
import re
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from holdfast_protocol import headers, live
from holdfast_protocol.problem import ProblemError
from holdfast_server.http.answers import problem_fields
from holdfast_server.http.doors import Doors
from holdfast_server.http.pace import PLENTY, leave_unread, unread
from holdfast_server.settings import Limits

MOST_PIPELINED: Final = 100
"""Requests of one connection that may wait while another one runs."""
LINGER: Final = 2.0
"""Seconds for which a refused connection is still read: to close it over bytes that nobody has read is a reset, which
takes away the answers that are on their way."""
MOST_PIECES: Final = 8
"""A head that comes in more pieces than these..."""
SHORT: Final = 16
"""...of fewer bytes each, on average, is looked at again when as much time has gone by as it has taken so far..."""
LONGEST_REST: Final = 10.0
"""...in seconds, or so many if that is less: to be told of every byte of thousands takes the time of others. And up to
twice as late, so that thousands that came together are not looked at in one go (H-HEAD-3)..."""
GRID: Final = 0.25
"""...but dozens are: at times that are multiples of so many seconds, for to wake up costs more than a look."""


_LIVE_PATH: Final = live.LIVE_PATH.encode()
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")


class _Queue(Protocol):
    def __len__(self) -> int: ...


class _Flow(FlowControl):
    """Does not read on while requests wait: the bytes behind them would become requests too, without end."""

    def __init__(self, transport: asyncio.Transport, waiting: _Queue) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class FramingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits. `head_timeout` is in seconds; `doors` are those of all connections; `chance` is
    uniform in [0, 1)."""

    def __init__(
        self,
        *args: Any,
        head_timeout: float = 60.0,
        limits: Limits | None = None,
        doors: Doors | None = None,
        chance: Callable[[], float] = random.random,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_timeout = min(head_timeout, 86400.0)  # a timer cannot wait for ever
        limits = limits or Limits()
        self._max_head, self._min_speed = limits.max_head, limits.min_speed
        self._doors = doors or Doors()
        self._chance = chance
        self._client: str | None = None
        self._inside = self._turned_away = False
        self._unsent = 0  # bytes that had not been read by the client when that was looked at last
        self._writing: asyncio.TimerHandle | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._in_head = False
        self._in_body = False
        self._framing = 0  # bytes that were no body, since the last piece of the message was whole
        self._pieces = 0  # in which the head has come so far
        self._head_since = 0.0
        self._rest: asyncio.TimerHandle | None = None
        self._refused = False
        self._refusal: ProblemError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: FlowControl = _Flow(transport, self.pipeline)
        self._client = self._doors.client(self.client[0] if self.client else None)
        problem = self._doors.enter(self._client)
        if problem is None:
            self._inside = True
            self._bound()
        elif self._doors.turn_away():
            self._turned_away = True
            self._refuse(problem)
        else:
            self._refused = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells it only to the newest request
            self._running.message_event.set()
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.cancel()
        self._left()
        self._unbound()
        self._unwatch()
        self.pipeline.clear()  # nobody is there to be answered

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._rest is not None:
            self._look_on()
        if self._refused:
            return
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._pass_over_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            crowded = len(self.pipeline) > MOST_PIPELINED
            cause = error.__context__ if isinstance(error.__context__, ProblemError) else None
            self._refuse(None if crowded else cause or _malformed("This is not HTTP/1.1."))
            return
        if self._framing > self._max_head:
            self._refuse(_too_large(self._max_head))
        elif self._in_head or self._idle:
            self._bound()
            self._pieces += 1
            if self._in_head and self._pieces > MOST_PIECES and self._framing < SHORT * self._pieces:
                self._look_away()
        else:
            self._unbound()

    def _look_away(self) -> None:
        """Has the kernel wait with the next few bytes. Many of them, or the end of the connection, it tells at once."""
        self._receive_from(PLENTY)
        rest = min(self.loop.time() - self._head_since, LONGEST_REST)
        until = self.loop.time() + rest * (1 + self._chance())
        self._rest = self.loop.call_at(math.ceil(until / GRID) * GRID, self._look_on)

    def _look_on(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
            self._receive_from(1)

    def _receive_from(self, size: int) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._framing = True, 0
        self._pieces, self._head_since = 0, self.loop.time()
        if len(self.pipeline) > MOST_PIPELINED:
            raise RuntimeError("Too many requests wait on one connection.")

    def on_headers_complete(self) -> None:
        self._in_head, self._framing = False, 0
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self._check_head()
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # see `_pass_over_upgrade`
        super().on_headers_complete()
        self._in_body = True

    def on_chunk_header(self) -> None:
        self._framing = 0

    def on_chunk_complete(self) -> None:
        self._framing = 0

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing = 0
        if self._in_body:
            self._in_body = False
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        after: Any = self.transport.get_protocol()
        lost, leave, client = after.connection_lost, self._doors.leave, self._client

        def connection_lost(exc: Exception | None) -> None:
            leave(client)
            lost(exc)

        self._unbound()
        self._unwatch()
        self._inside = False
        after.connection_lost = connection_lost  # it goes on under another protocol, and counts all the same
        del self.parser, self.scope  # they lead back here: without them this is gone at once

    def _left(self) -> None:
        if self._inside:
            self._doors.leave(self._client)
        elif self._turned_away:
            self._doors.turned_away()
        self._inside = self._turned_away = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        last = not self.pipeline
        if self.transport.get_write_buffer_size():
            self._watch()
        super().on_response_complete()
        if last and self._refused and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._end(self._refusal)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch()

    def _watch(self) -> None:
        """H-READ-1: looks from time to time whether the client reads what was written."""
        if self._writing is None:
            self._unsent = self._outgoing()
            self._writing = self.loop.call_later(self._head_timeout, self._look)

    def _unwatch(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _look(self) -> None:
        self._writing = None
        before, left = self._unsent, self._outgoing()
        if before - left < min(before, max(1, self._min_speed * self._head_timeout)):
            leave_unread(self.transport.get_extra_info("socket"))
            self.transport.abort()
        elif self.flow.write_paused or self.transport.get_write_buffer_size():
            self._watch()

    def _outgoing(self) -> int:
        """Bytes that are written and that the client has not got."""
        return int(self.transport.get_write_buffer_size()) + unread(self.transport.get_extra_info("socket"))

    @property
    def _idle(self) -> bool:
        """No request runs. A body may still be coming, of one that was answered before it was read."""
        return self.cycle is None or self.cycle.response_complete

    def _check_head(self) -> None:
        """H-HTTP-2. Raises ProblemError 400."""
        version = self.parser.get_http_version()
        hosts = [value.strip() for name, value in self.headers if name == b"host"]
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if version not in ("1.0", "1.1"):
            raise _malformed(f"HTTP/{version} is not spoken here; send HTTP/1.1.")
        if len(hosts) > 1 or (not hosts and version == "1.1") or not all(_HOST.fullmatch(host) for host in hosts):
            raise _malformed("A request has one Host field, with a name and perhaps a port.")
        if codings and (codings != [b"chunked"] or version == "1.0"):
            raise _malformed("The only transfer coding is chunked, in HTTP/1.1.")
        if self.scope["method"] == "CONNECT" or b"#" in self.url:
            raise _malformed("The target of a request is a path or a URL, without a fragment.")

    def _should_upgrade(self) -> bool:
        """H-UPGRADE-1."""
        path = self.url.partition(b"?")[0]
        return self.scope["method"] == "GET" and path.endswith(_LIVE_PATH) and bool(super()._should_upgrade())

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """H-UPGRADE-1. The parser stops behind such a head, so the head is read again without the field."""
        version = self.parser.get_http_version().encode()
        head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join(head) + b"\r\n\r\n" + rest)

    def _refuse(self, problem: ProblemError | None) -> None:
        """Takes nothing more: answers what came before, then with `problem` if there is one, and closes."""
        self._refused, self._refusal = True, problem
        self._unbound()
        self._look_on()
        cycle = self.cycle
        if not self._in_body and self._idle:
            self._end(problem)
        elif self._in_body and self.pipeline:
            self.pipeline.popleft()  # the malformed one, which has not begun: `on_response_complete` ends for it
        elif self._in_body:
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(None if cycle.response_started else problem)

    def _end(self, problem: ProblemError | None) -> None:
        if problem is not None:
            body = problem.to_json()
            asked = self.scope is not None and self.scope.get("method") == "HEAD"
            fields = {**problem_fields(problem, body, head=asked), headers.TUS_RESUMABLE: headers.TUS_PROTOCOL_VERSION}
            pairs = [*self.server_state.default_headers, (b"connection", b"close")]
            pairs += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
            head = b"".join(name + b": " + value + b"\r\n" for name, value in pairs)
            self.transport.write(STATUS_LINE[problem.status] + head + b"\r\n" + (b"" if asked else body))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._limit = self.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()

    def _bound(self) -> None:
        if self._limit is None:
            self._limit = self.loop.call_later(self._head_timeout, self._timed_out)

    def _unbound(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _timed_out(self) -> None:
        """H-HEAD-2."""
        self._limit = None
        if not self._idle:
            self._bound()
        elif self._in_head:
            self._refuse(ProblemError("request-timeout", "The head of the request did not come to its end in time."))
        elif self.timeout_keep_alive_task is None:
            self.transport.close()


def _malformed(detail: str) -> ProblemError:
    return ProblemError("malformed-request", f"{detail} The connection is closed.")


def _too_large(most: int) -> ProblemError:
    return ProblemError("headers-too-large", f"Of what is no body {most} bytes are taken.")
