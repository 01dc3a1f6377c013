"""Live progress over WebSocket and server-sent events, on every road: protocol.md, section 10."""

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker
from tests.support.waiting import eventually, scaled
from tests.support.watching import Frame, Match, Watching, events, is_event, is_type, watching
from tests.support.wire import Connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PAYLOAD = {
    "task_id", "name", "owner", "project", "status", "progress", "current_step", "total_steps", "completed_steps",
    "message", "length", "received", "arriving", "prefix", "speed", "eta", "errors", "retries", "error", "started",
    "timestamp",
}  # fmt: skip


def created(speaker: Speaker, length: int, **metadata: str) -> str:
    """The path of a new tus upload."""
    named = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    fields = {**TUS, "Upload-Length": str(length)} | ({"Upload-Metadata": named} if named else {})
    answer = speaker.request("POST", "/files", fields)
    assert answer.status == 201
    return str(answer.get("location"))


def sent(speaker: Speaker, path: str, offset: int, data: bytes) -> int:
    return speaker.request("PATCH", path, {**TUS_BODY, "Upload-Offset": str(offset)}, data).status


def ident(path: str) -> str:
    return path.rpartition("/")[2]


def is_at(offset: int) -> Match:
    return lambda frame: frame["type"] == "status" and frame["offset"] == offset


def has_received(upload: str, size: int) -> Match:
    return lambda frame: (
        frame["type"] == "progress" and frame["task_id"] == upload and frame["payload"]["received"] == size
    )


@pytest.fixture(params=["websocket", "events"])
def watch(request: pytest.FixtureRequest, server: ServerProcess) -> Callable[..., Iterator[Watching]]:
    """Opens a connection that watches topics, and is synced."""

    def opened(*topics: str, url: str | None = None) -> Iterator[Watching]:
        url = url or server.url
        if request.param == "events":
            with events(url, *topics) as found:
                found.until(is_type("synced"))
                yield found
        else:
            with watching(url) as found:
                found.subscribe(*topics)
                yield found

    return opened


@pytest.mark.rule("L-FRAME-1", "L-FRAME-2", "L-STATUS-1", "L-PROGRESS-1", "L-PAYLOAD-1", "L-SUB-2")
def test_an_upload_is_told_from_its_creation_to_its_end(
    watch: Callable[..., Iterator[Watching]], speaker: Speaker, rng: random.Random
) -> None:
    data = rng.randbytes(3 * GRANULE)
    for found in watch("all"):
        assert found.seen[0]["payload"].keys() >= {"client_id", "epoch", "offset", "ping_interval", "progress_rate"}
        assert len(found.seen[0]["payload"]["client_id"]) == 32
        path = created(speaker, len(data), filename="film.mkv", project="films")
        assert sent(speaker, path, 0, data[: 2 * GRANULE]) == 204
        half = found.until(
            lambda frame: frame["type"] == "progress" and frame["payload"]["received"] == 2 * GRANULE, within=5
        )[-1]["payload"]
        assert sent(speaker, path, 2 * GRANULE, data[2 * GRANULE :]) == 204
        found.until(is_event("complete", ident(path)))
        statuses = [frame for frame in found.seen if frame["type"] == "status" and frame["task_id"] == ident(path)]
        assert [frame["payload"]["event"] for frame in statuses] == ["created", "verifying", "complete"]
        assert [frame["payload"]["previous"] for frame in statuses] == [None, "receiving", "verifying"]
        offsets = [frame["offset"] for frame in statuses]
        assert offsets == sorted(set(offsets))
        assert {frame["epoch"] for frame in statuses} == {found.seen[0]["payload"]["epoch"]}
        assert half.keys() == PAYLOAD
        assert half["progress"] == 66.67
        assert (half["current_step"], half["total_steps"], half["completed_steps"]) == ("receiving", 3, 0)
        assert (half["status"], half["name"], half["project"], half["owner"]) == (
            "receiving", "film.mkv", "films", None,
        )  # fmt: skip
        assert (half["length"], half["prefix"], half["arriving"]) == (3 * GRANULE, 2 * GRANULE, 0)
        end = statuses[-1]["payload"]
        assert (end["progress"], end["current_step"], end["completed_steps"], end["status"]) == (
            100.0, None, 3, "complete",
        )  # fmt: skip
        assert statuses[1]["payload"]["current_step"] == "verifying"
        assert statuses[1]["payload"]["completed_steps"] == 1


@pytest.mark.rule("L-PROGRESS-1")
def test_bytes_are_told_while_their_request_still_runs(
    watch: Callable[..., Iterator[Watching]], server: ServerProcess, speaker: Speaker
) -> None:
    """A chunk whose body stalls in the middle: it is not stored, and nobody knows whether it will be."""
    length = 16 * GRANULE
    path = speaker.create(length)
    for found in watch(f"upload:{ident(path)}"):
        with Connection(server.url) as other:
            digest = f"sha-256=:{'A' * 43}=:"
            head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/vnd.holdfast.chunk\r\n"
            head += f"Upload-Offset: 0\r\nContent-Length: {length}\r\nContent-Digest: {digest}\r\n\r\n"
            other.send(head.encode() + bytes(length // 2))
            frame = found.until(lambda f: f["type"] == "progress" and f["payload"]["arriving"] == length // 2)[-1]
            assert (frame["payload"]["received"], frame["payload"]["progress"]) == (0, 50.0)
        # And when the connection is gone, they are gone too, and that is an error.
        frame = found.until(lambda f: f["type"] == "progress" and f["payload"]["errors"] == 1)[-1]
        assert (frame["payload"]["arriving"], frame["payload"]["retries"]) == (0, 0)
        assert "failed" in frame["payload"]["message"]


@pytest.mark.rule("L-PROGRESS-1")
def test_progress_is_not_told_more_often_than_it_should(server: ServerProcess, speaker: Speaker) -> None:
    path = created(speaker, 1000)
    with watching(server.url) as found:
        found.subscribe(f"upload:{ident(path)}")
        begin = time.monotonic()
        for offset in range(100):
            assert sent(speaker, path, offset, b"x") == 204
        found.until(lambda frame: frame["type"] == "progress" and frame["payload"]["received"] == 100)
        seconds = time.monotonic() - begin
        told = [frame for frame in found.seen if frame["type"] == "progress"]
        assert len(told) <= 1 + 4 * seconds + 2  # the present state, and one at once


@pytest.mark.rule("L-SUB-1", "L-SUB-4", "L-TOPIC-1", "L-RIGHT-1")
def test_what_cannot_be_subscribed_is_refused_and_the_connection_stays(server: ServerProcess, speaker: Speaker) -> None:
    there = ident(created(speaker, 10))
    with watching(server.url) as found:
        for message in (
            "no json", "[]", '{"action": "dance"}', '{"action": "subscribe"}', '{"action": "subscribe", "topics": []}',
            '{"action": "subscribe", "topics": ["film"]}', '{"action": "subscribe", "topics": ["upload:X"]}',
            '{"action": "subscribe", "topics": ["project:"]}', '{"action":"subscribe","topics":["all"],"since":1}',
        ):  # fmt: skip
            assert found.socket is not None
            found.socket.send(message)
            answer = found.next()
            assert (answer["type"], answer["payload"]["code"]) == ("error", "malformed-field")
            assert answer["payload"]["detail"]
        nowhere = f"upload:{'0' * 32}"
        (answer,) = found.subscribe(f"upload:{there}", nowhere, id="mine")
        assert (answer["id"], answer["payload"]["code"], answer["payload"]["topics"]) == (
            "mine", "not-found", [nowhere],
        )  # fmt: skip
        (answer,) = found.subscribe(*[f"project:{number}" for number in range(129)])
        assert answer["payload"]["code"] == "malformed-field"
        found.subscribe(*[f"project:{number}" for number in range(128)])
        (answer,) = found.subscribe("project:one-more", id=3)
        assert (answer["type"], answer["id"]) == ("error", 3)
        found.say(action="ping", id=7)
        assert found.next()["type"] == "pong"
        assert found.seen[-1]["id"] == 7


@pytest.mark.rule("L-SUB-1", "L-SUB-2")
def test_after_unsubscribing_nothing_comes(server: ServerProcess, speaker: Speaker) -> None:
    one, other = created(speaker, 10), created(speaker, 10)
    with watching(server.url) as found:
        found.say(action="subscribe", task_id=ident(one), id=1)
        found.until(is_type("synced"))
        found.subscribe(f"upload:{ident(other)}", f"upload:{ident(one)}")
        found.say(action="unsubscribe", topics=[f"upload:{ident(one)}"], id=2)
        assert found.until(is_type("unsubscribed"))[-1]["id"] == 2
        assert sent(speaker, one, 0, bytes(10)) == sent(speaker, other, 0, bytes(10)) == 204
        frames = found.until(is_event("complete", ident(other)))
        assert {frame.get("task_id") for frame in frames} == {ident(other)}


@pytest.mark.rule("L-SUB-3", "L-TOPIC-2", "L-STATUS-1")
def test_the_present_state_comes_first_and_each_event_once(server: ServerProcess, speaker: Speaker) -> None:
    done, there = created(speaker, 10, project="p-state"), created(speaker, 10, project="p-state")
    elsewhere = created(speaker, 10, project="p-other")
    assert sent(speaker, done, 0, bytes(10)) == 204
    with watching(server.url) as found:
        answer = found.subscribe("project:p-state", f"upload:{ident(done)}", "all")
        states = {f["task_id"]: f["payload"]["status"] for f in answer if f["type"] == "progress"}
        assert states[ident(done)] == "complete"
        assert states[ident(there)] == states[ident(elsewhere)] == "receiving"
        assert answer[0]["payload"]["recovered"] is None
        assert answer[-1]["payload"]["more"] is False
        assert sent(speaker, there, 0, bytes(10)) == 204
        found.until(is_event("complete", ident(there)))
        assert speaker.request("DELETE", elsewhere, TUS).status == 204
        found.until(is_event("terminated", ident(elsewhere)))
        seen = [(f["task_id"], f["payload"]["event"]) for f in found.seen if f["type"] == "status"]
        assert sorted(set(seen)) == sorted(seen)
        assert [event for task, event in seen if task == ident(there)] == ["verifying", "complete"]


@pytest.mark.rule("L-RECOVER-1", "L-RECOVER-2", "L-SSE-2")
def test_who_comes_again_gets_what_was_missed(server: ServerProcess, speaker: Speaker) -> None:
    with watching(server.url) as found:
        place = found.subscribe("project:again")[-1]["payload"]
    first, other = created(speaker, 10, project="again"), created(speaker, 10, project="not-again")
    for path in (first, other):
        assert sent(speaker, path, 0, bytes(10)) == 204
    open_one = created(speaker, 10, project="again")
    want = [
        (ident(first), "created"), (ident(first), "verifying"), (ident(first), "complete"),
        (ident(open_one), "created"),
    ]  # fmt: skip
    with watching(server.url) as found:
        answer = found.subscribe("project:again", since={"epoch": place["epoch"], "offset": place["offset"]})
        assert answer[0]["payload"]["recovered"] is True
        assert [(f["task_id"], f["payload"]["event"]) for f in answer if f["type"] == "status"] == want
        kinds = [frame["type"] for frame in answer]
        assert kinds == ["subscribed", *["status"] * 4, "progress", "synced"]
        middle = answer[2]
    text = f"{place['epoch']}-{middle['offset']}"
    for options in ({"headers": {"Last-Event-ID": text}}, {"query": f"&since={text}"}):
        with events(server.url, "project:again", **options) as found:
            answer = found.until(is_type("synced"))
            told = [f for f in answer if f["type"] == "status"]
            assert [(f["task_id"], f["payload"]["event"]) for f in told] == want[2:]
            assert [f["sse"] for f in told] == [f"{place['epoch']}-{f['offset']}" for f in told]
            assert answer[-1]["sse"] == f"{place['epoch']}-{answer[-1]['payload']['offset']}"


@pytest.mark.rule("L-RECOVER-2", "L-SSE-2")
def test_what_cannot_be_recovered_is_told_plainly(start_server: StartServer) -> None:
    server = start_server("--log-events", "3")
    with Speaker(server.url) as speaker:
        with watching(server.url) as found:
            place = found.subscribe("all")[-1]["payload"]
            epoch, offset = place["epoch"], place["offset"]
        uploads = [created(speaker, 10) for _ in range(6)]
        server.restart()  # at the start of which the log is trimmed

        def reason(since: object) -> str | None:
            with watching(server.url) as found:
                answer = found.subscribe("all", since=since)
                assert not any(frame["type"] == "status" for frame in answer)
                states = {frame["task_id"] for frame in answer if frame["type"] == "progress"}
                assert states == {ident(path) for path in uploads}
                assert answer[0]["payload"]["recovered"] is False
                return str(answer[0]["payload"]["reason"])

        eventually(lambda: _recovered(server, {"epoch": epoch, "offset": offset}) is False, what="a trimmed log")
        assert reason({"epoch": epoch, "offset": offset}) == "trimmed"
        assert reason({"epoch": "00", "offset": offset}) == "epoch"
        assert reason({"epoch": epoch, "offset": 10**6}) == "ahead"
        assert _recovered(server, {"epoch": epoch, "offset": 3}) is True
        with events(server.url, "all", headers={"Last-Event-ID": "nonsense"}) as found:
            assert found.next()["payload"]["reason"] == "epoch"


def _recovered(server: ServerProcess, since: object) -> bool | None:
    """None: it was sent away, because the log was trimmed while it was being told."""
    try:
        with watching(server.url) as found:
            return bool(found.subscribe("all", since=since)[0]["payload"]["recovered"])
    except ConnectionClosed as closed:
        if closed.rcvd is None or closed.rcvd.code != 4008:
            raise
        return None


@pytest.mark.rule("L-SUB-5", "L-SSE-1", "L-CLOSE-1")
def test_topics_in_the_url(server: ServerProcess, speaker: Speaker) -> None:
    path = created(speaker, 10)
    with watching(server.url, f"?topic=upload:{ident(path)}&topic=project:x") as found:
        answer = found.until(is_type("synced"))
        assert answer[0]["payload"]["topics"] == [f"upload:{ident(path)}", "project:x"]
        assert "id" not in answer[0]
    for topic, code in ((f"upload:{'1' * 32}", "not-found"), ("nonsense", "malformed-field")):
        with watching(server.url, f"?topic={topic}") as found:
            assert found.next()["payload"]["code"] == code
            with pytest.raises(ConnectionClosed) as closed:
                found.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4004
        status = 404 if code == "not-found" else 400
        answer_ = speaker.request("GET", f"/api/events?topic={topic}")
        assert (answer_.status, json.loads(answer_.body)["code"]) == (status, code)
    answer_ = speaker.request("GET", "/api/events")
    assert (answer_.status, json.loads(answer_.body)["code"]) == (400, "missing-field")


@pytest.mark.rule("L-CLOSE-1")
@pytest.mark.parametrize(
    ("message", "code"), [(b"binary", 1003), ("x" * 70_000, 1009)], ids=["binary", "more than 64 KiB"]
)
def test_a_message_that_is_none_closes_the_connection(server: ServerProcess, message: str | bytes, code: int) -> None:
    with watching(server.url) as found:
        assert found.socket is not None
        found.socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            found.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


@pytest.mark.rule("L-CLOSE-1")
def test_the_server_says_goodbye(start_server: StartServer) -> None:
    server = start_server()
    with watching(server.url) as found, events(server.url, "all") as stream:
        stream.until(is_type("synced"))
        server.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            found.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        with pytest.raises(EOFError):
            stream.next(within=5)
        assert server.wait(10) in (0, -15)


@pytest.mark.rule("L-CLOSE-1")
def test_no_extension_is_negotiated(server: ServerProcess) -> None:
    with connect(server.url.replace("http", "ws") + "/api/live") as socket:  # which offers compression
        assert socket.protocol.extensions == []


@pytest.mark.rule("A-ORIGIN-1")
def test_pages_of_other_sites_may_not_watch(server: ServerProcess, start_server: StartServer) -> None:
    own = server.url
    with watching(server.url, additional_headers={"Origin": own}):
        pass
    with pytest.raises(InvalidStatus) as refused, watching(server.url, additional_headers={"Origin": "http://evil"}):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body is not None
    assert json.loads(refused.value.response.body)["code"] == "not-permitted"
    open_one = start_server("--cors-origin", "http://friend.example")
    with watching(open_one.url, additional_headers={"Origin": "http://friend.example"}):
        pass


@pytest.mark.rule("L-PING-1")
def test_pings_carry_the_place(start_server: StartServer) -> None:
    server = start_server("--ping-interval", "1s")
    with Speaker(server.url) as speaker, watching(server.url) as found, events(server.url, "project:x") as stream:
        assert found.seen[0]["payload"]["ping_interval"] == 1.0
        created(speaker, 10)
        for each in (found, stream):
            ping = each.until(lambda f: f["type"] == "ping" and f["payload"]["offset"] == 1)[-1]
            assert ping["payload"]["epoch"] == found.seen[0]["payload"]["epoch"]
        assert ping["sse"] == f"{ping['payload']['epoch']}-1"


@pytest.mark.rule("L-PING-1")
def test_who_does_not_answer_pings_is_disconnected(start_server: StartServer) -> None:
    server = start_server("--ping-interval", "1s")
    with Connection(server.url) as silent:
        silent.send(
            b"GET /api/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        begin = time.monotonic()
        came = b""
        silent.socket.settimeout(scaled(10))
        while piece := silent.socket.recv(65536):
            came += piece
        assert b" 101 " in came
        assert time.monotonic() - begin >= 1.0


@pytest.mark.rule("L-PROGRESS-2")
def test_a_project_is_told_in_one(server: ServerProcess, speaker: Speaker) -> None:
    with watching(server.url) as found:
        found.subscribe("project:sums")
        paths = [created(speaker, 100, project="sums") for _ in range(3)]
        for path in paths:
            assert sent(speaker, path, 0, bytes(50)) == 204
        frame = found.until(lambda f: f["type"] == "sum" and f["payload"]["received"] == 150)[-1]
        assert frame["topic"] == "project:sums"
        assert {key: frame["payload"][key] for key in ("uploads", "length", "progress", "arriving")} == {
            "uploads": 3, "length": 300, "progress": 50.0, "arriving": 0,
        }  # fmt: skip
        assert frame["payload"].keys() == {
            "uploads", "length", "received", "arriving", "progress", "speed", "eta", "timestamp",
        }  # fmt: skip


@pytest.mark.rule("L-STATUS-2", "L-PROGRESS-1")
def test_an_upload_in_another_process_is_seen_in_order_and_at_once(
    two_workers: ServerProcess, rng: random.Random
) -> None:
    """Many connections watch and upload, so that all pairs of workers are among them."""
    late: list[float] = []
    with ExitStack() as stack:
        watchers = [stack.enter_context(watching(two_workers.url)) for _ in range(8)]
        for found in watchers:
            found.subscribe("project:workers")
        for _ in range(8):
            speaker = stack.enter_context(Speaker(two_workers.url))
            path = created(speaker, 2000, project="workers")
            assert sent(speaker, path, 0, bytes(1000)) == 204
            for found in watchers:
                found.until(has_received(ident(path), 1000))
            assert sent(speaker, path, 1000, bytes(1000)) == 204
            begin = time.monotonic()
            for found in watchers:
                found.until(is_event("complete", ident(path)))
            late.append(time.monotonic() - begin)
        for found in watchers:
            statuses = [frame for frame in found.seen if frame["type"] == "status"]
            assert [f["payload"]["event"] for f in statuses] == ["created", "verifying", "complete"] * 8
            assert [f["offset"] for f in statuses] == sorted({f["offset"] for f in statuses})
    assert sorted(late)[4] < scaled(0.1)  # the median of eight, with all eight watchers read


@pytest.mark.rule("L-HISTORY-1")
def test_the_history_covers_the_upload(server: ServerProcess, speaker: Speaker) -> None:
    path = created(speaker, 4)
    for offset in range(4):
        assert sent(speaker, path, offset, b"x") == 204
        time.sleep(1.1)

    def history(query: str = "") -> list[Frame]:
        answer = speaker.request("GET", f"/api/uploads/{ident(path)}/history{query}")
        assert answer.status == 200
        found: list[Frame] = json.loads(answer.body)["samples"]
        return found

    samples = eventually(lambda: (h := history()) and h[-1]["status"] == "complete" and h, what="the last sample")
    assert samples
    assert [sample["timestamp"] for sample in samples] == sorted(sample["timestamp"] for sample in samples)
    assert samples[0].keys() == {
        "timestamp", "received", "progress", "speed", "status", "current_step", "errors", "retries",
    }  # fmt: skip
    assert [sample["received"] for sample in samples] == sorted(sample["received"] for sample in samples)
    assert len(samples) >= 3
    assert (samples[-1]["progress"], samples[-1]["received"]) == (100.0, 4)
    assert history("?limit=1") == samples[-1:]
    assert speaker.request("GET", f"/api/uploads/{ident(path)}/history?limit=0").status == 400
    assert speaker.request("GET", f"/api/uploads/{'0' * 32}/history").status == 404


@pytest.mark.rule("L-STATS-1", "L-PAYLOAD-1")
def test_figures_of_the_server(start_server: StartServer) -> None:
    server = start_server(workers=2)
    with Speaker(server.url) as speaker:
        done, half = created(speaker, 10), created(speaker, 100)
        assert sent(speaker, done, 0, bytes(10)) == sent(speaker, half, 0, bytes(50)) == 204
        with watching(server.url, "?topic=project:films"), watching(server.url), watching(server.url):

            def stats() -> Frame:
                found: Frame = json.loads(speaker.request("GET", "/api/stats").body)
                return found

            eventually(lambda: stats()["connections"]["total"] == 3, what="connections of both workers")
            told = stats()
            assert (told["uploads"]["complete"], told["uploads"]["receiving"]) == (1, 1)
            assert told["bytes"] == {"received": 60, "length": 110}
            assert told["connections"] == {"total": 3, "by_user": {"": 3}, "by_project": {"films": 1}}
            assert told["speed"] >= 0
        one = json.loads(speaker.request("GET", f"/api/uploads/{ident(half)}").body)
        assert one["progress"].keys() == PAYLOAD
        assert one["progress"]["progress"] == 50.0
        listed = json.loads(speaker.request("GET", "/api/uploads").body)["uploads"]
        assert {each["progress"]["task_id"] for each in listed} == {ident(done), ident(half)}


@pytest.mark.rule("L-SLOW-1")
@pytest.mark.parametrize("road", ["websocket", "events"])
def test_who_does_not_read_is_disconnected_and_recovers(start_server: StartServer, road: str) -> None:
    """Nobody else waits meanwhile, and nothing of the connection is left at the server."""
    server = start_server("--durability", "os")
    with Speaker(server.url) as speaker, watching(server.url) as quick:
        quick.subscribe("all")

        def watchers() -> int:
            stats = json.loads(speaker.request("GET", "/api/stats").body)
            return int(stats["connections"]["total"])

        assert watchers() == 1
        before = sockets(server)
        with Connection(server.url, receive_buffer=4096) as slow:
            if road == "websocket":
                slow.send(
                    b"GET /api/live?topic=all HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    b"Sec-WebSocket-Version: 13\r\n\r\n"
                )
            else:
                slow.send(b"GET /api/events?topic=all HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: watchers() == 2, what="both connections")
            number = 0
            frames: list[Frame] = []
            deadline = time.monotonic() + scaled(60)
            while watchers() == 2:
                assert time.monotonic() < deadline
                for _ in range(200):
                    created(speaker, 10, filename="n" * 200)
                    number += 1
                frames += quick.until(is_at(number), within=30)
            eventually(lambda: sockets(server) == before, what="the end of the connection")
        offsets = [f["offset"] for f in frames if f["type"] == "status"]
        assert offsets == list(range(1, number + 1))
        epoch = quick.seen[0]["payload"]["epoch"]
        if road == "websocket":
            with watching(server.url) as again:
                answer = again.subscribe("all", since={"epoch": epoch, "offset": 5})
        else:
            with events(server.url, "all", headers={"Last-Event-ID": f"{epoch}-5"}) as again:
                answer = again.until(is_type("synced"), within=30)
        told = [f["offset"] for f in answer if f["type"] == "status"]
        assert told == list(range(6, number + 1))
        assert answer[-1]["payload"]["more"] is (number > 1000)


def sockets(server: ServerProcess) -> int:
    """How many the server has open."""
    found = 0
    for pid in server.pids():
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found += str(each.readlink()).startswith("socket:")
    return found
