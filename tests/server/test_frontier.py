"""The digest of a whole file, seen from inside the process: what is hashed on the way, and what is read back.

Rule of this file: nothing is replaced; all calls are carried out as ever. Those that read a file are counted, and some
are made to wait.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from tests.support.speaker import CHUNK, TUS, TUS_BODY, b64, chunk_fields, digest, raw_digest

from holdfast_server import create_app
from holdfast_server.catalog.sqlite import SqliteCatalog
from holdfast_server.settings import Settings
from holdfast_server.storage.base import Piece
from holdfast_server.storage.local import LocalStorage
from holdfast_server.uploads.upload import Upload

pytestmark = pytest.mark.anyio

PART = 3 * 65536
BODY = os.urandom(3 * PART)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets that are read from files."""
    found: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        found.append(offset)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    return found


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(data=tmp_path, durability="os"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        yield client


async def create(client: httpx.AsyncClient, algorithm: str, **fields: str) -> str:
    wanted = {"Upload-Length": str(len(BODY)), "Want-Repr-Digest": f"{algorithm}=10"}
    answer = await client.post("/files", headers={**TUS, **wanted, **fields})
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


async def patch(client: httpx.AsyncClient, url: str, start: int, end: int, **fields: str) -> httpx.Response:
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return await client.patch(url, headers={**TUS_BODY, "Upload-Offset": str(start), **more}, content=BODY[start:end])


async def computed(client: httpx.AsyncClient, url: str) -> str:
    return (await client.get(url)).headers["Repr-Digest"]


@pytest.mark.parametrize("algorithm", ["xxh3-128", "sha-256", "crc32c", "blake3"])
async def test_bytes_in_order_are_hashed_as_they_come(
    client: httpx.AsyncClient, read: list[int], algorithm: str
) -> None:
    url = await create(client, algorithm)
    for start in range(0, len(BODY), PART):
        assert (await patch(client, url, start, start + PART)).status_code == 204
    assert read == []
    assert await computed(client, url) == digest(BODY, algorithm)


async def test_chunks_in_order_are_hashed_as_they_come(client: httpx.AsyncClient, read: list[int]) -> None:
    url = await create(client, "xxh3-128", **{"Upload-Parallel": "?1"})
    for start in range(0, len(BODY), PART):
        part = BODY[start : start + PART]
        changed = await client.patch(url, headers=chunk_fields(start, part), content=part[::-1])
        assert changed.status_code == 400
        assert (await client.patch(url, headers=chunk_fields(start, part), content=part)).status_code == 204
    done = await client.patch(url, headers={"Content-Type": CHUNK, "Upload-Complete": "?1"})
    assert done.status_code == 204, done.text
    assert read == []
    assert await computed(client, url) == digest(BODY, "xxh3-128")


async def test_what_is_committed_and_not_told_yet_is_not_read_back(
    client: httpx.AsyncClient, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows the upload looks at the catalog just then, and sees more bytes than he knows to be hashed."""
    commit, claim_digest = SqliteCatalog.commit, LocalStorage.claim_digest
    commits = 0
    second = anyio.Event()

    async def told_late(*args: Any, **named: Any) -> Upload:
        nonlocal commits
        upload = await commit(*args, **named)
        commits += 1
        if commits == 2:
            second.set()
            await anyio.sleep(0.1)
        return upload

    async def claimed_late(*args: Any) -> Piece | None:
        await second.wait()
        return await claim_digest(*args)

    monkeypatch.setattr(SqliteCatalog, "commit", told_late)
    monkeypatch.setattr(LocalStorage, "claim_digest", claimed_late)
    url = await create(client, "xxh3-128")
    for start in range(0, len(BODY), PART):
        assert (await patch(client, url, start, start + PART)).status_code == 204
    assert read == []
    assert await computed(client, url) == digest(BODY, "xxh3-128")


async def test_what_was_not_stored_is_not_in_the_digest(client: httpx.AsyncClient, read: list[int]) -> None:
    url = await create(client, "xxh3-128")
    assert (await patch(client, url, 0, PART)).status_code == 204
    wrong: Any = {"Upload_Checksum": f"sha1 {b64(raw_digest('sha', b'other bytes'))}"}
    assert (await patch(client, url, PART, 2 * PART, **wrong)).status_code == 460
    assert (await patch(client, url, PART, len(BODY))).status_code == 204
    assert read == []
    assert await computed(client, url) == digest(BODY, "xxh3-128")


async def test_what_came_out_of_order_is_read_back(client: httpx.AsyncClient, read: list[int]) -> None:
    url = await create(client, "xxh3-128", **{"Upload-Parallel": "?1"})
    middle = BODY[PART : 2 * PART]
    answer = await client.patch(url, headers=chunk_fields(PART, middle), content=middle)
    assert answer.status_code == 204
    assert (await patch(client, url, 0, PART)).status_code == 204
    assert (await patch(client, url, 2 * PART, len(BODY))).status_code == 204
    assert min(read) >= PART, "what came in order is not read again"
    assert await computed(client, url) == digest(BODY, "xxh3-128")
