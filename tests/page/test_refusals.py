"""What the page does when the server, or what is before it, refuses: it says why, waits as long as it is asked to,
sends smaller chunks or over fewer connections, and goes on by itself as soon as that helps. And a server that only
knows tus.

Rule of this file: whoever refuses is real: quotas and limits of the server, a disk that is full, nginx before it.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.faults.test_disk_full import small_disk
from tests.interop.test_foreign_servers import ForeignServer, foreign
from tests.page.windows import Window, Windows
from tests.support.nginx import Nginx
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker

from holdfast_server import Principal
from holdfast_server.auth import SCOPES
from holdfast_server.auth.tokens import made

pytestmark = pytest.mark.timeout(240)

__all__ = ["foreign", "small_disk"]

MIB = 1024 * 1024
BEFORE = """
proxy_pass {url};
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_request_buffering off;
proxy_buffering off;
"""


def make(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(secrets.token_bytes(size))
    return path


def stored(server: ServerProcess, token: str = "") -> dict[str, Any]:
    """The digests of what is complete, by name."""
    with Speaker(server.url) as speaker:
        found = speaker.request("GET", "/api/uploads", {"Authorization": f"Bearer {token}"}).json()["uploads"]
        return {each["name"]: each["digests"].get("sha-256") for each in found if each["state"] == "complete"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_too_large(window: Window, start_server: StartServer, tmp_path: Path) -> None:
    """413: it says how large one may be, and does not try again; others are not held up."""
    server = start_server(max_size=MIB)
    window.open(server.url)
    window.drop(make(tmp_path, "large.bin", MIB + 1), make(tmp_path, "small.bin", 1000))
    window.sees("Stopped", "#now")
    window.sees(str(MIB), "#now")
    window.sees("small.bin", "#over")


@pytest.mark.rule("Q-UPLOADS-1")
def test_too_many_uploads_at_once(window: Window, start_server: StartServer, tmp_path: Path) -> None:
    """429 with Retry-After at the creation: that one waits so long, the others go on, and all are complete."""
    tokens = tmp_path / "tokens.toml"
    _, token, table = made(Principal("alice", SCOPES), secrets.token_bytes(36))
    tokens.write_text(table)
    server = start_server("--owner-uploads", "1", "--tokens", str(tokens))
    files = [make(tmp_path, f"{n}.bin", MIB) for n in range(2)]
    with Proxy(server.url, Fault(rate=128 * 1024)) as proxy:
        window.open(proxy.url)
        window.give(token)
        window.sees("Live", "#link")
        window.drop(*files)
        window.sees("may have 1 at once", "#now")
        window.sees("Trying again in", "#now")
        window.sees("Complete", "#over", within=60)
        window.look("dispatchEvent(new Event('online'))")  # it would wait for half a minute
        window.until(lambda: window.text("#over").count("Complete") == 2, within=60, what="both of them")
    assert set(stored(server, token).values()) == {sha256(file) for file in files}


@pytest.mark.rule("P-CHUNK-8")
def test_a_full_disk(window: Window, start_server: StartServer, small_disk: Path, tmp_path: Path) -> None:
    """507 in the middle: it says so and keeps trying; when there is room again it goes on where it was."""
    server = start_server(data=small_disk / "data", overcommit=True)
    with Speaker(server.url) as speaker:
        ballast = speaker.create(16 * MIB)
        for offset in range(0, 16 * MIB, MIB):
            assert speaker.chunk(ballast, offset, secrets.token_bytes(MIB)).status == 204
        film = make(tmp_path, "film.mkv", 26 * MIB)
        window.open(server.url)
        window.drop(film)
        window.sees("not enough room on the server", "#now", within=60)
        window.sees("Trying again", "#now")
        assert window.percent > 0
        assert speaker.delete(ballast).status == 204
    window.sees("film.mkv", "#over", within=90)
    window.sees("Complete", "#over")
    assert stored(server) == {"film.mkv": sha256(film)}


def test_nginx_that_takes_little(windows: Windows, window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """413 without words of ours: smaller chunks. 503: fewer connections. Both at once, and the file is right."""
    here = BEFORE.format(url=server.url)
    before = here + f"location /files {{ {here} client_max_body_size 200k; limit_conn each 2; }}"
    film = make(tmp_path, "film.mkv", 3 * MIB + 1)
    with Nginx(tmp_path / "nginx", before) as nginx:
        window.open(nginx.url)
        window.sees("Live", "#link")
        window.drop(film)
        window.sees("Complete", "#over", within=120)
        assert "status of 413" in windows.read_log()
    assert stored(server) == {"film.mkv": sha256(film)}


def test_a_server_that_asks_for_time(window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """503 with Retry-After for chunks: it says so, sends none for so long, also over its other connections, and goes
    on by itself."""
    busy, log = tmp_path / "busy", tmp_path / "requests.log"
    busy.touch()
    before = BEFORE.format(url=server.url)
    here = f"""
    set $turn $request_method;
    if (-f {busy}) {{ set $turn "busy $request_method"; }}
    if ($turn = "busy PATCH") {{ add_header Retry-After 6 always; return 503; }}
    """
    film = make(tmp_path, "film.mkv", 3 * MIB + 1)
    with Nginx(tmp_path / "nginx", f"{before} location /files {{ {here} {before} access_log {log}; }}") as nginx:
        window.open(nginx.url)
        window.sees("Live", "#link")
        window.drop(film)
        window.sees("The server is busy or being looked after (503).", "#now")
        window.sees("Trying again in", "#now")
        busy.unlink()
        window.sees("Complete", "#over", within=60)
    chunks = [line.split() for line in log.read_text().splitlines() if '"PATCH ' in line]
    refused = [time_of(line) for line in chunks if line[8] == "503"]
    taken = [time_of(line) for line in chunks if line[8] == "204"]
    soonest = min(refused) + timedelta(seconds=5)  # they are told in whole seconds
    assert min(taken) >= soonest
    assert len([at for at in refused if at < soonest]) <= 4  # one over each connection, which left together
    assert stored(server) == {"film.mkv": sha256(film)}


def time_of(line: list[str]) -> datetime:
    """When a request was answered, by a log of nginx."""
    return datetime.strptime(f"{line[3]} {line[4]}", "[%d/%b/%Y:%H:%M:%S %z]")


def test_nginx_without_a_server_behind_it(window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """502: it waits, and goes on when there is one again."""
    film = make(tmp_path, "film.mkv", MIB)
    with Nginx(tmp_path / "nginx", BEFORE.format(url=server.url)) as nginx:
        window.open(nginx.url)
        window.sees("Live", "#link")
        server.kill()
        window.drop(film)
        window.sees("The server does not answer what is before it (502).", "#now")
        window.sees("Not connected", "#link")
        server.start()
        window.sees("Complete", "#over", within=60)
    assert stored(server) == {"film.mkv": sha256(film)}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("return 302 /login", "perhaps one has to log in again"),
        ("return 404", "nothing that takes uploads at this address"),
        ("return 405", "No uploads are taken at this address"),
    ],
)
def test_something_else_that_answers(
    window: Window, server: ServerProcess, tmp_path: Path, answer: str, words: str
) -> None:
    """In the place of the server, such as a page to log in at: it says so, and goes on when it is told to."""
    closed = tmp_path / "closed"
    closed.touch()
    before = BEFORE.format(url=server.url)
    here = f"""
    location /files {{ if (-f {closed}) {{ {answer}; }} {before} }}
    location /login {{ default_type text/html; return 200 "<html><title>Who are you?</title></html>"; }}
    """
    film = make(tmp_path, "film.mkv", MIB)
    with Nginx(tmp_path / "nginx", before + here) as nginx:
        window.open(nginx.url)
        window.sees("Live", "#link")
        window.drop(film)
        window.sees("Stopped", "#now")
        window.sees(words, "#now")
        closed.unlink()
        window.click("[data-act=resume]")
        window.sees("Complete", "#over", within=60)
    assert stored(server) == {"film.mkv": sha256(film)}


def test_a_part_of_the_page_that_is_not_loaded(window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """The script of the workers comes when it is needed, over the same network: without it uploads wait for it."""
    broken = tmp_path / "broken"
    broken.touch()
    before = BEFORE.format(url=server.url)
    part = f"location = /page/hasher.js {{ if (-f {broken}) {{ return 503; }} {before} }} {before}"
    films = [make(tmp_path, "film.mkv", 9 * MIB), make(tmp_path, "short.mkv", MIB)]
    with Nginx(tmp_path / "nginx", part) as nginx:
        window.open(nginx.url)
        window.sees("Live", "#link")
        window.drop(*films)
        window.sees("computes digests could not be loaded", "#now")
        broken.unlink()
        for each in films:
            window.sees(each.name, "#over", within=60)
    assert stored(server) == {each.name: sha256(each) for each in films}


@pytest.mark.rule("P-OFFER-1")
def test_a_server_that_only_knows_tus(
    window: Window, server: ServerProcess, foreign: ForeignServer, tmp_path: Path
) -> None:
    """The same module, with a server of others behind the same address: one sequence, cut off in its middle."""
    film = secrets.token_bytes(3 * MIB + 1)
    tus = foreign.url.removesuffix("/files/")
    before = BEFORE.format(url=server.url) + f"location /files {{ {BEFORE.format(url=tus)} }}"
    with Nginx(tmp_path / "nginx", before) as nginx, Proxy(nginx.url, Fault(rate=400 * 1024)) as proxy:
        (tmp_path / "film.mkv").write_bytes(film)
        window.open(proxy.url)
        window.look(
            "import('/page/upload.js').then(({ Upload }) => {"
            " const input = document.querySelector('#files');"
            " input.addEventListener('change', (event) => event.stopImmediatePropagation(), true);"
            " globalThis.begin = () => { const [file] = input.files;"
            " globalThis.upload = new Upload(file, { endpoint: '/files/', chunkSize: 512 * 1024 });"
            " globalThis.ended = upload.start().then((result) => ({ ...result, retries: upload.retries })) } })"
        )
        window.choose(tmp_path / "film.mkv")
        window.look("begin()")
        window.until(lambda: window.look("upload.received") >= MIB, within=60, what="the first of it")
        proxy.cut()
        window.until(lambda: window.look("upload.error?.code") == "unreachable", what="the cut")
        proxy.fault = Fault()
        proxy.mend()
        window.until(lambda: window.look("upload.state") == "complete", within=60, what="the end")
        result = window.look("ended")
        assert result["digest"] is None
        assert result["size"] == len(film)
        assert foreign.digest(result["url"]) == hashlib.sha256(film).hexdigest()
        assert proxy.up < len(film) + 2 * MIB
