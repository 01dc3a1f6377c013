"""The client of resumable-upload, unchanged, against a real server.

Rule of this file: the client does what its own documentation shows; what arrived is compared byte by byte.
"""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from resumable_upload import FileURLStorage, TusClient
from resumable_upload.client.aio import AsyncTusClient
from tests.interop.clients import RESUMABLE_UPLOAD
from tests.support.process import ServerProcess
from tests.support.proxy import Fault, Proxy
from tests.support.speaker import Speaker

MIB = 1024 * 1024
SIZE = 5 * MIB + 17

pytestmark = pytest.mark.client(RESUMABLE_UPLOAD)


@pytest.fixture
def file(tmp_path: Path, rng: random.Random) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(rng.randbytes(SIZE))
    return path


@pytest.fixture
def endpoint(server: ServerProcess) -> str:
    return f"{server.url}/files"


def same(speaker: Speaker, url: str, file: Path) -> bool:
    answer = speaker.get("/files/" + url.rsplit("/", 1)[-1])
    assert answer.status == 200
    return hashlib.sha256(answer.body).digest() == hashlib.sha256(file.read_bytes()).digest()


@pytest.mark.rule("T-CHECKSUM-1")
@pytest.mark.parametrize("checksum", [False, "sha1", "sha256", "sha512", "md5"])
def test_uploads_with_and_without_checksums(endpoint: str, speaker: Speaker, file: Path, checksum: bool | str) -> None:
    url = TusClient(endpoint, checksum=checksum).upload_file(str(file))
    assert same(speaker, url, file)


def test_metadata_come_back_as_they_were_sent(endpoint: str, speaker: Speaker, file: Path) -> None:
    url = TusClient(endpoint).upload_file(str(file), metadata={"filename": "Ferien 🏖.bin", "note": "x"})
    assert speaker.status(url)["metadata"] == {"filename": "Ferien 🏖.bin", "note": "x"}
    assert same(speaker, url, file)


@pytest.mark.rule("T-CONCAT-3", "T-CONCAT-4")
def test_uploads_parts_at_once(endpoint: str, speaker: Speaker, file: Path) -> None:
    url = TusClient(endpoint).upload_file(str(file), parallel_uploads=3)
    assert same(speaker, url, file)


@pytest.mark.rule("T-METHOD-1")
def test_sends_patch_as_post(endpoint: str, speaker: Speaker, file: Path) -> None:
    url = TusClient(endpoint, override_patch_method=True).upload_file(str(file))
    assert same(speaker, url, file)


def test_resumes_from_the_url_that_it_remembers(endpoint: str, speaker: Speaker, file: Path, tmp_path: Path) -> None:
    """A second client, as in a new process, finds the upload by the file and sends only the rest."""

    def client(sent: list[str]) -> Any:
        storage = FileURLStorage(str(tmp_path / "urls.json"))
        return TusClient(
            endpoint, store_url=True, url_storage=storage, after_response=lambda method, *_: sent.append(method)
        )

    sent: list[str] = []
    first = client(sent).upload_file(str(file), stop_at=2 * MIB)
    assert speaker.head("/files/" + first.rsplit("/", 1)[-1]).offset == 2 * MIB
    sent.clear()
    assert client(sent).upload_file(str(file)) == first
    assert (sent.count("POST"), sent.count("PATCH")) == (0, 4)
    assert same(speaker, first, file)


def test_goes_on_after_a_cut(server: ServerProcess, speaker: Speaker, file: Path) -> None:
    """The connection ends in the middle of a chunk; the client asks for the offset and goes on by itself."""
    with Proxy(server.url, Fault(cut_after=2 * MIB + 300_000)) as proxy:
        client = TusClient(f"{proxy.url}/files", checksum=False, retry_delay=0.05, max_retries=5)
        client.before_request = lambda *_: setattr(proxy, "fault", Fault()) if proxy.up > 2 * MIB else None
        url = client.upload_file(str(file))
    assert proxy.connections > 1
    assert same(speaker, url, file)


@pytest.mark.rule("T-DELETE-1")
def test_deletes(endpoint: str, speaker: Speaker, file: Path) -> None:
    client = TusClient(endpoint)
    url = client.upload_file(str(file))
    client.delete_upload(url)
    assert speaker.head("/files/" + url.rsplit("/", 1)[-1]).status == 404


@pytest.mark.anyio
async def test_uploads_with_its_async_client(endpoint: str, speaker: Speaker, file: Path) -> None:
    async with AsyncTusClient(endpoint) as client:
        url = await client.upload_file(str(file))
    assert same(speaker, url, file)
