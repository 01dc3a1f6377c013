"""The hub's place in the log, where those who come at the same moment could step on each other.

Rule of this file: nothing is replaced; answers of the catalog are held back, so that what happens rarely happens here.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.catalogs import add
from tests.support.waiting import scaled

from holdfast_protocol import live
from holdfast_protocol.live import Message, parse_topics
from holdfast_server.auth.principal import EVERYBODY
from holdfast_server.catalog.sqlite import open_sqlite
from holdfast_server.live.frames import RUN, Frame, Run
from holdfast_server.live.hub import Hub
from holdfast_server.live.subscriber import Round
from holdfast_server.settings import Settings
from holdfast_server.storage.local import LocalStorage
from holdfast_server.storage.neighbours import Neighbours
from holdfast_server.uploads.service import Uploads

pytestmark = pytest.mark.anyio

EVERYTHING = Message("subscribe", parse_topics(["all"]))


@dataclass
class Seen:
    """An outlet that takes everything while it is open, and what it took, by type."""

    types: Counter[str] = field(default_factory=Counter)
    runs: list[Run] = field(default_factory=list)
    open: bool = True

    def writable(self) -> bool:
        return self.open

    def write(self, told: Run) -> None:
        self.runs.append(told)
        self.types.update(frame.event.split(b"\n", 1)[0].removeprefix(b"event: ").decode() for frame in told.frames)

    async def drained(self) -> None:
        pass

    def alive(self) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        pass

    async def until(self, kind: str, count: int) -> None:
        with anyio.fail_after(scaled(10)):
            while self.types[kind] < count:  # noqa: ASYNC110 - nobody is told of what is written
                await anyio.sleep(0.002)


class Held:
    """A catalog that answers where its log ends only while `gate` is open. The answer is that of then."""

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog
        self.gate = anyio.Event()
        self.gate.set()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    async def event_head(self) -> int:
        self.asked += 1
        await self.gate.wait()
        head: int = await self._catalog.event_head()
        return head


async def asked(held: Held, *, times: int) -> None:
    with anyio.fail_after(scaled(10)):
        while held.asked < times:  # noqa: ASYNC110 - nobody is told of who asks
            await anyio.sleep(0.002)


@pytest.mark.rule("L-RECOVER-2")
async def test_who_comes_late_skips_nothing_that_another_one_waits_for(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, durability="os")
    async with open_sqlite(tmp_path / "catalog.sqlite", durability="os") as catalog:
        held = Held(catalog)
        uploads = Uploads(held, LocalStorage(tmp_path, "os"), settings)
        with Neighbours(tmp_path / "live", time.monotonic).there() as neighbours:
            hub = Hub(uploads, held, neighbours, settings)
            async with hub.running(), anyio.create_task_group() as tasks:
                slow, quick = Seen(), Seen()
                await asked(held, times=1)  # by the hub, which has looked once
                gate = held.gate = anyio.Event()
                tasks.start_soon(hub.greet, hub.open(slow, EVERYBODY))
                await asked(held, times=2)  # it wants to know where the log ends, and waits
                held.gate = anyio.Event()
                held.gate.set()
                subscriber = hub.open(quick, EVERYBODY)
                await hub.greet(subscriber)
                await subscriber.subscribe(EVERYTHING)
                await quick.until("synced", 1)
                before = held.asked
                held.gate = gate
                await add(catalog)
                await asked(held, times=before + 1)  # the hub has seen that there is something new, and waits as well
                gate.set()
                await slow.until("connected", 1)
                await add(catalog, 2)
                await quick.until("status", 2)
                assert quick.types["status"] == 2


@pytest.mark.rule("L-SLOW-1")
async def test_who_is_told_the_same_gets_the_same_bytes_and_who_cannot_take_them_gets_them_later(
    tmp_path: Path,
) -> None:
    settings = Settings(data=tmp_path, durability="os")
    async with open_sqlite(tmp_path / "catalog.sqlite", durability="os") as catalog:
        uploads = Uploads(catalog, LocalStorage(tmp_path, "os"), settings)
        with Neighbours(tmp_path / "live", time.monotonic).there() as neighbours:
            hub = Hub(uploads, catalog, neighbours, settings)
            async with hub.running():
                outlets = [Seen() for _ in range(4)]
                one, two, less, slow = [hub.open(each, EVERYBODY) for each in outlets]
                outlets[3].open = False
                told = [Frame(live.envelope("status", {"number": number}), number) for number in range(RUN + 2)]
                first = Round()
                for frame in told:
                    first.add(frame, [one, two, slow])
                first.add(told[0], [less])
                first.tell()
                assert [len(run.frames) for run in outlets[0].runs] == [RUN, 2]
                assert all(a is b for a, b in zip(outlets[0].runs, outlets[1].runs, strict=True))
                assert [run.frames for run in outlets[2].runs] == [[told[0]]]
                assert outlets[3].runs == []
                outlets[3].open = True
                newest = Frame(live.envelope("progress", {"number": "newest"}), 0)
                again = Round()
                again.add(newest, [slow])
                again.tell()
                assert [frame for run in outlets[3].runs for frame in run.frames] == [*told[1:], newest]


class Counted:
    """A catalog that counts how often it is asked what moves, and answers only while `gate` is open."""

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog
        self.gate = anyio.Event()
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    async def moving(self, *asked: Any) -> Any:
        self.looks += 1
        found = await self._catalog.moving(*asked)
        await self.gate.wait()
        return found


def told(outlet: Seen) -> list[str]:
    """The uploads whose state it was told, in that order."""
    frames = [json.loads(frame.json) for run in outlet.runs for frame in run.frames]
    return [frame["task_id"] for frame in frames if frame["type"] in ("progress", "status")]


@pytest.mark.rule("L-SUB-3")
async def test_many_who_come_together_share_one_look_and_none_gets_what_was_before_he_came(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, durability="os")
    async with open_sqlite(tmp_path / "catalog.sqlite", durability="os") as catalog:
        await add(catalog)
        counted = Counted(catalog)
        uploads = Uploads(counted, LocalStorage(tmp_path, "os"), settings)
        with Neighbours(tmp_path / "live", time.monotonic).there() as neighbours:
            hub = Hub(uploads, counted, neighbours, settings)
            async with hub.running(), anyio.create_task_group() as tasks:
                early, late = Seen(), [Seen() for _ in range(50)]
                tasks.start_soon(hub.open(early, EVERYBODY).subscribe, EVERYTHING)
                with anyio.fail_after(scaled(10)):
                    while counted.looks < 1:  # noqa: ASYNC110 - nobody is told of who asks
                        await anyio.sleep(0.002)
                second = await add(catalog, 2)  # the first look is over and has not seen it
                for each in late:
                    tasks.start_soon(hub.open(each, EVERYBODY).subscribe, EVERYTHING)
                await anyio.wait_all_tasks_blocked()
                counted.gate.set()
                for each in [early, *late]:
                    await each.until("synced", 1)
                await early.until("status", 1)
                assert counted.looks == 2
                assert all(second.id in told(each) for each in [early, *late])
                assert all(each.types["progress"] == 2 for each in late)
                states = {
                    id(run) for each in late for run in each.runs if any(frame.key == second.id for frame in run.frames)
                }
                assert len(states) == 1
