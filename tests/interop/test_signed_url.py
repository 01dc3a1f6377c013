"""A browser that holds nothing but a signed URL: it uploads one file, and can do nothing else.

Rule of this file: what the page tries it tries by itself, with tus-js-client and with fetch, from another origin than
the server's. What came of it is asked of the server with a token that the page does not have.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.browser import Browser, Site
from tests.interop.client_page import MIB, ClientPage, shape
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, TUS_BODY, Speaker

from holdfast_server import Principal, sign_upload
from holdfast_server.auth import SCOPES
from holdfast_server.auth.tokens import made

pytestmark = pytest.mark.timeout(180)

KEY = "k" * 40
_, TOKEN, TABLE = made(Principal("alice", SCOPES), bytes(36))
MINE = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def guarded(workers: int, site: Site, tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "tokens").write_text(TABLE)
    (tmp_path / "key").write_text(KEY)
    options = ["--tokens", str(tmp_path / "tokens"), "--signing-key", str(tmp_path / "key")]
    options += ("--cors-origin", site.origin)
    with ServerProcess(tmp_path / "data", *options, workers=workers) as process:
        yield process


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SIGN-3", "A-SIGN-4", "T-CORS-1")
@pytest.mark.parametrize("version", [4, 5])
def test_a_signed_url_is_enough_for_one_upload_and_for_nothing_else(
    guarded: ServerProcess, browser: Browser, clients_page: str, site: Site, film: bytes, version: int
) -> None:
    endpoint = sign_upload(f"{guarded.url}/files", KEY, owner="alice", name="kept.bin", max_size=len(film))
    page = ClientPage(browser, guarded, clients_page, f"{site.origin}/film.bin", "tus", version=version)
    result = page.upload(endpoint=endpoint, chunkSize=5 * MIB)
    assert shape(result) == [("POST", 201), ("PATCH", 204), ("PATCH", 204), ("PATCH", 204)]
    path, _, query = result["url"].removeprefix(guarded.url).partition("?")
    with Speaker(guarded.url) as speaker:
        got = speaker.request("GET", path, MINE)
        assert got.body == film
        assert "kept.bin" in got["content-disposition"]
        other = speaker.request("POST", "/files", {**TUS, **MINE, "Upload-Length": "3"}, b"")["location"]

    url, creation = guarded.url, endpoint.partition("?")[2]
    upload = {**TUS_BODY, "Upload-Offset": "0"}
    attempts = [
        ("POST", f"{url}/files?{creation}", {**TUS, "Upload-Length": "3"}, None, 403),
        ("POST", f"{url}/files?{query}", {**TUS, "Upload-Length": "3"}, None, 403),
        ("POST", f"{url}/files", {**TUS, "Upload-Length": "3"}, None, 401),
        ("HEAD", f"{url}{path}?{query}", TUS, None, 200),
        ("HEAD", f"{url}{path}", TUS, None, 401),
        ("HEAD", f"{url}{path}?{creation}", TUS, None, 404),
        ("GET", f"{url}{path}?{query}", {}, None, 403),
        ("DELETE", f"{url}{path}?{query}", TUS, None, 403),
        ("HEAD", f"{url}{other}?{query}", TUS, None, 404),
        ("PATCH", f"{url}{other}?{query}", upload, "abc", 404),
        ("PATCH", f"{url}{other}?{creation}", upload, "abc", 404),
        ("GET", f"{url}{other}?{query}", {}, None, 403),
        ("GET", f"{url}/api/uploads?{query}", {}, None, 403),
        ("GET", f"{url}/api/uploads?{creation}", {}, None, 403),
        ("GET", f"{url}/api/uploads{other.removeprefix('/files')}?{query}", {}, None, 404),
        ("GET", f"{url}/api/uploads", {}, None, 401),
        ("HEAD", f"{url}{path}?{query[:-1]}", TUS, None, 401),
    ]
    said = [{"method": m, "url": u, "headers": h, "body": b} for m, u, h, b, _ in attempts]
    assert page.browser.call("attempt", said) == [status for *_, status in attempts]
    log = guarded.read_log()
    assert not any(secret in log for secret in (query, creation, TOKEN))


@pytest.mark.rule("T-CORS-1", "A-HEAD-1")
def test_a_page_of_another_origin_sees_nothing(
    guarded: ServerProcess, browser: Browser, clients_page: str, tmp_path: Path, site: Site
) -> None:
    """Not even with a token: the browser hides every answer from it, and sends nothing that changes anything."""
    with Site(tmp_path / "evil") as evil:
        evil.put("page.js", (site.folder / "page.js").read_bytes())
        browser.open(evil.page("evil.html", "page.js"))
        with Speaker(guarded.url) as speaker:
            path = speaker.request("POST", "/files", {**TUS, **MINE, "Upload-Length": "3"}, b"")["location"]
            attempts = [
                {"method": method, "url": guarded.url + target, "headers": {**fields, **MINE}}
                for method, target, fields in [
                    ("GET", "/api/uploads", {}),
                    ("HEAD", path, TUS),
                    ("DELETE", path, TUS),
                    ("POST", "/files", {**TUS, "Upload-Length": "3"}),
                ]
            ]
            attempts += [{"method": "GET", "url": f"{guarded.url}/api/uploads"}]
            assert browser.call("attempt", attempts) == [None] * 5
            assert speaker.request("HEAD", path, {**TUS, **MINE}).status == 200
            assert len(speaker.request("GET", "/api/uploads", MINE).json()["uploads"]) == 1
