"""What the tests of the page share: a browser with windows, and a film to send (`--film-size`)."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.interop.browser import missing
from tests.page.windows import Window, Windows
from tests.support.process import ServerProcess

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    """One for all tests of a file; their windows share nothing."""
    if reason := missing():
        pytest.skip(reason)
    with Windows(tmp_path_factory.mktemp("browser")) as windows:
        yield windows


@pytest.fixture
def windows(browser: Windows) -> Iterator[Windows]:
    """Those of one test: closed when it ends."""
    try:
        yield browser
    finally:
        browser.close_all()
        print(browser.read_log())  # shown where the test has failed


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """Of this test alone: the page shows all that a server has."""
    return start_server()


@pytest.fixture
def window(windows: Windows) -> Window:
    return windows.window()


@pytest.fixture
def film(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """`--film-size` MiB and some more bytes, which are not the same twice."""
    chance = random.Random(request.config.getoption("seed"))
    path = tmp_path / "film.mkv"
    with path.open("wb") as file:
        for _ in range(request.config.getoption("film_size")):
            file.write(chance.randbytes(MIB))
        file.write(chance.randbytes(4321))
    return path
