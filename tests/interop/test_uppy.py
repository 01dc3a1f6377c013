"""Uppy with its tus plugin in a headless Chromium, unchanged, on a page of another origin than the server's.

Rule of this file: the network is slow enough (a proxy) that an upload can be stopped in its middle; where it stands is
asked of the server, and what arrived is compared byte by byte.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop.browser import Browser, Site
from tests.interop.clients import UPPY
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import eventually

MIB = 1024 * 1024
SLOW = Fault(rate=4 * MIB)

pytestmark = [pytest.mark.client(UPPY), pytest.mark.timeout(180)]

CHUNKS = pytest.mark.parametrize("chunk_size", [None, 2 * MIB], ids=["whole", "2 MiB"])


class Page:
    """The page with Uppy, and what the server knows of its upload."""

    def __init__(self, browser: Browser, server: ServerProcess, address: str, film: str, endpoint: str) -> None:
        self.browser = browser
        self.server = server
        self.address = address
        self.film = film
        self.endpoint = endpoint
        browser.open(address)

    def begin(self, chunk_size: int | None, **options: Any) -> None:
        if chunk_size is not None:
            options["chunkSize"] = chunk_size
        job = {"client": "uppy", "file": {"source": self.film}, "options": {"endpoint": self.endpoint, **options}}
        self.browser.call("begin", job)

    def done(self) -> Any:
        """What it reported at its end, which must be a good one."""
        result = self.browser.call("done", within=90)
        assert result["error"] is None, f"{result}\n{self.browser.read_log()}"
        return result

    def path(self) -> str:
        """The upload's path, when there is one."""
        found = [r["location"] for r in self.browser.call("requests") if r["location"] is not None]
        return str(found[0]) if found else ""

    def offset(self, path: str) -> int:
        with Speaker(self.server.url) as speaker:
            return speaker.head(path).offset

    def content(self, url: str) -> bytes:
        with Speaker(self.server.url) as speaker:
            answer = speaker.get("/files/" + url.rsplit("/", 1)[-1])
        assert answer.status == 200
        return answer.body


@pytest.fixture
def page(browser: Browser, open_server: ServerProcess, clients_page: str, site: Site, film: bytes) -> Iterator[Page]:
    """The page, at the end of a slow line to the server that many tests share."""
    with Proxy(open_server.url, SLOW) as proxy:
        yield Page(browser, open_server, clients_page, f"{site.origin}/film.bin", f"{proxy.url}/files")


def middle(page: Page) -> str:
    """Wait until some, but not all, of the file is stored; the upload's path."""
    path = eventually(page.path, within=30, every=0.05, what="the creation")
    eventually(lambda: page.offset(path) >= 3 * MIB, within=30, every=0.05, what="3 MiB at the server")
    return path


@CHUNKS
def test_uploads_a_file_from_another_origin(page: Page, film: bytes, chunk_size: int | None) -> None:
    page.begin(chunk_size)
    result = page.done()
    shape = [(request["method"], request["status"]) for request in result["requests"]]
    assert shape == [("POST", 201)] + (1 if chunk_size is None else 7) * [("PATCH", 204)]
    assert page.content(result["url"]) == film
    with Speaker(page.server.url) as speaker:
        metadata = speaker.status(result["url"])["metadata"]
    assert (metadata["filename"], metadata["filetype"]) == ("film.bin", "application/x-film")


def test_sends_the_first_chunk_with_the_creation(page: Page, film: bytes) -> None:
    page.begin(2 * MIB, uploadDataDuringCreation=True)
    result = page.done()
    assert (result["requests"][0]["method"], result["requests"][0]["offset"]) == ("POST", str(2 * MIB))
    assert page.content(result["url"]) == film


def test_uploads_parts_at_once(page: Page, film: bytes) -> None:
    """`parallelUploads: 3`, put together by the server."""
    page.begin(None, parallelUploads=3)
    result = page.done()
    concat = sorted(str(request["concat"])[:6] for request in result["requests"] if request["method"] == "POST")
    assert concat == ["final;", "partia", "partia", "partia"]
    assert page.content(result["url"]) == film


@CHUNKS
def test_pauses_and_resumes(page: Page, film: bytes, chunk_size: int | None) -> None:
    """It asks where the server stands, and goes on from there with the same upload.

    What the old request had sent may still arrive behind that question; then the PATCH is 409, and it asks once more.
    """
    page.begin(chunk_size)
    path = middle(page)
    page.browser.call("pause")
    stood = page.offset(path)
    assert 0 < stood < len(film)
    page.browser.call("resume")
    result = page.done()
    assert result["url"].endswith(path)
    heads = [index for index, request in enumerate(result["requests"]) if request["method"] == "HEAD"]
    assert heads
    for head in heads:
        asked, after = result["requests"][head : head + 2]
        assert after["sent"] == asked["offset"]
        assert int(after["sent"]) >= stood
    assert {request["status"] for request in result["requests"]} <= {200, 201, 204, 409}
    assert page.content(result["url"]) == film


@CHUNKS
def test_goes_on_after_the_page_was_loaded_anew(page: Page, film: bytes, chunk_size: int | None) -> None:
    """It finds the upload's URL in the browser's storage when the same file is added again."""
    page.begin(chunk_size)
    path = middle(page)
    page.browser.open(page.address)
    page.begin(chunk_size)
    result = page.done()
    assert result["url"].endswith(path)
    assert result["requests"][0]["method"] == "HEAD"
    assert int(result["requests"][0]["offset"]) >= 3 * MIB
    assert page.content(result["url"]) == film


@CHUNKS
def test_tries_again_after_the_server_was_killed_and_started_anew(
    browser: Browser, site: Site, clients_page: str, film: bytes, start_server: Any, chunk_size: int | None
) -> None:
    server = start_server("--cors-origin", site.origin)
    with Proxy(server.url, SLOW) as proxy:
        page = Page(browser, server, clients_page, f"{site.origin}/film.bin", f"{proxy.url}/files")
        page.begin(chunk_size)
        path = middle(page)
        server.restart()
        result = page.done()
    assert result["url"].endswith(path)
    heads = [request for request in result["requests"] if request["method"] == "HEAD"]
    assert [head["status"] for head in heads] == [200]
    assert int(heads[0]["offset"]) > 0
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-DELETE-1")
@CHUNKS
def test_cancels(page: Page, chunk_size: int | None) -> None:
    """Its DELETE ends the upload at the server, in the middle of a PATCH too."""
    page.begin(chunk_size)
    path = middle(page)
    page.browser.call("cancel")

    def status() -> int:
        with Speaker(page.server.url) as speaker:
            return speaker.head(path).status

    eventually(lambda: status() == 404, within=20, every=0.05, what="the end of the upload")


def test_is_refused_where_its_origin_is_not_allowed(
    browser: Browser, site: Site, clients_page: str, film: bytes, server: ServerProcess
) -> None:
    """Without `--cors-origin` the browser does not let the page speak to the server; nothing is created."""
    page = Page(browser, server, clients_page, f"{site.origin}/film.bin", f"{server.url}/files")
    page.begin(None, retryDelays=[])
    result = page.browser.call("done")
    assert result["url"] is None
    assert result["requests"] == []
    assert "CORS policy" in browser.read_log()
