"""The IETF draft over the wire: files of which nobody knows the length before the last byte has come."""

import random

import pytest
from tests.conftest import StartServer
from tests.support.drafts import IANA, NEWEST, VERSIONS, append, chunked, create, is_complete, limits, version_field
from tests.support.process import ServerProcess
from tests.support.speaker import GRANULE, TUS, Speaker, digest
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def begin(speaker: Speaker, version: int | None = NEWEST, body: bytes = b"") -> str:
    """An upload that was created without any length, with the beginning of the file if there is a body; its URL."""
    answer = speaker.request("POST", "/files", create(False, version), body)
    assert answer.status == 201, answer
    assert (answer.offset, is_complete(answer, version or NEWEST)) == (len(body), False)
    return speaker.url + answer["location"]


def send(
    speaker: Speaker, url: str, offset: int, pieces: tuple[bytes, ...], complete: bool, version: int = NEWEST
) -> Answer:
    """An append of which no field says how long it is."""
    fields = append(offset, complete, version, Transfer_Encoding="chunked")
    return speaker.request("PATCH", url, fields, chunked(*pieces))


def ask(speaker: Speaker, url: str, version: int = NEWEST) -> Answer:
    return speaker.request("HEAD", url, version_field(version))


def assert_open(speaker: Speaker, url: str, offset: int, version: int = NEWEST) -> None:
    asked = ask(speaker, url, version)
    assert (asked.status, asked.offset, is_complete(asked, version)) == (204, offset, False)
    assert "upload-length" not in asked
    assert speaker.head(url)["upload-defer-length"] == "1"
    assert speaker.status(url)["length"] is None


@EVERY_VERSION
@pytest.mark.rule("I-CREATE-1", "I-CREATE-2", "I-LENGTH-4", "I-APPEND-1")
def test_a_stream_from_an_empty_creation(speaker: Speaker, version: int) -> None:
    """Nothing at first, then pieces, then the last one, which says that it is."""
    url = begin(speaker, version)
    assert_open(speaker, url, 0, version)
    first = send(speaker, url, 0, (b"01", b"234"), False, version)
    assert first.status == (201 if version < 8 else 204)
    assert (first.offset, is_complete(first, version)) == (5, False)
    assert_open(speaker, url, 5, version)
    last = send(speaker, url, 5, (b"5", b"6789"), True, version)
    assert (last.status, last.offset, is_complete(last, version)) == (204, 10, True)
    asked = ask(speaker, url, version)
    assert (asked["upload-length"], is_complete(asked, version)) == ("10", True)
    assert "upload-defer-length" not in speaker.head(url)
    assert speaker.get(url).body == b"0123456789"


@EVERY_VERSION
@pytest.mark.rule("I-CREATE-1", "I-CREATE-2", "I-LENGTH-4")
def test_a_stream_in_one_request(speaker: Speaker, rng: random.Random, version: int) -> None:
    data = rng.randbytes(300_000)
    fields = create(True, version, Transfer_Encoding="chunked")
    answer = speaker.request("POST", "/files", fields, chunked(data[:100_000], data[100_000:]))
    assert (answer.status, answer.offset, is_complete(answer, version)) == (201, len(data), True)
    assert ask(speaker, answer["location"], version)["upload-length"] == str(len(data))
    assert speaker.get(answer["location"]).body == data


@EVERY_VERSION
@pytest.mark.parametrize("known", [True, False], ids=["with a length", "without"])
@pytest.mark.rule("I-CREATE-1", "I-CREATE-2", "I-LENGTH-4")
def test_the_beginning_of_a_stream_with_the_creation(speaker: Speaker, version: int, known: bool) -> None:
    """The body of the creation may have a length of its own; that is not the length of the file."""
    if known:
        url = begin(speaker, version, b"01234")
    else:
        fields = create(False, version, Transfer_Encoding="chunked")
        answer = speaker.request("POST", "/files", fields, chunked(b"01", b"234"))
        assert (answer.status, answer.offset, is_complete(answer, version)) == (201, 5, False)
        url = speaker.url + answer["location"]
    assert_open(speaker, url, 5, version)
    answer = speaker.request("PATCH", url, append(5, True, version), b"56789")
    assert (answer.status, is_complete(answer, version)) == (204, True)
    assert speaker.get(url).body == b"0123456789"


@pytest.mark.rule("I-LENGTH-4", "I-APPEND-3")
def test_an_empty_append_says_that_it_was_all(speaker: Speaker) -> None:
    for body in ({"Content_Length": "0"}, {"Transfer_Encoding": "chunked"}):
        for data in (b"", b"whole"):
            url = begin(speaker, NEWEST, data)
            fields = append(len(data), True, NEWEST, **body)
            answer = speaker.request("PATCH", url, fields, chunked() if "Transfer_Encoding" in body else b"")
            assert (answer.status, answer.offset, is_complete(answer)) == (204, len(data), True)
            assert speaker.get(url).body == data


@pytest.mark.rule("I-LENGTH-4", "I-CREATE-5")
def test_a_stream_that_turns_out_to_be_empty(speaker: Speaker) -> None:
    answer = speaker.request("POST", "/files", create(True, Transfer_Encoding="chunked"), chunked())
    assert (answer.status, answer.offset, is_complete(answer)) == (201, 0, True)
    assert speaker.get(answer["location"]).body == b""


@pytest.mark.rule("I-LENGTH-4")
def test_the_length_may_be_said_before_the_end(speaker: Speaker) -> None:
    url = begin(speaker)
    answer = speaker.request("PATCH", url, append(0, False, Upload_Length="10"), b"01234")
    assert (answer.status, is_complete(answer)) == (204, False)
    assert ask(speaker, url)["upload-length"] == "10"
    assert send(speaker, url, 5, (b"56789",), True).status == 204
    assert speaker.get(url).body == b"0123456789"


@EVERY_VERSION
@pytest.mark.rule("I-LENGTH-4", "I-APPEND-5", "I-APPEND-3")
def test_a_stream_that_is_cut_off_leaves_the_length_open(
    server: ServerProcess, speaker: Speaker, rng: random.Random, version: int
) -> None:
    """Every byte came, but not the end: it might have been more."""
    data = rng.randbytes(200_000)
    url = begin(speaker, version)
    with Connection(server.url) as connection:
        connection.begin("PATCH", url, append(0, True, version, Transfer_Encoding="chunked"))
        connection.send(chunked(data, last=False))
        eventually(lambda: speaker.request("HEAD", url, TUS).offset == len(data))
    assert_open(speaker, url, len(data), version)
    answer = send(speaker, url, len(data), (b"more",), True, version)
    assert (answer.status, is_complete(answer, version)) == (204, True)
    assert speaker.get(url).body == data + b"more"


@pytest.mark.rule("I-LENGTH-4")
def test_a_last_part_that_is_cut_off_has_said_the_length(server: ServerProcess, speaker: Speaker) -> None:
    url = begin(speaker)
    with Connection(server.url) as connection:
        connection.begin("PATCH", url, append(0, True, Content_Length="10"))
        connection.send(b"01234")
        eventually(lambda: speaker.request("HEAD", url, TUS).offset == 5)
    asked = ask(speaker, url)
    assert (asked.offset, asked["upload-length"], is_complete(asked)) == (5, "10", False)
    assert send(speaker, url, 5, (b"56789",), True).status == 204


@pytest.mark.rule("I-LENGTH-1", "I-LENGTH-4")
def test_lengths_that_contradict_what_is_there(speaker: Speaker) -> None:
    """They change nothing, whoever says them: the field, or the body that is the last one."""
    url = begin(speaker, NEWEST, b"01234")
    for fields, body in (
        (append(5, False, Upload_Length="4"), b""),
        (append(5, True, Upload_Length="8"), b"56"),
        (append(5, True, Upload_Length="6"), b"56"),
        (append(5, False, Upload_Length="6"), b"56"),
    ):
        answer = speaker.request("PATCH", url, fields, body)
        assert answer.verdict == (400, "inconsistent-upload-length")
        assert answer.json()["type"] == IANA + "inconsistent-upload-length"
        assert (answer.offset, is_complete(answer)) == (5, False)
        assert_open(speaker, url, 5)
    assert send(speaker, url, 5, (b"56",), True).status == 204


@EVERY_VERSION
@pytest.mark.rule("I-LENGTH-3", "I-LENGTH-4")
def test_a_stream_beyond_the_length_that_it_has_said(speaker: Speaker, version: int) -> None:
    url = begin(speaker, version)
    fields = append(0, True, version, Upload_Length="5", Transfer_Encoding="chunked")
    answer = speaker.request("PATCH", url, fields, chunked(b"0123", b"45"))
    assert answer.verdict == (400, "inconsistent-upload-length")
    if version >= 8:
        assert ask(speaker, url, version).status == 409
    else:
        assert ask(speaker, url, version)["upload-length"] == "5"


@pytest.mark.rule("I-LENGTH-4", "I-DIGEST-1")
def test_a_stream_with_a_digest(speaker: Speaker) -> None:
    """A wrong one says nothing about the length either."""
    url = begin(speaker)
    fields = append(0, True, Transfer_Encoding="chunked", Content_Digest=digest(b"other"))
    assert speaker.request("PATCH", url, fields, chunked(b"whole")).verdict == (400, "digest-mismatch")
    assert_open(speaker, url, 0)
    fields["Content-Digest"] = digest(b"whole")
    answer = speaker.request("PATCH", url, fields, chunked(b"who", b"le"))
    assert (answer.status, is_complete(answer)) == (204, True)
    assert speaker.get(url).body == b"whole"


@pytest.mark.rule("I-LENGTH-4", "I-LIMIT-1", "I-CREATE-2")
def test_the_largest_upload_is_the_end_of_a_stream(start_server: StartServer) -> None:
    """By the head where that tells it, else when the first byte too many comes; the limit is told."""
    server = start_server("--max-size", "1000")
    with Speaker(server.url) as speaker:
        for body, fields in ((b"x" * 1001, create(False)), (b"", create(False, Upload_Length="1001"))):
            refused = speaker.request("POST", "/files", fields, body)
            assert refused.verdict == (413, "upload-too-large")
            assert "location" not in refused
        url = begin(speaker)
        for fields, body in (
            (append(0, True), b"x" * 1001),
            (append(0, False), b"x" * 1001),
            (append(0, False, Upload_Length="1001"), b""),
        ):
            answer = speaker.request("PATCH", url, fields, body)
            assert answer.verdict == (413, "upload-too-large")
            assert limits(answer)["max-size"] == 1000
            assert_open(speaker, url, 0)
        answer = send(speaker, url, 0, (b"x" * 600, b"x" * 401), True)
        assert (answer.verdict, answer.offset) == ((413, "upload-too-large"), 1000)
        assert_open(speaker, url, 1000)
        assert speaker.request("PATCH", url, append(1000, True), b"").status == 204


@pytest.mark.rule("I-LENGTH-4", "I-MIX-1", "T-DEFER-2", "T-DEFER-4")
def test_dialects_share_an_open_length(speaker: Speaker, rng: random.Random) -> None:
    """Begun by one and settled by the other, both ways; chunks are welcome from then on."""
    data = rng.randbytes(2 * GRANULE)
    url = begin(speaker)
    assert speaker.chunk(url, GRANULE, data[GRANULE:]).verdict == (409, "length-unknown")
    assert speaker.patch(url, 0, b"", Upload_Length=str(len(data))).status == 204
    assert speaker.chunk(url, GRANULE, data[GRANULE:]).status == 204
    assert speaker.request("PATCH", url, append(0, False), data[:GRANULE]).offset == len(data)
    assert speaker.request("PATCH", url, append(len(data), True), b"").status == 204
    assert speaker.get(url).body == data

    answer = speaker.post(None, Upload_Defer_Length="1")
    url = speaker.url + answer["location"]
    assert speaker.patch(url, 0, b"01234").status == 204
    answer = send(speaker, url, 5, (b"56789",), True)
    assert (answer.status, is_complete(answer)) == (204, True)
    assert speaker.get(url).body == b"0123456789"


@pytest.mark.rule("I-LENGTH-4", "I-APPEND-5")
def test_a_kill_leaves_the_length_open(start_server: StartServer) -> None:
    server = start_server()
    with Speaker(server.url) as speaker:
        url = begin(speaker, NEWEST, b"01234")
        server.kill()
        server.start()
        assert_open(speaker, url, 5)
        assert send(speaker, url, 5, (b"56789",), True).status == 204
        assert speaker.get(url).body == b"0123456789"
