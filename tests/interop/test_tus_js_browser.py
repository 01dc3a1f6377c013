"""tus-js-client by itself in a headless Chromium, unchanged, on a page of another origin than the server's.

Rule of this file: what arrived is compared byte by byte. Where an upload must be stopped in its middle, a proxy makes
the network slow enough for it.
"""

import pytest
from tests.interop.browser import Browser, Site
from tests.interop.client_page import MIB, MIDDLE, SLOW, ClientPage, shape
from tests.interop.clients import TUS_JS_5_BROWSER, TUS_JS_BROWSER
from tests.support.process import ServerProcess
from tests.support.proxy import Proxy

pytestmark = pytest.mark.timeout(180)

DRAFTS = pytest.mark.parametrize("protocol", ["ietf-draft-03", "ietf-draft-05"])
ALL = pytest.mark.parametrize("protocol", ["tus-v1", "ietf-draft-03", "ietf-draft-05"])


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
) -> ClientPage:
    return ClientPage(browser, open_server, clients_page, f"{site.origin}/film.bin", "tus", version=request.param)


@pytest.mark.parametrize("chunk_size", [None, 5 * MIB], ids=["whole", "5 MiB"])
def test_uploads_a_file(page: ClientPage, film: bytes, chunk_size: int | None) -> None:
    result = page.upload(chunkSize=chunk_size)
    assert shape(result) == [("POST", 201)] + (1 if chunk_size is None else 3) * [("PATCH", 204)]
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-CONCAT-1", "T-CONCAT-3", "T-CONCAT-4")
@pytest.mark.parametrize("chunk_size", [None, 1 * MIB], ids=["whole", "1 MiB"])
def test_uploads_parts_at_once(page: ClientPage, film: bytes, chunk_size: int | None) -> None:
    result = page.upload(parallelUploads=4, chunkSize=chunk_size)
    assert [r["concat"][:6] for r in result["requests"] if r["method"] == "POST"] == 4 * ["partia"] + ["final;"]
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-DEFER-1", "T-DEFER-2")
def test_uploads_a_stream_whose_length_it_does_not_know(page: ClientPage, film: bytes) -> None:
    result = page.upload(stream=True, uploadLengthDeferred=True, chunkSize=5 * MIB)
    assert shape(result)[0] == ("POST", 201)
    assert set(shape(result)[1:]) == {("PATCH", 204)}
    assert page.content(result["url"]) == film


@pytest.mark.rule("T-METHOD-1")
def test_sends_patch_as_post(page: ClientPage, film: bytes) -> None:
    result = page.upload(overridePatchMethod=True, addRequestId=True)
    assert shape(result)[0] == ("POST", 201)
    assert page.content(result["url"]) == film


@DRAFTS
@pytest.mark.rule("I-VERSION-1", "I-APPEND-1")
@pytest.mark.parametrize("creation", [False, True], ids=["append", "creation"])
def test_speaks_the_draft(page: ClientPage, film: bytes, protocol: str, creation: bool) -> None:
    result = page.upload(protocol=protocol, chunkSize=5 * MIB, uploadDataDuringCreation=creation)
    assert shape(result)[0] == ("POST", 201)
    assert shape(result)[-1] == ("PATCH", 204)
    assert page.content(result["url"]) == film


@ALL
def test_resumes_from_the_storage_of_the_browser(page: ClientPage, film: bytes, protocol: str) -> None:
    """The page is left in the middle of a request; the next one finds the URL and asks for the offset."""
    with Proxy(page.server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", protocol=protocol)
        path = page.middle()
        page.load()
        page.begin(f"{proxy.url}/files", protocol=protocol)
        result = page.done()
    assert result["url"].endswith(path)
    assert shape(result)[0] in [("HEAD", 200), ("HEAD", 204)]
    assert int(result["requests"][0]["offset"]) >= MIDDLE
    assert page.content(result["url"]) == film


@ALL
def test_aborts_and_goes_on(page: ClientPage, film: bytes, protocol: str) -> None:
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
def test_aborts_and_terminates(page: ClientPage, protocol: str) -> None:
    with Proxy(page.server.url, SLOW) as proxy:
        page.begin(f"{proxy.url}/files", protocol=protocol)
        path = page.middle()
        page.browser.call("cancel")
    assert page.status(path) == 404
