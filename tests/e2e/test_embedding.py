"""The application without `holdfast serve`: under a plain ASGI server, and mounted in another application."""

import random
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker, digest, missing
from tests.support.waiting import eventually, scaled
from tests.support.wire import Connection

from holdfast_server import Settings, create_app


@contextmanager
def served(app: ASGIApp, http: str) -> Iterator[str]:
    """The application under a plain uvicorn in a thread; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=http, lifespan="on", log_level="warning", ws="none")
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


def mounted(folder: Path) -> Starlette:
    inner = create_app(Settings(data=folder))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    return Starlette(routes=[Mount("/up", inner)], lifespan=lifespan)


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.rule("P-CHUNK-4", "T-PATCH-4")
def test_under_a_server_that_knows_nothing_of_us(tmp_path: Path, rng: random.Random, http: str) -> None:
    """Both dialects work with nothing but plain ASGI."""
    data = rng.randbytes(5 * GRANULE + 77)
    with served(create_app(tmp_path / "data"), http) as url, Speaker(url) as speaker:
        upload = speaker.create(len(data))
        for start in (2 * GRANULE, 0):
            assert speaker.chunk(upload, start, data[start : start + 2 * GRANULE]).status == 204
        assert missing(speaker.head(upload)) == [(4 * GRANULE, GRANULE + 77)]
        assert speaker.patch(upload, 4 * GRANULE, data[4 * GRANULE :]).offset == len(data)
        answer = speaker.get(upload)
        assert digest(answer.body) == digest(data)


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.rule("T-PATCH-4")
def test_bytes_that_came_with_the_end_of_the_connection_are_kept(tmp_path: Path, http: str) -> None:
    """uvicorn has them, but tells the application only that the client is gone."""
    with served(create_app(tmp_path / "data"), http) as url, Speaker(url) as speaker:
        upload = speaker.create(61_000)
        with Connection(url) as connection:
            connection.begin("PATCH", upload, {**TUS_BODY, "Upload-Offset": "0", "Content-Length": "61000"})
            connection.send(bytes(60_000))
        eventually(lambda: speaker.head(upload).offset == 60_000, every=0.05)


@pytest.mark.rule("T-CREATE-1", "D-JSON-1")
def test_mounted_in_another_application(tmp_path: Path, rng: random.Random) -> None:
    """`Location` and the URLs in JSON carry the prefix of the mount, and lead back to the upload."""
    data = rng.randbytes(GRANULE)
    with served(mounted(tmp_path / "data"), "httptools") as url, Speaker(url) as speaker:
        created = speaker.connection.request("POST", "/up/files", TUS | {"Upload-Length": str(len(data))})
        location = created["location"]
        assert location.startswith("/up/files/")
        assert speaker.patch(location, 0, data).offset == len(data)
        state = speaker.connection.request("GET", location.replace("/files/", "/api/uploads/")).json()
        assert state["url"] == location
        assert speaker.get(location).body == data
