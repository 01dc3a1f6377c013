"""A file that changes while it is sent, in each dialect, against a real server: what is published is one version of it.

The change happens at about a third of the file, by the callback that tells of it; a rate limit sees to it that most is
still to come then.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import pytest
from tests.support.process import ServerProcess
from tests.support.speaker import Speaker
from tests.support.waiting import scaled

import holdfast
from holdfast.sending import Dialect, Upload
from holdfast_protocol.digest import Digest
from holdfast_protocol.messages import Span

MIB: Final = 1 << 20
SIZE: Final = 3 * MIB
RATE: Final = 3 * MIB
CHUNK: Final = MIB // 2
"""What is in memory was read already, and may be sent to its end: so it is little."""
DIALECTS: Final[tuple[Dialect, ...]] = ("parallel", "tus", "ietf")


def grow(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(MIB))


def shrink(path: Path, rng: random.Random) -> None:
    os.truncate(path, SIZE // 2)


def write(path: Path, rng: random.Random) -> None:
    """Of the same size; at the beginning, which is sent already, and at the end."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.write(rng.randbytes(1000))
        file.seek(-1000, os.SEEK_END)
        file.write(rng.randbytes(1000))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000_000))


def touch(path: Path, rng: random.Random) -> None:
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000_000))


def change_last(path: Path, *, seen: bool) -> None:
    """The last byte, so that it is seen by the time of the change or not at all."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + seen))


def replace(path: Path, rng: random.Random) -> None:
    """As editors do it: another file gets its name."""
    other = path.with_name("other")
    other.write_bytes(rng.randbytes(SIZE))
    other.replace(path)


@pytest.fixture
def file(tmp_path: Path, rng: random.Random) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(rng.randbytes(SIZE))
    return path


@pytest.fixture
def client(tmp_path: Path) -> Iterator[holdfast.Client]:
    with holdfast.Client(state=tmp_path / "state", retry=holdfast.RetryPolicy(retries=0)) as made:
        yield made


def changed_at_a_third(
    transfer: "holdfast.SyncTransfer[holdfast.UploadResult]", change: Callable[[], None]
) -> "holdfast.SyncTransfer[holdfast.UploadResult]":
    done: list[bool] = []

    def look(progress: holdfast.Progress) -> None:
        if progress.wire >= SIZE // 3 and not done:
            done.append(True)
            change()

    transfer.on_progress(look)
    return transfer


def published(url: str | None) -> bytes | None:
    """The content of an upload if it is complete."""
    assert url is not None
    parts = urlsplit(url)
    with Speaker(f"{parts.scheme}://{parts.netloc}") as speaker:
        answer = speaker.get(parts.path)
    return answer.body if answer.status == 200 else None


@pytest.mark.parametrize("change", [grow, shrink, write, touch], ids=lambda change: str(change.__name__))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_is_refused_and_the_next_call_sends_the_new_version(
    server: ServerProcess,
    client: holdfast.Client,
    file: Path,
    rng: random.Random,
    dialect: Dialect,
    change: Callable[[Path, random.Random], None],
) -> None:
    url = f"{server.url}/files"
    transfer = client.upload(file, url, protocol=dialect, chunk_size=CHUNK, limit_rate=RATE)
    with pytest.raises(holdfast.SourceChanged, match="changed while it was read"):
        changed_at_a_third(transfer, lambda: change(file, rng)).result()
    assert published(transfer.url) is None
    again = client.upload(file, url, protocol=dialect).result()
    assert again.url != transfer.url
    assert published(again.url) == file.read_bytes()


@pytest.mark.anyio
async def test_one_that_ends_in_the_middle_of_a_chunk_is_given_up_at_once(
    server: ServerProcess, tmp_path: Path, file: Path, rng: random.Random
) -> None:
    """And not when the server has waited long enough for the rest. Chunks go from the file, not from memory."""
    async with holdfast.AsyncClient(state=tmp_path / "state", retry=holdfast.RetryPolicy(retries=0)) as client:
        transfer = client.upload(file, f"{server.url}/files", chunk_size=SIZE, limit_rate=RATE)
        done: list[bool] = []

        def look(progress: holdfast.Progress) -> None:
            if progress.wire >= SIZE // 5 and not done:
                done.append(True)
                shrink(file, rng)

        transfer.on_progress(look)
        with anyio.fail_after(scaled(20)), pytest.raises(holdfast.SourceChanged, match="changed while it was read"):
            await transfer
    assert done
    assert published(transfer.url) is None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_with_restart_the_new_version_goes_and_nothing_of_the_old_one(
    server: ServerProcess, client: holdfast.Client, file: Path, rng: random.Random, dialect: Dialect
) -> None:
    transfer = client.upload(
        file, f"{server.url}/files", protocol=dialect, chunk_size=CHUNK, limit_rate=RATE, on_change="restart"
    )
    result = changed_at_a_third(transfer, lambda: write(file, rng)).result()
    assert result.retries >= 1
    assert published(result.url) == file.read_bytes()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_that_is_replaced_goes_on_to_its_end(
    server: ServerProcess, client: holdfast.Client, file: Path, rng: random.Random, dialect: Dialect
) -> None:
    """It is still open, and whole; the file that has its name now is another upload."""
    url = f"{server.url}/files"
    old = file.read_bytes()
    transfer = client.upload(file, url, protocol=dialect, chunk_size=CHUNK, limit_rate=RATE)
    first = changed_at_a_third(transfer, lambda: replace(file, rng)).result()
    second = client.upload(file, url, protocol=dialect).result()
    assert (published(first.url), published(second.url)) == (old, file.read_bytes())
    assert old != file.read_bytes()


@pytest.mark.parametrize("seen", [True, False])
def test_what_is_written_between_the_hashing_and_the_sending_is_not_stored(
    server: ServerProcess, client: holdfast.Client, file: Path, monkeypatch: pytest.MonkeyPatch, *, seen: bool
) -> None:
    """The kernel sends what is in the file by then: the server finds another digest, also where nobody else can."""
    scan = Upload.scan

    async def scan_and_write(self: Upload, span: Span, algorithm: str) -> Digest:
        found = await scan(self, span, algorithm)
        change_last(file, seen=seen)
        return found

    monkeypatch.setattr(Upload, "scan", scan_and_write)
    transfer = client.upload(file, f"{server.url}/files", protocol="parallel", chunk_size=SIZE, concurrency=1)
    error = holdfast.SourceChanged if seen else holdfast.VerificationFailed
    with pytest.raises(error, match="written to" if seen else "damaged twice"):
        transfer.result()
    assert published(transfer.url) is None
