"""What the tests of clients of others share: a browser with a page that has them, and their place in the report.

Rule of this file: a test with a mark `client` becomes an entry of the report (`--clients-report FILE`), under its own
name in words.
"""

import random
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.browser import Browser, Site, bundle, missing
from tests.interop.clients import Client
from tests.support import clients_report
from tests.support.process import ServerProcess

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "client(client): the client of others that this test drives")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
    report = yield
    mark = item.get_closest_marker("client")
    if mark is not None:
        client: Client = mark.args[0]
        name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
        clients_report.name(report, client.name, client.version(), name)
    return report


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Where the pages come from; skips what needs a browser where there is none."""
    if reason := missing():
        pytest.skip(reason)
    with Site(tmp_path_factory.mktemp("site") / "pages") as site:
        yield site


@pytest.fixture(scope="session")
def open_server(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets the pages of `site` speak to it, and that many tests share: leave it running."""
    with ServerProcess(tmp_path_factory.mktemp("open-server") / "data", "--cors-origin", site.origin) as process:
        yield process


@pytest.fixture(scope="module")
def chromium(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of a file: it takes seconds to start."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Nobody has used it before."""
    chromium.renew()
    yield chromium
    print(chromium.read_log())  # shown where the test has failed


@pytest.fixture(scope="session")
def clients_page(site: Site) -> str:
    """The URL of the page that has the clients."""
    bundle(HERE / "page.mjs", site.folder / "page.js")
    return site.page("clients.html", "page.js")


@pytest.fixture(scope="session")
def film(site: Site, request: pytest.FixtureRequest) -> bytes:
    """The bytes of `film.bin`, which the page can read: 12 MiB and some more."""
    content = random.Random(request.config.getoption("seed")).randbytes(12 * 1024 * 1024 + 4321)
    site.put("film.bin", content)
    return content
