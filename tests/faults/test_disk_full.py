"""A disk that fills up: a clear 507, nothing lost, and the upload goes on when there is room again."""

import os
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.drafts import append, chunked, create, is_complete
from tests.support.speaker import GRANULE, Speaker, digest, missing
from tests.support.wire import Answer

MIB = 1 << 20
ROOM = 48 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 48 MiB, of which the server keeps 16 for itself."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True, timeout=10)


@pytest.fixture
def start_on(workers: int, start_server: StartServer, small_disk: Path) -> StartServer:
    """Starts a server on the small disk."""
    return partial(start_server, data=small_disk / "data", workers=workers)


def assert_full(answer: Answer) -> None:
    """A 507 whose sentence tells a person what is wrong and what to do."""
    assert answer.verdict == (507, "insufficient-storage")
    document = answer.json()
    assert document["status"] == 507
    assert document["title"]
    assert len(document["detail"].split()) >= 5
    assert "errno" not in document["detail"].lower()


@pytest.mark.rule("P-HOLE-4")
def test_holes_on_a_full_disk(start_on: StartServer, rng: random.Random) -> None:
    """A file much longer than the disk is taken, published and read; its bytes are all that takes room."""
    server = start_on(overcommit=True)
    with Speaker(server.url) as speaker:
        data = rng.randbytes(16 * MIB)
        upload = speaker.create(300 * MIB)
        for offset in range(0, len(data), MIB):
            assert speaker.chunk(upload, 100 * MIB + offset, data[offset : offset + MIB]).status == 204
        assert_full(speaker.chunk(upload, 0, rng.randbytes(20 * MIB)))
        assert speaker.hole(upload, 116 * MIB, 184 * MIB).verdict == (204, None)
        assert speaker.hole(upload, 0, 100 * MIB).verdict == (204, None)
        assert speaker.complete(upload).status == 204
        assert speaker.get(upload, Range=f"bytes={100 * MIB - 5}-{116 * MIB + 4}").body == bytes(5) + data + bytes(5)


@pytest.mark.rule("P-CHUNK-8", "T-CREATE-2")
def test_chunks_on_a_full_disk(start_on: StartServer, rng: random.Random) -> None:
    """507 with a clear sentence.

    What is stored stays; after another upload was deleted it goes on and completes.
    """
    server = start_on(overcommit=True)
    with Speaker(server.url) as speaker:
        ballast = speaker.create(16 * MIB)
        for offset in range(0, 16 * MIB, MIB):
            assert speaker.chunk(ballast, offset, rng.randbytes(MIB)).status == 204
        data = rng.randbytes(26 * MIB)
        upload = speaker.create(len(data))
        stored = 0
        while (answer := speaker.chunk(upload, stored, data[stored : stored + MIB])).status == 204:
            stored += MIB
            assert stored < len(data), "this disk never fills"
        assert_full(answer)
        assert stored >= 4 * MIB
        assert missing(speaker.head(upload)) == [(stored, len(data) - stored)]

        assert speaker.delete(ballast).status == 204
        for offset in range(stored, len(data), MIB):
            assert speaker.chunk(upload, offset, data[offset : offset + MIB]).status == 204
        assert speaker.complete(upload, digest(data)).status == 204
        assert speaker.get(upload).body == data


@pytest.mark.rule("T-PATCH-4")
def test_a_tus_patch_on_a_full_disk(start_on: StartServer, rng: random.Random) -> None:
    """A PATCH that fills the disk is 507 and keeps what fitted; the upload goes on from there later."""
    server = start_on(overcommit=True)
    with Speaker(server.url) as speaker:
        ballast = speaker.create(20 * MIB, parallel=False)
        assert speaker.patch(ballast, 0, bytes(16 * MIB)).status == 204
        data = rng.randbytes(26 * MIB)
        upload = speaker.create(len(data), parallel=False)
        assert_full(speaker.patch(upload, 0, data))
        offset = speaker.head(upload).offset
        assert 4 * MIB < offset < len(data)
        assert_full(speaker.patch(upload, offset, data[offset:]))

        assert speaker.delete(ballast).status == 204
        offset = speaker.head(upload).offset
        answer = speaker.patch(upload, offset, data[offset:])
        assert (answer.status, answer.offset) == (204, len(data))
        assert speaker.get(upload).body == data


@pytest.mark.rule("P-CHUNK-8")
def test_a_full_disk_survives_a_killed_server(start_on: StartServer, rng: random.Random) -> None:
    """A server that is killed and started on a full disk still knows what it has, and can free room."""
    server = start_on(overcommit=True)
    with Speaker(server.url) as speaker:
        data = rng.randbytes(60 * MIB)
        upload = speaker.create(len(data))
        stored = 0
        while speaker.chunk(upload, stored, data[stored : stored + MIB]).status == 204:
            stored += MIB
        size = MIB
        while size >= GRANULE:
            if speaker.chunk(upload, stored, data[stored : stored + size]).status == 204:
                stored += size
            else:
                size //= 2
    server.restart()
    with Speaker(server.url) as speaker:
        head = speaker.head(upload)
        assert (head.offset, missing(head)) == (stored, [(stored, len(data) - stored)])
        assert speaker.delete(upload).status == 204
        fresh = rng.randbytes(8 * MIB)
        again = speaker.create(len(fresh))
        assert speaker.chunk(again, 0, fresh[: 4 * MIB]).status == 204
        assert speaker.chunk(again, 4 * MIB, fresh[4 * MIB :]).status == 204
        assert speaker.complete(again, digest(fresh)).status == 204


@pytest.mark.rule("T-CREATE-2")
def test_creation_counts_what_others_have_coming(start_on: StartServer, rng: random.Random) -> None:
    """Without --overcommit room that is promised to one upload is not promised to another one."""
    server = start_on()
    with Speaker(server.url) as speaker:
        first = speaker.create(20 * MIB)
        assert_full(speaker.post(14 * MIB, parallel=True))
        assert_full(speaker.post(60 * MIB))
        for offset in range(0, 16 * MIB, MIB):
            assert speaker.chunk(first, offset, rng.randbytes(MIB)).status == 204
        assert_full(speaker.post(14 * MIB, parallel=True))
        small = speaker.create(4 * MIB)
        assert speaker.delete(first).status == 204
        speaker.create(24 * MIB)
        assert speaker.chunk(small, 0, rng.randbytes(4 * MIB)).status == 204


@pytest.mark.rule("T-DEFER-3")
def test_an_upload_of_unknown_length_leaves_others_their_room(start_on: StartServer, rng: random.Random) -> None:
    """507 on the way, where the room ends that is promised to nobody; what arrived stays, and so does the promise."""
    server = start_on()
    with Speaker(server.url) as speaker:
        promised = rng.randbytes(20 * MIB)
        other = speaker.create(len(promised), parallel=False)
        upload = speaker.url + speaker.post(None, Upload_Defer_Length="1")["location"]
        data = rng.randbytes(16 * MIB)
        offset = 0
        while (answer := speaker.patch(upload, offset, data[offset : offset + MIB])).status == 204:
            offset += MIB
        assert_full(answer)
        assert 4 * MIB <= offset <= 12 * MIB
        stored = speaker.head(upload).offset
        assert offset <= stored < offset + MIB
        assert_full(speaker.patch(upload, stored, b"", Upload_Length=str(stored + 20 * MIB)))
        assert speaker.patch(other, 0, promised).status == 204
        assert speaker.patch(upload, stored, b"", Upload_Length=str(stored)).status == 204
        assert speaker.get(upload).body == data[:stored]


@pytest.mark.rule("I-LENGTH-4", "T-DEFER-3", "I-CREATE-3")
def test_a_stream_of_the_draft_leaves_others_their_room(start_on: StartServer, rng: random.Random) -> None:
    """A creation that never says its length is ended where the free room is; the client learns where it got to."""
    server = start_on()
    with Speaker(server.url) as speaker:
        promised = rng.randbytes(20 * MIB)
        other = speaker.create(len(promised), parallel=False)
        data = rng.randbytes(16 * MIB)
        fields = create(True, Transfer_Encoding="chunked")
        answer = speaker.request(
            "POST", "/files", fields, chunked(*(data[i : i + MIB] for i in range(0, 16 * MIB, MIB)))
        )
        assert_full(answer)
        assert not is_complete(answer)
        upload = speaker.url + answer["location"]
        stored = speaker.head(upload).offset
        assert answer.offset == stored <= 12 * MIB
        assert "upload-length" not in speaker.head(upload)
        assert speaker.patch(other, 0, promised).status == 204
        assert speaker.request("PATCH", upload, append(stored, True), b"").status == 204
        assert speaker.get(upload).body == data[:stored]
