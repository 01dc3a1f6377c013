"""What axe-core finds on the page: names, roles, contrast, targets; in each state, light, dark, wide and narrow.

Rule of this file: the whole of WCAG 2.2 A and AA that it can check, and its best practices; nothing is left out.
"""

import secrets
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.interop.browser import MODULES
from tests.page.test_elsewhere import LOGIN, Gate
from tests.page.windows import Window
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import GRANULE, Speaker, b64

pytestmark = pytest.mark.timeout(240)

MIB = 1024 * 1024
AXE = MODULES / "axe-core" / "axe.min.js"
RUN = "axe.run({ rules: { 'target-size': { enabled: true } } }).then(({ violations }) => violations)"
"""With the one rule of WCAG 2.2 that axe-core has, which it leaves out by default."""
SHAPES = ((1280, 800, "light"), (1280, 800, "dark"), (360, 740, "light"), (360, 740, "dark"))


@pytest.fixture
def window(window: Window) -> Window:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make interop")
    return window


def is_accessible(window: Window, state: str) -> None:
    found: list[Any] = []
    for width, height, scheme in SHAPES:
        window.shape(width, height, scheme)
        told = window.look(RUN)
        found += [
            f"{state}, {width}, {scheme}: {rule['help']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in told
            for node in rule["nodes"]
        ]
    assert found == []


def opened(window: Window, url: str) -> None:
    window.open(url)
    window.look(AXE.read_text() + ";null")


def test_every_state_of_an_upload(window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """Nothing yet; on the way, waiting, paused, unfinished, complete and failed; not connected."""
    files = [tmp_path / f"{n}.bin" for n in range(6)]
    for file in files:
        file.write_bytes(secrets.token_bytes(3 * MIB))
    with Proxy(server.url, Fault(rate=60_000)) as proxy:
        opened(window, proxy.url)
        window.sees("Live", "#link")
        window.until(lambda: window.look("document.body.classList.contains('bare')"), what="a page with nothing on it")
        is_accessible(window, "empty")
        with Speaker(server.url) as speaker:
            done = speaker.create(5, Upload_Metadata=f"filename {b64(b'done.txt')}")
            assert speaker.patch(done, 0, b"hello").offset == 5
            wrong = speaker.create(5, Upload_Digest=f"sha-256=:{b64(bytes(32))}:")
            speaker.patch(wrong, 0, b"hello")
            speaker.chunk(speaker.create(4 * GRANULE), GRANULE, bytes(GRANULE))
        window.drop(*files)
        window.sees("Waiting for its turn", "#next")
        window.until(lambda: proxy.up > MIB // 2, what="uploads that have begun")  # one that has not waits in its row
        window.click("[data-act=pause]")
        window.sees("Paused", "#now")
        window.sees("Failed", "#over")
        is_accessible(window, "busy")
        proxy.cut()
        window.sees("Not connected", "#link")
        window.sees("cannot be reached", "#now")
        is_accessible(window, "cut off")


def test_the_dialog(window: Window, start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text("")
    server = start_server("--tokens", str(tmp_path / "tokens.toml"))
    opened(window, server.url)
    window.opens("#ask")
    window.give("wrong")
    window.sees("does not know", "#ask-why")
    is_accessible(window, "a credential is asked for")
    assert window.look("document.activeElement.id") == "token"


@pytest.mark.parametrize(
    ("path", "shown"), [("/api/", "#why"), ("/page/board.js", "#late")], ids=["of who this is", "of a part of the page"]
)
def test_something_else_that_answers(
    window: Window, server: ServerProcess, tmp_path: Path, path: str, shown: str
) -> None:
    with Gate(tmp_path, server)(path, LOGIN) as nginx:
        opened(window, nginx.url)
        window.look("document.getAnimations().forEach((each) => each.finish())")
        window.until(lambda: window.look(f"document.querySelector({shown!r}).offsetHeight > 0"), what="a word about it")
        is_accessible(window, "something else answers")
