"""tus 1.0.0 over the wire: creation-defer-length, an upload whose length is said later."""

import random

import pytest
from tests.conftest import StartServer
from tests.support.speaker import GRANULE, TUS_BODY, Speaker, b64, missing, raw_digest
from tests.support.wire import Answer, Connection


def defer(speaker: Speaker) -> str:
    """An upload of unknown length; its URL."""
    answer = speaker.post(None, Upload_Defer_Length="1")
    assert answer.status == 201, answer
    return speaker.url + answer["location"]


def assert_unknown(head: Answer, offset: int) -> None:
    assert (head.status, head.offset, head["upload-defer-length"]) == (200, offset, "1")
    assert "upload-length" not in head
    assert head["upload-complete"] == "?0"


def assert_known(head: Answer, offset: int, length: int) -> None:
    assert (head.status, head.offset, head["upload-length"]) == (200, offset, str(length))
    assert "upload-defer-length" not in head


@pytest.mark.rule("T-DEFER-1")
def test_the_length_may_be_said_later(speaker: Speaker) -> None:
    assert "creation-defer-length" in speaker.request("OPTIONS", "/files")["tus-extension"].split(",")
    upload = defer(speaker)
    assert_unknown(speaker.head(upload), 0)
    assert speaker.patch(upload, 0, b"01234").verdict == (204, None)
    head = speaker.head(upload)
    assert_unknown(head, 5)
    assert missing(head) == []
    state = speaker.status(upload)
    assert (state["length"], state["offset"], state["missing"], state["ranges"]) == (None, 5, [], [[0, 5]])
    assert speaker.get(upload).verdict == (409, "not-finished")


@pytest.mark.rule("T-DEFER-1")
def test_one_and_only_one_of_the_two_is_said(speaker: Speaker) -> None:
    assert speaker.post(None).verdict == (400, "missing-field")
    assert speaker.post(5, Upload_Defer_Length="1").verdict == (400, "conflicting-fields")
    for value in ("0", "2", "true", "1, 1", "?1", "01"):
        assert speaker.post(None, Upload_Defer_Length=value).verdict == (400, "malformed-field")


@pytest.mark.parametrize("when", ["before", "with the first", "with the last", "after"])
@pytest.mark.rule("T-DEFER-2")
def test_the_length_comes_with_any_patch(speaker: Speaker, rng: random.Random, when: str) -> None:
    """The upload is complete as soon as bytes and length are there, whichever was last."""
    data = rng.randbytes(200_000)
    length = str(len(data))
    upload = defer(speaker)
    if when == "before":
        assert speaker.patch(upload, 0, b"", Upload_Length=length).verdict == (204, None)
        assert_known(speaker.head(upload), 0, len(data))
    first = {"Upload_Length": length} if when == "with the first" else {}
    assert speaker.patch(upload, 0, data[:120_000], **first).verdict == (204, None)
    last = {"Upload_Length": length} if when == "with the last" else {}
    assert speaker.patch(upload, 120_000, data[120_000:], **last).verdict == (204, None)
    if when == "after":
        assert_unknown(speaker.head(upload), len(data))
        answer = speaker.patch(upload, len(data), b"", Upload_Length=length)
        assert (answer.verdict, answer.offset) == ((204, None), len(data))
    head = speaker.head(upload)
    assert_known(head, len(data), len(data))
    assert head["upload-complete"] == "?1"
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-DEFER-2", "T-CREATE-3")
def test_it_may_turn_out_to_be_empty(speaker: Speaker) -> None:
    upload = defer(speaker)
    assert speaker.patch(upload, 0, b"", Upload_Length="0").verdict == (204, None)
    assert speaker.head(upload)["upload-complete"] == "?1"
    assert speaker.get(upload).body == b""


@pytest.mark.rule("T-DEFER-2")
def test_a_length_never_changes(speaker: Speaker) -> None:
    """Saying the same one again does no harm; another one changes nothing, also once the upload is complete."""
    upload = defer(speaker)
    assert speaker.patch(upload, 0, b"0123", Upload_Length="8").verdict == (204, None)
    assert speaker.patch(upload, 4, b"45", Upload_Length="9").verdict == (400, "conflicting-fields")
    assert_known(speaker.head(upload), 4, 8)
    assert speaker.patch(upload, 4, b"45", Upload_Length="8").verdict == (204, None)
    assert speaker.patch(upload, 6, b"67").verdict == (204, None)
    assert speaker.patch(upload, 8, b"", Upload_Length="9").verdict == (400, "conflicting-fields")
    assert speaker.patch(upload, 8, b"", Upload_Length="8").verdict == (204, None)
    assert speaker.get(upload).body == b"01234567"
    known = speaker.create(8, parallel=False)
    assert speaker.patch(known, 0, b"0", Upload_Length="7").verdict == (400, "conflicting-fields")


@pytest.mark.rule("T-DEFER-2", "T-PATCH-6")
def test_a_length_that_cannot_be_changes_nothing(start_server: StartServer) -> None:
    """Below what is stored, below what comes with it, above the limit, no number, or with a wrong offset."""
    server = start_server("--max-size", "1000")
    with Speaker(server.url) as speaker:
        upload = defer(speaker)
        assert speaker.patch(upload, 0, b"0123456789").verdict == (204, None)
        assert speaker.patch(upload, 10, b"", Upload_Length="9").verdict == (400, "out-of-bounds")
        assert speaker.patch(upload, 10, b"0123456789", Upload_Length="19").verdict == (413, "length-exceeded")
        assert speaker.patch(upload, 10, b"", Upload_Length="1001").verdict == (413, "upload-too-large")
        assert speaker.patch(upload, 10, b"", Upload_Length="-1").verdict == (400, "malformed-field")
        assert speaker.patch(upload, 9, b"", Upload_Length="20").verdict == (409, "offset-mismatch")
        assert_unknown(speaker.head(upload), 10)


@pytest.mark.rule("T-DEFER-2", "T-CHECKSUM-1")
def test_a_length_that_comes_with_a_wrong_checksum_is_not_taken(speaker: Speaker) -> None:
    upload = defer(speaker)
    wrong = f"sha1 {b64(raw_digest('sha', b'other'))}"
    answer = speaker.patch(upload, 0, b"hello", Upload_Length="5", Upload_Checksum=wrong)
    assert answer.verdict == (460, "checksum-mismatch")
    assert_unknown(speaker.head(upload), 0)
    right = f"sha1 {b64(raw_digest('sha', b'hello'))}"
    assert speaker.patch(upload, 0, b"hello", Upload_Length="5", Upload_Checksum=right).verdict == (204, None)
    assert speaker.get(upload).body == b"hello"


@pytest.mark.rule("T-DEFER-3", "T-PATCH-6")
def test_without_a_length_the_largest_upload_is_the_end(start_server: StartServer, rng: random.Random) -> None:
    """Refused by its head where that tells it, and otherwise after the bytes up to there were stored."""
    server = start_server("--max-size", "100000")
    with Speaker(server.url) as speaker:
        data = rng.randbytes(100_001)
        upload = defer(speaker)
        assert speaker.patch(upload, 0, data).verdict == (413, "upload-too-large")
        assert_unknown(speaker.head(upload), 0)
        with Connection(speaker.url) as connection:
            fields = {**TUS_BODY, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
            connection.begin("PATCH", upload, fields)
            connection.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
            assert connection.read().verdict == (413, "upload-too-large")
        assert_unknown(speaker.head(upload), 100_000)
        assert speaker.patch(upload, 100_000, b"", Upload_Length="100000").verdict == (204, None)
        assert speaker.get(upload).body == data[:-1]
        answer = speaker.post(None, body=data, Upload_Defer_Length="1")
        assert answer.verdict == (413, "upload-too-large")


@pytest.mark.rule("T-DEFER-1", "T-CREATE-4")
def test_bytes_may_come_with_the_creation(speaker: Speaker) -> None:
    answer = speaker.post(None, body=b"hello ", Upload_Defer_Length="1")
    assert (answer.status, answer.offset) == (201, 6)
    upload = speaker.url + answer["location"]
    assert_unknown(speaker.head(upload), 6)
    assert speaker.patch(upload, 6, b"world", Upload_Length="11").status == 204
    assert speaker.get(upload).body == b"hello world"


@pytest.mark.rule("T-DEFER-4", "C-MIX-1")
def test_parallel_chunks_wait_for_the_length(speaker: Speaker, rng: random.Random) -> None:
    """Refused with a sentence that says what to do, and welcome once it was done; the granule follows from it."""
    data = rng.randbytes(3 * GRANULE + 17)
    upload = defer(speaker)
    assert speaker.patch(upload, 0, data[:1000]).status == 204
    assert speaker.chunk(upload, GRANULE, data[GRANULE : 2 * GRANULE]).verdict == (409, "length-unknown")
    assert speaker.complete(upload).verdict == (409, "length-unknown")
    answer = speaker.post(None, parallel=True, Upload_Defer_Length="1")
    assert answer.verdict == (400, "conflicting-fields")
    assert speaker.patch(upload, 1000, b"", Upload_Length=str(len(data))).status == 204
    for start in (3 * GRANULE, GRANULE, 2 * GRANULE, 0):
        assert speaker.chunk(upload, start, data[start : start + GRANULE]).verdict == (204, None)
    assert speaker.complete(upload).verdict == (204, None)
    assert speaker.get(upload).body == data


@pytest.mark.rule("T-DEFER-4")
def test_a_long_length_brings_a_large_granule(start_server: StartServer) -> None:
    server = start_server(overcommit=True)
    with Speaker(server.url) as speaker:
        upload = defer(speaker)
        assert speaker.patch(upload, 0, b"", Upload_Length=str(1 << 40)).status == 204
        assert speaker.head(upload)["upload-parallel"].startswith("?1;granule=1048576;")


@pytest.mark.rule("T-DEFER-1")
def test_it_survives_a_kill(start_server: StartServer) -> None:
    server = start_server()
    with Speaker(server.url) as speaker:
        upload = defer(speaker)
        assert speaker.patch(upload, 0, b"01234").status == 204
        server.kill()
        server.start()
        assert_unknown(speaker.head(upload), 5)
        answer = speaker.request("PATCH", upload, {**TUS_BODY, "Upload-Offset": "5", "Upload-Length": "5"}, b"")
        assert answer.verdict == (204, None)
        assert speaker.get(upload).body == b"01234"
