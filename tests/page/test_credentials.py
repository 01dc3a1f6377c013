"""The page with each kind of credential: what it says when one is missing, wrong, over or too narrow, and that nothing
is lost by it: with a good one everything goes on.

Rule of this file: credentials are given as a user does, in the dialog or with the address of the page; what is stored
is asked of the server with a token that the page does not have.
"""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartServer
from tests.page.windows import Window, Windows
from tests.support.guarded import ALL, As, Guarded, jwt_of
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import TUS, TUS_BODY, Speaker
from tests.support.waiting import eventually

from holdfast_server import Principal

pytestmark = pytest.mark.timeout(240)

MIB = 1024 * 1024
SIZE = 12 * MIB + 17
SLOW = Fault(rate=150 * 1024)
"""Four connections of it: twenty seconds for SIZE."""
PEOPLE = {
    "alice": Principal("alice", ALL),
    "again": Principal("alice", ALL),
    "bob": Principal("bob", ALL),
    "over": Principal("alice", ALL, expires=1_000_000_000.0),
    "no create": Principal("alice", ALL - {"create"}),
    "no write": Principal("alice", ALL - {"write"}),
    "no watch": Principal("alice", ALL - {"watch"}),
    "no read": Principal("alice", ALL - {"read"}),
}


@pytest.fixture
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    """With one worker, where a test does not ask for another number."""
    with Guarded(tmp_path, workers=getattr(request, "param", 1), people=PEOPLE) as process:
        yield process


on_both = pytest.mark.parametrize("guarded", [1, 2], indirect=True, ids=["one worker", "two workers"])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    path.write_bytes(secrets.token_bytes(SIZE))
    return path


def small(folder: Path, name: str = "small.bin") -> Path:
    path = folder / name
    path.write_bytes(secrets.token_bytes(100_000))
    return path


def uploads(server: Guarded, who: str = "alice") -> list[Any]:
    with As(server, who) as speaker:
        return list(speaker.request("GET", "/api/uploads").json()["uploads"])


def is_stored(server: Guarded, content: bytes, who: str = "alice") -> None:
    """One upload, complete, and the same to the byte."""
    (state,) = uploads(server, who)
    assert state["state"] == "complete"
    with As(server, who) as speaker:
        assert speaker.get(state["url"]).body == content


def begun(window: Window) -> int:
    """Wait for the first bytes that are stored; how many percent they are."""
    window.until(lambda: window.percent > 3, within=60, what="some percent")
    return window.percent


def goes_on(window: Window, proxy: Proxy) -> None:
    """The rest of it without the slow network."""
    proxy.fault = Fault()
    proxy.drop_all()
    window.sees("Complete", "#over", within=60)


@pytest.mark.rule("A-HEAD-1", "A-HEAD-2", "A-HEAD-3", "A-TOKEN-1", "A-AGAIN-1")
@on_both
def test_a_token(window: Window, guarded: Guarded, film: Path) -> None:
    with Proxy(guarded.url, SLOW) as proxy:
        window.open(proxy.url)
        window.opens("#ask")
        window.sees("Paste a token", "#ask-why")
        window.give("two words")
        window.sees("blanks or other characters", "#ask-why")
        window.give("hft_" + "x" * 40)
        window.sees("does not know this credential", "#ask-why")
        window.give(guarded.token["over"])
        window.sees("its time is over", "#ask-why")
        window.give(f"  Bearer {guarded.token['alice']}\n")
        window.closes("#ask")
        window.sees("Live", "#link")
        window.sees("Credential of alice", "#credential")
        window.drop(film)
        held = begun(window)
        guarded.expire("alice")
        window.sees("Stopped", "#now")
        window.sees("its time is over", "#now")
        window.give(guarded.token["again"])
        window.closes("#ask")
        window.until(lambda: window.percent >= held and "Receiving" in window.text("#now"), what="the rest")
        goes_on(window, proxy)
        assert proxy.up < SIZE + 8 * MIB, "what was stored was not sent again"
    is_stored(guarded, film.read_bytes(), "again")
    log = guarded.read_log()
    assert not any(token in log for token in guarded.token.values())


@pytest.mark.rule("A-JWT-1", "A-AGAIN-1")
def test_a_jwt(window: Window, guarded: Guarded, film: Path) -> None:
    def token(seconds: float) -> str:
        """Good for so long: the server lets clocks be off by half a minute."""
        return jwt_of(exp=time.time() - 30 + seconds, scope="create write read watch")

    with Proxy(guarded.url, SLOW) as proxy:
        window.open(proxy.url)
        window.give(token(-60))
        window.sees("its time is over", "#ask-why")
        window.give(token(600)[:-3])
        window.sees("Give another one", "#ask-why")
        window.give(token(14))
        window.closes("#ask")
        window.drop(film)
        held = begun(window)
        window.sees("Stopped", "#now", within=60)
        window.sees("its time is over", "#now")
        window.give(token(600))
        window.closes("#ask")
        window.until(lambda: window.percent >= held and "Receiving" in window.text("#now"), what="the rest")
        goes_on(window, proxy)
    is_stored(guarded, film.read_bytes())


@pytest.mark.rule("A-HEAD-1", "A-HEAD-3")
def test_what_a_callable_knows(window: Window, start_server: StartServer, tmp_path: Path) -> None:
    """Words that would be no token and no JWT anywhere."""
    server = start_server("--authority", "tests.support.people:authority", workers=2)
    file = small(tmp_path)
    window.open(server.url)
    window.give("mallory")
    window.sees("does not know this credential", "#ask-why")
    window.give("alice")
    window.closes("#ask")
    window.sees("Credential of alice", "#credential")
    window.drop(file)
    window.sees("Complete", "#over")
    with Speaker(server.url) as speaker:
        alice = {"Authorization": "Bearer alice"}
        (state,) = speaker.request("GET", "/api/uploads", alice).json()["uploads"]
        assert speaker.request("GET", state["url"], alice).body == file.read_bytes()


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SIGN-3")
def test_a_signed_url_for_a_creation(window: Window, guarded: Guarded, film: Path, tmp_path: Path) -> None:
    """It is over in the middle; with one for the upload, or with a token of the owner, it goes on."""

    def signed(path: str = "/files", **how: Any) -> str:
        return guarded.signed(path, **how).replace(guarded.url, proxy.url)

    with Proxy(guarded.url, SLOW) as proxy:
        window.open(proxy.url)
        window.give(guarded.signed())
        window.sees(f"This URL is for {guarded.url}", "#ask-why")
        window.give(signed()[:-4] + "AAAA")
        window.sees("Give another one", "#ask-why")
        window.give(signed(max_size=SIZE, types=[".mkv"], upload_within=12))
        window.closes("#ask")
        window.sees("This link takes one file (.mkv; at most 12.0 MiB each)", "#drop-note")
        window.drop(small(tmp_path, "other.png"))
        window.sees("takes files of the types .mkv", "#now")
        window.drop(film)
        held = begun(window)
        window.sees("its time is over", "#now", within=60)
        window.opens("#ask")
        (state,) = uploads(guarded)
        window.give(signed(state["url"]))
        window.closes("#ask")
        window.until(lambda: window.percent >= held and "Receiving" in window.text("#now"), what="the rest")
        goes_on(window, proxy)
    is_stored(guarded, film.read_bytes())


def test_a_dialog_that_the_user_has_opened_stays_open(window: Window, guarded: Guarded) -> None:
    """The server says yes to a link, late, while the user is about to paste something; one that the server has opened
    goes by itself as soon as another one is taken."""
    with Proxy(guarded.url) as proxy:

        def follow(who: str) -> None:
            address = guarded.signed(owner=who).replace(guarded.url, proxy.url)
            window.look(f"location.hash = {json.dumps(address)}")

        window.open(proxy.url)
        window.opens("#ask")
        follow("bob")
        window.closes("#ask")
        window.sees("This link takes", "#drop-note")
        window.click("#credential")
        window.give(guarded.token["alice"])
        window.sees("Credential of alice", "#credential")
        proxy.cut()
        follow("bob")
        window.click("#credential")
        window.opens("#ask")
        proxy.mend()
        window.sees("This link takes", "#drop-note")
        assert window.look("document.querySelector('#ask').open")


@pytest.mark.rule("A-SIGN-4")
@on_both
def test_two_files_for_a_link_that_is_good_for_one(window: Window, guarded: Guarded, tmp_path: Path) -> None:
    """One of them is taken; of the other it is said that the link is used up, and with another one it begins anew."""
    files = [small(tmp_path, name) for name in ("one.bin", "two.bin")]
    window.open(f"{guarded.url}/#{guarded.signed()}")
    window.sees("By a signed link", "#link")
    window.sees("This link takes one file, until", "#drop-note")
    window.drop(*files)
    window.sees("Complete", "#over")
    window.sees("This link is used up: it was for one file", "#drop-note")
    window.sees("Ask for a new one", "#now")
    assert "another one in its place" in window.text("#now") or "as many uploads as it may" in window.text("#now")
    window.click("[data-act=credential]")
    window.give(guarded.signed())
    window.until(lambda: all(file.name in window.text("#over") for file in files), what="both files")
    with As(guarded, "alice") as alice:
        states = uploads(guarded)
        assert {state["state"] for state in states} == {"complete"}
        assert {alice.get(state["url"]).body for state in states} == {file.read_bytes() for file in files}


@pytest.mark.rule("A-SIGN-4", "D-JSON-3")
@on_both
def test_a_link_counts_down(window: Window, guarded: Guarded, tmp_path: Path) -> None:
    """What is sent with it from elsewhere counts too; whoever opens the page with a link that is used up is told so."""
    link = guarded.signed(uses=3)
    window.open(f"{guarded.url}/#{link}")
    window.sees("This link takes 3 files, until", "#drop-note")
    window.drop(small(tmp_path, "one.bin"))
    window.sees("This link takes 2 more files, until", "#drop-note")
    with Speaker(guarded.url) as elsewhere:
        fields = {**TUS_BODY, "Upload-Length": "3"}
        assert elsewhere.request("POST", link.removeprefix(guarded.url), fields, b"abc").status == 201
    window.reload()
    window.sees("This link takes one more file, until", "#drop-note")
    window.drop(small(tmp_path, "two.bin"))
    window.sees("This link is used up: it was for 3 files", "#drop-note")
    window.reload()
    window.sees("This link is used up: it was for 3 files", "#drop-note")
    window.drop(small(tmp_path, "more.bin"))
    window.sees("Ask for a new one", "#now")


@pytest.mark.rule("A-SIGN-4")
def test_a_link_to_an_upload_that_was_given_up(window: Window, guarded: Guarded, tmp_path: Path) -> None:
    """The page asks how far it is, which has no words; why that was refused it says all the same."""
    file, creation = small(tmp_path), guarded.signed().removeprefix(guarded.url)
    fields = {**TUS, "Upload-Length": str(file.stat().st_size)}
    with Speaker(guarded.url) as speaker:
        first, _ = (speaker.request("POST", creation, fields, b"")["location"] for _ in range(2))
    window.open(f"{guarded.url}/#{guarded.url}{first}")
    window.sees("By a signed link", "#link")
    window.drop(file)
    window.sees("another one in its place", "#now")


@pytest.mark.rule("A-SIGN-1", "A-SCOPE-1")
def test_a_signed_url_for_an_upload(window: Window, guarded: Guarded, film: Path, tmp_path: Path) -> None:
    """Begun elsewhere; it is over in the middle, and goes on with a token of its owner."""
    with As(guarded, "alice") as speaker:
        path = speaker.request("POST", "/files", {**TUS, "Upload-Length": str(SIZE)}, b"")["location"]
        chunk = film.read_bytes()[:MIB]
        assert speaker.patch(guarded.url + path, 0, chunk).offset == MIB
    with Proxy(guarded.url, SLOW) as proxy:
        address = guarded.signed(path, expires_in=15).replace(guarded.url, proxy.url)
        window.open(f"{proxy.url}/#{address}")
        window.sees("Waits for its file", "#rest")
        assert "signature" not in str(window.look("location.href"))
        window.choose(small(tmp_path))
        window.sees("another size", "#now")
        window.click("[data-act=cancel]")
        window.sees("needs the scope delete", "#notice")
        window.reload()
        window.sees("Waits for its file", "#rest")
        window.choose(film)
        window.until(lambda: window.percent > 12, within=60, what="some more percent")
        window.sees("its time is over", "#now", within=60)
        window.give(guarded.token["alice"])
        window.closes("#ask")
        goes_on(window, proxy)
    is_stored(guarded, film.read_bytes())


@pytest.mark.rule("A-SCOPE-1", "L-RIGHT-1", "D-JSON-3")
@on_both
def test_one_that_is_too_narrow(windows: Windows, guarded: Guarded, tmp_path: Path) -> None:
    """What lacks is said, and the file goes on with what has it; what may not be done is not offered."""
    file = small(tmp_path)
    window = windows.window().open(guarded.url)
    window.give(guarded.token["no create"])
    window.closes("#ask")
    window.sees("may not send files", "#drop-note")
    window.drop(file)
    window.sees("needs the scope create", "#now")
    window.click("[data-act=credential]")
    window.give(guarded.token["no write"])
    window.sees("needs the scope write", "#now")
    window.click("[data-act=credential]")
    window.give(guarded.token["no read"])
    window.sees("Complete", "#over")
    assert window.look("document.querySelector('#over a')") is None
    is_stored(guarded, file.read_bytes())

    other = windows.window("other").open(guarded.url)
    other.give(guarded.token["no watch"])
    other.sees("Not live: this credential may not watch", "#link")
    other.sees("small.bin", "#over")
    other.drop(small(tmp_path, "second.bin"))
    other.sees("second.bin", "#over")
    assert other.look("document.querySelectorAll('#over a').length") == 2


@pytest.mark.rule("A-OWNER-1")
@on_both
def test_an_upload_waits_for_its_owner(window: Window, guarded: Guarded, film: Path, tmp_path: Path) -> None:
    """In one browser, one after the other: the other one neither sees it, nor begins it anew, nor loses it."""
    with Proxy(guarded.url, SLOW) as proxy:
        window.open(proxy.url)
        window.give(guarded.token["alice"])
        window.closes("#ask")
        window.drop(film)
        held = begun(window)
        window.click("#credential")
        window.give(guarded.token["bob"])
        window.sees("Waits for a credential", "#now")
        window.sees("begun as alice", "#now")
        window.drop(small(tmp_path))
        window.sees("small.bin", "#over")
        window.reload()
        window.sees("small.bin", "#over")
        window.sees("Live", "#link")
        assert "film.mkv" not in window.text("main")
        window.click("#credential")
        window.give(guarded.token["alice"])
        window.sees("film.mkv", "#now")
        window.until(lambda: window.percent >= held, within=60, what="the rest")
        assert "small.bin" not in window.text("main")
        goes_on(window, proxy)
    is_stored(guarded, film.read_bytes())
    (bobs,) = uploads(guarded, "bob")
    assert bobs["name"] == "small.bin"


@pytest.mark.rule("A-SIGN-1", "A-SIGN-2", "A-SIGN-4", "A-OWNER-1")
def test_a_browser_with_nothing_but_a_signed_url(window: Window, tmp_path: Path, workers: int) -> None:
    """It uploads one file, and can do nothing else."""
    file = small(tmp_path)
    with Guarded(tmp_path, workers, PEOPLE) as guarded:
        with As(guarded, "alice") as alice:
            other = alice.request("POST", "/files", {**TUS, "Upload-Length": "3"}, b"")["location"]
        endpoint = guarded.signed(name="kept.bin")
        window.open(f"{guarded.url}/#{endpoint}")
        window.sees("By a signed link", "#link")
        window.drop(file)
        window.sees("Complete", "#over")
        assert window.look("document.querySelector('#over a, #over button')") is None
        window.drop(small(tmp_path, "second.bin"))
        window.sees("Stopped", "#now")
        window.sees("second.bin", "#now")
        assert not window.look("Boolean(document.querySelector('#pulse').offsetHeight)")
        assert len(uploads(guarded)) == 2

        done = next(state["url"] for state in uploads(guarded) if state["state"] == "complete")
        creation = endpoint.partition("?")[2]
        attempts: list[tuple[str, str, dict[str, str], int]] = [
            ("POST", f"/files?{creation}", {**TUS, "Upload-Length": "3"}, 403),
            ("POST", "/files", {**TUS, "Upload-Length": "3"}, 401),
            ("GET", f"/api/uploads?{creation}", {}, 403),
            ("GET", f"/api/stats?{creation}", {}, 403),
            ("GET", f"/api/events?topic=all&{creation}", {}, 403),
            ("GET", f"/api/events?topic=owner:alice&{creation}", {}, 403),
            ("GET", "/api/uploads", {}, 401),
            *(
                (method, f"{path}?{creation}", fields, status)
                for path in (done, other)
                for method, fields, status in (
                    ("HEAD", TUS, 404),
                    ("GET", {}, 403),
                    ("DELETE", TUS, 403),
                    ("PATCH", {**TUS_BODY, "Upload-Offset": "0"}, 404),
                )
            ),
        ]
        tried = [{"method": method, "url": url, "headers": fields} for method, url, fields, _ in attempts]
        said = window.look(
            f"Promise.all({json.dumps(tried)}.map(async ({{ url, ...how }}) => (await fetch(url, how)).status))"
        )
        assert said == [status for *_, status in attempts]
        watches = f"""new Promise((end) => {{
            const socket = new WebSocket('/api/live?topic=all&{creation}')
            socket.onmessage = ({{ data }}) => JSON.parse(data).type === 'subscribed' && end('watches')
            socket.onclose = () => end('closed')
        }})"""
        assert window.look(watches) == "closed"
        eventually(lambda: len(uploads(guarded)) == 2, what="what there was before")
        with Speaker(guarded.url) as nobody:
            assert nobody.request("GET", "/api/uploads").status == 401
        with As(guarded, "alice") as alice:
            got = alice.get(done)
            assert got.body == file.read_bytes()
            assert "kept.bin" in got["content-disposition"]
        log = guarded.read_log()
        assert creation not in log
