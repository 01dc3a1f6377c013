"""The files of the page over HTTP, wherever the application is mounted, and in the wheel.

Rule of this file: every file that the page asks for is there, is ours, and cannot be asked to be anything else.
"""

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.e2e.test_embedding import mounted, served
from tests.page.windows import Windows
from tests.support.hosts import GRANIAN
from tests.support.process import HostedProcess, ServerProcess
from tests.support.wire import Connection

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "server" / "holdfast_server" / "page"
ASSETS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all tests of this file, which leave nothing in it."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    with Connection(server.url) as connection:
        yield connection


@pytest.mark.parametrize("name", ASSETS)
def test_every_file_is_served(connection: Connection, name: str) -> None:
    answer = connection.request("GET", f"/page/{name}")
    assert answer.status == 200
    assert answer.body == (FOLDER / name).read_bytes()
    assert answer["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer["content-security-policy"]
    assert "unsafe" not in answer["content-security-policy"]
    again = connection.request("GET", f"/page/{name}", {"If-None-Match": f'"other", W/{answer["etag"]}'})
    assert (again.status, again.body, again["etag"]) == (304, b"", answer["etag"])


def test_the_page(connection: Connection) -> None:
    answer = connection.request("GET", "/")
    assert answer.status == 200
    assert answer["content-type"] == "text/html; charset=utf-8"
    assert answer.body == (FOLDER / "index.html").read_bytes()
    head = connection.request("HEAD", "/")
    assert (head.status, head.body, head["content-length"]) == (200, b"", str(len(answer.body)))
    assert connection.request("POST", "/").status == 405


@pytest.mark.parametrize(
    "path", ["/page/", "/page/assets.py", "/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/x.js"]
)
def test_nothing_else_is_served(connection: Connection, path: str) -> None:
    assert connection.request("GET", path).status == 404


def test_nothing_comes_from_elsewhere() -> None:
    for name in ASSETS:
        text = (FOLDER / name).read_text()
        addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+[^\s'\"]*", text)) - {"//www.w3.org/2000/svg"}
        assert {address for address in addresses if "www.w3.org" not in address} == set(), name
        for asked in re.findall(
            r"(?:from|src=|href=|new URL\()\s*['\"](?:\./|page/)?([\w-]+\.(?:js|css|svg))['\"]", text
        ):
            assert asked in ASSETS, f"{name} asks for {asked}"


def test_no_script_or_style_stands_in_the_page() -> None:
    text = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", text) == []
    assert not any(
        re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(", (FOLDER / n).read_text()) for n in ASSETS
    )


def under_a_prefix(folder: Path) -> AbstractContextManager[str]:
    return served(mounted(folder), "h11")


@contextmanager
def under_granian(folder: Path) -> Iterator[str]:
    with HostedProcess(GRANIAN, folder) as process:
        yield process.url


@pytest.mark.parametrize(
    ("host", "prefix"), [(under_a_prefix, "/up/"), (under_granian, "/")], ids=["mounted", "another server"]
)
def test_works_wherever_it_is(
    tmp_path: Path, windows: Windows, host: Callable[[Path], AbstractContextManager[str]], prefix: str
) -> None:
    """Without WebSockets, too: these servers are started without."""
    film = tmp_path / "small.mkv"
    film.write_bytes(bytes(300_000))
    with host(tmp_path / "data") as url:
        window = windows.window().open(url + prefix)
        window.drop(film)
        window.sees("Complete", "#over")
        assert window.look("document.querySelector('#over a').href").startswith(f"{url}{prefix}files/")
        window.close()


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("holdfast_server/page/")}
    for name in ASSETS:
        assert held[f"holdfast_server/page/{name}"] == (FOLDER / name).read_bytes()
