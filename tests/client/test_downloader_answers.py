"""What servers say beside the bytes of a download: where they are, their digest, their name, their length, or no."""

from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient
from holdfast_protocol.digest import digest
from tests.support.scripted import Asked, Script, Scripted, good, head, without_sums

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[[Script], Scripted]


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


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("f*")]


async def test_room_is_looked_for_first(make_client: MakeClient, serve: Serve, tmp_path: Path) -> None:
    size = 1 << 59
    server = serve(
        lambda asked: [head(206, f"Content-Range: bytes 0-{size - 1}/{size}", f"Content-Length: {size}", 'ETag: "x"')]
    )
    async with make_client() as client:
        with pytest.raises(holdfast.TargetUnwritable, match="has room for"):
            await client.download(f"{server.url}/f", tmp_path / "f")
    assert names(tmp_path) == []


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
