"""Live progress: topics, frames, places in the log, and the stream of events (protocol.md, section 10).

Rule of this file: what both sides of `/api/live` and `/api/events` have to spell alike is spelled here. A frame is a
JSON object; whoever reads one passes over what it does not know (L-FRAME-1).
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

VERSION: Final = 1
"""Of the frames."""
LIVE_PATH: Final = "/api/live"
EVENTS_PATH: Final = "/api/events"
CREDENTIAL_PATH: Final = "/api/credential"
MOST_TOPICS: Final = 128
"""Topics of one connection (L-SUB-4)."""
LONGEST_NAME: Final = 256
"""Characters of the name of an owner or a project."""
LONGEST_MESSAGE: Final = 64 * 1024
"""Bytes of one message of a client (L-CLOSE-1)."""
LONGEST_EVENT: Final = 1024 * 1024
"""Characters of one event of a stream that are kept while it is not complete."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 20.0
STEPS: Final = ("receiving", "verifying", "publishing")
"""The pipeline that every upload goes through."""

GOING_AWAY: Final = 1001
NO_TEXT: Final = 1003
TOO_LONG: Final = 1009
EXPIRED: Final = 4001
REFUSED: Final = 4004
SLOW: Final = 4008
"""Codes with which the server closes a WebSocket (L-CLOSE-1)."""

_TOPIC: Final = re.compile(r"upload:[0-9a-f]{32}|(?:owner|project):[^\x00-\x1f\x7f-\x9f]{1,256}|all")
_PLACE: Final = re.compile(r"([0-9a-f]{1,64})-([0-9]{1,18})")


class Kind(StrEnum):
    """What a topic is of."""

    UPLOAD = "upload"
    OWNER = "owner"
    PROJECT = "project"
    ALL = "all"


class Topic(Struct, frozen=True):
    """What can be watched. `name` is an upload's id, or the name of an owner or a project; "" for all."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return self.kind.value if self.kind is Kind.ALL else f"{self.kind.value}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Topic":
        """L-TOPIC-1. Raises ValueError with a sentence."""
        if not _TOPIC.fullmatch(text):
            raise ValueError(f"{text[:300]!r} is no topic: write upload:ID, owner:NAME, project:NAME, or all.")
        kind, _, name = text.partition(":")
        return cls(Kind(kind), name)


class Place(Struct, frozen=True):
    """A place in a log of events: behind `offset` comes what was not told yet."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """As `str` has written it. What is malformed is a place in a log that is not known (L-SSE-2)."""
        found = _PLACE.fullmatch(text)
        return cls("", 0) if found is None else cls(found[1], int(found[2]))


class Message(Struct, frozen=True):
    """What a client asks over the WebSocket (L-SUB-1). `id` is what the answer repeats, if there is one."""

    action: str
    topics: tuple[Topic, ...] = ()
    since: Place | None = None
    id: str | int | None = None


class MessageError(ValueError):
    """A message is malformed. `id` is that of the message as far as it could be read."""

    def __init__(self, detail: str, number: str | int | None = None) -> None:
        super().__init__(detail)
        self.id = number


def parse_message(text: str) -> Message:
    """Raises MessageError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("A message is a JSON object with an action.") from None
    if not isinstance(value, dict):
        raise MessageError("A message is a JSON object with an action.")
    number = value.get("id")
    if isinstance(number, bool) or not isinstance(number, (str, int, type(None))) or len(str(number)) > LONGEST_NAME:
        raise MessageError("id is a string or a whole number.")
    match value.get("action"):
        case "ping":
            return Message("ping", id=number)
        case "subscribe" | "unsubscribe" as action:
            topics = _topics(value, number)
            since = _since(value.get("since"), number) if action == "subscribe" else None
            return Message(action, topics, since, number)
    raise MessageError("action is subscribe, unsubscribe or ping.", number)


def _topics(value: Mapping[str, Any], number: str | int | None) -> tuple[Topic, ...]:
    named = value.get("topics")
    if named is None and isinstance(value.get("task_id"), str):
        named = [f"{Kind.UPLOAD.value}:{value['task_id']}"]
    if not isinstance(named, list) or not named or not all(isinstance(each, str) for each in named):
        raise MessageError("topics is a list of topics, with one at least.", number)
    try:
        return parse_topics(named)
    except ValueError as error:
        raise MessageError(str(error), number) from None


def parse_topics(named: Sequence[str]) -> tuple[Topic, ...]:
    """Each once, in order. Raises ValueError with a sentence."""
    if len(named) > MOST_TOPICS:
        raise ValueError(f"{len(named)} topics are too many: at most {MOST_TOPICS} are watched over one connection.")
    return tuple(dict.fromkeys(Topic.parse(each) for each in named))


def _since(value: object, number: str | int | None) -> Place | None:
    match value:
        case None:
            return None
        case {"epoch": str(epoch), "offset": int(offset)} if offset is not True and 0 <= offset < 10**18:
            return Place(epoch, int(offset))
    raise MessageError("since has epoch, a string, and offset, a whole number.", number)


def encode(frame: Mapping[str, Any]) -> bytes:
    """A frame as JSON, without blanks."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()


def envelope(kind: str, payload: Mapping[str, Any], **beside: Any) -> dict[str, Any]:
    """A frame: L-FRAME-1."""
    return {"v": VERSION, "type": kind, **beside, "payload": payload}


def place_of(frame: Mapping[str, Any]) -> Place | None:
    """Where a client that has seen this frame goes on from, if the frame says so (L-RECOVER-1).

    Raises ValueError if it is no frame that this version reads.
    """
    if frame.get("v") != VERSION or not isinstance(frame.get("payload"), dict):
        raise ValueError("this is no frame of version 1")
    match frame:
        case {"type": "status", "epoch": str(epoch), "offset": int(offset)}:
            return Place(epoch, offset)
        case {"type": "connected" | "synced" | "ping", "payload": {"epoch": str(epoch), "offset": int(offset)}}:
            return Place(epoch, offset)
    return None


def longest_wait(failures: int) -> float:
    """L-BACKOFF-1: seconds; the wait is at random between 0 and this. `failures` in a row, from 1."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(max(failures - 1, 0), 20))


class EventStream:
    """Reads `text/event-stream` (the HTML standard, section 9.2.6), piece by piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._data: list[str] = []
        self._after_return = False

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of each event that is complete now.

        Raises ValueError if an event is longer than `LONGEST_EVENT`.
        """
        text = self._decoder.decode(piece)
        if self._after_return and text:
            text, self._after_return = text.removeprefix("\n"), False
        if text.endswith("\r"):
            self._after_return = True
        self._line += text.replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._line = self._line.split("\n")
        for line in lines:
            if not line:
                if self._data:
                    data, self._data = "\n".join(self._data), []
                    yield data
            elif line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
        if len(self._line) + sum(map(len, self._data)) > LONGEST_EVENT:
            raise ValueError("an event of the stream does not end")
