"""What the tests of clients of others share: a browser with a page that has them, and the report of what came out.

Rule of this file: a test with a mark `client` becomes an entry of the report (`--clients-report FILE`), under its own
name in words. An entry is as good as the worst run of its test.
"""

import json
import random
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.browser import Browser, Site, bundle, missing
from tests.interop.clients import Client
from tests.support.process import ServerProcess

HERE = Path(__file__).parent
WORST = ("failed", "skipped", "passed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "client(client): the client of others that this test drives")
    if config.getoption("--clients-report"):
        config.pluginmanager.register(_Report(config.getoption("--clients-report")))


class _Report:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[tuple[str, str, str], str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
        report = yield
        mark = item.get_closest_marker("client")
        if mark is not None and (report.when == "call" or report.outcome != "passed"):
            client: Client = mark.args[0]
            name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
            key = (client.name, client.version(), name)
            self.outcomes[key] = min(self.outcomes.get(key, "passed"), report.outcome, key=WORST.index)
        return report

    def pytest_sessionfinish(self) -> None:
        entries = [
            {"client": client, "version": version, "what": what, "outcome": outcome}
            for (client, version, what), outcome in self.outcomes.items()
        ]
        self.path.write_text(json.dumps(entries, indent=1))


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


@pytest.fixture
def browser(site: Site, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        yield browser


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
