"""Holes over the wire, rule by rule (protocol.md, P-HOLE-1 to P-HOLE-4)."""

import random
import threading
from pathlib import Path

import pytest
from tests.conftest import StartServer
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, chunk_fields, digest, missing
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

MIB = 1 << 20
TIB = 1 << 40


def on_disk(server: ServerProcess, url: str) -> Path:
    """The file of an upload, on its way or published."""
    (found,) = server.data.glob(f"*/{url.rsplit('/', 1)[-1]}*")
    return found


def room_taken(server: ServerProcess, url: str) -> int:
    return on_disk(server, url).stat().st_blocks * 512


@pytest.mark.rule("P-HOLE-1", "P-HOLE-2", "P-HOLE-4", "C-OFFSET-1")
def test_holes_and_chunks_make_the_file(server: ServerProcess, speaker: Speaker, rng: random.Random) -> None:
    """A sparse file with two chunks of bytes, in any order; what is published is sparse, and reads as the file."""
    head, tail = rng.randbytes(GRANULE), rng.randbytes(777)
    length = 64 * MIB + 777
    url = speaker.create(length)
    assert speaker.hole(url, 32 * MIB, 32 * MIB).verdict == (204, None)
    assert missing(speaker.head(url)) == [(0, 32 * MIB), (64 * MIB, 777)]
    assert speaker.chunk(url, 64 * MIB, tail).verdict == (204, None)
    assert speaker.chunk(url, 0, head).offset == GRANULE
    answer = speaker.hole(url, GRANULE, 32 * MIB - GRANULE)
    assert answer.offset == length
    assert "upload-expires" in answer
    content = head + bytes(64 * MIB - GRANULE) + tail
    assert speaker.complete(url, digest(content, "sha-256")).verdict == (204, None)
    assert room_taken(server, url) < MIB
    assert on_disk(server, url).stat().st_size == length
    assert speaker.get(url).body == content
    assert speaker.get(url, Range="bytes=65530-65540").body == content[65530:65541]


@pytest.mark.rule("P-HOLE-1", "C-MIX-1")
def test_a_tus_client_goes_on_behind_a_hole(speaker: Speaker, rng: random.Random) -> None:
    """The hole is bytes like any others to it."""
    data = rng.randbytes(1000)
    url = speaker.create(GRANULE + len(data), parallel=False)
    assert speaker.hole(url, 0, GRANULE).offset == GRANULE
    assert speaker.patch(url, GRANULE, data).offset == GRANULE + len(data)
    assert speaker.get(url).body == bytes(GRANULE) + data


@pytest.mark.rule("P-HOLE-2")
def test_an_upload_that_is_one_hole(start_server: StartServer) -> None:
    """A TiB in one request, more than any disk here has, where the room is not counted."""
    server = start_server(overcommit=True)
    with Speaker(server.url) as speaker:
        url = speaker.create(TIB)
        assert speaker.hole(url, 0, TIB).offset == TIB
        assert speaker.hole(url, 0, TIB).offset == TIB
        assert room_taken(server, url) < MIB
        server.restart()
        assert (speaker.head(url).offset, missing(speaker.head(url))) == (TIB, [])
        assert speaker.delete(url).status == 204


@pytest.mark.rule("P-HOLE-3", "P-CHUNK-5", "P-CHUNK-6")
def test_stored_bytes_stay_as_they_are(speaker: Speaker, rng: random.Random) -> None:
    """Zeros that were sent are welcome in a hole, other bytes are a conflict, and a hole is one to other bytes."""
    data = rng.randbytes(GRANULE)
    url = speaker.create(8 * GRANULE)
    assert speaker.chunk(url, 3 * GRANULE, bytes(GRANULE)).status == 204
    assert speaker.chunk(url, 6 * GRANULE, data).status == 204
    assert speaker.hole(url, 0, 8 * GRANULE).verdict == (409, "chunk-conflict")
    assert missing(speaker.head(url)) == [(0, 3 * GRANULE), (4 * GRANULE, 2 * GRANULE), (7 * GRANULE, GRANULE)]
    assert speaker.hole(url, 0, 6 * GRANULE).verdict == (204, None)
    assert speaker.hole(url, 0, 6 * GRANULE).verdict == (204, None)
    assert speaker.hole(url, 6 * GRANULE, GRANULE).verdict == (409, "chunk-conflict")
    assert speaker.chunk(url, 0, data).verdict == (409, "chunk-conflict")
    assert speaker.chunk(url, GRANULE, bytes(2 * GRANULE)).verdict == (204, None)
    assert speaker.chunk(url, 5 * GRANULE, bytes(GRANULE) + data + bytes(GRANULE)).verdict == (204, None)
    assert speaker.complete(url).status == 204
    assert speaker.get(url).body == bytes(6 * GRANULE) + data + bytes(GRANULE)
    assert speaker.hole(url, 0, 3 * GRANULE).verdict == (204, None)
    assert speaker.hole(url, 0, 8 * GRANULE).verdict == (409, "chunk-conflict")


@pytest.mark.rule("P-HOLE-3", "P-CHUNK-3")
def test_a_hole_over_bytes_that_were_never_verified(server: ServerProcess, speaker: Speaker) -> None:
    """A chunk that failed has left them in the file; they are zeros afterwards, and the room is free again."""
    garbage = b"x" * (4 * MIB)
    url = speaker.create(len(garbage))
    answer = speaker.chunk(url, 0, garbage, Content_Digest=digest(b"other"))
    assert answer.verdict == (400, "digest-mismatch")
    assert room_taken(server, url) >= len(garbage)
    assert speaker.hole(url, 0, len(garbage)).verdict == (204, None)
    assert room_taken(server, url) < MIB
    assert speaker.complete(url, digest(bytes(len(garbage)), "sha-256")).status == 204
    assert speaker.get(url).body == bytes(len(garbage))


@pytest.mark.rule("P-HOLE-3", "P-CHUNK-7", "T-PATCH-5")
@pytest.mark.parametrize("kind", ["chunk", "patch"])
def test_a_hole_does_not_wait_for_a_stalled_request(two_workers: ServerProcess, kind: str) -> None:
    """It wins, in whichever worker process the other one is; of a PATCH in order, what came before it is kept."""
    data = b"x" * (4 * GRANULE)
    with Speaker(two_workers.url) as speaker, Connection(two_workers.url) as stalled:
        url = speaker.create(4 * GRANULE)
        fields = chunk_fields(0, data)
        if kind == "patch":
            fields = TUS_BODY | {"Upload-Offset": "0", "Content-Length": str(len(data))}
        stalled.begin("PATCH", url, fields)
        stalled.send(data[:GRANULE])
        if kind == "patch":
            eventually(lambda: speaker.head(url).offset == GRANULE)
        assert speaker.hole(url, 2 * GRANULE, 2 * GRANULE).verdict == (204, None)
        stalled.send(data[GRANULE:])
        answer = stalled.read()
        if kind == "patch":
            assert (answer.verdict, answer.offset) == ((204, None), 2 * GRANULE)
        else:
            assert answer.verdict in [(409, "fenced"), (409, "chunk-conflict")]
            assert speaker.chunk(url, 0, data[: 2 * GRANULE]).status == 204
        assert speaker.complete(url).status == 204
        assert speaker.get(url).body == data[: 2 * GRANULE] + bytes(2 * GRANULE)


@pytest.mark.rule("P-HOLE-3")
def test_the_same_holes_from_many_at_once(two_workers: ServerProcess) -> None:
    """All of them are welcome."""
    with Speaker(two_workers.url) as speaker:
        url = speaker.create(32 * GRANULE)
        answers: list[Answer] = []

        def send() -> None:
            with Speaker(two_workers.url) as mine:
                answers.extend(mine.hole(url, at * GRANULE, 16 * GRANULE) for at in (0, 8, 16, 0))

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.verdict for answer in answers} == {(204, None)}
        assert missing(speaker.head(url)) == []


@pytest.mark.rule("P-HOLE-4", "T-CREATE-2")
def test_a_stored_hole_gives_room_back(start_server: StartServer) -> None:
    """What is still to come counts against the room, and a stored hole does not come any more."""
    with Speaker(start_server().url) as speaker:
        too_much = speaker.post(TIB * 100, parallel=True)
        assert too_much.verdict == (507, "insufficient-storage")
        most = too_much.json()["free"] // 2 // GRANULE * GRANULE
        first = speaker.create(most)
        assert speaker.post(most + most // 2, parallel=True).verdict == (507, "insufficient-storage")
        assert speaker.hole(first, 0, most).status == 204
        second = speaker.create(most + most // 2)
        for url in (first, second):
            assert speaker.delete(url).status == 204
