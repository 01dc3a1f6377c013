"""Downloads from servers that are odd, lie, or break: the right bytes or a clear failure, never a wrong file."""

import gzip
import random
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import AsyncClient, Timeouts
from holdfast._wire import Network, Wire
from holdfast_protocol.digest import digest
from tests.support.scripted import Asked, Script, Scripted, good, head

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[[Script], Scripted]


@pytest.fixture
def content(rng: random.Random) -> bytes:
    return rng.randbytes(6 * MIB + 11)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(Scripted(script))


def without_sums(script: Script) -> Script:
    """There is no .sha256 file."""

    def whole(asked: Asked) -> Iterable[bytes]:
        if asked.path.endswith(".sha256"):
            return [head(404, "Content-Length: 0")]
        return script(asked)

    return whole


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("f*")]


def wait_for(probe: Callable[[], object]) -> None:
    """In a server's thread; the test fails without it if it never comes true."""
    for _ in range(1000):
        if probe():
            return
        time.sleep(0.01)


def ranges(server: Scripted) -> list[str | None]:
    return [each.fields.get("range") for each in server.asked if not each.path.endswith(".sha256")]


@pytest.mark.rule("G-GET-1")
async def test_the_first_answer_is_used(make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path) -> None:
    """A file that one connection brings costs one request."""
    server = serve(without_sums(lambda asked: good(content[:MIB], asked)))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", folder=tmp_path)
    assert result.path.read_bytes() == content[:MIB]
    assert ranges(server) == ["bytes=0-"]
    assert (result.segments, result.digest) == (1, None)


@pytest.mark.rule("G-GET-4")
@pytest.mark.parametrize("kind", ["no length", "chunked", "old", "no ranges"])
async def test_one_stream_of_any_framing(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, kind: str
) -> None:
    def script(asked: Asked) -> list[bytes]:
        match kind:
            case "no length":
                return [head(200), content]
            case "chunked":
                pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (content[:70_000], content[70_000:])]
                return [head(200, "Transfer-Encoding: chunked", 'ETag: "x"'), *pieces, b"0\r\n\r\n"]
            case "old":
                return [b"HTTP/1.0 200 OK\r\n\r\n", content]
            case _:
                return [head(200, f"Content-Length: {len(content)}", 'ETag: "x"', "Accept-Ranges: bytes"), content]

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f")
    assert result.path.read_bytes() == content
    assert ranges(server) == ["bytes=0-"]


@pytest.mark.rule("G-GET-4")
async def test_a_chunked_stream_that_breaks_is_begun_anew(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """Nothing is appended to what came before."""

    def script(asked: Asked) -> list[bytes]:
        first = b"%x\r\n%b\r\n" % (MIB, content[:MIB] if asked.number == 0 else bytes(MIB))
        if ranges(server) == ["bytes=0-"]:
            return [head(200, "Transfer-Encoding: chunked"), first]
        return [head(200, "Transfer-Encoding: chunked"), first, b"0\r\n\r\n"]

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f")
    assert result.path.read_bytes() == bytes(MIB)
    assert result.retries == 1


@pytest.mark.rule("G-GET-4")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_content_coding_is_taken_off(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, coding: str
) -> None:
    coded = gzip.compress(content, 1) if coding == "gzip" else zlib.compress(content, 1)
    server = serve(without_sums(lambda asked: good(coded, asked, f"Content-Encoding: {coding}")))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", checksum=digest("sha-256", content))
    assert result.path.read_bytes() == content
    assert result.size == len(content)


@pytest.mark.rule("G-GET-4")
async def test_a_file_that_is_compressed_by_its_name_stays_so(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    coded = gzip.compress(content, 1)
    server = serve(without_sums(lambda asked: good(coded, asked, "Content-Encoding: gzip")))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f.tar.gz", folder=tmp_path)
    assert result.path.read_bytes() == coded


async def test_a_coding_that_nobody_asked_for_is_refused(make_client: MakeClient, serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda asked: good(b"x", asked, "Content-Encoding: br"))
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="content coding br"):
            await client.download(f"{server.url}/f", folder=tmp_path)


@pytest.mark.parametrize("short", ["bytes", "total"])
async def test_a_length_that_is_not_so(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, short: str
) -> None:
    """It says more than it has, in Content-Length or in the total of Content-Range, and never brings the rest."""

    def script(asked: Asked) -> list[bytes]:
        if short == "bytes":
            return [head(200, f"Content-Length: {len(content) + 10}"), content]
        padded = content + bytes(10)
        answer = good(padded, asked)
        start, end = asked.span(len(padded)) or (0, 0)
        return [answer[0], padded[start : min(end, len(content))]]

    server = serve(without_sums(script))
    async with make_client() as client:
        with pytest.raises(holdfast.ConnectionFailed, match="gave up after 3 attempts") as caught:
            await client.download(f"{server.url}/f", tmp_path / "f", max_attempts=3)
    assert ("will begin anew" if short == "bytes" else "What was received is kept") in str(caught.value)
    assert not (tmp_path / "f").exists()


async def test_a_range_that_is_longer_than_it_says(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """What comes beyond Content-Length is not of the file."""

    def script(asked: Asked) -> list[bytes]:
        return [*good(content, asked), b"more than that"]

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", checksum=digest("sha-256", content))
    assert result.path.read_bytes() == content


async def test_every_connection_is_cut(
    make_client: MakeClient, serve: Serve, rng: random.Random, tmp_path: Path
) -> None:
    """Each after 5 MiB; whatever came counts."""
    content = rng.randbytes(48 * MIB)

    def script(asked: Asked) -> list[bytes]:
        answer = good(content, asked)
        return [answer[0], answer[1][: 5 * MIB]]

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", segments=3, max_attempts=2)
    assert result.path.read_bytes() == content
    assert result.bytes_received <= len(content) + 8 * MIB
    assert result.retries > 3


async def test_503_now_and_then(make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path) -> None:
    def script(asked: Asked) -> list[bytes]:
        if asked.number % 3 == 1:
            return [head(503, "Content-Length: 0", "Retry-After: 0")]
        answer = good(content, asked)
        return [answer[0], answer[1][:MIB]]

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f")
    assert result.path.read_bytes() == content


@pytest.mark.rule("G-GET-3")
@pytest.mark.parametrize("seen", ["by If-Range", "by the ETag alone"])
async def test_a_file_that_changes_in_the_middle(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, seen: str
) -> None:
    """Also at a server that does not know If-Range. What was received of the old one is not used."""
    other = bytes(reversed(content))

    def script(asked: Asked) -> list[bytes]:
        if asked.number < 3:
            answer = good(content, asked)
            return [answer[0], answer[1][: 400 * 1024]]
        fields = dict(asked.fields)
        if seen != "by If-Range":
            fields.pop("if-range", None)
        return good(other, Asked(asked.number, asked.path, fields), etag='"two"')

    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f")
    assert result.path.read_bytes() == other


@pytest.mark.rule("G-GET-3")
async def test_a_file_that_changes_all_the_time(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    def script(asked: Asked) -> list[bytes]:
        answer = good(content, asked, etag=f'"{asked.number}"')
        return [answer[0], answer[1][:1000]]

    server = serve(without_sums(script))
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="changes all the time"):
            await client.download(f"{server.url}/f", tmp_path / "f", max_attempts=3)
    assert not (tmp_path / "f").exists()


@pytest.mark.rule("G-GET-3")
async def test_416_is_compared(make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path) -> None:
    """With the length that is known it is a refusal; with another one the file has changed."""
    shorter = content[: MIB // 2]

    def script(asked: Asked) -> list[bytes]:
        if asked.number == 0:
            return [good(content, asked)[0], content[:MIB]]
        if said := asked.fields.get("if-range"):
            assert said == '"one"'
            return [head(416, f"Content-Range: bytes */{size}", "Content-Length: 0")]
        return good(shorter, asked, etag='"two"')

    server = serve(without_sums(script))
    size = len(content)
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="refuses the range"):
            await client.download(f"{server.url}/f", tmp_path / "f")
        server.asked.clear()
        size = len(shorter)
        result = await client.download(f"{server.url}/f", tmp_path / "g")
    assert result.path.read_bytes() == shorter


@pytest.mark.rule("G-GET-2")
async def test_an_old_date_pins_where_there_is_no_etag(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """If it is a minute older than the answer; a younger one may be of two versions."""
    dates = ["Date: Sat, 28 Nov 2026 12:00:00 GMT", "Last-Modified: Sat, 28 Nov 2026 11:59:00 GMT"]

    def script(asked: Asked) -> list[bytes]:
        fields = {name: value for name, value in asked.fields.items() if name != "if-range"}
        answer = good(content, Asked(asked.number, asked.path, fields), *dates)
        return [answer[0].replace(b'ETag: "one"\r\n', b""), answer[1]]

    server = serve(without_sums(script))
    async with make_client() as client:
        await client.download(f"{server.url}/f", tmp_path / "f")
        assert {each.fields.get("if-range") for each in server.asked[1:] if "if-range" in each.fields} == {
            "Sat, 28 Nov 2026 11:59:00 GMT"
        }
        assert len(ranges(server)) > 1
        server.asked.clear()
        dates[1] = "Last-Modified: Sat, 28 Nov 2026 11:59:01 GMT"
        await client.download(f"{server.url}/f", tmp_path / "g")
    assert ranges(server) == ["bytes=0-"]
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes() == content


@pytest.mark.rule("G-GET-6")
async def test_redirects_are_followed(make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path) -> None:
    """The name is that of the URL that was asked for; secrets stay where they belong."""
    other = serve(without_sums(lambda asked: good(content, asked)))

    def script(asked: Asked) -> list[bytes]:
        place = f"{other.url}/blob?token=1" if asked.path == "/b" else "/b"
        return [head(302, f"Location: {place}", "Content-Length: 0")]

    server = serve(script)
    async with make_client(headers={"Authorization": "Bearer secret"}) as client:
        result = await client.download(f"{server.url}/film.mkv", folder=tmp_path)
    assert result.path == tmp_path / "film.mkv"
    assert result.path.read_bytes() == content
    assert all(each.fields["authorization"] == "Bearer secret" for each in server.asked)
    assert all("authorization" not in each.fields for each in other.asked)
    # The further ranges are asked for where the first one was.
    assert [each.path for each in server.asked][:2] == ["/film.mkv", "/b"]
    assert [each.path for each in server.asked].count("/film.mkv") == 1


@pytest.mark.rule("G-GET-6")
async def test_a_place_that_was_for_a_time_is_asked_for_anew(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    def script(asked: Asked) -> list[bytes]:
        if asked.path == "/f":
            tokens.append(len(tokens))
            return [head(307, f"Location: /blob?{tokens[-1]}", "Content-Length: 0")]
        if asked.path != f"/blob?{tokens[-1]}" or (tokens[-1] == 0 and "if-range" in asked.fields):
            return [head(403, "Content-Length: 0")]
        answer = good(content, asked)
        return [answer[0], answer[1][: MIB if tokens[-1] == 0 else None]]

    tokens: list[int] = []
    server = serve(without_sums(script))
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", segments=1)
    assert result.path.read_bytes() == content
    assert tokens == [0, 1]


@pytest.mark.rule("G-GET-6")
@pytest.mark.parametrize("place", ["/f", "ftp://127.0.0.1/f", "", "/g"])
async def test_a_redirect_that_leads_nowhere(make_client: MakeClient, serve: Serve, tmp_path: Path, place: str) -> None:
    def script(asked: Asked) -> list[bytes]:
        return [head(301, f"Location: {place}{asked.number if place == '/g' else ''}", "Content-Length: 0")]

    server = serve(script)
    async with make_client() as client:
        with pytest.raises(holdfast.BrokenProtocol, match="redirects"):
            await client.download(f"{server.url}/f", folder=tmp_path)
    assert len(server.asked) <= 10


@pytest.mark.rule("G-GET-5")
@pytest.mark.parametrize("form", ["bare", "text", "binary", "several", "bsd"])
async def test_a_sum_beside_the_file(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, form: str
) -> None:
    """What sha256sum writes, and what others write."""
    sums = {
        "bare": "{0}\n",
        "text": "{0}  f\n",
        "binary": "{0} *out/f\n",
        "several": "# sums\n" + "0" * 64 + "  other\n{0}  f\n",
        "bsd": "SHA256 (f) = {0}\n",
    }
    good_one = digest("sha-256", content)
    said = good_one.hex

    def script(asked: Asked) -> list[bytes]:
        if asked.path.endswith(".sha256"):
            text = sums[form].format(said).encode()
            return [head(200, f"Content-Length: {len(text)}"), text]
        return good(content, asked)

    server = serve(script)
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", folder=tmp_path)
        assert result.digest == good_one
        said = digest("sha-256", b"another file").hex
        with pytest.raises(holdfast.VerificationFailed, match=r"/f\.sha256 says"):
            await client.download(f"{server.url}/f", tmp_path / "g")
    assert not (tmp_path / "g").exists()


@pytest.mark.rule("G-GET-5")
async def test_a_page_that_says_not_found_is_no_sum(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """Some servers have an answer to everything."""

    def script(asked: Asked) -> list[bytes]:
        if asked.path.endswith(".sha256"):
            return [head(200), b"<html>" + b"x" * 100_000]
        return good(content, asked)

    server = serve(script)
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", folder=tmp_path)
    assert (result.path.read_bytes(), result.digest) == (content, None)


@pytest.mark.rule("G-GET-5")
async def test_the_older_digest_field(make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path) -> None:
    said = "Digest: md5=AAAA, SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    server = serve(lambda asked: good(content, asked, said))
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match="sha-256"):
            await client.download(f"{server.url}/f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


@pytest.mark.rule("G-GET-8")
@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("attachment; filename=plain.txt; filename*=UTF-8''na%C3%AFve%20file.txt", "naïve file.txt"),
        ("attachment; filename*=UTF-8''..%2F..%2Fup.txt", "up.txt"),
        ('attachment; filename="C:\\\\windows\\\\con"', "_con"),
        ("inline", "f d.bin"),
        ('attachment; filename=".."', "download"),
    ],
)
async def test_the_name_is_safe(make_client: MakeClient, serve: Serve, tmp_path: Path, said: str, name: str) -> None:
    server = serve(without_sums(lambda asked: good(b"abc", asked, f"Content-Disposition: {said}")))
    async with make_client() as client:
        result = await client.download(f"{server.url}/x/f%20d.bin?query=1", folder=tmp_path / "in")
    assert result.path == tmp_path / "in" / name


async def test_a_slow_connection_loses_its_work(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """One of them stands still for longer than the test takes; another one brings what it had before it."""

    def script(asked: Asked) -> Iterator[bytes]:
        answer = good(content, asked)
        yield answer[0]
        if stands_still(asked):
            yield answer[1][:1000]
            for _ in range(600):
                yield b""
                stalled.wait(0.1)
                if stalled.is_set():
                    return
        yield answer[1]

    def stands_still(asked: Asked) -> bool:
        """The first one that is asked for a range."""
        pinned = [each for each in server.asked if "if-range" in each.fields]
        return bool(pinned) and asked.number == pinned[0].number

    stalled = threading.Event()
    server = serve(without_sums(script))
    async with make_client(timeouts=Timeouts(connect=5, stall=60, response=5)) as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", segments=4)
    stalled.set()
    assert result.path.read_bytes() == content
    assert result.seconds < 30
    assert result.retries == 0


@pytest.mark.parametrize("most", [1, 2, 4])
async def test_never_more_connections_than_were_asked_for(
    make_client: MakeClient,
    serve: Serve,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    """With a sum beside the file, a slow connection that others take over from, and some that break: counted here, as a
    server may hear of an end later than of the next begin.
    """
    open_, counts = set[object](), [0]
    connect, close = Network.connect_tcp, Wire.aclose

    async def connected(self: Network, *given: Any, **more: Any) -> Wire:
        place = object()
        open_.add(place)
        counts.append(len(open_))
        try:
            wire = await connect(self, *given, **more)
        finally:
            open_.remove(place)
        open_.add(wire)
        return wire

    async def closed(self: Wire) -> None:
        await close(self)
        open_.discard(self)

    def script(asked: Asked) -> Iterator[bytes]:
        if asked.path.endswith(".sha256"):
            text = digest("sha-256", content).hex.encode()
            yield from (head(200, f"Content-Length: {len(text)}"), text)
            return
        answer = good(content, asked)
        yield answer[0]
        if asked.number % 5 == 3:
            yield answer[1][:200_000]
            return
        if asked.fields["range"] == "bytes=0-" and most > 1:
            for at in range(0, 2 * MIB, 64 * 1024):
                yield answer[1][at : at + 64 * 1024]
                time.sleep(0.07)
            answer[1] = answer[1][2 * MIB :]
        yield answer[1]

    monkeypatch.setattr(Network, "connect_tcp", connected)
    monkeypatch.setattr(Wire, "aclose", closed)
    server = serve(script)
    async with make_client() as client:
        result = await client.download(f"{server.url}/f", tmp_path / "f", segments=most)
    assert result.path.read_bytes() == content
    assert result.digest == digest("sha-256", content)
    assert min(2, most) <= max(counts) <= most
    assert not open_


async def test_room_is_looked_for_first(make_client: MakeClient, serve: Serve, tmp_path: Path) -> None:
    size = 1 << 59
    server = serve(
        lambda asked: [head(206, f"Content-Range: bytes 0-{size - 1}/{size}", f"Content-Length: {size}", 'ETag: "x"')]
    )
    async with make_client() as client:
        with pytest.raises(holdfast.TargetUnwritable, match="has room for"):
            await client.download(f"{server.url}/f", tmp_path / "f")
    assert names(tmp_path) == []


@pytest.mark.rule("G-GET-7")
async def test_mirrors_work_together(make_client: MakeClient, serve: Serve, rng: random.Random, tmp_path: Path) -> None:
    """Two of the same ETag, one with another file, one that is not there, one that breaks off for good."""
    content = rng.randbytes(16 * MIB)
    broken = False

    def breaks(asked: Asked) -> list[bytes]:
        nonlocal broken
        if broken:
            return [head(404, "Content-Length: 0")]
        broken = broken or "if-range" in asked.fields
        return good(content, asked)

    def waits(asked: Asked) -> Iterator[bytes]:
        """Until all others were asked, and one of them was used."""
        answer = good(content, asked)
        yield answer[0]
        yield answer[1][:MIB]
        wait_for(lambda: gone.asked and any("if-range" in each.fields for each in two.asked))
        yield answer[1][MIB:]

    one = serve(without_sums(waits))
    two = serve(without_sums(lambda asked: good(content, asked)))
    bad = serve(without_sums(lambda asked: good(content[:-1], asked)))
    odd = serve(without_sums(lambda asked: good(bytes(len(content)), asked, etag='"other"')))
    gone = serve(lambda asked: [head(404, "Content-Length: 0")])
    dying = serve(without_sums(breaks))
    mirrors = [f"{each.url}/f" for each in (two, bad, odd, gone, dying)]
    async with make_client() as client:
        result = await client.download(f"{one.url}/f", tmp_path / "f", mirrors=mirrors, segments=2)
    assert result.path.read_bytes() == content
    assert any("if-range" in each.fields for each in two.asked)
    for each in (bad, odd, gone):
        assert not any("if-range" in asked.fields for asked in each.asked)


async def test_a_refusal_without_words_has_those_of_its_status(
    make_client: MakeClient, serve: Serve, tmp_path: Path
) -> None:
    nowhere = serve(lambda asked: [head(404, "Content-Length: 0")])
    odd = serve(lambda asked: [head(499, "Content-Length: 0")])
    async with make_client() as client:
        with pytest.raises(holdfast.UploadGone, match=r"\(404: Not Found\); check the URL"):
            await client.download(f"{nowhere.url}/f", tmp_path / "f")
        with pytest.raises(holdfast.ServerRefused, match=r"\(499\): without saying why"):
            await client.download(f"{odd.url}/f", tmp_path / "f")


@pytest.mark.rule("G-GET-7")
async def test_a_mirror_carries_on_where_the_first_one_fails(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    def script(asked: Asked) -> list[bytes]:
        if asked.number:
            return [head(410, "Content-Length: 0")]
        return [good(content, asked)[0], content[:MIB]]

    one, two = serve(without_sums(script)), serve(without_sums(lambda asked: good(content, asked)))
    async with make_client() as client:
        result = await client.download(f"{one.url}/f", tmp_path / "f", mirrors=[f"{two.url}/f"], segments=1)
        assert result.path.read_bytes() == content
        # And where the first one does not even begin.
        result = await client.download(f"{one.url}/f", tmp_path / "g", mirrors=[f"{two.url}/f"])
    assert result.path.read_bytes() == content


@pytest.mark.rule("G-GET-7")
async def test_a_digest_makes_mirrors_of_different_servers(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """Their ETags differ; the digest is compared in the end, and finds out a mirror that lied."""
    one = serve(without_sums(lambda asked: good(content, asked)))
    two = serve(without_sums(lambda asked: good(content, asked, etag='"two"')))
    liar = serve(without_sums(lambda asked: good(bytes(len(content)), asked, etag='"three"')))
    sum_ = digest("sha-256", content)

    def dies(asked: Asked) -> list[bytes]:
        answer = good(content, asked)
        return [answer[0], answer[1][:1000]] if not asked.number else [head(404, "Content-Length: 0")]

    async with make_client() as client:
        result = await client.download(f"{one.url}/f", tmp_path / "f", mirrors=[f"{two.url}/f"], checksum=sum_)
        assert result.path.read_bytes() == content
        assert {each.fields["if-range"] for each in two.asked if "if-range" in each.fields} <= {'"two"'}
        server = serve(without_sums(dies))
        with pytest.raises(holdfast.VerificationFailed):
            await client.download(f"{server.url}/f", tmp_path / "g", mirrors=[f"{liar.url}/f"], checksum=sum_)
    assert not (tmp_path / "g").exists()


async def test_over_tls(make_client: MakeClient, certificate: Path, rng: random.Random, tmp_path: Path) -> None:
    """The road from socket to file is the same; a certificate that nobody vouches for ends it."""
    content = rng.randbytes(40 * MIB)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    with Scripted(without_sums(lambda asked: good(content, asked)), ours) as server:
        async with make_client(verify=trusting) as client:
            result = await client.download(f"{server.url}/f", tmp_path / "f", segments=3)
        assert result.path.read_bytes() == content
        async with make_client() as client:
            with pytest.raises(holdfast.ServerUntrusted, match="certificate"):
                await client.download(f"{server.url}/f", tmp_path / "g")
