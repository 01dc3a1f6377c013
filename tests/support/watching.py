"""Somebody who watches: a WebSocket by the library websockets, server-sent events by http.client.

Rule of this file: topics, paths and members are spelled by hand, from protocol.md.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import scaled

Frame = dict[str, Any]
Match = Callable[[Frame], bool]


class Watching:
    """Frames of one connection, in order."""

    def __init__(self, receive: Callable[[float], str], socket: ClientConnection | None = None) -> None:
        self._receive = receive
        self.socket = socket
        self.seen: list[Frame] = []

    def next(self, within: float = 10.0) -> Frame:
        """The next frame. Raises TimeoutError, and what the library raises at the end."""
        frame: Frame = json.loads(self._receive(scaled(within)))
        assert frame["v"] == 1
        assert isinstance(frame["payload"], dict)
        self.seen.append(frame)
        return frame

    def until(self, match: Match, within: float = 10.0) -> list[Frame]:
        """All frames up to the first that matches, with it."""
        deadline = time.monotonic() + scaled(within)
        found = [self.next(within)]
        while not match(found[-1]):
            assert time.monotonic() < deadline, f"only came: {[summary(frame) for frame in found]}"
            found.append(self.next(within))
        return found

    def say(self, **message: object) -> None:
        assert self.socket is not None
        self.socket.send(json.dumps(message))

    def subscribe(self, *topics: str, **more: object) -> list[Frame]:
        """The answer, from `subscribed` to `synced`, or the error."""
        self.say(action="subscribe", topics=list(topics), **more)
        return self.until(lambda frame: frame["type"] in ("synced", "error"))


def is_type(kind: str) -> Match:
    return lambda frame: frame["type"] == kind


def is_event(event: str, upload: str | None = None) -> Match:
    """A `status` frame of this event."""
    return lambda frame: (
        frame["type"] == "status"
        and frame["payload"]["event"] == event
        and (upload is None or frame["task_id"] == upload)
    )


def summary(frame: Frame) -> tuple[Any, ...]:
    return frame["type"], frame.get("task_id"), frame["payload"].get("event")


@contextmanager
def watching(url: str, query: str = "", **options: Any) -> Iterator[Watching]:
    """A WebSocket to the server at `url`, that has been greeted."""
    with connect(url.replace("http", "ws", 1) + "/api/live" + query, compression=None, **options) as socket:
        found = Watching(lambda limit: str(socket.recv(limit)), socket)
        assert found.next()["type"] == "connected"
        yield found


@contextmanager
def events(url: str, *topics: str, headers: dict[str, str] | None = None, query: str = "") -> Iterator[Watching]:
    """A stream of server-sent events. Each frame has `id` too, if its event had one. Raises AssertionError if it is
    refused, with the status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=scaled(10))
    named = "&".join(f"topic={quote(topic)}" for topic in topics)
    try:
        connection.request("GET", f"{parts.path}/api/events?{named}{query}", headers=headers or {})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"

        def receive(limit: float) -> str:
            fields: dict[str, str] = {}
            while True:
                raw = answer.readline()
                if not raw:
                    raise EOFError("the stream has ended")
                line = raw.decode().rstrip("\n")
                if not line and "data" in fields:
                    frame = json.loads(fields["data"])
                    assert fields["event"] == frame["type"]
                    return json.dumps({**frame, "sse": fields.get("id")})
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                if name == "retry":
                    assert 500 <= int(value) <= 5000

        found = Watching(receive)
        assert found.next()["type"] == "connected"
        yield found
    finally:
        connection.close()
