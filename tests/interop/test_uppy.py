"""Uppy with its tus plugin in a headless Chromium, unchanged, on a page of another origin than the server's.

Rule of this file: the network is slow enough (a proxy) that an upload can be stopped in its middle; where it stands is
asked of the server, and what arrived is compared byte by byte.
"""

from collections.abc import Iterator

import pytest
from tests.conftest import StartServer
from tests.interop.browser import Browser, Site
from tests.interop.client_page import MIB, MIDDLE, SLOW, ClientPage, shape
from tests.interop.clients import UPPY
from tests.support.process import ServerProcess
from tests.support.proxy import Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import eventually

pytestmark = [pytest.mark.client(UPPY), pytest.mark.timeout(180)]

CHUNKS = pytest.mark.parametrize("chunk_size", [None, 2 * MIB], ids=["whole", "2 MiB"])


@pytest.fixture
def slow(open_server: ServerProcess) -> Iterator[str]:
    """The endpoint, at the end of a slow line to the server that many tests share."""
    with Proxy(open_server.url, SLOW) as proxy:
        yield f"{proxy.url}/files"


@pytest.fixture
def page(browser: Browser, open_server: ServerProcess, clients_page: str, site: Site) -> ClientPage:
    return ClientPage(browser, open_server, clients_page, f"{site.origin}/film.bin", "uppy")


@CHUNKS
def test_uploads_a_file_from_another_origin(page: ClientPage, film: bytes, chunk_size: int | None) -> None:
    result = page.upload(chunkSize=chunk_size)
    assert shape(result) == [("POST", 201)] + (1 if chunk_size is None else 7) * [("PATCH", 204)]
    assert page.content(result["url"]) == film
    with Speaker(page.server.url) as speaker:
        metadata = speaker.status(result["url"])["metadata"]
    assert (metadata["filename"], metadata["filetype"]) == ("film.bin", "application/x-film")


def test_sends_the_first_chunk_with_the_creation(page: ClientPage, film: bytes) -> None:
    result = page.upload(chunkSize=2 * MIB, uploadDataDuringCreation=True)
    assert (result["requests"][0]["method"], result["requests"][0]["offset"]) == ("POST", str(2 * MIB))
    assert page.content(result["url"]) == film


def test_uploads_parts_at_once(page: ClientPage, film: bytes) -> None:
    """`parallelUploads: 3`, put together by the server."""
    result = page.upload(parallelUploads=3)
    concat = [str(request["concat"])[:6] for request in result["requests"] if request["method"] == "POST"]
    assert concat == ["partia", "partia", "partia", "final;"]
    assert page.content(result["url"]) == film


@CHUNKS
def test_pauses_and_resumes(page: ClientPage, slow: str, film: bytes, chunk_size: int | None) -> None:
    """It asks where the server stands, and goes on from there with the same upload.

    What the old request had sent may still arrive behind that question; then the PATCH is 409, and it asks once more.
    """
    page.begin(slow, chunkSize=chunk_size)
    path = page.middle()
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
def test_goes_on_after_the_page_was_loaded_anew(
    page: ClientPage, slow: str, film: bytes, chunk_size: int | None
) -> None:
    """It finds the upload's URL in the browser's storage when the same file is added again."""
    page.begin(slow, chunkSize=chunk_size)
    path = page.middle()
    page.load()
    page.begin(slow, chunkSize=chunk_size)
    result = page.done()
    assert result["url"].endswith(path)
    assert result["requests"][0]["method"] == "HEAD"
    assert int(result["requests"][0]["offset"]) >= MIDDLE
    assert page.content(result["url"]) == film


@CHUNKS
def test_tries_again_after_the_server_was_killed_and_started_anew(
    browser: Browser, site: Site, clients_page: str, film: bytes, start_server: StartServer, chunk_size: int | None
) -> None:
    server = start_server("--cors-origin", site.origin)
    page = ClientPage(browser, server, clients_page, f"{site.origin}/film.bin", "uppy")
    with Proxy(server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", chunkSize=chunk_size)
        path = page.middle()
        server.restart()
        result = page.done()
    assert result["url"].endswith(path)
    heads = [request for request in result["requests"] if request["method"] == "HEAD"]
    assert [head["status"] for head in heads] == [200]
    assert int(heads[0]["offset"]) > 0
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-DELETE-1")
@CHUNKS
def test_cancels(page: ClientPage, slow: str, film: bytes, chunk_size: int | None) -> None:
    """Its DELETE ends the upload at the server, in the middle of a PATCH too."""
    page.begin(slow, chunkSize=chunk_size)
    path = page.middle()
    page.browser.call("cancel")
    eventually(lambda: page.status(path) == 404, within=20, every=0.05, what="the end of the upload")


def test_is_refused_where_its_origin_is_not_allowed(
    browser: Browser, site: Site, clients_page: str, film: bytes, server: ServerProcess
) -> None:
    """Without `--cors-origin` the browser does not let the page speak to the server; nothing is created."""
    page = ClientPage(browser, server, clients_page, f"{site.origin}/film.bin", "uppy")
    page.begin(retryDelays=[])
    result = page.browser.call("done")
    assert result["url"] is None
    assert result["requests"] == []
    assert "CORS policy" in browser.read_log()
