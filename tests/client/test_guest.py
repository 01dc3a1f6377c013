"""The client at servers of others: what it takes of their offers, and what it does without them."""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

import holdfast
from holdfast import AsyncClient, UploadResult
from holdfast._transport import Transport
from holdfast.discovery import Discoveries
from holdfast_protocol.digest import digest
from tests.client.loopback import Loopback, Seen
from tests.support.process import CommandLine

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]


def same(result: UploadResult, loopback: Loopback, path: Path) -> bool:
    content = path.read_bytes()
    kept = loopback.uploads[result.url.rpartition("/")[2]]
    return bytes(kept.data) == content and result.digest == digest(result.digest.algorithm, content)


def is_append(seen: Seen) -> bool:
    return seen.fields.get("content-type") == "application/offset+octet-stream"


@pytest.mark.rule("G-TUS-1", "G-TUS-7")
async def test_a_server_is_asked_once(make_file: MakeFile, make_client: MakeClient, tus_only: Loopback) -> None:
    """By four uploads that start together, and by a second client of the process."""
    for turn in range(2):
        async with make_client() as client:
            for number in range(4):
                client.upload(make_file(1000, f"f{turn}{number}"), tus_only.url)
    (asked,) = tus_only.requests("OPTIONS")
    assert "tus-resumable" not in asked.fields
    assert len(tus_only.uploads) == 8


@pytest.mark.rule("G-TUS-1")
async def test_every_other_request_has_the_version(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    tus_only.order("PATCH", "cut", after=1000)
    tus_only.order("PATCH", "answer", status=410)
    async with make_client() as client:
        await client.upload(make_file(MIB), tus_only.url)
    assert {seen.method for seen in tus_only.seen} == {"OPTIONS", "POST", "PATCH", "HEAD", "DELETE"}
    others = [seen for seen in tus_only.seen if seen.method != "OPTIONS"]
    assert {seen.fields.get("tus-resumable") for seen in others} == {"1.0.0"}


@pytest.mark.rule("G-TUS-7", "G-TUS-14")
@pytest.mark.parametrize("kind", ["cut", "lose", "answer"])
async def test_a_server_without_good_options_is_plain_tus(
    make_file: MakeFile, make_client: MakeClient, kind: str
) -> None:
    path = make_file(1000)
    with Loopback(parallel=False, extensions=("creation-with-upload",)) as loopback:
        loopback.order("OPTIONS", kind, status=405)
        async with make_client() as client:
            result = await client.upload(path, loopback.url)
        assert same(result, loopback, path)
        assert [seen.method for seen in loopback.seen] == ["OPTIONS", "POST", "PATCH"]


async def test_what_was_said_is_forgotten_after_an_hour(tus_only: Loopback) -> None:
    now = 0.0
    discoveries = Discoveries(lambda: now)
    transport = Transport()
    session = transport.session(tus_only.url)
    for moment, asked in ((0.0, 1), (3599.0, 1), (3601.0, 2)):
        now = moment
        await discoveries.services(session)
        assert len(tus_only.requests("OPTIONS")) == asked
    await transport.aclose()


async def test_a_file_that_is_too_large_is_not_begun(make_file: MakeFile, make_client: MakeClient) -> None:
    path = make_file(1001)
    with Loopback(max_size=1000) as loopback:
        async with make_client() as client:
            with pytest.raises(holdfast.ServerRefused, match=r"at most 1000 bytes, and film\.mkv has 1001") as caught:
                await client.upload(path, loopback.url)
        assert (caught.value.status, caught.value.code) == (413, "upload-too-large")
        assert [seen.method for seen in loopback.seen] == ["OPTIONS"]


@pytest.fixture
def checking() -> Iterator[Loopback]:
    with Loopback(parallel=False, extensions=("creation", "checksum"), checksums=("md5", "sha1", "sha256")) as server:
        yield server


@pytest.mark.rule("G-TUS-16")
async def test_patches_carry_a_checksum(make_file: MakeFile, make_client: MakeClient, checking: Loopback) -> None:
    """In chunks, for such a PATCH is stored as a whole or not at all; whatever the digest of the whole file is."""
    path = make_file(3 * MIB + 5)
    async with make_client() as client:
        result = await client.upload(path, checking.url, chunk_size=MIB, checksum="sha-512")
    assert bytes(checking.only().data) == path.read_bytes()
    assert result.digest.value == hashlib.sha512(path.read_bytes()).digest()
    patches = checking.requests("PATCH")
    assert [seen.offset for seen in patches] == [0, MIB, 2 * MIB, 3 * MIB]
    assert all(seen.fields["upload-checksum"].startswith("sha256 ") for seen in patches)
    assert result.chunks == 4


@pytest.mark.rule("G-TUS-5")
async def test_without_the_extension_there_is_none(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback
) -> None:
    async with make_client() as client:
        await client.upload(make_file(9 * MIB), tus_only.url)
    (patch,) = tus_only.requests("PATCH")
    assert "upload-checksum" not in patch.fields


async def test_a_chunk_that_was_cut_goes_again(
    make_file: MakeFile, make_client: MakeClient, checking: Loopback
) -> None:
    """Nothing of it was stored; what came before it was."""
    path = make_file(3 * MIB)
    checking.order("PATCH", "cut", after=500_000, when=lambda seen: seen.offset == MIB)
    async with make_client() as client:
        result = await client.upload(path, checking.url, chunk_size=MIB)
    assert same(result, checking, path)
    assert [seen.offset for seen in checking.requests("PATCH")] == [0, MIB, MIB, 2 * MIB]


@pytest.mark.rule("G-TUS-16")
async def test_460_is_repeated_once_for_each_chunk(
    make_file: MakeFile, make_client: MakeClient, checking: Loopback
) -> None:
    path = make_file(2 * MIB)
    for offset in (0, MIB):
        checking.order("PATCH", "answer", status=460, when=lambda seen, offset=offset: seen.offset == offset)
    async with make_client() as client:
        result = await client.upload(path, checking.url, chunk_size=MIB)
    assert same(result, checking, path)
    assert result.retries == 2


async def test_460_that_stays_is_an_error(make_file: MakeFile, make_client: MakeClient, checking: Loopback) -> None:
    checking.order("PATCH", "answer", status=460, times=99)
    async with make_client() as client:
        with pytest.raises(holdfast.VerificationFailed, match="damaged twice"):
            await client.upload(make_file(MIB), checking.url)
    assert len(checking.requests("PATCH")) == 2


async def test_a_checksum_that_is_refused_after_all_is_left_out(
    make_file: MakeFile, make_client: MakeClient, checking: Loopback
) -> None:
    path = make_file(MIB)
    checking.order("PATCH", "answer", status=400)
    async with make_client() as client:
        result = await client.upload(path, checking.url)
    assert same(result, checking, path)
    assert ["upload-checksum" in seen.fields for seen in checking.requests("PATCH")] == [True, False]


@pytest.fixture
def welcoming() -> Iterator[Loopback]:
    extensions = ("creation", "creation-with-upload", "checksum")
    with Loopback(parallel=False, extensions=extensions, checksums=("sha256",)) as server:
        yield server


@pytest.mark.rule("G-TUS-9", "G-TUS-13", "G-TUS-14")
async def test_a_small_file_is_one_request(make_file: MakeFile, make_client: MakeClient, welcoming: Loopback) -> None:
    path = make_file(MIB)
    async with make_client() as client:
        result = await client.upload(path, welcoming.url, metadata={"project": "x"})
    assert same(result, welcoming, path)
    assert [seen.method for seen in welcoming.seen] == ["OPTIONS", "POST"]
    (post,) = welcoming.requests("POST")
    assert is_append(post)
    assert post.fields["upload-length"] == str(MIB)
    assert "project eA==" in post.fields["upload-metadata"]
    assert post.fields["upload-checksum"].startswith("sha256 ")
    assert (result.chunks, result.bytes_sent, result.bytes_resumed) == (1, MIB, 0)


@pytest.mark.parametrize("size", [0, MIB + 1])
async def test_other_files_are_begun_first(
    make_file: MakeFile, make_client: MakeClient, welcoming: Loopback, size: int
) -> None:
    path = make_file(size)
    async with make_client() as client:
        result = await client.upload(path, welcoming.url)
    assert same(result, welcoming, path)
    assert not is_append(welcoming.requests("POST")[0])


@pytest.mark.parametrize("kind", ["cut", "lose"])
async def test_a_creation_with_bytes_that_fails_is_made_again(
    make_file: MakeFile, make_client: MakeClient, welcoming: Loopback, kind: str
) -> None:
    path = make_file(100_000)
    welcoming.order("POST", kind, after=5000)
    async with make_client() as client:
        result = await client.upload(path, welcoming.url)
    assert same(result, welcoming, path)
    assert result.retries == 1


async def test_damage_in_a_creation_is_repeated_once(
    make_file: MakeFile, make_client: MakeClient, welcoming: Loopback
) -> None:
    path = make_file(100_000)
    welcoming.order("POST", "answer", status=460)
    async with make_client() as client:
        result = await client.upload(path, welcoming.url)
        assert same(result, welcoming, path)
        welcoming.order("POST", "answer", status=460, times=99)
        with pytest.raises(holdfast.VerificationFailed, match="damaged twice"):
            await client.upload(make_file(100_000, "other"), welcoming.url)
    assert len(welcoming.requests("POST")) == 4


async def test_a_server_that_keeps_only_a_part_of_it_gets_the_rest(
    make_file: MakeFile, make_client: MakeClient, welcoming: Loopback
) -> None:
    path = make_file(100_000)
    place = welcoming.put("f" * 32, path.read_bytes()[:40_000] + bytes(60_000), stored=[(0, 40_000)])
    welcoming.order("POST", "answer", status=201, fields={"Location": place, "Upload-Offset": "40000"})
    async with make_client() as client:
        result = await client.upload(path, welcoming.url)
    assert same(result, welcoming, path)
    assert [seen.offset for seen in welcoming.requests("PATCH")] == [40_000]


async def test_a_server_that_does_not_say_how_much_it_kept_is_asked(
    make_file: MakeFile, make_client: MakeClient, welcoming: Loopback
) -> None:
    path = make_file(100_000)
    place = welcoming.put("f" * 32, path.read_bytes(), stored=[(0, 100_000)])
    welcoming.order("POST", "answer", status=201, fields={"Location": place})
    async with make_client() as client:
        result = await client.upload(path, welcoming.url)
    assert same(result, welcoming, path)
    assert [seen.method for seen in welcoming.seen] == ["OPTIONS", "POST", "HEAD"]


@pytest.mark.rule("G-TUS-2")
@pytest.mark.rule("T-METHOD-1")
@pytest.mark.parametrize("parallel", [True, False])
async def test_patch_and_delete_can_go_as_post(make_file: MakeFile, make_client: MakeClient, parallel: bool) -> None:
    path = make_file(MIB)
    with Loopback(parallel=parallel) as loopback:
        loopback.order("PATCH", "answer", status=410)
        async with make_client(override_method=True) as client:
            result = await client.upload(path, loopback.url)
        assert same(result, loopback, path)
        for method in ("PATCH", "DELETE"):
            assert {seen.fields.get("x-http-method-override") for seen in loopback.requests(method)} == {method}
        assert not any("x-http-method-override" in seen.fields for seen in loopback.requests("HEAD"))
        assert not any("x-http-method-override" in seen.fields for seen in loopback.requests("POST"))


async def test_the_command_line_can_send_patch_as_post(
    make_file: MakeFile, tus_only: Loopback, holdfast_command: CommandLine
) -> None:
    path = make_file(MIB)
    command = ("upload", str(path), "--to", tus_only.url, "--override-method")
    done = await anyio.to_thread.run_sync(lambda: holdfast_command.run(*command))
    assert done.returncode == 0, done.stderr
    assert [seen.fields["x-http-method-override"] for seen in tus_only.requests("PATCH")] == ["PATCH"]
    assert bytes(tus_only.only().data) == path.read_bytes()


async def begun(path: Path, make_client: MakeClient, loopback: Loopback, half: int = MIB) -> None:
    """An upload of which half has arrived."""
    loopback.order("PATCH", "cut", after=half, when=lambda seen: seen.offset == 0)
    loopback.order("PATCH", "answer", status=401)
    async with make_client() as client:
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, loopback.url)
    assert loopback.only().stored.prefix == half
    loopback.seen.clear()


@pytest.mark.rule("G-TUS-15")
async def test_an_upload_that_has_expired_is_begun_anew_without_asking(
    make_file: MakeFile, make_client: MakeClient
) -> None:
    path = make_file(2 * MIB)
    with Loopback(parallel=False, lifetime=-5) as loopback:
        await begun(path, make_client, loopback)
        async with make_client() as client:
            result = await client.upload(path, loopback.url)
        assert same(result, loopback, path)
        assert [seen.method for seen in loopback.seen] == ["POST", "PATCH"]


async def test_one_that_has_not_expired_is_gone_on_with(make_file: MakeFile, make_client: MakeClient) -> None:
    path = make_file(2 * MIB)
    with Loopback(parallel=False, lifetime=3600) as loopback:
        await begun(path, make_client, loopback)
        async with make_client() as client:
            result = await client.upload(path, loopback.url)
        assert same(result, loopback, path)
        assert [(seen.method, seen.offset) for seen in loopback.seen] == [("HEAD", None), ("PATCH", MIB)]


async def test_expiry_is_read_by_the_clock_of_the_server(
    make_file: MakeFile, make_client: MakeClient, tmp_path: Path
) -> None:
    """The server's clock is a day ahead or behind; what counts is how long from its own now."""
    path = make_file(2 * MIB)
    with Loopback(parallel=False) as loopback:
        said = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT", "Upload-Expires": "Sun, 06 Nov 1994 09:49:37 GMT"}
        place = loopback.put("f" * 32, bytes(2 * MIB), stored=[])
        loopback.order("POST", "answer", status=201, fields={"Location": place, **said})
        loopback.order("PATCH", "answer", status=401)
        async with make_client() as client:
            with pytest.raises(holdfast.NotAuthorized):
                await client.upload(path, loopback.url)
        with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
            ((expires,),) = db.execute("SELECT expires FROM upload").fetchall()
        db.close()
        assert 3000 < expires - time.time() < 3700


@pytest.mark.parametrize("parallel", [True, False])
async def test_what_the_server_says_later_goes_before(
    make_file: MakeFile, make_client: MakeClient, parallel: bool, tmp_path: Path
) -> None:
    """Each answer may move the end on; the journal has the last word of the server."""
    path = make_file(2 * MIB)
    with Loopback(parallel=parallel, lifetime=100) as loopback:

        def longer(seen: Seen) -> bool:
            loopback.lifetime = 7200
            return False

        loopback.order("PATCH", "cut", when=longer)
        loopback.order("PATCH", "answer", status=401, when=lambda seen: seen.offset == MIB)
        async with make_client() as client:
            with pytest.raises(holdfast.NotAuthorized):
                await client.upload(path, loopback.url, chunk_size=MIB, concurrency=1)
        with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
            ((expires,),) = db.execute("SELECT expires FROM upload").fetchall()
        db.close()
        assert expires > time.time() + 3600


@pytest.mark.rule("G-TUS-15")
@pytest.mark.parametrize("status", [404, 410])
async def test_an_upload_that_the_server_has_removed_is_begun_anew(
    make_file: MakeFile, make_client: MakeClient, tus_only: Loopback, status: int
) -> None:
    path = make_file(2 * MIB)
    await begun(path, make_client, tus_only)
    tus_only.order("HEAD", "answer", status=status)
    async with make_client() as client:
        result = await client.upload(path, tus_only.url)
    assert same(result, tus_only, path)
    assert [seen.method for seen in tus_only.seen if seen.method != "DELETE"] == ["HEAD", "POST", "PATCH"]
