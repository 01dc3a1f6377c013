"""The page in Chromium: files that are dropped on it, and what it shows of them and of those of others.

Rule of this file: what is stored is compared byte by byte, or by the server's digest and our own. The network and the
server fail for real. `--film-size 200` is the size of the issue.
"""

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.page.windows import Window, Windows
from tests.support.process import CommandLine, ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import GRANULE, Speaker, b64
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024


def states(server: ServerProcess) -> list[Any]:
    with Speaker(server.url) as speaker:
        return list(speaker.connection.request("GET", "/api/uploads").json()["uploads"])


def until(window: Window, percent: int) -> None:
    """Wait until it is so far, or complete."""
    window.until(
        lambda: window.percent >= percent or "Complete" in window.text("#over"),
        within=90,
        every=0.05,
        what=f"{percent} %",
    )


def is_silent(proxy: Proxy) -> bool:
    """Nothing but small questions goes through for half a second."""
    before = proxy.up
    time.sleep(0.5)
    return proxy.up - before < 16 * 1024


@pytest.mark.rule("P-CREATE-1", "P-CHUNK-4", "P-STATE-1", "P-COMPLETE-1", "P-RETRY-1")
def test_an_upload_survives_everything(windows: Windows, server: ServerProcess, film: Path) -> None:
    """The network is cut, the page reloaded and the server killed; then the file is there, and its digest is right."""
    size = film.stat().st_size
    digest = hashlib.sha256(film.read_bytes()).hexdigest()
    with Proxy(server.url, Fault(rate=size / 4 / 15)) as proxy:  # four connections, fifteen seconds
        first = windows.window().open(proxy.url)
        second = windows.window("second").open(server.url)
        first.sees("Live", "#link")
        second.sees("Live", "#link")
        first.drop(film)
        first.sees("film.mkv", "#now")
        until(first, 12)
        eventually(lambda: first.cells > 0, what="the first cells of the map")
        before = first.cells
        eventually(lambda: first.cells > before, within=30, what="more cells of the map")
        second.sees("film.mkv", "#now")
        until(second, 20)
        eventually(lambda: second.cells > 0, every=0.1, what="a map in the second window")

        proxy.cut()
        first.sees("cannot be reached", "#now")
        first.sees("Not connected", "#link")
        held = first.percent
        assert second.text("#link") == "Live"
        proxy.mend()
        until(first, held + 8)
        first.sees("Live", "#link")

        held = first.percent
        first.reload()
        first.sees("film.mkv", "#now")
        until(first, max(held, 45))
        assert first.percent < 100

        server.restart()
        held = first.percent
        until(first, held + 5)
        second.sees("Live", "#link")
        until(second, held + 5)

        first.sees("Complete", "#over", within=120)
        second.sees("Complete", "#over")
        for window in (first, second):
            window.sees(digest, "#over .digest")
        passed = proxy.up
    (state,) = states(server)
    assert state["digests"]["sha-256"] == digest
    with Speaker(server.url) as speaker:
        answer = speaker.get(state["url"])
        assert hashlib.sha256(answer.body).hexdigest() == digest
    assert passed < size + 4 * 3 * 8 * MIB + 2 * MIB, (
        "more than what was on its way when something broke was sent again"
    )


def test_small_files_and_folders(window: Window, server: ServerProcess, tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "box"
    contents = {"empty.txt": b"", "one.bin": rng.randbytes(1), "inner/two.bin": rng.randbytes(3 * GRANULE + 1)}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    window.open(server.url)
    window.drop(folder)
    for name in contents:
        window.sees(name.rpartition("/")[2], "#over")
    with Speaker(server.url) as speaker:
        found = {state["metadata"]["relativePath"]: state for state in states(server)}
        for name, content in contents.items():
            state = found[f"box/{name}"]
            assert state["state"] == "complete"
            assert speaker.get(state["url"]).body == content


def test_pauses_and_goes_on_when_told(window: Window, server: ServerProcess, film: Path) -> None:
    size = film.stat().st_size
    with Proxy(server.url, Fault(rate=size / 4 / 4)) as proxy:
        window.open(proxy.url)
        window.drop(film)
        until(window, 10)
        window.click("[data-act=pause]")
        window.sees("Paused", "#now")
        held = window.percent
        window.reload()  # a paused one stays paused
        window.sees("Begun in this browser", "#rest")
        eventually(lambda: is_silent(proxy), every=0, what="silence on the network")
        window.click("[data-act=wake]")
        until(window, held)
        window.sees("Complete", "#over", within=60)


def test_asks_before_it_is_left_while_it_sends(window: Window, server: ServerProcess, film: Path) -> None:
    """And not where nothing moves: paused, not connected, complete."""

    def leave() -> list[str]:
        """What the browser shows, if somebody has touched the page."""
        window.click("#drop-title")
        window.reload()
        return window.dialogs()

    def asks() -> bool:
        return bool(window.look("!dispatchEvent(new Event('beforeunload', { cancelable: true }))"))

    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 20)) as proxy:
        window.open(proxy.url)
        window.sees("Nothing is on its way", "#now-none")
        assert leave() == []
        window.drop(film)
        until(window, 5)
        assert leave() == ["beforeunload"]
        window.sees("Receiving", "#now")
        window.until(asks, what="a page that sends again")
        window.click("[data-act=pause]")
        window.sees("Paused", "#now")
        assert leave() == []
        window.click("[data-act=wake]")
        window.until(asks, what="a page that sends again")
        proxy.cut()
        window.sees("cannot be reached", "#now")
        window.until(lambda: not asks(), what="a page that only waits")
        proxy.fault = Fault()
        proxy.mend()
        window.sees("Complete", "#over", within=60)
        assert leave() == []


def test_the_file_can_be_chosen_again(window: Window, server: ServerProcess, film: Path) -> None:
    """Where the browser keeps no handle of a file, as with one out of an input, the user chooses it again."""
    size = film.stat().st_size
    with Proxy(server.url, Fault(rate=size / 4 / 4)) as proxy:
        window.open(proxy.url)
        window.choose(film)
        until(window, 15)
        window.reload()
        window.sees("Choose the file again", "#rest")
        eventually(lambda: is_silent(proxy), every=0, what="silence on the network")
        sent = proxy.up
        window.choose(film)
        window.sees("Complete", "#over", within=60)
        assert proxy.up - sent < size, "what was there was not sent again"


@pytest.mark.rule("T-DELETE-1")
def test_cancels(window: Window, server: ServerProcess, film: Path) -> None:
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 10)) as proxy:
        window.open(proxy.url)
        window.drop(film)
        until(window, 8)
        (upload,) = states(server)
        window.click("[data-act=cancel]")
        eventually(lambda: window.percent == -1, what="an empty page")
        with Speaker(server.url) as speaker:
            eventually(lambda: speaker.head(upload["url"]).status == 404, every=0.1)
        window.reload()
        time.sleep(1)
        assert "film.mkv" not in window.text("#now") + window.text("#rest")


@pytest.mark.rule("T-DELETE-1")
def test_what_is_cancelled_does_not_rise_again(window: Window, server: ServerProcess, film: Path) -> None:
    """Also where the page is loaded anew before it has heard that the upload was removed."""
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 10)) as proxy:
        window.open(proxy.url)
        window.look(
            "XMLHttpRequest.prototype.open = ((open) => function (method, url) {"
            " if (method === 'DELETE') Object.defineProperty(this, 'onload', { set() {} });"
            " open.call(this, method, url) })(XMLHttpRequest.prototype.open)"
        )
        window.drop(film)
        until(window, 8)
        window.click("[data-act=cancel]")
        window.until(lambda: window.percent == -1 and not states(server), every=0, what="no upload, here and there")
        window.reload()
        window.sees("Live", "#link")
        time.sleep(1)
        assert "film.mkv" not in window.text("main")
        assert not states(server)


def test_what_the_server_has_lost_begins_anew_once(window: Window, server: ServerProcess, film: Path) -> None:
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 4)) as proxy:
        window.open(proxy.url)
        window.drop(film)
        until(window, 8)
        window.click("[data-act=pause]")
        window.sees("Paused", "#now")
        (lost,) = states(server)
        with Speaker(server.url) as speaker:
            assert speaker.delete(lost["url"]).status == 204
        window.reload()
        window.sees("Live", "#link")
        time.sleep(1)
        window.sees("0 B of", "#rest")
        window.click("[data-act=wake]")
        until(window, 8)
        assert window.text("#now").count("film.mkv") == 1
        window.reload()
        until(window, 30)
        assert window.text("main").count("film.mkv") == 1
        window.sees("Complete", "#over", within=60)
        assert len(states(server)) == 1


def test_cancelled_while_its_file_is_read(window: Window, server: ServerProcess, tmp_path: Path) -> None:
    """It gives its place to the next: three go at once."""
    window.open(server.url)
    window.look(  # a worker that does not come to the end of a large file
        "Worker.prototype.postMessage = ((post) => function (asked) {"
        " if (asked.blob.size <= 8 * 1024 * 1024) post.call(this, asked) })(Worker.prototype.postMessage)"
    )
    large = [tmp_path / f"{n}.mkv" for n in range(3)]
    for file in large:
        file.write_bytes(bytes(9 * MIB))
    small = tmp_path / "small.bin"
    small.write_bytes(b"small")
    window.drop(*large)
    window.until(lambda: window.text("#now").count("Reading the file for its digest") == 3, what="three that are read")
    window.click("#all-cancel")
    window.drop(small)
    window.sees("small.bin", "#over")


def test_a_file_that_changes_is_not_mixed(window: Window, server: ServerProcess, film: Path) -> None:
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 10)) as proxy:
        window.open(proxy.url)
        window.drop(film)
        until(window, 8)
        with film.open("r+b") as file:
            file.seek(film.stat().st_size - 100)
            file.write(b"something else")
        window.sees("Stopped", "#now", within=60)
        assert "Choose it again" in window.text("#now")


def test_names_of_others_are_text(window: Window, server: ServerProcess) -> None:
    name = "<img src=x onerror=document.title='caught'>.txt"
    with Speaker(server.url) as speaker:
        upload = speaker.create(5, Upload_Metadata=f"filename {b64(name.encode())}")
        assert speaker.patch(upload, 0, b"hello").offset == 5
    window.open(server.url)
    window.sees("onerror", "#over")
    assert window.look("document.querySelectorAll('main img').length") == 0
    assert window.look("document.title") == "Holdfast"


def test_narrow_screens_do_not_scroll_sideways(window: Window, server: ServerProcess, film: Path) -> None:
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 10)) as proxy:
        window.open(proxy.url)
        window.shape(360, 740, "dark")
        window.drop(film)
        until(window, 3)
        assert window.look("document.documentElement.scrollWidth") <= 360
        small = window.look(
            "[...document.querySelectorAll('button')].filter((b) => b.offsetHeight && b.offsetHeight < 24).length"
        )
        assert small == 0
        window.click("[data-act=cancel]")


def test_everything_can_be_reached_by_keyboard(window: Window, server: ServerProcess, film: Path) -> None:
    with Proxy(server.url, Fault(rate=film.stat().st_size / 4 / 10)) as proxy:
        window.open(proxy.url)
        window.drop(film)
        until(window, 3)
        reached = []
        for _ in range(12):
            window.press("Tab")
            reached.append(window.look("document.activeElement.dataset.act ?? document.activeElement.id"))
        assert {"choose-files", "choose-folder", "pause", "cancel"} <= set(reached)
        window.look("document.querySelector('[data-act=pause]').focus()")
        window.press("Enter")
        window.sees("Paused", "#now")
        assert window.look("document.activeElement.dataset.act") == "resume", "the focus stays where it was"
        window.press("Enter")
        window.sees("Receiving", "#now")
        window.click("[data-act=cancel]")


def test_the_focus_is_not_lost(window: Window, server: ServerProcess) -> None:
    """Where a list gets another order, and where what had it is there no more: no key meets another upload."""
    window.open(server.url)
    window.sees("Live", "#link")
    window.look(
        """Promise.all([import('/page/board.js'), import('/page/screen.js')]).then(([{ Board }, { Screen }]) => {
            globalThis.board = new Board()
            const still = { size: 10, state: 'paused', received: 0, flying: [], ranges: [], retryAt: null }
            globalThis.items = [1, 2, 3].map((n) => {
                const item = board.own({ ...still, url: `http://here/files/${n}`, file: { name: `${n}.bin` } })
                item.started = 10 - n
                return item
            })
            const sight = { watch() {}, leave() {} }
            globalThis.shown = new Screen({ board, sight, transfers: { batch: { files: 0, open: 0 } }, act() {} })
            shown.render()
        })"""
    )
    window.until(lambda: window.look("document.querySelectorAll('#now .card').length") == 3, what="three cards")
    window.look("globalThis.button = document.querySelector('#now li:nth-child(3) button'); button.focus()")
    window.look("items[2].started = 99; shown.render()")
    window.until(lambda: window.text("#now li .name") == "3.bin", what="another order")
    assert window.look("document.activeElement === button")
    window.look("board.remove('3'); shown.render()")
    window.until(lambda: window.look("document.querySelectorAll('#now .card').length") == 2, what="two cards")
    assert window.look("document.activeElement.tagName") == "H2"


def test_many_at_once(window: Window, server: ServerProcess, tmp_path: Path, rng: random.Random) -> None:
    """Three go, the others wait in rows; a screen reader has names, how far each is, and what can be done with it."""
    files = [tmp_path / f"{n}.bin" for n in range(10)]
    for file in files:
        file.write_bytes(rng.randbytes(300_000))
    with Proxy(server.url, Fault(rate=40_000)) as proxy:
        window.open(proxy.url)
        window.drop(*files)
        window.sees("Waiting for its turn", "#next")
        window.sees("Receiving", "#now")
        assert int(window.look("document.querySelectorAll('.card').length")) <= 3
        tree = window.tree("main")
        assert 'progressbar "' in tree
        assert 'region "Next ' in tree
        assert 'button "Pause"' in tree
        proxy.fault = Fault()
        proxy.drop_all()
        window.until(lambda: window.text("#over").count("Complete") == len(files), within=90, what="all of them")
        assert window.text("#next") == ""


@pytest.mark.rule("T-DELETE-1")
def test_all_that_is_sent_from_here(window: Window, server: ServerProcess, tmp_path: Path, rng: random.Random) -> None:
    """Paused, gone on with and cancelled in one; the keyboard stays where it was."""
    files = [tmp_path / f"{n}.bin" for n in range(8)]
    for file in files:
        file.write_bytes(rng.randbytes(6 * MIB))
    with Proxy(server.url, Fault(rate=100_000)) as proxy:
        window.open(proxy.url)
        window.drop(*files)
        window.sees("of 8 files sent", "#all")
        window.until(lambda: proxy.up > MIB, what="a MiB on the network")
        window.look("document.querySelector('#all-toggle').focus()")
        window.press("Enter")
        window.sees("Go on with all", "#all")
        assert window.look("document.activeElement.id") == "all-toggle"
        window.until(lambda: window.text("main").count("Paused") == 8, what="eight that are paused")
        assert int(window.look("document.querySelectorAll('.card').length")) == 3, "those that were not begun are rows"
        window.press("Enter")
        window.sees("Receiving", "#now")
        window.sees("Waiting for its turn", "#next")
        window.sees("Pause all", "#all")
        window.click("#all-cancel")
        window.sees("Nothing is on its way", "#now-none")
        assert not window.look("document.querySelector('#all').offsetHeight")
        eventually(lambda: states(server) == [], within=30, every=0.1, what="a server with nothing on it")


def test_the_counts_follow(window: Window, server: ServerProcess) -> None:
    window.open(server.url)
    window.sees("Live", "#link")
    with Speaker(server.url) as speaker:
        for number in range(1, 4):
            upload = speaker.create(5)
            assert speaker.patch(upload, 0, b"hello").offset == 5
            window.until(lambda: window.text("#count-complete") == str(number), what=f"{number} complete")  # noqa: B023


def test_why_an_upload_has_failed_is_said_in_words(window: Window, server: ServerProcess) -> None:
    """As it happens, and also after a reload."""
    window.open(server.url)
    window.sees("Live", "#link")
    with Speaker(server.url) as speaker:
        wrong = speaker.create(5, Upload_Digest=f"sha-256=:{b64(bytes(32))}:")
        speaker.patch(wrong, 0, b"hello")
    window.sees("nothing was published", "#over")
    window.reload()
    window.sees("nothing was published", "#over")


@pytest.mark.rule("A-HEAD-3", "L-RIGHT-1")
def test_asks_for_a_credential(windows: Windows, start_server: StartServer, tmp_path: Path, film: Path) -> None:
    """Alice may not watch everything; her own uploads she sees in another window, too."""
    tokens = tmp_path / "tokens.toml"
    made = CommandLine(tmp_path / "home").run("token", "add", "--file", str(tokens), "--owner", "alice")
    assert made.returncode == 0, made.stderr
    server = start_server("--tokens", str(tokens))
    first, second = (windows.window(name).open(server.url) for name in ("first", "second"))
    for window in (first, second):
        window.sees("Token", "#ask")
        window.look(f"document.querySelector('#token').value = {made.stdout.strip()!r}")
        window.click("#ask button[value=use]")
        window.closes("#ask")
    first.drop(film)
    first.sees("Complete", "#over", within=60)
    first.sees("Live", "#link")
    second.reload()
    second.sees("film.mkv", "#over")
    second.sees("Live", "#link")
    assert made.stdout.strip() not in server.read_log()
