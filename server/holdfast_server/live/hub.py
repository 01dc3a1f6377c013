"""Everyone who watches over this process, and what they are told.

Rule of this file: there is one cursor on the log of events for all subscribers, and one frame for all who get it. What
changes a state comes from the log alone, so nothing is told that did not happen, and in the order in which it
happened, whichever process did it. Progress is sampled from whoever moves bytes, here or in another process, and told
as the catalog has it at that moment, with what is still arriving.
"""

import json
import logging
import math
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from holdfast_protocol import live
from holdfast_protocol.live import Kind, Topic
from holdfast_protocol.problem import ProblemError
from holdfast_server.auth.principal import Principal
from holdfast_server.catalog.base import Catalog, CatalogError, Event, Tally, Watched
from holdfast_server.live import frames, moving
from holdfast_server.live.frames import Frame, Motion
from holdfast_server.live.moving import Course, Moving
from holdfast_server.live.present import MOST_STATES, Present, Presents
from holdfast_server.live.subscriber import Outlet, Round, Subscriber, topics_of
from holdfast_server.settings import Settings
from holdfast_server.storage.neighbours import Neighbours
from holdfast_server.uploads.service import Uploads
from holdfast_server.uploads.upload import State, Upload

logger: Final = logging.getLogger(__name__)

POLL: Final = 0.005
"""Seconds between two looks whether there is something new in the log, while somebody watches..."""
IDLE_POLL: Final = 0.25
"""...and while nobody does."""
PAGE: Final = 100
"""Events that are told before anybody else has a turn."""
TELL_INTERVAL: Final = 0.05
"""Other processes are told of moves at most so often, in seconds."""
LONGEST_REST: Final = 0.002
"""After progress was told nothing is told of it for as long as that took, and at most for so many seconds. What comes
meanwhile goes out in one write for each subscriber, which is what telling costs most."""
EARLY: Final = 0.1
"""By so much of the interval between two frames of an upload the second one may come earlier: whoever was waked a
little late needs not to wait for the turn behind the next one."""
LONGEST_PING: Final = 3600.0
SUM_INTERVAL: Final = 1.0
STATS_INTERVAL: Final = 2.0
TOLD_AT_ONCE: Final = 500
"""Moves in one datagram, and pings in one turn."""
MOST_STATUSES: Final = 1000
"""Frames of events that are kept for those who recover."""
UNFINISHED: Final = (State.RECEIVING, State.VERIFYING)


class Hub:
    """The hub of this process, while it is `running`."""

    def __init__(self, uploads: Uploads, catalog: Catalog, neighbours: Neighbours, settings: Settings) -> None:
        self.catalog = catalog
        self.moving: Moving = Moving()
        self.epoch: str = ""
        self.offset: int = 0
        """Every event up to here was told."""
        self._uploads = uploads
        self._neighbours = neighbours
        self._settings = settings
        self._interval = 1 / settings.progress_rate
        self._ping_interval = min(settings.ping_interval, LONGEST_PING)
        self._subscribers: set[Subscriber] = set()
        self._pings: deque[tuple[float, Subscriber]] = deque()
        self._by_topic: dict[Topic, set[Subscriber]] = {}
        self._watched = anyio.Event()
        self._states: dict[str, tuple[Upload, Motion, Frame]] = {}
        self._statuses: dict[int, Frame] = {}
        self._presents = Presents(catalog, self.state, self._monotonic)
        self._turns: dict[str, float] = {}
        """When an upload may be told of again."""
        self._dirty: dict[float, set[str]] = {}
        """What has moved since it was told of, by its turn: nobody searches thousands for those that are due."""
        self._moved = anyio.Event()
        self._untold: dict[str, Course] = {}  # to other processes
        self._summed: set[Topic] = set()
        self._tallies: dict[Watched | None, tuple[float, Sequence[Tally]]] = {}
        self._elsewhere: dict[str, tuple[float, dict[str, Any]]] = {}
        self._work: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._more_work = anyio.Event()
        self._running = False
        self._stopped = False

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._uploads.now()

    def motion(self, upload_id: str) -> Motion:
        return self.moving.motion(upload_id, self._monotonic())

    def is_running(self, upload_id: str) -> bool:
        """Does a request of this process bring bytes for it? It may not have moved for long."""
        return self._uploads.activity.is_running(upload_id)

    def state(self, upload: Upload) -> Frame:
        """How far an upload is now. The same frame as before while nothing has changed: many may come at once."""
        motion = self.motion(upload.id)
        known = self._states.get(upload.id)
        if known is None or known[:2] != (upload, motion):
            if len(self._states) >= MOST_STATES:
                self._states.clear()
            known = self._states[upload.id] = (upload, motion, frames.progress(upload, motion, self.now()))
        return known[2]

    async def present(self, topics: Sequence[Topic]) -> Present:
        """How far all is that these topics tell of, not older than this call."""
        return await self._presents.of(topics)

    def status(self, event: Event) -> Frame:
        """What has happened. The same frame as before for those who come later: many may recover at once."""
        known = self._statuses.get(event.seq)
        if known is None:
            if len(self._statuses) >= MOST_STATUSES:
                self._statuses.clear()
            known = self._statuses[event.seq] = frames.status(self.epoch, event)
        return known

    def _monotonic(self) -> float:
        return self._uploads.monotonic()

    # Who watches

    @contextmanager
    def opened(self, outlet: Outlet, principal: Principal) -> Iterator[Subscriber]:
        """A connection, for as long as the block lasts."""
        subscriber = self.open(outlet, principal)
        try:
            yield subscriber
        finally:
            self.close(subscriber)

    def open(self, outlet: Outlet, principal: Principal) -> Subscriber:
        """A connection, until `close`. Raises ProblemError if the process is about to end."""
        self.check_open()
        subscriber = Subscriber(self, outlet, principal, secrets.token_hex(16))
        self._subscribers.add(subscriber)
        self._pings.append((self._monotonic() + self._ping_interval, subscriber))
        self._watched.set()
        return subscriber

    def check_open(self) -> None:
        """Raises ProblemError if the process is about to end."""
        if self._stopped or not self._running:
            raise ProblemError(
                "shutting-down", "The server is shutting down. Connect again in a moment.", headers={"Retry-After": "1"}
            )

    async def greet(self, subscriber: Subscriber) -> None:
        """Tells it where the log is now (L-FRAME-2)."""
        if not self._by_topic:
            await self._skip()
        subscriber.connected({"ping_interval": self._ping_interval, "progress_rate": self._settings.progress_rate})
        subscriber.flush()

    def close(self, subscriber: Subscriber) -> None:
        """Its connection is gone."""
        subscriber.ended()
        self.leave(subscriber, list(subscriber.topics))
        self._subscribers.discard(subscriber)

    def start_soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs something of a subscriber's beside everything else. To be called from anywhere on the event loop."""
        self._work.append(work)
        self._more_work.set()

    async def _start_work(self, tasks: anyio.abc.TaskGroup) -> None:
        # Of its own, because no task group takes anything from a callback of a transport.
        while True:
            await self._more_work.wait()
            self._more_work = anyio.Event()
            while self._work:
                tasks.start_soon(self._work.popleft())

    def join(self, subscriber: Subscriber, topics: Iterable[Topic]) -> None:
        if subscriber in self._subscribers:
            for topic in topics:
                self._by_topic.setdefault(topic, set()).add(subscriber)

    def leave(self, subscriber: Subscriber, topics: Iterable[Topic]) -> None:
        for topic in topics:
            there = self._by_topic.get(topic)
            if there is not None:
                there.discard(subscriber)
                if not there:
                    del self._by_topic[topic]

    def stop(self) -> None:
        """The process is about to end: everybody is sent away. Does not block."""
        self._stopped = True
        for subscriber in list(self._subscribers):
            subscriber.flush()
            subscriber.close(live.GOING_AWAY, "the server ends: connect again")

    def watchers(self) -> list[dict[str, Any]]:
        """How many watch, by user and by project, in each process."""
        by_user: dict[str, int] = {}
        by_project: dict[str, int] = {}
        for subscriber in self._subscribers:
            user = subscriber.principal.owner or ""
            by_user[user] = by_user.get(user, 0) + 1
            for topic in subscriber.topics:
                if topic.kind is Kind.PROJECT:
                    by_project[topic.name] = by_project.get(topic.name, 0) + 1
        mine = {"total": len(self._subscribers), "by_user": by_user, "by_project": by_project}
        now = self._monotonic()
        others = [told for at, told in self._elsewhere.values() if now - at < moving.REMEMBERED]
        return [mine, *others]

    async def stats(self, who: Principal) -> dict[str, Any]:
        """L-STATS-1, as far as `who` may know. Reads a row of every upload of his, every other second at most."""
        now = self._monotonic()
        of = None if who.may_watch_all() else _own(who)
        at, tally = self._tallies.get(of, (-math.inf, ()))
        if now - at > STATS_INTERVAL:
            tally = await self.catalog.tally(of)
            self._tallies = {key: told for key, told in self._tallies.items() if now - told[0] <= STATS_INTERVAL}
            self._tallies[of] = (now, tally)
        speed = 0.0
        for course in self.moving:
            if course.upload is None:
                course.upload = await self.catalog.get(course.id)
            if course.upload is not None and who.may_watch(course.upload):
                speed += course.speed(now) or 0.0
        by_user, by_project, total = Counter[str](), Counter[str](), 0
        for each in self.watchers():
            by_user.update({k: n for k, n in each["by_user"].items() if of is None or k == who.owner})
            by_project.update({k: n for k, n in each["by_project"].items() if who.may_watch_project(k)})
            total += each["total"] if of is None else each["by_user"].get(who.owner, 0)
        return {
            "uploads": {state.value: 0 for state in State} | {each.state.value: each.uploads for each in tally},
            "bytes": {"received": sum(t.received for t in tally), "length": sum(t.length for t in tally)},
            "speed": round(speed, 1),
            "connections": {"total": total, "by_user": dict(by_user), "by_project": dict(by_project)},
            "timestamp": frames.time_text(self.now()),
        }

    # What they are told

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows the log and what moves for as long as the block lasts."""
        log = await self.catalog.log()
        self.epoch, self.offset = log.epoch, log.head
        self._uploads.activity.listen(self._heard_here)
        try:
            async with anyio.create_task_group() as tasks:
                self._running = True
                tasks.start_soon(self._start_work, tasks)
                tasks.start_soon(self._follow_log)
                tasks.start_soon(self._follow_moves)
                tasks.start_soon(self._follow_neighbours)
                tasks.start_soon(self._keep_house)
                try:
                    yield
                finally:
                    self.stop()
                    tasks.cancel_scope.cancel()
        finally:
            self._running = False
            self._uploads.activity.listen(None)

    async def _follow_log(self) -> None:
        version = None
        while True:
            try:
                before, version = version, self.catalog.version()
                if version != before and await self.catalog.event_head() > self.offset:
                    await self._tell_events()
            except (OSError, CatalogError) as error:
                logger.warning("events cannot be read for now: %s", error)
                version = None
                await anyio.sleep(1)
            if self._subscribers:
                await anyio.sleep(POLL)
            else:
                self._watched = anyio.Event()
                with anyio.move_on_after(IDLE_POLL):
                    await self._watched.wait()

    async def _tell_events(self) -> None:
        while True:
            after = self.offset
            if not self._subscribers and await self._skip():
                return
            events = await self.catalog.events(after, PAGE)
            if self.offset != after:
                continue  # it was skipped meanwhile
            told = Round()
            for event in events:
                if event.data["state"] not in UNFINISHED:
                    self.moving.end(event.upload)
                targets = self._targets(event.upload, event.owner, event.project)
                if targets:
                    told.add(self.status(event), targets)
                self.offset = event.seq
            told.tell()
            if len(events) < PAGE:
                return
            await anyio.lowlevel.checkpoint()  # those that have a task of their own write what they got

    async def _skip(self) -> bool:
        """Goes to the end of the log, unless somebody waits for what is before it, who may have joined just now."""
        head = await self.catalog.event_head()
        if self._by_topic:
            return False
        self.offset = max(self.offset, head)
        return True

    def _targets(self, upload_id: str, owner: str | None, project: str | None) -> set[Subscriber]:
        found: set[Subscriber] = set()
        for topic in topics_of(upload_id, owner, project):
            found |= self._by_topic.get(topic, set())
        return found

    def _heard_here(self, upload: Upload) -> None:
        """Something of an upload has changed in this process."""
        course = self.moving.course(upload.id)
        course.upload = upload
        activity = self._uploads.activity
        course.move(
            moving.HERE, upload.received, activity.arriving(upload.id), activity.step_of(upload.id), self._monotonic()
        )
        if not self._untold:
            self._moved.set()
        self._untold[upload.id] = course
        self._mark(upload.id)

    def _mark(self, upload_id: str) -> None:
        if self._by_topic:
            turn = self._turns.get(upload_id, -math.inf)
            if turn not in self._dirty:
                self._dirty[turn] = set()
                self._moved.set()
            self._dirty[turn].add(upload_id)

    async def _follow_moves(self) -> None:
        told_others = -math.inf
        while True:
            if not self._dirty and not self._untold:
                await self._moved.wait()
            self._moved = anyio.Event()
            now = self._monotonic()
            if self._untold and now - told_others >= TELL_INTERVAL:
                told_others = now
                self._tell_neighbours()
            due = set[str]().union(*[self._dirty.pop(turn) for turn in list(self._dirty) if turn <= now])
            try:
                await self._tell_progress(due, now)
            except (OSError, CatalogError) as error:
                logger.warning("progress cannot be told for now: %s", error)
                await anyio.sleep(1)
            if due:
                await anyio.lowlevel.checkpoint()  # what was told is written
                await anyio.sleep(min(self._monotonic() - now, LONGEST_REST))
                now = self._monotonic()
            wait = min(TELL_INTERVAL if self._untold else math.inf, min(self._dirty, default=math.inf) - now)
            with anyio.move_on_after(max(wait, 0.001)):
                await self._moved.wait()

    def _next_turn(self, now: float) -> float:
        """Of what is told of now. All that moves has its turns at the same moments, so that it is told in one write."""
        return math.ceil(now / self._interval + 1 - EARLY) * self._interval

    async def _tell_progress(self, due: Iterable[str], now: float) -> None:
        self._turns.update(dict.fromkeys(due, self._next_turn(now)))
        if not self._by_topic:
            return
        uploads = await self._as_stored(due)
        told = Round()
        for upload in uploads:
            course = self.moving.get(upload.id)
            if course is None:
                continue  # it came to its end
            targets = self._targets(upload.id, upload.owner, upload.project)
            if targets:
                told.add(frames.progress(upload, course.motion(now), self.now()), targets)
        told.tell()

    async def _as_stored(self, due: Iterable[str]) -> Sequence[Upload]:
        """Those that somebody watches and that are not at their end, as the catalog has them: the snapshot of whoever
        moved bytes may be older than an event that was told."""
        found: list[Upload] = []
        for upload_id in due:
            course = self.moving.get(upload_id)
            if course is None:
                continue
            known = course.upload
            if known is not None and not self._targets(upload_id, known.owner, known.project):
                continue
            upload = await self.catalog.get(upload_id)
            if upload is None:
                continue
            course.upload = upload
            course.received = max(course.received, upload.received)
            if upload.state in UNFINISHED:
                found.append(upload)
        return found

    # Other processes

    def _tell_neighbours(self) -> None:
        courses = list(self._untold.values())
        self._untold.clear()
        if self._neighbours.alone():
            return
        activity = self._uploads.activity
        for start in range(0, len(courses), TOLD_AT_ONCE):
            moves = [
                [course.id, course.received, activity.arriving(course.id), activity.step_of(course.id)]
                for course in courses[start : start + TOLD_AT_ONCE]
            ]
            self._neighbours.tell(json.dumps({"from": self._neighbours.name, "moves": moves}).encode())

    async def _follow_neighbours(self) -> None:
        while True:
            for datagram in await self._neighbours.heard():
                try:
                    self._hear(json.loads(datagram))
                except (ValueError, LookupError, TypeError):
                    logger.warning("another process of this folder speaks another version")

    def _hear(self, told: Mapping[str, Any]) -> None:
        now = self._monotonic()
        source = str(told["from"])
        for upload_id, received, arriving, step in told.get("moves", ()):
            self.moving.course(upload_id).move(source, received, arriving, step, now)
            self._mark(upload_id)
        if "watchers" in told:
            self._elsewhere[source] = (now, told["watchers"])

    # Once a second, and now and then

    async def _keep_house(self) -> None:
        had_watchers = False
        while True:
            await anyio.sleep(SUM_INTERVAL)
            now = self._monotonic()
            for course in self.moving:
                if not course.stopped and now - course.moved_at > moving.STOPPED:
                    course.stopped = True
                    self._mark(course.id)
            self.moving.forget(now)
            self._presents.forget(now)
            for old in [each for each, at in self._turns.items() if now - at > moving.REMEMBERED]:
                del self._turns[old]
            for gone in [each for each, (at, _) in self._elsewhere.items() if now - at > moving.REMEMBERED]:
                del self._elsewhere[gone]
            self._tell_sums(now)
            if self._subscribers or had_watchers:
                had_watchers = bool(self._subscribers)
                if not self._neighbours.alone():
                    told = {"from": self._neighbours.name, "watchers": self.watchers()[0]}
                    self._neighbours.tell(json.dumps(told).encode())
            await self._ping(now)

    def _tell_sums(self, now: float) -> None:
        """L-PROGRESS-2."""
        groups = [topic for topic in self._by_topic if topic.kind is not Kind.UPLOAD]
        if not groups:
            self._summed.clear()
            return
        members: dict[Topic, list[tuple[Course, Upload]]] = {}
        for course in self.moving:
            if course.upload is not None:
                for topic in topics_of(course.id, course.upload.owner, course.upload.project)[1:]:
                    members.setdefault(topic, []).append((course, course.upload))
        told = Round()
        for topic in groups:
            mine = members.get(topic, [])
            if not mine and topic not in self._summed:
                continue
            total = {**moving.total(mine, now), "timestamp": frames.time_text(self.now())}
            frame = Frame(live.envelope("sum", total, topic=str(topic)), ("sum", topic))
            told.add(frame, self._by_topic[topic])
            (self._summed.add if mine else self._summed.discard)(topic)
        told.tell()

    async def _ping(self, now: float) -> None:
        """L-PING-1. Those that came at once are pinged at once; others have their turn in between."""
        frame = None
        for count in range(len(self._pings)):
            due, subscriber = self._pings[0]
            if due > now:
                return
            self._pings.popleft()
            if subscriber not in self._subscribers:
                continue
            self._pings.append((now + self._ping_interval, subscriber))
            if not subscriber.alive():
                subscriber.close(live.GOING_AWAY, "no answer to a ping")
                continue
            if subscriber.principal.expires is not None or subscriber.principal.confirm is not None:
                self.start_soon(partial(self._confirm, subscriber))
            if subscriber.syncing:
                continue  # a place behind what is still to be told would be a gap
            if frame is None:
                place = live.Place(self.epoch, self.offset)
                told = {"epoch": self.epoch, "offset": self.offset, "timestamp": frames.time_text(self.now())}
                frame = Frame(live.envelope("ping", told), "ping", place)
            subscriber.put(frame)
            subscriber.flush()
            if count % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
                await anyio.lowlevel.checkpoint()
                frame = None

    async def _confirm(self, subscriber: Subscriber) -> None:
        """Whoever may no longer watch is sent away."""
        principal = subscriber.principal
        try:
            if principal.expires is not None and principal.expires <= self.now():
                raise ProblemError("credential-expired", "The credential is no longer valid. Get a new one.")
            if principal.confirm is not None:
                await principal.confirm()
        except ProblemError as problem:
            subscriber.close(live.EXPIRED, problem.code)


def _own(who: Principal) -> Watched:
    """The uploads that somebody sees who does not see all."""
    if who.only is not None:
        return Watched(uploads=frozenset({who.only}))
    return Watched(owners=frozenset({who.owner} if who.owner is not None else ()), projects=frozenset(who.projects))
