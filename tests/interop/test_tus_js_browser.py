"""tus-js-client by itself in a headless Chromium, unchanged, on a page of another origin than the server's.

Rule of this file: what arrived is compared byte by byte. Where an upload must be stopped in its middle, a proxy makes
the network slow enough for it.
"""

from typing import Any

import pytest
from tests.interop.browser import Browser, Site
from tests.interop.clients import TUS_JS_5_BROWSER, TUS_JS_BROWSER
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker
from tests.support.waiting import eventually

MIB = 1024 * 1024
SLOW = Fault(rate=4 * MIB)

pytestmark = pytest.mark.timeout(180)

DRAFTS = pytest.mark.parametrize("protocol", ["ietf-draft-03", "ietf-draft-05"])
ALL = pytest.mark.parametrize("protocol", ["tus-v1", "ietf-draft-03", "ietf-draft-05"])


class Page:
    """The page with tus-js-client in one version, and the bytes that the server has."""

    def __init__(self, browser: Browser, server: ServerProcess, address: str, film: str, version: int) -> None:
        self.browser = browser
        self.server = server
        self.address = address
        self.film = film
        self.version = version
        browser.open(address)

    def begin(self, endpoint: str | None = None, **options: Any) -> None:
        options = {"endpoint": endpoint or f"{self.server.url}/files", "version": self.version, **options}
        self.browser.call("begin", {"client": "tus", "file": {"source": self.film}, "options": options})

    def done(self) -> Any:
        result = self.browser.call("done", within=90)
        assert result["error"] is None, f"{result}\n{self.browser.read_log()}"
        return result

    def upload(self, **options: Any) -> Any:
        self.begin(**options)
        return self.done()

    def content(self, url: str) -> bytes:
        with Speaker(self.server.url) as speaker:
            answer = speaker.get("/files/" + url.rsplit("/", 1)[-1])
        assert answer.status == 200
        return answer.body

    def middle(self) -> str:
        """Wait until some, but not all, of the file is stored; the upload's path."""
        url = eventually(lambda: self.browser.call("url"), within=30, every=0.05, what="the creation")
        path = "/files/" + str(url).rsplit("/", 1)[-1]

        def offset() -> int:
            with Speaker(self.server.url) as speaker:
                return speaker.head(path).offset

        eventually(lambda: offset() >= 3 * MIB, within=30, every=0.05, what="3 MiB at the server")
        return path


@pytest.fixture(
    params=[
        pytest.param(4, marks=pytest.mark.client(TUS_JS_BROWSER)),
        pytest.param(5, marks=pytest.mark.client(TUS_JS_5_BROWSER)),
    ]
)
def page(
    request: pytest.FixtureRequest,
    browser: Browser,
    open_server: ServerProcess,
    clients_page: str,
    site: Site,
    film: bytes,
) -> Page:
    return Page(browser, open_server, clients_page, f"{site.origin}/film.bin", request.param)


def shape(result: Any) -> list[tuple[str, int]]:
    return [(request["method"], request["status"]) for request in result["requests"]]


@pytest.mark.parametrize("chunk_size", [None, 5 * MIB], ids=["whole", "5 MiB"])
def test_uploads_a_file(page: Page, film: bytes, chunk_size: int | None) -> None:
    result = page.upload(**({} if chunk_size is None else {"chunkSize": chunk_size}))
    assert shape(result) == [("POST", 201)] + (1 if chunk_size is None else 3) * [("PATCH", 204)]
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3", "T-CONCAT-4")
@pytest.mark.parametrize("chunk_size", [None, 1 * MIB], ids=["whole", "1 MiB"])
def test_uploads_parts_at_once(page: Page, film: bytes, chunk_size: int | None) -> None:
    options: dict[str, Any] = {} if chunk_size is None else {"chunkSize": chunk_size}
    result = page.upload(parallelUploads=4, **options)
    assert [r["concat"][:6] for r in result["requests"] if r["method"] == "POST"] == 4 * ["partia"] + ["final;"]
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-DEFER-1", "T-DEFER-2")
def test_uploads_a_stream_whose_length_it_does_not_know(page: Page, film: bytes) -> None:
    result = page.upload(stream=True, uploadLengthDeferred=True, chunkSize=5 * MIB)
    assert shape(result)[0] == ("POST", 201)
    assert set(shape(result)[1:]) == {("PATCH", 204)}
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-METHOD-1")
def test_sends_patch_as_post(page: Page, film: bytes) -> None:
    result = page.upload(overridePatchMethod=True, addRequestId=True)
    assert shape(result)[0] == ("POST", 201)
    assert page.content(result["url"]) == film


@DRAFTS
@pytest.mark.rule("I-VERSION-1", "I-APPEND-1")
@pytest.mark.parametrize("creation", [False, True], ids=["append", "creation"])
def test_speaks_the_draft(page: Page, film: bytes, protocol: str, creation: bool) -> None:
    result = page.upload(protocol=protocol, chunkSize=5 * MIB, uploadDataDuringCreation=creation)
    assert shape(result)[0] == ("POST", 201)
    assert shape(result)[-1] == ("PATCH", 204)
    assert page.content(result["url"]) == film


@ALL
def test_resumes_from_the_storage_of_the_browser(page: Page, film: bytes, protocol: str) -> None:
    """The page is left in the middle of a request; the next one finds the URL and asks for the offset."""
    with Proxy(page.server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", protocol=protocol)
        path = page.middle()
        page.browser.open(page.address)
        page.begin(f"{proxy.url}/files", protocol=protocol)
        result = page.done()
    assert result["url"].endswith(path)
    assert shape(result)[0] in [("HEAD", 200), ("HEAD", 204)]
    assert int(result["requests"][0]["offset"]) >= 3 * MIB
    assert page.content(result["url"]) == film


@ALL
def test_aborts_and_goes_on(page: Page, film: bytes, protocol: str) -> None:
    with Proxy(page.server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", protocol=protocol)
        path = page.middle()
        page.browser.call("pause")
        page.browser.call("resume")
        result = page.done()
    assert result["url"].endswith(path)
    assert page.content(result["url"]) == film


@ALL
@pytest.mark.rule("T-DELETE-1")
def test_aborts_and_terminates(page: Page, protocol: str) -> None:
    with Proxy(page.server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", protocol=protocol)
        path = page.middle()
        page.browser.call("cancel")
    with Speaker(page.server.url) as speaker:
        assert speaker.head(path).status == 404
