"""What the page says where it is not the server that answers, as a page to log in at before it: for what it asks
first, for what it asks later, for live progress, and for a part of itself. And that it goes on by itself when the
server answers.

Rule of this file: nginx stands before the server, and a file tells it to answer in its place. That somebody comes back
to the page is told by the event that the browser has for that, so that no test waits for the next try.
"""

import json
import socket
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.page.windows import Window
from tests.support.guarded import ALL
from tests.support.nginx import Nginx
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker

from holdfast_server import Principal
from holdfast_server.auth.tokens import made

pytestmark = pytest.mark.timeout(180)

BEFORE = """
proxy_pass {url};
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection "upgrade";
proxy_buffering off;
"""
LOGIN = 'return 200 "<!doctype html><title>Who are you?</title>";'
ELSE = "Something else than the server answers here"
BACK = "document.dispatchEvent(new Event('visibilitychange'))"


class Gate:
    """nginx before the server: where `path` leads, `answer` is given as long as `closed` exists."""

    def __init__(self, home: Path, server: ServerProcess) -> None:
        self.closed = home / "closed"
        self.log = home / "requests.log"
        self._home = home
        self._before = BEFORE.format(url=server.url)

    def __call__(self, path: str, answer: str) -> Nginx:
        self.closed.touch()
        kind = "application/json" if '"{}"' in answer else "text/html"
        inside = f"location {path} {{ default_type {kind}; if (-f {self.closed}) {{ {answer} }} {self._before} }}"
        login = f"absolute_redirect off; location /login {{ default_type text/html; {LOGIN} }}"
        return Nginx(self._home / "nginx", f"access_log {self.log}; {self._before} {inside} {login}")

    def open(self) -> None:
        self.closed.unlink()


@pytest.fixture
def gate(server: ServerProcess, tmp_path: Path) -> Gate:
    return Gate(tmp_path, server)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    path.write_bytes(bytes(100_000))
    return path


def complaint(window: Window) -> str:
    """What stands above; of something that is not to be seen the text is there, too."""
    return str(
        window.look("(({ offsetHeight, innerText }) => offsetHeight ? innerText : '')(document.querySelector('#why'))")
    )


def is_told(window: Window, words: str) -> None:
    """Above, in words, and as what a screen reader is told at once."""
    window.until(lambda: words in complaint(window), what=f"“{words}” above")
    window.sees("Not connected", "#link")
    assert "- alert" in window.tree("#why")


def goes_on(window: Window) -> None:
    """By itself: what was chosen meanwhile is sent."""
    window.sees("Complete", "#over")
    window.sees("Live", "#link")
    window.until(lambda: complaint(window) == "", what="a page without complaint")


@pytest.mark.parametrize(
    "answer",
    [
        LOGIN,
        "return 302 /login;",
        "return 302 http://login.example/;",
        "return 403;",
        "return 404;",
        'return 200 "{}";',
    ],
    ids=["200", "here", "another origin", "403", "404", "JSON"],
)
def test_who_this_is(window: Window, gate: Gate, file: Path, answer: str) -> None:
    with gate("/api/", answer) as nginx:
        window.open(nginx.url)
        window.choose(file)
        is_told(window, ELSE)
        assert "log in there" in complaint(window)
        assert window.look("document.querySelector('#why a').href") == f"{nginx.url}/api/credential"
        window.sees("Waiting for its turn", "#next")
        gate.open()
        window.look(BACK)
        goes_on(window)


def test_the_network_wants_one_to_log_in(window: Window, gate: Gate, file: Path) -> None:
    """401 without our words, as that of a proxy: a credential may help or not, and both are said."""
    with gate("/api/", "return 401;") as nginx:
        window.open(nginx.url)
        window.opens("#ask")
        window.sees("Something before the server asks who this is (401)", "#ask-why")
        gate.open()
        window.reload()
        window.choose(file)
        goes_on(window)


def test_nobody_answers_at_first(window: Window, gate: Gate, file: Path) -> None:
    """502, and then connections on which nothing moves: both have their words."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with gate("/api/", f"proxy_pass http://127.0.0.1:{silent.getsockname()[1]};") as nginx:
            window.open(nginx.url)
            window.choose(file)
            is_told(window, "does not answer what is before it (502)")
            silent.listen()
            window.look(
                "AbortSignal.timeout = ((whole) => (wait) => whole.call(AbortSignal, wait / 20))(AbortSignal.timeout)"
            )
            window.look(BACK)
            is_told(window, "Nothing moved on the connection.")
            assert "another tab" not in complaint(window)
            gate.open()
            window.look(BACK)
            goes_on(window)


@pytest.mark.parametrize(
    ("answer", "words"),
    [("return 444;", "cannot be reached"), ("return 502;", "does not answer what is before it (502)")],
)
def test_nobody_is_behind_it(window: Window, gate: Gate, file: Path, answer: str, words: str) -> None:
    with gate("/api/", answer) as nginx:
        window.open(nginx.url)
        window.choose(file)
        is_told(window, words)
        gate.open()
        window.look(BACK)
        goes_on(window)


@pytest.mark.parametrize("answer", [LOGIN, "return 302 http://login.example/;"], ids=["200", "another origin"])
def test_what_is_asked_later(window: Window, gate: Gate, file: Path, answer: str) -> None:
    """One was logged in, and is no more: the upload says what it is told, and the page what it is about."""
    with gate("/", answer) as nginx, Proxy(nginx.url) as proxy:
        gate.open()
        window.open(proxy.url)
        window.sees("Live", "#link")
        gate.closed.touch()
        proxy.drop_all()
        window.choose(file)
        is_told(window, ELSE)
        gate.open()
        window.look(BACK)
        window.until(lambda: complaint(window) == "", what="a page without complaint")
        if answer == LOGIN:
            window.click("[data-act=resume]")
        else:
            window.look("dispatchEvent(new Event('online'))")
        goes_on(window)


@pytest.mark.parametrize("answer", [LOGIN, "return 404;", 'return 404 "{}";'], ids=["200", "404", "JSON"])
@pytest.mark.parametrize("signed_in", [False, True], ids=["nobody", "with a token"])
def test_live_progress(
    window: Window, start_server: StartServer, tmp_path: Path, file: Path, answer: str, signed_in: bool
) -> None:
    """Only that does not get through: the page says so and is not silent about the rest, and asks now and then."""
    tokens = tmp_path / "tokens.toml"
    _, token, table = made(Principal("alice", ALL), b"x" * 36)
    tokens.write_text(table)
    gate = Gate(tmp_path, start_server("--tokens", str(tokens)) if signed_in else start_server())
    with gate("~ ^/api/(live|events)", answer) as nginx:
        window.open(nginx.url)
        if signed_in:
            window.give(token)
        window.until(
            lambda: "Live progress does not get through" in complaint(window), within=60, what="a word about it"
        )
        window.sees("Not live", "#link")
        window.choose(file)
        window.sees("Complete", "#over")
        asked = [line for line in gate.log.read_text().splitlines() if "/api/credential" in line]
        assert len(asked) < 10, "it is asked again, and not without end"
        gate.open()
        window.look("dispatchEvent(new Event('online'))")
        goes_on(window)


def test_a_cancel(window: Window, gate: Gate, server: ServerProcess, file: Path) -> None:
    """What answers does not remove anything, and the page does not say that it has."""
    file.write_bytes(bytes(8_000_000))
    with gate("/files", "return 302 /login;") as nginx, Proxy(nginx.url, Fault(rate=500_000)) as proxy:
        gate.open()
        window.open(proxy.url)
        window.choose(file)
        window.until(lambda: window.percent > 0, what="bytes on their way")  # before, there may be nothing to remove
        window.click("[data-act=pause]")
        window.sees("Paused", "#now")
        gate.closed.touch()
        window.click("[data-act=cancel]")
        window.sees("the server keeps what it has", "#notice")
        window.sees("perhaps one has to log in again", "#notice")
    with Speaker(server.url) as speaker:
        assert len(speaker.request("GET", "/api/uploads").json()["uploads"]) == 1


def test_a_part_of_the_page(window: Window, gate: Gate) -> None:
    """A script for which something else came: nothing runs then, and what says so needs nothing that runs."""
    with gate("/page/board.js", "return 302 /login;") as nginx:
        window.open(nginx.url)
        assert window.look("document.querySelector('#late').offsetHeight") == 0
        window.look("document.getAnimations().forEach((each) => each.finish())")
        window.sees("Load it anew", "#late")
        assert window.look("document.querySelector('#late').checkVisibility({ checkVisibilityCSS: true })")
        assert not window.look("document.querySelector('#link').checkVisibility({ checkVisibilityCSS: true })")
        gate.open()
        window.reload()
        window.sees("Live", "#link")
        assert window.look("document.querySelector('#late')") is None


def test_a_credential_that_is_none_any_more(window: Window, server: ServerProcess) -> None:
    """As one that was given to another application of this origin: it is forgotten, and the page works."""
    window.open(server.url)
    window.sees("Live", "#link")
    kept = json.dumps("http://elsewhere.example/files?signature=x")
    window.look(
        f"for (const key of ['holdfast-credential', 'holdfast-credential /']) sessionStorage.setItem(key, {kept})"
    )
    window.reload()
    window.sees("Live", "#link")
