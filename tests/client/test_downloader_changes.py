"""Downloads of files that change at the server: never a file of two versions."""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from tests.support.scripted import Asked, Script, Scripted, good, head, ranges, without_sums

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[[Script], Scripted]


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
