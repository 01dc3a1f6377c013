"""The page that has Uppy and tus-js-client, and what the server knows of the upload that one of them makes.

Rule of this file: where an upload stands is asked of the server, not of the client.
"""

from typing import Any

from tests.interop.browser import Browser
from tests.support.process import ServerProcess
from tests.support.proxy import Fault
from tests.support.speaker import Speaker
from tests.support.waiting import eventually

MIB = 1024 * 1024
SLOW = Fault(rate=4 * MIB)
"""A network on which an upload of `film.bin` can be stopped in its middle."""
MIDDLE = 3 * MIB


class ClientPage:
    """`client` is `uppy` or `tus`; `film` is the URL that the page has the file from."""

    def __init__(
        self, browser: Browser, server: ServerProcess, address: str, film: str, client: str, **options: Any
    ) -> None:
        self.browser = browser
        self.server = server
        self._address = address
        self._film = film
        self._client = client
        self._options = options
        self.load()

    def load(self) -> None:
        """Load the page anew: whatever runs in it ends, the browser's storage stays."""
        self.browser.open(self._address)

    def begin(self, endpoint: str | None = None, **options: Any) -> None:
        """Begin an upload, at the server itself if no other endpoint is given. Options that are None are left out."""
        given = {"endpoint": endpoint or f"{self.server.url}/files", **self._options, **options}
        given = {name: value for name, value in given.items() if value is not None}
        self.browser.call("begin", {"client": self._client, "file": {"source": self._film}, "options": given})

    def done(self) -> Any:
        """What it reported at its end, which must be a good one."""
        result = self.browser.call("done", within=90)
        assert result["error"] is None, f"{result}\n{self.browser.read_log()}"
        return result

    def upload(self, **options: Any) -> Any:
        self.begin(**options)
        return self.done()

    def middle(self) -> str:
        """Wait until some, but not all, of the file is stored; the upload's path."""
        path = eventually(self._path, within=30, every=0.05, what="the creation")
        eventually(lambda: self.offset(path) >= MIDDLE, within=30, every=0.05, what="3 MiB at the server")
        return path

    def offset(self, path: str) -> int:
        with Speaker(self.server.url) as speaker:
            return speaker.head(path).offset

    def status(self, path: str) -> int:
        with Speaker(self.server.url) as speaker:
            return speaker.head(path).status

    def content(self, url: str) -> bytes:
        """What a GET brings back, which must be there; a proxy that `url` may name is passed by."""
        with Speaker(self.server.url) as speaker:
            answer = speaker.get("/files/" + url.rsplit("/", 1)[-1])
        assert answer.status == 200
        return answer.body

    def _path(self) -> str:
        found = [r["location"] for r in self.browser.call("requests") if r["location"] is not None]
        return str(found[0]) if found else ""


def shape(result: Any) -> list[tuple[str, int]]:
    """Method and status of each request."""
    return [(request["method"], request["status"]) for request in result["requests"]]
