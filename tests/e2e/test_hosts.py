"""A server that asks nobody who he is does not answer to names that it was not told of."""

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.e2e.test_embedding import served
from tests.support.process import CommandLine, ServerProcess
from tests.support.speaker import TUS, Speaker
from tests.support.wire import Connection

from holdfast_server import Settings, create_app

EVIL = {"Host": "evil.example"}


@pytest.mark.rule("A-HOST-1")
@pytest.mark.parametrize("which", ["server", "two_workers"])
def test_whatever_is_asked_for(request: pytest.FixtureRequest, which: str) -> None:
    server: ServerProcess = request.getfixturevalue(which)
    with Speaker(server.url) as speaker:
        upload = speaker.create(10, parallel=False).removeprefix(server.url)
        for method, target, fields in (
            ("GET", "/", {}),
            ("GET", "/health/live", {}),
            ("GET", "/api/uploads", {}),
            ("GET", "/api/events?topic=all", {}),
            ("OPTIONS", "/files", {}),
            ("POST", "/files", {**TUS, "Upload-Length": "3"}),
            ("HEAD", upload, TUS),
            ("DELETE", upload, TUS),
        ):
            answer = asked(server.url, method, target, {**fields, **EVIL})
            assert answer.status == 421, (method, target)
            if method != "HEAD":
                assert answer.json()["code"] == "host-not-allowed"
                assert answer.json()["host"] == "evil.example"
        assert speaker.head(upload).offset == 0
    port = server.url.rpartition(":")[2]
    for name in (f"127.0.0.1:{port}", "localhost", "[::1]:80", "192.0.2.1"):
        assert asked(server.url, "GET", "/api/uploads", {"Host": name}).status == 200


def asked(url: str, method: str, target: str, fields: dict[str, str]) -> Any:
    """The answer to a request with these fields and no others: `Host` is one of them."""
    with Connection(url) as connection:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        connection.send("\r\n".join([*lines, "", ""]).encode())
        return connection.read(method=method)


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.rule("A-HOST-1", "A-ORIGIN-1")
def test_a_websocket_too(server: ServerProcess) -> None:
    """The page's origin and `Host` are the same then, and the origin alone would be let in."""
    said = {**UPGRADE, "Origin": "http://evil.example"}
    assert asked(server.url, "GET", "/api/live", {**said, **EVIL}).status == 421
    local = {**UPGRADE, "Origin": "http://localhost", "Host": "localhost"}
    assert asked(server.url, "GET", "/api/live", local).status == 101


@pytest.mark.rule("A-HOST-1", "A-PROXY-1")
def test_names_that_were_said_and_those_of_proxies(start_server: StartServer) -> None:
    options = ("--allowed-host", "nas.example", "--public-url", "https://up.example", "--trusted-proxy", "127.0.0.1")
    url = start_server(*options).url
    for name, status in (("nas.example:80", 200), ("up.example", 200), ("evil.example", 421), ("x.nas.example", 421)):
        assert asked(url, "GET", "/api/uploads", {"Host": name}).status == status
        said = {"Host": name, "X-Forwarded-Host": "localhost"}  # as a page may write it
        assert asked(url, "GET", "/api/uploads", said).status == status
        forwarded = {"Host": "127.0.0.1", "X-Forwarded-Host": name}  # as a proxy does, which was asked by that name
        assert asked(url, "GET", "/api/uploads", forwarded).status == 200


def test_credentials_take_its_place(start_server: StartServer, tmp_path: Path) -> None:
    """Who has one is asked for it, by whatever name; a page of another site has none."""
    (tmp_path / "tokens").write_text("")
    url = start_server("--tokens", str(tmp_path / "tokens")).url
    assert asked(url, "GET", "/api/uploads", EVIL).status == 401
    assert asked(url, "GET", "/health/live", EVIL).status == 200


@pytest.mark.rule("A-HOST-1")
def test_in_an_application_of_others(tmp_path: Path) -> None:
    with served(create_app(Settings(tmp_path / "data", allowed_hosts=("app.example",))), "h11") as url:
        assert asked(url, "GET", "/api/uploads", {"Host": "app.example"}).status == 200
        assert asked(url, "GET", "/api/uploads", {"Host": "evil.example"}).status == 421


@pytest.mark.rule("A-HOST-1")
def test_the_command_says_what_to_do(server: ServerProcess, tmp_path: Path, holdfast_command: CommandLine) -> None:
    (tmp_path / "film.mkv").write_bytes(b"film")
    words = ("upload", str(tmp_path / "film.mkv"), "--to", f"{server.url}/files", "--header", "Host: nas.example")
    refused = holdfast_command.run(*words)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "--allowed-host" in refused.stderr
