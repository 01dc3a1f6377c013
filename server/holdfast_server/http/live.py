"""`/api/live` and `/api/events`: the hub's frames over a WebSocket and over server-sent events.

Rule of this file: everything about topics, rights, order and bounds is the hub's and its subscribers'; here frames get
onto a connection. There are two roads for a WebSocket: ASGI, which every server has, with a task for each direction,
and the connection itself, where the server lets it be taken (`websocket.TAKING`).
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import parse_qs

import anyio
from starlette.types import Receive, Scope, Send

from holdfast_protocol import headers, live
from holdfast_protocol.live import Message, Place, Topic
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import Principal
from holdfast_server.http.answers import head_of, not_allowed, start
from holdfast_server.http.guard import principal_of, turn_away
from holdfast_server.http.websocket import TAKING, Connection
from holdfast_server.live.frames import PING, Run
from holdfast_server.live.hub import Hub
from holdfast_server.live.subscriber import Subscriber

SUBPROTOCOL: Final = "holdfast"
STREAMING: Final = "holdfast.response.stream"
"""The extension of a scope by which a server gives a `Stream` for the body of the answer: `stream()`."""
MOST_ASKED: Final = 64
"""Messages of one client that wait while another one is answered."""


class Stream(Protocol):
    """The body of an answer that has begun, beside what is sent of it."""

    def write(self, body: bytes) -> bool:
        """Writes a part of it at once; False if that has to be sent, because it could not be written now."""
        ...

    def abort(self) -> None:
        """Ends the connection, with what has not been read of it."""
        ...


class Live:
    """Both endpoints. `hub` raises ProblemError 503 while the application does not run."""

    def __init__(self, hub: Callable[[], Hub]) -> None:
        self._hub = hub

    async def socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """L-SUB-1. The query may name topics (L-SUB-5)."""
        if scope["type"] != "websocket":
            raise ProblemError(
                "malformed-request", f"This is a WebSocket. Over plain HTTP the same is at {live.EVENTS_PATH}."
            )
        try:
            principal = principal_of(scope)
            principal.require("watch")
            hub = self._hub()
            hub.check_open()
        except ProblemError as problem:
            await turn_away(problem, scope, send)
            return
        if (await receive())["type"] != "websocket.connect":
            return
        # A browser that offers some, to bring its credential along, insists on an answer.
        spoken = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        await send({"type": "websocket.accept", "subprotocol": spoken})
        taking = scope.get("extensions", {}).get(TAKING)
        if taking is None:
            await _serve_plain(hub, principal, scope, receive, send)
            return
        taken = _Taken(hub)
        taken.begin(taking["take"](taken), principal)
        await _begin(hub, taken.subscriber, scope)

    async def events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """L-SSE-1."""
        if scope["type"] != "http" or scope["method"] != "GET":
            raise not_allowed(("GET",))
        principal = principal_of(scope)
        principal.require("watch")
        hub = self._hub()
        try:
            topics, since = _asked(scope)
        except ValueError as error:
            raise ProblemError("malformed-field", str(error), {"field": "topic"}) from None
        if not topics:
            raise ProblemError("missing-field", "Say what to watch: ?topic=upload:ID, or ?topic=all.")
        last = head_of(scope).get(headers.LAST_EVENT_ID)
        if last is not None:
            since = Place.parse(last)
        streaming = scope.get("extensions", {}).get(STREAMING)
        outlet = _Pumped(None if streaming is None else streaming["stream"]())
        with hub.opened(outlet, principal) as subscriber:
            await subscriber.check(topics)

            async def write(told: Run) -> None:
                await send({"type": "http.response.body", "body": told.event, "more_body": True})

            fields = {
                headers.CONTENT_TYPE: headers.MEDIA_EVENTS,
                headers.CACHE_CONTROL: "no-store",
                headers.ACCEL_BUFFERING: "no",
            }
            await start(send, 200, fields)
            retry = random.randint(500, 5000)  # noqa: S311 - so that not everybody comes again at once
            await send({"type": "http.response.body", "body": b"retry: %d\n\n" % retry, "more_body": True})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_disconnect, receive, tasks.cancel_scope)
                tasks.start_soon(outlet.pump, subscriber, write, tasks.cancel_scope)
                await hub.greet(subscriber)
                await subscriber.subscribe(Message("subscribe", topics, since))
        if outlet.ended_well:
            await send({"type": "http.response.body", "body": b""})


def _asked(scope: Scope) -> tuple[tuple[Topic, ...], Place | None]:
    """Topics and place of the query. Raises ValueError with a sentence."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    since = query.get("since")
    return live.parse_topics(query.get("topic", [])), None if since is None else Place.parse(since[-1])


async def _begin(hub: Hub, subscriber: Subscriber, scope: Scope) -> None:
    """What comes before the client has said anything."""
    await hub.greet(subscriber)
    try:
        topics, since = _asked(scope)
        if topics:
            await subscriber.subscribe(Message("subscribe", topics, since))
    except (ValueError, ProblemError) as error:
        problem = error if isinstance(error, ProblemError) else ProblemError("malformed-field", str(error))
        subscriber.refuse(None, problem)
        subscriber.close(live.REFUSED, "the topics of the URL were refused")


class _Taken:
    """A subscriber on a connection that was taken."""

    __slots__ = ("_asked", "_connection", "_hub", "_working", "subscriber")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asked: deque[str] = deque()
        self._working = False
        self._connection: Connection
        self.subscriber: Subscriber

    def begin(self, connection: Connection, principal: Principal) -> None:
        self._connection = connection
        self.subscriber = self._hub.open(self, principal)

    # What the subscriber wants

    def writable(self) -> bool:
        return self._connection.writable()

    def write(self, told: Run) -> None:
        self._connection.send(told.message)

    async def drained(self) -> None:
        await self._connection.drained()

    def alive(self) -> bool:
        alive = self._connection.alive()
        if alive and self._connection.writable():
            self._connection.send(PING)
        return alive

    def close(self, code: int, reason: str) -> None:
        self._connection.close(code, reason)

    # What the connection tells

    def heard(self, text: str) -> None:
        self._asked.append(text)
        if len(self._asked) > MOST_ASKED:
            self.close(1008, "too many messages at once")
        elif not self._working:
            self._working = True
            self._hub.start_soon(self._work)

    def writable_again(self) -> None:
        self.subscriber.flush()

    def ended(self) -> None:
        self._hub.close(self.subscriber)

    async def _work(self) -> None:
        while self._asked:
            await self.subscriber.heard(self._asked.popleft())
        self._working = False


class _Pumped:
    """An outlet on a road where sending is waited for: one run of frames is on its way, and its task writes it. With a
    stream, what can be written at once is."""

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream = stream
        self._run: Run | None = None
        self._wanted = anyio.Event()
        self._taken = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self.closed: tuple[int, str] | None = None

    @property
    def ended_well(self) -> bool:
        """Is the other side to be told of an end?"""
        return self.closed is not None and self.closed[0] != live.SLOW

    def writable(self) -> bool:
        return self._run is None and self.closed is None

    def write(self, told: Run) -> None:
        if self._stream is None or not self._stream.write(told.event):
            self._run = told
            self._wanted.set()

    async def drained(self) -> None:
        while self._run is not None and self.closed is None:
            self._taken = anyio.Event()
            await self._taken.wait()

    def alive(self) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = code, reason
            self._taken.set()
            self._wanted.set()
            if code == live.SLOW and self._scope is not None:
                self._scope.cancel()  # what is being sent is not read
                if self._stream is not None:
                    self._stream.abort()

    async def pump(
        self,
        subscriber: Subscriber,
        send: Callable[[Run], Awaitable[None]],
        scope: anyio.CancelScope,
    ) -> None:
        """Runs until the outlet is closed, and cancels `scope` then."""
        self._scope = scope
        while self._run is not None or self.closed is None:
            if self._run is None:
                self._wanted = anyio.Event()
                await self._wanted.wait()
                continue
            await send(self._run)
            self._run = None
            self._taken.set()
            subscriber.flush()
        scope.cancel()


async def _serve_plain(hub: Hub, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
    outlet = _Pumped()

    async def write(told: Run) -> None:
        for frame in told.frames:
            await send({"type": "websocket.send", "text": frame.json.decode()})

    with hub.opened(outlet, principal) as subscriber:
        gone = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outlet.pump, subscriber, write, tasks.cancel_scope)
            await _begin(hub, subscriber, scope)
            while not gone:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    gone = True
                elif message.get("text") is not None:
                    if len(message["text"]) > live.LONGEST_MESSAGE:
                        outlet.close(live.TOO_LONG, "a message has at most 64 KiB")
                    else:
                        await subscriber.heard(message["text"])
                else:
                    outlet.close(live.NO_TEXT, "messages are JSON, as text")
            tasks.cancel_scope.cancel()
    if not gone and outlet.closed is not None:
        code, reason = outlet.closed
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _until_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
