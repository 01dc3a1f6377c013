"""Who may watch what, and that the application tells the same under servers of others."""

import itertools
import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import ASGIApp
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker
from tests.support.waiting import eventually, scaled
from tests.support.watching import events, is_event, is_type, watching
from tests.support.wire import Connection
from websockets.exceptions import ConnectionClosed, InvalidStatus

import holdfast
from holdfast_server import Settings, create_app
from holdfast_server.auth import Principal, Request
from holdfast_server.http.uvicorn_protocol import HoldfastProtocol
from holdfast_server.http.websocket import WebSocketProtocol

ROADS: dict[str, dict[str, Any]] = {
    "ours": {"http": HoldfastProtocol, "ws": WebSocketProtocol},
    "plain": {"http": "h11", "ws": "websockets-sansio"},
}


@contextmanager
def served(app: ASGIApp, road: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="on", log_level="warning", **ROADS[road])
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(scaled(20))
            assert not thread.is_alive()


def authority(request: Request) -> Principal | None:
    """The token is the name; `films` is in that project, `operator` sees all, `writer` may not watch."""
    scopes: dict[str, tuple[str, ...]] = {
        "ada": ("create", "write", "read", "watch"),
        "bob": ("create", "write", "read", "watch"),
        "films": ("watch", "read"),
        "operator": ("watch", "operate"),
        "writer": ("create", "write"),
    }
    name = request.token
    if name not in scopes:
        return None
    projects = frozenset({"films"}) if name in ("films", "ada") else frozenset()
    return Principal(name, frozenset(cast(Any, scopes[name])), projects)


@contextmanager
def asking(folder: Path, road: str) -> Iterator[str]:
    """A server that asks who it is."""
    if road == "two workers":
        options = ("--authority", "tests.e2e.test_live_rights:authority")
        with ServerProcess(folder / "data", *options, workers=2) as process:
            yield process.url
    else:
        with served(create_app(Settings(data=folder), authority), road) as url:
            yield url


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


@pytest.mark.rule("L-RIGHT-1", "L-SSE-1", "L-STATS-1")
@pytest.mark.parametrize("road", [*ROADS, "two workers"])
def test_who_may_not_watch_learns_nothing(tmp_path: Path, road: str) -> None:
    """What is not there and what is not to be known of are answered by the same bytes."""
    with asking(tmp_path, road) as url, Connection(url) as http:
        made = http.request("POST", "/files?project=films", {**TUS, **bearer("ada"), "Upload-Length": "10"})
        assert made.status == 201
        upload = made["location"].rpartition("/")[2]
        nowhere = "0" * 32

        def refusal(who: str, topic: str) -> str:
            with watching(url, additional_headers=bearer(who)) as found:
                (answer,) = found.subscribe(topic)
                assert answer["type"] == "error"
                answer["payload"].pop("topics")
                return json.dumps(answer)

        def stream(who: str, topic: str) -> tuple[int, bytes]:
            answer = http.request("GET", f"/api/events?topic={topic}", bearer(who))
            return answer.status, answer.body.replace(topic.encode(), b"T")

        unknown = refusal("bob", f"upload:{nowhere}"), stream("bob", f"upload:{nowhere}")
        assert unknown[1][0] == 404
        for topic in (f"upload:{upload}", "owner:ada", "project:films", "project:none", "owner:nobody", "all"):
            assert (refusal("bob", topic), stream("bob", topic)) == unknown
        for who, topics in (
            ("ada", [f"upload:{upload}", "owner:ada", "project:films"]),
            ("films", [f"upload:{upload}", "project:films"]),
            ("operator", [f"upload:{upload}", "owner:ada", "owner:bob", "project:films", "all"]),
        ):
            with watching(url, additional_headers=bearer(who)) as found:
                answer = found.subscribe(*topics)
                assert [frame["task_id"] for frame in answer if frame["type"] == "progress"] == [upload]
                assert answer[1]["payload"]["owner"] == "ada"
        for path in (f"/api/uploads/{upload}/history", f"/api/uploads/{nowhere}/history"):
            assert http.request("GET", path, bearer("bob")).status == 404
        assert json.loads(http.request("GET", "/api/stats", bearer("bob")).body)["uploads"]["receiving"] == 0
        assert json.loads(http.request("GET", "/api/stats", bearer("films")).body)["uploads"]["receiving"] == 1
        for who, status, code in (("nobody", 401, "unauthenticated"), ("writer", 403, "missing-scope")):
            assert http.request("GET", "/api/events?topic=all", bearer(who)).verdict == (status, code)
            with pytest.raises(InvalidStatus) as refused, watching(url, additional_headers=bearer(who)):
                pass
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body or b"")["code"] == code


@pytest.mark.rule("D-JSON-3")
def test_who_names_nothing_watches_what_is_his(tmp_path: Path) -> None:
    with asking(tmp_path, "two workers") as url, Connection(url) as http:
        made = {
            http.request("POST", path, {**TUS, **bearer(who), "Upload-Length": "10"})["location"].rpartition("/")[
                2
            ]: who
            for who, path in (("ada", "/files?project=films"), ("ada", "/files"), ("bob", "/files"))
        }

        def seen(who: str) -> list[str]:
            headers = bearer(who)
            with holdfast.Client(state=tmp_path / "state", headers=headers) as client:
                news = itertools.takewhile(lambda each: each.kind != "synced", client.watch(url))
                return sorted(made[each.upload] for each in news if each.upload is not None)

        assert {who: seen(who) for who in ("ada", "bob", "films", "operator")} == {
            "ada": ["ada", "ada"],
            "bob": ["bob"],
            "films": ["ada"],
            "operator": ["ada", "ada", "bob"],
        }
        with pytest.raises(holdfast.NotAuthorized, match="watch"):
            seen("writer")


@pytest.mark.rule("L-SUB-2", "L-RECOVER-2")
def test_under_a_server_that_knows_nothing_of_us(tmp_path: Path, rng: random.Random) -> None:
    with served(create_app(Settings(data=tmp_path)), "plain") as url, Speaker(url) as speaker:
        with watching(url) as found, events(url, "all") as stream:
            place = found.subscribe("all", id=1)[-1]["payload"]
            stream.until(is_type("synced"))
            data = rng.randbytes(1000)
            path = speaker.create(len(data), parallel=False)
            assert speaker.patch(path, 0, data).status == 204
            for each in (found, stream):
                frames = each.until(is_event("complete"))
                assert [f["offset"] for f in frames if f["type"] == "status"] == [1, 2, 3]
            found.say(action="nonsense")
            assert found.until(is_type("error"))
            found.say(action="unsubscribe", topics=["all"])
            found.until(is_type("unsubscribed"))
        with watching(url) as again:
            answer = again.subscribe("all", since={"epoch": place["epoch"], "offset": 1})
            assert [f["offset"] for f in answer if f["type"] == "status"] == [2, 3]


@pytest.mark.parametrize("road", ROADS)
def test_a_browser_brings_its_credential_as_a_subprotocol(tmp_path: Path, road: str) -> None:
    offered: dict[str, Any] = {"subprotocols": ["holdfast", "bearer.operator"]}
    with served(create_app(Settings(data=tmp_path), authority), road) as url, watching(url, **offered) as found:
        assert found.socket is not None
        assert found.socket.subprotocol == "holdfast"
        assert found.subscribe("all")[-1]["type"] == "synced"


@pytest.mark.rule("L-RIGHT-1")
def test_who_may_no_longer_watch_is_sent_away(tmp_path: Path) -> None:
    def soon_over(request: Request) -> Principal | None:
        return Principal("ada", frozenset({"watch"}), expires=1.0)

    settings = Settings(data=tmp_path, ping_interval=0.5)
    with served(create_app(settings, soon_over), "ours") as url, watching(url) as found:
        with pytest.raises(ConnectionClosed) as closed:
            found.until(lambda frame: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001
