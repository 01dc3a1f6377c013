"""Downloads as bytes: framings, codings, lengths that are not so, connections that break: the right file or none."""

import gzip
import random
import ssl
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from holdfast_protocol.digest import digest
from tests.support.scripted import Asked, Script, Scripted, good, head, ranges, without_sums

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[[Script], Scripted]


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
