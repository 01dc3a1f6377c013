"""`holdfast download` from servers that others wrote, and from ours while its files come and go."""

import functools
import http.server
import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.nginx import Nginx
from tests.support.process import CommandLine
from tests.support.proxy import Fault, Proxy
from tests.support.scripted import Asked, Scripted, head
from tests.support.speaker import Speaker, b64, digest

import holdfast
from holdfast import AsyncClient, RetryPolicy, Timeouts
from holdfast_protocol.digest import digest as digest_of

MIB = 1024 * 1024
SIZE = 24 * MIB + 5
Connect = Callable[..., AsyncClient]


@pytest.fixture
def content(rng: random.Random) -> bytes:
    return rng.randbytes(SIZE)


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    def make(**more: object) -> AsyncClient:
        settings = {"state": tmp_path / "state", "retry": RetryPolicy(retries=0)}
        settings["timeouts"] = Timeouts(connect=5, stall=10, response=10)
        return AsyncClient(**(settings | more))  # type: ignore[arg-type]

    return make


def put(path: Path, content: bytes, age: float = 3600) -> None:
    """A file that has lain there for so many seconds."""
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize("etag", [True, False], ids=["ETag", "a date alone"])
def test_from_nginx(tmp_path: Path, holdfast_command: CommandLine, content: bytes, etag: bool) -> None:
    """Whole, through cuts that a killed client and a bad network make, with a sum beside it."""
    with Nginx(tmp_path / "nginx", etag=etag) as nginx:
        put(nginx.root / "film.mkv", content)
        (nginx.root / "film.mkv.sha256").write_text(f"{digest_of('sha-256', content).hex}  film.mkv\n")
        with Proxy(nginx.url, Fault(delay=0.001)) as proxy:
            words = ("download", f"{proxy.url}/film.mkv", "-d", str(tmp_path / "in"), "--json")
            with holdfast_command.started(*words, "--limit-rate", "8M"):
                time.sleep(1.5)
                proxy.drop_all()
                time.sleep(0.5)
            done = holdfast_command.run(*words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-2])
    assert (tmp_path / "in" / "film.mkv").read_bytes() == content
    assert told["digest"] == {"algorithm": "sha-256", "hex": digest_of("sha-256", content).hex}
    assert told["bytes_resumed"] > 0


@pytest.mark.anyio
async def test_nginx_that_compresses(tmp_path: Path, connect: Connect) -> None:
    """It does so only if it is asked to, and it is not; its weak ETag would be no pin."""
    content = b"all the same " * 100_000
    with Nginx(tmp_path / "nginx", "gzip on;") as nginx:
        put(nginx.root / "style.css", content)
        async with connect() as client:
            result = await client.download(f"{nginx.url}/style.css", folder=tmp_path)
    assert result.path.read_bytes() == content


@pytest.mark.anyio
async def test_nginx_takes_so_many_connections_and_no_more(tmp_path: Path, connect: Connect, content: bytes) -> None:
    """503 for each one more: fewer are used."""
    with Nginx(tmp_path / "nginx", "limit_conn each 3; limit_rate 8m;") as nginx:
        put(nginx.root / "film.mkv", content)
        async with connect() as client:
            result = await client.download(f"{nginx.url}/film.mkv", tmp_path / "x", segments=8)
    assert result.path.read_bytes() == content
    assert result.retries > 0


def test_from_a_server_without_ranges(tmp_path: Path, holdfast_command: CommandLine, content: bytes) -> None:
    """Python's own."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "film.mkv").write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
            """Nothing on standard error."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/film.mkv"
        done = holdfast_command.run("download", url, "-o", str(tmp_path / "x"), "-n", "8", "--json")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-2])
    assert (told["segments"], told["size"]) == (1, SIZE)
    assert (tmp_path / "x").read_bytes() == content


def published(speaker: Speaker, content: bytes) -> str:
    """The URL of a complete upload."""
    upload = speaker.create(len(content), Upload_Metadata=f"filename {b64(b'film.mkv')}")
    assert speaker.chunk(upload, 0, content).status == 204
    assert speaker.complete(upload, digest(content)).status == 204
    return upload


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["deleted", "expired", "killed and started anew"])
async def test_ours_loses_the_file_in_the_middle(
    tmp_path: Path, start_server: StartServer, connect: Connect, content: bytes, how: str
) -> None:
    """What is gone is said to be gone, unless all of it was on its way; a server that comes back is gone on with."""
    server = start_server(*(["--expire-finished", "2"] if how == "expired" else []))
    with Speaker(server.url) as speaker:
        upload = published(speaker, content)
        async with connect() as client:
            transfer = client.download(upload, tmp_path / "x", limit_rate=6 * MIB, segments=2)
            acted = False
            async for progress in transfer:
                if progress.accepted > 4 * MIB and not acted:
                    acted = True
                    if how == "deleted":
                        assert speaker.delete(upload).status == 204
                    elif how != "expired":
                        server.restart()
            state = await transfer.wait()
            if how in ("deleted", "expired") and state is holdfast.State.FAILED:
                with pytest.raises(holdfast.UploadGone):
                    await transfer
                assert not (tmp_path / "x").exists()
            else:
                result = await transfer
                assert result.digest == digest_of("sha-256", content)
                assert result.path.read_bytes() == content
    assert acted


@pytest.mark.anyio
async def test_ours_has_another_file_at_the_same_place(
    tmp_path: Path, start_server: StartServer, connect: Connect, content: bytes
) -> None:
    """A stable URL, as a proxy before it may have one, that leads to another upload now."""
    server = start_server()
    other = bytes(reversed(content))
    with Speaker(server.url) as speaker:
        uploads = [published(speaker, each) for each in (content, other)]
        now = 0

        def script(asked: Asked) -> list[bytes]:
            if asked.path.endswith(".sha256"):
                return [head(404, "Content-Length: 0")]
            named = {
                "_".join(part.capitalize() for part in name.split("-")): value
                for name, value in asked.fields.items()
                if name in ("range", "if-range")
            }
            answer = speaker_of_server.get(uploads[now], **named)
            kept = ("etag", "content-range", "repr-digest", "content-disposition")
            lines = [f"{name}: {answer[name]}" for name in kept if name in answer]
            return [head(answer.status, f"Content-Length: {len(answer.body)}", *lines), answer.body[: 4 * MIB]]

        with Speaker(server.url) as speaker_of_server, Scripted(script) as stable:
            async with connect() as client:
                transfer = client.download(f"{stable.url}/latest", tmp_path / "x", limit_rate=16 * MIB, segments=1)
                async for progress in transfer:
                    if progress.accepted > 6 * MIB:
                        now = 1
                result = await transfer
    assert now == 1
    assert result.path.read_bytes() == other
    assert result.digest == digest_of("sha-256", other)
