"""Downloads by FTP and FTPS from pyftpdlib."""

import os
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import holdfast
from holdfast import AsyncClient, Timeouts, ftp
from holdfast.ftp import login_for, parse_url
from holdfast_protocol.digest import digest
from tests.support.ftp_server import FtpServer
from tests.support.process import CommandLine
from tests.support.strict_ftps import StrictFtps

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MakeClient = Callable[..., AsyncClient]
Serve = Callable[..., str]


@pytest.fixture
def content(rng: random.Random) -> bytes:
    return rng.randbytes(9 * MIB + 7)


@pytest.fixture
def root(tmp_path: Path, content: bytes) -> Path:
    """A folder of the server, with a file that has not changed for an hour."""
    folder = tmp_path / "served"
    (folder / "sub folder").mkdir(parents=True)
    path = folder / "sub folder" / "film.mkv"
    path.write_bytes(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def serve(root: Path) -> Iterator[Serve]:
    """Starts a server; what its file is called, without the scheme."""
    with ExitStack() as stack:
        yield lambda **how: f"127.0.0.1:{stack.enter_context(FtpServer(root, **how)).port}/sub%20folder/film.mkv"


PATIENT = Timeouts(connect=5, stall=5, response=5)


async def test_a_file_comes_over_several_connections(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    async with make_client(timeouts=PATIENT) as client:
        result = await client.download(f"ftp://{serve()}", folder=tmp_path, checksum=digest("sha-256", content))
    assert result.path == tmp_path / "film.mkv"
    assert result.path.read_bytes() == content
    assert result.segments > 1
    assert "served" not in result.url


async def test_a_sum_beside_the_file(
    make_client: MakeClient, serve: Serve, root: Path, content: bytes, tmp_path: Path
) -> None:
    (root / "sub folder" / "film.mkv.sha256").write_text(f"{digest('sha-256', content).hex}  film.mkv\n")
    async with make_client(timeouts=PATIENT) as client:
        result = await client.download(f"ftp://{serve()}", folder=tmp_path)
    assert result.digest == digest("sha-256", content)


async def test_it_goes_on_where_it_stopped(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    """Every connection ends after a MiB; each later one, and each later call, goes on by REST."""
    where = serve(cut_after=MIB)
    async with make_client(timeouts=PATIENT) as client:
        transfer = client.download(f"ftp://{where}", tmp_path / "f", segments=2, limit_rate=6 * MIB)
        async for progress in transfer:
            if progress.accepted > 3 * MIB:
                transfer.cancel()
        with pytest.raises(holdfast.TransferCancelled):
            await transfer
        result = await client.download(f"ftp://{where}", tmp_path / "f", segments=2)
    assert result.path.read_bytes() == content
    assert result.bytes_resumed > 3 * MIB
    assert result.retries > 0


async def test_as_many_connections_as_the_server_lets_in(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path
) -> None:
    where = serve(per_ip=3)
    async with make_client(timeouts=PATIENT) as client:
        result = await client.download(f"ftp://{where}", tmp_path / "f", segments=6)
    assert result.path.read_bytes() == content


@pytest.mark.parametrize("lacks", [("MDTM",), ("SIZE",), ("REST",), ("EPSV", "MDTM")])
async def test_what_a_server_does_not_know(
    make_client: MakeClient, serve: Serve, content: bytes, tmp_path: Path, lacks: tuple[str, ...]
) -> None:
    """Without a version to hold on to there is one stream."""
    async with make_client(timeouts=PATIENT) as client:
        result = await client.download(f"ftp://{serve(lacks=lacks)}", tmp_path / "f")
    assert result.path.read_bytes() == content
    assert result.segments == 1


async def test_a_file_that_changes_is_received_anew(
    make_client: MakeClient, serve: Serve, root: Path, content: bytes, tmp_path: Path
) -> None:
    where = serve(cut_after=MIB)
    other = bytes(reversed(content))
    changed = False
    async with make_client(timeouts=PATIENT) as client:
        transfer = client.download(f"ftp://{where}", tmp_path / "f", segments=1, limit_rate=6 * MIB)
        async for progress in transfer:
            if progress.accepted > 2 * MIB and not changed:
                changed = True
                (root / "sub folder" / "film.mkv").write_bytes(other)
        result = await transfer
    assert changed
    assert result.path.read_bytes() == other


async def test_tls(make_client: MakeClient, serve: Serve, certificate: Path, content: bytes, tmp_path: Path) -> None:
    """AUTH TLS, with the certificate looked at; without TLS this server lets nobody in."""
    where = serve(certificate=certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    async with make_client(timeouts=PATIENT, verify=trusting) as client:
        result = await client.download(f"ftps://ada:lovelace@{where}", tmp_path / "f")
        assert result.path.read_bytes() == content
        with pytest.raises(holdfast.HoldfastError):
            await client.download(f"ftp://ada:lovelace@{where}", tmp_path / "g", max_attempts=1)
    async with make_client(timeouts=PATIENT) as client:
        with pytest.raises(holdfast.ServerUntrusted, match="certificate"):
            await client.download(f"ftps://{where}", tmp_path / "g")
    assert not (tmp_path / "g").exists()


async def test_tls_from_the_first_byte(
    make_client: MakeClient,
    serve: Serve,
    certificate: Path,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is spoken on port 990, here on another one: nobody but root may listen there."""
    where = serve(certificate=certificate, implicit=True)
    monkeypatch.setattr(ftp, "IMPLICIT", int(where.partition("/")[0].rpartition(":")[2]))
    trusting = ssl.create_default_context(cafile=certificate)
    async with make_client(timeouts=PATIENT, verify=trusting) as client:
        url, sum_ = f"ftps://ada:lovelace@{where}", digest("sha-256", content)
        result = await client.download(url, tmp_path / "f", segments=3, checksum=sum_)
    assert result.path.read_bytes() == content
    assert result.segments > 1
    async with make_client(timeouts=PATIENT) as client:
        with pytest.raises(holdfast.ServerUntrusted, match="certificate"):
            await client.download(url, tmp_path / "g")
    assert not (tmp_path / "g").exists()


async def test_tls_as_strict_as_it_gets(
    make_client: MakeClient, certificate: Path, content: bytes, tmp_path: Path
) -> None:
    """As vsftpd has it: TLS on a data connection begins after RETR, and with the session of the other connection."""
    trusting = ssl.create_default_context(cafile=certificate)
    with StrictFtps(content, certificate) as server:
        async with make_client(timeouts=PATIENT, verify=trusting) as client:
            result = await client.download(f"ftps://127.0.0.1:{server.port}/film.mkv", tmp_path / "f", segments=2)
        assert result.path.read_bytes() == content
        assert server.retrieved > 1


async def test_errors_in_words(make_client: MakeClient, serve: Serve, tmp_path: Path) -> None:
    where = serve()
    async with make_client(timeouts=PATIENT) as client:
        with pytest.raises(holdfast.NotAuthorized, match="refuses the login"):
            await client.download(f"ftp://ada:wrong@{where}", tmp_path / "f")
        with pytest.raises(holdfast.UploadGone, match="nothing at"):
            await client.download(f"ftp://{where}.not", tmp_path / "f")
        for bad in ("ftp://host", "ftp://host/folder/", "ftp:///f", "ftp://h:x/f", "ftp://h/a%0d%0ab"):
            with pytest.raises(holdfast.UsageError, match="FTP server"):
                client.download(bad, tmp_path / "f")


def test_who_logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The URL, then the environment, then netrc as for HTTP, then nobody in particular."""
    place = parse_url("ftp://host.example/a%20b/c")
    assert (place.path, place.port, parse_url("ftps://h/x").port) == ("a b/c", 21, 990)
    assert parse_url("ftp://h/%2Fetc/motd").path == "/etc/motd"
    (tmp_path / ".netrc").write_text("machine host.example login ada password lovelace\ndefault login d password d\n")
    (tmp_path / ".netrc").chmod(0o600)
    for name in ("NETRC", "HOLDFAST_FTP_USER", "HOLDFAST_FTP_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert login_for(parse_url("ftp://u%40x:p%3Aq@host.example/f")) == ("u@x", "p:q")
    assert login_for(place) == ("ada", "lovelace")
    assert login_for(parse_url("ftp://other.example/f")) == ("anonymous", "anonymous@")
    with monkeypatch.context() as patch:
        patch.setenv("HOLDFAST_FTP_USER", "u")
        patch.setenv("HOLDFAST_FTP_PASSWORD", "p")
        assert login_for(place) == ("u", "p")
    (tmp_path / "bad").write_text("machine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "bad"))
    assert login_for(place) == ("anonymous", "anonymous@")
    assert f"{tmp_path / 'bad'} is not used" in caplog.text
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("NETRC")
    assert login_for(place) == ("anonymous", "anonymous@")


def test_the_command_line(serve: Serve, content: bytes, tmp_path: Path, holdfast_command: CommandLine) -> None:
    """Nothing secret is in the journal."""
    where = serve()
    done = holdfast_command.run("download", f"ftp://ada:lovelace@{where}", "-o", str(tmp_path / "f"))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'f'}\n"), done.stderr
    assert (tmp_path / "f").read_bytes() == content
    kept = b"".join(path.read_bytes() for path in holdfast_command.home.rglob("journal.db*"))
    assert b"film.mkv" in kept
    assert b"lovelace" not in kept
