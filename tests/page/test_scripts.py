"""Names, metadata, types and files with scripts in them, and pages of other origins: nothing of it runs, and nothing is
done that is not allowed.

Rule of this file: a script says so on the window when it runs; that the test would see it, and that the policy would
tell, a page shows on which the same markup is put on purpose.
"""

import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.interop.browser import Site
from tests.page.windows import Window, Windows
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, TUS_BODY, Speaker, b64
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

RUN = "window.ran = 1"
PAYLOADS = (
    f"<img src=x onerror='{RUN}'>",
    f"</h3><script>{RUN}</script>",
    f"<svg onload='{RUN}'><style>*{{display:none}}</style>",
    f"javascript:{RUN}",
    f"<a href='javascript:{RUN}' autofocus onfocus='{RUN}'>x</a>",
    f"<iframe srcdoc='&lt;script&gt;parent.{RUN}&lt;/script&gt;'></iframe>",
    f"\"'><template shadowrootmode=open><img src=x onerror='{RUN}'></template>",
    "{{constructor.constructor('" + RUN + "')()}}${" + RUN + "}",
)
FOREIGN = "main img, main script, main svg, main iframe, main style, main template, main [onerror], #news *, #notice *"
PAGE = Path(__file__).parents[2] / "server" / "holdfast_server" / "page"
MODULES = (
    *("upload.js", "connections.js", "errors.js", "fields.js", "hasher.js", "hashing.js"),
    *("planner.js", "ranges.js", "remote.js", "request.js", "sha256.js"),
)


@pytest.fixture
def server(workers: int, start_server: StartServer) -> ServerProcess:
    return start_server(workers=workers)


def is_clean(window: Window) -> None:
    assert window.look("window.ran") is None
    assert window.look(f"document.querySelectorAll({FOREIGN!r}).length") == 0
    assert window.violations == []


def metadata(name: str) -> str:
    values = {"filename": name, "filetype": "text/html", "relativePath": name, "project": name, "note": name}
    return ",".join(f"{key} {b64(value.encode())}" for key, value in values.items())


@pytest.mark.rule("F-NAME-1", "D-GET-1", "D-JSON-1")
def test_names_metadata_and_messages_are_text(windows: Windows, server: ServerProcess, tmp_path: Path) -> None:
    """Of uploads that were there, that are on their way, that rest, fail and are dropped here; in two windows."""
    with Speaker(server.url) as speaker:
        moving = []
        for payload in PAYLOADS:
            done = speaker.create(5, Upload_Metadata=metadata(payload))
            assert speaker.patch(done, 0, b"hello").offset == 5
            moving.append(speaker.create(4 * GRANULE, Upload_Metadata=metadata(payload)))
        first, second = (windows.window(name).open(server.url) for name in ("first", "second"))
        for window in (first, second):
            window.sees("Live", "#link")
        for url in moving:
            assert speaker.chunk(url, 0, bytes(GRANULE)).status == 204
        wrong = speaker.create(5, Upload_Metadata=metadata(PAYLOADS[0]), Upload_Digest=f"sha-256=:{b64(bytes(32))}:")
        speaker.patch(wrong, 0, b"hello")
        dropped = tmp_path / f"<img src=x onerror={RUN.replace(' ', '')}>.html"
        dropped.write_text(f"<script>{RUN}</script>")
        first.drop(dropped)
        for window in (first, second):
            window.sees("onerror=window.ran=1", "#over")
            window.sees("Failed", "#over")
            cards = "document.querySelectorAll('.card').length"
            eventually(lambda: window.look(cards) >= len(PAYLOADS), every=0.1, what="a card of each")  # noqa: B023
            is_clean(window)
        first.look("document.querySelectorAll('a[href]').forEach((a) => a.focus())")
        kinds = first.look("[...document.querySelectorAll('#over a')].map((a) => new URL(a.href).protocol)")
        assert set(kinds) == {"http:"}
    first.open(f"{server.url}/#signature={PAYLOADS[0]}")
    first.reload()
    is_clean(first)
    first.look(f"document.querySelector('main').insertAdjacentHTML('beforeend', {PAYLOADS[0]!r})")
    first.until(lambda: len(first.violations) > 0, what="what the policy says of a handler that is put there")
    assert first.look("window.ran") is None


@pytest.mark.rule("D-GET-1", "F-NAME-1")
def test_a_download_from_the_page_is_saved_and_runs_nowhere(
    window: Window, server: ServerProcess, tmp_path: Path
) -> None:
    content = f"<!doctype html><script>{RUN};opener && (opener.ran = 1)</script>".encode()
    with Speaker(server.url) as speaker:
        url = speaker.create(len(content), Upload_Metadata=metadata("../<b>evil.html"))
        assert speaker.patch(url, 0, content).offset == len(content)
        answer = speaker.get(url)
    assert answer["content-disposition"].startswith("attachment")
    assert answer["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer["content-security-policy"] or "default-src 'none'" in answer["content-security-policy"]
    window.open(server.url)
    window.sees("evil", "#over")
    name = window.download("#over a", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == content
    assert "/" not in name
    assert "<" not in name
    window.look("document.querySelector('#over a').removeAttribute('download')")
    window.download("#over a", tmp_path / "again")  # as an address that is opened
    assert window.look("location.pathname") == "/"
    is_clean(window)


@pytest.mark.rule("T-CORS-1", "T-CORS-2", "A-ORIGIN-1")
def test_a_page_of_another_origin(windows: Windows, start_server: StartServer, tmp_path: Path) -> None:
    """One that is allowed uploads with our module; any other one reads nothing, changes nothing, and frames nothing."""
    with Site(tmp_path / "friend") as friend, Site(tmp_path / "evil") as evil:
        server = start_server("--cors-origin", friend.origin)
        for name in MODULES:
            shutil.copy(PAGE / name, friend.folder / name)
        window = windows.window().open(friend.put("index.html", "<!doctype html><title>friend</title>"))
        result = window.look(
            "import('/upload.js').then(({ Upload }) => new Upload(new File([new Uint8Array(300000)], 'a.bin'),"
            f" {{ endpoint: '{server.url}/files' }}).start())"
        )
        with Speaker(server.url) as speaker:
            path = result["url"].removeprefix(server.url)
            assert speaker.get(result["url"]).body == bytes(300_000)
            before = speaker.request("GET", "/api/uploads").json()

        other = windows.window("evil").open(evil.put("index.html", "<!doctype html><title>evil</title>"))
        attempts = [
            {"url": url, "method": method, "headers": headers, "mode": mode}
            for url, method, headers, mode in (
                ("/api/uploads", "GET", {}, "cors"),
                ("/api/credential", "GET", {}, "cors"),
                (path, "GET", {}, "cors"),
                (path, "HEAD", TUS, "cors"),
                (path, "DELETE", TUS, "cors"),
                ("/files", "POST", {**TUS, "Upload-Length": "3"}, "cors"),
                (path, "PATCH", {**TUS_BODY, "Upload-Offset": "0"}, "cors"),
                (path, "POST", {"X-HTTP-Method-Override": "DELETE"}, "cors"),
                ("/api/uploads", "GET", {}, "no-cors"),
                ("/files", "POST", {"Content-Type": "text/plain"}, "no-cors"),
            )
        ]
        said = other.look(
            f"Promise.all({json.dumps(attempts)}.map(({{ url, ...how }}) => fetch('{server.url}' + url, how)"
            ".then(async (answer) => answer.type + (await answer.text()), () => null)))"
        )
        assert said == [None] * 8 + ["opaque"] * 2
        assert other.look(f"import('{server.url}/page/upload.js').then(() => 'here', () => null)") is None
        assert (
            other.look(
                "new Promise((end) => { const s = new WebSocket('ws" + server.url.removeprefix("http") + "/api/live');"
                "s.onmessage = () => end('watches'); s.onerror = () => end(null) })"
            )
            is None
        )
        assert (
            other.look(
                f"new Promise((end) => {{ const s = new EventSource('{server.url}/api/events?topic=all');"
                "s.onmessage = s.onopen = () => end('watches'); s.onerror = () => { s.close(); end(null) } })"
            )
            is None
        )
        framed = other.look(
            f"new Promise((end) => {{ const f = document.createElement('iframe'); f.src = '{server.url}/';"
            "f.onload = () => { try { end(f.contentDocument ? 'ours' : 'other') } catch { end('other') } };"
            "document.body.append(f) })"
        )
        assert framed == "other"
        assert "frame-ancestors" in windows.read_log()
        with Speaker(server.url) as speaker:
            after = speaker.request("GET", "/api/uploads").json()
            assert [u["id"] for u in after["uploads"]] == [u["id"] for u in before["uploads"]]
            assert speaker.get(result["url"]).body == bytes(300_000)
