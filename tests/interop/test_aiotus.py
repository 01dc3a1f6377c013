"""aiotus, unchanged, against a real server.

It cannot follow a `Location` that is a path: it appends it to the endpoint as a segment, which its own library for URLs
refuses. So the server is told with `--public-url` where clients reach it, which is a proxy here.

Rule of this file: the client does what its own documentation shows; what arrived is compared byte by byte.
"""

import hashlib
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiotus
import pytest
from tests.interop.clients import AIOTUS
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker

MIB = 1024 * 1024
SIZE = 9 * MIB + 17
PATIENT = aiotus.RetryConfiguration(retry_attempts=6, max_retry_period_seconds=0.5)

pytestmark = [
    pytest.mark.client(AIOTUS),
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),  # aiohttp's, of aiotus's way
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server that says that it is where the proxy is; the proxy lets everything pass, unless a test changes that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path_factory.mktemp("aiotus") / "data"
    options = ("--port", str(port), "--public-url")
    with Proxy(f"http://127.0.0.1:{port}") as proxy, ServerProcess(data, *options, proxy.url):
        yield proxy


@pytest.fixture
def endpoint(proxy: Proxy) -> Iterator[str]:
    yield f"{proxy.url}/files"
    proxy.fault = Fault()


@pytest.fixture
def file(tmp_path: Path, rng: random.Random) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(rng.randbytes(SIZE))
    return path


def same(url: object, *files: Path) -> bool:
    with Speaker(str(url).partition("/files/")[0]) as speaker:
        answer = speaker.get(str(url))
    assert answer.status == 200
    return hashlib.sha256(answer.body).digest() == hashlib.sha256(b"".join(f.read_bytes() for f in files)).digest()


@pytest.mark.rule("T-CREATE-1")
@pytest.mark.parametrize("chunk_size", [4 * MIB, 1 * MIB + 1])
async def test_uploads_a_file(endpoint: str, file: Path, chunk_size: int) -> None:
    with file.open("rb") as opened:
        url = await aiotus.upload(endpoint, opened, chunksize=chunk_size)
    assert url is not None
    assert same(url, file)


async def test_metadata_come_back_as_they_were_sent(endpoint: str, file: Path) -> None:
    metadata = {"filename": "Ferien 🏖.bin".encode(), "bytes": bytes(range(256)), "note": None}
    with file.open("rb") as opened:
        url = await aiotus.upload(endpoint, opened, metadata)
    assert url is not None
    assert await aiotus.metadata(url) == metadata
    assert same(url, file)


async def test_goes_on_after_a_cut(endpoint: str, proxy: Proxy, file: Path) -> None:
    """Every connection ends after 3 MiB, in the middle of a chunk; the client asks for the offset and goes on."""
    proxy.fault = Fault(cut_after=3 * MIB)
    before = proxy.up
    with file.open("rb") as opened:
        url = await aiotus.upload(endpoint, opened, config=PATIENT)
    assert url is not None
    proxy.fault = Fault()
    assert same(url, file)
    assert proxy.up - before < SIZE + 4 * MIB


@pytest.mark.rule("T-CONCAT-3", "T-CONCAT-4")
async def test_puts_files_together(endpoint: str, file: Path, tmp_path: Path, rng: random.Random) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(rng.randbytes(MIB + 3))
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in (file, other, file)]
        url = await aiotus.upload_multiple(endpoint, files, {"filename": b"all.bin"})
    assert url is not None
    assert same(url, file, other, file)
