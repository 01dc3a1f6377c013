"""DNS rebinding in a real browser: the name of a page of another site leads to the server all at once.

Rule of this file: the browser knows one name for one port all the time; which program listens there changes, as it
would by another answer of the attacker's name server.
"""

from pathlib import Path

import pytest
from tests.interop.browser import REBOUND, Browser, Site
from tests.support.process import ServerProcess
from tests.support.speaker import TUS, Speaker

pytestmark = pytest.mark.timeout(180)

SCRIPT = """
window.interop = {
  async ask(all) {
    const answers = []
    for (const { method, url, headers } of all) {
      answers.push(await fetch(url, { method, headers, cache: 'no-store' }).then((r) => r.status, String))
    }
    return answers
  },
  watch: () => new Promise((done) => {
    const socket = new WebSocket(`ws://${location.host}/api/live?topic=all`)
    socket.onmessage = () => done('watches')
    socket.onerror = () => done('refused')
  }),
}
"""


@pytest.mark.rule("A-HOST-1")
def test_a_page_whose_name_leads_to_the_server_is_answered_nothing(
    browser: Browser, tmp_path: Path, workers: int
) -> None:
    with ServerProcess(tmp_path / "data", workers=workers) as server:
        with Speaker(server.url) as speaker:
            upload = speaker.create(3, parallel=False).removeprefix(server.url)
        port = int(server.url.rpartition(":")[2])
        server.kill()
        with Site(tmp_path / "evil", port) as evil:
            evil.put("page.js", SCRIPT)
            evil.page("evil.html", "page.js")
            browser.open(f"http://{REBOUND}:{port}/evil.html")
            assert browser.call("ask", [{"method": "GET", "url": "/page.js"}]) == [200]
        server.start()
        attempts = [
            {"method": "GET", "url": "/api/uploads"},
            {"method": "HEAD", "url": upload, "headers": TUS},
            {"method": "DELETE", "url": upload, "headers": TUS},
            {"method": "POST", "url": "/files", "headers": {**TUS, "Upload-Length": "3"}},
        ]
        assert browser.call("ask", attempts) == [421] * 4
        assert browser.call("watch") == "refused"
        with Speaker(server.url) as speaker:
            assert speaker.head(upload).offset == 0
            assert len(speaker.get("/api/uploads").json()["uploads"]) == 1
