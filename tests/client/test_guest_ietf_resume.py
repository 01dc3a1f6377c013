"""Our client at servers of the IETF draft: later processes, uploads of other clients, and a real server."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import holdfast
from holdfast import AsyncClient
from holdfast._transport import Transport
from holdfast.discovery import DISCOVERIES
from holdfast_protocol.drafts import DRAFTS
from holdfast_protocol.ietf_client import Guest
from tests.client.draft_loopback import DraftLoopback, lengths, methods, same
from tests.client.loopback import Loopback
from tests.support.process import CommandLine, ServerProcess
from tests.support.speaker import Speaker

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
MakeFile = Callable[..., Path]
MakeClient = Callable[..., AsyncClient]
StartServer = Callable[..., ServerProcess]


async def interrupted(path: Path, make_client: MakeClient, draft: DraftLoopback) -> None:
    """An upload of which the first MiB has arrived, by a client that is gone."""
    draft.order("PATCH", "cut", after=MIB)
    draft.order("PATCH", "answer", status=401)
    async with make_client() as client:
        with pytest.raises(holdfast.NotAuthorized):
            await client.upload(path, draft.url, protocol="ietf")


@pytest.mark.parametrize("version", ["3", "6", "9"])
async def test_a_later_process_goes_on(make_file: MakeFile, make_client: MakeClient, version: str) -> None:
    """The journal knows the URL, and the first HEAD finds out the version."""
    path = make_file(3 * MIB)
    with DraftLoopback(versions=(version,), limits=None) as draft:
        await interrupted(path, make_client, draft)
        draft.seen.clear()
        DISCOVERIES.forget()
        async with make_client() as client:
            result = await client.upload(path, draft.url)
        assert same(result, draft, path)
        assert result.bytes_resumed == MIB
        assert draft.requests("POST") == []
        assert {seen.fields["upload-draft-interop-version"] for seen in draft.requests("PATCH")} == {version}


@pytest.mark.rule("G-IETF-4")
async def test_a_later_process_does_not_touch_it_either(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback, tmp_path: Path
) -> None:
    path = make_file(2 * MIB)
    draft.limits = "max-age=3600"
    await interrupted(path, make_client, draft)
    with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
        ((expires,),) = db.execute("SELECT expires FROM upload").fetchall()
        assert 3000 < expires - time.time() < 3700
        db.execute("UPDATE upload SET expires = ?", (time.time() - 1,))
    db.close()
    draft.seen.clear()
    async with make_client() as client:
        await client.upload(path, draft.url, protocol="ietf")
    assert methods(draft) == ["POST", "PATCH"]


@pytest.mark.rule("G-RESUME-1")
async def test_an_upload_of_another_client_is_gone_on_with(
    make_file: MakeFile, make_client: MakeClient, draft: DraftLoopback
) -> None:
    path = make_file(3 * MIB)
    await interrupted(path, make_client, draft)
    (key,) = draft.uploads
    draft.seen.clear()
    async with make_client(state=path.parent / "another") as client:
        result = await client.upload(path, f"{draft.url}/{key}", resume=True, protocol="ietf")
    assert same(result, draft, path)
    assert (result.url, result.bytes_resumed) == (f"{draft.url}/{key}", MIB)
    assert [seen.method for seen in draft.seen if seen.method != "OPTIONS"] == ["HEAD", "PATCH"]


@pytest.mark.rule("G-RESUME-1")
@pytest.mark.parametrize(
    "loopback", [Loopback(), Loopback(parallel=False), DraftLoopback()], ids=["parallel", "tus", "ietf"]
)
async def test_it_is_neither_removed_nor_begun_anew(
    make_file: MakeFile, make_client: MakeClient, loopback: Loopback, tmp_path: Path
) -> None:
    path = make_file(MIB)
    with loopback:
        other = loopback.put("a" * 32, b"x" * 1000, stored=[(0, 500)])
        async with make_client() as client:
            with pytest.raises(holdfast.VerificationFailed, match="an upload of 1000 bytes, not of 1048576"):
                await client.upload(path, other, resume=True)
            with pytest.raises(holdfast.UploadGone):
                await client.upload(path, f"{loopback.url}/{'b' * 32}", resume=True)
        assert {seen.method for seen in loopback.seen} == {"OPTIONS", "HEAD"}
        assert list(loopback.uploads) == ["a" * 32]
    with sqlite3.connect(tmp_path / "state" / "journal.db") as db:
        assert db.execute("SELECT * FROM upload").fetchall() == []
    db.close()


@pytest.mark.rule("G-RESUME-1")
async def test_the_command_line_takes_the_url_of_an_upload(
    make_file: MakeFile, draft: DraftLoopback, holdfast_command: CommandLine
) -> None:
    """It prints that URL, as for an upload of its own."""
    path = make_file(MIB)
    other = draft.put("a" * 32, path.read_bytes()[:1000] + bytes(MIB - 1000), stored=[(0, 1000)])
    command = ("upload", str(path), "--resume", other, "--protocol", "ietf")
    done = await anyio.to_thread.run_sync(lambda: holdfast_command.run(*command))
    assert (done.returncode, done.stdout) == (0, f"{other}\n"), done.stderr
    assert bytes(draft.only().data) == path.read_bytes()
    assert lengths(draft) == [MIB - 1000]


@pytest.mark.rule("G-VERSION-1", "I-VERSION-1", "I-DIGEST-1")
@pytest.mark.parametrize("version", [3, 5, 6, 8, 9])
async def test_a_real_server_has_the_file(
    make_file: MakeFile, make_client: MakeClient, server: ServerProcess, speaker: Speaker, version: int
) -> None:
    """Ours, in each version."""
    path = make_file(20 * MIB + 4321, "Käse.mkv")
    transport = Transport()
    known = Guest(None)
    known.draft = DRAFTS[version]
    DISCOVERIES.learn(transport.session(server.url), known)
    async with make_client(timeouts=None) as client:
        result = await client.upload(path, f"{server.url}/files", protocol="ietf")
    await transport.aclose()
    assert (result.protocol, result.chunks, result.retries) == ("ietf", 3, 0)
    assert speaker.get(result.url).body == path.read_bytes()
    assert speaker.status(result.url)["name"] == "Käse.mkv"


@pytest.mark.rule("G-IETF-22", "G-IETF-23")
async def test_a_real_server_that_was_killed_gets_the_rest(
    make_file: MakeFile, make_client: MakeClient, start_server: StartServer
) -> None:
    path = make_file(24 * MIB)
    server = start_server()
    async with make_client(timeouts=None, limit_rate=12 * MIB) as client:
        transfer = client.upload(path, f"{server.url}/files", protocol="ietf")
        async for progress in transfer:
            if progress.accepted >= 8 * MIB:
                break
        await anyio.to_thread.run_sync(server.restart)
        result = await transfer
    assert result.retries >= 1
    with Speaker(server.url) as speaker:
        assert speaker.get(result.url).body == path.read_bytes()
