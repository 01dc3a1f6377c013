"""Downloads over several connections and from several servers, of which some are slow, lie, or break off."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import AsyncClient, Timeouts
from holdfast._wire import Network, Wire
from holdfast_protocol.digest import digest
from tests.support.scripted import Asked, Script, Scripted, good, head, without_sums

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[[Script], Scripted]


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


def wait_for(probe: Callable[[], object]) -> None:
    """In a server's thread; the test fails without it if it never comes true."""
    for _ in range(1000):
        if probe():
            return
        time.sleep(0.01)


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
