"""Asking for the offset in the draft ends whoever is writing, so that the answer stays true (I-HEAD-2)."""

import random
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.support.drafts import append, create, is_complete
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, chunk_fields
from tests.support.waiting import eventually
from tests.support.wire import Connection, ConnectionLostError
from tests.support.workers import speakers_by_worker

VERSION = {"Upload-Draft-Interop-Version": "9"}
SIZE = 1_000_000


@pytest.fixture(params=[False, True], ids=["same-worker", "other-worker"])
def writer_and_asker(
    request: pytest.FixtureRequest, server: ServerProcess, two_workers: ServerProcess
) -> Iterator[tuple[Speaker, Speaker]]:
    if request.param:
        with speakers_by_worker(two_workers) as (first, second):
            yield first, second
    else:
        with Speaker(server.url) as first, Speaker(server.url) as second:
            yield first, second


def begin(writer: Speaker, fields: dict[str, str], data: bytes) -> tuple[str, Connection]:
    """An upload, and a request that has brought `data` and stalls: the URL, and where its answer will come."""
    answer = writer.request("POST", writer.files, create(False, Upload_Length=str(SIZE)), b"")
    url = writer.url + answer["location"]
    connection = writer.connection
    connection.begin("PATCH", url, fields)
    connection.send(data)
    return url, connection


@pytest.mark.rule("I-HEAD-2", "I-APPEND-5", "I-ANSWER-2")
@pytest.mark.parametrize("dialect", ["draft", "tus"])
def test_asking_ends_who_writes(writer_and_asker: tuple[Speaker, Speaker], rng: random.Random, dialect: str) -> None:
    """Its bytes are stored, its answer is 409, and the offset that was told is the one that counts from now on."""
    writer, asker = writer_and_asker
    data = rng.randbytes(SIZE)
    fields = append(0, True) if dialect == "draft" else {**TUS_BODY, "Upload-Offset": "0"}
    url, stalled = begin(writer, {**fields, "Content-Length": str(SIZE)}, data[:400_000])
    eventually(lambda: asker.head(url).offset == 400_000)

    asked = asker.request("HEAD", url, VERSION)
    assert (asked.status, asked.offset, is_complete(asked)) == (204, 400_000, False)
    ended = stalled.read()
    assert (*ended.verdict, ended.offset) == (409, "fenced", 400_000)
    if dialect == "draft":
        assert not is_complete(ended)

    answer = asker.request("PATCH", url, append(asked.offset, True), data[asked.offset :])
    assert (answer.status, is_complete(answer)) == (204, True)
    assert asker.get(url).body == data


@pytest.mark.rule("I-HEAD-2", "T-HEAD-1")
def test_asking_in_tus_ends_nobody(writer_and_asker: tuple[Speaker, Speaker], rng: random.Random) -> None:
    writer, asker = writer_and_asker
    data = rng.randbytes(SIZE)
    url, stalled = begin(writer, append(0, True, Content_Length=str(SIZE)), data[:400_000])
    eventually(lambda: asker.head(url).offset == 400_000)
    stalled.send(data[400_000:])
    answer = stalled.read()
    assert (answer.status, is_complete(answer)) == (204, True)


@pytest.mark.rule("I-HEAD-2", "I-DIGEST-1")
def test_asking_ends_an_atomic_append(writer_and_asker: tuple[Speaker, Speaker], rng: random.Random) -> None:
    """It cannot be verified any more, so nothing of it is stored."""
    writer, asker = writer_and_asker
    fields = append(
        0, True, Content_Length=str(SIZE), Content_Digest="md5=:AAAAAAAAAAAAAAAAAAAAAA==:", Expect="100-continue"
    )
    url, stalled = begin(writer, fields, b"")
    assert stalled.read_head().status == 100
    stalled.send(rng.randbytes(400_000))
    asked = asker.request("HEAD", url, VERSION)
    assert (asked.status, asked.offset) == (204, 0)
    assert stalled.read().verdict == (409, "fenced")


@pytest.mark.rule("I-HEAD-2")
def test_asking_lets_chunks_go_on(writer_and_asker: tuple[Speaker, Speaker], rng: random.Random) -> None:
    writer, asker = writer_and_asker
    chunk = rng.randbytes(GRANULE)
    url, stalled = begin(writer, {**chunk_fields(0, chunk), "Expect": "100-continue"}, b"")
    assert stalled.read_head().status == 100
    stalled.send(chunk[:-1])
    asked = asker.request("HEAD", url, VERSION)
    assert (asked.status, asked.offset) == (204, 0)
    stalled.send(chunk[-1:])
    assert stalled.read().status == 204
    assert asker.request("HEAD", url, VERSION).offset == GRANULE


@pytest.mark.rule("I-APPEND-5")
def test_an_append_takes_over(writer_and_asker: tuple[Speaker, Speaker], rng: random.Random) -> None:
    """What the old one had brought stays; the offset is compared after that."""
    writer, other = writer_and_asker
    data = rng.randbytes(SIZE)
    url, stalled = begin(writer, append(0, True, Content_Length=str(SIZE)), data[:400_000])
    eventually(lambda: other.head(url).offset == 400_000)
    answer = other.request("PATCH", url, append(400_000, True), data[400_000:])
    assert (answer.status, is_complete(answer)) == (204, True)
    assert stalled.read().verdict == (409, "fenced")
    assert other.get(url).body == data


@pytest.mark.rule("I-HEAD-2", "T-PATCH-4")
def test_what_was_sent_before_the_offset_was_asked_for_counts(
    server: ServerProcess, speaker: Speaker, rng: random.Random
) -> None:
    """Also if whoever writes had not begun to read when the HEAD ended it."""
    for _ in range(20):
        data = rng.randbytes(60_000)
        url = speaker.create(SIZE, parallel=False)
        with Connection(server.url) as connection:
            connection.begin("PATCH", url, {**append(0, True), "Content-Length": str(SIZE)})
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionLostError):
                connection.read_head()
        asked = speaker.request("HEAD", url, VERSION)
        assert asked.offset == len(data)
