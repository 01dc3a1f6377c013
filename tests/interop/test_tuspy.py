"""tuspy, the tus client of the tus project for Python, unchanged, against a real server.

Rule of this file: tuspy does what its own documentation shows; only what it sent and what is stored is
looked at.
"""

import gc
import hashlib
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.clients import TUSPY
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker, b64
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.storage.filestorage import FileStorage

pytestmark = pytest.mark.client(TUSPY)

SIZE = 3 * 1024 * 1024 + 17
CHUNK = 512 * 1024


@pytest.fixture
def file(tmp_path: Path, rng: random.Random) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(rng.randbytes(SIZE))
    return path


@pytest.fixture(autouse=True)
def _files_left_open() -> Iterator[None]:
    """tuspy leaves closing its files to the garbage collector, which therefore has its turn within the test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture
def client(server: ServerProcess) -> Any:
    """Any, because tuspy's own hints say that an uploader's url is None."""
    return TusClient(f"{server.url}/files")


def stored_digest(speaker: Speaker, url: str) -> str:
    """SHA-256 of what a GET brings back."""
    answer = speaker.get(url)
    assert answer.status == 200
    return hashlib.sha256(answer.body).hexdigest()


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_uploads_in_one_request(client: Any, speaker: Speaker, file: Path) -> None:
    uploader = client.uploader(str(file))
    uploader.upload()
    assert uploader.offset == SIZE
    assert stored_digest(speaker, uploader.url) == digest_of(file)


def test_uploads_in_chunks_that_no_granule_divides(client: Any, speaker: Speaker, file: Path) -> None:
    uploader = client.uploader(str(file), chunk_size=100_001)
    uploader.upload()
    assert stored_digest(speaker, uploader.url) == digest_of(file)


@pytest.mark.rule("T-CREATE-3")
def test_uploads_an_empty_file(client: Any, speaker: Speaker, tmp_path: Path) -> None:
    """One POST, and the upload is complete."""
    path = tmp_path / "empty"
    path.touch()
    uploader = client.uploader(str(path))
    uploader.upload()
    assert speaker.status(uploader.url)["state"] == "complete"


def test_resumes_from_the_url_that_it_remembers(client: Any, speaker: Speaker, file: Path, tmp_path: Path) -> None:
    """A second uploader, as in a new process, asks for the offset and sends only the rest."""
    storage = FileStorage(str(tmp_path / "urls.json"))
    first = client.uploader(str(file), chunk_size=CHUNK, store_url=True, url_storage=storage)
    first.upload(stop_at=2 * CHUNK)
    storage.close()

    storage = FileStorage(str(tmp_path / "urls.json"))
    second = client.uploader(str(file), chunk_size=CHUNK, store_url=True, url_storage=storage)
    assert (second.url, second.offset) == (first.url, 2 * CHUNK)
    second.upload()
    storage.close()
    assert stored_digest(speaker, second.url) == digest_of(file)


@pytest.mark.rule("T-CHECKSUM-1")
def test_sends_a_checksum_with_every_chunk(client: Any, speaker: Speaker, file: Path) -> None:
    uploader = client.uploader(str(file), chunk_size=CHUNK, upload_checksum=True)
    uploader.upload()
    assert stored_digest(speaker, uploader.url) == digest_of(file)


@pytest.mark.rule("T-CHECKSUM-1")
def test_is_told_of_a_wrong_checksum(
    client: Any, speaker: Speaker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that change under way are refused, and nothing of them is stored."""
    uploader = client.uploader(str(file), chunk_size=CHUNK, upload_checksum=True)
    uploader.upload(stop_at=CHUNK)
    damaged = bytearray(file.read_bytes())
    damaged[CHUNK + 1] ^= 1
    other = file.with_name("damaged.bin")
    other.write_bytes(damaged)
    broken = client.uploader(str(other), url=uploader.url, chunk_size=CHUNK, upload_checksum=True)
    monkeypatch.setattr(
        type(broken), "checksum_algorithm", property(lambda self: lambda chunk: hashlib.sha1(chunk[::-1]))
    )
    with pytest.raises(TusUploadFailed) as refusal:
        broken.upload()
    assert refusal.value.status_code == 460
    assert speaker.head(uploader.url).offset == CHUNK


@pytest.mark.rule("V-META-1")
def test_metadata_comes_back_as_it_was_sent(client: Any, speaker: Speaker, file: Path) -> None:
    uploader = client.uploader(str(file), metadata={"filename": "Ferien 🏖.bin", "note": ""})
    uploader.upload()
    name = b64("Ferien 🏖.bin".encode())
    assert speaker.head(uploader.url)["upload-metadata"].split(",") == [f"filename {name}", "note"]
    assert speaker.status(uploader.url)["metadata"] == {"filename": "Ferien 🏖.bin", "note": ""}


@pytest.mark.anyio
async def test_uploads_with_its_async_client(client: Any, speaker: Speaker, file: Path) -> None:
    uploader = client.async_uploader(str(file), chunk_size=CHUNK)
    await uploader.upload()
    assert stored_digest(speaker, uploader.url) == digest_of(file)
