"""Files with scripts in them, in a real browser: nothing of them runs on the server's origin.

Rule of this file: a script says so on the console when it runs. That the test would see it, a page of another server
shows, on which the same script does run.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.browser import Browser, Site
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker, b64

pytestmark = pytest.mark.timeout(180)

RAN = "A SCRIPT RAN"
SCRIPT = f"console.log('{RAN}')"
HTML = (
    f'<!DOCTYPE html><html><body onload="{SCRIPT}"><script>{SCRIPT}</script>'
    f'<img src=x onerror="{SCRIPT}"></body></html>'
)
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" onload="{SCRIPT}"><script>{SCRIPT}</script>'
    f'<foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" src="javascript:{SCRIPT}"/></foreignObject></svg>'
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NAMES = ("a.html", "a.svg", f'<img src=x onerror="{SCRIPT}">.html', "a.png")


@pytest.fixture
def server(workers: int, server: ServerProcess, two_workers: ServerProcess) -> ServerProcess:
    return server if workers == 1 else two_workers


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def showing(
    request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that shows more than anybody should have it show."""
    shown = [f"--inline-type={media}" for media in ("text/*", "image/*")]
    with ServerProcess(tmp_path_factory.mktemp("showing") / "data", *shown, workers=request.param) as process:
        yield process


def upload(server: ServerProcess, name: str, content: bytes) -> str:
    with Speaker(server.url) as speaker:
        metadata = f"filename {b64(name.encode())},filetype {b64(b'text/html')},note {b64(HTML.encode())}"
        media = "application/offset+octet-stream"
        answer = speaker.post(len(content), body=content, Content_Type=media, Upload_Metadata=metadata)
        assert answer.status == 201, answer
        return speaker.url + answer["location"]


def test_the_browser_would_tell(browser: Browser, site: Site) -> None:
    browser.open(site.put("evil.html", HTML))
    assert RAN in browser.read_log()


@pytest.mark.rule("D-GET-1")
def test_a_file_is_saved_and_not_shown(browser: Browser, site: Site, server: ServerProcess) -> None:
    for name in NAMES:
        for content in (HTML, SVG):
            with pytest.raises(AssertionError, match="Download is starting"):
                browser.open(upload(server, name, content.encode()))
    assert RAN not in browser.read_log()


@pytest.mark.rule("D-INLINE-1")
def test_nothing_runs_in_a_file_that_is_shown(browser: Browser, showing: ServerProcess) -> None:
    for name in NAMES:
        for content in (HTML, SVG):
            browser.open(upload(showing, name, content.encode()))
    assert RAN not in browser.read_log()
    assert "sandbox" in browser.read_log()


@pytest.mark.rule("D-INLINE-1")
def test_a_picture_is_shown(browser: Browser, showing: ServerProcess, tmp_path: Path) -> None:
    browser.open(upload(showing, "dot.png", PNG))
    assert "error" not in browser.read_log().lower()


@pytest.mark.rule("D-JSON-1")
def test_nothing_runs_in_a_state_or_a_problem(browser: Browser, server: ServerProcess) -> None:
    """JSON with names and metadata of others in it, opened by itself."""
    url = upload(server, NAMES[2], HTML.encode())
    for each in (f"{server.url}/api/uploads", url.replace("/files/", "/api/uploads/"), f"{server.url}/files/{HTML}"):
        browser.open(each)
    assert RAN not in browser.read_log()
