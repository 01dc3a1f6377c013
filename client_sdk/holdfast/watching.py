"""Watching uploads live: what a server tells of them, with nothing missed between two connections.

Rule of this file: every change of a state is given once and in order, over any number of lost connections; where the
server says that it cannot tell what was missed, that is given as news of its own, never passed over (L-RECOVER-2). The
stream is one of server-sent events, so that it needs nothing but HTTP.
"""

import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import anyio
from msgspec import Struct, field

from holdfast._transport import Incoming, Session
from holdfast.clock import SYSTEM, Clock
from holdfast.errors import BrokenProtocol, ConnectionFailed, HoldfastError, Stalled, UsageError
from holdfast.outcome import from_refusal, from_violation
from holdfast_protocol import headers as names
from holdfast_protocol import live
from holdfast_protocol.client import ViolationError, refused
from holdfast_protocol.fields import media_type
from holdfast_protocol.live import Kind, Place, Topic
from holdfast_protocol.messages import Request

NewsKind: TypeAlias = Literal["status", "progress", "sum", "gap", "synced"]
ENDED: Final = frozenset({"complete", "failed", "expired", "terminated"})
"""States from which an upload does not go on."""
MOST_SILENCE: Final = 60.0
"""Seconds without a word after which a connection is given up, until the server has said how often it pings."""


class News(Struct, frozen=True):
    """Something that a server has told.

    `status`: the state of an upload has changed. `progress`: how far one is; the next one replaces it. `sum`: all
    uploads of `topic` in one. `gap`: the server cannot tell what happened since the last connection; the present state
    follows.
    `synced`: the present state has been told, and what follows happens now.
    """

    kind: NewsKind
    upload: str | None = None
    """The id of the upload, of `status` and `progress`."""
    topic: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Everything that the server told: protocol.md, section 10."""
    place: Place | None = None
    """Of `status` and `synced`: `watch(since=...)` goes on behind it, also in another process."""

    @property
    def name(self) -> str:
        """The file's name."""
        return str(self.payload.get("name") or "")

    @property
    def status(self) -> str | None:
        """The state of the upload: `receiving`, `verifying`, `complete`, `failed`, `expired` or `terminated`."""
        return cast("str | None", self.payload.get("status"))

    @property
    def fraction(self) -> float | None:
        """0 to 1; None while the length is not known."""
        percent = self.payload.get("progress")
        return None if percent is None else float(percent) / 100

    @property
    def speed(self) -> float | None:
        """Bytes a second; None where nothing moves."""
        return cast("float | None", self.payload.get("speed"))

    @property
    def eta(self) -> float | None:
        """Seconds until the last byte; None where it cannot be told."""
        return cast("float | None", self.payload.get("eta"))

    @property
    def message(self) -> str:
        """A sentence for people."""
        return str(self.payload.get("message") or "")

    @property
    def ended(self) -> bool:
        """The upload has come to its end."""
        return self.status in ENDED


def place(server: str, uploads: Sequence[str]) -> tuple[str, list[str]]:
    """The URL of the stream, and the ids of the uploads, out of URLs as people have them: of the server, of its
    collection, of an upload. Raises UsageError."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{server!r} is not a URL of a server; it must look like http://host:8000")
    path, _, rest = parts.path.partition("/files")
    ids = [rest.strip("/")] if rest.strip("/") else []
    ids += [upload.rstrip("/").rpartition("/")[2] for upload in uploads]
    return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/") + live.EVENTS_PATH, "", "")), ids


def topics_for(
    ids: Sequence[str], owners: Sequence[str], projects: Sequence[str], *, everything: bool
) -> tuple[Topic, ...]:
    """None, if nothing is named: all that the credential may watch. Raises UsageError."""
    named = [f"{Kind.UPLOAD.value}:{each}" for each in ids]
    named += [f"{Kind.OWNER.value}:{each}" for each in owners]
    named += [f"{Kind.PROJECT.value}:{each}" for each in projects]
    if everything:
        named.append(Kind.ALL.value)
    try:
        return live.parse_topics(named) if named else ()
    except ValueError as error:
        raise UsageError(str(error)) from None


def own_topics(who: Mapping[str, Any]) -> tuple[Topic, ...]:
    """All that whoever this is may watch (D-JSON-3), in as few topics as there can be. Who may watch nothing is told so
    by the server. Raises ValueError, LookupError, TypeError for what does not say who it is.
    """
    signature, owner = who["signature"], who["owner"]
    if signature is not None and signature["upload"] is not None:
        named = [f"{Kind.UPLOAD.value}:{signature['upload']}"]
    elif owner is None or "operate" in who["scopes"]:
        named = [Kind.ALL.value]
    else:
        named = [f"{Kind.OWNER.value}:{owner}", *(f"{Kind.PROJECT.value}:{each}" for each in who["projects"])]
    return live.parse_topics(named[: live.MOST_TOPICS])


class Watch:
    """One watching: its topics, and how far it has been told. Without topics the server is asked whose credential
    it is (D-JSON-3).

    `max_attempts` is how many connections in a row may fail; None: any number. `clock` and `rand` are for tests.
    """

    def __init__(
        self,
        session: Session,
        topics: Sequence[Topic],
        since: Place | None,
        max_attempts: int | None,
        *,
        lost: Callable[[HoldfastError, float], None] | None = None,
        rand: Callable[[], float] = random.random,
        clock: Clock = SYSTEM,
    ) -> None:
        self._session = session
        self._topics = topics
        self._place = since
        self._max_attempts = max_attempts
        self._lost = lost
        self._rand = rand
        self._clock = clock
        self._failures = 0
        self._synced = False
        self._silence = MOST_SILENCE
        self._open = {topic.name for topic in topics if topic.kind is Kind.UPLOAD}
        self._ends = 0 < len(self._open) == len(topics)

    async def follow(self) -> AsyncIterator[News]:
        """What is told, until all uploads have ended if only uploads are watched. Raises HoldfastError."""
        while True:
            self._synced = False
            self._silence = MOST_SILENCE
            try:
                if not self._topics:
                    self._topics = await self._own_topics()
                async with self._session.open(self._request(), endless=True) as incoming:
                    kind = media_type(incoming.headers.get(names.CONTENT_TYPE))
                    if incoming.status != 200 or kind != names.MEDIA_EVENTS:
                        raise await self._refusal(incoming)
                    async for frame in self._frames(incoming):
                        for news in self._read(frame):
                            yield news
                        if self._ends and not self._open and self._synced:
                            return
                error: HoldfastError = ConnectionFailed(f"{self._session.endpoint} has ended the stream")
            except HoldfastError as failure:
                if not failure.retryable:
                    raise
                error = failure
            self._failures += 1
            if self._max_attempts is not None and self._failures >= self._max_attempts:
                raise error
            wait = self._rand() * live.longest_wait(self._failures)
            if self._lost is not None:
                self._lost(error, wait)
            await self._clock.sleep(wait)

    async def _own_topics(self) -> tuple[Topic, ...]:
        """All that may be watched, in as few topics as there can be."""
        url = self._session.endpoint.removesuffix(live.EVENTS_PATH) + live.CREDENTIAL_PATH
        async with self._session.open(Request("GET", url)) as incoming:
            if incoming.status != 200:
                raise await self._refusal(incoming)
            answer = await incoming.answer()
        try:
            return own_topics(json.loads(answer.body))
        except (ValueError, RecursionError, LookupError, TypeError):
            raise BrokenProtocol(
                f"{url} does not say who asks; check that this is the address of a Holdfast server, and whether one has"
                " to log in first"
            ) from None

    async def _refusal(self, incoming: Incoming) -> HoldfastError:
        with anyio.move_on_after(MOST_SILENCE):
            answer = await incoming.answer()
            try:
                return from_refusal(refused(answer, self._clock.time()), self._session.endpoint)
            except ViolationError as error:
                return from_violation(error, self._session.endpoint)
        return Stalled(f"{self._session.endpoint} has not finished its answer for {MOST_SILENCE:.0f} seconds")

    def _request(self) -> Request:
        query = urlencode([("topic", str(topic)) for topic in self._topics], quote_via=quote)
        head = {"Accept": names.MEDIA_EVENTS}
        if self._place is not None:
            head[names.LAST_EVENT_ID] = str(self._place)
        return Request("GET", f"{self._session.endpoint}?{query}", head)

    async def _frames(self, incoming: Incoming) -> AsyncIterator[Mapping[str, Any]]:
        stream = live.EventStream()
        parts = aiter(incoming.parts())
        while True:
            part: bytes | None = None
            with anyio.move_on_after(self._silence) as waiting:
                part = await anext(parts, None)
            if waiting.cancelled_caught:
                raise Stalled(f"{self._session.endpoint} has said nothing for {self._silence:.0f} seconds")
            if part is None:
                return
            try:
                for data in stream.feed(part):
                    frame = json.loads(data)
                    if not isinstance(frame, dict):
                        raise ValueError("this is no object")
                    yield frame
            except (ValueError, RecursionError) as error:
                raise BrokenProtocol(f"{self._session.endpoint}: {error}") from None

    def _read(self, frame: Mapping[str, Any]) -> list[News]:
        try:
            at = live.place_of(frame)
        except ValueError as error:
            raise BrokenProtocol(f"{self._session.endpoint}: {error}") from None
        payload = frame["payload"]
        upload = frame.get("task_id")
        match frame["type"]:
            case "connected":
                self._silence = 2 * float(payload.get("ping_interval", MOST_SILENCE / 2)) + 5
            case "subscribed" if payload.get("recovered") is False:
                self._place = None
                return [News("gap", payload=payload)]
            case "status":
                if at is None or (self._place is not None and at.offset <= self._place.offset):
                    return []
                self._place = at
                self._see(upload, payload)
                return [News("status", upload, payload=payload, place=at)]
            case "progress":
                self._see(upload, payload)
                return [News("progress", upload, payload=payload)]
            case "sum":
                return [News("sum", topic=frame.get("topic"), payload=payload)]
            case "synced":
                self._synced, self._failures = True, 0
                self._place = at
                return [News("synced", payload=payload, place=at)]
            case "ping" if self._synced:
                self._place = at
        return []

    def _see(self, upload: str | None, payload: Mapping[str, Any]) -> None:
        if payload.get("status") in ENDED and upload is not None:
            self._open.discard(upload)
