"""One connection that watches: its topics, what waits to be told to it, how it recovers.

Rule of this file: nobody waits for a subscriber. What cannot be told now waits in a bounded queue, of progress only the
newest; when that is full the subscriber is closed, and what it missed it gets when it comes again (L-SLOW-1). What it
is told of a topic begins at one place in the log and goes on without a gap: the log is read up to where the hub is, and
in that same moment the hub takes over.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, Final, Protocol

import anyio

from holdfast_protocol import live
from holdfast_protocol.live import Kind, Message, MessageError, Place, Topic
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import Principal
from holdfast_server.catalog.base import Catalog, Event
from holdfast_server.live import frames
from holdfast_server.live.frames import RUN, Frame, Run, runs
from holdfast_server.live.present import Present, watched

MOST_FRAMES: Final = 256
MOST_BYTES: Final = 256 * 1024
"""What waits for one subscriber, at most."""
PAGE: Final = 200
"""Events that are read at a time."""
SOON: Final = 0.002
PATIENCE: Final = 30.0
"""Seconds for which one that recovers may not read."""


class Outlet(Protocol):
    """Where frames go: a WebSocket, or a stream of events."""

    def writable(self) -> bool:
        """Would `write` take something now?"""
        ...

    def write(self, told: Run) -> None:
        """Does not block. Only while `writable`."""
        ...

    async def drained(self) -> None:
        """Returns when it is writable, or closed."""
        ...

    def alive(self) -> bool:
        """Has the other side been heard since this was asked last? True where that cannot be told."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Ends the connection. Does not block; again is nothing."""
        ...


class Hub(Protocol):
    """What a subscriber needs of the hub."""

    catalog: Catalog
    epoch: str
    offset: int

    def join(self, subscriber: "Subscriber", topics: Iterable[Topic]) -> None: ...
    def leave(self, subscriber: "Subscriber", topics: Iterable[Topic]) -> None: ...
    async def present(self, topics: Sequence[Topic]) -> Present: ...
    def status(self, event: Event) -> Frame: ...
    def now(self) -> float: ...


class Subscriber:
    """Made by the hub. `principal` is who watches, `client_id` the name of this connection."""

    __slots__ = (
        "_closed",
        "_hub",
        "_number",
        "_outlet",
        "_size",
        "_topics",
        "_waiting",
        "client_id",
        "principal",
        "syncing",
    )

    def __init__(self, hub: Hub, outlet: Outlet, principal: Principal, client_id: str) -> None:
        self._hub = hub
        self._outlet = outlet
        self.principal: Principal = principal
        self.client_id: str = client_id
        self._topics: dict[Topic, int] = {}  # and from which place in the log on it is told of them
        self._waiting: dict[Hashable, Frame] = {}
        self._size = 0
        self._number = 0
        self._closed = False
        self.syncing: bool = False
        """It is being told what it missed."""

    @property
    def topics(self) -> Collection[Topic]:
        return self._topics.keys()

    def tell(self, told: Run) -> None:
        """Tells frames now, or as soon as they can be written. Does not block."""
        if not self._waiting and not self._closed and self._outlet.writable():
            self._outlet.write(told)
            return
        for frame in told.frames:
            self.put(frame)
        self.flush()

    def put(self, frame: Frame) -> None:
        """Tells a frame, when `flush` is called or earlier. Does not block."""
        if self._closed:
            return
        key = frame.key
        if key is None:
            self._number -= 1
            key = self._number  # below every number of an event
        before = self._waiting.pop(key, None)
        if before is not None:
            self._size -= len(before)
        self._waiting[key] = frame
        self._size += len(frame)
        if len(self._waiting) >= RUN or self._size > MOST_BYTES:
            self.flush()
            if len(self._waiting) > MOST_FRAMES or self._size > MOST_BYTES:
                self.close(live.SLOW, "too slow: connect again with since")

    def flush(self) -> None:
        """Writes what waits, if it can be written now."""
        if self._waiting and not self._closed and self._outlet.writable():
            self._outlet.write(Run(list(self._waiting.values())))
            self._waiting.clear()
            self._size = 0

    def close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._waiting.clear()
            self._outlet.close(code, reason)

    def ended(self) -> None:
        """The connection is gone."""
        self._closed = True
        self._waiting.clear()

    def alive(self) -> bool:
        return self._outlet.alive()

    async def heard(self, text: str) -> None:
        """A message of the client (L-SUB-1). One at a time."""
        try:
            message = live.parse_message(text)
        except MessageError as error:
            self.refuse(error.id, ProblemError("malformed-field", str(error)))
            return
        match message.action:
            case "ping":
                self._answer("pong", message, {"timestamp": frames.time_text(self._hub.now())})
            case "unsubscribe":
                mine = [topic for topic in message.topics if topic in self._topics]
                self._hub.leave(self, mine)
                for topic in mine:
                    del self._topics[topic]
                self._answer("unsubscribed", message, {"topics": [str(topic) for topic in message.topics]})
            case _:
                try:
                    await self.subscribe(message)
                except ProblemError as problem:
                    self.refuse(message.id, problem)
        self.flush()

    def connected(self, payload: dict[str, Any]) -> None:
        """L-FRAME-2."""
        place = {"epoch": self._hub.epoch, "offset": self._hub.offset}
        self.put(Frame(live.envelope("connected", {"client_id": self.client_id, **place, **payload})))

    async def check(self, topics: Sequence[Topic]) -> None:
        """Raises ProblemError if one of them may not be watched, or there would be too many (L-RIGHT-1, L-SUB-4)."""
        if len(self._topics.keys() | set(topics)) > live.MOST_TOPICS:
            detail = f"At most {live.MOST_TOPICS} topics are watched over one connection."
            raise ProblemError("malformed-field", detail, {"topics": [str(topic) for topic in topics]})
        refused = [topic for topic in topics if not await self._may(topic)]
        if refused:
            names = [str(topic) for topic in refused]
            raise ProblemError("not-found", "There is no such topic. Look at its spelling.", {"topics": names})

    async def _may(self, topic: Topic) -> bool:
        match topic.kind:
            case Kind.UPLOAD:
                whose = await self._hub.catalog.whose(topic.name)
                return whose is not None and self.principal.may_watch(whose)
            case Kind.OWNER:
                return self.principal.may_watch_owner(topic.name)
            case Kind.PROJECT:
                return self.principal.may_watch_project(topic.name)
            case Kind.ALL:
                return self.principal.may_watch_all()

    async def subscribe(self, message: Message) -> None:
        """L-SUB-2. Raises ProblemError; nothing has been told or changed then."""
        await self.check(message.topics)
        self.syncing = True
        try:
            await self._sync(message)
        finally:
            self.syncing = False

    async def _sync(self, message: Message) -> None:
        hub = self._hub
        new = [topic for topic in message.topics if topic not in self._topics]
        told: dict[str, Any] = {"topics": [str(topic) for topic in message.topics]}
        recovered, reason = await self._recoverable(message.since)
        begin = message.since.offset if message.since is not None and recovered else hub.offset
        told |= {"recovered": recovered, "epoch": hub.epoch, "offset": begin}
        if reason is not None:
            told["reason"] = reason
        while begin > hub.offset and not self._closed:  # noqa: ASYNC110 - another process is a little ahead of this one
            await anyio.sleep(SOON)
        self._answer("subscribed", message, told)
        after = await self._replay(new, begin)
        more = await self._tell_state(new)
        after = await self._replay(new, after)
        # From here on nothing is waited for, so the hub is where this has read up to.
        for topic in new:
            self._topics[topic] = begin
        hub.join(self, new)
        synced = {"topics": told["topics"], "epoch": hub.epoch, "offset": after, "more": more}
        self._answer("synced", message, synced, Place(hub.epoch, after))
        self.flush()

    async def _recoverable(self, since: Place | None) -> tuple[bool | None, str | None]:
        """L-RECOVER-2: whether all that came after `since` can be told, and why not."""
        if since is None:
            return None, None
        log = await self._hub.catalog.log()
        if since.epoch != log.epoch:
            return False, "epoch"
        if since.offset > log.head:
            return False, "ahead"
        return (False, "trimmed") if since.offset < log.floor else (True, None)

    async def _replay(self, topics: Sequence[Topic], after: int) -> int:
        """Tells the events behind `after`, up to where the hub is when this returns, and answers that place."""
        hub, of = self._hub, watched(topics)
        while after < hub.offset and topics:
            head = hub.offset
            page = [event for event in await hub.catalog.events(after, PAGE, of) if event.seq <= head]
            if (await hub.catalog.log()).floor > after:
                self.close(live.SLOW, "too slow: what comes next is no longer in the log")
            await self._write(runs([hub.status(event) for event in page if not self._told(event)]))
            after = page[-1].seq if len(page) == PAGE else head
            if self._closed:
                break
        return max(after, hub.offset) if not topics else after

    def _told(self, event: Event) -> bool:
        """Was it told already, by another topic?"""
        return any(
            self._topics.get(topic, event.seq) < event.seq
            for topic in topics_of(event.upload, event.owner, event.project)
        )

    async def _tell_state(self, topics: Sequence[Topic]) -> bool:
        """L-SUB-3; answers whether there are more."""
        present = await self._hub.present(topics)
        await self._write(present.runs)
        return present.more

    async def _write(self, told: Sequence[Run]) -> None:
        """Tells any number of frames, as fast as they are taken."""
        for run in told:
            self.flush()
            with anyio.move_on_after(PATIENCE) as waiting:
                await self._outlet.drained()
            if waiting.cancelled_caught:
                self.close(live.SLOW, "too slow: connect again with since")
            self.tell(run)

    def _answer(self, kind: str, message: Message, payload: dict[str, Any], place: Place | None = None) -> None:
        beside = {} if message.id is None else {"id": message.id}
        self.put(Frame(live.envelope(kind, payload, **beside), None, place))

    def refuse(self, number: str | int | None, problem: ProblemError) -> None:
        """Tells that something was not done."""
        beside = {} if number is None else {"id": number}
        payload = {"code": problem.code, "detail": problem.detail, **problem.members}
        self.put(Frame(live.envelope("error", payload, **beside)))
        self.flush()


class Round:
    """What everybody is told in one go: of each subscriber all of it in one write, in the order in which it was added.

    Nothing may be waited for between the first `add` and `tell`, so that whoever is told something else has it before
    or after.
    """

    def __init__(self) -> None:
        self._told: dict[Subscriber, list[Frame]] = {}

    def add(self, frame: Frame, targets: Iterable[Subscriber]) -> None:
        for subscriber in targets:
            mine = self._told.get(subscriber)
            if mine is None:
                self._told[subscriber] = [frame]
            else:
                mine.append(frame)

    def tell(self) -> None:
        joined: dict[tuple[Frame, ...], list[Run]] = {}
        for subscriber, told in self._told.items():
            key = tuple(told)
            same = joined.get(key)
            if same is None:
                same = joined[key] = runs(told)
            for run in same:
                subscriber.tell(run)


def topics_of(upload_id: str, owner: str | None, project: str | None) -> list[Topic]:
    """Every topic that an upload belongs to."""
    found = [Topic(Kind.UPLOAD, upload_id), Topic(Kind.ALL)]
    if owner is not None:
        found.append(Topic(Kind.OWNER, owner))
    if project is not None:
        found.append(Topic(Kind.PROJECT, project))
    return found
