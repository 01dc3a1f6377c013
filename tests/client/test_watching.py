"""Following uploads with our client: at a real server, over cut connections."""

import json
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import holdfast
from holdfast import Timeouts, watching
from holdfast.watching import News, own_topics, place, topics_for
from holdfast_protocol import live
from tests.conftest import StartServer
from tests.support.process import CommandLine, ServerProcess
from tests.support.proxy import Proxy
from tests.support.scripted import Asked, Scripted, head
from tests.support.speaker import Speaker
from tests.support.waiting import eventually, scaled

pytestmark = pytest.mark.anyio

OWN_TOPICS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "support" / "own_topics.json").read_text(encoding="utf-8")
)
"""Those of tests/page/node/feed.test.mjs too."""


def test_urls_as_people_have_them() -> None:
    stream = "https://host:1/up/api/events"
    assert place("https://host:1/up", []) == (stream, [])
    assert place("https://host:1/up/files/", ["a", "https://x/files/b"]) == (stream, ["a", "b"])
    assert place("https://host:1/up/files/c", []) == (stream, ["c"])
    with pytest.raises(holdfast.UsageError):
        place("host:1", [])
    assert [str(topic) for topic in topics_for([], [], [], everything=True)] == ["all"]
    assert topics_for([], [], [], everything=False) == ()
    with pytest.raises(holdfast.UsageError):
        topics_for(["c"], [], [], everything=False)


@pytest.mark.rule("D-JSON-3")
@pytest.mark.parametrize("case", OWN_TOPICS, ids=[each["case"] for each in OWN_TOPICS])
def test_what_may_be_watched_is_named_as_the_page_does_it(case: dict[str, Any]) -> None:
    assert [str(topic) for topic in own_topics(case["who"])] == case["topics"]


async def test_an_upload_is_followed_to_its_end(server: ServerProcess, tmp_path: Path, rng: random.Random) -> None:
    (tmp_path / "film.mkv").write_bytes(rng.randbytes(300_000))
    with Speaker(server.url) as speaker:
        path = speaker.create(1000, parallel=False)
        news: list[News] = []
        async with holdfast.AsyncClient(state=tmp_path / "state") as client:
            with anyio.fail_after(scaled(20)):
                async for each in client.watch(path):
                    news.append(each)
                    if each.kind == "synced":
                        assert speaker.patch(path, 0, bytes(1000)).status == 204
    events = [each.payload["event"] for each in news if each.kind == "status"]
    assert events == ["verifying", "complete"]
    assert news[-1].ended
    assert (news[-1].status, news[-1].fraction) == ("complete", 1.0)
    assert news[0].kind == "progress"


@pytest.mark.rule("L-RECOVER-1", "L-RECOVER-2", "L-BACKOFF-1")
async def test_nothing_is_missed_over_cut_connections(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--durability", "os")
    lost: list[float] = []
    seen: list[int] = []
    with Proxy(server.url) as proxy, Speaker(server.url) as speaker:
        async with holdfast.AsyncClient(state=tmp_path / "state") as client:
            with anyio.fail_after(scaled(60)):
                async for each in client.watch(proxy.url, lost=lambda error, wait: lost.append(wait)):
                    assert each.kind != "gap"
                    if each.kind == "status":
                        assert each.place is not None
                        seen.append(each.place.offset)
                        if seen[-1] == 40:
                            break
                    if each.kind in ("synced", "status") and len(seen) % 8 == 0:
                        proxy.drop_all()
                        for _ in range(8):
                            speaker.create(10)
    assert seen == list(range(1, 41))
    assert len(lost) >= 3
    assert all(0 <= wait <= 20 for wait in lost)


@pytest.mark.rule("L-RECOVER-2")
async def test_after_a_long_absence_the_gap_is_said_and_the_present_told(
    start_server: StartServer, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    server = start_server("--log-events", "3")
    with Speaker(server.url) as speaker:
        created = {speaker.create(10).rpartition("/")[2] for _ in range(6)}
    server.restart()  # at the start of which the log is trimmed

    async def told(since: holdfast.Place | None) -> list[News]:
        found: list[News] = []
        async with holdfast.AsyncClient(state=tmp_path / "state") as client:
            with anyio.fail_after(scaled(20)):
                async for news in client.watch(server.url, since=since):
                    found.append(news)
                    if news.kind == "synced":
                        break
        return found

    now = (await told(None))[-1].place
    assert now is not None
    with anyio.fail_after(scaled(20)):
        found = await told(holdfast.Place(now.epoch, 1))
        while found[0].kind != "gap":
            await anyio.sleep(0.05)
            found = await told(holdfast.Place(now.epoch, 1))
    assert found[0].payload["reason"] == "trimmed"
    assert {news.upload for news in found[1:-1]} == created
    assert [news.kind for news in found[1:]] == ["progress"] * 6 + ["synced"]
    assert found[-1].place == now
    for since, reason in ((holdfast.Place("00", 2), "epoch"), (holdfast.Place(now.epoch, 1000), "ahead")):
        found = await told(since)
        assert [news.kind for news in found] == ["gap"] + ["progress"] * 6 + ["synced"]
        assert found[0].payload["reason"] == reason
    kept = await told(holdfast.Place(now.epoch, 3))
    assert [news.kind for news in kept if news.kind != "progress"] == ["status"] * 3 + ["synced"]
    with holdfast_command.started("watch", server.url, "--since", "00-2") as process:
        said = {"The server cannot tell what happened meanwhile", *created}
        eventually(lambda: all(each in _told_by(holdfast_command) for each in said), within=20)
        assert process.poll() is None


def _told_by(command: CommandLine) -> str:
    output = command.home / "output.txt"
    return output.read_text() if output.exists() else ""


@pytest.mark.rule("L-PING-1")
async def test_silence_is_measured_by_how_often_the_server_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, pause = 1.0, 3.0
    monkeypatch.setattr(watching, "MOST_SILENCE", limit)
    over = threading.Event()

    def event(kind: str, offset: int, **payload: object) -> bytes:
        told = live.envelope(kind, {"epoch": "e0", "offset": offset, **payload}, epoch="e0", offset=offset)
        return b"data: %s\n\n" % live.encode(told)

    def script(asked: Asked) -> Iterator[bytes]:
        yield head(200, "Content-Type: text/event-stream")
        yield event("connected", 0, ping_interval=600.0) + event("synced", 0)
        over.wait(pause)
        yield event("status", asked.number + 1)
        over.wait(scaled(60))

    with Scripted(script) as server:
        try:
            times = Timeouts(response=limit)
            async with holdfast.AsyncClient(state=tmp_path / "state", timeouts=times) as client:
                with anyio.fail_after(scaled(60)):
                    async for news in client.watch(server.url, everything=True):
                        if news.kind == "status":
                            break
        finally:
            over.set()


async def test_who_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_SILENCE", 0.3)
    over = threading.Event()

    def script(asked: Asked) -> Iterator[bytes]:
        yield head(*((200, "Content-Type: text/event-stream") if asked.number else (404, "Content-Length: 9")))
        over.wait(scaled(60))

    with Scripted(script) as server:
        try:
            async with holdfast.AsyncClient(state=tmp_path / "state") as client:
                lost: list[holdfast.HoldfastError] = []
                with anyio.fail_after(scaled(60)), pytest.raises(holdfast.Stalled, match="has said nothing for"):
                    async for _ in client.watch(
                        server.url, everything=True, max_attempts=2, lost=lambda error, wait: lost.append(error)
                    ):
                        pass
                assert len(lost) == 1
                assert "has not finished its answer" in str(lost[0])
        finally:
            over.set()


async def test_what_cannot_be_watched_is_an_error_at_once(server: ServerProcess, tmp_path: Path) -> None:
    async with holdfast.AsyncClient(state=tmp_path / "state") as client:
        with pytest.raises(holdfast.UploadGone, match="no such topic"):
            async for _ in client.watch(server.url, "0" * 32):
                pass
        with pytest.raises(holdfast.ConnectionFailed):
            async for _ in client.watch("http://127.0.0.1:9", max_attempts=1):
                pass


def test_the_blocking_client_and_the_command(
    server: ServerProcess, tmp_path: Path, holdfast_command: CommandLine
) -> None:
    with Speaker(server.url) as speaker, holdfast.Client(state=tmp_path / "state") as client:
        path = speaker.create(10, parallel=False)
        thread = threading.Timer(0.5, speaker.patch, (path, 0, bytes(10)))
        thread.start()
        kinds = [each.kind for each in client.watch(server.url, path)]
        thread.join()
        assert kinds[:2] == ["progress", "synced"]
        assert kinds[-1] == "status"
        done = holdfast_command.run("watch", server.url, path.rpartition("/")[2], "--json")
        assert done.returncode == 0
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["kind"] for each in told] == ["progress", "synced"]
        assert told[0]["payload"]["status"] == "complete"
        plain = holdfast_command.run("watch", path)
        assert "Complete: verified and published." in plain.stdout
        other = speaker.create(10)
        assert speaker.delete(other).status == 204
        assert holdfast_command.run("watch", server.url, other.rpartition("/")[2]).returncode == 1
        refused = holdfast_command.run("watch", server.url, "f" * 32)
        assert (refused.returncode, isinstance(refused, subprocess.CompletedProcess)) == (4, True)
